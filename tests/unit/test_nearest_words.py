"""Tokens near words: how near, and what the LLM reads of it."""

import copy
import math

import pytest
import torch

from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.llama import EmotionLLaMA
from speechbrain_mser.lobes.nearest_words import (
    TEMPERATURE,
    mix_words,
    word_odds,
)

WORDS = ["sad", "fear", "happy"]


def embedded(llama):
    """The words' embeddings, looked up one by one."""
    table = llama.model.get_input_embeddings().weight.detach()
    return torch.stack(
        [table[llama.word_tokens(word)[:-1]].mean(0) for word in WORDS]
    )


def test_the_numbers_that_come_out_on_paper():
    words = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    # Squared distances 1 and 2, over a quarter of the squared norm 2 * 0.5
    odds = word_odds(torch.tensor([[[1.0, 1.0]]]), words, 0.5**0.5)
    assert odds.diff().item() == pytest.approx(-4)
    mixed = mix_words(odds, words)
    first = 1 / (1 + math.exp(-4))
    expected = torch.tensor([[[first, 2 * (1 - first)]]])
    torch.testing.assert_close(mixed, expected)


def test_odds_are_squared_distances(llama, audio):
    words, rms = embedded(llama), llama.embedding_rms
    odds = word_odds(audio, words, rms)
    far = torch.cdist(audio, words.expand(3, -1, -1)).square()
    far = -far / (TEMPERATURE * 48 * rms**2)
    torch.testing.assert_close(
        odds.log_softmax(-1), far.log_softmax(-1), atol=1e-4, rtol=1e-4
    )
    nearness = llama.nearness(audio, WORDS)
    torch.testing.assert_close(
        nearness, far.mean(1).log_softmax(-1), atol=1e-4, rtol=1e-4
    )


def test_the_llm_reads_the_mixture_and_nothing_else(llama, tiny_llama, audio):
    plain = EmotionLLaMA(tiny_llama, prompt="Emotion?")
    words, rms = embedded(llama), llama.embedding_rms
    mixed = word_odds(audio, words, rms).softmax(-1) @ words
    torch.testing.assert_close(
        llama.score(audio, WORDS), plain.score(mixed, WORDS)
    )
    torch.testing.assert_close(
        llama.loss(audio, ["sad"] * 3, WORDS), plain.loss(mixed, ["sad"] * 3)
    )
    assert llama.generate(audio, 3, WORDS) == plain.generate(mixed, 3)


def test_a_token_on_a_word_is_read_as_that_word(llama):
    words = embedded(llama)
    # Distances are what count, so words that are far apart are themselves.
    odds = word_odds(1e3 * words[:, None], 1e3 * words, llama.embedding_rms)
    mixed = mix_words(odds, 1e3 * words)
    torch.testing.assert_close(mixed[:, 0], 1e3 * words)


def test_gradients_reach_the_audio_through_the_mixture(llama, audio):
    audio.requires_grad_()
    llama.loss(audio, ["sad", "fear", "happy"], WORDS).backward()
    assert audio.grad.abs().sum() > 0


def test_half_precision_has_the_same_odds(llama, audio):
    words = llama.word_embeddings(WORDS)
    with torch.autocast("cpu", torch.bfloat16):
        half = word_odds(audio, words, llama.embedding_rms)
    assert torch.equal(half, word_odds(audio, words, llama.embedding_rms))


def test_said_freely_it_must_know_the_candidates(llama, audio):
    with pytest.raises(InputError, match=r"token_mixture.*label_words"):
        llama.generate(audio)


def test_words_that_are_said_otherwise_are_heard_so(llama, audio):
    other = copy.copy(llama)
    other.emotion_words = {"fear": "happy"}
    asked = llama.nearness(audio, ["sad", "happy"])
    torch.testing.assert_close(other.nearness(audio, ["sad", "fear"]), asked)
