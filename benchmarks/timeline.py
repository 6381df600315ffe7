#!/usr/bin/env python3
"""How fast is a timeline, and does its memory stay where it is?

The released recogniser over utterances of RAVDESS, EmoDB and URDU with half a
second between them, as often as a length asks for. The peer is what is
written in five lines: the whole recording read, every four seconds of it
recognised, one after the other, silence or speech. It makes a fourth of the
windows that a timeline does, where speech goes on.

The floor is the encoder alone, over the speech once.

Memory is what the process needs beyond the loaded recogniser, each time in a
process of its own.

Usage: python benchmarks/timeline.py [--data ../shared/data]
       [--seconds 4 600 10800]
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from material import sample_of
from memory import MEBIBYTE, peak_memory
from report import ROOT, Row, in_turns, median_ratio, report

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.dataio.audio import load_audio
from speechbrain_mser.inference import EmotionRecognizer

CORPORA = ["RAVDESS", "EmoDB", "URDU"]
WINDOW = 4 * SAMPLE_RATE


def utterances(data, count=24):
    """Signals with half a second of a quiet room after each."""
    if not (data / "speech").is_dir():
        raise SystemExit(f"{data}/speech: in noise there is nothing to find")
    with tempfile.TemporaryDirectory() as scratch:
        rows = sample_of(data, CORPORA, count, Path(scratch))
        wavs = [load_audio(row["wav"]).numpy() for row in rows]
    rng = np.random.default_rng(0)
    room = 1e-4 * rng.standard_normal(SAMPLE_RATE // 2).astype(np.float32)
    return [np.concatenate([wav, room]) for wav in wavs]


def blocks(wavs, seconds):
    """So many seconds of them, over and over."""
    left = int(seconds * SAMPLE_RATE)
    for wav in itertools.cycle(wavs):
        yield wav[:left]
        left -= len(wav)
        if left <= 0:
            return


def ours(recognizer, wavs, seconds):
    """The timeline of a recording that is nowhere as a whole."""
    return recognizer.timeline(blocks(wavs, seconds), progress=False)


def naive(recognizer, wavs, seconds):
    """A word for every four seconds."""
    whole = torch.from_numpy(np.concatenate([*blocks(wavs, seconds)]))
    return [
        recognizer.recognize_batch(whole[None, first : first + WINDOW])
        for first in range(0, len(whole) - SAMPLE_RATE // 2, WINDOW)
    ]


@torch.no_grad()
def encode(recognizer, wavs, seconds):
    """The encoder over all of it once, in batches of four seconds."""
    whole = torch.from_numpy(np.concatenate([*blocks(wavs, seconds)]))
    rows = whole[: len(whole) // WINDOW * WINDOW].view(-1, WINDOW)
    return [recognizer.mods.encoder(part) for part in rows.split(16)]


def prepare(wavs, seconds, way):
    """A piece of work for `peak_memory`."""
    recognizer = EmotionRecognizer.from_hparams("open")
    way(recognizer, wavs, 4)
    return lambda: way(recognizer, wavs, seconds)


def main():
    """Time in turns, measure memory, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--seconds", type=float, nargs="+", default=[4, 600])
    parser.add_argument("--timed", type=float, default=120)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    wavs = utterances(arguments.data)
    start = time.perf_counter()
    recognizer = EmotionRecognizer.from_hparams("open")
    start = time.perf_counter() - start
    seconds = arguments.timed
    ways = {"ours": ours, "naive": naive, "encoder": encode}
    times = in_turns(
        {
            name: lambda way=way: way(recognizer, wavs, seconds)
            for name, way in ways.items()
        },
        arguments.repeats,
    )
    speed = {n: seconds / statistics.median(t) for n, t in times.items()}
    question = f"the timeline of {seconds:.0f} s"
    detail = ", ".join(f"{n} {x:.3g} × real time" for n, x in speed.items())
    detail += f"; {torch.get_num_threads()} threads; loaded in {start:.1f} s"
    answers = [
        Row(
            question,
            "a word for every 4 s",
            median_ratio(times["naive"], times["ours"]),
            1.0,
            True,
            detail,
        ),
        Row(question, "real time", speed["ours"], 20.0, True, detail),
    ]
    for length in arguments.seconds:
        peaks = {
            name: peak_memory(prepare, wavs, length, ways[name]) / MEBIBYTE
            for name in ("ours", "naive")
            if name == "ours" or length <= 3600
        }
        answers.append(
            Row(
                f"memory for a timeline of {length:.0f} s",
                "beyond the loaded recogniser",
                peaks["ours"],
                200.0,
                False,
                ", ".join(f"{n} {peak:.0f} MiB" for n, peak in peaks.items()),
                "MiB",
            )
        )
    report(
        "timeline", answers, {**vars(arguments), "data": str(arguments.data)}
    )


if __name__ == "__main__":
    main()
