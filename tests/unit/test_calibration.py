"""Temperature and log-priors: a grid, another optimiser, paper and pencil."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.calibration import (
    MODES,
    Calibration,
    compare_calibrations,
    fit_calibration,
)
from speechbrain_mser.evaluation.reliability import calibration

LABELS = ["neutral", "sad", "angry"]


def simulate(seed, n=3000, sharpness=1.0, liking=(0, 0, 0), shares=None):
    """A model that hears something, too sure of it and fond of some words.

    With sharpness 1 and no liking its probabilities are the true ones where
    all labels are equally frequent: ``z ~ N(2 e_y, I)`` has the log-posterior
    ``2 z``.
    """
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, n, p=shares)
    z = rng.normal(size=(n, 3)) + 2 * np.eye(3)[truth]
    log_probs = log_softmax(sharpness * (2 * z) + np.array(liking), axis=1)
    return log_probs, [LABELS[k] for k in truth]


def nll(log_probs, truth):
    places = [LABELS.index(word) for word in truth]
    return -log_softmax(log_probs, axis=1)[range(len(places)), places]


def test_temperature_is_the_best_of_a_grid():
    log_probs, truth = simulate(0, n=400, sharpness=2.5)
    found = fit_calibration(log_probs, truth, LABELS).temperature
    grid = np.arange(0.5, 6, 0.01)
    losses = [nll(log_probs / t, truth).mean() for t in grid]
    assert found == pytest.approx(grid[np.argmin(losses)], abs=0.01)
    assert nll(log_probs / found, truth).mean() <= min(losses) + 1e-12


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_temperature_is_how_much_too_sure_the_model_is(sharpness):
    log_probs, truth = simulate(1, n=20000, sharpness=sharpness)
    found = fit_calibration(log_probs, truth, LABELS)
    assert found.temperature == pytest.approx(sharpness, rel=0.04)
    assert found.temperature_with_prior == pytest.approx(sharpness, rel=0.04)
    assert list(found.log_prior.values()) == pytest.approx([0] * 3, abs=0.06)


@pytest.mark.parametrize("liking", [(1, 0, -1), (3, -1, -2)])
def test_priors_are_what_the_model_likes_before_it_hears_anything(liking):
    # log p = 2 * 2z + liking, and the right one is 2z
    log_probs, truth = simulate(13, n=20000, sharpness=2.0, liking=liking)
    found = fit_calibration(log_probs, truth, LABELS)
    assert found.temperature_with_prior == pytest.approx(2, rel=0.04)
    assert list(found.log_prior.values()) == pytest.approx(
        [x / 2 for x in liking], abs=0.06
    )


def test_log_priors_are_those_of_another_optimiser():
    log_probs, truth = simulate(2, n=300, liking=(1, 0, -1))
    found = fit_calibration(log_probs, truth, LABELS)
    scores = torch.tensor(log_probs)
    places = torch.tensor([LABELS.index(word) for word in truth])
    counts = torch.bincount(places)
    weights = len(truth) / 3 / counts
    prior = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    inverse = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [prior, inverse], max_iter=500, tolerance_grad=1e-12
    )

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(
            inverse * scores - prior, places, weights.double(), reduction="sum"
        )
        value = value + (prior**2).sum() / 2
        value.backward()
        return value

    optimizer.step(loss)
    assert found.temperature_with_prior == pytest.approx(
        1 / inverse.item(), abs=1e-4
    )
    assert list(found.log_prior.values()) == pytest.approx(
        prior.tolist(), abs=1e-4
    )


def test_log_priors_leave_every_label_equally_probable():
    log_probs, truth = simulate(3, liking=(1.5, 0, -0.5))
    found = fit_calibration(log_probs, truth, LABELS)
    probs = found.apply(
        torch.tensor(log_probs), LABELS, "temperature+prior"
    ).exp()
    truth = np.array(truth)
    mean = np.mean([probs[truth == w].mean(0).tolist() for w in LABELS], 0)
    # The gradient is zero: 1/3 but for the penalty's log_prior / n.
    prior = np.array(list(found.log_prior.values()))
    assert mean == pytest.approx(1 / 3 + prior / len(truth), abs=1e-5)
    assert prior.sum() == pytest.approx(0, abs=1e-4)
    assert prior[0] > prior[1] > prior[2]


def test_log_priors_do_not_follow_the_fitting_datas_frequencies():
    even = fit_calibration(*simulate(4, n=20000, liking=(1, 0, -1)), LABELS)
    skewed = simulate(5, n=20000, liking=(1, 0, -1), shares=(0.1, 0.2, 0.7))
    skewed = fit_calibration(*skewed, LABELS)
    for word in LABELS:
        # the frequencies' logarithms differ by almost 2
        assert skewed.log_prior[word] == pytest.approx(
            even.log_prior[word], abs=0.2
        )


def test_calibration_mends_what_was_not_fitted_on():
    settings = {"sharpness": 4.0, "liking": (2, 0, -2)}
    found = fit_calibration(*simulate(6, **settings), LABELS)
    log_probs, truth = simulate(7, **settings)
    modes = compare_calibrations(
        found, torch.tensor(log_probs), truth, LABELS, "present"
    )
    eces = [modes[mode]["ECE"] for mode in MODES]
    assert eces[0] > eces[1] > eces[2]
    assert eces[2] < 0.015
    assert modes["temperature"]["UA"] == modes["none"]["UA"]
    assert modes["temperature+prior"]["UA"] > modes["none"]["UA"] + 0.005


def test_ece_before_and_after_is_the_one_worked_out_by_hand():
    # always 0.9 sure and right in three of four: T = log 9 / log 3 = 2
    log_probs = torch.tensor([[0.9, 0.1]] * 4 + [[0.1, 0.9]] * 4).log()
    truth = ["sad"] * 3 + ["angry"] + ["angry"] * 3 + ["sad"]
    found = fit_calibration(log_probs, truth, ["sad", "angry"])
    assert found.temperature == pytest.approx(2, rel=1e-4)
    modes = compare_calibrations(
        found, log_probs, truth, ["sad", "angry"], "present"
    )
    assert modes["none"]["ECE"] == pytest.approx(0.15, abs=1e-6)
    assert modes["temperature"]["ECE"] == pytest.approx(0, abs=1e-4)
    assert all(modes[mode]["WA"] == 0.75 for mode in MODES)


def test_applied_is_the_one_worked_out_by_hand():
    likes = {"sad": math.log(2), "angry": -math.log(2)}
    found = Calibration(2.0, 1.0, likes)
    log_probs = torch.tensor([[0.64, 0.16, 0.16, 0.04]]).log()
    labels = ["sad", "angry", "proud", "calm"]
    # square roots 0.8 0.4 0.4 0.2; or sad halved, angry doubled, and the
    # labels that nothing is known of left alone
    for mode, weights in (
        ("none", [16, 4, 4, 1]),
        ("temperature", [4, 2, 2, 1]),
        ("temperature+prior", [8, 8, 4, 1]),
    ):
        expected = torch.tensor([weights]) / sum(weights)
        applied = found.apply(log_probs, labels, mode).exp()
        assert torch.allclose(applied, expected, atol=1e-6)


def test_what_is_meant_stays_and_the_rest_is_calibrated_alone():
    log_probs = torch.tensor([[0.4, 0.5, 0.1]]).log()
    found = Calibration(2.0, 1.0, {})
    applied = found.apply(
        log_probs, ["sad", "bored", "angry"], "temperature", {"bored"}
    )
    # 4 : 1 among the others becomes 2 : 1, of the half that they have
    torch.testing.assert_close(
        applied.exp(), torch.tensor([[1 / 3, 0.5, 1 / 6]])
    )
    alone = found.apply(log_probs, ["a", "b", "c"], "temperature", set("abc"))
    torch.testing.assert_close(alone, log_probs)


def test_labels_that_do_not_occur_have_no_prior_and_do_not_matter():
    log_probs, truth = simulate(8, n=500, sharpness=2.0)
    # a candidate that never is the true one takes half of the probability
    wider = np.hstack([log_probs, np.zeros((500, 1))])
    found = fit_calibration(wider, truth, [*LABELS, "surprise"])
    expected = fit_calibration(log_probs, truth, LABELS)
    assert found.log_prior == pytest.approx(expected.log_prior, abs=1e-5)
    assert found.temperature == pytest.approx(expected.temperature)


def test_order_of_labels_and_utterances_changes_nothing():
    log_probs, truth = simulate(9, n=200, liking=(1, 0, 0))
    found = fit_calibration(log_probs, truth, LABELS)
    order = np.random.default_rng(0).permutation(200)
    turned = fit_calibration(
        log_probs[order][:, ::-1], [truth[i] for i in order], LABELS[::-1]
    )
    assert turned.temperature == pytest.approx(found.temperature)
    assert turned.log_prior == pytest.approx(found.log_prior, abs=1e-4)


def test_a_label_of_one_utterance_does_not_run_away():
    log_probs, truth = simulate(10, n=100, shares=(0.5, 0.5, 0))
    log_probs = np.vstack([log_probs, [[-9, -9, -0.001]]])
    found = fit_calibration(log_probs, [*truth, "angry"], LABELS)
    assert all(abs(x) < 5 for x in found.log_prior.values())


@pytest.mark.parametrize("right", [True, False])
def test_all_right_or_all_wrong_is_warned_of_and_can_be_used(right, caplog):
    log_probs = np.log([[0.9, 0.1], [0.1, 0.9]])
    truth = ["sad", "angry"] if right else ["angry", "sad"]
    found = fit_calibration(log_probs, truth, ["sad", "angry"])
    assert 0.01 <= found.temperature <= 100
    reason = "all recognised" if right else "not recognised above chance"
    assert reason in caplog.text
    applied = found.apply(torch.tensor(log_probs), ["sad", "angry"], MODES[2])
    assert applied.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_applied_keeps_dtype_and_adds_up_to_one(dtype):
    log_probs = torch.randn(5, 3).to(dtype)
    for mode in MODES:
        applied = Calibration(1.7, 1.5, {"sad": 0.4}).apply(
            log_probs, LABELS, mode
        )
        assert applied.dtype == dtype
        total = applied.float().exp().sum(-1)
        assert torch.allclose(total, torch.ones(5), atol=0.02)


def test_compared_is_what_calibration_says_of_the_applied():
    log_probs, truth = simulate(11, n=100, sharpness=2.0)
    log_probs = torch.tensor(log_probs)
    found = Calibration(2.0, 1.8, {"sad": 0.3})
    modes = compare_calibrations(found, log_probs, truth, LABELS, "present")
    assert tuple(modes) == MODES
    for mode, result in modes.items():
        applied = found.apply(log_probs, LABELS, mode)
        expected = calibration(applied, truth, LABELS)
        assert {k: result[k] for k in expected} == expected
    assert json.loads(json.dumps(modes)) == modes


def test_what_is_saved_is_loaded(tmp_path):
    log_probs, truth = simulate(12, n=100)
    found = fit_calibration(log_probs, truth, LABELS, split="valid")
    assert found.fitted_on["n"] == 100
    assert found.fitted_on["labels"] == {w: truth.count(w) for w in LABELS}
    assert found.fitted_on["split"] == "valid"
    found.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == found


GOOD = {
    "temperature": 1,
    "temperature_with_prior": 1,
    "log_prior": {"sad": 0.5},
    "fitted_on": {},
}


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        json.dumps({**GOOD, "temperature": 0}),
        json.dumps({**GOOD, "temperature_with_prior": -1}),
        json.dumps({**GOOD, "temperature": math.nan}),
        json.dumps({**GOOD, "temperature": "hot"}),
        json.dumps({**GOOD, "log_prior": [1]}),
        json.dumps({**GOOD, "log_prior": {"sad": None}}),
        json.dumps({**GOOD, "fitted_on": None}),
        "[1]",
        "not JSON",
    ],
)
def test_a_file_that_is_none_of_ours_is_refused(tmp_path, text):
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"calibration\.json"):
        Calibration.load(path)


def test_the_same_with_usable_numbers_is_loaded(tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(GOOD))
    assert Calibration.load(path) == Calibration(1.0, 1.0, {"sad": 0.5})


def test_what_cannot_be_fitted_fails():
    log_probs = np.zeros((2, 3))
    for truth, reason in (
        (["sad", "sad"], "two labels at least"),
        (["sad", "calm"], "'calm'"),
        (["sad"], "expected"),
        ([], "nothing"),
    ):
        with pytest.raises(InputError, match=reason):
            fit_calibration(log_probs, truth, LABELS)


def test_an_unknown_mode_fails():
    with pytest.raises(InputError, match="give none, temperature or temp"):
        Calibration(1.0, 1.0, {}).apply(torch.zeros(1, 3), LABELS, "platt")


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-1", "0", "1" + "0" * 400]
)
@pytest.mark.parametrize("name", ["temperature", "temperature_with_prior"])
def test_a_file_whose_numbers_are_none_is_refused(tmp_path, name, value):
    path = tmp_path / "calibration.json"
    Calibration(2.0, 3.0, {"sad": 0.5}).save(path)
    text = path.read_text()
    before = {"temperature": "2.0", "temperature_with_prior": "3.0"}[name]
    path.write_text(text.replace(before, value))
    with pytest.raises(InputError, match="calibrate again"):
        Calibration.load(path)
    path.write_text(text.replace("0.5", "NaN"))
    with pytest.raises(InputError, match="calibrate again"):
        Calibration.load(path)


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
def test_no_calibration_is_made_of_numbers_that_are_none(value):
    for numbers in ((value, 1.0), (1.0, value)):
        with pytest.raises(InputError, match="are no calibration"):
            Calibration(*numbers, {})
    if not math.isfinite(value):
        with pytest.raises(InputError, match="are no calibration"):
            Calibration(1.0, 1.0, {"sad": value})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "row", [[math.nan, 0.0], [-math.inf] * 2, [math.inf, 0]]
)
def test_what_is_no_distribution_is_not_calibrated(mode, row):
    found = Calibration(2.0, 3.0, {"sad": 0.5})
    log_probs = torch.tensor([[0.0, -1.0], row])
    with pytest.raises(InputError, match="utterance 2 of 2 are not finite"):
        found.apply(log_probs, ["sad", "angry"], mode)
    # A word of probability 0 is one
    kept = found.apply(torch.tensor([[0.0, -math.inf]]), ["sad", "angry"], mode)
    assert kept.exp().tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nothing_is_fitted_to_what_is_no_distribution(value):
    log_probs, truth = simulate(0, n=50)
    log_probs[7, 1] = value
    with pytest.raises(InputError, match=r"utterance 8 are .* no distribution"):
        fit_calibration(log_probs, truth, LABELS)
