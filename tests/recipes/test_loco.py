"""Leave-one-corpus-out: what the methods see, and how means are made."""

import json
import re
import shutil
import sys

import folds
import loco
import loco_baselines
import numpy as np
import pandas as pd
import pytest
from folds import LABELS, read_overrides
from loco_baselines import leave_out, logistic_regression, standardize
from miniature import cells

from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.settings.project_files import HPARAMS

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


def test_what_was_heard_moves_a_corpus_by_the_shrunk_statistics():
    """Four utterances of mean 6 and variance 2 beside a training of 0 and 4."""
    training = np.array([[-2.0], [2.0]])
    heard = 6 + np.sqrt(2) * np.array([[-1.0], [1.0], [-1.0], [1.0]])
    features = np.concatenate([training, heard, [[0.0]]])
    corpora = np.array(["emodb"] * 2 + ["urdu"] * 5)
    moved = standardize(features, corpora, "urdu", "listen:3", [2, 3, 4, 5])
    # 4 of 4 + 3 for the mean, of 4 + 6 for the variance
    mean, variance = 4 / 7 * 6, 4 + 0.4 * (2 - 4)
    np.testing.assert_allclose(moved[6], -mean / variance**0.5, rtol=1e-5)
    np.testing.assert_allclose(moved[:2, 0], [-1, 1], rtol=1e-5)


def test_no_label_of_the_test_corpus_reaches_the_classifier():
    kinds = ["as they are", "inductive", "listen:3", "transductive"]
    kinds += ["self-trained"]
    rng = np.random.default_rng(1)
    labels = list(candidate_labels(LABELS["urdu"]))
    table = pd.DataFrame(
        {
            "ID": [*map(str, range(60))],
            "corpus": ["ravdess"] * 40 + ["urdu"] * 20,
            "emotion": labels * 15,
        }
    )
    features = rng.normal(size=(60, 5))
    # The same predictions for other labels: with all emotions in turn the
    # recalls of the four rotations add up to 1.
    totals = dict.fromkeys(kinds, 0.0)
    for shift in range(4):
        turned = table.copy()
        place = turned.corpus == "urdu"
        turned.loc[place, "emotion"] = [
            labels[(labels.index(e) + shift) % 4] for e in table.emotion[place]
        ]
        uas = leave_out(logistic_regression, features, turned, "urdu", kinds)
        for kind, ua in uas.items():
            totals[kind] += ua
    assert totals == pytest.approx(dict.fromkeys(kinds, 1.0))


def test_a_classifier_is_trained_once_for_all_that_it_hears():
    rng = np.random.default_rng(1)
    labels = list(candidate_labels(LABELS["urdu"]))
    table = pd.DataFrame(
        {
            "ID": [*map(str, range(60))],
            "corpus": ["ravdess"] * 20 + ["emovo"] * 20 + ["urdu"] * 20,
            "emotion": labels * 15,
        }
    )
    features = rng.normal(size=(60, 5))
    features[:, 0] += table.emotion.map(labels.index)
    features[40:] += 3
    trained = []

    def fit(*data):
        trained.append(data)
        return logistic_regression(*data)

    kinds = ["inductive", "listen:3", "transductive", "as they are"]
    together = leave_out(fit, features, table, "urdu", kinds)
    assert len(trained) == 2
    alone = [leave_out(fit, features, table, "urdu", [kind]) for kind in kinds]
    assert together == {name: ua for one in alone for name, ua in one.items()}
    assert len(set(together.values())) > 1


def test_the_table_has_means_over_corpora_and_seeds():
    simple = {"coin": dict.fromkeys(LABELS, 0.5) | {"urdu": 0.7}}
    runs = {
        seed: {corpus: {"none": {"UA": ua}} for corpus in LABELS}
        for seed, ua in ((1, 0.1), (2, 0.2), (3, 0.3))
    }
    table = cells(loco.report(simple, runs, lambda kind, corpus: 0.4))
    assert table[0] == ["UA", *LABELS, "mean"]
    chance = [1 / 6, 1 / 7, 1 / 7, 1 / 4]
    expected = [f"{x:.3f}" for x in (*chance, np.mean(chance))]
    assert table[2] == ["chance", *expected]
    assert table[3] == ["coin", "0.500", "0.500", "0.500", "0.700", "0.550"]
    assert table[4] == ["system, inductive", *["0.200 ± 0.100"] * 5]
    name = "system, inductive, 3 seeds together"
    assert table[5] == [name, *["0.400"] * 5]


