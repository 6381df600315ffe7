"""Metrics: by hand on paper, and against scikit-learn on random data."""

import json
import math
from pathlib import Path

import matplotlib.image
import numpy as np
import PIL.Image
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from speechbrain_mser.emotions import CANONICAL
from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.diagrams import plot_confusion
from speechbrain_mser.evaluation.metrics import (
    FIGURES,
    confusion_matrix,
    emotion_metrics,
    metrics_table,
    rates,
    ua_classes,
)
from speechbrain_mser.evaluation.reliability import calibration

# Ten utterances, worked out by hand:
#                    recognised  n  s  a    recall  precision  F1
#   neutral, 4 utterances        3  1  0    3/4     3/5        2/3
#   sad, 3                       1  2  0    2/3     2/4        4/7
#   angry, 3                     1  1  1    1/3     1/1        1/2
LABELS = ["neutral", "sad", "angry"]
REFERENCES = ["neutral"] * 4 + ["sad"] * 3 + ["angry"] * 3
PREDICTIONS = [
    *["neutral", "neutral", "neutral", "sad"],
    *["neutral", "sad", "sad"],
    *["neutral", "sad", "angry"],
]


def random_words(seed, n=500, labels=CANONICAL, present=None):
    """References and predictions, unevenly spread and half of them right."""
    rng = np.random.default_rng(seed)
    present = list(present or labels)
    weights = rng.dirichlet(np.ones(len(present)))
    references = rng.choice(present, n, p=weights)
    guesses = rng.choice(list(labels), n)
    predictions = np.where(rng.random(n) < 0.5, references, guesses)
    return references.tolist(), predictions.tolist()


def test_confusion_has_a_row_per_reference_and_a_column_per_prediction():
    matrix = confusion_matrix(REFERENCES, PREDICTIONS, LABELS)
    assert matrix.tolist() == [[3, 1, 0], [1, 2, 0], [1, 1, 1]]
    assert matrix.dtype.kind == "i"


