"""Another encoder in Whisper's place: trained, stored, exported, loaded."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
)

from speechbrain_mser.brain import EmotionBrain
from speechbrain_mser.command.main import main as mser
from speechbrain_mser.errors import InputError
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.inference.folder import read_settings
from speechbrain_mser.lobes import build_encoder
from speechbrain_mser.settings.project_files import HPARAMS

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


@pytest.fixture
def tiny_wavlm(tmp_path):
    config = WavLMConfig(
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=48,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    WavLMModel(config).save_pretrained(tmp_path / "wavlm")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "wavlm")
    return tmp_path / "wavlm"


@pytest.fixture
def train(run_script, tiny_flags, tmp_path, monkeypatch):
    """Train an epoch with stored features; the recogniser, and its brain."""

    def run(**flags):
        brains = []
        fit = EmotionBrain.fit

        def fit_and_keep(self, *args, **kwargs):
            brains.append(self)
            return fit(self, *args, **kwargs)

        monkeypatch.setattr(EmotionBrain, "fit", fit_and_keep)
        flags = {
            **tiny_flags,
            "output_folder": tmp_path / "out",
            "features": "write",
            "feature_folder": tmp_path / "features",
            "feature_dtype": "float32",
            **flags,
        }
        code = run_script("train", HPARAMS / "stage1.yaml", flags=flags)
        assert code == 0
        return tmp_path / "out" / "recognizer", brains[0]

    return run


def test_a_wavlm_takes_whispers_place_by_one_setting(
    train, tiny_wavlm, tiny_corpus
):
    folder, brain = train(whisper_hub=tiny_wavlm, encoder_layers="[1,-1]")
    brain.modules.train()  # as Brain does in each epoch
    encoder = brain.raw("encoder")
    assert type(encoder).__name__ == "SpeechEncoder"
    assert not any(module.training for module in encoder.modules())
    trained = {
        name
        for name, weight in brain.modules.named_parameters()
        if weight.requires_grad
    }
    assert trained
    assert all(name.startswith("connector.") for name in trained)
    # A stranger may load it: its settings name no code.
    settings = read_settings(folder / "hyperparams.yaml")
    assert settings["whisper_hub"] == str(tiny_wavlm)
    recognizer = EmotionRecognizer.from_hparams(folder)
    wav = next((tiny_corpus / "corpora").rglob("*.wav"))
    (word,), log_probs = recognizer.recognize_file(wav)
    assert word in recognizer.labels()
    assert log_probs.isfinite().all()
    # What was stored while it was trained is what it hears.
    audio = recognizer.load_audio(wav)[None]
    features, _ = brain.raw("encoder")(audio)
    assert torch.equal(features, recognizer.mods.encoder(audio)[0])
    tokens, *_ = brain.raw("connector").eval()(features, torch.ones(1))
    expected = brain.raw("llm").score(tokens, recognizer.labels())
    torch.testing.assert_close(log_probs, expected.log_softmax(-1))


def test_padding_to_30s_is_for_whisper(tiny_wavlm):
    with pytest.raises(InputError, match="is a wavlm"):
        build_encoder(tiny_wavlm, pad_to_30s=True)


def test_the_documents_encoder_trains_and_is_loaded_when_trusted(
    train, tiny_corpus, monkeypatch
):
    monkeypatch.syspath_prepend(EXAMPLES)
    sys.modules.pop("encoder", None)
    folder, _ = train(
        whisper_hub="mel", encoder_class="encoder.MelEncoder", encoder_layers=0
    )
    with pytest.raises(InputError, match="trusted=True"):
        EmotionRecognizer.from_hparams(folder)
    recognizer = EmotionRecognizer.from_hparams(folder, trusted=True)
    wav = next((tiny_corpus / "corpora").rglob("*.wav"))
    (word,), _ = recognizer.recognize_file(wav)
    assert word in recognizer.labels()
    # Independent of batch-mates, which SpeechBrain's batches are not.
    encoder = recognizer.mods.encoder
    short, long = 1e-3 * torch.randn(1600), torch.randn(16000)
    wavs = torch.stack([torch.cat([short, torch.zeros(14400)]), long])
    both, lens = encoder(wavs, torch.tensor([0.1, 1.0]))
    assert both.shape == (2, 100, 80)
    assert (lens * 100).tolist() == [10, 100]
    assert torch.equal(both[0, :10], encoder(short[None])[0][0])


def test_scripts_and_the_command_load_it_when_trusted(
    train, run_script, tiny_corpus, tmp_path, monkeypatch, capsys
):
    monkeypatch.syspath_prepend(EXAMPLES)
    sys.modules.pop("encoder", None)
    folder, _ = train(
        whisper_hub="mel", encoder_class="encoder.MelEncoder", encoder_layers=0
    )
    flags = {
        "recognizer": folder,
        "data_root": tiny_corpus / "corpora",
        "manifest_folder": tiny_corpus / "manifests",
        "skip_prep": True,
        "num_workers": 0,
    }
    name = tmp_path / "table"
    calls = {
        "evaluate": {"sets": "[tiny]", "output_folder": name, "resamples": 0},
        "pseudo_label": {"corpus": "tiny", "output_folder": tmp_path / "new"},
    }
    wav = next((tiny_corpus / "corpora").rglob("*.wav"))
    command = ["recognize", str(wav), "--json", "--recognizer", str(folder)]
    for script, own in calls.items():
        yaml = HPARAMS / f"{script}.yaml"
        both = {**flags, **own}
        assert run_script(script, yaml, flags=both) == 2
        assert "--trusted True" in capsys.readouterr().err
        assert run_script(script, yaml, flags={**both, "trusted": True}) == 0
    assert (name / "metrics.json").is_file()
    with pytest.raises(SystemExit):
        mser(command)
    assert "--trusted" in capsys.readouterr().err
    assert mser([*command, "--trusted"]) == 0
    assert '"emotion"' in capsys.readouterr().out


@pytest.mark.parametrize("name", ["os.system", "no.such", "torch.nn.Linear"])
def test_a_class_that_is_no_encoder_is_refused(name):
    with pytest.raises(InputError, match="encoder_class"):
        build_encoder("x", encoder_class=name)
