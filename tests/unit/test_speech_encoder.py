"""Encoders of raw audio against transformers' own, one utterance at a time."""

import functools
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    Data2VecAudioConfig,
    HubertConfig,
    SeamlessM4TFeatureExtractor,
    UniSpeechConfig,
    UniSpeechSatConfig,
    Wav2Vec2BertConfig,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
)

from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.speech_encoder import SpeechEncoder

SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.1,
}
CONVOLUTIONS = {
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
BASE = {**SIZE, **CONVOLUTIONS}
LARGE = {
    **BASE,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
# Each as its kind is on the hub: a configuration, whether audio is normalised.
KINDS = {
    "wavlm-base": (WavLMConfig(**BASE), False),
    "wavlm-large": (WavLMConfig(**LARGE), True),
    "hubert-base": (HubertConfig(**BASE), True),
    "hubert-large": (HubertConfig(**LARGE), True),
    "wav2vec2-base": (Wav2Vec2Config(**BASE), True),
    "xls-r": (Wav2Vec2Config(**LARGE, add_adapter=True), True),
    "data2vec": (
        Data2VecAudioConfig(
            **{**BASE, "num_conv_pos_embeddings": 3}, conv_pos_kernel_size=5
        ),
        True,
    ),
    "conformer": (
        Wav2Vec2ConformerConfig(**LARGE, position_embeddings_type="rotary"),
        True,
    ),
    "unispeech": (UniSpeechConfig(**BASE), True),
    "unispeech-sat": (UniSpeechSatConfig(**BASE), True),
    "w2v-bert": (Wav2Vec2BertConfig(**SIZE), None),
}
# Of unlike parts of a frame; the last is shorter than one.
LENGTHS = [16000, 3333, 9999, 16319, 560, 399]


def saved(name, folder):
    config, normalised = KINDS[name]
    torch.manual_seed(1)
    AutoModel.from_config(config).save_pretrained(folder)
    if normalised is None:
        extractor = SeamlessM4TFeatureExtractor()
    else:
        extractor = Wav2Vec2FeatureExtractor(do_normalize=normalised)
    extractor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: saved(name, tmp_path_factory.mktemp(name)) for name in KINDS}


def noise(samples, seed=0, loudness=0.1):
    generator = torch.Generator().manual_seed(seed)
    return loudness * torch.randn(samples, generator=generator) + 0.01


def batch_of(utterances):
    wavs = torch.nn.utils.rnn.pad_sequence(utterances, batch_first=True)
    return wavs, torch.tensor([len(u) / wavs.shape[1] for u in utterances])


@functools.cache
def peer(folder):
    """transformers' own feature extractor and model."""
    model = AutoModel.from_pretrained(folder).eval()
    model.adapter = None
    return AutoFeatureExtractor.from_pretrained(folder), model


def official(folder, utterance):
    """transformers' hidden states ``[layers, frames, dim]``, the last normed."""
    extractor, model = peer(folder)
    inputs = extractor(
        utterance.numpy(), sampling_rate=16000, return_tensors="pt"
    )
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    frames = output.last_hidden_state.shape[1]
    if "input_features" in inputs:
        frames = int(inputs["attention_mask"].sum())
    states = [*output.hidden_states[:-1], output.last_hidden_state]
    return torch.cat(states)[:, :frames]


@pytest.mark.parametrize("name", KINDS)
def test_features_are_transformers_alone_and_in_any_batch(name, folders):
    encoder = SpeechEncoder(folders[name], layers="all")
    utterances = [
        noise(length, seed, 10.0 ** -(seed % 3))
        for seed, length in enumerate(LENGTHS)
    ]
    features, lens = encoder(*batch_of(utterances))
    assert encoder.frame_rate == 50
    assert encoder.n_output_layers == 4
    counts = (lens * features.shape[2]).round().int().tolist()
    for utterance, row, count in zip(utterances, features, counts, strict=True):
        alone, _ = encoder(utterance[None])
        assert alone.shape[2] == count
        torch.testing.assert_close(row[:, :count], alone[0], atol=1e-5, rtol=0)
        assert (row[:, count:] == 0).all()
        assert row.isfinite().all()
        if len(utterance) >= encoder.samples_of_frame:
            expected = official(folders[name], utterance)
            torch.testing.assert_close(
                row[:, :count], expected, atol=1e-5, rtol=1e-5
            )
    # Less than a frame's samples: one frame.
    assert counts[-1] == 1


def test_transformers_batches_are_another_matter(folders):
    # The trap is real: the padding is normalised over.
    short, long = noise(8000), noise(16000, 1)
    extractor, model = peer(folders["wavlm-base"])
    with torch.no_grad():
        inputs = extractor(
            [short.numpy(), long.numpy()],
            sampling_rate=16000,
            return_tensors="pt",
            padding=True,
            return_attention_mask=True,
        )
        theirs = model(**inputs).last_hidden_state[0, :24]
    alone = official(folders["wavlm-base"], short)[-1]
    assert (theirs - alone).abs().max() > 0.01


@pytest.mark.parametrize("name", ["wavlm-base", "wavlm-large", "w2v-bert"])
@pytest.mark.parametrize("layers", [0, -1, [2, 0, 2]])
def test_layers_above_those_asked_for_are_not_needed(name, layers, folders):
    wavs = noise(8000)[None]
    expected, _ = SpeechEncoder(folders[name], layers="all")(wavs)
    encoder = SpeechEncoder(folders[name], layers=layers)
    features, _ = encoder(wavs)
    numbers = encoder.layers if isinstance(layers, list) else encoder.layers[0]
    assert torch.equal(features, expected[:, numbers])
    assert len(encoder.model.encoder.layers) == max(1, *encoder.layers)


@pytest.mark.parametrize("name", ["wavlm-base", "w2v-bert"])
def test_long_audio_is_encoded_in_windows_on_one_grid(name, folders):
    encoder = SpeechEncoder(folders[name], window=1.0)
    long = noise(40_000)
    features, _ = encoder(long[None])
    whole, _ = SpeechEncoder(folders[name])(long[None])
    assert features.shape == whole.shape == (1, 124, 32)
    # Three windows of 42, 42 and 40 frames, each with its last frame's end.
    beyond = encoder.samples_of_frame - 320
    for first, last in ((0, 42), (42, 84), (84, 124)):
        window = long[first * 320 : last * 320 + beyond]
        if last == 124:
            window = long[first * 320 :]
        alone, _ = encoder(window[None])
        torch.testing.assert_close(
            features[0, first:last], alone[0], atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("name", KINDS)
def test_no_sound_is_no_number(name, folders):
    encoder = SpeechEncoder(folders[name])
    for wav in (torch.zeros(16000), torch.full((1,), 0.5), torch.ones(320)):
        features, _ = encoder(wav[None])
        assert features.shape[1] == (49 if len(wav) == 16000 else 1)
        assert features.isfinite().all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["wavlm-base", "wavlm-large", "w2v-bert"])
def test_half_precision_is_near(name, dtype, folders):
    batch = batch_of([noise(16000), noise(8000, 1)])
    encoder = SpeechEncoder(folders[name], dtype=dtype)
    features, lens = encoder(*batch)
    assert features.dtype == getattr(torch, dtype)
    assert lens.dtype == torch.float32
    expected, _ = SpeechEncoder(folders[name])(*batch)
    error = (features.float() - expected).norm() / expected.norm()
    assert error < 0.05


def test_frozen_means_evaluation_mode_and_no_gradients(folders):
    encoder = SpeechEncoder(folders["wavlm-base"])
    torch.nn.ModuleDict({"encoder": encoder}).train()  # as Brain does
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
    features, _ = encoder(noise(8000)[None].requires_grad_())
    assert not features.requires_grad


def rewritten(folder, target, change):
    """The folder with its weights under other names."""
    shutil.copytree(folder, target)
    path = target / "model.safetensors"
    weights = load_file(path)
    save_file(change(weights), path, {"format": "pt"})
    return target


def test_older_names_and_other_heads_are_the_same_model(folders, tmp_path):
    folder = folders["hubert-base"]
    encoder = SpeechEncoder(folder)
    parametrised = "parametrizations.weight.original"
    assert any(parametrised in name for name in encoder.state_dict())

    def as_on_the_hub(weights):
        return {
            name.replace(f"{parametrised}0", "weight_g").replace(
                f"{parametrised}1", "weight_v"
            ): weight
            for name, weight in weights.items()
        }

    def as_parametrised(weights):
        return {
            name.replace("weight_g", f"{parametrised}0").replace(
                "weight_v", f"{parametrised}1"
            ): weight
            for name, weight in weights.items()
        }

    def with_a_head(weights):
        headed = {f"hubert.{name}": w for name, w in weights.items()}
        return {**headed, "lm_head.weight": torch.zeros(32, 32)}

    wavs = noise(8000)[None]
    for number, change in enumerate(
        (as_on_the_hub, as_parametrised, with_a_head)
    ):
        other = SpeechEncoder(rewritten(folder, tmp_path / str(number), change))
        assert torch.equal(other(wavs)[0], encoder(wavs)[0])
        assert other.digest == encoder.digest
        assert other.fingerprint() == encoder.fingerprint()


@pytest.mark.parametrize(
    "name", ["encoder.layers.1.attention.q_proj.weight", "pos_conv_embed"]
)
def test_a_missing_weight_is_named(name, folders, tmp_path):
    folder = rewritten(
        folders["wavlm-base"],
        tmp_path / "wavlm",
        lambda weights: {k: v for k, v in weights.items() if name not in k},
    )
    with pytest.raises(
        InputError, match=r"whisper_hub.*has no weight"
    ) as error:
        SpeechEncoder(folder)
    assert name in str(error.value)


def test_features_have_the_front_end_in_their_fingerprint(folders, tmp_path):
    shutil.copytree(folders["wavlm-base"], tmp_path / "other")
    path = tmp_path / "other" / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "do_normalize": True}))
    first, other, short = (
        SpeechEncoder(folders["wavlm-base"]),
        SpeechEncoder(tmp_path / "other"),
        SpeechEncoder(folders["wavlm-base"], window=5),
    )
    assert first.describe()["digest"] == other.describe()["digest"]
    assert first.fingerprint() != other.fingerprint()
    assert first.fingerprint() != short.fingerprint()
    # Loud or quiet is the same to one of them.
    wavs = noise(8000)[None]
    for encoder, is_same in ((first, False), (other, True)):
        loud, quiet = encoder(wavs)[0], encoder(wavs / 8)[0]
        assert torch.allclose(loud, quiet, atol=1e-3) == is_same


def test_another_kind_of_model_is_refused(tiny_whisper):
    with pytest.raises(InputError, match=r"is a whisper, expected .*wavlm"):
        SpeechEncoder(tiny_whisper)


@pytest.mark.parametrize("window", [0, 601, -1])
def test_a_window_of_no_length_is_refused(window, folders):
    with pytest.raises(InputError, match="encoder_window"):
        SpeechEncoder(folders["wavlm-base"], window=window)