def test_metrics_are_those_worked_out_by_hand():
    result = emotion_metrics(REFERENCES, PREDICTIONS, LABELS)
    assert result["n"] == 10
    assert result["labels"] == LABELS
    assert result["WA"] == pytest.approx(6 / 10)
    assert result["UA"] == pytest.approx((3 / 4 + 2 / 3 + 1 / 3) / 3)
    assert result["WF1"] == pytest.approx(
        0.4 * 2 / 3 + 0.3 * 4 / 7 + 0.3 * 1 / 2
    )
    assert result["precision"] == pytest.approx(0.4 * 0.6 + 0.3 * 0.5 + 0.3)
    assert result["chance"] == pytest.approx(1 / 3)
    assert result["predicted"] == {"neutral": 5, "sad": 4, "angry": 1}
    assert result["per_class"]["sad"] == pytest.approx(
        {"n": 3, "recall": 2 / 3, "precision": 1 / 2, "f1": 4 / 7}
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("present", [CANONICAL, CANONICAL[:5]])
def test_metrics_equal_scikit_learns(seed, present):
    words = random_words(seed, present=present)
    ours = emotion_metrics(*words, CANONICAL)
    expected = sklearn_metrics.confusion_matrix(*words, labels=CANONICAL)
    assert (confusion_matrix(*words, CANONICAL) == expected).all()
    weighted = {"average": "weighted", "zero_division": 0}
    assert ours["WA"] == pytest.approx(sklearn_metrics.accuracy_score(*words))
    # labels: those present in the references; the mean recall is over them
    assert ours["UA"] == pytest.approx(
        sklearn_metrics.recall_score(
            *words, labels=sorted(set(words[0])), average="macro"
        )
    )
    assert ours["WF1"] == pytest.approx(
        sklearn_metrics.f1_score(*words, **weighted)
    )
    assert ours["precision"] == pytest.approx(
        sklearn_metrics.precision_score(*words, **weighted)
    )


def test_ua_over_all_counts_a_class_that_never_occurs_as_recall_zero():
    references = ["sad", "sad", "angry", "angry"]
    predictions = ["sad", "surprise", "angry", "angry"]
    labels = ["sad", "angry", "surprise"]
    present = emotion_metrics(references, predictions, labels)
    over_all = emotion_metrics(references, predictions, labels, ua_over="all")
    assert present["UA"] == pytest.approx((1 / 2 + 1) / 2)
    assert over_all["UA"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert (present["chance"], over_all["chance"]) == (1 / 2, 1 / 3)
    for key in ("WA", "WF1", "precision", "per_class"):
        assert present[key] == over_all[key]


@pytest.mark.parametrize("k", [2, 4, 7])
def test_ua_of_a_constant_prediction_is_one_over_k(k):
    labels = CANONICAL[:k]
    references, _ = random_words(seed=k, labels=labels)
    references += labels  # each at least once
    for word in labels:
        result = emotion_metrics(references, [word] * len(references), labels)
        assert result["UA"] == pytest.approx(1 / k)
        assert result["UA"] == pytest.approx(result["chance"])


def test_perfect_predictions_score_one():
    references, _ = random_words(seed=0)
    result = emotion_metrics(references, references, CANONICAL)
    for key in ("WA", "UA", "WF1", "precision"):
        assert result[key] == pytest.approx(1)


def test_order_of_labels_and_of_utterances_changes_nothing():
    references, predictions = random_words(seed=3)
    before = emotion_metrics(references, predictions, CANONICAL)
    order = np.random.default_rng(3).permutation(len(references))
    after = emotion_metrics(
        [references[i] for i in order],
        [predictions[i] for i in order],
        CANONICAL[::-1],
    )
    for key in ("WA", "UA", "WF1", "precision", "chance"):
        assert after[key] == pytest.approx(before[key])
    assert after["per_class"] == before["per_class"]
    assert after["predicted"] == before["predicted"]


def test_labels_may_be_a_label_sets_name():
    words = (["sad", "fear"], ["sad", "sad"])
    by_name = emotion_metrics(*words, "paper7")
    assert by_name == emotion_metrics(*words, CANONICAL)


def test_rates_of_many_matrices_are_those_of_each():
    sets = [random_words(seed, n=40, present=CANONICAL[:5]) for seed in (1, 2)]
    matrices = np.array([confusion_matrix(*words, CANONICAL) for words in sets])
    for ua_over in ("present", "all"):
        classes = [ua_classes(m.sum(axis=1), ua_over) for m in matrices]
        found = rates(matrices, np.array(classes))
        for i, words in enumerate(sets):
            expected = emotion_metrics(*words, CANONICAL, ua_over)
            for name in FIGURES:
                assert found[name][i] == pytest.approx(expected[name])


def test_metrics_survive_json():
    result = emotion_metrics(REFERENCES, PREDICTIONS, LABELS)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize(
    ("references", "predictions", "labels", "reason"),
    [
        (["sad"], ["joyful"], ["sad"], "prediction 'joyful'.*1 of 1.*sad"),
        (["sad", "calm"], ["sad"] * 2, ["sad"], "reference 'calm'.*2 of 2"),
        (["sad"] * 3, ["sad"] * 2, ["sad"], "3 references but 2 predictions"),
        ([], [], ["sad"], "nothing to evaluate"),
        (["sad"], ["sad"], [], "no labels"),
        (["sad"], ["sad"], ["sad", "sad"], "given twice"),
        (["sad"], ["sad"], "paper9", "unknown label set"),
    ],
)
def test_what_cannot_be_counted_fails(references, predictions, labels, reason):
    for function in (confusion_matrix, emotion_metrics):
        with pytest.raises(InputError, match=reason):
            function(references, predictions, labels)


def test_an_unknown_ua_over_fails():
    with pytest.raises(InputError, match="'weighted'; give 'present' or 'all'"):
        emotion_metrics(["sad"], ["sad"], ["sad"], ua_over="weighted")


def test_calibration_is_the_one_worked_out_by_hand():
    probs = [
        [0.4, 0.3, 0.3],
        [0.4, 0.3, 0.3],
        [0.8, 0.1, 0.1],
        [0.9, 0.05, 0.05],
    ]
    truth = ["neutral", "sad", "neutral", "sad"]  # right, wrong, right, wrong
    result = calibration(np.log(probs), truth, LABELS, bins=2)
    # (0, 0.5]: accuracy 0.5, confidence 0.4; (0.5, 1]: 0.5 and 0.85
    assert result["ECE"] == pytest.approx((2 * 0.1 + 2 * 0.35) / 4)
    assert result["brier"] == pytest.approx((0.54 + 0.74 + 0.06 + 1.715) / 4)
    product = 0.4 * 0.3 * 0.8 * 0.05
    assert result["NLL"] == pytest.approx(-math.log(product) / 4)
    assert (result["n"], result["bins"]) == (4, 2)


def test_as_often_right_as_it_says_is_perfectly_calibrated():
    probs, truth = [], []
    for percent in (55, 65, 75, 85, 95):
        probs += [[percent / 100, 1 - percent / 100]] * 100
        truth += ["sad"] * percent + ["angry"] * (100 - percent)
    result = calibration(np.log(probs), truth, ["sad", "angry"])
    assert result["ECE"] == pytest.approx(0, abs=1e-12)


def test_certain_and_always_right_or_always_wrong_are_the_extremes():
    with np.errstate(divide="ignore"):
        certain = np.log([[1.0, 0.0], [1.0, 0.0]])
    labels = ["sad", "angry"]
    right = calibration(certain, ["sad", "sad"], labels)
    assert (right["ECE"], right["brier"], right["NLL"]) == (0, 0, 0)
    wrong = calibration(certain, ["angry", "angry"], labels)
    assert (wrong["ECE"], wrong["brier"], wrong["NLL"]) == (1, 2, math.inf)


def test_calibration_of_the_uniform_guess_is_known():
    k, n = len(CANONICAL), 70
    result = calibration(np.zeros((n, k)), CANONICAL * (n // k), CANONICAL)
    assert result["ECE"] == pytest.approx(0, abs=1e-12)
    assert result["NLL"] == pytest.approx(math.log(k))
    assert result["brier"] == pytest.approx(1 - 1 / k)


def test_nll_and_brier_equal_scikit_learns():
    rng = np.random.default_rng(0)
    labels = sorted(CANONICAL)  # scikit-learn sorts
    probs = rng.dirichlet(np.ones(7), 200)
    truth = rng.choice(labels, 200).tolist()
    result = calibration(np.log(probs), truth, labels)
    assert result["NLL"] == pytest.approx(
        sklearn_metrics.log_loss(truth, probs, labels=labels)
    )
    # Of several labels it is the sum over each against the rest; older
    # releases of scikit-learn know it of two only
    one_by_one = [
        sklearn_metrics.brier_score_loss([word == label for word in truth], p)
        for label, p in zip(labels, probs.T, strict=True)
    ]
    assert result["brier"] == pytest.approx(sum(one_by_one))


def assert_same_calibration(found, expected):
    for name in ("n", "bins", "ECE", "brier", "NLL"):
        assert found[name] == pytest.approx(expected[name])
    assert found["reliability"]["n"] == expected["reliability"]["n"]


def test_what_the_llm_gives_to_other_words_does_not_count():
    rng = np.random.default_rng(1)
    log_probs = np.log(rng.dirichlet(np.ones(3), 20))
    truth = rng.choice(LABELS, 20).tolist()
    shifted = log_probs - rng.uniform(0, 500, (20, 1))
    before = calibration(log_probs, truth, LABELS)
    assert_same_calibration(calibration(shifted, truth, LABELS), before)


def test_order_of_labels_does_not_change_the_calibration():
    rng = np.random.default_rng(2)
    log_probs = np.log(rng.dirichlet(np.ones(3), 50))
    truth = rng.choice(LABELS, 50).tolist()
    before = calibration(log_probs, truth, LABELS)
    after = calibration(log_probs[:, ::-1], truth, LABELS[::-1])
    assert_same_calibration(after, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_calibration_takes_a_tensor_with_its_gradient(dtype):
    log_probs = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=dtype)
    truth, labels = ["sad", "sad"], ["sad", "angry"]
    expected = calibration(log_probs.double().numpy(), truth, labels)
    assert calibration(log_probs.requires_grad_(), truth, labels) == expected


@pytest.mark.parametrize(
    ("log_probs", "truth", "bins", "reason"),
    [
        (np.zeros((2, 3)), ["sad"] * 2, 10, r"\[2, 3\]; expected \[2, 2\]"),
        (np.zeros((1, 2)), ["sad"] * 2, 10, r"\[1, 2\]; expected \[2, 2\]"),
        (np.zeros(2), ["sad"], 10, r"\[2\]; expected \[1, 2\]"),
        (np.full((1, 2), np.nan), ["sad"], 10, "utterance 1.*no distribution"),
        (np.full((1, 2), -np.inf), ["sad"], 10, "no distribution"),
        (np.zeros((1, 2)), ["calm"], 10, "reference 'calm'"),
        (np.zeros((0, 2)), [], 10, "nothing to evaluate"),
        (np.zeros((1, 2)), ["sad"], 0, "0 bins"),
    ],
)
def test_calibration_of_what_is_no_distribution_fails(
    log_probs, truth, bins, reason
):
    with pytest.raises(InputError, match=reason):
        calibration(log_probs, truth, ["sad", "angry"], bins)


def test_table_has_a_row_per_set_and_aligned_columns():
    result = emotion_metrics(REFERENCES, PREDICTIONS, LABELS)
    lines = metrics_table({"AESDD": result, "a|b": result}).splitlines()
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells == [
        *["AESDD", "10", "3", "0.333"],
        *["0.600", "0.583", "0.588", "0.690"],
    ]
    assert len(lines) == 4
    assert len(set(map(len, lines))) == 1
    # every unescaped bar begins a cell
    assert lines[3].replace("\\|", "").count("|") == lines[0].count("|")


def test_table_of_nothing_is_its_heading():
    assert len(metrics_table({}).splitlines()) == 2


def test_plot_is_a_png_whose_diagonal_is_dark(tmp_path):
    # a class without utterances, words and a title with mathtext in them
    labels = ["sad", "angry", "$x_$"]
    matrix = confusion_matrix(["sad", "angry"], ["sad", "angry"], labels)
    path = tmp_path / "figures" / "confusion.png"
    plot_confusion(matrix, labels, path.with_suffix(""), "RESD at $5 & $6")
    assert path.read_bytes().startswith(b"\x89PNG")
    names = {entry.name for entry in path.parent.iterdir()}
    assert names == {"confusion.png", "confusion.pdf"}
    image = matplotlib.image.imread(path)[..., :3]
    darkest_blue = (np.abs(image - [8 / 255, 48 / 255, 107 / 255]) < 0.02).all(
        -1
    )
    # two cells of nine in a figure of which the cells are about half
    assert 0.06 < darkest_blue.mean() < 0.22


def test_failing_plot_leaves_the_old_one_untouched(tmp_path, monkeypatch):
    path = tmp_path / "confusion.png"
    path.write_bytes(b"old")

    save = PIL.Image.Image.save

    def full_disk(image, target, **settings):
        if not isinstance(target, Path):  # in memory
            return save(image, target, **settings)
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("PIL.Image.Image.save", full_disk)
    with pytest.raises(OSError, match="No space"):
        plot_confusion([[1]], ["sad"], tmp_path / "confusion", "title")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_plot_of_a_matrix_that_does_not_fit_its_labels_fails(tmp_path):
    with pytest.raises(InputError, match=r"\[2, 2\] for 3 labels"):
        plot_confusion(np.eye(2), LABELS, tmp_path / "a", "title")
    assert not list(tmp_path.iterdir())
