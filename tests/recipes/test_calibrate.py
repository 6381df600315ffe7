"""Calibration is fitted on validation data, and shipped with the recogniser."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from trained import train_recognizer

from speechbrain_mser.dataio.manifest import read_manifest, write_manifest
from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.calibration import FILE, MODES, Calibration
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.settings.project_files import HPARAMS

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "M5SER"
CALIBRATE = HPARAMS / "calibrate.yaml"
EVALUATE = HPARAMS / "evaluate.yaml"
LABELS = ["neutral", "happy", "sad", "angry"]


@pytest.fixture(scope="module")
def trained(tiny_flags, tmp_path_factory):
    return train_recognizer(tiny_flags, tmp_path_factory.mktemp("trained"))


@pytest.fixture
def flags(tiny_corpus, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "recognizer")
    return {
        "recognizer": tmp_path / "recognizer",
        "output_folder": tmp_path / "out",
        "data_root": tiny_corpus / "corpora",
        "manifest_folder": tiny_corpus / "manifests",
        "skip_prep": True,
        "num_workers": 0,
    }


@pytest.fixture
def calibrate(run_script, flags):
    def run(**changed):
        given = {"corpora": "tiny", **flags, **changed}
        code = run_script("calibrate", CALIBRATE, flags=given)
        path = flags["recognizer"] / FILE
        return code, path.read_bytes() if path.exists() else None

    return run


@pytest.fixture
def evaluate(run_script, flags):
    def run(**changed):
        sets = "[{name: all, corpus: tiny, labels: paper4}, "
        sets += "{name: test, corpus: tiny, labels: paper4, split: test}]"
        given = {**flags, "sets": sets, **changed}
        assert run_script("evaluate", EVALUATE, flags=given) == 0
        folder = flags["output_folder"]
        return json.loads((folder / "metrics.json").read_text())

    return run


def relabelled(tiny_corpus, folder, splits):
    """The tiny corpus with the labels of some splits turned around."""
    rows = read_manifest(tiny_corpus / "manifests" / "tiny.csv")
    rows = rows.to_dict("records")
    for row in rows:
        if row["split"] in splits:
            place = LABELS.index(row["emotion"]) + 1
            row["emotion"] = LABELS[place % len(LABELS)]
    write_manifest(folder / "manifests" / "tiny.csv", rows)
    return folder / "manifests"


def test_it_is_fitted_on_the_validation_split_and_says_so(calibrate, flags):
    code, _ = calibrate()
    assert code == 0
    found = Calibration.load(flags["recognizer"] / FILE)
    assert found.fitted_on["split"] == "valid"
    assert found.fitted_on["corpora"] == {"tiny": 8}
    assert found.fitted_on["labels"] == dict.fromkeys(LABELS, 2)
    names = {path.name for path in flags["output_folder"].iterdir()}
    assert names == {"calibration.md", "reliability.png", "reliability.pdf"}
    report = (flags["output_folder"] / "calibration.md").read_text()
    assert f"Temperature {found.temperature:.3f}" in report


def test_no_label_outside_validation_reaches_it(
    calibrate, tiny_corpus, tmp_path
):
    _, before = calibrate()
    others = relabelled(tiny_corpus, tmp_path / "a", ("train", "test"))
    assert calibrate(manifest_folder=others) == (0, before)
    # and those of validation do
    valid = relabelled(tiny_corpus, tmp_path / "b", ("valid",))
    code, after = calibrate(manifest_folder=valid)
    assert code == 0 and after != before


def test_a_corpus_without_validation_data_is_refused(
    calibrate, tiny_corpus, tmp_path, capsys
):
    rows = read_manifest(tiny_corpus / "manifests" / "tiny.csv")
    rows = rows[rows.split == "test"].to_dict("records")
    write_manifest(tmp_path / "m" / "tiny.csv", rows)
    code, found = calibrate(manifest_folder=tmp_path / "m")
    assert (code, found) == (2, None)
    assert "split valid" in capsys.readouterr().err


def test_the_split_is_no_setting(calibrate, capsys):
    for name in ("split", "valid_split"):
        code, found = calibrate(**{name: "test"})
        assert (code, found) == (2, None)
        assert f"no setting '{name}'" in capsys.readouterr().err


def test_a_recogniser_on_the_hub_is_refused(calibrate, capsys):
    code, _ = calibrate(recognizer="someone/some-model")
    assert code == 2
    assert "downloaded first" in capsys.readouterr().err


def test_the_recogniser_applies_it_when_asked(calibrate, flags):
    calibrate()
    recognizer = EmotionRecognizer.from_hparams(flags["recognizer"])
    found = json.loads((flags["recognizer"] / FILE).read_text())
    wavs = torch.randn(3, 8000)
    words, raw = recognizer.recognize_batch(wavs)
    assert recognizer.recognize_batch(wavs, calibration="none")[0] == words
    scaled = raw.numpy() / found["temperature"]
    with_prior = raw.numpy() / found["temperature_with_prior"]
    prior = [found["log_prior"][word] for word in LABELS]
    for mode, expected in (
        ("temperature", scaled),
        ("temperature+prior", with_prior - np.array(prior)),
    ):
        said, log_probs = recognizer.recognize_batch(wavs, calibration=mode)
        assert log_probs.numpy() == pytest.approx(
            log_softmax(expected, axis=1), abs=1e-5
        )
        assert said == [LABELS[k] for k in expected.argmax(1)]


def test_labels_never_fitted_are_left_alone(calibrate, flags):
    calibrate()
    recognizer = EmotionRecognizer.from_hparams(flags["recognizer"])
    wavs, labels = torch.randn(2, 8000), ["jealous", "fear"]
    _, raw = recognizer.recognize_batch(wavs, labels=labels)
    _, log_probs = recognizer.recognize_batch(
        wavs, labels=labels, calibration="temperature+prior"
    )
    found = recognizer.load_calibration()
    expected = (raw / found.temperature_with_prior).log_softmax(-1)
    assert torch.allclose(log_probs, expected, atol=1e-6)


def test_without_a_calibration_asking_for_one_says_what_to_do(
    run_script, flags, capsys
):
    recognizer = EmotionRecognizer.from_hparams(flags["recognizer"])
    with pytest.raises(InputError, match="calibrate it on validation data"):
        recognizer.recognize_batch(
            torch.randn(1, 8000), calibration="temperature"
        )
    with pytest.raises(InputError, match="'platt'"):
        recognizer.recognize_batch(torch.randn(1, 8000), calibration="platt")
    sets = "[{name: all, corpus: tiny, labels: paper4}]"
    flags = {**flags, "sets": sets, "calibration": "temperature"}
    assert run_script("evaluate", EVALUATE, flags=flags) == 2
    assert "calibrate it" in capsys.readouterr().err
    flags["calibration"] = "platt"
    assert run_script("evaluate", EVALUATE, flags=flags) == 2
    assert "'platt'" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["connector", "prompt"])
def test_another_models_calibration_is_refused(calibrate, flags, what):
    calibrate()
    path = flags["recognizer"] / FILE
    found = json.loads(path.read_text())
    found["fitted_on"][what] = "another"
    path.write_text(json.dumps(found))
    recognizer = EmotionRecognizer.from_hparams(flags["recognizer"])
    with pytest.raises(InputError, match=f"another {what}.*again"):
        recognizer.load_calibration()


def test_evaluation_compares_all_and_follows_the_one_asked_for(
    calibrate, evaluate, flags
):
    assert "calibrations" not in evaluate()["test"]
    calibrate()
    found = evaluate()
    # "all" holds the validation utterances, "test" none of them
    assert found["all"]["calibrated_on_it"]
    assert not found["test"]["calibrated_on_it"]
    compared = found["test"]["calibrations"]
    assert tuple(compared) == MODES
    folder = flags["output_folder"] / "test"
    assert (folder / "reliability.pdf").read_bytes().startswith(b"%PDF")
    assert (folder / "reliability.png").read_bytes().startswith(b"\x89PNG")
    for mode in MODES:
        result = evaluate(calibration=mode)["test"]
        for name in ("WA", "UA"):
            assert result[name] == pytest.approx(compared[mode][name])
        ece = result["calibration"]["ECE"]
        assert ece == pytest.approx(compared[mode]["ECE"], abs=1e-5)
    with open(folder / "predictions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        probs = [float(row[word]) for word in LABELS]
        assert sum(probs) == pytest.approx(1, abs=1e-5)
        assert row["prediction"] == LABELS[int(np.argmax(probs))]
