#!/usr/bin/env python3
"""How fast is a timeline, and does its memory stay where it is?

The released recogniser over utterances of RAVDESS, EmoDB and URDU with half a
second between them, as often as a length asks for. The peer is what is
written in five lines: the whole recording read, every four seconds of it
recognised, one after the other, silence or speech. It makes a fourth of the
windows that a timeline does, where speech goes on.

The floor is the encoder alone, over the speech once.

Memory is the peak of a process of its own, each time, all of it and what it
needs beyond the loaded recogniser. Where both ways are asked the same, windows
of four seconds without listening, they must say the same words.

The start is that of the command in a new process, with its files in the page
cache: to its help, and to the answer to one utterance.

Usage: python benchmarks/timeline.py [--data ../shared/data]
       [--seconds 4 600 10800]
"""

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from material import sample_of
from memory import MEBIBYTE, measure_work
from report import ROOT, Row, in_turns, median_ratio, report

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.dataio.audio import load_audio
from speechbrain_mser.inference import EmotionRecognizer

CORPORA = ["RAVDESS", "EmoDB", "URDU"]
WINDOW = 4 * SAMPLE_RATE
# Windows in different batches are rounded differently in bfloat16.
LEAST_SAME = 0.95
COMMAND = "from speechbrain_mser.command.main import main; main()"


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
    """So many seconds of them, over and over, of other lengths each time."""
    left = int(seconds * SAMPLE_RATE)
    rng = np.random.default_rng(0)
    for wav in itertools.cycle(wavs):
        wav = wav[rng.integers(SAMPLE_RATE // 2) :]
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


def check_same(recognizer, wavs, windows=30):
    """Both ways on the same windows: the share of words that are the same."""
    seconds = 4 * windows
    with tempfile.TemporaryDirectory() as scratch:
        turns = Path(scratch, "turns.rttm")
        turns.write_text(f"SPEAKER a 1 0 {seconds} <NA> <NA> a <NA> <NA>")
        timeline = recognizer.timeline(
            blocks(wavs, seconds),
            speakers=turns,
            listen=False,
            window=4,
            hop=4,
            progress=False,
        )
    words = [words[0] for words, _ in naive(recognizer, wavs, seconds)]
    middles = [4 * number + 2 for number in range(windows)]
    own = [
        next(s.emotion for s in timeline.segments if s.start <= m < s.end)
        for m in middles
    ]
    same = sum(map(str.__eq__, words, own)) / windows
    if same < LEAST_SAME:
        raise SystemExit(f"of {windows} words {same:.0%} are the same")
    return same


def start_times(wavs, repeats):
    """Seconds to the command's help, and to its first answer, in turns."""
    with tempfile.TemporaryDirectory() as scratch:
        wav = Path(scratch, "utterance.wav")
        soundfile.write(wav, wavs[0][:WINDOW], SAMPLE_RATE)
        return in_turns(
            {
                name: lambda named=named: subprocess.run(
                    [sys.executable, "-c", COMMAND, *named],
                    check=True,
                    capture_output=True,
                )
                for name, named in {
                    "help": ["--help"],
                    "answer": ["recognize", str(wav)],
                }.items()
            },
            repeats,
        )


def prepare(wavs, seconds, way):
    """A piece of work for `measure_work`."""
    recognizer = EmotionRecognizer.from_hparams("open")
    way(recognizer, wavs, 4)
    return lambda: way(recognizer, wavs, seconds)


def at_length(wavs, length):
    """Speed and memory of both ways at a length."""
    found = {
        name: measure_work(prepare, wavs, length, way)
        for name, way in (("ours", ours), ("naive", naive))
    }
    detail = "; ".join(
        f"{name} {length / seconds:.3g} × real time, {beyond / MEBIBYTE:.0f} "
        f"MiB beyond loading, {peak / MEBIBYTE:.0f} MiB in all"
        for name, (beyond, peak, seconds) in found.items()
    )
    beyond, peak, seconds = found["ours"]
    what = f"a timeline of {length:.0f} s"
    return [
        Row(
            what,
            "a word for every 4 s",
            found["naive"][2] / seconds,
            1.0,
            True,
            detail,
        ),
        Row(
            f"memory beyond loading, {what}",
            "a limit",
            beyond / MEBIBYTE,
            200.0,
            False,
            detail,
            "MiB",
        ),
        Row(
            f"memory in all, {what}",
            "a limit",
            peak / MEBIBYTE,
            1024.0,
            False,
            detail,
            "MiB",
        ),
    ]


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
    same = check_same(recognizer, wavs)
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
    detail += f"; {same:.0%} of words the same on the same windows"
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
    starts = {
        name: statistics.median(seconds)
        for name, seconds in start_times(wavs, arguments.repeats).items()
    }
    answers.append(
        Row(
            "mser --help, start to end",
            "a limit",
            starts["help"],
            0.5,
            False,
            f"mser recognize: first answer after {starts['answer']:.1f} s",
            "s",
        )
    )
    for length in arguments.seconds:
        answers += at_length(wavs, length)
    report(
        "timeline", answers, {**vars(arguments), "data": str(arguments.data)}
    )


if __name__ == "__main__":
    main()
