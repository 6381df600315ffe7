"""Batches: who is in them, how often, and after an interruption."""

import math
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_mser.dataio.batch_sampler import LengthBatchSampler
from speechbrain_mser.errors import InputError

# The same examples in every run, and no failure by a busy machine
claim = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow],
)


def corpus(counts, seed=0):
    """Durations and emotions: so many utterances per emotion."""
    rng = np.random.default_rng(seed)
    emotions = np.repeat([f"e{i}" for i in range(len(counts))], counts)
    rng.shuffle(emotions)
    durations = rng.lognormal(1.0, 0.5, len(emotions))
    return durations.tolist(), emotions.tolist()


def batches_of(sampler, epoch=1):
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    return batches


def flat(batches):
    return [i for batch in batches for i in batch]


def padding(durations, batches):
    """Padded seconds over real seconds."""
    padded = sum(len(b) * max(durations[i] for i in b) for b in batches)
    return padded / sum(durations[i] for b in batches for i in b)


def at_random(n, batch_size, seed=0):
    order = np.random.default_rng(seed).permutation(n).tolist()
    return [order[i : i + batch_size] for i in range(0, n, batch_size)]


few_or_many = st.lists(
    st.integers(1, 6) | st.integers(1, 120), min_size=1, max_size=8
)
any_corpus = given(
    counts=few_or_many, batch_size=st.integers(1, 33), seed=st.integers(0, 1000)
)


@claim
@any_corpus
@example(counts=[1], batch_size=1, seed=0)
@example(counts=[7], batch_size=64, seed=0)
@example(counts=[500, 3], batch_size=4, seed=0)
def test_every_utterance_comes_once(counts, batch_size, seed):
    data = corpus(counts, seed)
    batches = batches_of(LengthBatchSampler(*data, batch_size, seed=seed))
    assert sorted(flat(batches)) == list(range(sum(counts)))
    sizes = sorted(len(batch) for batch in batches)
    assert 1 <= sizes[0]
    assert set(sizes[1:]) <= {batch_size}


@claim
@any_corpus
@example(counts=[2, 1, 2, 1], batch_size=32, seed=0)
@example(counts=[2, 2000], batch_size=16, seed=0)
@example(counts=[300, 2000], batch_size=16, seed=0)
def test_balanced_epochs_are_fair(counts, batch_size, seed):
    data = corpus(counts, seed)
    sampler = LengthBatchSampler(*data, batch_size, balance=1.0, seed=seed)
    seen, n_epochs = Counter(), 4
    for epoch in range(1, n_epochs + 1):
        batches = batches_of(sampler, epoch)
        sizes = [len(batch) for batch in batches]
        assert 1 <= min(sizes) <= max(sizes) <= batch_size
        now = Counter(flat(batches))
        assert now.total() <= sum(counts) + len(counts)
        seen.update(now)
        for times in (now, seen):
            for emotion in set(data[1]):
                own = [times[i] for i, e in enumerate(data[1]) if e == emotion]
                assert max(own) - min(own) <= 1


def test_balanced_emotions_have_equal_shares():
    data = corpus([600, 60, 240])
    sampler = LengthBatchSampler(*data, 16, balance=1.0)
    for epoch in (1, 2):
        taken = flat(batches_of(sampler, epoch))
        by_emotion = Counter(data[1][i] for i in taken)
        assert by_emotion == {"e0": 300, "e1": 300, "e2": 300}
        # 60 utterances for 300 places: five times each
        times = Counter(i for i in taken if data[1][i] == "e1")
        assert set(times.values()) == {5}


@pytest.mark.parametrize(
    ("balance", "shares"), [(0.0, [900, 100]), (0.5, [750, 250])]
)
def test_balance_is_an_exponent(balance, shares):
    data = corpus([900, 100])
    sampler = LengthBatchSampler(*data, 10, balance=balance)
    by_emotion = Counter(data[1][i] for i in flat(batches_of(sampler)))
    assert [by_emotion["e0"], by_emotion["e1"]] == shares


def test_nobody_waits_for_longer_than_it_takes_to_go_round():
    # Equal shares: 300 places for 800 utterances, so 3 epochs for all.
    data = corpus([800, 50, 50])
    sampler = LengthBatchSampler(*data, 16, balance=1.0)
    for start in (1, 5):
        seen = set()
        for epoch in range(start, start + 3):
            seen.update(flat(batches_of(sampler, epoch)))
        assert seen == set(range(900))


def test_repetitions_seldom_meet():
    # 100 utterances for 1,000 places: ten times each, in 125 batches. Drawn at
    # random, 33 would be in a batch again; by length alone, hundreds.
    data = corpus([1900, 100])
    for epoch in (1, 2):
        batches = batches_of(LengthBatchSampler(*data, 16, balance=1.0), epoch)
        assert sum(len(batch) - len(set(batch)) for batch in batches) < 33


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_padding_is_little(balance):
    data = corpus([2400, 800, 400, 400])
    sampler = LengthBatchSampler(*data, 16, balance=balance)
    ours = padding(data[0], batches_of(sampler)) - 1
    theirs = padding(data[0], at_random(4000, 16)) - 1
    assert ours < theirs / 10


