"""A folder of translations: what it holds, and which shards are finished.

    synthesis.json          of which plan and with which settings it is made
    shards/fra-00012.csv    what became of each utterance of a shard
    shards/fra-00012.json   its receipt, written last
    fra/meld/<ID>.flac      the translations
    .partial/               what is being made

A shard is finished when its receipt is there, is of this plan and these
settings, and its rows are those that the receipt was written for. Whatever
else is there was left by a run that was killed, and is made again. Whether
the audio of finished shards is still there is looked at when a run begins
(`shard_check.damaged_shards`).
"""

import contextlib
import errno
import io
import json
import os
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import to_disk, write_text
from speechbrain_mser.files.csv_files import write_csv
from speechbrain_mser.files.fingerprints import sha256
from speechbrain_mser.files.tables import read_table

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


class SynthesisFolder:
    """A folder of translations, of one plan and one set of settings.

    Nothing is written before there is a first shard to keep: a run that fails
    before leaves the folder free for another plan or other settings.

    Arguments
    ---------
    path : str or path-like
        Where it is; it need not be there.
    plan : dict
        What the plan was made of, as `Plan.description` gives it.
    settings : dict
        ``backend``, the translator's name, and what of its settings changes
        the audio.

    Raises
    ------
    InputError
        It was begun with another plan or other settings, and the message says
        what differs; or it holds what nobody knows the making of.
    """

    def __init__(self, path, plan, settings):
        self.path = Path(path)
        self.plan, self.settings = plan, settings
        # Of which every receipt must be
        self._made_of = {
            name: sha256(json.dumps(value, sort_keys=True).encode())
            for name, value in (("plan", plan), ("settings", settings))
        }
        self._check()

    @classmethod
    def of(cls, path):
        """A folder that was begun, with what it says of itself.

        Arguments
        ---------
        path : str or path-like
            The folder.

        Returns
        -------
        SynthesisFolder

        Raises
        ------
        InputError
            It was not begun, or its own file cannot be read.
        """
        told = _read_folder_file(path)
        if told is None:
            raise InputError(
                f"{path}: there is no {FOLDER_FILE}; give a folder that a "
                "synthesis wrote"
            )
        return cls(path, **told)

    def _check(self):
        """Whether it was begun; refuse it if by something else."""
        told = _read_folder_file(self.path)
        if told is None:
            # Languages, and the shards of a folder that lost its file
            others = [SHARDS, *(p.name for p in self.path.glob("[a-z]" * 3))]
            others = [name for name in others if (self.path / name).is_dir()]
            if others:
                raise InputError(
                    f"{self.path}: there is {', '.join(sorted(others))} in it, "
                    f"but no {FOLDER_FILE} that says how that was made; give "
                    "another output folder"
                )
            return False
        differences = [
            *_differences("", told["plan"], self.plan),
            *_differences("", told["settings"], self.settings),
        ]
        if differences:
            raise InputError(
                f"{self.path} was begun with something else; "
                f"{'; '.join(differences)}; give another output folder, or "
                "what it was begun with"
            )
        return True

    def begin(self):
        """Say what it holds, before something is put into it.

        Raises
        ------
        InputError
            Another run, of something else, was faster; or it cannot be
            written to.
        """
        with self.lock("folder"), writing(self.path):
            if not self._check():
                told = {"plan": self.plan, "settings": self.settings}
                write_text(self.path / FOLDER_FILE, _as_json(told))

    def rows_path(self, name):
        """Where a shard's rows are."""
        return self.path / SHARDS / f"{name}.csv"

    def receipt_path(self, name):
        """Where a shard's receipt is."""
        return self.path / SHARDS / f"{name}.json"

    def rows(self, name):
        """What became of a finished shard's utterances, by `COLUMNS`."""
        return read_table(self.rows_path(name), COLUMNS)

    def receipt(self, name):
        """A shard's receipt; None when the shard is not finished."""
        try:
            receipt = json.loads(self.receipt_path(name).read_bytes())
            expected = {
                **self._made_of,
                "shard": name,
                "rows_sha256": sha256(self.rows_path(name).read_bytes()),
            }
            if expected.items() <= receipt.items():
                return receipt
        except (OSError, ValueError, AttributeError, TypeError):
            # Not there, half of one, or somebody's: not finished in any case
            pass
        return None

    def receipts(self, names=None):
        """The receipts of finished shards.

        Arguments
        ---------
        names : iterable of str, optional
            Which to look for; all that are there by default.

        Returns
        -------
        dict
            Name to receipt, in their order.
        """
        if names is None:
            names = sorted(p.stem for p in (self.path / SHARDS).glob("*.json"))
        receipts = {name: self.receipt(name) for name in names}
        return {name: receipt for name, receipt in receipts.items() if receipt}

    def finish(self, scratch, receipt, rows):
        """Write a shard's rows, then its receipt: now it is finished.

        Arguments
        ---------
        scratch : pathlib.Path
            A folder on the same file system, for what is half written.
        receipt : dict
            With the name as ``shard``; gets what vouches for it.
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
        receipt |= self._made_of
        receipt["rows_sha256"] = sha256(data)
        (self.path / SHARDS).mkdir(exist_ok=True)
        for path, content in (
            (self.rows_path(name), data),
            (self.receipt_path(name), _as_json(receipt).encode()),
        ):
            (scratch / path.name).write_bytes(content)
            # Else a power cut may leave the name with nothing under it
            to_disk(scratch / path.name)
            os.replace(scratch / path.name, path)

    def forget(self, name):
        """Make a shard unfinished; its audio stays until it is made again."""
        with writing(self.path):
            self.receipt_path(name).unlink(missing_ok=True)

    def lock(self, name, timeout=-1):
        """Lock a name among what is being made, until its process ends.

        Arguments
        ---------
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
        """
        place = self.path / PARTIAL
        with writing(self.path):
            place.mkdir(parents=True, exist_ok=True)
        # Not a file that stands for the lock where there are none: a run that
        # is killed would leave it, and the next one wait for nobody.
        lock = FileLock(place / f"{name}.lock", fallback_to_soft=False)
        try:
            return lock.acquire(timeout=timeout)
        except Timeout:
            raise
        except OSError as error:
            if error.errno in _WITHOUT_LOCKS:
                raise InputError(
                    f"{self.path}: its file system has no locks "
                    f"({error.strerror}), without which two runs could make "
                    "the same shard at once; mount it with them (Lustre has "
                    "the option flock), or give another output folder"
                ) from None
            with writing(self.path):
                raise

    @contextlib.contextmanager
    def hold_part(self, part):
        """Keep a second run away from the same shards.

        Arguments
        ---------
        part : str
            As given: ``3/16``.

        Raises
        ------
        InputError
            There is one. A run that was killed holds nothing.
        """
        try:
            held = self.lock(f"part-{part.replace('/', '-of-')}", timeout=0)
        except Timeout:
            raise InputError(
                f"{self.path}: another run is making part {part} of it; wait "
                "for it, or give each run a part of its own (shard_index 1/2 "
                "and 2/2)"
            ) from None
        with held:
            yield

    def clear_partial(self):
        """Remove what was being made, when nothing is left to make."""
        for left in self.path.glob(f"{PARTIAL}*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def was_synthesized(path):
    """Whether a folder says what it holds, as those of a synthesis do."""
    return Path(path, FOLDER_FILE).is_file()


def _read_folder_file(folder):
    """``plan`` and ``settings``; None where there is no such file."""
    path = Path(folder, FOLDER_FILE)
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text("utf-8"))
        return {name: dict(told[name]) for name in ("plan", "settings")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error!r}); a synthesis has not written "
            "that; give another output folder"
        ) from None


def _differences(name, before, now):
    """``name: was X, is Y``, for all that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            difference
            for key in dict.fromkeys([*before, *now])
            for difference in _differences(
                f"{name}.{key}" if name else key,
                before.get(key, _ABSENT),
                now.get(key, _ABSENT),
            )
        ]
    if _shown(before) == _shown(now):
        return []
    return [f"{name} was {_shown(before)}, is {_shown(now)}"]


def _shown(value):
    if value is _ABSENT:
        return "not there"
    # As JSON gives it back: a tuple is a list
    return json.dumps(value, sort_keys=True)


def _as_json(value):
    return json.dumps(value, indent=1) + "\n"
