"""From manifest rows to batches, with bad utterances set aside by name."""

from dataclasses import dataclass
from functools import partial

import torch
from speechbrain.dataio.batch import PaddedBatch, PaddedData
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.logger import get_logger
from torch.nn.functional import pad

from speechbrain_mser.dataio.audio import AudioError, load_audio
from speechbrain_mser.dataio.bad_utterances import BadUtterance
from speechbrain_mser.dataio.loader_workers import (
    share,
)
from speechbrain_mser.errors import InputError
from speechbrain_mser.features.records import DamagedFeaturesError
from speechbrain_mser.features.store import UtteranceKey
from speechbrain_mser.files.fingerprints import file_identity

logger = get_logger(__name__)


@dataclass(frozen=True)
class StoredUtterance:
    """An utterance that a feature store knows or will know.

    Arguments
    ---------
    key : UtteranceKey
        Its name in the store.
    features : torch.Tensor, optional
        ``[frames, dim]`` or ``[layers, frames, dim]``, if it was there.
    wav : torch.Tensor, optional
        ``[time]``, if it was not.
    """

    key: UtteranceKey
    features: torch.Tensor | None = None
    wav: torch.Tensor | None = None


class UtteranceBatch(PaddedBatch):
    """A padded batch of the utterances that could be read.

    Its other attributes are a manifest's columns (``batch.gender``): lists of
    str, and ``duration`` a tensor.

    A broken file among a hundred thousand should not end a week of training
    unless it is asked to; it is reported by ID instead. The batch is built in
    a worker process, so what is bad travels with it.

    Attributes
    ----------
    sig : PaddedData or None
        ``[n, time]`` and relative lengths of the utterances to be encoded.
    stored : PaddedData or None
        ``[n, frames, dim]`` or ``[n, layers, frames, dim]`` and relative
        lengths of those whose features were in the store.
    keys : list of UtteranceKey or None
        Of all utterances, in order; None without a store.
    rows : dict
        "sig" and "stored" to their utterances' positions in the batch.
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
        self._columns = [name for name in examples[0] if name != "sig"]
        if good:
            super().__init__(
                [{name: e[name] for name in self._columns} for e in good]
            )
            self._collate([e["sig"] for e in good])
        self.bad = bad

    def _collate(self, signals):
        if isinstance(signals[0], torch.Tensor):
            self.keys = None
            wavs = dict(enumerate(signals))
            stored = {}
        else:
            self.keys = [signal.key for signal in signals]
            wavs, stored = (
                {
                    row: getattr(signal, name)
                    for row, signal in enumerate(signals)
                    if getattr(signal, name) is not None
                }
                for name in ("wav", "features")
            )
        self.rows = {"sig": list(wavs), "stored": list(stored)}
        self.sig = pad_together(list(wavs.values()), -1) if wavs else None
        self.stored = (
            pad_together(list(stored.values()), -2) if stored else None
        )

    def set_aside(self, reasons):
        """Take utterances out of the batch, in place.

        Arguments
        ---------
        reasons : dict
            Position in the batch to what is wrong with the utterance; goes to
            ``bad``.
        """
        if not reasons:
            return
        self.bad += [
            BadUtterance(self.id[row], reason)
            for row, reason in reasons.items()
        ]
        kept = [row for row in range(len(self)) if row not in reasons]
        places = {row: place for place, row in enumerate(kept)}
        for name in self._columns:
            values = getattr(self, name)
            if isinstance(values, torch.Tensor):
                setattr(self, name, values[kept])
            else:
                setattr(self, name, [values[row] for row in kept])
        if self.keys is not None:
            self.keys = [self.keys[row] for row in kept]
        for name, rows in self.rows.items():
            at = [i for i, row in enumerate(rows) if row in places]
            padded = getattr(self, name)
            if padded is not None:
                padded = PaddedData(padded.data[at], padded.lengths[at])
                setattr(self, name, padded if at else None)
            self.rows[name] = [places[rows[i]] for i in at]
        self._size = len(kept)

    def __len__(self):
        return self._size

    def to(self, *args, **kwargs):
        """Move the tensors; an empty batch has none."""
        return self._each("to", *args, **kwargs)

    def pin_memory(self):
        """Pin the tensors; an empty batch has none."""
        return self._each("pin_memory")

    def _each(self, method, *args, **kwargs):
        if self._size:
            getattr(super(), method)(*args, **kwargs)
            for name in self.rows:
                padded = getattr(self, name)
                if padded is not None:
                    moved = [
                        getattr(t, method)(*args, **kwargs) for t in padded
                    ]
                    setattr(self, name, PaddedData(*moved))
        return self


def collate(examples):
    """A batch, where a `DataLoader`'s worker can send it off.

    Arguments
    ---------
    examples : list of dict
        Items of `make_dataset`.

    Returns
    -------
    UtteranceBatch
        Made of them.

    Raises
    ------
    RuntimeError
        In a worker, if its shared memory is used up.
    """
    batch = UtteranceBatch(examples)
    share(vars(batch).values())
    return batch


def pad_together(tensors, axis):
    """Tensors that differ in one axis as a batch.

    Arguments
    ---------
    tensors : list of torch.Tensor
        At least one.
    axis : int
        The axis, counted from the end: -1 is the last.

    Returns
    -------
    speechbrain.dataio.batch.PaddedData
        ``data`` with zeros at the axis's end, and relative ``lengths``.

    Example
    -------
    >>> pad_together([torch.ones(1, 2), torch.ones(2, 2)], -2).lengths
    tensor([0.5000, 1.0000])
    """
    sizes = [tensor.shape[axis] for tensor in tensors]
    longest = max(sizes)
    other_axes = [0, 0] * (-1 - axis)
    data = torch.stack(
        [
            pad(tensor, (*other_axes, 0, longest - size))
            for tensor, size in zip(tensors, sizes, strict=True)
        ]
    )
    return PaddedData(data, torch.tensor([n / longest for n in sizes]))


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
        # Not info: before a training begins to log, nobody would see it.
        logger.warning(
            "left out, emotion not among the labels: %s",
            ", ".join(f"{n} {emotion}" for emotion, n in left_out.items()),
        )
    if not chosen.any():
        raise InputError(
            f"no utterance has an emotion among {', '.join(labels or ['any'])}"
        )
    return kept[chosen]


def read_stored(utterance, wav, start, stop, store):
    """An utterance's features where they are stored, else its audio.

    Arguments
    ---------
    utterance, wav, start, stop
        As for `read_signal`.
    store : FeatureStore
        Where to look.

    Returns
    -------
    StoredUtterance or BadUtterance
        With features or with audio.
    """
    try:
        key = store.key(wav, start, stop)
    except OSError as error:
        # What is wrong is said as without a store.
        found = read_signal(utterance, wav, start, stop)
        if isinstance(found, BadUtterance):
            return found
        return BadUtterance(utterance, f"{wav}: {error.strerror}")
    try:
        features = store.get(key)
    except DamagedFeaturesError as error:
        logger.warning(
            "utterance %s: its stored features are damaged (%s), it is "
            "encoded again",
            utterance,
            error,
        )
        features = None
    if features is not None:
        return StoredUtterance(key, features=features)
    found = read_signal(utterance, wav, start, stop)
    if isinstance(found, BadUtterance):
        return found
    try:
        # Else what another process writes at this moment would be stored
        # under what was there before.
        if file_identity(wav) != key.file:
            return BadUtterance(utterance, f"{wav}: changed while it was read")
    except OSError as error:
        return BadUtterance(utterance, f"{wav}: {error.strerror}")
    return StoredUtterance(key, wav=found)


# Columns that say where the audio is, and names that a batch has already.
PLACE = ("wav", "start", "stop")
TAKEN = {"sig", "stored", "keys", "rows", "bad", "features"}
TAKEN |= set(dir(UtteranceBatch))


def make_dataset(table, store=None):
    """A SpeechBrain dataset of utterances, with the signal read on demand.

    Arguments
    ---------
    table : pandas.DataFrame
        As `dataio.manifest.read_manifest` returns, paths resolved.
    store : FeatureStore, optional
        Where the encoder's features may be found instead of audio.

    Returns
    -------
    speechbrain.dataio.dataset.DynamicItemDataset
        Items ``id``, ``sig`` (``[time]``, with a store a `StoredUtterance`,
        or a `BadUtterance`), and every column of the table but those that say
        where the audio is.

    Raises
    ------
    InputError
        A column of one's own has a name that means something else in a batch.
    """
    rows = table.rename(columns={"ID": "id"}).set_index("id", drop=False)
    data = rows.drop(columns="id").to_dict("index")
    dataset = DynamicItemDataset(data)
    read = read_signal if store is None else partial(read_stored, store=store)
    dataset.add_dynamic_item(
        read, takes=["id", "wav", "start", "stop"], provides="sig"
    )
    columns = [name for name in rows if name not in ("id", *PLACE)]
    taken = [name for name in columns if name in TAKEN]
    if taken:
        raise InputError(
            f"a manifest's column cannot be called {', '.join(taken)}, which "
            "is something else in a batch: rename it"
        )
    dataset.set_output_keys(["id", "sig", *columns])
    return dataset
