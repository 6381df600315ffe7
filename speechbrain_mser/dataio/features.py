"""The frozen encoder's features on disk: computed once, then read.

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

HDF5 (SpeechBrain's cache) allows a single writer and no reader beside it, and
a kill can leave the whole file unreadable. Arrow's file has its index at the
end, so a kill loses all of it; a file for each utterance is a million files.
LMDB's transactions survive a kill at any moment, any number of processes
read while one writes, and opening a million utterances costs nothing.

An LMDB file wants a single machine's writers, and cluster file systems know
no locks to rely on: every writer has a file of its own here, and readers look
into all of them.
"""

import errno
import json
import math
import os
import shutil
import socket
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

import lmdb
import numpy as np
import torch
from filelock import FileLock, Timeout
from speechbrain.utils.logger import get_logger

from speechbrain_mser.atomic import atomic_path
from speechbrain_mser.errors import InputError
from speechbrain_mser.fingerprints import (
    file_digest,
    file_identity,
    settings_digest,
)

logger = get_logger(__name__)

MODES = ("off", "read", "write")
DTYPES = ("float32", "float16", "bfloat16", "int8")
# To be raised when records change, so that old ones are not misread.
RECORD_VERSION = 1
# Address space, not disk: LMDB files grow as they are filled.
MAP_SIZE = 1 << 40
MAX_READERS = 1024
MIN_FREE = 1 << 20
UNWRITTEN_PAGES = 16
# Of 128 TiB that a process can address; more files are opened in turn.
MAX_OPEN = 100
HEADER = struct.Struct("<III")  # layers (0: no such axis), frames, dim


@dataclass(frozen=True)
class UtteranceKey:
    """Under which name an utterance's features are stored.

    Arguments
    ---------
    features : bytes
        Digest of the audio's content, and of the part of it.
    file : bytes
        Identity of the audio file.
    content : bytes
        Digest of its content.
    known : bool
        Whether the store has the file's content already.
    """

    features: bytes
    file: bytes
    content: bytes
    known: bool


