#!/usr/bin/env python3
"""What do batches cost? Ours against the usual ways.

Random batches are what a shuffling loader makes; batches by length are the
least padding that there can be; SpeechBrain's `DynamicBatchSampler` sorts
into buckets by duration. The utterances are those of a manifest, or, without
one, 100,000 of a seeded log-normal mix: seven emotions, from 45 % to 3 %, of
somewhat different lengths.

Usage: python benchmarks/batches.py [--manifest FILE] [--batch 16]
"""

import argparse
import tracemalloc

import numpy as np
from report import Row, in_turns, median_ratio, report
from speechbrain.dataio.sampler import DynamicBatchSampler

from speechbrain_mser.dataio.batch_sampler import LengthBatchSampler
from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.emotions import CANONICAL

# Of each emotion the share and how much longer it is
EMOTIONS = {
    "share": [0.45, 0.18, 0.12, 0.12, 0.07, 0.03, 0.03],
    "longer": [1.0, 1.0, 1.15, 0.95, 0.9, 1.05, 1.0],
}


def mix(n, seed=0):
    """Durations (mean 3.9 s) and emotions of n utterances."""
    rng = np.random.default_rng(seed)
    emotion = rng.choice(len(CANONICAL), n, p=EMOTIONS["share"])
    durations = rng.lognormal(1.2, 0.55, n)
    durations *= np.take(EMOTIONS["longer"], emotion)
    return durations, np.take(CANONICAL, emotion)


def utterances(manifest):
    """Durations and emotions of those with an emotion."""
    table = read_manifest(manifest)
    table = table[table.emotion != ""]
    return table.duration.to_numpy(), table.emotion.to_numpy()


def cut(order, batch_size):
    """Consecutive batches."""
    return np.split(order, range(batch_size, len(order), batch_size))


def padding(durations, batches):
    """Seconds computed for nothing, per second of speech."""
    padded = sum(durations[batch].max() * len(batch) for batch in batches)
    return float(padded / sum(durations[b].sum() for b in batches)) - 1


def check(data, batches):
    """End if not every utterance comes exactly once."""
    times = np.bincount(np.concatenate(batches), minlength=len(data[0]))
    if not (times == 1).all():
        raise SystemExit("utterances are left out, or there twice")


def compare(data, batch_size):
    """The rows on padding."""
    durations, n = data[0], len(data[0])
    ways = {
        "random": cut(np.random.default_rng(1).permutation(n), batch_size),
        "by length": cut(np.argsort(durations, kind="stable"), batch_size),
        "ours": list(LengthBatchSampler(*data, batch_size)),
    }
    for batches in ways.values():
        check(data, batches)
    found = {name: padding(durations, ways[name]) for name in ways}
    balanced = list(LengthBatchSampler(*data, batch_size, balance=1.0))
    evenly = padding(durations, balanced)
    rarest, share, before = rarest_share(data[1], np.concatenate(balanced))
    ours = f"padding {found['ours']:.1%} of the speech"
    return [
        Row(
            *("padding avoided", "random batches"),
            *(found["random"] / found["ours"], 3.0, True),
            f"{ours}, {found['random']:.1%}",
        ),
        Row(
            *("seconds computed", "batches by length, the least"),
            *((1 + found["ours"]) / (1 + found["by length"]), 1.1, False),
            f"{ours}, {found['by length']:.1%}",
        ),
        Row(
            *("padding avoided, emotions balanced", "random batches"),
            *(found["random"] / evenly, 3.0, True),
            f"padding {evenly:.1%} of the speech; rarest emotion ({rarest}) "
            f"{share:.1%} of utterances, else {before:.1%}",
        ),
    ]


def rarest_share(emotions, taken):
    """The rarest emotion, its share of what is taken, and of the corpus."""
    names, times = np.unique(emotions, return_counts=True)
    rarest = names[times.argmin()]
    return rarest, np.mean(emotions[taken] == rarest), times.min() / times.sum()


def planning(n, batch_size, repeats):
    """The row on planning an epoch of a large corpus."""
    data = mix(n)
    lists = [column.tolist() for column in data]

    def ours():
        return list(LengthBatchSampler(*lists, batch_size))

    def theirs():
        # Its limit is on seconds; what ends a batch here is its size.
        return list(
            DynamicBatchSampler(
                range(n),
                max_batch_length=batch_size * data[0].max(),
                num_buckets=100,
                lengths_list=lists[0],
                max_batch_ex=batch_size,
            )
        )

    for way in (ours, theirs):
        check(data, way())
    times = in_turns({"ours": ours, "theirs": theirs}, repeats, warm_up=0)
    tracemalloc.start()
    ours()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    medians = {name: np.median(seconds) for name, seconds in times.items()}
    return Row(
        *(f"planning {n:,} utterances", "SpeechBrain's DynamicBatchSampler"),
        *(median_ratio(times["theirs"], times["ours"]), 1.0, True),
        f"{medians['ours']:.1f} s, {medians['theirs']:.1f} s; at most "
        f"{peak / 2**20:.0f} MiB",
    )


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--planned", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    manifest = arguments.manifest
    data = mix(100_000) if manifest is None else utterances(manifest)
    rows = compare(data, arguments.batch)
    rows.append(planning(arguments.planned, arguments.batch, arguments.repeats))
    report("batches", rows, vars(arguments))


if __name__ == "__main__":
    main()
