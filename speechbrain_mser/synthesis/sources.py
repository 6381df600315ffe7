"""Sources in batches of similar duration, read while others are translated."""

from collections import deque

from speechbrain_mser.dataio.audio import AudioError, load_samples
from speechbrain_mser.synthesis.backend import SourceUtterance

# Batches that are read before they are needed: bounds the memory.
_AHEAD = 2


def make_batches(durations, batch_size, batch_seconds):
    """Numbers of utterances of similar duration, the longest first.

    Arguments
    ---------
    durations : list of float
        Seconds.
    batch_size, batch_seconds
        As for `shard.ShardWork`.

    Returns
    -------
    list of list of int
        Every number once.

    Example
    -------
    >>> make_batches([1.0, 9.0, 2.0, 8.0, 1.0], 3, 17.9)
    [[1], [3, 2], [0, 4]]
    """
    order = sorted(range(len(durations)), key=lambda k: (-durations[k], k))
    batches = []
    for number in order:
        if batches and len(batches[-1]) < batch_size:
            longest = durations[batches[-1][0]]
            if longest * (len(batches[-1]) + 1) <= batch_seconds:
                batches[-1].append(number)
                continue
        batches.append([number])
    return batches


def read_ahead(reader, batches, tasks):
    """Read sources in a thread, some batches before they are needed.

    Arguments
    ---------
    reader : concurrent.futures.Executor
        The thread.
    batches : list of list of int
        Numbers of tasks.
    tasks : list of Task
        All of a shard.

    Yields
    ------
    batch : list of int
        As given.
    sources : list
        A `SourceUtterance` for each; a str says why there is none.
    """
    waiting = deque()
    for batch in batches:
        chosen = [tasks[number] for number in batch]
        waiting.append(
            (batch, reader.submit(lambda c: [*map(_read, c)], chosen))
        )
        if len(waiting) > _AHEAD:
            batch, sources = waiting.popleft()
            yield batch, sources.result()
    for batch, sources in waiting:
        yield batch, sources.result()


def _read(task):
    try:
        samples = load_samples(task.wav, task.start, task.stop)
    except (AudioError, OSError) as error:
        # Where the corpora lie is no business of the rows.
        return str(error).removeprefix(f"{task.wav}: ")
    return SourceUtterance(
        task.ID, samples, task.text, task.emotion, task.speaker
    )
