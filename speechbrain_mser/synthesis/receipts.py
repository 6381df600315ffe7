"""What a folder of translations holds, and which of its shards are finished.

    synthesis.json          of which plan and with which settings it is made
    shards/fra-00012.csv    what became of each utterance of a shard
    shards/fra-00012.json   its receipt, written last
    fra/meld/<ID>.flac      the translations
    .partial/               what is being made

A shard is finished when its receipt is there, is of this plan and these
settings, and its rows are those that the receipt was written for. Whatever
else is there was left by a run that was killed, and is made again. Whether
the audio of finished shards is still there is looked at when a run begins
(`finished.damaged_shards`).
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import atomic_path
from speechbrain_mser.files.csv_files import write_csv

FOLDER_FILE = "synthesis.json"
SHARDS = "shards"
PARTIAL = ".partial"

# What file systems say that know no locks, or whose server has none running
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

# Of a shard's CSV file. `audio` is relative to the folder; `clipped` is how
# many samples were beyond full scale; where there is an `error`, there is no
# audio.
COLUMNS = (
    "ID",
    "language",
    "corpus",
    "audio",
    "seconds",
    "sample_rate",
    "sha256",
    "clipped",
    "text",
    "error",
)
# A setting that is None is another than one that is not there: another digest.
_ABSENT = object()


def digest(value):
    """A name for plain values, nested or not.

    Arguments
    ---------
    value : dict
        As JSON knows them; the order of keys does not matter.

    Returns
    -------
    str
        64 hexadecimal digits.

    Example
    -------
    >>> digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    True
    """
    return hashlib.sha256(
        json.dumps(value, sort_keys=True).encode()
    ).hexdigest()


@contextlib.contextmanager
def writing(folder):
    """Say what to do when nothing can be written to a folder.

    Arguments
    ---------
    folder : str or path-like
        Named to the user.

    Raises
    ------
    InputError
        In place of an `OSError`: no space, no permission.

    Example
    -------
    >>> with writing("/m5ser"):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
    ...
    InputError: /m5ser: cannot be written to (No space left on device); ...
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written to ({error.strerror or error}); "
            "free some space, or see to the permissions, and run this again: "
            "what is finished is kept"
        ) from None


def begin_folder(folder, plan, settings):
    """Say what a folder will hold, or refuse one that holds something else.

    Arguments
    ---------
    folder : str or path-like
        Made when missing.
    plan : dict
        What the plan was made of, as `Plan.description` gives it.
    settings : dict
        The backend's name and what of its settings changes the audio.

    Raises
    ------
    InputError
        It is another plan's or another backend's, or holds other things.
    """
    folder = Path(folder)
    told = {"plan": plan, "settings": settings}
    path = folder / FOLDER_FILE
    if path.is_file():
        check_folder(folder, plan, settings)
        return
    # Languages, and the shards of a folder that lost its file
    others = [SHARDS, *(path.name for path in folder.glob("[a-z]" * 3))]
    others = [name for name in others if (folder / name).is_dir()]
    if others:
        raise InputError(
            f"{folder}: there is {', '.join(sorted(others))} in it, but no "
            f"{FOLDER_FILE} that says how that was made; give another output "
            "folder"
        )
    with writing(folder), atomic_path(path) as partial:
        partial.write_bytes(_as_json(told))


def check_folder(folder, plan, settings):
    """Refuse a folder that was made of something else.

    Arguments
    ---------
    folder, plan, settings
        As for `begin_folder`; a folder that is not begun is accepted.

    Raises
    ------
    InputError
        Says what differs.
    """
    path = Path(folder) / FOLDER_FILE
    if not path.is_file():
        return
    try:
        found = json.loads(path.read_text("utf-8"))
        before, now = found["plan"], found["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); give another output folder"
        ) from None
    differences = [
        *_differences("", before, plan),
        *_differences("", now, settings),
    ]
    if differences:
        advice = "give another output folder, or what it was begun with"
        if not any(Path(folder, SHARDS).glob("*.json")):
            advice = "nothing is made of it yet: remove that folder"
        raise InputError(
            f"{folder} was begun with something else; {'; '.join(differences)}"
            f"; {advice}"
        )


def _differences(name, before, now):
    """``name: was X, is Y``, for all that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for key in dict.fromkeys([*before, *now]):
            place = f"{name}.{key}" if name else key
            found += _differences(
                place, before.get(key, _ABSENT), now.get(key, _ABSENT)
            )
        return found
    if _shown(before) == _shown(now):
        return []
    return [f"{name} was {_shown(before)}, is {_shown(now)}"]


def _shown(value):
    if value is _ABSENT:
        return "not there"
    # As JSON gives it back: a tuple is a list
    return json.dumps(value, sort_keys=True)


def rows_path(folder, name):
    """Where a shard's rows are.

    Arguments
    ---------
    folder : str or path-like
        The output folder.
    name : str
        The shard's.

    Returns
    -------
    pathlib.Path
    """
    return Path(folder, SHARDS, f"{name}.csv")


def receipt_path(folder, name):
    """Where a shard's receipt is; arguments as for `rows_path`."""
    return Path(folder, SHARDS, f"{name}.json")


