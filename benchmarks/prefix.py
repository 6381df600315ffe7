#!/usr/bin/env python3
"""What is it worth to read the text before the audio only once?

An LLM of SmolLM2-135M's shape with random weights and 29 tokens before the
audio, one audio token and one of a prompt after it: the loss with its gradient
in the audio tokens (a training step but for the small connector), and the
scores of seven words, against the same LLM that reads every sequence whole, in
turns. Both must agree first. There is a row, too, for the attention that is
chosen on this machine, against the one that transformers chooses.

Usage: python benchmarks/prefix.py [--batch 64 --queries 1 --repeats 5]
"""

import argparse
import copy
import statistics
from functools import partial

import torch
from dtype import SMOLLM2, step
from report import Row, in_turns, median_ratio, report
from score import WORDS, random_llama

from speechbrain_mser.lobes.llama import EmotionLLaMA

SHOTS = 4  # times all words


def check(llama, whole, audio):
    """Equal gradients and scores, or no benchmark."""
    for way in (step, lambda llm, audio: llm.score(audio, WORDS)):
        found, expected = way(llama, audio), way(whole, audio)
        worst = ((found - expected).abs().max() / expected.abs().max()).item()
        limit = 1e-4 if llama.model.dtype == torch.float32 else 0.05
        if worst > limit:
            raise SystemExit(f"the two ways differ by {worst} of the largest")


def main():
    """Check, time in turns, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--queries", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", default="bfloat16")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    llama = random_llama(**SMOLLM2, dtype=arguments.dtype)
    llama.prompt_before, llama.prompt = " ".join(WORDS * SHOTS), ":"
    whole = copy.copy(llama)
    whole._known_prefix = lambda *_: None
    other = copy.deepcopy(llama)
    other.model.set_attn_implementation("sdpa")
    audio = torch.randn(arguments.batch, arguments.queries, SMOLLM2["hidden"])
    check(llama, whole, audio)
    train = f"a training step's part in the LLM, batch {arguments.batch}"
    score = f"scoring {len(WORDS)} words, batch"
    batch = partial(step, audio=audio)
    one, many = (
        partial(EmotionLLaMA.score, audio=part, label_words=WORDS)
        for part in (audio[:1], audio)
    )
    sides = (llama, "sequences read whole", whole)
    rows = [
        compare(train, batch, *sides, arguments),
        compare(train, batch, llama, "fused attention", other, arguments),
        compare(f"{score} {arguments.batch}", many, *sides, arguments),
        compare(f"{score} 1", one, *sides, arguments),
    ]
    report("prefix", rows, vars(arguments))


def compare(name, way, llama, peer, other, arguments):
    """A row of the same work of two LLMs in turns."""
    times = in_turns(
        {"ours": partial(way, llama), "theirs": partial(way, other)},
        arguments.repeats,
    )
    medians = [statistics.median(t) for t in times.values()]
    return Row(
        f"{name}, text before the audio, {arguments.dtype}",
        peer,
        median_ratio(times["theirs"], times["ours"]),
        1.0,
        True,
        f"{medians[0]:.3g} s, {medians[1]:.3g} s",
    )


if __name__ == "__main__":
    main()
