"""How one shard is made: read, translate, write, and only then say so.

Sources are read and results encoded in threads while the translator works.
Audio is written under ``.partial`` and moved into place when all of the shard
is there; then its rows, then its receipt. Killed in between, the shard has no
receipt and is made again, over what was moved already.
"""

import errno
import os
import shutil
import socket
import tempfile
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import to_disk
from speechbrain_mser.files.fingerprints import sha256
from speechbrain_mser.synthesis.backend import Translation
from speechbrain_mser.synthesis.flac import encode_flac, why_unusable
from speechbrain_mser.synthesis.folder import (
    COLUMNS,
    PARTIAL,
    writing,
)
from speechbrain_mser.synthesis.sources import make_batches, read_ahead

# Batches that wait to be written: bounds the memory.
_AHEAD = 2
# A translator's files may lie on another disk than ours.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# Threads that write: most of it is waiting for the disk.
WRITERS = 4
# Kinds of errors in the rows; what was too long stays so however often it is
# tried, and is counted apart.
TOO_LONG = "too long"
UNREADABLE = "unreadable"
UNTRANSLATED = "not translated"


class Task(NamedTuple):
    """An utterance to translate, as the plan knows it."""

    ID: str
    corpus: str
    # A path that can be opened here
    wav: str
    # Seconds; NaN as in a manifest
    start: float
    stop: float
    duration: float
    text: str
    emotion: str
    speaker: str


class Shard(NamedTuple):
    """What is made together: some minutes of speech, into one language."""

    name: str
    language: str
    tasks: list


class Outcome(NamedTuple):
    """What became of a shard."""

    # Its name
    shard: str
    # None when it could not be made
    receipt: dict | None
    # Why not; else empty
    error: str


