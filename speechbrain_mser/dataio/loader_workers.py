"""DataLoader's workers: how they end, and what is said when they fail."""

import multiprocessing
import os
import signal
import threading
from contextlib import contextmanager

import torch
from torch.utils.data import get_worker_info

from speechbrain_mser.errors import InputError

# What torch says of workers that found no room, or were killed.
_NO_ROOM = ("shared memory", "Bus error", "unable to write to file")
_KILLED = "killed by signal: Killed"


def worker_context(num_workers):
    """Workers that go on when SIGTERM is sent to all processes of a job.

    Slurm does that. The parent finishes its step with the worker's batches,
    then ends it: from the parent SIGTERM counts.

    Arguments
    ---------
    num_workers : int
        The loader's.

    Returns
    -------
    multiprocessing.context.BaseContext or None
        For ``DataLoader``'s ``multiprocessing_context``. None without workers,
        since it takes nothing else then, where processes are not forked, and
        where a signal's sender is not told: SIGTERM ends workers there.

    Example
    -------
    >>> worker_context(0) is None
    True
    """
    forks = multiprocessing.get_start_method() == "fork"
    if not num_workers or not forks or not hasattr(signal, "sigwaitinfo"):
        return None
    return _OutlivingContext()


def _outlive_termination():
    """The parent's SIGTERM ends this process, that of others does not.

    All its threads have blocked it.
    """
    sigterm, parent = {signal.SIGTERM}, os.getppid()

    def wait():
        while signal.sigwaitinfo(sigterm).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


if hasattr(os, "fork"):

    class _OutlivingProcess(multiprocessing.context.ForkProcess):
        """Has SIGTERM blocked from its first moment.

        Torch's pool of threads is made anew as soon as a worker is there, if
        the parent has set its size: one that has not blocked SIGTERM could be
        asked instead of the one that waits for it.
        """

        def start(self):
            """Start with SIGTERM blocked, here only until it is there."""
            sigterm = {signal.SIGTERM}
            before = signal.pthread_sigmask(signal.SIG_BLOCK, sigterm)
            try:
                super().start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

        def run(self):
            """Work, beside a thread that waits for SIGTERM."""
            _outlive_termination()
            super().run()

    class _OutlivingContext(multiprocessing.context.ForkContext):
        Process = _OutlivingProcess


def share(values):
    """Move a batch's tensors to where the parent finds them.

    A worker does that by itself, in a thread: where there is no room, the
    batch is lost without a word and the parent waits for ever. Nothing is
    done outside of a worker.

    Arguments
    ---------
    values : iterable
        Tensors, tuples of tensors, and others, which stay.

    Raises
    ------
    RuntimeError
        There is no room.
    """
    if get_worker_info() is None:
        return
    for value in values:
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, torch.Tensor):
                part.share_memory_()


@contextmanager
def named_failures():
    """Say what to set when workers find no room or are killed.

    Raises
    ------
    InputError
        Names ``num_workers``.

    Example
    -------
    >>> with named_failures():
    ...     raise RuntimeError(
    ...         "DataLoader worker (pid 7) is killed by signal: Bus error. "
    ...     )
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: a worker ... set num_workers to 0 ...
    """
    try:
        yield
    except RuntimeError as error:
        # Torch tells of a worker's end in two errors, or in the first alone.
        said = f"{error} {error.__cause__ or ''}"
        if "DataLoader worker" not in said:
            raise
        if any(words in said for words in _NO_ROOM):
            raise InputError(
                "a worker that reads batches found no room in shared memory "
                f"({_room()}): set num_workers to 0, or give the machine more "
                "(docker run --shm-size=1g; in Kubernetes an emptyDir of "
                "medium Memory at /dev/shm)"
            ) from error
        if _KILLED in said:
            raise InputError(
                "a worker that reads batches was killed, as a rule for want "
                "of memory: set num_workers to less, or to 0"
            ) from error
        raise


def _room():
    try:
        found = os.statvfs("/dev/shm")
    except (AttributeError, OSError):  # Windows has no statvfs
        return "/dev/shm is not there"
    size = found.f_blocks * found.f_frsize
    return f"/dev/shm has {size / 1e6:.1f} MB in all"
