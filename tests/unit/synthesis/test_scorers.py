"""What scorers measure, on audio whose properties are known."""

import json

import numpy as np
import pytest
import soundfile
import torch
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from speechbrain_mser.errors import InputError
from speechbrain_mser.synthesis.scorers import (
    Clipping,
    DurationRatio,
    Pair,
    WhisperScorer,
    error_rates,
)

RATE = 16000
LANGUAGES = ("en", "fr", "de", "it", "zh", "es")


def noise(seconds, seed=0, level=0.1):
    rng = np.random.default_rng(seed)
    return level * rng.standard_normal(int(seconds * RATE)).astype(np.float32)


def pair(tmp_path, samples, language="fra", text="", name="a", **source):
    """A translation on disk; its source is two seconds of noise."""
    soundfile.write(tmp_path / f"{name}.flac", samples, RATE)
    soundfile.write(tmp_path / f"{name}_source.wav", noise(2, 9), RATE)
    row = {
        "ID": name,
        "wav": str(tmp_path / f"{name}_source.wav"),
        "start": float("nan"),
        "stop": float("nan"),
        "emotion": "happy",
        **source,
    }
    return Pair(tmp_path / f"{name}.flac", language, text, row)


def test_durations_are_compared_with_the_part_that_was_translated(tmp_path):
    whole = pair(tmp_path, noise(3))
    part = pair(tmp_path, noise(3), start=0.5, stop=1.0)
    assert DurationRatio().score([whole, part]) == [
        {"duration_ratio": 1.5},
        {"duration_ratio": 6.0},
    ]


def test_clipping_counts_both_ends_of_the_scale(tmp_path):
    samples = np.zeros(1000, np.float32)
    samples[:30], samples[30:50], samples[50] = 1.0, -1.0, 0.999
    (found,) = Clipping().score([pair(tmp_path, samples)])
    assert found == {"clipped": 0.05}


@pytest.mark.parametrize(
    "text, heard, language, rates",
    [
        # A substitution and an insertion over four words; characters: x for t
        # and four more over 15
        ("Il est parti là", "il est parxi là où", "fra", (2 / 4, 4 / 15)),
        ("¿Qué? ¡Nada!", "qué nada", "spa", (0, 0)),
        ("Bonjour.", "", "fra", (1, 1)),
        ("Ja", "ja ja ja", "deu", (2, 3)),
    ],
)
def test_error_rates_by_hand(text, heard, language, rates):
    assert error_rates(text, heard, language) == pytest.approx(
        dict(zip(("wer", "cer"), rates, strict=True))
    )


def test_mandarin_has_characters_only():
    # One of six is another one; spaces and punctuation are nobody's
    assert error_rates("火车中午出发。", "火车 中午 出去", "cmn") == {
        "cer": pytest.approx(1 / 6)
    }


def test_a_text_without_a_word_has_no_error_rate():
    assert error_rates("...", "bonjour", "fra") == {}


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A multilingual Whisper of width 16 with random weights."""
    folder = tmp_path_factory.mktemp("whisper")
    special = [
        *("<|endoftext|>", "<|startoftranscript|>"),
        *(f"<|{name}|>" for name in LANGUAGES),
        *("<|translate|>", "<|transcribe|>", "<|startoflm|>"),
        *("<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
    ]
    letters = sorted(ByteLevel.alphabet())
    (folder / "vocab.json").write_text(
        json.dumps({c: k for k, c in enumerate(letters)})
    )
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = WhisperTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(t, special=True) for t in special])
    number = {t: tokenizer.convert_tokens_to_ids(t) for t in special}
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    torch.manual_seed(5)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            vocab_size=len(tokenizer),
            max_target_positions=32,
            pad_token_id=number["<|endoftext|>"],
            bos_token_id=number["<|endoftext|>"],
            eos_token_id=number["<|endoftext|>"],
            decoder_start_token_id=number["<|startoftranscript|>"],
            init_std=0.5,
        )
    )
    model.generation_config = GenerationConfig(
        decoder_start_token_id=number["<|startoftranscript|>"],
        eos_token_id=number["<|endoftext|>"],
        pad_token_id=number["<|endoftext|>"],
        no_timestamps_token_id=number["<|notimestamps|>"],
        is_multilingual=True,
        lang_to_id={f"<|{n}|>": number[f"<|{n}|>"] for n in LANGUAGES},
        task_to_id={
            name: number[f"<|{name}|>"] for name in ("transcribe", "translate")
        },
        max_length=20,
        return_timestamps=False,
    )
    model.save_pretrained(folder)
    return folder


def test_whisper_is_not_told_the_language(whisper, tmp_path):
    scorer = WhisperScorer(str(whisper))
    pairs = [
        pair(tmp_path, noise(1 + n / 2, n), language, "Bonjour.", f"p{n}")
        for n, language in enumerate(["fra", "deu", "cmn", "jpn"])
    ]
    found = scorer.score(pairs)
    model = WhisperForConditionalGeneration.from_pretrained(whisper).eval()
    numbers = model.generation_config.lang_to_id
    for one, scores in zip(pairs, found, strict=True):
        features = WhisperFeatureExtractor()(
            one.made.numpy(), sampling_rate=RATE, return_tensors="pt"
        ).input_features
        start = torch.tensor([[model.config.decoder_start_token_id]])
        with torch.no_grad():
            logits = model(features, decoder_input_ids=start).logits[0, -1]
        heard = max(LANGUAGES, key=lambda n: logits[numbers[f"<|{n}|>"]])
        assert scores["heard_language"] == heard
        code = {"fra": "fr", "deu": "de", "cmn": "zh"}.get(one.language)
        # What Whisper has no code for is neither right nor wrong
        assert scores.get("language_agrees") == (code and int(heard == code))
        again = error_rates("Bonjour.", scores["heard_text"], one.language)
        assert {k: scores[k] for k in again} == again
    assert "wer" not in found[2] and "cer" in found[2]


def test_whisper_hears_the_same_in_any_company(whisper, tmp_path):
    scorer = WhisperScorer(str(whisper))
    pairs = [
        pair(tmp_path, noise(1 + n / 2, n), "fra", "Bonjour.", f"p{n}")
        for n in range(3)
    ]
    together = scorer.score(pairs)
    assert together == [scorer.score([one])[0] for one in pairs]


def test_what_whisper_cannot_hear_in_full_has_no_error_rate(whisper, tmp_path):
    long = pair(tmp_path, noise(30.1), text="Bonjour.")
    silent = pair(tmp_path, noise(1), name="b")
    for found in WhisperScorer(str(whisper)).score([long, silent]):
        assert "wer" not in found and "heard_language" in found


def test_a_whisper_of_one_language_is_refused(whisper, tmp_path):
    model = WhisperForConditionalGeneration.from_pretrained(whisper)
    del model.generation_config.lang_to_id
    for name in whisper.iterdir():
        (tmp_path / name.name).write_bytes(name.read_bytes())
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="multilingual Whisper"):
        WhisperScorer(str(tmp_path))
    with pytest.raises(InputError, match="no folder /no/such"):
        WhisperScorer("/no/such")