def test_seeds_are_heard_together(tmp_path):
    """Neither is right about all; the surer one decides."""
    said = {
        1: [(0.9, 0.1), (0.6, 0.4), (0.45, 0.55), (0.0, 1.0)],
        2: [(0.4, 0.6), (0.2, 0.8), (0.9, 0.1), (0.3, 0.7)],
    }
    truth = ["neutral", "happy", "neutral", "happy"]
    for seed, rows in said.items():
        table = pd.DataFrame(rows, columns=["neutral", "happy"])
        table = table.assign(label=truth, sad=0.0, angry=0.0, ID=list("abcd"))
        place = tmp_path / loco.evaluation_place("urdu", seed, "listen:3")
        (place / "urdu").mkdir(parents=True)
        # In any order
        table[:: (-1) ** seed].to_csv(
            place / "urdu" / "predictions.csv", index=False
        )
    alone = [
        loco.together(tmp_path, "urdu", [seed], "listen:3") for seed in said
    ]
    assert alone == [0.5, 0.75]
    assert loco.together(tmp_path, "urdu", said, "listen:3") == 1.0


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


def test_a_fold_is_trained_on_the_others_and_run_once(
    real_corpora, run_script, in_this_process, tmp_path, monkeypatch, capsys
):
    data, folder, overrides = real_corpora
    shutil.copytree(HPARAMS, tmp_path / "hparams")
    recipe = tmp_path / "hparams" / "open" / "train.yaml"
    monkeypatch.setattr(folds, "OPEN", recipe)
    features = {"feature_folder": str(tmp_path / "elsewhere")}
    overrides = json.dumps({**json.loads(overrides), **features})
    flags = {"data": data, "folder": folder, "overrides": overrides}
    few = ["--seeds", "1", "--corpora", "urdu", "--without", "simple"]
    few += ["listen:1", "listen:3", "listen:30", "listen:30:speaker", "set"]
    few += ["telephone", "room"]
    assert run_script("loco", *few, flags=flags) == 0
    ran = [
        (name, dict(zip(arguments[1::2], arguments[2::2], strict=True)))
        for name, arguments in in_this_process.ran
    ]
    assert [name for name, _ in ran] == [
        "extract",
        "train",
        *["evaluate"] * 3,
        "pseudo_label",
        "train",
        "evaluate",
    ]
    others = ["emodb", "emovo", "ravdess"]
    trained = [json.loads(f["--corpora"]) for n, f in ran if n == "train"]
    assert trained == [others, [*others, "urdu"]]
    heard = [
        (f["--adaptation"], f.get("--microphone"))
        for n, f in ran
        if n == "evaluate"
    ]
    assert heard == [
        ("none", None),
        ("none", "noise"),
        ("listen:10", None),
        ("set", None),
    ]
    # The labels of the second training are the recogniser's own.
    (label,) = [f["--output_folder"] for n, f in ran if n == "pseudo_label"]
    assert ran[6][1]["--manifest_folder"] == label
    *_, table = capsys.readouterr().out.split("seeds [1]\n")
    for kind, row in zip(
        ("none", "noise", "listen_10", "self"), cells(table)[3:7], strict=True
    ):
        path = folder / "urdu" / "seed1" / kind / "metrics.json"
        ua = json.loads(path.read_text())["urdu"]["UA"]
        assert row[1:] == [f"{ua:.3f}"] * 2
    assert (tmp_path / "elsewhere").is_dir()
    assert not (folder / "features").exists()
    in_this_process.ran.clear()
    assert run_script("loco", *few, flags=flags) == 0
    assert in_this_process.ran == []
    # But a recipe that was changed is trained anew.
    recipe.write_text(re.sub(r"  lr: .*", "  lr: 0.5", recipe.read_text()))
    in_this_process.fail.append("train")
    assert run_script("loco", *few, flags=flags) == 3
    assert in_this_process.ran[-1][0] == "train"


def test_overrides_are_settings_of_the_recipe(real_corpora, run_script, capsys):
    data, folder, _ = real_corpora
    flags = {"data": data, "folder": folder, "overrides": "{lrr: 1.0}"}
    assert run_script("loco", flags=flags) == 2
    assert "no setting 'lrr'; did you mean" in capsys.readouterr().err
    for text in ("lr", "{lr: "):
        flags["overrides"] = text
        assert run_script("loco", flags=flags) == 2
    assert read_overrides("{a: b:c, d: 1e-3}") == {"a": "b:c", "d": 0.001}


@pytest.mark.parametrize("jobs", [1, 2])
def test_side_by_side_results_come_in_order_and_a_failure_ends_all(jobs):
    begun = []

    def run(number):
        begun.append(number)
        if number == 3:
            sys.exit(3)
        return number

    results = folds.side_by_side(jobs, run, [(n,) for n in range(50)])
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(SystemExit):
        next(results)
    if jobs == 1:
        assert begun == [0, 1, 2, 3]
