#!/usr/bin/env python3
"""Does damaged or hostile input ever end in a traceback, a hang or a NaN?

Audio files, manifests, recognisers' folders and checkpoints are made, damaged
at random, and used as a user would. Each ends in one of two ways: it is
used, and what comes out is right and finite; or it is refused with a message
(`InputError`, or exit code 2 of a script). Anything else is a fault: another
exception, a process that dies, an answer that is not finite, a training that
ends otherwise than the undisturbed one, a file outside that was written, or
more than 20 seconds.

Every case has a number of its own, which is its seed and all that it depends
on: `--only audio:1234` runs it again.

Usage: python benchmarks/fuzz.py [--seed 1] [--audio 3000] [--manifests 1000]
[--recognizers 1000] [--checkpoints 300]
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from report import RESULTS, environment
from tqdm import tqdm

from speechbrain_mser.files.atomic import write_text

# Kind of input to how many of them.
COUNTS = {
    "audio": 3000,
    "manifests": 1000,
    "recognizers": 1000,
    "checkpoints": 300,
}
# Seconds; loading the libraries is not part of a case.
LIMIT = 20.0
# Cases of one process: each training in it leaves TensorBoard's thread.
MOST_CASES = 50
# A seed's cases, whatever their number, are not another seed's.
APART = 1_000_000


def serve(connection, kind, shared, scratch):
    """Run the cases that come through a pipe, in a process of its own."""
    # What a case prints is nobody's business here, at any level.
    log = os.open(scratch / "output.txt", os.O_WRONLY | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    import fuzz_subjects

    subject = fuzz_subjects.SUBJECTS[kind](shared, scratch)
    connection.send(("ready", ""))
    while (number := connection.recv()) is not None:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            try:
                answer = subject.run(random.Random(number), Path(folder))
            except Exception:
                answer = ("fault", traceback.format_exc())
        connection.send(answer)


class Worker:
    """A process that runs cases, and is made anew when one ends it."""

    def __init__(self, kind, shared, scratch):
        self.made_of = kind, shared, scratch
        self.process, self.cases = None, 0

    def run(self, number):
        """One case: "used" or "refused" or "fault", and what was said."""
        if self.cases == MOST_CASES:
            self.stop()
        if self.process is None:
            self._start()
        self.cases += 1
        self.connection.send(number)
        try:
            if self.connection.poll(LIMIT):
                return self.connection.recv()
            fault = f"no end within {LIMIT:.0f} s"
        except EOFError:
            self.process.join()
            fault = f"the process ended with {self.process.exitcode}"
        self.process.kill()
        self._forget()
        return "fault", fault

    def _start(self):
        spawn = multiprocessing.get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        self.process = spawn.Process(
            target=serve, args=(theirs, *self.made_of), daemon=True
        )
        self.process.start()
        theirs.close()
        self.connection.recv()  # ready

    def stop(self):
        """Have the process end."""
        if self.process is not None:
            self.connection.send(None)
            self._forget()

    def _forget(self):
        self.process.join()
        self.connection.close()
        self.process, self.cases = None, 0


def run_kind(kind, numbers, shared, scratch, jobs):
    """All cases of a kind, in several processes; number to answer."""
    workers = []
    for job in range(jobs):
        folder = scratch / f"{kind}{job}"
        folder.mkdir()
        workers.append(Worker(kind, shared, folder))
    answers = {}
    bar = tqdm(total=len(numbers), desc=kind)

    def work(worker, part):
        for number in part:
            answers[number] = worker.run(number)
            bar.update()
        worker.stop()

    with bar, ThreadPoolExecutor(jobs) as pool:
        parts = [numbers[job::jobs] for job in range(jobs)]
        list(pool.map(work, workers, parts))
    return answers


def summarize(kind, answers, seconds):
    """What became of a kind's cases; faults are printed whole."""
    counts = Counter(outcome for outcome, _ in answers.values())
    for number, (outcome, said) in sorted(answers.items()):
        if outcome == "fault":
            print(f"\n{kind}:{number}\n{said}", flush=True)
    print(
        f"{kind}: {len(answers)} in {seconds:.0f} s, {counts['used']} used, "
        f"{counts['refused']} refused, {counts['fault']} faults",
        flush=True,
    )
    reasons = Counter(
        said for outcome, said in answers.values() if outcome == "refused"
    )
    return {
        "cases": len(answers),
        **{name: counts[name] for name in ("used", "refused", "fault")},
        "seconds": round(seconds, 1),
        "refusals": dict(reasons.most_common(40)),
    }


def main():
    """Make, damage, use."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", help="one case, as KIND:NUMBER")
    for kind, count in COUNTS.items():
        parser.add_argument(f"--{kind}", type=int, default=count)
    arguments = parser.parse_args()
    first = arguments.seed * APART
    cases = {
        kind: [first + k for k in range(getattr(arguments, kind))]
        for kind in COUNTS
    }
    if arguments.only:
        kind, _, number = arguments.only.partition(":")
        cases = {kind: [int(number)]}
    print(f"seed {arguments.seed}", flush=True)
    # Workers are to find the same small models, and one thread is enough.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    results = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        from fuzz_subjects import make_shared

        shared = make_shared(scratch / "shared", {k for k in cases if cases[k]})
        for kind, numbers in cases.items():
            if numbers:
                start = time.monotonic()
                jobs = min(arguments.jobs, len(numbers))
                answers = run_kind(kind, numbers, shared, scratch, jobs)
                seconds = time.monotonic() - start
                results[kind] = summarize(kind, answers, seconds)
    RESULTS.mkdir(parents=True, exist_ok=True)
    found = {
        "seed": arguments.seed,
        "environment": environment(),
        "results": results,
    }
    write_text(RESULTS / "fuzz.json", json.dumps(found, indent=2) + "\n")
    if any(result["fault"] for result in results.values()):
        sys.exit("there were faults")


if __name__ == "__main__":
    main()
