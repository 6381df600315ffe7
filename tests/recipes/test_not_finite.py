"""NaN and infinity never become a word; the utterance is named."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from speechbrain_mser.dataio.audio import load_audio
from speechbrain_mser.errors import InputError
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.lobes.whisper import WhisperEncoder
from speechbrain_mser.settings.project_files import HPARAMS

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "M5SER"
STAGE1 = HPARAMS / "stage1.yaml"
EVALUATE = HPARAMS / "evaluate.yaml"
# In training, validation and test.
OVERFLOWING = ("tiny_eng_2_happy", "tiny_eng_4_sad", "tiny_eng_5_angry")


@pytest.fixture(scope="module")
def overflow(tiny_corpus):
    """Whisper overflows at a few utterances, as in float16 it may."""
    root = tiny_corpus / "corpora" / "tiny"
    heads = [load_audio(root / f"{name}.wav")[:200] for name in OVERFLOWING]
    forward = WhisperEncoder.forward

    def overflowing(self, wavs, wav_lens=None):
        features, lens = forward(self, wavs, wav_lens)
        for row, wav in enumerate(wavs.cpu()):
            if any(torch.equal(wav[:200], head) for head in heads):
                features[row, ..., 3, 5] = torch.inf
        return features, lens

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WhisperEncoder, "forward", overflowing)
        yield


@pytest.fixture(scope="module")
def trained(tiny_flags, overflow, tmp_path_factory):
    """What a training left that met them."""
    import importlib
    import sys

    folder = tmp_path_factory.mktemp("out")
    flags = {**tiny_flags, "output_folder": folder}
    argv = ["train", str(STAGE1), *(f"--{k}={v}" for k, v in flags.items())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        importlib.import_module("train").main()
    return folder


@pytest.fixture(scope="module")
def recognizer(trained):
    return EmotionRecognizer.from_hparams(trained / "recognizer")


def test_training_goes_on_without_them_and_names_each_once(trained):
    log = (trained / "log.txt").read_text().splitlines()
    left_out = [line for line in log if "left out" in line]
    assert len(left_out) == 2
    for name in OVERFLOWING[:2]:
        assert sum(f"utterance {name} left out" in line for line in left_out)
    assert all("features are not finite" in line for line in left_out)
    last = (trained / "train_log.txt").read_text()
    assert "bad_utterances: 2" in last
    assert "nan" not in last.lower()
    saved = load_file(trained / "recognizer" / "connector.safetensors")
    assert all(value.isfinite().all() for value in saved.values())


def test_training_stops_when_asked(
    run_script, tiny_flags, overflow, tmp_path, capsys
):
    flags = {
        **tiny_flags,
        "output_folder": tmp_path,
        "on_bad_utterance": "stop",
    }
    assert run_script("train", STAGE1, flags=flags) == 2
    error = capsys.readouterr().err
    assert f"utterance {OVERFLOWING[0]}: the encoder's features" in error


def test_a_training_that_diverges_says_so_and_keeps_no_nan(
    run_script, tiny_flags, tmp_path, capsys
):
    flags = {**tiny_flags, "output_folder": tmp_path, "lr": "1e30"}
    flags["number_of_epochs"] = 9
    assert run_script("train", STAGE1, flags=flags) == 2
    error = capsys.readouterr().err
    assert "of features that are all finite: the training diverges" in error
    for path in tmp_path.rglob("connector.*"):
        if path.suffix in (".ckpt", ".safetensors"):
            saved = load_file(path)
            assert all(value.isfinite().all() for value in saved.values())


@pytest.fixture
def evaluation(tiny_corpus, trained, tmp_path):
    return {
        "recognizer": trained / "recognizer",
        "data_root": tiny_corpus / "corpora",
        "manifest_folder": tiny_corpus / "manifests",
        "skip_prep": True,
        "output_folder": tmp_path / "evaluation",
        "sets": f"[{{name: mine, manifest: {tiny_corpus}/manifests/tiny.csv, "
        f"data_root: {tiny_corpus}/corpora/tiny, split: test, "
        "labels: paper4}]",
        "resamples": 0,
    }


@pytest.mark.parametrize("features", ["off", "write"])
def test_evaluation_leaves_it_out_by_name_or_stops(
    run_script, evaluation, overflow, tmp_path, caplog, capsys, features
):
    flags = {
        **evaluation,
        "features": features,
        "feature_folder": tmp_path / "features",
    }
    assert run_script("evaluate", EVALUATE, flags=flags) == 0
    assert f"{OVERFLOWING[2]} left out: the encoder's features" in caplog.text
    text = (evaluation["output_folder"] / "metrics.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    results = json.loads(text)
    assert results["mine"]["unreadable"] == 1
    assert results["mine"]["n"] == 7
    flags["on_bad_utterance"] = "stop"
    assert run_script("evaluate", EVALUATE, flags=flags) == 2
    assert f"{OVERFLOWING[2]}: the encoder's" in capsys.readouterr().err


def test_what_cannot_be_scored_is_left_out_too(
    run_script, evaluation, monkeypatch, caplog
):
    score = EmotionRecognizer.score_features

    def overflowing(self, features, lens, labels=None):
        log_probs = score(self, features, lens, labels)
        log_probs[0] = torch.nan
        return log_probs

    monkeypatch.setattr(EmotionRecognizer, "score_features", overflowing)
    assert run_script("evaluate", EVALUATE, flags=evaluation) == 0
    assert "left out: the model's numbers are not finite" in caplog.text
    text = (evaluation["output_folder"] / "metrics.json").read_text()
    assert json.loads(text)["mine"]["unreadable"] >= 1
    assert "NaN" not in text


def test_recognising_refuses_features_that_are_not_finite(
    recognizer, tiny_corpus, overflow
):
    path = tiny_corpus / "corpora" / "tiny" / f"{OVERFLOWING[2]}.wav"
    bad, good = load_audio(path), torch.randn(8000) / 10
    wavs = torch.stack([good, torch.cat([bad, torch.zeros(8000)])[:8000]])
    for method in (
        recognizer.recognize_batch,
        recognizer.encode_batch,
        recognizer.generate_batch,
    ):
        with pytest.raises(InputError, match=r"utterance 2 of 2: the encoder"):
            method(wavs)
    with pytest.raises(InputError, match=r"^the encoder's features are not"):
        recognizer.recognize_file(path)
    features, lens = recognizer.mods.encoder(wavs, torch.ones(2))
    with pytest.raises(InputError, match=r"utterance 2 of 2: the encoder"):
        recognizer.recognize_features(features, lens)


@pytest.mark.parametrize("scale", [2**15, 1e25])
def test_a_batch_in_another_range_is_refused(recognizer, scale):
    wavs = torch.rand(3, 8000) - 0.5
    wavs[1] *= scale
    for method in (recognizer.recognize_batch, recognizer.encode_batch):
        with pytest.raises(InputError, match=r"utterance 2 of 3: samples up"):
            method(wavs)


def test_one_absurd_number_of_doubles_is_refused(recognizer):
    wavs = torch.rand(1, 8000, dtype=torch.float64) - 0.5
    wavs[0, 7] = 1e300  # infinite in single precision
    with pytest.raises(InputError, match="1 of 8000 samples are NaN or inf"):
        recognizer.recognize_batch(wavs)


def test_a_model_that_became_nan_says_no_word(recognizer, monkeypatch):
    weight = recognizer.mods.connector.output.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0] = torch.nan
    try:
        for method in (
            recognizer.recognize_batch,
            recognizer.encode_batch,
            recognizer.generate_batch,
        ):
            with pytest.raises(InputError, match="numbers are not finite"):
                method(torch.rand(1, 8000) - 0.5)
    finally:
        with torch.no_grad():
            weight.copy_(before)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_connector_with_nan_is_refused_when_it_is_loaded(
    trained, tmp_path, value
):
    folder = tmp_path / "recognizer"
    shutil.copytree(trained / "recognizer", folder)
    path = folder / "connector.safetensors"
    with safe_open(path, framework="pt") as file:
        described = file.metadata()
    tensors = load_file(path)
    tensors["output.bias"][2] = value
    save_file(tensors, path, described)
    # Else the file's digest gives it away before
    settings = folder / "hyperparams.yaml"
    lines = settings.read_text().splitlines(keepends=True)
    kept = [line for line in lines if "connector_digest" not in line]
    settings.write_text("".join(kept))
    with pytest.raises(InputError, match=r"output\.bias holds NaN or infinity"):
        EmotionRecognizer.from_hparams(folder)
