"""The benchmarks' peers do the same as we do: else a ratio says nothing."""

import pytest
import torch


@pytest.fixture
def llama_of(tiny_llama):
    """The tiny LLM, as a class of the benchmarks'."""
    return lambda kind: kind(tiny_llama, prompt="What is felt?")


def test_all_ways_to_score_agree_and_decoding_takes_its_tokens(
    script, llama_of
):
    score = script("score")
    llama = llama_of(score.EmotionLLaMA)
    score.check(llama, torch.randn(2, 3, llama.hidden_size))


def test_a_loss_over_all_positions_is_ours(script, llama_of):
    ours = llama_of(script("score").EmotionLLaMA)
    peers = llama_of(script("epoch").FullLogitsLLaMA)
    audio = torch.randn(3, 4, ours.hidden_size)
    words = ["happy", "sad", "surprise"]
    torch.testing.assert_close(
        peers.loss(audio, words), ours.loss(audio, words)
    )
