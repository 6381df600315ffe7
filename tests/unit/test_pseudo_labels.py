"""Pseudo-labels: balanced, and the surer part of them."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from speechbrain_mser.errors import InputError
from speechbrain_mser.inference.pseudo_labels import even_out, surest


@pytest.fixture
def log_probs():
    rng = np.random.default_rng(0)
    return 3 * rng.normal(size=(50, 4)) + [2.0, 0.0, -1.0, 4.0]


def test_all_labels_become_equally_probable_on_average(log_probs):
    even = even_out(log_probs)
    np.testing.assert_allclose(np.exp(even).sum(1), 1)
    np.testing.assert_allclose(np.exp(even).mean(0), 0.25, atol=1e-8)


def test_what_is_added_is_one_bias_per_label(log_probs):
    # Differences between labels change by the same amount everywhere
    change = even_out(log_probs) - log_probs
    change -= change[:, :1]
    np.testing.assert_allclose(change, np.broadcast_to(change[0], change.shape))


def test_the_bias_is_the_convex_problems(log_probs):
    # Mean log-sum-exp minus the mean bias has its minimum where the columns'
    # means are equal.
    def cost(bias):
        return logsumexp(log_probs + bias, axis=1).mean() - bias.mean()

    bias = minimize(cost, np.zeros(4), tol=1e-12).x
    np.testing.assert_allclose(
        np.exp(even_out(log_probs)),
        softmax(log_probs + bias, axis=1),
        atol=1e-4,
    )


def test_even_probabilities_stay():
    log_probs = np.log([[0.8, 0.2], [0.2, 0.8]])
    np.testing.assert_allclose(even_out(log_probs), log_probs, atol=1e-9)


def test_the_surer_part_of_every_label_is_believed():
    # sad: 0.9 0.8 0.7 0.6; angry: 0.95
    sad = np.array([0.7, 0.05, 0.9, 0.6, 0.8])
    labels, believed = surest(np.log(np.stack([sad, 1 - sad], 1)), keep=0.5)
    assert labels.tolist() == [0, 1, 0, 0, 0]
    assert believed.tolist() == [False, True, True, False, True]


def test_all_can_be_believed(log_probs):
    assert surest(log_probs, keep=1.0)[1].all()


@pytest.mark.parametrize("keep", [0, -1, 1.5, float("nan"), "half"])
def test_another_part_is_refused(log_probs, keep):
    with pytest.raises(InputError, match=r"keep is .*; expected above 0"):
        surest(log_probs, keep)
