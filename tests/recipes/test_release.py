"""The released recogniser's mechanics, with a tiny one in its place."""

import json
import shutil

import numpy as np
import pytest
import release
import torch
from release_card import release_card
from trained import train_recognizer

from speechbrain_mser.evaluation.calibration import (
    FILE,
    MODES,
    Calibration,
    compare_calibrations,
    fit_calibration,
)
from speechbrain_mser.inference import EmotionRecognizer, folder
from speechbrain_mser.inference.folder import SETTINGS_FILE, read_settings
from speechbrain_mser.settings.project_files import HPARAMS

TRAINING = {"seed": 7, "number_of_epochs": 1}


@pytest.fixture(scope="module")
def trained(tiny_flags, tmp_path_factory):
    return train_recognizer(tiny_flags, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def flags(tiny_corpus):
    return {
        "data_root": str(tiny_corpus / "corpora"),
        "manifest_folder": str(tiny_corpus / "manifests"),
        "skip_prep": True,
        "num_workers": 0,
    }


@pytest.fixture(scope="module")
def scored(trained, flags):
    """The tiny corpus as if its two languages were corpora left out."""
    whole = release.score_left_out({"tiny": trained}, flags)
    ((table, log_probs),) = whole.values()
    parts = {}
    for corpus, language in (("emodb", "deu"), ("mine", "eng")):
        rows = (table.language == language).to_numpy()
        parts[corpus] = table[rows], torch.tensor(log_probs)[rows]
    return parts


@pytest.fixture(scope="module")
def made(trained, scored, flags, tmp_path_factory):
    target = tmp_path_factory.mktemp("released") / "open"
    release.release(trained, scored, flags, TRAINING, target)
    return target


@pytest.fixture
def wav(tiny_corpus):
    return tiny_corpus / "corpora/tiny/tiny_eng_5_happy.wav"


def test_half_the_bytes_say_the_same(trained, made, wav):
    whole, half = (
        EmotionRecognizer.from_hparams(source) for source in (trained, made)
    )
    for one in (whole, half):
        assert {p.dtype for p in one.mods.connector.parameters()} == {
            torch.float32
        }
    sizes = [
        (source / "connector.safetensors").stat().st_size
        for source in (trained, made)
    ]
    assert sizes[1] < 0.65 * sizes[0]
    _, expected = whole.recognize_file(wav)
    words, found = half.recognize_file(wav, calibration="none")
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)
    # The calibration is the halved connector's own.
    again, calibrated = half.recognize_file(wav, calibration="temperature")
    assert again == words
    fitted = Calibration.load(made / FILE)
    torch.testing.assert_close(
        calibrated, (found / fitted.temperature).log_softmax(-1)
    )


def test_the_settings_are_those_of_training(trained, made):
    before, after = (
        read_settings(source / SETTINGS_FILE) for source in (trained, made)
    )
    assert before.pop("connector_digest") != after.pop("connector_digest")
    assert before == after
    assert after["trained_corpora"] == ["tiny"]


def test_it_is_made_again_bit_by_bit(trained, scored, flags, made, tmp_path):
    release.release(trained, scored, flags, TRAINING, tmp_path / "again")
    names = {path.name for path in made.iterdir()}
    assert names == {
        *("hyperparams.yaml", "connector.safetensors", "calibration.json"),
        *("card.json", "README.md"),
    }
    for name in names:
        again = (tmp_path / "again" / name).read_bytes()
        assert again == (made / name).read_bytes(), name


def test_a_corpus_is_measured_among_its_own_words(scored):
    labels = ["neutral", "happy", "sad", "angry"]
    table, log_probs = scored["mine"]
    two = (table.emotion.isin(["happy", "sad"])).to_numpy()
    found = release.measure(table[two], log_probs[two], labels)
    right = {"happy": [], "sad": []}
    for emotion, row in zip(table.emotion[two], log_probs[two], strict=True):
        said = "happy" if row[1] > row[2] else "sad"
        right[emotion].append(said == emotion)
    assert found["words"] == 2
    assert found["utterances"] == sum(map(len, right.values()))
    assert found["UA"] == pytest.approx(
        np.mean([np.mean(each) for each in right.values()])
    )


def test_a_calibration_is_measured_on_what_it_was_not_fitted_to(scored):
    labels = ["neutral", "happy", "sad", "angry"]
    found = release.measure_calibration(scored, labels)
    (table, log_probs), (others, theirs) = scored["mine"], scored["emodb"]
    fitted = fit_calibration(theirs, others.emotion.tolist(), labels)
    expected = compare_calibrations(
        fitted, log_probs, table.emotion.tolist(), labels, "present"
    )
    for mode in MODES:
        assert found["mine"][mode] == {
            name: expected[mode][name] for name in ("UA", "ECE", "NLL")
        }


def test_every_number_of_the_card_is_in_its_json(made, scored):
    facts = json.loads((made / "card.json").read_text())
    card = (made / "README.md").read_text()
    assert card == release_card(facts)
    for name, one in facts["left_out"].items():
        assert one["utterances"] == len(scored[name][0])
        assert f"{one['UA']:.3f} (" in card
        one["UA"] = 0.98765
    assert release_card(facts).count("0.988 (") == len(facts["left_out"])
    # Terms that nobody told are not made up.
    assert "unknown, see the corpus" in card
    assert "not commercial" in card and "Article 5(1)(f)" in card
    assert f"seed {TRAINING['seed']}" in card


def test_publishing_replaces_all_of_a_folder(made, tmp_path):
    target = tmp_path / "models" / "open"
    release.publish(made, target)
    (target / "old").touch()
    release.publish(made, target)
    assert {p.name for p in target.iterdir()} == {
        p.name for p in made.iterdir()
    }
    assert [p.name for p in target.parent.iterdir()] == ["open"]


@pytest.fixture
def in_its_place(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "open")
    monkeypatch.setattr(folder, "RELEASED_FOLDER", tmp_path / "open")
    return tmp_path / "open"


def test_who_names_no_recogniser_evaluates_the_released_one(
    in_its_place, flags, run_script, tmp_path
):
    sets = "[{name: tiny, corpus: tiny, labels: paper4, split: test}]"
    given = {**flags, "sets": sets, "output_folder": tmp_path / "out"}
    assert run_script("evaluate", HPARAMS / "evaluate.yaml", flags=given) == 0
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())["tiny"]
    assert "not zero-shot, trained on tiny" in metrics["note"]
    # Its calibration is on the corpora that were left out, not on this one.
    assert metrics["calibrated_on_it"] is False
    given = {**flags, "corpus": "tiny", "output_folder": tmp_path / "labels"}
    assert (
        run_script("pseudo_label", HPARAMS / "pseudo_label.yaml", flags=given)
        == 0
    )


def test_the_released_one_keeps_its_calibration(
    in_its_place, flags, run_script, capsys, tmp_path
):
    before = (in_its_place / FILE).read_bytes()
    given = {**flags, "recognizer": "open", "corpora": "tiny"}
    given["output_folder"] = tmp_path / "out"
    assert run_script("calibrate", HPARAMS / "calibrate.yaml", flags=given) == 2
    assert "copy that folder" in capsys.readouterr().err
    assert (in_its_place / FILE).read_bytes() == before
    shutil.copytree(in_its_place, tmp_path / "mine")
    given["recognizer"] = tmp_path / "mine"
    assert run_script("calibrate", HPARAMS / "calibrate.yaml", flags=given) == 0
    assert (tmp_path / "mine" / FILE).read_bytes() != before
