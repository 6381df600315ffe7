"""The area under the ROC curve: on paper, in scikit-learn, by brute force."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.auroc import auroc, auroc_interval


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        # Pairs of a positive (the first two) and another, won or tied
        ([4, 3, 2, 1, 0], 1.0),
        ([0, 1, 2, 3, 4], 0.0),
        ([1, 1, 1, 1, 1], 0.5),
        # 3 wins over all three, 1 over 0 and ties with 1
        ([3, 1, 2, 1, 0], (3 + 1.5) / 6),
        ([3, -np.inf, 2, -np.inf, 0], (3 + 0.5) / 6),
    ],
)
def test_on_paper(scores, expected):
    positive = [True, True, False, False, False]
    assert auroc(scores, positive) == pytest.approx(expected)


def drawn(seed, n=80):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    # Coarse: many ties
    return np.round(rng.normal(positive, 1.0), 1), positive, rng


@pytest.mark.parametrize("seed", range(5))
def test_it_is_scikit_learns(seed):
    scores, positive, rng = drawn(seed)
    expected = roc_auc_score(positive, scores)
    assert auroc(scores, positive) == pytest.approx(expected)
    weights = rng.integers(0, 4, size=(3, len(scores)))
    expected = [
        roc_auc_score(positive, scores, sample_weight=w) for w in weights
    ]
    np.testing.assert_allclose(auroc(scores, positive, weights), expected)


def test_only_the_order_counts():
    scores, positive, _ = drawn(7)
    assert auroc(np.exp(scores), positive) == auroc(scores, positive)
    assert auroc(-scores, positive) == pytest.approx(
        1 - auroc(scores, positive)
    )


def test_the_interval_is_that_of_drawing_speakers_one_by_one():
    scores, positive, rng = drawn(3)
    speakers = rng.integers(12, size=len(scores)).astype(str)
    names, areas = np.unique(speakers), []
    for _ in range(500):
        at = np.concatenate(
            [np.flatnonzero(speakers == s) for s in rng.choice(names, 12)]
        )
        areas.append(roc_auc_score(positive[at], scores[at]))
    expected = np.quantile(areas, [0.05, 0.95])
    found = auroc_interval(scores, positive, speakers, level=0.9)
    assert found == pytest.approx(expected, abs=0.03)
    # One by one they seem to say more, or other things.
    assert auroc_interval(scores, positive, level=0.9) != found


def test_draws_without_an_area_are_left_out():
    """One of two speakers has all of the emotion: half of the draws have it."""
    positive = [True, False, False, False]
    low, high = auroc_interval([2, 1, 3, 0], positive, [*"aabb"])
    assert 0 < low <= high <= 1
    with pytest.raises(InputError, match="none of 1 draws of 2"):
        auroc_interval([1, 0], [True, False], ["a", "b"], 1, seed=3)


@pytest.mark.parametrize(
    ("scores", "positive", "message"),
    [
        ([1.0, 2.0], [True, True], "2 of 2"),
        ([1.0, 2.0], [False, False], "0 of 2"),
        ([1.0, np.nan], [True, False], "1 scores are no numbers"),
        ([1.0], [True, False], "every utterance needs one"),
    ],
)
def test_what_has_no_area_is_refused(scores, positive, message):
    with pytest.raises(InputError, match=message):
        auroc(scores, positive)
