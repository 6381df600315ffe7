"""No label of a test set reaches training, selection, calibration or said words.

The whole way, from train.py to evaluate.py's predictions, with the test
utterances' labels as they are and with every one of them wrong.
"""

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from speechbrain_mser.dataio.manifest import read_manifest, write_manifest
from speechbrain_mser.settings.project_files import HPARAMS

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "M5SER"
LABELS = ["neutral", "happy", "sad", "angry"]


@pytest.fixture
def relabelled(tiny_corpus, tmp_path):
    """Manifests with every label of one split wrong, or of none."""

    def write(split):
        folder = tmp_path / f"wrong-{split}" / "manifests"
        table = read_manifest(tiny_corpus / "manifests" / "tiny.csv")
        rows = table.to_dict("records")
        for row in rows:
            if row["split"] == split:
                place = LABELS.index(row["emotion"]) + 1
                wrong = LABELS[place % len(LABELS)]
                row |= {"emotion": wrong, "label": wrong}
        write_manifest(folder / "tiny.csv", rows)
        return folder

    return write


@pytest.fixture
def train(run_script, tiny_flags, relabelled):
    """Train with one split's labels wrong; the folder that it leaves."""

    def run(split):
        manifests = relabelled(split)
        flags = {
            **tiny_flags,
            "manifest_folder": manifests,
            "output_folder": manifests.parent / "training",
            "languages": "[eng, deu]",
            # All in training that goes by labels or by corpora
            "balance": 1.0,
            "align_corpora": True,
            "align_speakers": True,
            "rest_exchange": 1.0,
            "number_of_epochs": 2,
            "lr": 1e-2,
        }
        yaml = HPARAMS / "stage1.yaml"
        assert run_script("train", yaml, flags=flags) == 0
        return manifests.parent / "training"

    return run


@pytest.fixture
def predict(run_script, tiny_corpus):
    """Calibrate once, adapt and evaluate; the rows of predictions.csv."""

    def run(training, adaptation):
        folder = training.parent
        common = {
            "recognizer": training / "recognizer",
            "data_root": tiny_corpus / "corpora",
            "manifest_folder": folder / "manifests",
            "skip_prep": True,
            "num_workers": 0,
        }
        flags = {"corpora": "tiny", "output_folder": folder / "calibration"}
        yaml = HPARAMS / "calibrate.yaml"
        if not (training / "recognizer" / "calibration.json").exists():
            assert run_script("calibrate", yaml, flags=common | flags) == 0
        flags = {
            "output_folder": folder / "evaluation",
            "adaptation": adaptation,
            "calibration": "temperature+prior",
            "sets": "[{name: test, corpus: tiny, labels: paper4, split: test}]",
            "resamples": 0,
        }
        yaml = HPARAMS / "evaluate.yaml"
        assert run_script("evaluate", yaml, flags=common | flags) == 0
        path = folder / "evaluation" / "test" / "predictions.csv"
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 8
        return rows

    return run


def checkpoints(training):
    """What selection kept, as it was saved, and the log that it went by."""
    kept = sorted((training / "save").glob("CKPT*/connector.ckpt"))
    assert kept
    files = [*kept, training / "recognizer" / "connector.safetensors"]
    return [load_file(path) for path in files], (
        training / "train_log.txt"
    ).read_text()


def equal(one, other):
    """Whether lists of tensors by name are bit for bit the same."""
    return len(one) == len(other) and all(
        a.keys() == b.keys()
        and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )


def test_wrong_labels_in_the_test_set_change_nothing_but_the_score(
    train, predict
):
    right, wrong = train("none"), train("test")
    weights, log = checkpoints(right)
    weights_of_wrong, log_of_wrong = checkpoints(wrong)
    assert equal(weights, weights_of_wrong)
    assert log == log_of_wrong
    for adaptation in ("set", "listen:3"):
        said = [predict(training, adaptation) for training in (right, wrong)]
        for row, row_of_wrong in zip(*said, strict=True):
            assert row.pop("label") != row_of_wrong.pop("label")
            assert row == row_of_wrong
    # To the last bit, beyond a table's digits
    fits = [
        (training / "recognizer" / "calibration.json").read_text()
        for training in (right, wrong)
    ]
    assert json.loads(fits[0])["fitted_on"]["split"] == "valid"
    assert fits[0] == fits[1]
    # And where labels may be seen, that would have shown.
    weights_of_wrong, log_of_wrong = checkpoints(train("train"))
    assert not equal(weights, weights_of_wrong)
    assert log != log_of_wrong
