"""The frozen encoder's features on disk: computed once, then read."""

import errno
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import lmdb
from speechbrain.utils.logger import get_logger

from speechbrain_mser.errors import InputError
from speechbrain_mser.features.records import (
    DTYPES,
    RECORD_VERSION,
    DamagedFeaturesError,
    decode_record,
    encode_record,
)
from speechbrain_mser.features.store_files import (
    close_file,
    count_records,
    own_file,
    reading,
    write_anew,
)
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.files.fingerprints import (
    file_digest,
    file_identity,
    settings_digest,
)

logger = get_logger(__name__)

MODES = ("off", "read", "write")


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
    >>> import torch
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

        Raises
        ------
        DamagedFeaturesError
            They are there, but not as they were written.
        """
        name = key.features
        return self._find(
            name, lambda record: decode_record(name, record, self.dtype)
        )

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
        features = features.detach().cpu()
        record = encode_record(key.features, features, self.dtype)
        if self.mode == "write":
            self._write({b"f" + key.file: key.content, key.features: record})
        return decode_record(key.features, record, self.dtype)

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
            with reading(path) as view:
                cursor = view.cursor()
                # Files' contents sort before utterances.
                found = cursor.set_range(b"u")
                count += sum(1 for _ in cursor.iternext(values=False)) * found
        return count

    def _entries(self):
        """How many records there are; known without looking at them."""
        self._look_for_shards()
        return sum(map(count_records, self._shards))

    def _describe(self, settings):
        """Make the folder, and say in it what its features are made with."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(settings, indent=2)
            write_text(self.folder / "settings.json", text + "\n")
        except OSError as error:
            raise InputError(
                f"cannot write features into {self.folder} ({error.strerror}); "
                "--feature_folder takes another folder, --features read or "
                "off writes none"
            ) from None

    def _find(self, name, read=bytes):
        """What any writer's file has under a name, or None."""
        looked_in, damaged = 0, None
        while True:
            for path in self._shards[looked_in:]:
                with reading(path) as view:
                    value = view.get(name)
                    if value is None:
                        continue
                    try:
                        return read(value)
                    except DamagedFeaturesError as error:
                        # Another writer may have made them again.
                        damaged = f"{path}: {error}"
            looked_in = len(self._shards)
            self._look_for_shards()
            if len(self._shards) > looked_in:
                continue
            if damaged is not None:
                raise DamagedFeaturesError(damaged)
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
                self._shard, self._lock = own_file(self.folder)
            elif not os.path.exists(self._shard):
                raise FileNotFoundError(errno.ENOENT, "removed", self._shard)
            write_anew(self._shard, records)
        except (InputError, lmdb.Error, OSError) as error:
            # Work goes on: a full disk is no reason to lose a training.
            self.mode = "read"
            # After a failed write LMDB may refuse to read what is there.
            close_file(self._shard)
            logger.warning(
                "%s: features can no longer be stored (%s); what is there is "
                "read, the rest encoded again in every epoch",
                self.folder,
                error,
            )

    def __getstate__(self):
        # For workers that are spawned: they read, and open files themselves.
        return {**self.__dict__, "_shard": None, "_lock": None, "mode": "read"}
