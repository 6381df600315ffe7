#!/usr/bin/env python3
"""What would `mser recognize` gain by taking files in batches?

The released recogniser over utterances of RAVDESS, EmoDB and URDU, each by
itself, as the command takes them, and in batches of like length, in turns.
Both must say the same words. By how much their probabilities differ is what
an answer would depend on the files beside it: in bfloat16 the shapes of a
batch decide how its sums are rounded.

Usage: python benchmarks/one_by_one.py [--data ../shared/data]
       [--count 96 --batch 16 --repeats 5]
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from material import sample_of
from report import ROOT, Row, in_turns, median_ratio, report

from speechbrain_mser.dataio.audio import load_audio
from speechbrain_mser.inference import EmotionRecognizer

CORPORA = ["RAVDESS", "EmoDB", "URDU"]
# A label that two ways round differently was a tie.
LEAST_SAME = 0.95


def one_by_one(recognizer, wavs):
    """Log-probabilities ``[n, n_labels]``, of each alone."""
    return torch.cat([recognizer.recognize_batch(wav[None])[1] for wav in wavs])


def in_batches(recognizer, wavs, batch):
    """The same, of those that are alike in length together."""
    order = sorted(range(len(wavs)), key=lambda row: len(wavs[row]))
    found = [None] * len(wavs)
    for first in range(0, len(order), batch):
        part = order[first : first + batch]
        longest = len(wavs[part[-1]])
        padded = torch.zeros(len(part), longest)
        for row, number in zip(padded, part, strict=True):
            row[: len(wavs[number])] = wavs[number]
        lens = torch.tensor([len(wavs[number]) / longest for number in part])
        _, log_probs = recognizer.recognize_batch(padded, lens)
        for number, row in zip(part, log_probs, strict=True):
            found[number] = row
    return torch.stack(found)


def main():
    """Compare, time in turns, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = sample_of(
            arguments.data, CORPORA, arguments.count, Path(scratch)
        )
        wavs = [load_audio(row["wav"]) for row in rows]
    recognizer = EmotionRecognizer.from_hparams("open")
    alone = one_by_one(recognizer, wavs)
    beside = in_batches(recognizer, wavs, arguments.batch)
    others = int((alone.argmax(-1) != beside.argmax(-1)).sum())
    if others > (1 - LEAST_SAME) * len(wavs):
        raise SystemExit(f"{others} of {len(wavs)} words are others")
    times = in_turns(
        {
            "ours": lambda: one_by_one(recognizer, wavs),
            "theirs": lambda: in_batches(recognizer, wavs, arguments.batch),
        },
        arguments.repeats,
    )
    medians = [statistics.median(seconds) for seconds in times.values()]
    moved = (alone.exp() - beside.exp()).abs().max()
    answer = Row(
        f"recognise {len(wavs)} files one by one",
        f"in batches of {arguments.batch} of like length",
        median_ratio(times["theirs"], times["ours"]),
        1.0,
        True,
        f"{medians[0]:.3g} s, {medians[1]:.3g} s; probabilities differ by up "
        f"to {moved:.2g}, log-probabilities by {(alone - beside).abs().max():.2g}"
        f", {others} words of {len(wavs)}",
    )
    report(
        "one_by_one", [answer], {**vars(arguments), "data": str(arguments.data)}
    )


if __name__ == "__main__":
    main()
