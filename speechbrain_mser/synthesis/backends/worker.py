"""A worker process, and a conversation with it that cannot hang."""

import contextlib
import glob
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from speechbrain_mser.synthesis.backends.protocol import (
    MAX_LINE,
    WorkerFault,
    decode,
    encode,
)

GUARD = Path(__file__).with_name("orphan_guard.py")
# How long a worker that was asked to end, and one that was killed, may take.
SECONDS_TO_END = 5
TAIL_BYTES = 2000


class WorkerProcess:
    """A command that answers JSON lines with JSON lines.

    Arguments
    ---------
    command : list of str
        The program and its arguments; no shell.
    working_folder : str
        Where it runs.
    environment : dict
        Its whole environment.
    log : pathlib.Path, optional
        A file to which its stderr is appended; by default only the end of it
        is kept, for messages.

    Example
    -------
    >>> worker = WorkerProcess(
    ...     [sys.executable, "-c", "print('{}')"], ".", dict(os.environ)
    ... )
    >>> worker.receive(seconds=60)
    {}
    >>> worker.kill()
    """

    def __init__(self, command, working_folder, environment, log=None):
        # For the audio of both directions. The guard makes and removes it:
        # we may be killed at any moment.
        place = Path(tempfile.gettempdir())
        clear_left_behind(place)
        self.folder = place / f"{_folders()}{os.getpid()}-{uuid.uuid4().hex}"
        # Open as long as the worker lives.
        self._log = log.open("ab+") if log else tempfile.TemporaryFile()  # noqa: SIM115
        self._log_begins = self._log.seek(0, os.SEEK_END)
        self._received = bytearray()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", GUARD),
                *(str(os.getpid()), self.folder, *command),
            ],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=working_folder,
            env=environment,
            # Ctrl-C is for the program, which ends its workers itself.
            start_new_session=True,
        )
        for pipe in (self._process.stdin, self._process.stdout):
            os.set_blocking(pipe.fileno(), False)

    def ask(self, message, seconds):
        """Send a message and wait for the next one.

        Arguments
        ---------
        message : dict
            JSON-like.
        seconds : float
            How long to wait, for both together.

        Returns
        -------
        dict
            The answer.

        Raises
        ------
        WorkerFault
            There is none, or it is no message.
        """
        if self._received:
            raise WorkerFault("said more than it was asked")
        return self._exchange(encode(message), seconds)

    def receive(self, seconds):
        """Wait for the worker's first message; as `ask`."""
        return self._exchange(b"", seconds)

    def _exchange(self, unsent, seconds):
        stdin, stdout = self._process.stdin, self._process.stdout
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(stdout, select.POLLIN)
        if unsent:
            poll.register(stdin, select.POLLOUT)
        while True:
            left = deadline - time.monotonic()
            ready = dict(poll.poll(max(left, 0) * 1000))
            if not ready and left <= 0:
                raise WorkerFault(f"gave no answer within {seconds:g} s")
            # Sent without blocking: a worker that does not read fills the
            # pipe, and would hold us up for ever.
            if stdin.fileno() in ready:
                try:
                    unsent = unsent[stdin.write(unsent) or 0 :]
                except BrokenPipeError:
                    raise WorkerFault(self._how_it_ended()) from None
                if not unsent:
                    poll.unregister(stdin)
            if stdout.fileno() in ready:
                line = self._read_line()
                if line is not None:
                    return decode(line)

    def _read_line(self):
        """The next line, or None when it is not there in full yet."""
        begin = len(self._received)
        block = self._process.stdout.read(2**16)
        if block == b"":
            raise WorkerFault(self._how_it_ended())
        self._received += block or b""
        end = self._received.find(b"\n", begin)
        if end < 0:
            if len(self._received) > MAX_LINE:
                raise WorkerFault("wrote a line that does not end")
            return None
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    def _how_it_ended(self):
        try:
            status = self._process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            return "closed its stdin or stdout"
        if status > 128:
            with contextlib.suppress(ValueError):
                return f"was killed by {signal.Signals(status - 128).name}"
        return f"ended with exit status {status}"

    def tail(self):
        """The end of what it wrote to stderr.

        Returns
        -------
        str
            Some lines; empty when it wrote nothing.
        """
        end = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(self._log_begins, end - TAIL_BYTES))
        return self._log.read().decode("utf-8", "replace").strip()

    def close(self):
        """Let it end by itself, for some seconds, then kill it."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(SECONDS_TO_END)
        self.kill()

    def kill(self):
        """End it now, with all that it has started."""
        # The guard takes the worker with it and waits for it, so that not
        # even a zombie is left.
        self._process.terminate()
        try:
            self._process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(OSError):
                pipe.close()
        if self.folder.is_symlink():
            self.folder.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)


def clear_left_behind(place):
    """Remove the folders of workers whose guards were killed as well.

    Arguments
    ---------
    place : pathlib.Path
        Where temporary files go. Only folders of this host's dead processes
        are removed: the place may be shared.
    """
    for left in place.glob(f"{glob.escape(_folders())}*-*"):
        number = left.name.removeprefix(_folders()).partition("-")[0]
        if number.isdecimal() and not _lives(int(number)):
            shutil.rmtree(left, ignore_errors=True)


def _folders():
    """How the names of this host's begin."""
    return f"mser-worker-{socket.gethostname()}-"


def _lives(number):
    """Whether there is a process of this number, whoever's."""
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
