"""The LMDB files of a feature store, one for each process that writes.

Why LMDB. Measured on utterances of 512 kB (4 s at Whisper-large's width, in
half precision), two reading processes, one writer that commits each utterance
so that a kill loses no other:

======================== ================= ======================
store                    write, ms         random reads, GB/s
======================== ================= ======================
``numpy.memmap`` (floor) 0.25              9.8 to 12.3
LMDB                     0.59 with fsync   7.7 to 9.1
safetensors, a file each 1.34              9.5 to 10.5
Arrow IPC file           2.22              7.4 to 8.9
h5py                     0.18              3.8 to 5.8
======================== ================= ======================

All without the records' checksums, which take 0.13 ms more for each.

HDF5 (SpeechBrain's cache) allows a single writer and no reader beside it, and
a kill can leave the whole file unreadable. Arrow's file has its index at the
end, so a kill loses all of it; a file for each utterance is a million files.
LMDB's transactions survive a kill at any moment, any number of processes
read while one writes, and opening a million utterances costs nothing.

An LMDB file wants a single machine's writers, and cluster file systems know
no locks to rely on: every writer has a file of its own here, and readers look
into all of them.
"""

import contextlib
import errno
import os
import shutil
import socket
import threading

import lmdb
from filelock import FileLock, Timeout
from lmdb.verify import VerifyError, verify

from speechbrain_mser.errors import InputError

# Address space, not disk: LMDB files grow as they are filled.
MAP_SIZE = 1 << 40
MAX_READERS = 1024
MIN_FREE = 1 << 20
# Records up to which a file's structure is checked whenever it is opened: 0.1 s
# for so many. In a larger one it is next to nothing beside the features.
FEW = 10_000
# Of 128 TiB that a process can address; more files are opened in turn.
MAX_OPEN = 100

# LMDB must not open a file twice in a process, and a forked process must not
# use what its parent opened: one table for all stores, emptied at each fork.
_environments = {}
# What each written file held when it was opened: a view that is kept open.
_views = {}
# Held while they are used: closing one under a thread that reads it would end
# the process.
_opened = threading.RLock()


def own_file(folder):
    """A file that no other process writes, and the lock that keeps it so.

    The lock falls when its process ends, however it ends; the next one goes
    on with the same file.

    Arguments
    ---------
    folder : pathlib.Path
        Where all writers' files are.

    Returns
    -------
    path : str
        The file, which may not be there yet.
    lock : filelock.FileLock
        Held; to be kept as long as the file is written.

    Raises
    ------
    OSError
        The disk is full, or thousands of processes write there.
    """
    # LMDB writes its table of readers through memory: without room for it the
    # process would be killed.
    if shutil.disk_usage(folder).free < MIN_FREE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    host = socket.gethostname().split(".")[0] or "host"
    for number in range(MAX_READERS):
        path = folder / f"{host}-{number}.lmdb"
        lock = FileLock(path.with_suffix(".writer"))
        try:
            lock.acquire(timeout=0)
        except (Timeout, PermissionError):
            # At work, or another user's
            continue
        if not path.exists():
            # It was removed, but may still be open here.
            close_file(str(path))
        return str(path), lock
    raise OSError(f"more than {MAX_READERS} processes write into {folder}")


@contextlib.contextmanager
def reading(path):
    """A transaction in which a file is looked at.

    Arguments
    ---------
    path : str
        Any writer's file.

    Yields
    ------
    lmdb.Transaction
        What it gives are views into the file: copy what is to outlive it.

    Raises
    ------
    InputError
        The file is damaged, or its file system cannot do this.
    """
    with _opened, _environment(path).begin(buffers=True) as view:
        try:
            yield view
        except lmdb.Error as error:
            raise InputError(_damaged(path, error)) from None


def count_records(path):
    """How many records a file has; known without looking at them.

    Arguments
    ---------
    path : str
        Any writer's file.

    Returns
    -------
    int
        Records, of utterances and of files' contents.

    Raises
    ------
    InputError
        As `reading`.
    """
    with _opened:
        return _environment(path).stat()["entries"]


def write_anew(path, records):
    """Commit records, to pages that nobody may be reading.

    A reader who may not write into the folder cannot say that it reads, and
    LMDB would use pages again that it still looks at. What is seen by an open
    view stays: a few pages for each utterance, free again in the next run.

    Arguments
    ---------
    path : str
        From `own_file`.
    records : dict
        Names to values, bytes both: all of them, or none.

    Raises
    ------
    InputError, lmdb.Error, OSError
        They cannot be written; the file was removed or is damaged.
    """
    with _opened:
        environment = _environment(path)
        if path not in _views:
            _views[path] = environment.begin()
        with environment.begin(write=True) as change:
            for name, value in records.items():
                change.put(name, value)


def _environment(path):
    """A writer's file, opened in this process."""
    if path not in _environments:
        folder = os.path.dirname(path)
        writable = os.access(folder, os.W_OK) and (
            not os.path.exists(path) or os.access(path, os.W_OK)
        )
        if os.path.exists(path) and not os.access(path, os.R_OK):
            raise InputError(
                f"{path}: permission denied to read these features"
            )
        if len(_environments) >= MAX_OPEN:
            close_file(next(iter(_environments)))
        try:
            environment = lmdb.open(
                path,
                subdir=False,
                map_size=MAP_SIZE,
                max_readers=MAX_READERS,
                readonly=not writable,
                # Where nothing can be written there is no place for locks.
                lock=writable,
                # A crash of the machine may undo the last commit, not more.
                metasync=False,
                # Utterances are read in random order.
                readahead=False,
            )
            _check_whole(path, environment)
        except (
            lmdb.CorruptedError,
            lmdb.InvalidError,
            lmdb.VersionMismatchError,
        ) as error:
            raise InputError(_damaged(path, error)) from None
        except lmdb.Error as error:
            raise InputError(
                f"{path}: cannot be opened ({error}); features need a file "
                "system with locks and address space (ulimit -v unlimited): "
                "--feature_folder takes another folder, --features off none"
            ) from None
        if writable:
            # Readers that were killed would keep old pages alive for ever.
            environment.reader_check()
        _environments[path] = environment
    return _environments[path]


def _damaged(path, error):
    return (
        f"{path}: cannot be opened as features ({error}); it was copied in "
        "part or damaged: remove it, and they will be made again"
    )


def _check_whole(path, environment):
    """Refuse a file of which reading it would end the process.

    It may be shorter than its header says: a transaction may end with pages
    that it had no use for. Which are used only the structure tells.
    """
    pages = environment.info()["last_pgno"] + 1
    expected = pages * environment.stat()["psize"]
    found = os.path.getsize(path)
    if found >= expected and environment.stat()["entries"] > FEW:
        return
    try:
        faults = verify(path, subdir=False)
    except VerifyError as error:
        faults = [str(error)]
    if faults:
        environment.close()
        size = f"{found} bytes of {expected}; " if found < expected else ""
        raise lmdb.CorruptedError(size + faults[0])


def close_file(path):
    """Let go of a file; harmless when it is not open.

    Arguments
    ---------
    path : str
        The file.
    """
    with _opened:
        if path in _environments:
            _views.pop(path, None)
            _environments.pop(path).close()


def _before_fork():
    _opened.acquire()
    for path in list(_environments):
        close_file(path)


if hasattr(os, "register_at_fork"):  # Windows never forks
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_opened.release,
        after_in_child=_opened.release,
    )
