"""Stands between a program and its worker, so that no worker is left behind.

Started as ``python -I -S guard.py PARENT FOLDER COMMAND...``. It makes the
folder, runs the command with its own stdin, stdout and stderr, and ends with
the command's exit status. When the parent is gone, however it went, or SIGTERM
comes, it kills the command and all that the command has started; a worker that
hangs would never see that its stdin was closed. At the end it removes the
folder.

On Linux nothing that the command has started outlives it, in whatever process
group, session or depth: orphans become the guard's children, and it ends when
it has none. Elsewhere the command's own group is killed. When the guard itself
is killed with SIGKILL, Linux kills the command, but not the command's children.

Not imported by anything: it is a process of its own.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys

SECONDS_BETWEEN_LOOKS = 0.5
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(parent, folder, *command):
    """Run the command; end as it does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    os.mkdir(folder, 0o700)
    _ask_linux(PR_SET_CHILD_SUBREAPER, 1)
    worker = None
    try:
        worker = subprocess.Popen(
            command,
            # A group of its own: what the worker starts is killed with it.
            start_new_session=True,
            # Safe here, where no threads are.
            preexec_fn=_die_with_the_guard,
        )
        # The pipes' other ends must see at once that the worker is gone.
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        while os.getppid() == int(parent):
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = worker.wait(SECONDS_BETWEEN_LOOKS)
                return status if status >= 0 else 128 - status
        return 128 + signal.SIGKILL
    except OSError as error:
        print(f"cannot run {command[0]}: {error}", file=sys.stderr)
        return 127
    finally:
        # A second signal must not keep it from the rest.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if worker is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        _kill_orphans()
        if os.path.islink(folder):
            os.unlink(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _die_with_the_guard():
    """Ask Linux to kill the worker when even the guard was killed."""
    _ask_linux(PR_SET_PDEATHSIG, signal.SIGKILL)


def _ask_linux(option, value):
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value)


def _kill_orphans():
    """End all that the command has left, and what comes to us by that."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for child in _children():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(child, signal.SIGKILL)
            # Waits for one of them; raises when there is none.
            os.waitpid(-1, 0)


def _children():
    """The processes whose parent is this one."""
    children, own = [], str(os.getpid()).encode()
    for name in filter(str.isdecimal, _names("/proc")):
        with (
            contextlib.suppress(OSError),
            open(f"/proc/{name}/stat", "rb") as f,
        ):
            # The name before the bracket may hold anything.
            if f.read().rpartition(b")")[2].split()[1] == own:
                children.append(int(name))
    return children


def _names(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