class ShardWork:
    """Makes shards, one after the other, in whatever process it is sent to.

    Light to send: the translator is made and opened where it is used, and the
    plan stays at home; each shard brings its tasks.

    Arguments
    ---------
    make_backend : callable
        Makes a `Backend`, without arguments; must be picklable.
    folder : SynthesisFolder
        Where they go; it is begun when the first shard is there.
    batch_size : int
        Utterances that are translated together, at most.
    batch_seconds : float
        Their seconds, at most, all counted as the longest of them; a longer
        utterance is alone.
    """

    def __init__(
        self, make_backend, folder, batch_size=16, batch_seconds=160.0
    ):
        if batch_size < 1 or not batch_seconds > 0:
            raise InputError(
                f"batch_size is {batch_size} and batch_seconds is "
                f"{batch_seconds}; at least 1 utterance and more than 0 s "
                "must fit into a batch"
            )
        self.make_backend = make_backend
        self.folder = folder
        self.batch_size = batch_size
        self.batch_seconds = batch_seconds
        self._backend = None
        self._versions = {}

    def __getstate__(self):
        # A translator that is open here cannot be used elsewhere.
        return {**self.__dict__, "_backend": None, "_versions": {}}

    def open(self):
        """Make and load the translator; done by the first `make`.

        Raises
        ------
        InputError
            As `Backend.open`.
        """
        if self._backend is None:
            backend = self.make_backend()
            try:
                self._versions = dict(backend.open() or {})
            except BaseException:
                backend.close()
                raise
            self._backend = backend

    def close(self):
        """Let go of the translator; harmless when repeated."""
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()

    def make(self, shard):
        """Make a shard, unless it is finished.

        Arguments
        ---------
        shard : Shard
            Which one.

        Returns
        -------
        dict
            Its receipt.

        Raises
        ------
        InputError
            Nothing can be made, or nothing be written.
        Exception
            Whatever the translator raised on every utterance.
        """
        # An orphan of a killed run may still be dying over it
        with self.folder.lock(shard.name):
            receipt = self.folder.receipt(shard.name)
            if receipt:
                return receipt
            started = time.time()
            self.open()
            check_languages(self._name, self._backend, [shard.language])
            partial = self._partial(shard.name)
            try:
                rows = self._make_rows(shard, partial)
                self.folder.begin()
                with writing(self.folder.path):
                    return self._finish(shard, rows, partial, started)
            finally:
                shutil.rmtree(partial, ignore_errors=True)

    @property
    def _name(self):
        return self.folder.settings["backend"]

    def _partial(self, name):
        """An empty folder; what such an orphan left is removed."""
        place = self.folder.path / PARTIAL
        with writing(self.folder.path):
            for left in place.glob(f"{name}-*"):
                shutil.rmtree(left, ignore_errors=True)
            return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=place))

    def _make_rows(self, shard, partial):
        """Translate all; the audio is in ``partial``, by number."""
        self._backend.begin_shard(shard.name)
        rows = [_row(task, shard.language) for task in shard.tasks]
        for task, row in zip(shard.tasks, rows, strict=True):
            row["error"] = self._too_long(task.duration)
        numbers = [k for k, row in enumerate(rows) if not row["error"]]
        batches = make_batches(
            [shard.tasks[k].duration for k in numbers],
            self.batch_size,
            self.batch_seconds,
        )
        batches = [[numbers[k] for k in batch] for batch in batches]
        raised, writes = [], deque()
        with (
            ThreadPoolExecutor(1) as reader,
            ThreadPoolExecutor(WRITERS) as writer,
        ):
            for batch, sources in read_ahead(reader, batches, shard.tasks):
                good = self._set_aside([rows[k] for k in batch], sources)
                translations = self._translate(good, shard.language, raised)
                places = [
                    (rows[k], partial / str(k))
                    for k in batch
                    if not rows[k]["error"]
                ]
                writes.append(
                    [
                        writer.submit(self._store, row, path, translation)
                        for (row, path), translation in zip(
                            places, translations, strict=True
                        )
                    ]
                )
                if len(writes) > _AHEAD:
                    _wait(writes.popleft())
            for waiting in writes:
                _wait(waiting)
        if raised and not any(row["audio"] for row in rows):
            # Not some utterances' fault: a broken translator or setting
            raise raised[-1]
        return rows

    def _too_long(self, seconds):
        longest = self._backend.max_seconds
        if longest is None or seconds <= longest:
            return ""
        return f"{TOO_LONG}: {seconds:.2f} s, {self._name} takes {longest:g} s"

    def _set_aside(self, rows, sources):
        """The sources that can be translated; the others' rows say why not."""
        good = []
        for row, source in zip(rows, sources, strict=True):
            if isinstance(source, str):
                row["error"] = f"{UNREADABLE}: {source}"
                continue
            # A manifest may be wrong about it
            row["error"] = self._too_long(len(source.samples) / SAMPLE_RATE)
            if not row["error"]:
                good.append(source)
        return good

    def _translate(self, sources, language, raised):
        """Translations; what the translator raised is collected."""
        if not sources:
            return []
        try:
            translations = self._backend.translate(sources, language)
            if len(translations) != len(sources):
                raise RuntimeError(
                    f"{self._name} gave {len(translations)} translations of "
                    f"{len(sources)} utterances"
                )
            return translations
        except InputError:
            raise
        except Exception as error:
            if getattr(error, "errno", None) in _FULL:
                raise InputError(
                    f"{self._name} has no space for its own files "
                    f"({error}); free some (TMPDIR names another place) and "
                    "run this again"
                ) from None
            if len(sources) == 1:
                raised.append(error)
                reason = f"{type(error).__name__}: {error}"
                return [Translation(error=reason)]
        # Together they may just have been too much for the memory.
        return [
            self._translate([source], language, raised)[0] for source in sources
        ]

    def _store(self, row, path, translation):
        """Encode and write; runs in a thread."""
        row["text"] = translation.text
        reason = translation.error or why_unusable(translation)
        if reason:
            row["error"] = f"{UNTRANSLATED}: {reason}"
            return
        samples, rate = translation.samples, translation.sample_rate
        flac, clipped = encode_flac(samples, rate)
        with writing(self.folder.path):
            path.write_bytes(flac)
            to_disk(path)
        row |= {
            "audio": audio_path(row["language"], row["corpus"], row["ID"]),
            "seconds": round(len(samples) / rate, 6),
            "sample_rate": rate,
            "sha256": sha256(flac),
            "clipped": clipped,
        }

    def _finish(self, shard, rows, partial, started):
        """Move the audio into place, write rows and receipt."""
        # From here on what an earlier receipt says is no longer true.
        self.folder.receipt_path(shard.name).unlink(missing_ok=True)
        size, folders = 0, set()
        for number, row in enumerate(rows):
            target = self.folder.path / audio_path(
                row["language"], row["corpus"], row["ID"]
            )
            if row["error"]:
                target.unlink(missing_ok=True)
                continue
            if target.parent not in folders:
                target.parent.mkdir(parents=True, exist_ok=True)
                folders.add(target.parent)
            made = partial / str(number)
            size += made.stat().st_size
            os.replace(made, target)
        errors = Counter(
            row["error"].split(":")[0] for row in rows if row["error"]
        )
        too_long = errors.get(TOO_LONG, 0)
        receipt = {
            "shard": shard.name,
            "language": shard.language,
            "backend": self._name,
            "versions": self._versions,
            "planned": len(rows),
            "made": len(rows) - errors.total(),
            "failed": errors.total() - too_long,
            "too_long": too_long,
            "errors": dict(sorted(errors.items())),
            "source_seconds": round(
                sum(task.duration for task in shard.tasks), 3
            ),
            "seconds": round(sum(row["seconds"] or 0 for row in rows), 3),
            "bytes": size,
            "host": socket.gethostname(),
            "wall_seconds": round(time.time() - started, 3),
            "finished_at": round(time.time(), 3),
        }
        self.folder.finish(partial, receipt, rows)
        return receipt


def _wait(writes):
    for write in writes:
        write.result()


def _row(task, language):
    """What is known of a task before anything is done."""
    known = {"ID": task.ID, "language": language, "corpus": task.corpus}
    return {**dict.fromkeys(COLUMNS, ""), **known}


def check_languages(name, backend, languages):
    """Refuse languages that a translator does not speak.

    Arguments
    ---------
    name : str
        The translator's.
    backend : Backend
        It; one that names no languages before it is opened passes here.
    languages : list of str
        The targets.

    Raises
    ------
    InputError
        Names them.
    """
    lacking = [code for code in languages if code not in backend.languages]
    if backend.languages and lacking:
        raise InputError(
            f"{name} does not speak {', '.join(lacking)}; it speaks "
            f"{', '.join(sorted(backend.languages))}: give other languages or "
            "another backend"
        )


def audio_path(language, corpus, name):
    """Where a translation lies in the output folder.

    Arguments
    ---------
    language, corpus, name : str
        The target's, the source's, and the source's ID.

    Returns
    -------
    str

    Example
    -------
    >>> audio_path("fra", "meld", "meld_train_dia0_utt0")
    'fra/meld/meld_train_dia0_utt0.flac'
    """
    return f"{language}/{corpus}/{name}.flac"
