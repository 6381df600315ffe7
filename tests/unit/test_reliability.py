"""Reliability: bins worked out by hand, and figures that are what they say."""

import matplotlib.image
import numpy as np
import pytest

from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.diagrams import plot_reliability
from speechbrain_mser.evaluation.reliability import (
    calibration,
    reliability_curve,
)

LABELS = ["sad", "angry"]


def test_bins_are_those_worked_out_by_hand():
    confidence = np.array([0.3, 0.4, 0.6, 0.7, 0.8])
    correct = np.array([True, False, True, True, False])
    curve = reliability_curve(confidence, correct, bins=4)
    assert curve["n"] == [0, 2, 2, 1]
    assert curve["confidence"] == [None, *map(pytest.approx, [0.35, 0.65, 0.8])]
    assert curve["accuracy"] == [None, 0.5, 1.0, 0.0]


def test_a_confidence_between_two_bins_is_in_the_lower_one():
    confidence = np.array([0.25, 0.5, 0.75, 1.0])
    curve = reliability_curve(confidence, np.ones(4, bool), bins=4)
    assert curve["n"] == [1, 1, 1, 1]


def test_rounding_beyond_one_stays_in_the_last_bin():
    curve = reliability_curve(np.array([1 + 1e-15]), np.array([True]), bins=4)
    assert curve["n"] == [0, 0, 0, 1]


@pytest.mark.parametrize("bins", [1, 7, 10])
def test_all_bins_together_are_all_utterances(bins):
    rng = np.random.default_rng(bins)
    confidence, correct = rng.random(300), rng.random(300) < 0.4
    curve = reliability_curve(confidence, correct, bins)
    n = np.array(curve["n"])
    filled = n > 0
    for name, expected in (("confidence", confidence), ("accuracy", correct)):
        values = np.array(curve[name], dtype=float)
        assert (n * values)[filled].sum() == pytest.approx(expected.sum())


def test_no_bins_fail():
    with pytest.raises(InputError, match="0 bins"):
        reliability_curve(np.ones(1), np.ones(1, bool), bins=0)


def overconfident():
    log_probs = np.log([[0.95, 0.05]] * 4)
    return calibration(log_probs, ["sad", "sad", "angry", "angry"], LABELS)


def test_diagram_is_a_png_with_a_bar_of_accuracy_and_a_gap(tmp_path):
    path = tmp_path / "figures" / "reliability"
    # a title with mathtext in it
    plot_reliability({"none": overconfident()}, path, "RESD at $5 & $6")
    image = matplotlib.image.imread(f"{path}.png")[..., :3]

    def share(color):
        return (np.abs(image - np.array(color) / 255) < 0.02).all(-1).mean()

    # One bar of ten, half of the panel's height: about 0.02 of the figure.
    assert 0.01 < share([0, 114, 178]) < 0.05
    assert share([230, 159, 0]) > 0.001  # hatched from there to 0.95


def test_diagrams_come_as_png_and_pdf_and_again_the_same(tmp_path):
    modes = {"none": overconfident(), "temperature": overconfident()}
    for name in ("a", "b"):
        plot_reliability(modes, tmp_path / name, "URDU")
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["a.pdf", "a.png", "b.pdf", "b.png"]
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    for suffix in ("pdf", "png"):
        a, b = (tmp_path / f"{name}.{suffix}" for name in ("a", "b"))
        assert a.read_bytes() == b.read_bytes()
