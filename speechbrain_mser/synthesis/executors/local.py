"""Shards made by processes of this machine.

Every worker is a fresh interpreter that imports what a shard needs and
nothing of the script that started it: no torch, unless the backend wants it.
It reads its shards from a socket. When the other end closes, whoever started
it is gone, however that happened, and it takes itself and all that it started
away; so a killed run leaves no process behind.
"""

import contextlib
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

from speechbrain_mser.synthesis.executors.queue import attempt, run_queue

# A worker's whole program. Its path of search is an argument, not PYTHONPATH:
# a backend's own interpreter, of another version, would inherit that.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    f"from {__name__} import _serve; _serve(int(sys.argv[1]))"
)
# Seconds: how often a silent worker is looked at, and how long one that was
# told to end may take.
_LOOK = 1.0
_PATIENCE = 10.0


def run_local(work, shards, n_workers=1, max_attempts=3, gpus=()):
    """Make shards in processes of this machine.

    Arguments
    ---------
    work : ShardWork
        Makes one shard; travels to every process.
    shards : iterable of Shard
        Asked for one by one, as processes become free.
    n_workers : int
        How many processes.
    max_attempts : int
        How often a shard is begun when its process dies or fails on it.
    gpus : list of str or int
        What the processes see of the machine's GPUs, each one of them in
        turn; empty: every process sees all.

    Yields
    ------
    Outcome
        One for each shard, in the order in which they end.

    Raises
    ------
    InputError
        Nothing can be made: no weights, no such language, a full disk.
    """
    payload = pickle.dumps(work)
    workers = [
        _Worker(payload, _environment(number, n_workers, gpus))
        for number in range(n_workers)
    ]
    try:
        yield from run_queue(workers, shards, max_attempts, _answered)
    finally:
        for worker in workers:
            worker.dismiss()
        for worker in workers:
            worker.end()


def _environment(number, n_workers, gpus):
    """What a worker finds in its environment."""
    # Each would take all cores otherwise, and all would wait for one another
    threads = max(1, (os.cpu_count() or 1) // n_workers)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = str(gpus[number % len(gpus)])
    return environment


def _answered(workers):
    """The workers that have sent something, or have died."""
    busy = [worker for worker in workers if worker.job]
    readable = wait([worker.connection for worker in busy], _LOOK)
    return [
        worker
        for worker in busy
        if worker.connection in readable or worker.process.poll() is not None
    ]


class _Worker:
    """A place for a process, which is replaced when it dies; see `run_queue`."""

    def __init__(self, payload, environment):
        self.payload = payload
        self.environment = environment
        self.process = self.connection = self.job = None

    def is_free(self):
        return self.job is None

    def begin(self, job):
        self.job = job
        if self.process is None:
            self._start()
        # A process that is gone already is noticed on reading.
        with contextlib.suppress(OSError):
            self.connection.send(job[0])

    def _start(self):
        self.connection, theirs = Pipe()
        path = json.dumps(sys.path)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), path],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Ctrl-C is for us; and what it starts can be ended with it.
                start_new_session=True,
                env=self.environment,
            )
        with contextlib.suppress(OSError):
            self.connection.send_bytes(self.payload)

    def answer(self):
        try:
            # What a dead one has started may hold its socket open.
            if self.process.poll() is not None and not self.connection.poll():
                raise EOFError
            kind, content = self.connection.recv()
        except (EOFError, OSError):
            kind, content = "failed", f"its process ended ({self._how()})"
        if kind != "made":
            self.end()
        return kind, content

    def _how(self):
        try:
            code = self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return "it closed its socket"
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

    def dismiss(self):
        """Let it close its backend; one at work ends at once."""
        if self.process is not None and self.job is None:
            with contextlib.suppress(OSError):
                self.connection.send(None)
        elif self.process is not None:
            self.connection.close()

    def end(self):
        """Wait for it to end, and see to it that it does."""
        if self.process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_PATIENCE)
        _kill_group(self.process.pid)
        self.process.wait()
        self.connection.close()
        self.process = self.connection = None


def _kill_group(leader):
    """End a worker and what it started, in whatever state they are."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _serve(descriptor):
    """A worker's life: shards come in, receipts go out."""
    # What it starts must not hold the socket open when it is gone.
    os.set_inheritable(descriptor, False)
    connection = Connection(descriptor)
    arrived = queue.SimpleQueue()
    threading.Thread(
        target=_listen, args=(connection, arrived), daemon=True
    ).start()
    try:
        work = pickle.loads(arrived.get())
    except Exception:
        with contextlib.suppress(ConnectionError):
            connection.send(("failed", traceback.format_exc()))
        return
    with contextlib.closing(work):
        kind = "made"
        while kind == "made" and (shard := pickle.loads(arrived.get())):
            kind, content = attempt(work, shard)
            try:
                connection.send((kind, content))
            except ConnectionError:  # the driver was stopped: it has said so
                return


def _listen(connection, arrived):
    """Pass on what comes; end everything when nobody is there any more."""
    try:
        while True:
            arrived.put(connection.recv_bytes())
    except (EOFError, OSError):
        _kill_group(os.getpid())
