"""One output folder, one training at a time."""

import errno
import json
import os
import socket
import time
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from speechbrain.utils.distributed import ddp_broadcast, if_main_process

from speechbrain_mser.errors import InputError

LOCK = ".training.lock"
# Who has the lock; the lock's own file is emptied by whoever tries it.
HOLDER = ".training.json"
# Seconds after which the workers of a process that was killed notice it; until
# then they hold what it held.
PATIENCE = 15
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


@contextmanager
def hold_folder(folder):
    """Keep a second training out of a folder, of all processes together.

    The lock is the file system's: it falls when its process ends, however it
    ends. Where there are no locks, what the holder left in writing decides.

    Arguments
    ---------
    folder : str or path-like
        The training's output folder; made when missing.

    Raises
    ------
    InputError
        Another one has it: its host, its process, since when.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> with hold_folder(folder), hold_folder(folder):
    ...     pass
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: ...: a training of this folder runs ...
    """
    lock, said = None, None
    folder = Path(folder)
    made = not folder.exists()
    if if_main_process():
        try:
            lock = _take(folder)
        except InputError as error:
            said = str(error)
    # All leave together, else the others would wait for the first.
    said = ddp_broadcast(said)
    if said is not None:
        raise InputError(said)
    try:
        yield
    finally:
        if if_main_process():
            for name in (HOLDER, LOCK):
                (folder / name).unlink(missing_ok=True)
            if lock is not None:
                lock.release()
            if made and not any(folder.iterdir()):
                folder.rmdir()


def _take(folder):
    """The lock, held; None where the file system has none."""
    folder.mkdir(parents=True, exist_ok=True)
    holder = _read(folder)
    ended = holder is not None and not _may_run(holder)
    lock = FileLock(folder / LOCK, fallback_to_soft=False)
    try:
        lock.acquire(timeout=PATIENCE if ended else 0)
    except Timeout:
        raise _refusal(folder) from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        lock = None
        if holder is not None and not ended:
            raise _refusal(folder) from None
    (folder / HOLDER).unlink(missing_ok=True)
    try:
        with open(folder / HOLDER, "x", encoding="utf-8") as file:
            json.dump(
                {
                    "host": socket.gethostname(),
                    "process": os.getpid(),
                    "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
                },
                file,
            )
    except FileExistsError:
        # At the same moment, where there are no locks
        raise _refusal(folder) from None
    return lock


def _read(folder):
    """What the holder left in writing; None if that is nothing."""
    try:
        holder = json.loads((folder / HOLDER).read_bytes())
        return {name: holder[name] for name in ("host", "process", "since")}
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _may_run(holder):
    """Whether a holder may be at work; of another host nobody knows."""
    # On Windows os.kill(process, 0) is Ctrl-C, not a question
    if os.name == "nt" or holder["host"] != socket.gethostname():
        return True
    try:
        os.kill(holder["process"], 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError, TypeError):
        return False
    return True


def _refusal(folder):
    holder = _read(folder)
    who = "who left no name"
    if holder is not None:
        who = "process {process} on {host}, since {since}".format(**holder)
    return InputError(
        f"{folder}: a training of this folder runs already ({who}): wait for "
        "it, end it, or give another output_folder; if it is gone for sure, "
        f"delete {HOLDER} and {LOCK} there"
    )
