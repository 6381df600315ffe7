"""SeamlessM4T: transformers' own model, tiny and random."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    GenerationConfig,
    SeamlessM4TFeatureExtractor,
    SeamlessM4Tv2Config,
    SeamlessM4Tv2ForSpeechToSpeech,
)

from speechbrain_mser.errors import InputError
from speechbrain_mser.synthesis.backend import SourceUtterance
from speechbrain_mser.synthesis.backends.seamless_m4t import SeamlessM4T

LANGUAGES = ("fra", "deu", "ita", "cmn", "spa")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# No two of the same length, nor of the same remainder in what the encoder's
# adapter joins (8 frames of 20 ms)
SAMPLES = (16000, 12345, 7000, 20000, 31111, 9000, 15872, 24160)


@pytest.fixture(scope="module")
def tiny_m4t(tmp_path_factory):
    """A SeamlessM4T v2 of width 16 that says more or less for a noise."""
    folder = tmp_path_factory.mktemp("m4t")
    torch.manual_seed(8)
    config = SeamlessM4Tv2Config(
        vocab_size=60,
        t2u_vocab_size=40,
        char_vocab_size=30,
        hidden_size=16,
        max_position_embeddings=512,
        encoder_layers=1,
        encoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=32,
        decoder_attention_heads=2,
        speech_encoder_layers=2,
        speech_encoder_attention_heads=2,
        speech_encoder_intermediate_size=32,
        conv_depthwise_kernel_size=5,
        t2u_encoder_layers=1,
        t2u_encoder_ffn_dim=32,
        t2u_encoder_attention_heads=2,
        t2u_decoder_layers=1,
        t2u_decoder_ffn_dim=32,
        t2u_decoder_attention_heads=2,
        t2u_max_position_embeddings=512,
        t2u_variance_predictor_embed_dim=16,
        t2u_variance_predictor_hidden_dim=16,
        upsample_initial_channel=32,
        unit_hifi_gan_vocab_size=40,
        unit_embed_dim=8,
        lang_embed_dim=4,
        spkr_embed_dim=4,
        vocoder_num_langs=5,
        vocoder_num_spkrs=3,
    )
    model = SeamlessM4Tv2ForSpeechToSpeech(config)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.normal_(0, 0.25)
        # What a trained model does not say: control symbols as units, and
        # control symbols other than the end (3), or languages, as text.
        model.t2u_model.lm_head.weight[:4] = 0
        model.lm_head.weight[:3] = 0
        model.lm_head.weight[3] *= 1.4
        model.lm_head.weight[50:] = 0
    numbers = {language: k for k, language in enumerate(LANGUAGES)}
    model.generation_config = GenerationConfig(
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
        decoder_start_token_id=3,
        max_new_tokens=12,
        # Or it says one word for ever.
        no_repeat_ngram_size=2,
        text_decoder_lang_to_code_id={k: 50 + n for k, n in numbers.items()},
        t2u_lang_code_to_id=numbers,
        vocoder_lang_code_to_id=numbers,
        id_to_text={
            str(k): "▁" * (k % 3 == 0) + LETTERS[k % 26] + LETTERS[k * 7 % 26]
            for k in range(4, 50)
        },
        char_to_id={"▁": 3, **{c: 4 + k for k, c in enumerate(LETTERS)}},
    )
    model.save_pretrained(folder)
    SeamlessM4TFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def backend(tiny_m4t):
    """The tiny model, open."""
    backend = make(tiny_m4t)
    backend.open()
    return backend


@pytest.fixture(scope="module")
def utterances():
    """Noises."""
    rng = np.random.default_rng(0)
    return [
        SourceUtterance(str(n), rng.normal(0, 0.1, n).astype(np.float32))
        for n in SAMPLES
    ]


def make(folder, **settings):
    return SeamlessM4T(
        **{"hub": folder, "dtype": "float32", "device": "cpu", **settings}
    )


def equal(one, other):
    return (one.text, one.error, one.sample_rate) == (
        other.text,
        other.error,
        other.sample_rate,
    ) and np.array_equal(
        [] if one.samples is None else one.samples,
        [] if other.samples is None else other.samples,
    )


def test_alone_it_is_what_transformers_makes(tiny_m4t, backend, utterances):
    model = SeamlessM4Tv2ForSpeechToSpeech.from_pretrained(tiny_m4t)
    extractor = SeamlessM4TFeatureExtractor.from_pretrained(tiny_m4t)
    for utterance in utterances:
        (found,) = backend.translate([utterance], "deu")
        waveform, length = model.generate(
            **extractor(
                utterance.samples, sampling_rate=16000, return_tensors="pt"
            ),
            tgt_lang="deu",
            speaker_id=0,
            num_beams=5,
        )
        np.testing.assert_allclose(
            found.samples, waveform[0, : int(length)].numpy(), atol=1e-5
        )
        assert found.samples.dtype == np.float32
        assert found.sample_rate == 16000


def test_the_result_does_not_depend_on_batch_mates(backend, utterances):
    together = backend.translate(utterances, "fra")
    alone = [backend.translate([each], "fra")[0] for each in utterances]
    # Or else there was nothing to get wrong
    assert len({len(each.text) for each in together}) > 3
    for one, other in zip(together, alone, strict=True):
        assert one.text == other.text
        np.testing.assert_allclose(one.samples, other.samples, atol=1e-5)


def test_the_same_request_gives_the_same_samples(tiny_m4t, backend, utterances):
    first = backend.translate(utterances[:3], "fra")
    backend.translate(utterances[3:], "spa")
    torch.manual_seed(99)
    again = make(tiny_m4t).translate(utterances[:3], "fra")
    assert all(map(equal, first, again))
    assert all(map(equal, first, backend.translate(utterances[:3], "fra")))


def test_language_and_voice_are_heard(tiny_m4t, backend, utterances):
    def say(backend, language):
        return backend.translate(utterances, language)

    here = say(backend, "fra")
    for other in (
        say(backend, "deu"),
        say(make(tiny_m4t, speaker_id=2), "fra"),
    ):
        assert not all(map(equal, here, other))


def test_the_text_is_spelled_with_spaces(backend):
    # 4: "ec", 6: " gq", 9: " jl"; the start, the language, the end, padding
    tokens = torch.tensor([3, 50, 6, 4, 9, 3, 0])
    assert backend._model.spell(tokens) == "gqec jl"


def test_memory_that_is_short_halves_the_batch(
    backend, utterances, monkeypatch
):
    decode, asked = backend._model.decode_texts, []

    def decode_few(inputs, *arguments):
        asked.append(len(inputs))
        if len(inputs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(inputs, *arguments)

    expected = backend.translate(utterances[:5], "fra")
    monkeypatch.setattr(backend._model, "decode_texts", decode_few)
    found = backend.translate(utterances[:5], "fra")
    assert all(map(equal, found, expected))
    assert asked == [5, 2, 3, 1, 2]


@pytest.mark.parametrize("method", ["decode_texts", "say"])
def test_one_for_which_there_is_no_memory_has_failed(
    backend, utterances, monkeypatch, method
):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(backend._model, method, fail)
    (found,) = backend.translate(utterances[:1], "fra")
    assert found.error == "out of GPU memory"


def test_units_that_are_none_are_one_failure(tiny_m4t, utterances):
    backend = make(tiny_m4t)
    backend.open()
    with torch.no_grad():
        # Every unit becomes the beginning's symbol (0), which has no sound.
        backend._model.t2u_model.lm_head.weight.zero_()
    (found,) = backend.translate(utterances[:1], "fra")
    assert found.error == "its units cannot be spoken"
    assert found.text


def test_no_words_are_one_failure(tiny_m4t, utterances):
    backend = make(tiny_m4t)
    backend.open()
    # All but the end
    backend._model.generation_config.suppress_tokens = [0, 1, 2, *range(4, 60)]
    (found,) = backend.translate(utterances[:1], "fra")
    assert found.error == "the translation has no words"


def test_silence_and_a_breath_are_no_crash(backend, utterances):
    lengths = (16000, 0, 559, 560)
    batch = [SourceUtterance("a", np.zeros(n, np.float32)) for n in lengths]
    found = backend.translate([*batch, utterances[0]], "fra")
    assert all(each.error or len(each.samples) for each in found)
    assert found[1].error == found[2].error == "too short to be speech"
    assert equal(found[4], *backend.translate(utterances[:1], "fra"))
    assert backend.translate(batch[1:2], "fra")[0].error


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "float16"}, "float16 on a CPU; give float32"),
        ({"dtype": "int8"}, "expected one of float16, bfloat16, float32"),
        ({"speaker_id": 3}, "has the voices 0 to 2"),
        ({"hub": "/no/such/folder"}, "m4t_hub.*there is no folder"),
    ],
)
def test_settings_that_do_not_fit(tiny_m4t, settings, message):
    with pytest.raises(InputError, match=message):
        make(tiny_m4t, **settings).open()


def test_another_model_is_refused(tiny_whisper, tmp_path):
    with pytest.raises(InputError, match=r"no generation_config.json|whisper"):
        make(tiny_whisper).open()
    for path in tiny_whisper.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "generation_config.json").write_text("{}")
    with pytest.raises(InputError, match="is a whisper, a seamless_m4t_v2"):
        make(tmp_path).open()


def test_a_pickle_is_not_loaded(tiny_m4t, tmp_path):
    for path in tiny_m4t.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        make(tmp_path).open()


def test_a_language_that_it_does_not_speak(backend, utterances):
    assert sorted(backend.languages) == sorted(LANGUAGES)
    with pytest.raises(InputError, match="'ell' is none of the languages"):
        backend.translate(utterances[:1], "ell")


def test_settings_are_what_changes_the_audio(tiny_m4t):
    one, same = make(tiny_m4t), make(tiny_m4t, device="auto", max_seconds=5)
    assert one.settings() == same.settings()
    for change in ({"speaker_id": 1}, {"num_beams": 1}, {"dtype": "float16"}):
        assert make(tiny_m4t, **change).settings() != one.settings()
    json.dumps(one.settings())


def test_it_can_be_closed_and_opened_again(tiny_m4t, utterances):
    backend = make(tiny_m4t)
    versions = backend.open()
    assert set(versions) == {"transformers", "torch", "model", "device"}
    backend.close()
    backend.close()
    assert len(backend.translate(utterances[:1], "fra")) == 1
