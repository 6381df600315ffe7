"""Shards that wait for a worker: the loop that all executors share."""

import traceback
from collections import deque

from speechbrain_mser.errors import InputError
from speechbrain_mser.synthesis.shard import Outcome


def run_queue(workers, shards, max_attempts, wait):
    """Hand out shards until each is made or given up.

    What failed is begun again when all others were: they may be well.

    Arguments
    ---------
    workers : list
        Each has ``job``, a shard and the number of its attempt, or None;
        ``is_free()``; ``begin(job)``, which sets it; and ``answer()``, as
        `attempt` gave it where the worker is.
    shards : iterable of Shard
        Asked for one by one, one ahead.
    max_attempts : int
        How often a shard is begun.
    wait : callable
        From the workers to those with an answer, if any came in a while.

    Yields
    ------
    Outcome
        One for each shard, in the order in which they end.

    Raises
    ------
    InputError
        Nobody shall work, or a worker says that nothing can be made.
    """
    if not workers or max_attempts < 1:
        raise InputError(
            f"n_workers is {len(workers)} and max_attempts is {max_attempts}; "
            "both must be at least 1"
        )
    fresh, again = ((shard, 1) for shard in shards), deque()
    job = next(fresh, None)
    while job or any(worker.job for worker in workers):
        for worker in workers:
            if job and worker.is_free():
                worker.begin(job)
                job = next(fresh, None) or (again.popleft() if again else None)
        for worker in wait(workers):
            (shard, number), worker.job = worker.job, None
            kind, content = worker.answer()
            if kind == "refused":
                raise InputError(content)
            if kind == "made":
                yield Outcome(shard.name, content, "")
            elif number == max_attempts:
                yield Outcome(shard.name, None, content)
            elif job:
                again.append((shard, number + 1))
            else:
                job = shard, number + 1


def attempt(work, shard):
    """Make a shard; runs where a worker is.

    Arguments
    ---------
    work : ShardWork
        Makes it.
    shard : Shard
        Which one.

    Returns
    -------
    kind : str
        ``made``; ``refused``, when the run must end; or ``failed``, when the
        worker must be replaced.
    content : dict or str
        The receipt, or why there is none.
    """
    try:
        return "made", work.make(shard)
    except InputError as error:
        return "refused", str(error)
    except Exception:
        return "failed", traceback.format_exc()
