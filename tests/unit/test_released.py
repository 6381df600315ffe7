"""The released recogniser is found by its name, and is what its card says."""

import json
from pathlib import Path

import pytest
import torch
from release_card import release_card
from safetensors.torch import load_file

from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.calibration import FILE, Calibration
from speechbrain_mser.inference import EmotionRecognizer, folder
from speechbrain_mser.inference.folder import (
    RELEASED_FOLDER,
    SETTINGS_FILE,
    find_folder,
    find_weights,
    read_settings,
)
from speechbrain_mser.lobes.linear import LinearConnector
from speechbrain_mser.models.kept import is_made
from speechbrain_mser.models.registry import OPEN_MODELS, open_folder

is_here = pytest.mark.skipif(
    not RELEASED_FOLDER.is_dir(), reason="not trained yet: make train-open"
)
can_load = pytest.mark.skipif(
    not all(is_made(open_folder(name)) for name in OPEN_MODELS),
    reason="open models not fetched: make models",
)


@pytest.fixture
def released(tmp_path, monkeypatch):
    """A folder in the released one's place."""
    place = tmp_path / "released"
    place.mkdir()
    (place / SETTINGS_FILE).touch()
    monkeypatch.setattr(folder, "RELEASED_FOLDER", place)
    return place


def test_open_is_the_released_one_whatever_lies_here(
    released, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("open").mkdir()
    assert find_folder("open") == released
    for own in ("./open", Path("open"), tmp_path / "open"):
        assert find_folder(own).resolve() == tmp_path / "open"


def test_where_it_was_not_trained_it_says_what_to_run(released):
    (released / SETTINGS_FILE).unlink()
    with pytest.raises(InputError, match="make train-open MSER_DATA=FOLDER"):
        EmotionRecognizer.from_hparams()


def test_half_a_connector_has_its_statistics_whole(tmp_path):
    torch.manual_seed(0)
    connector = LinearConnector(16, 8, n_input_layers=3, layer_join="concat")
    mean = connector.standardizer.mean
    mean.copy_(1e5 * torch.randn(mean.shape))  # no float16
    for name, half in (("whole", False), ("half", True)):
        connector.save(tmp_path / name, half=half)
    whole, half = load_file(tmp_path / "whole"), load_file(tmp_path / "half")
    assert whole.keys() == half.keys()
    parameters = dict(connector.named_parameters())
    for name, value in half.items():
        expected = whole[name]
        if name in parameters:
            expected = expected.half()
        assert value.dtype == expected.dtype
        assert torch.equal(value, expected)
    again = LinearConnector(16, 8, n_input_layers=3, layer_join="concat")
    again.load(tmp_path / "half")
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert torch.equal(again.output.weight, half["output.weight"].float())


@is_here
def test_the_released_folder_is_whole():
    settings = read_settings(RELEASED_FOLDER / SETTINGS_FILE)
    path = find_weights(
        RELEASED_FOLDER, "connector", settings["connector_digest"]
    )
    assert path.stat().st_size < 20e6
    assert Calibration.load(RELEASED_FOLDER / FILE).fitted_on["n"] > 0
    for name in ("whisper_hub", "llama_hub"):
        assert settings[name] in OPEN_MODELS


@is_here
def test_the_released_card_is_written_of_its_json():
    facts = json.loads((RELEASED_FOLDER / "card.json").read_text("utf-8"))
    card = (RELEASED_FOLDER / "README.md").read_text("utf-8")
    assert card == release_card(facts)
    size = (RELEASED_FOLDER / "connector.safetensors").stat().st_size
    assert facts["connector"]["bytes"] == size


@is_here
@can_load
def test_the_released_recogniser_recognises():
    recognizer = EmotionRecognizer.from_hparams()
    wav = 0.1 * torch.sin(torch.arange(16000.0) / 10)[None]
    for calibration in ("none", "temperature"):
        words, log_probs = recognizer.recognize_batch(
            wav, calibration=calibration
        )
        assert words[0] in recognizer.labels()
        assert log_probs.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert recognizer.usual_calibration() == "temperature"
    # To words never trained nothing was fitted
    assert recognizer.usual_calibration(["sad", "bored"]) == "none"
