"""Leave-one-corpus-out: what the methods see, and how means are made."""

import loco
import loco_baselines
import numpy as np
import pandas as pd
import pytest
from loco_baselines import LABELS, leave_out, logistic_regression, standardize
from loco_qformer import together

from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError

CORPORA = np.array(["emodb"] * 3 + ["emovo"] * 2 + ["urdu"] * 4)


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    shift = {"emodb": 5.0, "emovo": -3.0, "urdu": 100.0}
    return np.stack([shift[c] + rng.normal(size=2) for c in CORPORA])


@pytest.mark.parametrize("kind", ["transductive", "self-trained"])
def test_transductive_gives_every_corpus_mean_0_and_deviation_1(features, kind):
    moved = standardize(features, CORPORA, "urdu", kind)
    for corpus in set(CORPORA):
        part = moved[corpus == CORPORA]
        np.testing.assert_allclose(part.mean(0), 0, atol=1e-9)
        np.testing.assert_allclose(part.std(0), 1, atol=1e-5)


def test_inductive_does_not_look_at_the_test_corpus(features):
    moved = standardize(features, CORPORA, "urdu", "inductive")
    training = features[CORPORA != "urdu"]
    expected = (features[5:] - training.mean(0)) / training.std(0)
    np.testing.assert_allclose(moved[5:], expected, rtol=1e-5)
    # One test utterance changed, the others as before
    features[8] += 1000
    again = standardize(features, CORPORA, "urdu", "inductive")
    np.testing.assert_array_equal(again[:8], moved[:8])


@pytest.mark.parametrize(
    "kind", ["as they are", "inductive", "transductive", "self-trained"]
)
def test_no_label_of_the_test_corpus_reaches_the_classifier(kind):
    rng = np.random.default_rng(1)
    labels = list(candidate_labels(LABELS["urdu"]))
    table = pd.DataFrame(
        {
            "corpus": ["ravdess"] * 40 + ["urdu"] * 20,
            "emotion": labels * 15,
        }
    )
    features = rng.normal(size=(60, 5))
    # The same predictions for other labels: with all emotions in turn the
    # recalls of the four rotations add up to 1.
    total = 0
    for shift in range(4):
        turned = table.copy()
        place = turned.corpus == "urdu"
        turned.loc[place, "emotion"] = [
            labels[(labels.index(e) + shift) % 4] for e in table.emotion[place]
        ]
        total += leave_out(logistic_regression, features, turned, "urdu", kind)
    assert total == pytest.approx(1.0)


def test_every_corpus_is_left_out_inside_the_other_three(monkeypatch):
    """The choice for a corpus never involves that corpus."""
    trained, tested = [], []

    class Protocol:
        def train(self, place, corpora, settings, seed):
            trained.append(frozenset(corpora))
            return place

        def evaluate(self, place, recognizers, corpora, adaptation):
            assert adaptation == "none"
            assert not trained[-1] & set(corpora)
            tested.append((trained[-1], tuple(corpora)))
            # A corpus's number, and that of the configuration.
            bonus = "layer_3" in place
            return {
                name: {"UA": [*LABELS].index(name) + 10 * bonus}
                for name in corpora
            }

    chosen = loco.choose(Protocol())
    assert len(tested) == 6 * len(loco.CONFIGURATIONS)
    for test, uas in chosen.items():
        others = [k for k, name in enumerate(LABELS) if name != test]
        assert uas["layers 2-4"] == pytest.approx(np.mean(others))
        assert max(uas, key=uas.get) == "layer 3"


def test_the_table_has_means_over_corpora_and_trainings():
    simple = {"coin": dict.fromkeys(LABELS, 0.5) | {"urdu": 0.7}}

    def metrics(run):
        alone = [{"UA": ua} for ua in (0.1, 0.2, 0.3)]
        return {"UA": 0.4 + 0.1 * run, "each": alone}

    kinds = (loco.INDUCTIVE, loco.MOVED, loco.TRANSDUCTIVE)
    runs = {
        run: {
            corpus: {kind: metrics(run) for kind in kinds} for corpus in LABELS
        }
        for run in (1, 2)
    }
    table = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in loco.report(simple, runs).splitlines()
    ]
    assert table[2] == ["coin", "0.500", "0.500", "0.500", "0.700", "0.550"]
    # Six trainings of 0.1, 0.2, 0.3 twice: deviation sqrt(4 * 0.1² / 5)
    assert table[3][1:] == ["0.200 ± 0.089"] * 5
    # 0.5 and 0.6: mean 0.55, deviation sqrt(2 * 0.05²) = 0.071
    assert table[4][1:] == ["0.550 ± 0.071"] * 5


def test_connectors_of_two_experiments_are_heard_together(tmp_path):
    """Neither is right about all; the surer one decides."""
    said = {
        "linear": [(0.9, 0.1), (0.6, 0.4), (0.45, 0.55), (0.0, 1.0)],
        "qformer": [(0.4, 0.6), (0.2, 0.8), (0.9, 0.1), (0.3, 0.7)],
    }
    truth = ["neutral", "happy", "neutral", "happy"]
    folders = [tmp_path / name for name in said]
    for folder, rows in zip(folders, said.values(), strict=True):
        table = pd.DataFrame(rows, columns=["neutral", "happy"])
        table = table.assign(label=truth, sad=0.0, angry=0.0, ID=list("abcd"))
        place = folder / "place" / "urdu"
        place.mkdir(parents=True)
        # In any order
        table[::-1].to_csv(place / "predictions.csv", index=False)
    alone = [together([folder], "place", "urdu") for folder in folders]
    assert alone == [0.5, 0.75]
    assert together(folders, "place", "urdu") == 1.0
    table[:3].to_csv(place / "predictions.csv", index=False)
    with pytest.raises(InputError, match="other utterances"):
        together(folders, "place", "urdu")
    with pytest.raises(InputError, match=r"loco\.py in that folder first"):
        together(folders, "elsewhere", "urdu")


def test_every_simple_method_has_its_features():
    pooled = np.arange(2 * 7 * 6.0).reshape(2, 7, 6)
    every = loco_baselines.methods(pooled, np.zeros((2, 88)))
    fit, values, kinds = every["layers 2-4, mean"]
    assert fit is logistic_regression and "self-trained" in kinds
    np.testing.assert_array_equal(
        values[0], [12, 13, 14, 18, 19, 20, 24, 25, 26]
    )
    assert every["layer 6, mean and deviation"][1].shape == (2, 6)
    assert len(every) == 1 + 2 * 7 + 1
