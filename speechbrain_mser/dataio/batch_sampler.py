"""Batches of similar length in which every emotion meets its like."""

import numpy as np
import pandas
import torch
from speechbrain.utils.logger import get_logger
from torch.utils.data import Sampler

from speechbrain_mser.dataio.batch_plan import (
    count_up,
    deal,
    order_by_process,
    share_out,
    take_turns,
)
from speechbrain_mser.distributed import world_size
from speechbrain_mser.errors import InputError

logger = get_logger(__name__)

# Multiples of it, modulo 1, fill an interval more evenly than any others.
GOLDEN = (5**0.5 - 1) / 2
# The fewest batches that make a bucket, and the fewest utterances for each
# place in a batch that are repeated near their own length
FEWEST = 8
# How likely a batch of one kind may be before a bucket counts as unmixed
SELDOM = 0.01


class EmotionBatchSampler(Sampler):
    """Batches of utterances that are alike in length and mixed in emotion.

    Long utterances go with long ones, so that little is computed for padding;
    whichever emotion is in a batch is there at least twice, so that the
    contrastive loss has pairs to pull together; and the languages are mixed.

    The utterances are sorted into buckets by duration. Within a bucket all
    batches have the same mix of emotions, dealt out in pairs, and, from short
    to long, each batch takes the next few utterances of every emotion, with
    the languages in turn. Then the batches are shuffled.

    An epoch has as many utterances as the corpus, give or take the rounding
    to pairs. With ``balance`` 0 each of them comes exactly once. With 1 the
    emotions have equal shares: a rare one's utterances are repeated, equally
    often give or take one, and never within a batch; of a frequent one each
    epoch takes up where the last one ended, until all had their turn. An
    emotion has at most all of its utterances in each batch, so one that has
    very few stays below its share; and with few it goes to all lengths.

    The plan depends on ``seed`` and epoch alone, not on torch's or numpy's
    random state. Every process of a distributed run computes the same one and
    takes its part of each batch, so all have equally many batches, and of the
    same lengths. Where a batch has fewer utterances than there are processes,
    some are there twice, so that nobody waits.

    Where no pairs are to be had there are none: an emotion with one utterance,
    a batch size of 1, the last of an odd number in batches of 2. An odd batch
    size, of all processes together, is used up to the even one below.

    Arguments
    ---------
    durations : list of float
        One per utterance, in the order of the dataset; seconds.
    emotions : list of str
        One per utterance.
    languages : list of str
        One per utterance.
    batch_size : int
        The most utterances in a batch, per process.
    balance : float
        From 0, the corpus's own mix of emotions, to 1, equal shares: an
        emotion with n utterances has a share as n^(1 - balance).
    n_buckets : int
        At most so many: more of them save padding, fewer mix emotions and
        languages better. There are fewer where one would have too few
        batches, or hardly more than one language or emotion.
    jitter : float
        By which part of themselves durations are changed at random when they
        are put in order, so that other utterances meet in other epochs; with
        more of it there is more padding.
    seed : int
        Not negative.
    rank : int, optional
        Which process of a distributed run this is; else torch knows.
    world_size : int, optional
        How many there are; else torch knows.

    Raises
    ------
    InputError
        A setting or a duration that cannot be used, or no utterance.

    Example
    -------
    >>> durations = [1.0, 1.1, 5.0, 5.1, 1.2, 1.3, 5.2, 5.3]
    >>> emotions = ["happy"] * 4 + ["sad"] * 4
    >>> batches = EmotionBatchSampler(
    ...     durations, emotions, ["eng"] * 8, batch_size=4, jitter=0.0
    ... )
    >>> sorted(sorted(batch) for batch in batches)
    [[0, 1, 4, 5], [2, 3, 6, 7]]
    """

    def __init__(
        self,
        durations,
        emotions,
        languages,
        batch_size,
        balance=0.0,
        n_buckets=4,
        jitter=0.05,
        seed=0,
        rank=None,
        world_size=None,
    ):
        self.durations = np.asarray(durations, dtype=float)
        _check(self.durations, emotions, languages)
        _check_settings(batch_size, balance, n_buckets, jitter)
        self.jitter = jitter
        self.seed = seed
        self.epoch = 0
        self.rank, self.world_size = _process(rank, world_size)
        # Of all processes together, in pairs where there is room for one.
        whole = batch_size * self.world_size
        self.unit = min(2, whole)
        self.batch_size = whole - whole % self.unit
        if self.batch_size < whole:
            logger.warning(
                "batches of up to %d utterances over all processes, not %d: "
                "emotions come in pairs",
                self.batch_size,
                whole,
            )
        self.emotion, names = _codes(emotions)
        self.language, spoken = _codes(languages)
        self.stratum = self.emotion * len(spoken) + self.language
        self.counts = np.bincount(self.emotion)
        self.slots = share_out(self.counts, balance, self.batch_size)
        self.borders, self.room, self.everywhere = self._buckets(n_buckets)
        # An emotion's utterances sit on a wheel, in random order; every epoch
        # takes up where the last one ended.
        random = np.random.default_rng(seed)
        order = np.lexsort((random.random(len(self.emotion)), self.emotion))
        self.seat = np.empty_like(order)
        self.seat[order] = count_up(self.emotion[order])
        _log(names, self.counts, self.slots, self.batch_size)

    def set_epoch(self, epoch):
        """Say which epoch is next; SpeechBrain's `Brain` does.

        Arguments
        ---------
        epoch : int
            Not negative.
        """
        self.epoch = epoch

    def __len__(self):
        return int(self.borders[-1])

    def __iter__(self):
        # The plan is made here, not at the first batch: the epoch is that of
        # this moment.
        plan, ends, order = self.plan()
        return (
            self._part(plan[ends[batch] : ends[batch + 1]]) for batch in order
        )

    def _part(self, batch):
        """This process's part of a batch; nobody's is empty."""
        batch = np.resize(batch, max(len(batch), self.world_size))
        start, stop = (
            len(batch) * rank // self.world_size
            for rank in (self.rank, self.rank + 1)
        )
        return batch[start:stop].tolist()

    def plan(self):
        """The epoch's batches over all processes.

        Returns
        -------
        plan : np.ndarray
            ``[utterances]``, indices; from the shortest batch to the longest.
        ends : np.ndarray
            ``[batches + 1]``; batch i is ``plan[ends[i]:ends[i + 1]]``.
        order : np.ndarray
            ``[batches]``, in which order they come.
        """
        random = np.random.default_rng((self.seed, self.epoch))
        line, there = self._line(random)
        # Any run of neighbours in this order is spread over all lengths.
        spread = (random.random() + GOLDEN * np.arange(len(self))) % 1
        taken = np.concatenate(
            [
                deal(there[i], self.counts, self.batch_size, spread[span])
                for i, span in enumerate(self._spans())
            ]
        )
        batches = np.tile(np.arange(len(self)), len(self.slots))
        batch = np.repeat(batches, taken.T.ravel())
        # Stable: within a batch the emotions stay apart.
        plan = line[np.argsort(batch, kind="stable")]
        plan = plan[order_by_process(taken, self.world_size)]
        ends = np.concatenate([[0], taken.sum(axis=1).cumsum()])
        return plan, ends, random.permutation(len(self))

    def _spans(self):
        """Each bucket's batches."""
        return map(slice, self.borders[:-1], self.borders[1:])

    def _line(self, random):
        """The epoch's utterances: by emotion, then bucket, then length.

        Returns
        -------
        line : np.ndarray
            ``[utterances]``, indices.
        there : np.ndarray
            ``[buckets, emotions]``, how many utterances.
        """
        noise = random.uniform(-self.jitter, self.jitter, len(self.durations))
        lengths = self.durations * (1 + noise)
        # Copies of an utterance would meet in the batches of its length: of
        # an emotion with few utterances they go to all batches, by quantile.
        mixed = _quantiles(lengths, self.stratum, random)
        key = np.where(self.everywhere[self.emotion], mixed, lengths)
        line = self._slots_in_order(key)
        emotion = self.emotion[line]
        place = count_up(emotion)
        # Of copies in turn, the lengths that they would have in order.
        in_order = line[np.lexsort((lengths[line], emotion))]
        bucket = self._bucket(emotion, place, lengths[in_order])
        cell = emotion * (len(self.borders) - 1) + bucket
        stratum = cell * (self.language.max() + 1) + self.language[line]
        mixed = _quantiles(lengths[line], stratum, random)
        repeated = (self.slots > self.counts)[emotion]
        key = np.where(repeated, place, mixed)
        n_cells = len(self.slots) * (len(self.borders) - 1)
        there = np.bincount(cell, minlength=n_cells)
        there = there.reshape(len(self.slots), -1).T
        return line[np.lexsort((key, cell))], there

    def _slots_in_order(self, key):
        """Which utterances come, some repeatedly, by emotion and key."""
        whole, rest = np.divmod(self.slots, self.counts)
        start = self.epoch * self.slots % self.counts
        turn = (self.seat - start[self.emotion]) % self.counts[self.emotion]
        copies = whole[self.emotion] + (turn < rest[self.emotion])
        line = np.lexsort((key, self.emotion))
        line = line[copies[line] > 0]
        if (self.slots <= self.counts).all():
            return line
        most = self._most(len(self), len(self.room))
        return line[take_turns(self.emotion[line], copies[line], most)]

    def _bucket(self, emotion, place, lengths):
        """The bucket of each of the epoch's utterances, in pairs.

        Arguments
        ---------
        emotion : np.ndarray
            ``[utterances]``, sorted.
        place : np.ndarray
            ``[utterances]``, number within the emotion, from short to long.
        lengths : np.ndarray
            ``[utterances]``, seconds.

        Returns
        -------
        np.ndarray
            ``[utterances]``.
        """
        first = np.flatnonzero(place % self.unit == 0)
        size = np.diff(first, append=len(place))
        emotion, place = emotion[first], place[first]
        order = np.argsort(lengths[first], kind="stable")
        filled = np.empty(len(first), dtype=np.int64)
        # Odd ones and what is repeated have their own room.
        counted = (size == self.unit) & ~self.everywhere[emotion]
        filled[order] = counted[order].cumsum() - counted[order]
        bucket = np.searchsorted(self.room.cumsum()[:-1], filled, "right")
        middle = 2 * place + self.unit
        batch = middle * len(self) // (2 * self.slots[emotion])
        everywhere = np.searchsorted(self.borders[1:-1], batch, "right")
        bucket = np.where(self.everywhere[emotion], everywhere, bucket)
        # An odd one keeps the company of its emotion's last pair.
        odd = np.flatnonzero((size < self.unit) & (place > 0))
        bucket[odd] = bucket[odd - 1]
        return np.repeat(bucket, size)

    def _buckets(self, most):
        """Where buckets begin, in batches, and their room.

        Returns
        -------
        borders : np.ndarray
            ``[buckets + 1]``, first batches, and the number of batches.
        room : np.ndarray
            ``[buckets]``, for the pairs that belong there by their length.
        everywhere : np.ndarray
            ``[emotions]``, whether its pairs go to all buckets instead.
        """
        per_batch = self.batch_size // self.unit
        pairs, odd = np.divmod(self.slots, self.unit)
        at_least = -(-self.counts.sum() // self.batch_size)
        order = np.argsort(self.durations, kind="stable")
        most = min(most, max(1, at_least // FEWEST))
        for n_buckets in range(most, 0, -1):
            # Every bucket may have to take every odd one in.
            needed = pairs.sum() + n_buckets * odd.sum()
            n_batches = max(at_least, -(-needed // per_batch))
            n_batches = min(n_batches, (pairs + odd).sum())
            borders = np.arange(n_buckets + 1) * n_batches // n_buckets
            few = self.counts < FEWEST * self._most(n_batches, n_buckets)
            everywhere = (self.slots > self.counts) & (few | (n_buckets == 1))
            middles = [
                (2 * np.arange(n) + 1) * n_batches // (2 * n)
                for n in pairs[everywhere]
            ]
            taken = sum(np.histogram(m, borders)[0] for m in middles)
            room = per_batch * np.diff(borders) - taken - odd.sum()
            if n_buckets == 1 or (
                # Unused room must not leave a batch without any utterance.
                (per_batch - 1) * (n_batches // n_buckets)
                >= 2 * len(self.slots) + per_batch
                and (room >= 0).all()
                and all(
                    _mixed(codes[order], n_buckets, self.batch_size)
                    for codes in (self.emotion, self.language)
                )
            ):
                return borders, room, everywhere
        raise AssertionError("one bucket always does")

    def _most(self, n_batches, n_buckets):
        """The most of each emotion in a batch, were it in one bucket only."""
        places = self.unit * (n_batches // n_buckets)
        # One pair may come from another batch, to make room there.
        return self.unit * (-(-self.slots // places) + 1)


def _mixed(codes, n_buckets, batch_size):
    """Whether no equal part of these is as good as of one kind."""
    bucket = np.arange(len(codes)) * n_buckets // len(codes)
    kinds = codes.max() + 1
    there = np.bincount(bucket * kinds + codes, minlength=n_buckets * kinds)
    shares = there.reshape(n_buckets, kinds) / np.bincount(bucket)[:, None]
    usual = np.bincount(codes) / len(codes)
    # The chance that a batch at random is of this kind only
    return (shares**batch_size <= np.maximum(usual**batch_size, SELDOM)).all()


def _quantiles(lengths, stratum, random):
    """Each length's quantile within its stratum; ties between strata vary."""
    order = np.lexsort((lengths, stratum))
    sizes = np.bincount(stratum)
    place = np.empty(len(order))
    place[order] = count_up(stratum[order])
    return (place + random.random(len(sizes))[stratum]) / sizes[stratum]


def _codes(words):
    """A number for each word, and the words."""
    return pandas.factorize(np.asarray(words, dtype=object), sort=True)


def _process(rank, world):
    """This process and how many there are, from torch where not given."""
    running = world_size()
    if rank is None:
        rank = torch.distributed.get_rank() if running > 1 else 0
    return rank, running if world is None else world


def _check(durations, emotions, languages):
    """Refuse what cannot be planned, before a model is loaded."""
    n = len(durations)
    if not n == len(emotions) == len(languages):
        raise InputError(
            f"{n} durations, {len(emotions)} emotions and {len(languages)} "
            "languages; expected one of each per utterance"
        )
    if n == 0:
        raise InputError("no utterance to make batches of")
    wrong = np.flatnonzero(~(np.isfinite(durations) & (durations > 0)))
    if len(wrong):
        raise InputError(
            f"{len(wrong)} of {n} utterances have no duration above 0 s, the "
            f"first is number {wrong[0] + 1} ({durations[wrong[0]]}); correct "
            "the manifest's column duration"
        )


def _check_settings(batch_size, balance, n_buckets, jitter):
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, expected 1 or more")
    if n_buckets < 1:
        raise InputError(f"n_buckets is {n_buckets}, expected 1 or more")
    if not 0 <= balance <= 1:
        raise InputError(
            f"balance is {balance}, expected 0 (the corpus's own mix) to 1 "
            "(equal shares)"
        )
    if not 0 <= jitter < 1:
        raise InputError(f"jitter is {jitter}, expected 0 up to below 1")


def _log(names, counts, slots, batch_size):
    """Say where there are no pairs, and what is repeated."""
    alone = [name for name, n in zip(names, counts, strict=True) if n == 1]
    if alone:
        logger.warning(
            "one utterance only, so no pairs for the contrastive loss: %s",
            ", ".join(alone),
        )
    if batch_size == 1:
        logger.warning(
            "batches of 1 utterance have no pairs for the contrastive loss"
        )
    if (slots != counts).any():
        logger.info(
            "utterances in an epoch, of those in the corpus: %s",
            ", ".join(
                f"{name} {there} of {n}"
                for name, there, n in zip(names, slots, counts, strict=True)
            ),
        )
