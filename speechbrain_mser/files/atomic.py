"""Files that are there whole or not at all, after a power cut too."""

import errno
import os
import re
import stat
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from speechbrain_mser.errors import InputError

# How the names of unfinished files begin.
PARTIAL = ".partial-"
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EROFS)


@contextmanager
def atomic_path(path):
    """A path to write to, that becomes the real one if nothing fails.

    Arguments
    ---------
    path : str or path-like
        The file to make or replace; its folder is made when missing.

    Raises
    ------
    InputError
        A file is in the place of its folder, or that cannot be made.

    Yields
    ------
    pathlib.Path
        A file beside it (a rename cannot cross file systems), which is
        removed again when the block raises. Whoever writes it and with what
        permissions, it gets those that a new file has (the umask's). A
        device or a pipe is itself.

    Example
    -------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_path(path) as partial:
    ...     _ = partial.write_text("whole")
    ...     path.exists()
    False
    >>> path.read_text()
    'whole'
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        # A device or a pipe (/dev/null, /dev/stdout) takes what comes, and
        # stays: a rename would put a file in its place
        yield path
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(
            f"{path.parent}: a file is there or above, where a folder is needed"
        ) from None
    except FileNotFoundError:
        # As in /proc
        raise InputError(
            f"{path.parent}: no folder can be made there"
        ) from None
    partial = _partial(path)
    try:
        mode = _usual_mode(partial, path)
        yield partial
        if stat.S_IMODE(partial.stat().st_mode) != mode:
            os.chmod(partial, mode)
        # Else a power cut may leave the new name with nothing under it.
        to_disk(partial)
        os.replace(partial, path)
        to_disk(path.parent)
    except SafetensorError as error:
        # It has in words what the system said: a full disk, as a rule
        if said := re.search(r"\(os error (\d+)\)", str(error)):
            number = int(said[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def check_output(path):
    """Refuse a file that cannot be made, before what shall be in it.

    Arguments
    ---------
    path : str or path-like
        The file to make or replace.

    Raises
    ------
    InputError
        It is a folder, a file is in the place of its folder, or the system
        makes none of that name there.
    PermissionError
        Nothing may be written there.

    Example
    -------
    >>> check_output(getfixture("tmp_path"))
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: ...: a folder; name a file in it
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: a folder; name a file in it")
    if path.exists() and not path.is_file():
        return  # a device or a pipe
    there = next(filter(os.path.lexists, path.absolute().parents))
    if not there.is_dir():
        raise InputError(f"{there}: a file, where a folder is needed")
    try:
        _usual_mode(_partial(there / path.name), path)
    except PermissionError:
        raise
    except OSError as error:
        raise InputError(
            f"{path}: cannot be made there ({error.strerror})"
        ) from None


def write_text(path, text):
    """Write a text file, whole or not at all.

    Arguments
    ---------
    path : str or path-like
        The file to make or replace; its folder is made when missing.
    text : str
        Written as UTF-8, line breaks as they are; paths that are none as the
        bytes that they are.

    Raises
    ------
    InputError
        As `atomic_path`.

    Example
    -------
    >>> path = getfixture("tmp_path") / "new" / "a.txt"
    >>> write_text(path, "whole")
    >>> path.read_text()
    'whole'
    """
    with atomic_path(path) as partial:
        partial.write_bytes(text.encode("utf-8", "surrogateescape"))


def _partial(path):
    # The suffix stays: writers such as matplotlib's go by it.
    return path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")


def _usual_mode(partial, path):
    """The permissions of a file that is made here: the umask's.

    Some writers (safetensors) make files that only their owner may read. What
    cannot be written is also known before it is computed.
    """
    try:
        partial.touch()
        mode = stat.S_IMODE(partial.stat().st_mode)
        # What is not written shall be missing, not empty.
        partial.unlink()
    except OSError as error:
        error.filename = str(path)  # what the user knows
        raise
    return mode


def to_disk(path):
    """Wait until a file, or a folder's list of names, is on the disk.

    Arguments
    ---------
    path : str or path-like
        What was written, or the folder in which something got a name.

    Raises
    ------
    OSError
        It cannot be written there.

    Example
    -------
    >>> to_disk(getfixture("tmp_path"))
    """
    if os.name == "nt" and os.path.isdir(path):
        return  # Windows opens no folder, and keeps names in a journal
    # Windows flushes only what may be written to
    flags = os.O_RDWR if os.name == "nt" else os.O_RDONLY
    opened = os.open(path, flags)
    try:
        os.fsync(opened)
    except OSError as error:
        # Some file systems know no fsync of folders.
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(opened)
