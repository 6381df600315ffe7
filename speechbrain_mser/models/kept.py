"""Where converted models are kept: a folder each, whole or not there."""

import errno
import json
import os
import shutil
import stat
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from speechbrain.utils.logger import get_logger

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import PARTIAL, to_disk
from speechbrain_mser.files.fingerprints import file_sha256
from speechbrain_mser.files.tables import read_json

logger = get_logger(__name__)

# The environment variable that moves all of them.
PLACE = "MSER_MODELS"
# Where, in it, those made of GGUF files are.
GGUF = "gguf"
# What a folder is made of; written last.
CARD = "made_of.json"
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


def models_folder():
    """The user's own cache of converted models.

    Returns
    -------
    pathlib.Path
        ``$MSER_MODELS`` if that is set, else ``speechbrain_mser/models`` in
        ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Example
    -------
    >>> monkeypatch = getfixture("monkeypatch")
    >>> monkeypatch.setenv("MSER_MODELS", "/models")
    >>> models_folder()
    PosixPath('/models')
    """
    try:
        if place := os.environ.get(PLACE):
            return Path(place).expanduser()
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise InputError(
            f"no place for models: {error} Name one in the environment's "
            f"{PLACE}"
        ) from None
    return Path(cache) / "speechbrain_mser" / "models"


def make_once(name, fill, card, what, mend=False):
    """A folder of this cache; made if it is not there.

    Whoever comes second, in this process or another, waits and finds it. It
    appears under its name when all of it is on the disk.

    Arguments
    ---------
    name : str
        Its name, below `models_folder`.
    fill : callable
        Gets an empty folder, and one in which it may keep what is worth
        keeping should it be interrupted; removed when all is done.
    card : dict
        What it is made of; the files' hashes go to it.
    what : str
        The model, for messages.
    mend : bool
        Also where files of it are not what was written: what is there stays
        until another one is whole.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    InputError
        The disk is full, or nothing may be written there.
    """
    folder = models_folder() / name
    is_whole = _is_whole if mend else is_made
    if is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder, what):
            if not is_whole(folder):
                _make(folder, fill, card)
    except (OSError, SafetensorError) as error:
        # safetensors says of a full disk what its errors say
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{what}: it cannot be kept in {folder.parent} ({reason}); make "
            f"room there, or name another place in the environment's {PLACE}"
        ) from error
    return folder


def is_made(folder):
    """Whether a folder of this cache is whole, by its card.

    Arguments
    ---------
    folder : pathlib.Path
        Any.

    Returns
    -------
    bool
        It is.
    """
    return (folder / CARD).is_file()


def damaged_files(folder):
    """The files of a finished folder that are not what was written.

    Arguments
    ---------
    folder : pathlib.Path
        One that `make_once` made.

    Returns
    -------
    list of str
        Names; empty for a whole one.
    """
    try:
        hashes = read_json(folder / CARD)["files"].items()
    except (InputError, KeyError, AttributeError):
        return [CARD]
    return [
        name
        for name, sha256 in hashes
        if not (folder / name).is_file() or file_sha256(folder / name) != sha256
    ]


def _is_whole(folder):
    return is_made(folder) and not damaged_files(folder)


@contextmanager
def _alone(folder, what):
    """No two processes make one folder."""
    lock = FileLock(
        folder.with_name(f".{folder.name}.lock"), fallback_to_soft=False
    )
    try:
        lock.acquire(blocking=False)
    except Timeout:
        logger.info("%s: another process makes it; waiting", what)
        lock.acquire()
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    try:
        yield
    finally:
        lock.release()


def _make(folder, fill, card):
    partial = folder.with_name(f"{PARTIAL}{folder.name}")
    fetched = folder.with_name(f".fetched-{folder.name}")
    before = folder.with_name(f"{PARTIAL}before-{folder.name}")
    _settle(folder, before, partial)  # what whoever was killed has left
    try:
        partial.mkdir()
        fetched.mkdir(exist_ok=True)
        fill(partial, fetched)
        made = sorted(partial.iterdir())
        files = {path.name: file_sha256(path) for path in made}
        text = json.dumps({**card, "files": files}, indent=2)
        (partial / CARD).write_text(text + "\n", encoding="utf-8")
        for path in made:
            # Some writers (safetensors) let nobody else read
            path.chmod(stat.S_IMODE(partial.stat().st_mode) & 0o666)
        for path in (*made, partial / CARD, partial):
            to_disk(path)
        # One without its card, or a damaged one: aside, whatever is in it
        if os.path.lexists(folder):
            os.replace(folder, before)
        os.replace(partial, folder)
        to_disk(folder.parent)
    finally:
        _settle(folder, before, partial)
    shutil.rmtree(fetched, ignore_errors=True)


def _settle(folder, before, partial):
    """Put back what was aside, if nothing took its place; remove the rest."""
    if os.path.lexists(before) and not os.path.lexists(folder):
        os.replace(before, folder)
    for leftover in (before, partial):
        # A folder, or the link to one on another disk
        if leftover.is_symlink() or leftover.is_file():
            leftover.unlink()
        else:
            shutil.rmtree(leftover, ignore_errors=True)
