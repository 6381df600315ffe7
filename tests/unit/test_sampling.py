"""Batches: who is in them, how often, with whom, and after an interruption."""

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

from speechbrain_mser.dataio.batch_sampler import EmotionBatchSampler
from speechbrain_mser.errors import InputError

# The same examples in every run, and no failure by a busy machine
claim = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow],
)


def corpus(counts, n_languages=1, seed=0):
    """Durations, emotions and languages: so many utterances per emotion."""
    rng = np.random.default_rng(seed)
    emotions = np.repeat([f"e{i}" for i in range(len(counts))], counts)
    rng.shuffle(emotions)
    durations = rng.lognormal(1.0, 0.5, len(emotions))
    languages = rng.choice([f"l{i}" for i in range(n_languages)], len(emotions))
    return durations.tolist(), emotions.tolist(), languages.tolist()


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
    counts=few_or_many,
    batch_size=st.integers(1, 33),
    n_buckets=st.integers(1, 5),
    seed=st.integers(0, 1000),
)


@claim
@any_corpus
@example(counts=[1], batch_size=1, n_buckets=1, seed=0)
@example(counts=[1, 1, 1], batch_size=2, n_buckets=1, seed=0)
@example(counts=[3, 3, 3], batch_size=8, n_buckets=1, seed=0)
@example(counts=[7], batch_size=64, n_buckets=4, seed=0)
@example(counts=[500, 3], batch_size=4, n_buckets=4, seed=0)
def test_every_utterance_comes_once_and_not_alone(
    counts, batch_size, n_buckets, seed
):
    data = corpus(counts, 2, seed)
    sampler = EmotionBatchSampler(
        *data, batch_size, n_buckets=n_buckets, seed=seed
    )
    batches = batches_of(sampler)
    assert sorted(flat(batches)) == list(range(sum(counts)))
    assert 1 <= min(map(len, batches)) <= max(map(len, batches)) <= batch_size
    inevitable = {f"e{i}" for i, n in enumerate(counts) if n == 1}
    if batch_size >= 4:
        for batch in batches:
            there = Counter(data[1][i] for i in batch)
            alone = {emotion for emotion, n in there.items() if n == 1}
            assert alone <= inevitable


@claim
@any_corpus
@example(counts=[2, 1, 2, 1], batch_size=32, n_buckets=1, seed=0)
@example(counts=[2, 2000], batch_size=16, n_buckets=4, seed=0)
@example(counts=[300, 2000], batch_size=16, n_buckets=4, seed=0)
def test_balanced_batches_are_fair_and_hold_nobody_twice(
    counts, batch_size, n_buckets, seed
):
    data = corpus(counts, 2, seed)
    sampler = EmotionBatchSampler(
        *data, batch_size, balance=1.0, n_buckets=n_buckets, seed=seed
    )
    seen, n_epochs = Counter(), 4
    for epoch in range(1, n_epochs + 1):
        batches = batches_of(sampler, epoch)
        assert all(len(set(batch)) == len(batch) for batch in batches)
        sizes = [len(batch) for batch in batches]
        assert 1 <= min(sizes) <= max(sizes) <= batch_size
        if batch_size >= 4:
            for batch in batches:
                there = Counter(data[1][i] for i in batch)
                assert all(
                    n > 1 or counts[int(emotion[1:])] == 1
                    for emotion, n in there.items()
                )
        seen.update(flat(batches))
        now = Counter(flat(batches))
        for taken in (now, seen):
            for emotion in set(data[1]):
                times = [
                    taken[i] for i, e in enumerate(data[1]) if e == emotion
                ]
                assert max(times) - min(times) <= 1


def test_balanced_emotions_have_equal_shares():
    data = corpus([600, 60, 240])
    sampler = EmotionBatchSampler(*data, 16, balance=1.0)
    for epoch in (1, 2):
        taken = flat(batches_of(sampler, epoch))
        there = Counter(data[1][i] for i in taken)
        assert there == {"e0": 300, "e1": 300, "e2": 300}
        # 60 utterances for 300 places: five times each
        times = Counter(i for i in taken if data[1][i] == "e1")
        assert set(times.values()) == {5}


@pytest.mark.parametrize(
    ("balance", "shares"), [(0.0, [900, 100]), (0.5, [750, 250])]
)
def test_balance_is_an_exponent(balance, shares):
    data = corpus([900, 100])
    sampler = EmotionBatchSampler(*data, 10, balance=balance)
    there = Counter(data[1][i] for i in flat(batches_of(sampler)))
    assert [there["e0"], there["e1"]] == shares


def test_nobody_waits_for_longer_than_it_takes_to_go_round():
    # Equal shares: 300 places for 800 utterances, so 3 epochs for all.
    data = corpus([800, 50, 50])
    sampler = EmotionBatchSampler(*data, 16, balance=1.0)
    for start in (1, 5):
        seen = set()
        for epoch in range(start, start + 3):
            seen.update(flat(batches_of(sampler, epoch)))
        assert seen == set(range(900))


def test_an_emotion_has_at_most_all_its_utterances_in_each_batch():
    # 102 utterances in batches of 8: 13 batches, a pair in each of them
    data = corpus([100, 2])
    sampler = EmotionBatchSampler(*data, 8, balance=1.0)
    rare = {i for i, emotion in enumerate(data[1]) if emotion == "e1"}
    batches = batches_of(sampler)
    assert len(batches) == 13
    assert all(rare <= set(batch) for batch in batches)


def test_within_a_bucket_all_batches_have_the_same_mix():
    data = corpus([40, 40, 40, 40])
    sampler = EmotionBatchSampler(*data, 16, n_buckets=1)
    for batch in batches_of(sampler):
        there = Counter(data[1][i] for i in batch)
        assert sorted(there.values()) == [4, 4, 4, 4]


