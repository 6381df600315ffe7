#!/usr/bin/env python3
"""What is it worth to give Whisper a few lengths alone?

A timeline of speech with the released recogniser, whose windows the front end
has made of many lengths: padded to whole seconds, as a timeline does it, and
each pass at its longest window's own length. For each length oneDNN compiles
code, which it keeps. Both in new processes, in turns, since what is compiled
is there the second time. Both must say the same of nearly all of the time;
where they do not, two words were as probable but for rounding.

Usage: python benchmarks/lengths.py [--data ../shared/data]
       [--seconds 600 --repeats 3]
"""

import argparse
import statistics
from pathlib import Path

from memory import MEBIBYTE, measure_work
from report import ROOT, Row, median_ratio, report
from timeline import ours, utterances

from speechbrain_mser.inference import EmotionRecognizer

LEAST_SAME = 0.95
SECONDS = 120


def prepare(wavs, seconds, few):
    """A piece of work for `measure_work`: everything compiled is new."""
    recognizer = EmotionRecognizer.from_hparams("open")
    recognizer.mods.encoder.takes_multiple = few
    return lambda: ours(recognizer, wavs, seconds)


def check_same(wavs):
    """The share of the time of which both say the same."""
    said = []
    for few in (True, False):
        timeline = prepare(wavs, SECONDS, few)()
        tenths = [None] * 10 * SECONDS
        for one in timeline.segments:
            first, last = round(10 * one.start), round(10 * one.end)
            tenths[first:last] = [one.emotion] * (last - first)
        said.append(tenths[: 10 * SECONDS])
    same = sum(a == b for a, b in zip(*said, strict=True)) / (10 * SECONDS)
    if same < LEAST_SAME:
        raise SystemExit(f"of {same:.0%} of the time both say the same")
    return same


def main():
    """Compare, measure in turns, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    wavs = utterances(arguments.data)
    same = check_same(wavs)
    found = {True: [], False: []}
    for _ in range(arguments.repeats):
        for few, measured in found.items():
            measured.append(measure_work(prepare, wavs, arguments.seconds, few))
    (beyond, peaks, times), (others, other_peaks, other_times) = (
        zip(*measured, strict=True) for measured in found.values()
    )
    what = f"a timeline of {arguments.seconds:.0f} s"
    peer = "each pass at its own length"
    speeds = [
        arguments.seconds / statistics.median(one)
        for one in (times, other_times)
    ]
    in_all = [max(one) / MEBIBYTE for one in (peaks, other_peaks)]
    rows = [
        Row(
            what,
            peer,
            median_ratio(other_times, times),
            1.0,
            True,
            f"{speeds[0]:.3g} and {speeds[1]:.3g} × real time; the same words "
            f"for {same:.1%} of the time",
        ),
        Row(
            f"memory beyond loading, {what}",
            peer,
            median_ratio(beyond, others),
            1.0,
            False,
            f"in all {in_all[0]:.0f} and {in_all[1]:.0f} MiB",
        ),
    ]
    report("lengths", rows, {**vars(arguments), "data": str(arguments.data)})


if __name__ == "__main__":
    main()
