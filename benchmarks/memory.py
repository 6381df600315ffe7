"""Peak memory of a piece of work, in a process of its own."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

MEBIBYTE = 2**20


def peak_memory(prepare, *arguments):
    """Bytes of memory that a piece of work needs beyond what it starts with.

    It is done once, by a process that has not done it before: what an earlier
    round has freed could serve it unseen. Linux only.

    Arguments
    ---------
    prepare : callable
        Of a module's top level. Called with ``arguments``, it makes what the
        work needs and returns the work, a function without arguments.
    *arguments : tuple
        Whatever can be pickled.

    Returns
    -------
    int
        Highest resident memory during the work, less that before it.
    """
    return measure_work(prepare, *arguments)[0]


def measure_work(prepare, *arguments):
    """What a piece of work needs, done once as for `peak_memory`.

    Arguments
    ---------
    prepare, *arguments
        As for `peak_memory`.

    Returns
    -------
    beyond : int
        As from `peak_memory`.
    peak : int
        Highest resident memory during the work, all of the process's.
    seconds : float
        How long it took.
    """
    # Not a copy of this process, with all that it holds.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measure, prepare, *arguments).result()


def _measure(prepare, *arguments):
    work = prepare(*arguments)
    # Imports and preparation had their own peak: let it be forgotten.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    peak = _status("VmHWM")
    return peak - before, peak, seconds


def _status(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {name}")