class FeatureStore:
    """Features of utterances on disk, found by what made them.

    A feature's name is a digest of the audio file's content, the part of it
    that is the utterance, and all settings: another encoder, layer, padding,
    dtype or resampler is another name, so what is found is never stale. Files
    are read for their digest once; afterwards path, size and times tell.

    Every process may read, in DataLoader's workers too. Every process that
    writes does so in its own file, each utterance in a transaction: one that
    is killed loses what it had not encoded yet. Processes on other machines
    may write into the same folder; what they write is sure to be seen when
    the folder is opened the next time.

    Arguments
    ---------
    folder : str or path-like
        Where stores live; each set of settings has a folder in it.
    settings : dict
        All that decides what the encoder makes of an audio file, as plain
        values.
    mode : str
        "write" reads and writes, "read" only reads.
    dtype : str
        "float32" keeps what the encoder says, "float16" and "bfloat16" half
        of its bits, "int8" a quarter (each layer and dimension scaled to the
        range that it has in the utterance).

    Example
    -------
    >>> folder, wav = getfixture("tmp_path"), __file__
    >>> store = FeatureStore(folder, {"layers": -1}, dtype="float32")
    >>> key = store.key(wav)
    >>> store.get(key) is None
    True
    >>> features = torch.randn(50, 8)
    >>> _ = store.put(key, features)
    >>> torch.equal(store.get(key), features)
    True
    >>> other = FeatureStore(folder, {"layers": [0, 1]}, dtype="float32")
    >>> other.get(other.key(wav)) is None
    True
    """

    def __init__(self, folder, settings, mode="write", dtype="float16"):
        if mode not in MODES[1:]:
            raise InputError(
                f"features is {mode!r}, expected one of {', '.join(MODES)}"
            )
        if dtype not in DTYPES:
            raise InputError(
                f"feature_dtype is {dtype!r}, expected one of "
                f"{', '.join(DTYPES)}"
            )
        self.mode = mode
        self.dtype = dtype
        settings = {**settings, "dtype": dtype, "version": RECORD_VERSION}
        self.folder = Path(folder).resolve() / settings_digest(settings)
        self._contents = {}
        self._shard = None
        self._shards = []
        if mode == "write":
            self._describe(settings)
        # All of them now: a damaged file is said here, not by a worker.
        if self._entries() == 0 and mode == "read":
            raise InputError(
                f"{folder} has no features made with these settings (encoder "
                f"weights, layers, padding, dtype; here {dtype}); --features "
                "write makes them"
            )

    def key(self, wav, start=float("nan"), stop=float("nan")):
        """An utterance's name in the store.

        Arguments
        ---------
        wav : str or path-like
            The audio file.
        start : float
            Where the utterance begins, in seconds; NaN for the beginning.
        stop : float
            Where it ends; NaN for the end.

        Returns
        -------
        UtteranceKey
            For `get` and `put`.

        Raises
        ------
        OSError
            The file cannot be read.
        """
        file = file_identity(wav)
        content = self._find(b"f" + file)
        known = content is not None
        if not known:
            # A whole video's WAV holds a hundred utterances.
            if file not in self._contents:
                self._contents[file] = file_digest(wav)
            content = self._contents[file]
        part = struct.pack("<dd", start, stop)
        return UtteranceKey(b"u" + content + part, file, content, known)

    def get(self, key):
        """An utterance's features.

        Arguments
        ---------
        key : UtteranceKey
            From `key`.

        Returns
        -------
        torch.Tensor or None
            ``[frames, dim]`` or ``[layers, frames, dim]``, in the store's
            dtype (float32 for "int8"); None if they are not there.
        """
        return self._find(key.features, self._decode)

    def put(self, key, features):
        """Store an utterance's features, and say what `get` will return.

        Arguments
        ---------
        key : UtteranceKey
            From `key`.
        features : torch.Tensor
            ``[frames, dim]`` or ``[layers, frames, dim]``, on any device.

        Returns
        -------
        torch.Tensor
            The same rounded to the store's dtype, on the CPU, so that it
            does not matter whether an utterance was stored before.

        Raises
        ------
        InputError
            Values that are not finite, or too large for float16.
        """
        record = self._encode(features.detach().cpu())
        if self.mode == "write":
            self._write(
                {b"f" + key.file: key.content, key.features: bytes(record)}
            )
        return self._decode(record)

    def remember(self, key):
        """Store that a file has the content it has, to read it only once.

        Arguments
        ---------
        key : UtteranceKey
            Of features that were found under another file's name.
        """
        if self.mode == "write":
            self._write({b"f" + key.file: key.content})

    def __len__(self):
        """How many utterances there are."""
        self._look_for_shards()
        count = 0
        for path in self._shards:
            with _opened, _environment(path).begin() as view:
                cursor = view.cursor()
                # Files' contents sort before utterances.
                found = cursor.set_range(b"u")
                count += sum(1 for _ in cursor.iternext(values=False)) * found
        return count

    def _entries(self):
        """How many records there are; known without looking at them."""
        self._look_for_shards()
        with _opened:
            return sum(
                _environment(path).stat()["entries"] for path in self._shards
            )

    # Records

    def _encode(self, features):
        """Header and numbers of an utterance, as bytes."""
        dtype = "float32" if self.dtype == "int8" else self.dtype
        rounded = features.to(getattr(torch, dtype))
        if not _is_finite(rounded):
            raise InputError(
                f"the encoder's features are too large for {dtype}: set "
                "feature_dtype to bfloat16 or float32"
                if _is_finite(features)
                else "the encoder's features are not finite; an encoder in "
                "float16 may need frozen_dtype bfloat16 or float32"
            )
        shape = features.shape
        layers = 0 if features.ndim == 2 else shape[0]
        header = HEADER.pack(layers, *shape[-2:])
        parts = _quantize(rounded) if self.dtype == "int8" else [rounded]
        return b"".join([header, *map(_bytes, parts)])

    def _decode(self, record):
        """The tensor in a record."""
        layers, *shape = HEADER.unpack_from(record)
        shape = [layers, *shape] if layers else shape
        # One copy: what is read must outlive the transaction.
        data = np.frombuffer(record, np.uint8, offset=HEADER.size).copy()
        data = torch.from_numpy(data)
        if self.dtype != "int8":
            return data.view(getattr(torch, self.dtype)).view(shape)
        each = (*shape[:-2], 1, shape[-1])
        size = 4 * int(np.prod(each))
        low = data[:size].view(torch.float32).view(each)
        scale = data[size : 2 * size].view(torch.float32).view(each)
        return low + scale * data[2 * size :].view(shape)

    # Files

    def _describe(self, settings):
        """Make the folder, and say in it what its features are made with."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.folder / "settings.json") as partial:
                partial.write_text(json.dumps(settings, indent=2) + "\n")
        except OSError as error:
            raise InputError(
                f"cannot write features into {self.folder} ({error.strerror}); "
                "--feature_folder takes another folder, --features read or "
                "off writes none"
            ) from None

    def _find(self, name, read=bytes):
        """What any writer's file has under a name, or None."""
        looked_in = 0
        while True:
            for path in self._shards[looked_in:]:
                with _opened, _environment(path).begin(buffers=True) as view:
                    value = view.get(name)
                    if value is not None:
                        return read(value)
            looked_in = len(self._shards)
            self._look_for_shards()
            if len(self._shards) == looked_in:
                return None

    def _look_for_shards(self):
        """Add the files that other writers began since the last look."""
        found = {str(path) for path in self.folder.glob("*.lmdb")}
        new = sorted(found.difference(self._shards))
        # A file without a byte is being made at this moment.
        self._shards += [path for path in new if os.path.getsize(path)]

    def _write(self, records):
        """Commit records to the own shard, or go on without writing."""
        try:
            if self._shard is None:
                self._shard, self._lock = _own_shard(self.folder)
            elif not os.path.exists(self._shard):
                raise FileNotFoundError(errno.ENOENT, "removed", self._shard)
            with _opened:
                _write_anew(self._shard, records)
        except (InputError, lmdb.Error, OSError) as error:
            # Work goes on: a full disk is no reason to lose a training.
            self.mode = "read"
            # After a failed write LMDB may refuse to read what is there.
            _close(self._shard)
            logger.warning(
                "%s: features can no longer be stored (%s); what is there is "
                "read, the rest encoded again in every epoch",
                self.folder,
                error,
            )

    def __getstate__(self):
        # For workers that are spawned: they read, and open files themselves.
        return {**self.__dict__, "_shard": None, "_lock": None, "mode": "read"}


