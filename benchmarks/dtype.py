#!/usr/bin/env python3
"""What is `frozen_dtype: auto` worth on this machine, and what does it cost?

An LLM of SmolLM2-135M's shape with random weights, in float32 and in bfloat16,
timed in turns: the loss with its gradient in the audio tokens (a training
step but for the small connector), and the scores of seven words. For the
encoder see encode.py.

Usage: python benchmarks/dtype.py [--batch 16 --queries 8 --repeats 5]
"""

import argparse
import statistics

import torch
from report import Row, in_turns, median_ratio, report
from score import WORDS, random_llama

from speechbrain_mser.lobes.hub import native_dtype

SMOLLM2 = {
    "hidden": 576,
    "intermediate": 1536,
    "layers": 30,
    "heads": 9,
    "kv_heads": 3,
    "vocabulary": 49152,
}


def step(llama, audio):
    """The loss and its gradient in the audio tokens."""
    audio = audio.clone().requires_grad_()
    words = [WORDS[row % len(WORDS)] for row in range(len(audio))]
    llama.loss(audio, words).backward()
    return audio.grad


def main():
    """Time in turns, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--queries", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    llamas = {}
    for dtype in ("float32", "bfloat16"):
        torch.manual_seed(0)
        llamas[dtype] = random_llama(**SMOLLM2, dtype=dtype)
    audio = torch.randn(arguments.batch, arguments.queries, SMOLLM2["hidden"])
    rows = []
    for name, way in {
        "a training step's part in the LLM": lambda llm: step(llm, audio),
        "scoring 7 words": lambda llm: llm.score(audio, WORDS),
    }.items():
        times = in_turns(
            {
                dtype: lambda llm=llm, way=way: way(llm)
                for dtype, llm in llamas.items()
            },
            arguments.repeats,
        )
        medians = [statistics.median(t) for t in times.values()]
        rows.append(
            Row(
                f"{name}, SmolLM2-135M's shape, batch {arguments.batch}, "
                f"in bfloat16 (auto is {native_dtype()})",
                "float32",
                median_ratio(times["float32"], times["bfloat16"]),
                1.0,
                True,
                f"{medians[1]:.3g} s, {medians[0]:.3g} s",
            )
        )
    report("dtype", rows, vars(arguments))


if __name__ == "__main__":
    main()
