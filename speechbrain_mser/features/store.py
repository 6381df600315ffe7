"""The frozen encoder's features on disk: computed once, then read."""

import json
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from speechbrain.utils.logger import get_logger

from speechbrain_mser.errors import InputError
from speechbrain_mser.features.records import (
    DTYPES,
    RECORD_VERSION,
    DamagedFeaturesError,
    decode_record,
    encode_record,
    read_record,
    write_record,
)
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.files.fingerprints import (
    file_digest,
    file_identity,
    settings_digest,
)

logger = get_logger(__name__)

MODES = ("off", "read", "write")
# Seconds after which an unfinished file was left by a writer that was killed.
_ABANDONED = 86400


@dataclass(frozen=True)
class UtteranceKey:
    """Under which name an utterance's features are stored.

    Arguments
    ---------
    features : str
        Of the audio's content, and of the part of it.
    file : bytes
        Identity of the audio file.
    content : bytes
        Digest of its content.
    known : bool
        Whether the store has the file's content already.
    """

    features: str
    file: bytes
    content: bytes
    known: bool


class FeatureStore:
    """Features of utterances on disk, found by what made them.

    A feature's name is a digest of the audio file's content, the part of it
    that is the utterance, and all settings: another encoder, layer, padding,
    dtype or resampler is another name, so what is found is never stale. Files
    are read for their digest once; afterwards path, size and times tell.

    Every utterance is a file, and every audio file has one that says what its
    content is: the file system is the index. Any number of processes read and
    write, on other machines too; one that is killed loses what it had not
    encoded yet.

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
    >>> store = FeatureStore(getfixture("tmp_path"), {"layers": -1})
    >>> key = store.key(__file__)
    >>> store.get(key) is None
    True
    >>> features = store.put(key, torch.randn(50, 8))
    >>> torch.equal(store.get(key), features)
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
        self.folder = _place(folder, settings)
        # Digests of files whose content is not stored yet
        self._contents = {}
        if any(Path(folder).glob("*/*.lmdb")):
            logger.warning(
                "%s: features of an earlier version (*.lmdb) are not read but "
                "made anew; their folders may be removed",
                folder,
            )
        if not _holds_any(self.folder):
            self._say_what_is_there(folder, settings)
        if mode == "write":
            self._make(settings)

    def _say_what_is_there(self, folder, settings):
        """Where there is nothing of this dtype: refused, if it is to be read.

        That another dtype would have been found is said in any case: encoding
        again takes long, and changes the last digits of what comes out.
        """
        others = [
            name
            for name in DTYPES
            if _holds_any(_place(folder, {**settings, "dtype": name}))
        ]
        there = f"; there are such in {' and '.join(others)}" if others else ""
        if self.mode == "read":
            raise InputError(
                f"{folder} has no features made with these settings (encoder "
                f"weights, layers, padding, dtype; here {self.dtype}{there}); "
                "set features to write to make them"
            )
        if others:
            logger.warning(
                "%s has no features in %s made with these settings%s "
                "(feature_dtype): they are made anew",
                folder,
                self.dtype,
                there,
            )

    def key(self, wav, start=float("nan"), stop=float("nan"), microphone=None):
        """An utterance's name in the store.

        Arguments
        ---------
        wav : str or path-like
            The audio file.
        start : float
            Where the utterance begins, in seconds; NaN for the beginning.
        stop : float
            Where it ends; NaN for the end.
        microphone : callable, optional
            What the encoder hears it through, with ``settings()``.

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
        record = None
        # A damaged one is written again.
        with suppress(DamagedFeaturesError):
            record = read_record(self.folder, _name("audio", file))
        if record is not None:
            content = record.tobytes()
        elif file in self._contents:
            # A whole video's WAV holds a hundred utterances.
            content = self._contents[file]
        else:
            content = self._contents[file] = file_digest(wav)
        part = struct.pack("<dd", start, stop)
        if microphone is not None:
            part += settings_digest(microphone.settings()).encode()
        name = _name("utterances", content + part)
        return UtteranceKey(name, file, content, record is not None)

    def get(self, key):
        """An utterance's features.

        Of copied or moved audio, which is recognised by its content, the
        store remembers that, so that it is read only once.

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
        InputError
            They may not be read.
        """
        record = read_record(self.folder, key.features)
        if record is None:
            return None
        self._remember(key)
        return decode_record(record, self.dtype)

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
        record = encode_record(features.detach().cpu(), self.dtype)
        self._write(key.features, record)
        self._remember(key)
        return decode_record(record, self.dtype)

    def _remember(self, key):
        """Store the content that a file has."""
        if not key.known:
            self._write(_name("audio", key.file), key.content)

    def _make(self, settings):
        """Make the folder, and say in it what its features are made with."""
        try:
            for name in ("utterances", "audio", "partial"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            text = json.dumps(settings, indent=2) + "\n"
            write_text(self.folder / "settings.json", text)
        except OSError as error:
            raise InputError(
                f"cannot write features into {self.folder} ({error.strerror}): "
                "set feature_folder to another folder, or features to read or "
                "off"
            ) from None
        for path in (self.folder / "partial").iterdir():
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink()

    def _write(self, name, record):
        """Write a record, or go on without writing."""
        if self.mode != "write":
            return
        try:
            write_record(self.folder, name, record)
        except OSError as error:
            # Work goes on: a full disk is no reason to lose a training.
            self.mode = "read"
            logger.warning(
                "%s: features can no longer be stored (%s); what is there is "
                "read, the rest encoded again in every epoch",
                self.folder,
                error.strerror,
            )


def _place(folder, settings):
    return Path(folder).resolve() / settings_digest(settings)


def _holds_any(place):
    return any(place.glob("utterances/*/*"))


def _name(kind, digest):
    """Of a record, in one of 256 folders: none is to hold all files."""
    digits = digest.hex()
    return f"{kind}/{digits[:2]}/{digits[2:]}"