def _own_shard(folder):
    """A file that no other process writes, and the lock that keeps it so.

    The lock falls when its process ends, however it ends; the next one goes
    on with the same file.
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
            _close(str(path))
        return str(path), lock
    raise OSError(f"more than {MAX_READERS} processes write into {folder}")


# LMDB must not open a file twice in a process, and a forked process must not
# use what its parent opened: one table for all stores, emptied at each fork.
_environments = {}
# What each written file held when it was opened: a view that is kept open.
_views = {}
# Held while they are used: closing one under a thread that reads it would end
# the process.
_opened = threading.RLock()


def _environment(path):
    """A writer's file, opened in this process."""
    if path not in _environments:
        folder = os.path.dirname(path)
        writable = os.access(folder, os.W_OK) and (
            not os.path.exists(path) or os.access(path, os.W_OK)
        )
        if len(_environments) >= MAX_OPEN:
            _close(next(iter(_environments)))
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
            raise InputError(
                f"{path}: cannot be opened as features ({error}); it was "
                "copied in part or damaged: remove it, and they will be made "
                "again"
            ) from None
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


def _check_whole(path, environment):
    """Refuse a file that ends too early: reading it would end the process."""
    # A transaction may end with pages that it had no use for.
    pages = environment.info()["last_pgno"] + 1 - UNWRITTEN_PAGES
    expected = pages * environment.stat()["psize"]
    found = os.path.getsize(path)
    if found < expected:
        environment.close()
        raise lmdb.CorruptedError(f"{found} bytes of at least {expected}")


def _write_anew(path, records):
    """Commit records, to pages that nobody may be reading.

    A reader who may not write into the folder cannot say that it reads, and
    LMDB would use pages again that it still looks at. What is seen by an open
    view stays: a few pages for each utterance, free again in the next run.
    """
    environment = _environment(path)
    if path not in _views:
        _views[path] = environment.begin()
    with environment.begin(write=True) as change:
        for name, value in records.items():
            change.put(name, value)


def _close(path):
    with _opened:
        if path in _environments:
            _views.pop(path, None)
            _environments.pop(path).close()


def _before_fork():
    _opened.acquire()
    for path in list(_environments):
        _close(path)


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_opened.release,
    after_in_child=_opened.release,
)


def _is_finite(features):
    # A NaN is both extremes; isfinite() takes ten times as long.
    extremes = features.float().aminmax()
    return all(math.isfinite(extreme) for extreme in extremes)


def _quantize(features):
    """Features as 256 steps between each dimension's extremes.

    Some of Whisper's dimensions are a hundred times larger than others and
    nearly constant: a scale for all of them, or one around zero, would leave
    nothing of what varies.
    """
    low = features.amin(-2, keepdim=True)
    scale = (features.amax(-2, keepdim=True) - low) / 255
    steps = (features - low) / scale.clamp(min=1e-30)
    return low, scale, steps.round().to(torch.uint8)


def _bytes(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
