"""Batches of similar length, the emotions balanced as far as is asked for."""

import numpy as np
import torch
from torch.utils.data import Sampler

from speechbrain_mser import distributed
from speechbrain_mser.errors import InputError

# By which part of themselves durations vary from epoch to epoch where they are
# put in order, so that an utterance does not always meet the same ones.
JITTER = 0.05
# The fewest batches that are put in order together.
FEWEST = 8


class LengthBatchSampler(Sampler):
    """Batches of utterances that are alike in length, in random order.

    With ``balance`` 0 each utterance comes once in an epoch. With 1 the
    emotions have equal shares of as many: of a rare one the utterances come
    again, equally often give or take one and seldom in the same batch; of a
    frequent one each epoch takes up where the last one ended.

    The batches depend on ``seed`` and epoch alone. Every process of a
    distributed run makes the same ones and takes its part of each, which is
    never empty: of too small a batch some have the same utterance.

    Arguments
    ---------
    durations : list of float
        One per utterance, in the order of the dataset; seconds.
    emotions : list of str
        One per utterance.
    batch_size : int
        Utterances in a batch, per process; the shortest may have fewer.
    balance : float
        From 0 to 1: an emotion of n utterances has a share as n^(1 - balance).
    alike : bool
        Whether the utterances of a batch are alike in length. Where each is
        one frame, its mean over time, nothing is padded, and batches in any
        order say more about all.
    copies : int
        Behind the n utterances the dataset has so many times n copies, in the
        same order (`with_copies`): an utterance comes as it was recorded half
        of the time, else as one of its copies, drawn at random.
    seed : int
        Not negative.
    rank, world_size : int, optional
        Which process this is, and of how many; else torch knows.

    Raises
    ------
    InputError
        A setting or a duration that cannot be used, or no utterance.

    Example
    -------
    >>> durations = [1.0, 5.0, 1.1, 5.1]
    >>> batches = LengthBatchSampler(durations, ["sad"] * 4, batch_size=2)
    >>> sorted(sorted(batch) for batch in batches)
    [[0, 2], [1, 3]]
    """

    def __init__(
        self,
        durations,
        emotions,
        batch_size,
        balance=0.0,
        alike=True,
        copies=0,
        seed=0,
        rank=None,
        world_size=None,
    ):
        self.durations = np.asarray(durations, dtype=float)
        _check(self.durations, emotions, batch_size, balance)
        self.alike, self.copies = alike, copies
        self.seed, self.epoch = seed, 0
        running = distributed.world_size()
        if rank is None:
            rank = torch.distributed.get_rank() if running > 1 else 0
        self.rank, self.world_size = rank, world_size or running
        self.batch_size = batch_size * self.world_size
        _, emotion, counts = np.unique(
            emotions, return_inverse=True, return_counts=True
        )
        # Of an emotion's utterances in random order each epoch takes the next.
        order = np.random.default_rng(seed).permutation(len(emotion))
        order = order[np.argsort(emotion[order], kind="stable")]
        self.utterances = np.split(order, counts.cumsum()[:-1])
        shares = (counts ** (1.0 - balance)).cumsum()
        ends = np.rint(len(emotion) * shares / shares[-1]).astype(int)
        # One at least, however rare.
        self.slots = np.maximum(np.diff(ends, prepend=0), 1)
        # An utterance comes again in another part of the epoch.
        times = np.ceil(self.slots / counts).astype(int).max()
        self.n_parts = max(1, min(times, len(self) // FEWEST))

    def set_epoch(self, epoch):
        """Say which epoch is next, from 0; SpeechBrain's `Brain` does."""
        self.epoch = epoch

    def __len__(self):
        return int(-(-self.slots.sum() // self.batch_size))

    def __iter__(self):
        # Made here, not at the first batch: the epoch is that of this moment.
        random = np.random.default_rng((self.seed, self.epoch))
        drawn, part = [], []
        for utterances, n in zip(self.utterances, self.slots, strict=True):
            places = np.arange(n)
            drawn.append(utterances.take(self.epoch * n + places, mode="wrap"))
            part.append(places * self.n_parts // n)
        drawn, part = np.concatenate(drawn), np.concatenate(part)
        noise = random.uniform(-JITTER, JITTER, len(drawn))
        lengths = self.durations[drawn] * (1 + noise) if self.alike else noise
        # Down in one part and up in the next: neighbours are alike in length.
        lengths[part % 2 == 0] *= -1
        drawn = drawn[np.lexsort((lengths, part))]
        starts = self.batch_size * random.permutation(len(self))
        if self.copies:
            which = random.integers(1, self.copies + 1, len(drawn))
            which[random.random(len(drawn)) < 0.5] = 0
            drawn = drawn + which * len(self.durations)
        return (self._own(drawn[i : i + self.batch_size]) for i in starts)

    def _own(self, batch):
        """This process's part of a batch."""
        batch = np.resize(batch, max(len(batch), self.world_size))
        return batch[self.rank :: self.world_size].tolist()


def _check(durations, emotions, batch_size, balance):
    """Refuse what cannot be planned, before a model is loaded."""
    n = len(durations)
    if n != len(emotions) or n == 0:
        raise InputError(
            f"{n} durations and {len(emotions)} emotions; expected one of each "
            "per utterance, and an utterance"
        )
    wrong = np.flatnonzero(~(np.isfinite(durations) & (durations > 0)))
    if len(wrong):
        raise InputError(
            f"{len(wrong)} of {n} utterances have no duration above 0 s, the "
            f"first is number {wrong[0] + 1} ({durations[wrong[0]]}); correct "
            "the manifest's column duration"
        )
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, expected 1 or more")
    if not 0 <= balance <= 1:
        raise InputError(
            f"balance is {balance}, expected 0 (the corpus's own mix) to 1 "
            "(equal shares)"
        )
