#!/usr/bin/env python3
"""How does the cost grow: with duration, batch, queries, labels, and hours?

Whisper-base's encoder, a Q-Former of BERT's shape (6 layers of width 384) and
a LLaMA of LLaMA 3 8B's shape at an eighth of its width: one of them is varied
at a time, everything else is as in training. No peers and no targets here;
`docs/performance.md` says what the numbers mean.

Usage: python benchmarks/growth.py [--data ../shared/data] [--repeats 5]
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch
from material import emotional_llama, whisper_base
from report import RESULTS, ROOT, environment, in_turns

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.emotions import CANONICAL
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.lobes.llama import EmotionLLaMA
from speechbrain_mser.lobes.qformer import EmotionQFormer
from speechbrain_mser.lobes.whisper import WhisperEncoder

FRAMES = 200  # 4 s
BATCH, QUERIES, N_LABELS = 16, 32, 7
# Known words first; a vocabulary of whole words has no more than these.
LABELS = [*CANONICAL, *(f"{a} {b}" for a in CANONICAL for b in CANONICAL)]


def ways_to_encode(encoder):
    """One utterance of every length, and batches of 4 s."""
    ways = {}
    for seconds in (1, 2, 4, 8, 16, 30):
        wav = torch.randn(1, seconds * SAMPLE_RATE)
        ways["seconds of speech", seconds] = lambda wav=wav: encoder(wav)
    for batch in (1, 4, 16):
        wavs = torch.randn(batch, 4 * SAMPLE_RATE)
        ways["utterances of 4 s", batch] = lambda wavs=wavs: encoder(wavs)
    return ways


def training_step(connector, llama, batch):
    """From stored features to gradients."""
    features = torch.randn(batch, FRAMES, connector.input_dim)
    lens = torch.ones(batch)
    words = [CANONICAL[number % N_LABELS] for number in range(batch)]

    def step():
        connector.zero_grad()
        tokens, pooled, _ = connector(features, lens)
        (llama.loss(tokens, words) + pooled.square().mean()).backward()

    return step


def ways_to_train(llama, width):
    """Batches of every size, and every number of queries."""

    def connector(queries):
        torch.manual_seed(0)
        return EmotionQFormer(
            width,
            llama.hidden_size,
            n_queries=queries,
            n_layers=6,
            hidden_size=384,
            n_heads=12,
            intermediate_size=1536,
        )

    ways = {}
    for batch in (4, 8, 16, 32):
        ways["batch", batch] = training_step(connector(QUERIES), llama, batch)
    for queries in (4, 8, 16, 32, 64):
        ways["queries", queries] = training_step(
            connector(queries), llama, BATCH
        )
    return ways


def ways_to_score(llama):
    """So many candidate labels."""
    tokens = torch.randn(BATCH, QUERIES, llama.hidden_size)
    return {
        ("labels", count): lambda words=LABELS[:count]: llama.score(
            tokens, words
        )
        for count in (2, 4, 7, 14, 28, 56)
    }


def main():
    """Time everything, print a table for each question."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        encoder = WhisperEncoder(whisper_base(arguments.data, scratch))
        llama = EmotionLLaMA(
            emotional_llama(
                scratch,
                hidden_size=512,
                intermediate_size=1792,
                num_hidden_layers=32,
                num_attention_heads=4,
                num_key_value_heads=1,
                vocab_size=16032,
            )
        )
    results = {}
    for what, ways in (
        ("encode", ways_to_encode(encoder)),
        ("train", ways_to_train(llama, encoder.hidden_size)),
        ("score", ways_to_score(llama)),
    ):
        times = in_turns(ways, arguments.repeats)
        for (quantity, size), seconds in times.items():
            rows = results.setdefault(f"{what}: {quantity}", {})
            rows[size] = 1000 * statistics.median(seconds)
    for quantity, rows in results.items():
        print(f"\n| {quantity} | ms | ms each |\n|---:|---:|---:|")
        for size, ms in rows.items():
            print(f"| {size} | {ms:.1f} | {ms / size:.2f} |")
    RESULTS.mkdir(parents=True, exist_ok=True)
    written = {"environment": environment(), "ms": results}
    write_text(RESULTS / "growth.json", json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
