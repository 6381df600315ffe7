"""Batches of utterances, with bad ones set aside by name."""

import torch
from speechbrain.dataio.batch import PaddedBatch, PaddedData
from speechbrain.utils.logger import get_logger
from torch.nn.functional import pad

from speechbrain_mser.dataio.bad_utterances import BadUtterance
from speechbrain_mser.dataio.loader_workers import share

logger = get_logger(__name__)


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
