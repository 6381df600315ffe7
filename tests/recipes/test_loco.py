"""Leave-one-corpus-out: what the simple methods see, and how means are made."""

import loco
import numpy as np
import pandas as pd
import pytest

from speechbrain_mser.emotions import candidate_labels

CORPORA = np.array(["emodb"] * 3 + ["emovo"] * 2 + ["urdu"] * 4)


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    shift = {"emodb": 5.0, "emovo": -3.0, "urdu": 100.0}
    return np.stack([shift[c] + rng.normal(size=2) for c in CORPORA])


def test_transductive_gives_every_corpus_mean_0_and_deviation_1(features):
    moved = loco.standardize(features, CORPORA, "urdu", "transductive")
    for corpus in set(CORPORA):
        part = moved[corpus == CORPORA]
        np.testing.assert_allclose(part.mean(0), 0, atol=1e-9)
        np.testing.assert_allclose(part.std(0), 1, atol=1e-5)


def test_inductive_does_not_look_at_the_test_corpus(features):
    moved = loco.standardize(features, CORPORA, "urdu", "inductive")
    training = features[CORPORA != "urdu"]
    expected = (features[5:] - training.mean(0)) / training.std(0)
    np.testing.assert_allclose(moved[5:], expected, rtol=1e-5)
    # One test utterance changed, the others as before
    features[8] += 1000
    again = loco.standardize(features, CORPORA, "urdu", "inductive")
    np.testing.assert_array_equal(again[:8], moved[:8])


def test_no_label_of_the_test_corpus_reaches_the_classifier():
    rng = np.random.default_rng(1)
    labels = list(candidate_labels(loco.LABELS["urdu"]))
    table = pd.DataFrame(
        {
            "corpus": ["ravdess"] * 40 + ["urdu"] * 20,
            "emotion": labels * 15,
        }
    )
    features = rng.normal(size=(60, 5))
    ua = loco.logistic_regression(features, table, "urdu")
    # The same predictions for other labels: with all emotions in turn the
    # recalls of the four rotations add up to 1.
    total = ua
    for shift in range(1, 4):
        turned = table.copy()
        place = turned.corpus == "urdu"
        turned.loc[place, "emotion"] = [
            labels[(labels.index(e) + shift) % 4] for e in table.emotion[place]
        ]
        total += loco.logistic_regression(features, turned, "urdu")
    assert total == pytest.approx(1.0)


def test_the_table_has_means_over_corpora_and_seeds():
    simple = {"coin": dict.fromkeys(loco.LABELS, 0.5) | {"urdu": 0.7}}
    folds = {
        seed: {
            corpus: {
                "inductive": {"UA": 0.4 + 0.1 * seed},
                "transductive": {"UA": 0.6},
            }
            for corpus in loco.LABELS
        }
        for seed in (1, 2)
    }
    lines = loco.report(simple, folds).splitlines()
    assert lines[2].split("|")[-2].strip() == "0.550"
    # 0.5 and 0.6: mean 0.55, deviation sqrt(2 * 0.05²) = 0.071
    inductive = [cell.strip() for cell in lines[3].split("|")]
    assert inductive[1:] == [
        "the system, inductive",
        *["0.550 ± 0.071"] * 5,
        "",
    ]
    assert "0.600 ± 0.000" in lines[4]
