#!/usr/bin/env python3
"""What do batches cost, and what is in them? Ours against the usual ways.

Random batches are what a shuffling loader makes; batches by length are the
least padding that there can be; SpeechBrain's `DynamicBatchSampler` sorts
into buckets by duration alone. The utterances are those of a manifest, or,
without one, 100,000 of a seeded log-normal mix: seven emotions, from 45 % to
3 %, in six languages, both of somewhat different lengths.

Usage: python benchmarks/batches.py [--manifest FILE] [--batch 16]
"""

import argparse
import tracemalloc

import numpy as np
from report import Row, in_turns, median_ratio, report
from speechbrain.dataio.sampler import DynamicBatchSampler

from speechbrain_mser.dataio.batch_sampler import EmotionBatchSampler
from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.emotions import CANONICAL

# Of each emotion the share and how much longer it is; of each language too
EMOTIONS = {
    "share": [0.45, 0.18, 0.12, 0.12, 0.07, 0.03, 0.03],
    "longer": [1.0, 1.0, 1.15, 0.95, 0.9, 1.05, 1.0],
}
LANGUAGES = {
    "eng": 1.0,
    "fra": 1.05,
    "deu": 1.15,
    "ita": 1.05,
    "cmn": 0.85,
    "spa": 1.1,
}


def mix(n, seed=0):
    """Durations (mean 3.9 s), emotions and languages of n utterances."""
    rng = np.random.default_rng(seed)
    emotion = rng.choice(len(CANONICAL), n, p=EMOTIONS["share"])
    language = rng.choice(len(LANGUAGES), n)
    durations = rng.lognormal(1.2, 0.55, n)
    durations *= np.take(EMOTIONS["longer"], emotion)
    durations *= np.take(list(LANGUAGES.values()), language)
    return (
        durations,
        np.take(CANONICAL, emotion),
        np.take(list(LANGUAGES), language),
    )


def utterances(manifest):
    """Durations, emotions and languages of those with an emotion."""
    table = read_manifest(manifest)
    table = table[table.emotion != ""]
    return (
        table.duration.to_numpy(),
        table.emotion.to_numpy(),
        table.language.to_numpy(),
    )


def cut(order, batch_size):
    """Consecutive batches."""
    return np.split(order, range(batch_size, len(order), batch_size))


def measure(data, batches):
    """What batches are like.

    Returns
    -------
    dict
        padding: seconds computed for nothing, per second of speech; alone:
        the part of utterances without another of their emotion; languages
        and emotions: how many there are in a batch, on average; mono: the
        part of batches of one language.
    """
    durations, emotions, languages = data
    padded = real = alone = 0
    n_languages, n_emotions = [], []
    for batch in batches:
        padded += durations[batch].max() * len(batch)
        real += durations[batch].sum()
        _, times = np.unique(emotions[batch], return_counts=True)
        alone += (times == 1).sum()
        n_emotions.append(len(times))
        n_languages.append(len(set(languages[batch])))
    found = {
        "padding": padded / real - 1,
        "alone": alone / sum(map(len, batches)),
        "languages": np.mean(n_languages),
        "mono": np.mean(np.equal(n_languages, 1)),
        "emotions": np.mean(n_emotions),
    }
    return {name: value.item() for name, value in found.items()}


def check(data, batches):
    """End if not every utterance comes exactly once."""
    times = np.bincount(np.concatenate(batches), minlength=len(data[0]))
    if not (times == 1).all():
        raise SystemExit("utterances are left out, or there twice")


def compare(data, batch_size):
    """The rows on what is in the batches."""
    n = len(data[0])
    ways = {
        "random": cut(np.random.default_rng(1).permutation(n), batch_size),
        "by length": cut(np.argsort(data[0], kind="stable"), batch_size),
        "ours": list(EmotionBatchSampler(*data, batch_size)),
    }
    for batches in ways.values():
        check(data, batches)
    found = {name: measure(data, batches) for name, batches in ways.items()}
    ours, usual, shortest = found["ours"], found["random"], found["by length"]
    balanced = list(EmotionBatchSampler(*data, batch_size, balance=1.0))
    evenly = measure(data, balanced)
    rarest, share, before = rarest_share(data[1], np.concatenate(balanced))
    padding = f"padding {ours['padding']:.1%} of the speech"
    pairless = f"{ours['alone']:.2%} of utterances without a pair"
    return [
        Row(
            *("padding avoided", "random batches"),
            *(usual["padding"] / ours["padding"], 3.0, True),
            f"{padding}, {usual['padding']:.1%}",
        ),
        Row(
            *("seconds computed", "batches by length, the least"),
            *((1 + ours["padding"]) / (1 + shortest["padding"]), 1.1, False),
            f"{padding}, {shortest['padding']:.1%}",
        ),
        Row(
            *("padding avoided, emotions balanced", "random batches"),
            *(usual["padding"] / evenly["padding"], 3.0, True),
            f"padding {evenly['padding']:.1%} of the speech; rarest emotion "
            f"({rarest}) {share:.1%} of utterances, else {before:.1%}; "
            f"{evenly['emotions']:.1f} emotions in a batch, random "
            f"{usual['emotions']:.1f}",
        ),
        Row(
            *("utterances without a pair", "random batches"),
            *(ours["alone"] / usual["alone"], 0.01, False),
            f"{pairless}, {usual['alone']:.1%}",
        ),
        Row(
            *("languages in a batch", "random batches"),
            *(ours["languages"] / usual["languages"], 0.9, True),
            f"{ours['languages']:.2f}, {usual['languages']:.2f} (by length "
            f"{shortest['languages']:.2f}); batches of one language "
            f"{ours['mono']:.1%}, {usual['mono']:.1%} (by length "
            f"{shortest['mono']:.1%})",
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
        return list(EmotionBatchSampler(*lists, batch_size))

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
