"""Intervals: against brute force, the binomial, and a known truth."""

import json

import numpy as np
import pandas
import pytest
from scipy import stats

from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.intervals import (
    FEWEST_SPEAKERS,
    bootstrap_intervals,
    speakers_to_draw,
)
from speechbrain_mser.evaluation.metrics import FIGURES, emotion_metrics

LABELS = ["neutral", "sad", "angry"]
TAILS = np.array([0.025, 0.975])


def random_set(seed, n=60, n_speakers=12):
    rng = np.random.default_rng(seed)
    references = rng.choice(LABELS, n, p=[0.5, 0.3, 0.2])
    guesses = rng.choice(LABELS, n)
    predictions = np.where(rng.random(n) < 0.6, references, guesses)
    speakers = rng.integers(n_speakers, size=n).astype(str)
    return references, predictions, speakers


def brute_force(references, predictions, draw, resamples):
    """Quantiles of `emotion_metrics` over draws of positions."""
    found = {name: [] for name in FIGURES}
    for _ in range(resamples):
        at = draw()
        metrics = emotion_metrics(
            references[at].tolist(), predictions[at].tolist(), LABELS
        )
        for name in FIGURES:
            found[name].append(metrics[name])
    return {name: np.quantile(x, TAILS) for name, x in found.items()}


def test_intervals_are_those_of_drawing_utterances_one_by_one():
    references, predictions, _ = random_set(seed=0)
    n, rng = len(references), np.random.default_rng(1)
    expected = brute_force(
        references, predictions, lambda: rng.integers(n, size=n), 3000
    )
    found = bootstrap_intervals(
        references.tolist(), predictions.tolist(), LABELS, resamples=20000
    )
    assert (found["drawn"], found["units"]) == ("utterances", n)
    for name in FIGURES:
        # an utterance is 0.017 of the WA
        assert found[name] == pytest.approx(expected[name], abs=0.02)


def test_intervals_are_those_of_drawing_speakers_one_by_one():
    references, predictions, speakers = random_set(seed=2)
    names, rng = np.unique(speakers), np.random.default_rng(3)

    def draw():
        drawn = rng.choice(names, len(names))
        return np.concatenate([np.flatnonzero(speakers == s) for s in drawn])

    expected = brute_force(references, predictions, draw, 3000)
    found = bootstrap_intervals(
        references.tolist(),
        predictions.tolist(),
        LABELS,
        speakers=speakers.tolist(),
        resamples=20000,
    )
    assert (found["drawn"], found["units"]) == ("speakers", len(names))
    for name in FIGURES:
        assert found[name] == pytest.approx(expected[name], abs=0.02)


@pytest.mark.parametrize(("n", "right"), [(100, 70), (37, 5), (400, 399)])
def test_the_interval_of_the_accuracy_is_the_binomials(n, right):
    references = ["sad"] * n
    predictions = ["sad"] * right + ["angry"] * (n - right)
    found = bootstrap_intervals(
        references, predictions, LABELS, resamples=50000
    )
    expected = stats.binom.ppf(TAILS, n, right / n) / n
    assert found["WA"] == pytest.approx(expected, abs=1.01 / n)


def test_speakers_who_are_all_right_or_all_wrong_count_once_each():
    n, right, utterances = 40, 26, 10
    references = ["sad"] * n * utterances
    predictions = ["sad"] * right * utterances
    predictions += ["angry"] * (n - right) * utterances
    speakers = np.repeat(np.arange(n), utterances).tolist()
    found = bootstrap_intervals(
        references, predictions, LABELS, speakers=speakers, resamples=50000
    )
    expected = stats.binom.ppf(TAILS, n, right / n) / n
    assert found["WA"] == pytest.approx(expected, abs=1.01 / n)


def test_one_utterance_per_speaker_is_drawing_utterances():
    references, predictions, _ = random_set(seed=4)
    words = references.tolist(), predictions.tolist(), LABELS
    each = [str(i) for i in range(len(references))]
    found = bootstrap_intervals(*words, resamples=20000)
    by_speaker = bootstrap_intervals(*words, speakers=each, resamples=20000)
    for name in FIGURES:
        assert by_speaker[name] == pytest.approx(found[name], abs=0.018)