def test_batches_depend_on_seed_and_epoch_alone():
    data = corpus([100, 50])

    def made(epoch, **kwargs):
        sampler = LengthBatchSampler(*data, 8, balance=0.5, **kwargs)
        return batches_of(sampler, epoch)

    first = made(1)
    states = (
        torch.get_rng_state(),
        np.random.get_state()[1],
        np.array(random.getstate()[1]),
    )
    assert made(1) == first
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert (np.array(random.getstate()[1]) == states[2]).all()
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    assert made(1) == first
    # Another epoch or seed: other company, not the same batches reordered
    for other in (made(2), made(1, seed=1)):
        same = {frozenset(b) for b in first} & {frozenset(b) for b in other}
        assert len(same) <= 1


def test_the_epoch_is_that_of_the_moment_when_iteration_begins():
    sampler = LengthBatchSampler(*corpus([30, 30]), 8)
    expected = batches_of(sampler, 1)
    sampler.set_epoch(1)
    batches = iter(sampler)
    sampler.set_epoch(2)
    assert list(batches) == expected


@settings(claim, max_examples=60)
@given(
    counts=few_or_many,
    batch_size=st.integers(1, 9),
    world_size=st.integers(2, 4),
    balance=st.sampled_from([0.0, 1.0]),
)
def test_processes_share_each_batch(counts, batch_size, world_size, balance):
    data = corpus(counts)
    parts = [
        batches_of(
            LengthBatchSampler(
                *data,
                batch_size,
                balance=balance,
                rank=rank,
                world_size=world_size,
            )
        )
        for rank in range(world_size)
    ]
    together = LengthBatchSampler(
        *data, batch_size * world_size, balance=balance
    )
    whole = batches_of(together)
    assert {len(part) for part in parts} == {len(whole)}
    for batch, *pieces in zip(whole, *parts, strict=True):
        sizes = [len(piece) for piece in pieces]
        assert 1 <= min(sizes) <= max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1
        if len(batch) >= world_size:
            assert sorted(flat(pieces)) == sorted(batch)
        else:
            assert set(flat(pieces)) == set(batch)


IN_PROCESS = """
from speechbrain_mser.dataio.batch_sampler import LengthBatchSampler
sampler = LengthBatchSampler(*data, batch_size=4)
sampler.set_epoch(3)
save(list(sampler))
"""


def test_a_process_knows_its_part(in_two_processes):
    data = corpus([30, 21])
    found = in_two_processes(IN_PROCESS, data)
    for rank in (0, 1):
        alone = LengthBatchSampler(*data, 4, rank=rank, world_size=2)
        assert found[rank] == batches_of(alone, 3)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("after", [1, 7, "last"])
def test_a_resumed_epoch_goes_on_with_the_batches_that_were_left(
    workers, after, tmp_path
):
    data = corpus([70, 40])

    def made():
        sampler = LengthBatchSampler(*data, 8, balance=0.5)
        loader = SaveableDataLoader(
            torch.arange(110),
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=torch.stack,
        )
        return sampler, loader, Checkpointer(tmp_path, {"loader": loader})

    sampler, loader, checkpointer = made()
    expected = batches_of(sampler, 2)
    after = len(expected) if after == "last" else after
    sampler.set_epoch(2)
    for number, batch in enumerate(loader, 1):
        assert batch.tolist() == expected[number - 1]
        if number == after:
            checkpointer.save_checkpoint(end_of_epoch=False)
            break

    sampler, loader, checkpointer = made()
    checkpointer.recover_if_possible()
    sampler.set_epoch(2)
    assert [batch.tolist() for batch in loader] == expected[after:]
    # The epoch after that is whole again.
    sampler.set_epoch(3)
    assert [batch.tolist() for batch in loader] == batches_of(sampler, 3)


@pytest.mark.parametrize("seconds", [math.nan, 0.0, -1.0, math.inf, None])
def test_a_duration_that_is_none_is_refused(seconds):
    with pytest.raises(InputError, match=r"1 of 3 .* number 2 "):
        LengthBatchSampler([1.0, seconds, 2.0], ["a"] * 3, 2)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 4, "balance": 1.5}, "balance is 1.5"),
        ({"batch_size": 4, "balance": math.nan}, "balance is nan"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(setting, message):
    with pytest.raises(InputError, match=message):
        LengthBatchSampler(*corpus([4]), **setting)


@pytest.mark.parametrize("n_durations", [0, 2])
def test_lists_of_different_lengths_are_refused(n_durations):
    with pytest.raises(InputError, match=f"{n_durations} durations and 3 "):
        LengthBatchSampler([1.0] * n_durations, ["a"] * 3, 2)
