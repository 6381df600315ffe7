"""The frozen Whisper encoder against transformers' own, alone or in a batch."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from speechbrain.integrations.huggingface.whisper import Whisper
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes import encoder as frozen_encoder
from speechbrain_mser.lobes.whisper import WhisperEncoder

# Samples, none of them alike: whole frames of 320, one sample less, one more,
# and half frames; the shortest is one tenth of a second.
LENGTHS = [16000, 1600, 15999, 16001, 8000, 31840, 5555, 32000]


@pytest.fixture(scope="module")
def last_layer(tiny_whisper):
    return WhisperEncoder(tiny_whisper)


@pytest.fixture(scope="module")
def first_layer(tiny_whisper):
    return WhisperEncoder(tiny_whisper, layers=0)


@pytest.fixture(scope="module")
def all_layers(tiny_whisper):
    return WhisperEncoder(tiny_whisper, layers="all")


@pytest.fixture(scope="module")
def padded(tiny_whisper):
    return WhisperEncoder(tiny_whisper, layers="all", pad_to_30s=True)


def noise(samples, seed=0, loudness=0.1):
    """Noise that swells and fades, so that its maximum is inside."""
    generator = torch.Generator().manual_seed(seed)
    shape = torch.linspace(0, torch.pi, samples).sin() + 0.1
    return loudness * shape * torch.randn(samples, generator=generator)


def batch_of(utterances):
    """Utterances padded with zeros, and their relative lengths."""
    longest = max(map(len, utterances))
    wavs = torch.zeros(len(utterances), longest)
    for wav, utterance in zip(wavs, utterances, strict=True):
        wav[: len(utterance)] = utterance
    return wavs, torch.tensor([len(u) / longest for u in utterances])


def official(folder, utterance, n_frames=None):
    """transformers' features of 30 s, or of ``n_frames`` positions alone.

    Returns its tuple of hidden states and its last one.
    """
    encoder = WhisperModel.from_pretrained(folder).encoder.eval()
    mel = WhisperFeatureExtractor.from_pretrained(folder)(
        utterance.numpy(), sampling_rate=16000, return_tensors="pt"
    ).input_features
    if n_frames is not None:
        mel = mel[..., : 2 * n_frames]
        positions = encoder.embed_positions.weight[:n_frames]
        encoder.embed_positions = torch.nn.Embedding.from_pretrained(positions)
        encoder.config.max_source_positions = n_frames
    with torch.no_grad():
        output = encoder(mel, output_hidden_states=True)
    return output.hidden_states, output.last_hidden_state


def test_padded_to_30s_is_transformers_bit_for_bit(padded, tiny_whisper):
    utterances = [noise(40000), noise(24100, seed=1, loudness=0.001)]
    features, lens = padded(*batch_of(utterances))
    assert features.shape == (2, 4, 125, 32)
    assert lens.tolist() == pytest.approx([1, 76 / 125])
    for row, utterance, frames in zip(
        features, utterances, (125, 76), strict=True
    ):
        hidden_states, last = official(tiny_whisper, utterance)
        assert len(hidden_states) == 4
        for number, expected in enumerate(hidden_states):
            assert torch.equal(row[number, :frames], expected[0, :frames])
        assert torch.equal(row[3, :frames], last[0, :frames])
        assert (row[:, frames:] == 0).all()


def test_true_length_is_transformers_encoder_of_so_many_positions(
    all_layers, tiny_whisper
):
    utterance = noise(32000)
    features, _ = all_layers(utterance[None])
    hidden_states, _ = official(tiny_whisper, utterance, n_frames=100)
    torch.testing.assert_close(
        features[0], torch.cat(hidden_states), atol=1e-5, rtol=0
    )


def test_layers_are_numbered_as_in_transformers(all_layers, tiny_whisper):
    # 0 is the convolutions and positions, the last comes after the norm.
    utterance = noise(16000)
    features, _ = all_layers(utterance[None])
    encoder = all_layers.model.encoder
    mel = WhisperFeatureExtractor.from_pretrained(tiny_whisper)(
        utterance.numpy(), sampling_rate=16000, return_tensors="pt"
    ).input_features[..., :100]
    gelu = torch.nn.functional.gelu
    first = gelu(encoder.conv2(gelu(encoder.conv1(mel)))).transpose(1, 2)
    first = first + encoder.embed_positions.weight[:50]
    torch.testing.assert_close(features[0, :1], first, atol=1e-5, rtol=0)
    before_norm = encoder.layers[2](features[:, 2], None)
    torch.testing.assert_close(features[:, 3], encoder.layer_norm(before_norm))


@pytest.mark.parametrize(
    ("layers", "numbers"),
    [
        ([1], [1]),
        ([-1, -4, 2, 2], [3, 0, 2, 2]),
    ],
)
def test_any_layers_can_be_chosen_in_any_order(
    layers, numbers, tiny_whisper, all_layers
):
    wavs = noise(8000)[None]
    encoder = WhisperEncoder(tiny_whisper, layers=layers)
    assert encoder.n_output_layers == len(numbers)
    features, _ = encoder(wavs)
    assert torch.equal(features, all_layers(wavs)[0][:, numbers])


@pytest.mark.parametrize(
    ("which", "number"), [("last_layer", 3), ("first_layer", 0)]
)
def test_one_layer_has_no_dimension_for_layers(
    which, number, request, all_layers
):
    wavs = noise(8000)[None]
    features, lens = request.getfixturevalue(which)(wavs)
    assert features.shape == (1, 25, 32)
    assert torch.equal(features, all_layers(wavs)[0][:, number])
    assert lens.tolist() == [1]


@pytest.mark.parametrize("which", ["last_layer", "all_layers", "padded"])
def test_features_do_not_depend_on_batch_mates(which, request):
    encoder = request.getfixturevalue(which)
    utterances = [
        noise(length, seed=seed, loudness=10.0 ** -(seed % 4))
        for seed, length in enumerate(LENGTHS)
    ]
    features, lens = encoder(*batch_of(utterances))
    assert features.shape[-2:] == (100, 32)
    for utterance, row, length in zip(utterances, features, lens, strict=True):
        frames = -(-len(utterance) // 320)
        assert length.item() == pytest.approx(frames / 100)
        alone, _ = encoder(utterance[None])
        assert alone.shape[-2] == frames
        torch.testing.assert_close(
            row[..., :frames, :], alone[0], atol=1e-5, rtol=0
        )
        assert (row[..., frames:, :] == 0).all()


@pytest.mark.parametrize("layers", ["all", [2, -1, 2]])
@pytest.mark.parametrize("cost", [0, 10**9])
def test_how_pieces_go_through_the_encoder_changes_nothing(
    layers, cost, tiny_whisper, all_layers, monkeypatch
):
    """Each length apart or all in one pass: as each utterance alone."""
    monkeypatch.setitem(frozen_encoder.FRAMES_PER_PASS, "cpu", cost)
    encoder = WhisperEncoder(tiny_whisper, layers=layers)
    utterances = [
        noise(length, seed) for seed, length in enumerate([*LENGTHS, 500_000])
    ]
    features, lens = encoder(*batch_of(utterances))
    frames = (lens * features.shape[2]).round().int().tolist()
    assert frames == [50, 5, 50, 51, 25, 100, 18, 100, 1563]
    for row, utterance, n in zip(features, utterances, frames, strict=True):
        alone, _ = all_layers(utterance[None])
        torch.testing.assert_close(
            row[:, :n], alone[0, encoder.layers], atol=1e-5, rtol=0
        )
        assert (row[:, n:] == 0).all()


def test_a_few_lengths_go_through_the_model_where_that_is_asked_for(last_layer):
    lengths, conv2 = [], last_layer.model.encoder.conv2
    hook = conv2.register_forward_hook(
        lambda _, inputs, output: lengths.append(output.shape[-1])
    )
    for seconds in (0.3, 1.0, 1.01, 2.5, 29.9):
        wav = torch.randn(1, int(seconds * 16000))
        expected, _ = last_layer(wav)
        features, lens = last_layer(wav, multiple=80)
        assert lens.tolist() == [1] and features.shape == expected.shape
        torch.testing.assert_close(features, expected, atol=2e-4, rtol=0)
    hook.remove()
    # 1520 would be more than Whisper has positions for
    assert lengths[1::2] == [80, 80, 80, 160, 1500]


def test_passes_hold_all_pieces_once_and_never_more_than_asked_for():
    frames = [7, 100, 3, 90, 100, 12, 1, 55]
    for cost in (0, 10, 100, 10**9):
        parts = frozen_encoder._split(
            sorted(range(8), key=lambda i: -frames[i]), frames, cost
        )
        assert sorted(i for part in parts for i in part) == list(range(8))
        # No cut would spare more than it costs.
        for part in parts:
            lengths = [frames[i] for i in part]
            assert lengths == sorted(lengths, reverse=True)
            for k in range(len(part)):
                assert (lengths[0] - lengths[k]) * (len(part) - k) <= cost
    # 100, 100, 90 | 55 | 12, 7, 3, 1: by hand, at a cost of 30 frames.
    parts = frozen_encoder._split([1, 4, 3, 7, 5, 0, 2, 6], frames, 30)
    assert parts == [[1, 4, 3], [7], [5, 0, 2, 6]]


def test_what_stands_in_the_padding_does_not_matter(last_layer):
    wavs, wav_lens = batch_of([noise(16000), noise(4000)])
    features, _ = last_layer(wavs, wav_lens)
    wavs[1, 4000:] = noise(12000, loudness=10)
    assert torch.equal(last_layer(wavs, wav_lens)[0], features)


@pytest.mark.parametrize("which", ["all_layers", "padded"])
def test_a_loud_batch_mate_does_not_change_a_quiet_log_mel(which, request):
    encoder = request.getfixturevalue(which)
    quiet, loud = noise(16000, loudness=1e-5), noise(16000, loudness=0.5)
    # Layer 0 is the convolutions of the log-mel.
    alone = encoder(quiet[None])[0][0, 0]
    both = encoder(torch.stack([quiet, loud]))[0][0, 0]
    torch.testing.assert_close(both, alone, atol=1e-5, rtol=0)
    # SpeechBrain's clamps with the batch's maximum: the trap is real.
    theirs_alone = Whisper.log_mel_spectrogram(encoder, quiet[None])[0]
    theirs = Whisper.log_mel_spectrogram(encoder, torch.stack([quiet, loud]))[0]
    assert (theirs - theirs_alone).abs().max() > 0.1


def test_a_click_at_the_end_does_not_reach_beyond_it(all_layers):
    # The frame after the last one still hears the click, and louder; with a
    # longer batch mate it is computed, and must not raise the floor.
    utterance = noise(3200, loudness=1e-7)
    utterance[-1] = 1.0
    alone, _ = all_layers(utterance[None])
    both, _ = all_layers(*batch_of([utterance, noise(16000)]))
    torch.testing.assert_close(both[0, :, :10], alone[0], atol=1e-5, rtol=0)


def test_lengths_default_to_whole_utterances(last_layer):
    wavs = torch.stack([noise(8000), noise(8000, seed=1)])
    features, lens = last_layer(wavs)
    assert torch.equal(features, last_layer(wavs, torch.ones(2))[0])
    assert lens.tolist() == [1, 1]


def test_long_audio_is_encoded_in_windows_of_equal_length(last_layer):
    # 70 s and one sample: three windows of 1167 frames of 320 samples.
    long, short, longer = noise(1_120_001), noise(9999, 1), noise(480_001, 2)
    features, lens = last_layer(*batch_of([long, short, longer]))
    assert features.shape == (3, 3501, 32)
    assert (lens * 3501).round().tolist() == [3501, 32, 1501]
    for number in range(3):
        window = long[number * 1167 * 320 : (number + 1) * 1167 * 320]
        alone, _ = last_layer(window[None])
        torch.testing.assert_close(
            features[0, number * 1167 : (number + 1) * 1167],
            alone[0],
            atol=1e-5,
            rtol=0,
        )
    alone, _ = last_layer(short[None])
    torch.testing.assert_close(features[1, :32], alone[0], atol=1e-5, rtol=0)
    # One sample too many for one window: two of 751 and 750 frames.
    for part, window in (
        (slice(0, 751), longer[: 751 * 320]),
        (slice(751, 1501), longer[751 * 320 :]),
    ):
        alone, _ = last_layer(window[None])
        torch.testing.assert_close(
            features[2, part], alone[0], atol=1e-5, rtol=0
        )


def test_30_seconds_fit_one_window(last_layer):
    wav = noise(480_000)
    features, _ = last_layer(wav[None])
    assert features.shape == (1, 1500, 32)
    halves, _ = last_layer(wav.reshape(2, -1))
    assert not torch.allclose(features[0], halves.flatten(0, 1), atol=1e-3)


def test_frozen_means_evaluation_mode_and_no_gradients(last_layer):
    torch.nn.ModuleDict({"encoder": last_layer}).train()  # as Brain does
    assert not any(module.training for module in last_layer.modules())
    assert not any(p.requires_grad for p in last_layer.parameters())
    features, _ = last_layer(noise(8000)[None].requires_grad_())
    assert not features.requires_grad


@pytest.fixture(scope="module")
def stored_in_float16(tiny_whisper, tmp_path_factory):
    """The tiny Whisper as whisper-large-v3 is stored."""
    folder = tmp_path_factory.mktemp("float16")
    shutil.copytree(tiny_whisper, folder, dirs_exist_ok=True)
    WhisperModel.from_pretrained(tiny_whisper).half().save_pretrained(folder)
    with safe_open(folder / "model.safetensors", "pt") as file:
        name = "encoder.conv1.weight"
        assert file.get_tensor(name).dtype == torch.float16
    assert json.loads((folder / "config.json").read_text())["dtype"] == (
        "float16"
    )
    return folder


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 0.01), ("bfloat16", 0.1)]
)
def test_the_dtype_is_the_one_asked_for(
    dtype, tolerance, stored_in_float16, last_layer
):
    encoder = WhisperEncoder(stored_in_float16, dtype=dtype)
    expected = getattr(torch, dtype)
    assert {p.dtype for p in encoder.model.parameters()} == {expected}
    wavs, wav_lens = batch_of([noise(16000), noise(8000)])
    features, lens = encoder(wavs, wav_lens)
    assert features.dtype == expected
    assert lens.dtype == torch.float32
    torch.testing.assert_close(
        features.float(), last_layer(wavs, wav_lens)[0], atol=tolerance, rtol=0
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_weights_do_not_reach_the_log_mel(
    dtype, tiny_whisper, first_layer
):
    wavs = batch_of([noise(16000, loudness=1e-5), noise(8000)])[0]
    lengths = [50, 25], 50
    encoder = WhisperEncoder(tiny_whisper, layers=0, dtype=dtype)
    mel = encoder._log_mel([wavs[0], wavs[1, :8000]], *lengths)
    assert mel.dtype == torch.float32
    expected = first_layer._log_mel([wavs[0], wavs[1, :8000]], *lengths)
    assert torch.equal(mel, expected)


@pytest.mark.parametrize("layers", [-1, "all"])
def test_bfloat16_features_do_not_depend_on_batch_mates(layers, tiny_whisper):
    encoder = WhisperEncoder(tiny_whisper, layers=layers, dtype="bfloat16")
    utterances = [noise(n, seed) for seed, n in enumerate(LENGTHS)]
    features, lens = encoder(*batch_of(utterances))
    assert features.dtype == torch.bfloat16
    for row, utterance, length in zip(features, utterances, lens, strict=True):
        alone, _ = encoder(utterance[None])
        torch.testing.assert_close(
            row[..., : round(length.item() * 100), :].float(),
            alone[0].float(),
            atol=0.1,  # values up to four, steps of 1/64
            rtol=0,
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_does_not_reach_the_log_mel(dtype, first_layer):
    # A power of 1e-10, where Whisper cuts off, is zero in float16, and its
    # logarithm infinite.
    quiet = noise(8000, loudness=1e-5)[None]
    expected, _ = first_layer(quiet)
    with torch.autocast("cpu", dtype):
        features, _ = first_layer(quiet)
    torch.testing.assert_close(features.float(), expected, atol=2e-2, rtol=0)


def test_description_is_what_a_checkpoint_remembers(last_layer, tiny_whisper):
    described = last_layer.describe()
    assert len(described.pop("digest")) == 32
    assert described == {"name": str(tiny_whisper), "width": 32}


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (4, "no layer 4 in an encoder with 3"),
        (-5, "no layer -5 in an encoder with 3"),
        ([0, 9], "no layer 9"),
        ([], "give a number"),
        ("last", "'last': give a number, a list of numbers, or 'all'"),
        ([1.5], "give a number"),
    ],
)
def test_a_layer_that_is_not_there_is_named(layers, message, tiny_whisper):
    with pytest.raises(InputError, match=f"encoder_layers.*{message}"):
        WhisperEncoder(tiny_whisper, layers=layers)


def test_an_unknown_dtype_is_named(tiny_whisper):
    with pytest.raises(InputError, match="frozen_dtype is 'bf16', expected"):
        WhisperEncoder(tiny_whisper, dtype="bf16")


@pytest.mark.parametrize(
    "missing",
    ["config.json", "preprocessor_config.json", "model.safetensors"],
)
def test_a_missing_file_is_named_with_its_setting(
    missing, tiny_whisper, tmp_path
):
    shutil.copytree(tiny_whisper, tmp_path, dirs_exist_ok=True)
    (tmp_path / missing).unlink()
    with pytest.raises(InputError, match="whisper_hub") as error:
        WhisperEncoder(tmp_path)
    assert missing in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_weight_file_cut_short_is_named(tiny_whisper, tmp_path):
    shutil.copytree(tiny_whisper, tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"whisper_hub.*model\.safetensors"):
        WhisperEncoder(tmp_path)


def test_a_missing_folder_is_named_with_its_setting(tmp_path):
    with pytest.raises(InputError, match=r"whisper_hub.*there is no folder"):
        WhisperEncoder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"whisper_hub.*there is no folder"):
        WhisperEncoder("./nowhere")


@pytest.mark.parametrize("name", ["openai/whisper-tiny", "no/such/folder"])
def test_a_hub_name_without_network_says_what_to_do(name, tmp_path):
    with pytest.raises(InputError) as error:
        WhisperEncoder(name, save_path=str(tmp_path))
    for part in (name, "config.json", "point whisper_hub to a folder"):
        assert part in str(error.value)


def test_another_model_is_refused(tiny_bert, tiny_whisper, tmp_path):
    shutil.copytree(tiny_bert, tmp_path, dirs_exist_ok=True)
    shutil.copy(tiny_whisper / "preprocessor_config.json", tmp_path)
    with pytest.raises(InputError, match=r"must be a Whisper.*is a bert"):
        WhisperEncoder(tmp_path)


def test_a_model_with_fewer_positions_has_a_shorter_window(tmp_path):
    config = WhisperConfig(
        d_model=16,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        vocab_size=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        max_source_positions=20,
        num_mel_bins=128,  # as large-v3
    )
    WhisperModel(config).save_pretrained(tmp_path)
    WhisperFeatureExtractor(feature_size=128).save_pretrained(tmp_path)
    encoder = WhisperEncoder(tmp_path)
    features, _ = encoder(noise(16000)[None])  # three windows of 17 frames
    first, _ = encoder(noise(16000)[None, : 17 * 320])
    assert features.shape == (1, 50, 16)
    np.testing.assert_allclose(features[:, :17], first, atol=1e-5)


@pytest.mark.parametrize("layers", [-1, [0, 2]])
def test_the_mean_over_time_is_over_an_utterances_own_frames(
    layers, tiny_whisper
):
    wavs, wav_lens = torch.randn(2, 16000), torch.tensor([1.0, 0.4])
    features, lens = WhisperEncoder(tiny_whisper, layers=layers)(wavs, wav_lens)
    encoder = WhisperEncoder(tiny_whisper, layers=layers, mean_over_time=True)
    means, ones = encoder(wavs, wav_lens)
    assert ones.tolist() == [1.0, 1.0]
    assert lens.tolist() == pytest.approx([1.0, 0.4])
    for row, mean, count in zip(features, means, [50, 20], strict=True):
        expected = row[..., :count, :].mean(-2, keepdim=True)
        torch.testing.assert_close(mean, expected)


def test_only_means_over_time_have_a_fingerprint_of_their_own(tiny_whisper):
    frames = WhisperEncoder(tiny_whisper).fingerprint()
    means = WhisperEncoder(tiny_whisper, mean_over_time=True).fingerprint()
    assert means == {**frames, "mean_over_time": True}