def coverage(simulate, truth, speakers, trials=300):
    """How often the interval of the accuracy holds the true one."""
    held = 0
    for seed in range(trials):
        correct = simulate(np.random.default_rng(seed))
        low, high = bootstrap_intervals(
            ["sad"] * len(correct),
            np.where(correct, "sad", "angry").tolist(),
            ["sad", "angry"],
            speakers=speakers,
            resamples=400,
            seed=seed,
        )["WA"]
        held += low <= truth <= high
    return held / trials


def test_of_a_known_accuracy_the_interval_holds_it_19_times_in_20():
    covered = coverage(lambda rng: rng.random(250) < 0.7, 0.7, None)
    # two standard errors of 300 trials are 0.025
    assert 0.92 <= covered <= 0.98


def test_with_unlike_speakers_only_drawing_speakers_holds_the_truth():
    n_speakers, utterances = 30, 20
    speakers = np.repeat(np.arange(n_speakers), utterances).tolist()

    def simulate(rng):
        easy = rng.beta(2, 2, n_speakers)  # mean 0.5
        return rng.random(n_speakers * utterances) < easy.repeat(utterances)

    assert coverage(simulate, 0.5, None) < 0.75
    assert 0.90 <= coverage(simulate, 0.5, speakers) <= 0.98


def test_a_draw_without_a_rare_class_is_not_punished_for_it():
    words = ["sad"] * 20 + ["angry"]
    found = bootstrap_intervals(words, words, LABELS)
    assert found["UA"] == [1, 1]


def test_over_all_labels_one_that_never_occurs_counts_in_every_draw():
    words = ["sad"] * 20 + ["angry"]
    found = bootstrap_intervals(words, words, LABELS, ua_over="all")
    # In draws without the angry one, UA is over sad and the absent neutral.
    assert found["UA"] == pytest.approx([1 / 2, 2 / 3])


def test_the_metric_lies_within_its_interval_and_more_level_is_wider():
    references, predictions, speakers = random_set(seed=5, n=200)
    words = references.tolist(), predictions.tolist(), LABELS
    metrics = emotion_metrics(*words)
    for who in (None, speakers.tolist()):
        narrow = bootstrap_intervals(*words, speakers=who, level=0.5)
        wide = bootstrap_intervals(*words, speakers=who, level=0.99)
        for name in FIGURES:
            ends = [wide[name][0], narrow[name][0], metrics[name]]
            ends += [narrow[name][1], wide[name][1]]
            assert ends == sorted(ends)


def test_the_same_seed_draws_the_same_in_any_order_of_utterances():
    references, predictions, speakers = random_set(seed=6)
    order = np.random.default_rng(0).permutation(len(references))
    for who in (None, speakers):
        found = [
            bootstrap_intervals(
                references[at].tolist(),
                predictions[at].tolist(),
                LABELS,
                speakers=None if who is None else who[at].tolist(),
                seed=7,
            )
            for at in (slice(None), order)
        ]
        assert found[0] == found[1]
        assert json.loads(json.dumps(found[0])) == found[0]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"resamples": 0}, "0 resamples"),
        ({"level": 95}, "level 95"),
        ({"speakers": ["a"]}, "1 speakers for 2 utterances"),
        ({"ua_over": "some"}, "ua_over is 'some'"),
    ],
)
def test_what_cannot_be_drawn_fails(settings, reason):
    with pytest.raises(InputError, match=reason):
        bootstrap_intervals(["sad", "angry"], ["sad"] * 2, LABELS, **settings)


def test_speakers_are_drawn_where_there_are_enough_and_all_are_known():
    def table(speakers, corpus="ravdess"):
        return pandas.DataFrame({"corpus": corpus, "speaker": speakers})

    enough = [str(i) for i in range(FEWEST_SPEAKERS)]
    assert len(speakers_to_draw(table(enough * 2))) == 2 * FEWEST_SPEAKERS
    assert speakers_to_draw(table(enough[1:] * 2)) is None
    assert speakers_to_draw(table([*enough, ""])) is None
    # "1" of one corpus is not "1" of another
    two = pandas.concat([table(enough[1:]), table(["1"], "urdu")])
    assert len(set(speakers_to_draw(two))) == FEWEST_SPEAKERS
