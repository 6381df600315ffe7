"""From manifest rows to batches, with bad utterances set aside by name."""

from dataclasses import dataclass

from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.logger import get_logger

from speechbrain_mser.dataio.audio import AudioError, load_audio
from speechbrain_mser.errors import InputError

logger = get_logger(__name__)


@dataclass(frozen=True)
class BadUtterance:
    """An utterance that could not be read, in place of its signal.

    Arguments
    ---------
    utterance : str
        Its ID.
    reason : str
        What is wrong with it.
    """

    utterance: str
    reason: str


class UtteranceBatch(PaddedBatch):
    """A padded batch of the utterances that could be read.

    A broken file among a hundred thousand should not end a week of training
    unless it is asked to; it is reported by ID instead. The batch is built in
    a worker process, so what is bad travels with it.

    Attributes
    ----------
    bad : list of BadUtterance
        What was left out. A batch of nothing else has ``len(batch) == 0``
        and no other attributes.

    Example
    -------
    >>> import torch
    >>> batch = UtteranceBatch([
    ...     {"id": "a", "sig": torch.zeros(2)},
    ...     {"id": "b", "sig": BadUtterance("b", "no such file")},
    ... ])
    >>> batch.id, batch.bad[0].reason
    (['a'], 'no such file')
    """

    def __init__(self, examples):
        bad = [e["sig"] for e in examples if isinstance(e["sig"], BadUtterance)]
        good = [e for e in examples if not isinstance(e["sig"], BadUtterance)]
        self._size = len(good)
        if good:
            super().__init__(good)
        self.bad = bad

    def __len__(self):
        return self._size

    def to(self, *args, **kwargs):
        """Move the tensors; an empty batch has none."""
        return super().to(*args, **kwargs) if self._size else self

    def pin_memory(self):
        """Pin the tensors; an empty batch has none."""
        return super().pin_memory() if self._size else self


def read_signal(utterance, wav, start, stop):
    """Load an utterance's audio, or say what is wrong with it.

    Arguments
    ---------
    utterance : str
        The ID.
    wav : str
        The file.
    start : float
        Seconds; NaN for the beginning.
    stop : float
        Seconds; NaN for the end.

    Returns
    -------
    torch.Tensor or BadUtterance
        ``[time]`` at 16 kHz.

    Example
    -------
    >>> read_signal("x", "/no/such.wav", float("nan"), float("nan")).reason
    '/no/such.wav: no such file'
    """
    try:
        return load_audio(wav, start, stop)
    except AudioError as error:
        return BadUtterance(utterance, str(error))


def select_utterances(table, split=None, languages=None, labels=None):
    """Take the rows that an experiment uses, and log what is left out.

    Arguments
    ---------
    table : pandas.DataFrame
        As `dataio.manifest.read_manifest` returns.
    split : str, optional
        Only this split.
    languages : str or list of str, optional
        Only this language or these (ISO 639-3).
    labels : list of str, optional
        Only these emotions; an utterance without an emotion is never taken.

    Returns
    -------
    pandas.DataFrame
        At least one row.

    Raises
    ------
    InputError
        Nothing is left.

    Example
    -------
    >>> import pandas
    >>> table = pandas.DataFrame({"split": ["train", "test"],
    ...     "language": "eng", "emotion": ["happy", "calm"]})
    >>> len(select_utterances(table, split="train"))
    1
    """
    if isinstance(languages, str):
        languages = [languages]
    kept = table
    for name, wanted in (
        ("split", None if split is None else [split]),
        ("language", languages),
    ):
        if wanted is not None:
            found = sorted(set(kept[name]))
            kept = kept[kept[name].isin(wanted)]
            if kept.empty:
                raise InputError(
                    f"no utterance has {name} {', '.join(wanted)}; the "
                    f"manifests have {', '.join(found)}"
                )
    chosen = kept.emotion != "" if labels is None else kept.emotion.isin(labels)
    left_out = kept.emotion[~chosen].replace("", "(no emotion)").value_counts()
    if len(left_out):
        logger.info(
            "left out, emotion not among the labels: %s",
            ", ".join(f"{n} {emotion}" for emotion, n in left_out.items()),
        )
    if not chosen.any():
        raise InputError(
            f"no utterance has an emotion among {', '.join(labels or ['any'])}"
        )
    return kept[chosen]


def make_dataset(table):
    """A SpeechBrain dataset of utterances, with the signal read on demand.

    Arguments
    ---------
    table : pandas.DataFrame
        As `dataio.manifest.read_manifest` returns, paths resolved.

    Returns
    -------
    speechbrain.dataio.dataset.DynamicItemDataset
        Items ``id``, ``sig`` (``[time]`` or a `BadUtterance`), ``emotion``
        and ``duration``.
    """
    rows = table.rename(columns={"ID": "id"}).set_index("id", drop=False)
    data = rows.drop(columns="id").to_dict("index")
    dataset = DynamicItemDataset(data)
    dataset.add_dynamic_item(
        read_signal, takes=["id", "wav", "start", "stop"], provides="sig"
    )
    dataset.set_output_keys(["id", "sig", "emotion", "duration"])
    return dataset