def read_receipt(folder, name, plan_digest, settings_digest):
    """A finished shard's receipt.

    Arguments
    ---------
    folder : str or path-like
        The output folder.
    name : str
        The shard's.
    plan_digest, settings_digest : str
        What it must be made of.

    Returns
    -------
    dict or None
        None when the shard is not finished.
    """
    try:
        receipt = json.loads(receipt_path(folder, name).read_bytes())
        if (
            receipt["shard"] == name
            and receipt["plan"] == plan_digest
            and receipt["settings"] == settings_digest
            and receipt["rows_sha256"]
            == hashlib.sha256(rows_path(folder, name).read_bytes()).hexdigest()
        ):
            return receipt
    except (OSError, ValueError, KeyError, TypeError):
        # Not there, half of one, or somebody's: not finished in any case
        pass
    return None


def read_receipts(folder, names, plan_digest, settings_digest):
    """The receipts of the shards that are finished.

    Arguments
    ---------
    folder, plan_digest, settings_digest
        As for `read_receipt`.
    names : iterable of str
        Which shards to look for.

    Returns
    -------
    dict
        Name to receipt, in their order.
    """
    found = {}
    for name in names:
        receipt = read_receipt(folder, name, plan_digest, settings_digest)
        if receipt:
            found[name] = receipt
    return found


def write_shard(folder, scratch, receipt, rows):
    """Write a shard's rows, then its receipt: now it is finished.

    Arguments
    ---------
    folder : str or path-like
        The output folder.
    scratch : pathlib.Path
        A folder on the same file system, for what is half written.
    receipt : dict
        With the name as ``shard``; gets ``rows_sha256``.
    rows : list of dict
        With the keys of `COLUMNS`.

    Raises
    ------
    OSError
        They cannot be written.
    """
    table = io.StringIO(newline="")
    cells = ([row.get(name, "") for name in COLUMNS] for row in rows)
    write_csv(table, COLUMNS, cells, "\n")
    # A translator may say anything, halves of surrogate pairs too
    data = table.getvalue().encode(errors="replace")
    name = receipt["shard"]
    receipt["rows_sha256"] = hashlib.sha256(data).hexdigest()
    Path(folder, SHARDS).mkdir(exist_ok=True)
    for path, content in (
        (rows_path(folder, name), data),
        (receipt_path(folder, name), _as_json(receipt)),
    ):
        write_through(scratch / path.name, content)
        os.replace(scratch / path.name, path)


def write_through(path, data):
    """Write a file and wait until the disk has it.

    A machine that loses its power may else remember that a file was moved
    into place, but not what was in it.

    Arguments
    ---------
    path : pathlib.Path
        The file.
    data : bytes
        Its content.
    """
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _as_json(value):
    return (json.dumps(value, indent=1) + "\n").encode()


def forget(folder, name):
    """Make a shard unfinished; its audio stays until it is made again.

    Arguments
    ---------
    folder : str or path-like
        The output folder.
    name : str
        The shard's.
    """
    with writing(folder):
        receipt_path(folder, name).unlink(missing_ok=True)


def lock_in(folder, name, timeout=-1):
    """Lock a name among what is being made, until its process ends.

    Arguments
    ---------
    folder : str or path-like
        The output folder.
    name : str
        A shard's or a part's.
    timeout : float
        Seconds to wait for whoever has it; -1: as long as it takes.

    Returns
    -------
    context manager
        Gives it back.

    Raises
    ------
    InputError
        Nothing can be written there, or its file system has no locks.
    filelock.Timeout
        Another one has it.

    Example
    -------
    >>> import tempfile
    >>> with lock_in(tempfile.mkdtemp(), "fra-00012"):
    ...     pass
    """
    place = Path(folder, PARTIAL)
    with writing(folder):
        place.mkdir(parents=True, exist_ok=True)
    # Not a file that stands for the lock where there are none: a run that is
    # killed would leave it, and the next one wait for nobody.
    lock = FileLock(place / f"{name}.lock", fallback_to_soft=False)
    try:
        return lock.acquire(timeout=timeout)
    except Timeout:
        raise
    except OSError as error:
        if error.errno in _WITHOUT_LOCKS:
            raise InputError(
                f"{folder}: its file system has no locks ({error.strerror}), "
                "without which two runs could make the same shard at once; "
                "mount it with them (Lustre has the option flock), or give "
                "another output folder"
            ) from None
        with writing(folder):
            raise


@contextlib.contextmanager
def hold_part(folder, part):
    """Keep a second run of this machine away from the same shards.

    Arguments
    ---------
    folder : str or path-like
        The output folder.
    part : str
        As given: ``3/16``.

    Raises
    ------
    InputError
        There is one. A run that was killed holds nothing.
    """
    try:
        held = lock_in(folder, f"part-{part.replace('/', '-of-')}", timeout=0)
    except Timeout:
        raise InputError(
            f"{folder}: another run is making part {part} of it; wait for "
            "it, or give each run a part of its own (--shard_index 1/2 "
            "and 2/2)"
        ) from None
    with held:
        yield


def clear_partial(folder):
    """Remove what was being made, when nothing is left to make.

    Arguments
    ---------
    folder : str or path-like
        The output folder.
    """
    for left in Path(folder).glob(f"{PARTIAL}*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
