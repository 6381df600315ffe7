#!/usr/bin/env python3
"""Does a corpus survive kill -9, of the driver and of workers, at any moment?

A small corpus is made once undisturbed. Then it is made again and again while
the driver or one of its workers is killed at random moments (SIGKILL, seeded)
and started anew, until there were enough kills; whenever it is complete it is
compared with the undisturbed one, file by file and byte by byte, and begun
again. No worker may outlive its driver. With ray, workers are actors on two
nodes of a cluster (on this machine), and nodes are killed too.

Usage: python benchmarks/kill_synthesis.py [--kills 50] [--executor local]
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas
import psutil
import soundfile
from echo_backend import EchoBackend

from speechbrain_mser.synthesis.executors.local import run_local
from speechbrain_mser.synthesis.folder import SynthesisFolder
from speechbrain_mser.synthesis.plan import Plan
from speechbrain_mser.synthesis.shard import ShardWork

# What a receipt says about its making, not about what was made.
OF_THE_RUN = ("host", "wall_seconds", "finished_at")
SETTINGS = {"backend": "echo", "gain": 1.0}
# Seconds of work for an utterance: a shard takes as long as a kill is rare.
EFFORT = 0.02
# Seconds between kills; a driver needs the shorter one to begin.
SOONEST, LATEST = 0.3, 4.0
# Ray takes longer to begin.
LATEST_WITH_RAY = 8.0
# Seconds until whoever lost the driver must be gone.
GONE = 15.0


def make_sources(folder, count, seed):
    """Noise in short files, and their table as pickle."""
    draw = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        path = folder / f"{number}.wav"
        seconds = draw.uniform(0.3, 1.2)
        samples = draw.normal(0, 0.1, int(16000 * seconds))
        soundfile.write(path, samples, 16000)
        rows.append(
            {
                "ID": f"toy_{number}",
                "corpus": "toy",
                "wav": str(path),
                "place": f"$data_root/{path.name}",
                "start": float("nan"),
                "stop": float("nan"),
                "duration": len(samples) / 16000,
                "language": "eng",
                "speaker": "",
                "emotion": "happy",
                "text": f"sentence {number}",
            }
        )
    table = folder / "table.pkl"
    pandas.DataFrame(rows).to_pickle(table)
    return table


class Processes:
    """Workers that the driver starts on this machine."""

    victims = ("driver", "worker")
    latest = LATEST
    address = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def workers(self, driver):
        """Those that are at work."""
        return psutil.Process(driver.pid).children(recursive=True)


class Cluster:
    """A head, where the drivers are, and two nodes with a worker each."""

    victims = ("driver", "worker", "node")
    latest = LATEST_WITH_RAY

    def __enter__(self):
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False},
        )
        self.nodes = [self.cluster.add_node() for _ in range(2)]
        self.address = self.cluster.address
        return self

    def __exit__(self, *_):
        self.cluster.shutdown()

    def workers(self, driver):
        """Actors' processes; whose they are is all the same to a kill."""
        return [
            process
            for process in psutil.Process().children(recursive=True)
            if process.name().startswith("ray::Worker")
        ]

    def kill_node(self, draw):
        """One with all its processes; another takes its place."""
        number = draw.randrange(len(self.nodes))
        self.cluster.remove_node(self.nodes[number], allow_graceful=False)
        self.nodes[number] = self.cluster.add_node()


PLACES = {"local": Processes, "ray": Cluster}


def find_executor(address):
    """What runs shards."""
    options = {"n_workers": 2, "max_attempts": 100}
    if not address:
        return partial(run_local, **options)
    from speechbrain_mser.synthesis.executors.ray_executor import run_ray

    return partial(run_ray, **options, address=address)


def drive(table, folder, address):
    """Make what is not there; this is what is killed."""
    plan = Plan(pandas.read_pickle(table), ["deu", "fra"], 0.15)
    folder = SynthesisFolder(folder, plan.description, SETTINGS)
    with folder.hold_part("1/1"):
        receipts = folder.receipts(plan.shards.name)
        left = [name for name in plan.shards.name if name not in receipts]
        backend = partial(EchoBackend, seconds=EFFORT)
        work = ShardWork(backend, folder, batch_size=4)
        shards = map(plan.shard, left)
        for outcome in find_executor(address)(work, shards):
            if not outcome.receipt:
                raise SystemExit(outcome.error)
        folder.clear_partial()


def start(table, folder, place):
    """A driver, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, __file__, "--drive", table, folder, place.address]
    )


def contents(folder):
    """Everything in a folder, without what is another in every run."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.parent.name == "shards" and path.suffix == ".json":
                content = json.loads(content)
                for name in OF_THE_RUN:
                    del content[name]
            found[str(path.relative_to(folder))] = content
    return found


def kill_one(driver, place, draw):
    """Kill the driver, a worker or a node; which of them it was, if any."""
    victim = draw.choice(place.victims)
    try:
        workers = place.workers(driver)
        if victim == "worker":
            if not workers:
                return None
            draw.choice(workers).kill()
    except psutil.NoSuchProcess:
        return None
    if victim == "node":
        place.kill_node(draw)
    if victim == "driver":
        if driver.poll() is not None:
            return None
        driver.kill()
        driver.wait()
        _, alive = psutil.wait_procs(workers, GONE)
        if alive:
            raise SystemExit(f"outlived their driver: {alive}")
    return victim


def disturb(table, folder, place, draw, most):
    """Make a corpus under fire; how many of whom were killed."""
    killed = dict.fromkeys(place.victims, 0)
    driver = start(table, folder, place)
    try:
        while True:
            try:
                left = sum(killed.values()) < most
                driver.wait(
                    draw.uniform(SOONEST, place.latest) if left else None
                )
            except subprocess.TimeoutExpired:
                victim = kill_one(driver, place, draw)
                if victim:
                    killed[victim] += 1
                if victim == "driver":
                    driver = start(table, folder, place)
            else:
                if driver.returncode:
                    raise SystemExit(f"the driver ended: {driver.returncode}")
                return killed
    finally:
        driver.kill()
        driver.wait()


def disturb_often(scratch, place, arguments):
    """Make it until there were enough kills; whom and in how many rounds."""
    draw = random.Random(arguments.seed)
    table = make_sources(scratch, arguments.utterances, arguments.seed)
    if start(table, scratch / "calm", place).wait():
        raise SystemExit("the undisturbed run failed")
    expected, rounds = contents(scratch / "calm"), 0
    total = dict.fromkeys(place.victims, 0)
    while sum(total.values()) < arguments.kills:
        rounds += 1
        folder = scratch / f"round{rounds}"
        left = arguments.kills - sum(total.values())
        killed = disturb(table, folder, place, draw, left)
        for victim, count in killed.items():
            total[victim] += count
        if contents(folder) != expected:
            raise SystemExit(f"round {rounds}: another corpus")
        print(f"round {rounds}: {killed}, the same corpus", flush=True)
    return total, rounds, len(expected)


def main():
    """Make, kill, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--utterances", type=int, default=120)
    parser.add_argument("--executor", choices=PLACES, default="local")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--drive", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        table, folder, address = arguments.drive
        drive(Path(table), Path(folder), address)
        return
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as scratch,
        PLACES[arguments.executor]() as place,
    ):
        total, rounds, files = disturb_often(Path(scratch), place, arguments)
    killed = " and ".join(f"{count} {who}s" for who, count in total.items())
    print(
        f"{killed} killed in {rounds} rounds and "
        f"{time.monotonic() - began:.0f} s; {files} files, each time the same"
    )


if __name__ == "__main__":
    main()
