#!/usr/bin/env python3
"""How fast are stored features read, and how fast is a large store opened?

Random reads by two processes, from a store and from a plain memory map of the
same bytes, which is as fast as it gets: both in the page cache, in turns,
checked to be equal first. Then a store with the files of a million utterances
(empty ones: two million, made once and kept beside the results) is opened in
fresh processes.

Usage: python benchmarks/feature_store.py [--repeats 9 --megabytes 400]
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from report import RESULTS, Row, in_turns, median_ratio, report
from tqdm import tqdm

from speechbrain_mser.features.records import RECORD_VERSION
from speechbrain_mser.features.store import FeatureStore

# 4 s of speech
SHAPES = {
    "Whisper-large's last layer": (200, 1280),
    "Whisper-base's 7 layers": (7, 200, 512),
}
N_READERS = 2
FORK = multiprocessing.get_context("fork")
SETTINGS = {"benchmark": "feature_store"}


def make_data(folder, shape, megabytes):
    """The same utterances in a store and in a memory map.

    Returns
    -------
    store : FeatureStore
        With an utterance at each second of an "audio" file.
    plain : numpy.memmap
        ``[utterances, *shape]``.
    """
    count = max(10, round(megabytes * 1e6 / (2 * np.prod(shape))))
    wav = folder / "a.wav"
    wav.write_bytes(b"some audio")
    store = FeatureStore(folder / "features", {"shape": shape})
    plain = np.memmap(folder / "plain", np.float16, "w+", shape=(count, *shape))
    for number in tqdm(range(count), f"storing {list(shape)}"):
        features = torch.randn(shape).half()
        plain[number] = features
        store.put(store.key(wav, number), features)
    plain.flush()
    return store, plain


class Readers:
    """Processes that read all utterances, each in an order of its own."""

    def __init__(self, ways, count):
        self.pipes, self.processes = [], []
        for seed in range(N_READERS):
            here, there = FORK.Pipe()
            process = FORK.Process(
                target=_serve, args=(there, ways, count, seed), daemon=True
            )
            process.start()
            self.pipes.append(here)
            self.processes.append(process)

    def read(self, way):
        """All utterances, in all processes at once."""
        for pipe in self.pipes:
            pipe.send(way)
        for pipe in self.pipes:
            pipe.recv()

    def close(self):
        """End the processes."""
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()


def _serve(pipe, ways, count, seed):
    rng = np.random.default_rng(seed)
    while (way := pipe.recv()) is not None:
        for number in rng.permutation(count):
            ways[way](number)
        pipe.send(True)


def reading(name, shape, megabytes, repeats):
    """A row about random reads."""
    with tempfile.TemporaryDirectory(dir=RESULTS) as folder:
        store, plain = make_data(Path(folder), shape, megabytes)
        wav = Path(folder) / "a.wav"

        def from_store(number):
            return store.get(store.key(wav, number))

        def from_map(number):
            return torch.from_numpy(np.array(plain[number]))

        for number in range(len(plain)):
            if not torch.equal(from_store(number), from_map(number)):
                raise SystemExit(f"utterance {number} of {shape} differs")
        readers = Readers({"store": from_store, "map": from_map}, len(plain))
        times = in_turns(
            {
                "store": lambda: readers.read("store"),
                "map": lambda: readers.read("map"),
            },
            repeats,
        )
        readers.close()
    gigabytes = N_READERS * plain.nbytes / 1e9
    speeds = {
        way: gigabytes / statistics.median(seconds)
        for way, seconds in times.items()
    }
    return Row(
        f"random reads, {N_READERS} processes, {name}",
        "numpy.memmap",
        median_ratio(times["map"], times["store"]),
        0.5,
        True,
        f"{speeds['store']:.1f} GB/s, {speeds['map']:.1f} GB/s",
    )


def large_store(count):
    """Folder of a store with the files of so many utterances; made once."""
    folder = RESULTS / f"feature_store_v{RECORD_VERSION}_{count}"
    if folder.exists():
        return folder
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    store = FeatureStore(partial, SETTINGS)
    for kind, n_digits in (("utterances", 64), ("audio", 32)):
        for first in tqdm(range(256), f"large store, {kind}"):
            inside = store.folder / kind / f"{first:02x}"
            inside.mkdir()
            for number in range(first, count, 256):
                (inside / f"{number:0{n_digits - 2}x}").touch()
    partial.rename(folder)
    return folder


def open_large_store(folder):
    """Print the seconds and megabytes that opening and a first look-up take."""
    before = _resident_megabytes()
    start = time.perf_counter()
    store = FeatureStore(folder, SETTINGS, mode="read")
    store.get(store.key(__file__))
    seconds = time.perf_counter() - start
    print(json.dumps([seconds, _resident_megabytes() - before]))


def _resident_megabytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def opening(count, repeats):
    """Rows about a large store: seconds and megabytes."""
    folder = large_store(count)
    found = []
    for _ in range(repeats):
        run = subprocess.run(
            [sys.executable, __file__, "--open", str(folder)],
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(json.loads(run.stdout))
    seconds, megabytes = (
        statistics.median(each) for each in zip(*found, strict=True)
    )
    question = f"opening a store of {count:,} utterances and a look-up"
    return [
        Row(
            question,
            "a limit",
            seconds,
            1.0,
            False,
            f"{1000 * seconds:.1f} ms",
            " s",
        ),
        Row(
            question,
            "a limit",
            megabytes,
            300.0,
            False,
            f"{megabytes:.1f} MB",
            " MB",
        ),
    ]


def main():
    """Check, time in turns, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--megabytes", type=float, default=400)
    parser.add_argument("--utterances", type=int, default=1_000_000)
    parser.add_argument("--open", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open is not None:
        open_large_store(arguments.open)
        return
    torch.manual_seed(0)
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows = [
        reading(name, shape, arguments.megabytes, arguments.repeats)
        for name, shape in SHAPES.items()
    ]
    rows += opening(arguments.utterances, 3)
    report("feature_store", rows, vars(arguments))


if __name__ == "__main__":
    main()
