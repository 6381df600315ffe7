"""Real processes that need not import torch first.

Importing torch, transformers and SpeechBrain is six seconds of most of the
tests' processes. Here a server has imported them and done nothing else, and
each process is a fork of it: with its own number, environment, folder, output
and signals. What starting Python anew has to say is not seen here: for that
there is `subprocess`.
"""

import gc
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

CONTEXT = multiprocessing.get_context("forkserver")
IMPORTED = (
    "ready",
    "train",
    "speechbrain_mser.inference",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
    "transformers.models.whisper.modeling_whisper",
)


class Ready:
    """``python <words>``, started at once; used as a `subprocess.Popen` is.

    Arguments
    ---------
    words : list of str or path-like
        A script, or ``-c`` and code; and its arguments.
    cwd : str or path-like
        Where it runs; here by default.
    env : dict
        Its environment; this one by default.
    start_new_session : bool
        Whether it has a session, and a group of processes, of its own.
    """

    def __init__(self, words, cwd=None, env=None, start_new_session=False):
        self._folder = tempfile.TemporaryDirectory()
        self._output = [Path(self._folder.name, name) for name in "12"]
        for path in self._output:
            path.touch()
        environment = dict(os.environ if env is None else env)
        # The server finds what it imports where this process does
        path = os.pathsep.join(sys.path)
        with mock.patch.dict(os.environ, {"PYTHONPATH": path}):
            CONTEXT.set_forkserver_preload(list(IMPORTED))
            forkserver.ensure_running()
        self._process = CONTEXT.Process(
            target=_run,
            args=(
                list(map(str, words)),
                str(cwd or os.getcwd()),
                environment,
                list(map(str, self._output)),
                start_new_session,
            ),
        )
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        """Its exit code, or the negative number of a signal; None before."""
        return self._process.exitcode

    def poll(self):
        """The same."""
        return self.returncode

    def send_signal(self, number):
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """End it, if it still runs."""
        self._process.kill()

    def wait(self, timeout=600):
        """Its exit code."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return self.returncode

    def communicate(self, timeout=600):
        """What it has said, to stdout and to stderr."""
        self.wait(timeout)
        return tuple(path.read_text("utf-8") for path in self._output)


def run(words, **options):
    """Run it to its end; give what `subprocess.run` does."""
    process = Ready(words, **options)
    try:
        said = process.communicate()
    finally:
        process.kill()
    return subprocess.CompletedProcess(words, process.returncode, *said)


def run_group(size, words, **options):
    """The same in several processes of one group, as torchrun starts them."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = str(found.getsockname()[1])
    world = {
        **os.environ,
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": port,
    }
    processes = [
        Ready(words, env={**world, "RANK": rank, "LOCAL_RANK": rank}, **options)
        for rank in map(str, range(size))
    ]
    try:
        said = [process.communicate() for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        subprocess.CompletedProcess(words, process.returncode, *texts)
        for process, texts in zip(processes, said, strict=True)
    ]


def _run(words, cwd, environment, output, new_session):
    """Become Python on its way to a script; in the new process."""
    gc.freeze()  # what the server imported stays: no collection looks at it
    if new_session:
        os.setsid()
    for number, path in enumerate(output, start=1):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(cwd)
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")