def test_rare_emotions_are_spread_over_the_lengths():
    data = corpus([400, 16])
    sampler = EmotionBatchSampler(*data, 16, n_buckets=1, jitter=0.0)
    batches = sorted(
        batches_of(sampler), key=lambda b: np.mean([data[0][i] for i in b])
    )
    where = [
        number
        for number, batch in enumerate(batches)
        if any(data[1][i] == "e1" for i in batch)
    ]
    # 8 pairs in 26 batches: every third
    assert len(where) == 8
    assert np.diff(where).max() <= 5


@pytest.mark.parametrize("balance", [0.0, 1.0])
@pytest.mark.parametrize("n_buckets", [1, 4])
def test_padding_is_little(balance, n_buckets):
    data = corpus([2400, 800, 400, 400], n_languages=3)
    sampler = EmotionBatchSampler(
        *data, 16, balance=balance, n_buckets=n_buckets
    )
    ours = padding(data[0], batches_of(sampler)) - 1
    theirs = padding(data[0], at_random(4000, 16)) - 1
    assert ours < theirs / 6


def test_more_buckets_pad_less_where_emotions_differ_in_length():
    durations, emotions, languages = corpus([1000, 1000])
    durations = [
        seconds * (1.3 if emotion == "e0" else 1.0)
        for seconds, emotion in zip(durations, emotions, strict=True)
    ]
    one, four = (
        EmotionBatchSampler(durations, emotions, languages, 16, n_buckets=n)
        for n in (1, 4)
    )
    ours = padding(durations, batches_of(four)) - 1
    assert ours < (padding(durations, batches_of(one)) - 1) / 2


@pytest.mark.parametrize("balance", [0.0, 1.0])
@pytest.mark.parametrize("longer", [1.0, 1.2, 5.0, 50.0])
def test_no_batch_is_of_one_language(balance, longer):
    """Even where every utterance of one language is longer than the other's."""
    durations, emotions, languages = corpus([600, 300, 60], n_languages=2)
    durations = [
        1 + 0.3 * seconds if language == "l0" else longer * (1 + 0.3 * seconds)
        for seconds, language in zip(durations, languages, strict=True)
    ]
    sampler = EmotionBatchSampler(
        durations, emotions, languages, 16, balance=balance
    )
    for batch in batches_of(sampler):
        assert {languages[i] for i in batch} == {"l0", "l1"}


def test_batches_depend_on_seed_and_epoch_alone():
    data = corpus([100, 50], n_languages=2)

    def made(epoch, **kwargs):
        sampler = EmotionBatchSampler(*data, 8, balance=0.5, **kwargs)
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
    sampler = EmotionBatchSampler(*corpus([30, 30]), 8)
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
            EmotionBatchSampler(
                *data,
                batch_size,
                balance=balance,
                rank=rank,
                world_size=world_size,
            )
        )
        for rank in range(world_size)
    ]
    together = EmotionBatchSampler(
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


def test_each_process_has_pairs_where_there_are_enough():
    data = corpus([200, 200, 200, 200])
    for rank in (0, 1):
        sampler = EmotionBatchSampler(
            *data, 8, n_buckets=1, rank=rank, world_size=2
        )
        for batch in batches_of(sampler):
            there = Counter(data[1][i] for i in batch)
            assert there == {"e0": 2, "e1": 2, "e2": 2, "e3": 2}


IN_PROCESS = """
from speechbrain_mser.dataio.batch_sampler import EmotionBatchSampler
sampler = EmotionBatchSampler(*data, batch_size=4)
sampler.set_epoch(3)
save(list(sampler))
"""


def test_a_process_knows_its_part(in_two_processes):
    data = corpus([30, 21])
    found = in_two_processes(IN_PROCESS, data)
    for rank in (0, 1):
        alone = EmotionBatchSampler(*data, 4, rank=rank, world_size=2)
        assert found[rank] == batches_of(alone, 3)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("after", [1, 7, "last"])
def test_a_resumed_epoch_goes_on_with_the_batches_that_were_left(
    workers, after, tmp_path
):
    data = corpus([70, 40], n_languages=2)

    def made():
        sampler = EmotionBatchSampler(*data, 8, balance=0.5)
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
        EmotionBatchSampler([1.0, seconds, 2.0], ["a"] * 3, ["eng"] * 3, 2)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 4, "balance": 1.5}, "balance is 1.5"),
        ({"batch_size": 4, "balance": math.nan}, "balance is nan"),
        ({"batch_size": 4, "n_buckets": 0}, "n_buckets is 0"),
        ({"batch_size": 4, "jitter": 1.0}, "jitter is 1.0"),
        ({"batch_size": 4, "jitter": -0.1}, "jitter is -0.1"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(setting, message):
    with pytest.raises(InputError, match=message):
        EmotionBatchSampler(*corpus([4]), **setting)


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(InputError, match="2 durations, 3 emotions and 2"):
        EmotionBatchSampler([1.0, 2.0], ["a"] * 3, ["eng"] * 2, 2)
    with pytest.raises(InputError, match="no utterance"):
        EmotionBatchSampler([], [], [], 2)


def test_an_emotion_that_has_no_pairs_is_named(caplog):
    EmotionBatchSampler(*corpus([1, 5, 1]), 4)
    assert "one utterance only" in caplog.text
    assert "e0, e2" in caplog.text


def test_an_odd_batch_size_is_used_up_to_the_even_one_below(caplog):
    sampler = EmotionBatchSampler(*corpus([8, 8]), 5)
    assert "batches of up to 4 utterances over all processes, not 5" in (
        caplog.text
    )
    assert [len(batch) for batch in sampler] == [4, 4, 4, 4]
