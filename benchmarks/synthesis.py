#!/usr/bin/env python3
"""How fast is the synthesis itself, with a translator that costs nothing?

Real speech of about 3 s (or noise) is planned, read, "translated", encoded,
written and receipted by two processes. The plan grows from a thousand to a
million utterances; of each plan the same number of utterances is made, and
all that grows with the plan is timed apart: making it, and finding out which
of its shards are finished when all of them are.

Usage: python benchmarks/synthesis.py [--data ../shared/data] [--made 4000]
"""

import argparse
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas
from echo_backend import EchoBackend
from material import sample_of
from report import ROOT, Row, in_turns, report

from speechbrain_mser.synthesis.executors.local import run_local
from speechbrain_mser.synthesis.folder import SynthesisFolder
from speechbrain_mser.synthesis.plan import Plan
from speechbrain_mser.synthesis.shard import ShardWork

SIZES = (1_000, 10_000, 100_000, 1_000_000)
LANGUAGES = ("cmn", "deu", "fra", "ita", "spa")
PER_SECOND = 500
# A thousand utterances shall be enough shards for some workers.
SHARD_MINUTES = 5.0
# What a plan may cost, beside making what it plans at that speed.
SHARE = 0.02
# What a plan a thousand times as large may take off that speed.
FLAT = 0.9


def plan_of(files, size):
    """A plan of ``size`` utterances over as many languages as there are."""
    sources = size // len(LANGUAGES)
    rows = [files[number % len(files)] for number in range(sources)]
    table = pandas.DataFrame(rows)
    table["ID"] = [f"any_{number:07d}" for number in range(sources)]
    for name, value in (("text", "a sentence"), ("language", "eng")):
        table[name] = value
    table["speaker"] = [f"speaker_{number % 97}" for number in range(sources)]
    table["place"] = table.wav
    return Plan(table, LANGUAGES, SHARD_MINUTES)


def pretend_finished(plan, folder, settings):
    """Receipts of all shards, with rows of the usual size."""
    row = {
        "sha256": "0" * 64,
        "text": "a sentence",
        "audio": "fra/any/" + "x" * 20,
    }
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    translations = SynthesisFolder(folder, plan.description, settings)
    translations.begin()
    for shard in plan.shards.itertuples():
        translations.finish(
            scratch, {"shard": shard.name}, [row] * shard.utterances
        )


def look_up(plan, folder, settings):
    """Find out that all shards are finished."""
    translations = SynthesisFolder(folder, plan.description, settings)
    assert len(translations.receipts(plan.shards.name)) == len(plan.shards)


def make(plan, folder, settings, count, n_workers):
    """Make so many utterances.

    Returns
    -------
    steady : float
        Utterances per second, once all workers have started: they do so once,
        however much there is to make.
    whole : float
        Utterances per second of all that time.
    """
    translations = SynthesisFolder(folder, plan.description, settings)
    work = ShardWork(EchoBackend, translations)
    enough = np.searchsorted(plan.shards.utterances.cumsum(), count) + 1
    shards = [plan.shard(name) for name in plan.shards.name[:enough]]
    # One utterance for each worker, over which it starts and loads
    first = shards[0]._replace(tasks=shards[0].tasks[:1])
    warm = [first._replace(name=f"warm-{k}") for k in range(n_workers)]
    start, finished = time.perf_counter(), {}
    for outcome in run_local(work, [*warm, *shards], n_workers):
        assert outcome.receipt["made"] == outcome.receipt["planned"]
        finished[outcome.shard] = time.perf_counter()
    made = sum(len(shard.tasks) for shard in shards)
    end = max(finished.values())
    began = max(finished[shard.name] for shard in warm)
    shutil.rmtree(folder)
    return made / (end - began), made / (end - start)


def measure(files, scratch, arguments):
    """Size to seconds of planning and looking up, and to both speeds."""
    settings = {"backend": "echo"}
    plans = {size: plan_of(files, size) for size in arguments.sizes}
    for size, plan in plans.items():
        pretend_finished(plan, scratch / f"finished{size}", settings)
    ways = {}
    for size, plan in plans.items():
        ways["plan", size] = partial(plan_of, files, size)
        folder = scratch / f"finished{size}"
        ways["look up", size] = partial(look_up, plan, folder, settings)
    times = in_turns(ways, arguments.repeats)
    speeds = {size: [] for size in plans}
    for _ in range(arguments.repeats):
        for size, plan in plans.items():
            speeds[size].append(
                make(
                    plan,
                    scratch / "made",
                    settings,
                    arguments.made,
                    arguments.workers,
                )
            )
    middle = {key: statistics.median(seconds) for key, seconds in times.items()}
    return {
        size: (
            middle["plan", size],
            middle["look up", size],
            *map(statistics.median, zip(*speeds[size], strict=True)),
        )
        for size in plans
    }


def answers(results):
    """Rows of the table."""
    first, last = min(results), max(results)
    rows = [
        Row(
            f"utterances made, {size:,} planned",
            "the target",
            steady,
            PER_SECOND,
            True,
            f"{whole:.0f}/s with the workers' start",
            "/s",
        )
        for size, (_, _, steady, whole) in results.items()
    ]
    rows.append(
        Row(
            f"making, {last:,} planned",
            f"{first:,} planned",
            results[last][2] / results[first][2],
            FLAT,
            True,
            f"{results[last][2]:.0f}/s, {results[first][2]:.0f}/s",
        )
    )
    each = {size: (r[0] + r[1]) / size for size, r in results.items()}
    rows.append(
        Row(
            f"plan and look-up of an utterance of {last:,}",
            f"of {first:,}",
            each[last] / each[first],
            1.0,
            False,
            f"{1e6 * each[last]:.1f} µs, {1e6 * each[first]:.1f} µs",
        )
    )
    rows.append(
        Row(
            f"plan and look-up of {last:,}",
            f"making them at {PER_SECOND}/s",
            each[last] * PER_SECOND,
            SHARE,
            False,
            f"{each[last] * last:.1f} s, {last / PER_SECOND:.0f} s",
        )
    )
    return rows


def main():
    """Plan, look up, make; print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, default=ROOT / "../shared/data")
    add("--made", type=int, default=4000)
    add("--workers", type=int, default=2)
    add("--repeats", type=int, default=3)
    add("--sizes", type=int, nargs="+", default=SIZES)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        files = [
            row
            for row in sample_of(arguments.data, ["EMOVO"], 0, scratch)
            if 2 < row["duration"] < 4
        ]
        results = measure(files, scratch, arguments)
    print("| planned | plan, s | which are finished, s | made, /s |")
    print("|---:|---:|---:|---:|")
    for size, (planning, looking, steady, _) in results.items():
        print(f"| {size:,} | {planning:.3f} | {looking:.3f} | {steady:.0f} |")
    print()
    report(
        "synthesis",
        answers(results),
        {"made": arguments.made, "workers": arguments.workers},
    )


if __name__ == "__main__":
    main()
