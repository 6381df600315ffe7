#!/usr/bin/env python3
"""How much memory does the LLM's loss take beside all positions' logits?

Against transformers' own loss of a causal LM (``labels=``, -100 but for the
word and its end), which makes logits of every position: forward and backward
pass of one batch, peak memory of each in a process of its own. Loss and
gradient must be equal first, on a small batch and vocabulary.

The LLM has LLaMA 3's vocabulary and hardly anything else (one narrow layer in
float32): what is compared is the logits' side, all that this choice changes.
An LLM's own activations come on top of both; `--layers` and `--hidden` show
how they dilute the ratio.

Usage: python benchmarks/loss_memory.py [--batch 16 --positions 276]
"""

import argparse

import torch
from memory import MEBIBYTE, peak_memory
from report import Row, report
from score import PROMPT, WORDS, random_llama

from speechbrain_mser.lobes.llama import EmotionLLaMA


def all_logits(llama, audio, words):
    """transformers' loss over whole sequences."""
    targets = torch.tensor([llama.word_tokens(word) for word in words])
    prefix = llama._prefix(audio)
    inputs = torch.cat([prefix, llama._embed(targets)], dim=1)
    labels = torch.full(inputs.shape[:2], -100)
    labels[:, prefix.shape[1] :] = targets
    return llama.model(inputs_embeds=inputs, labels=labels).loss


WAYS = {"ours": EmotionLLaMA.loss, "all logits": all_logits}


def prepare(way, batch, positions, vocabulary, hidden, layers):
    """A step of one way: its loss, and the gradient for the connector."""
    torch.manual_seed(0)
    llama = random_llama(
        hidden=hidden,
        intermediate=4 * hidden,
        layers=layers,
        heads=4,
        kv_heads=4,
        vocabulary=vocabulary,
    )
    # bos, the prompt, the word and its end stand beside the audio.
    n_queries = positions - 3 - len(PROMPT.split())
    audio = torch.randn(batch, n_queries, hidden, requires_grad=True)
    words = [WORDS[i % 5] for i in range(batch)]

    # Weights are read from their file when first used; that is not the loss's.
    llama.loss(audio[:1], words[:1])

    def step():
        loss = WAYS[way](llama, audio, words)
        return loss.detach(), *torch.autograd.grad(loss, audio)

    return step


def check():
    """Equal losses and gradients, or no benchmark."""
    size = (3, 24, 500, 32, 2)
    (loss, gradient), (expected, slope) = (
        prepare(way, *size)() for way in WAYS
    )
    if not torch.allclose(loss, expected, rtol=1e-5):
        raise SystemExit(f"loss {loss}, expected {expected}")
    worst = ((gradient - slope).abs().max() / slope.abs().max()).item()
    if worst > 1e-4:
        raise SystemExit(f"gradients differ by {worst}")


def main():
    """Check, measure each way, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--positions", type=int, default=276)
    parser.add_argument("--vocabulary", type=int, default=128256)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=1)
    arguments = parser.parse_args()
    check()
    size = vars(arguments)
    ours, whole = (
        peak_memory(
            prepare,
            way,
            size["batch"],
            size["positions"],
            size["vocabulary"],
            size["hidden"],
            size["layers"],
        )
        for way in WAYS
    )
    row = Row(
        f"loss of {size['batch']} utterances, {size['positions']} positions, "
        f"vocabulary {size['vocabulary']:,}: peak memory",
        "transformers' loss over all positions",
        ours / whole,
        1 / 20,
        False,
        f"{ours / MEBIBYTE:.0f} MiB, {whole / MEBIBYTE:.0f} MiB",
    )
    report("loss_memory", [row], size)


if __name__ == "__main__":
    main()
