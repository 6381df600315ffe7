"""A model's weights on disk: which files, whether whole, and whose."""

import json
import os
import struct
from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.fingerprints import new_digest
from speechbrain_mser.files.tables import read_json
from speechbrain_mser.models.registry import how_to_mend

_NAME = "model.safetensors"
_SUFFIX = ".safetensors"
# Dtypes, as files call them
IN_FILES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
# What is read of each tensor, a digest's whole cost: so many blocks, evenly
# spaced, the first and the last among them.
BLOCK_BYTES = 4096
BLOCKS = 32


def weight_files(folder):
    """The files from which transformers loads a folder's weights.

    Arguments
    ---------
    folder : pathlib.Path
        Any.

    Returns
    -------
    list of pathlib.Path
        One, or all shards that an index names, whether there or not; empty
        where there are no weights.

    Example
    -------
    >>> from pathlib import Path
    >>> weight_files(Path("/no/such/folder"))
    []
    """
    if (folder / _NAME).is_file():
        return [folder / _NAME]
    index = folder / f"{_NAME}.index.json"
    if not index.is_file():
        return []
    try:
        shards = sorted(set(read_json(index)["weight_map"].values()))
        for shard in shards:
            if not shard.endswith(_SUFFIX) or Path(shard).name != shard:
                raise InputError(
                    f"{index} names {shard!r}, not a safetensors file beside it"
                )
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{index}: not an index of weights") from None
    return [folder / shard for shard in shards]


def check_weights(folder, what):
    """Refuse a folder without weights, or with a file that is cut short.

    Arguments
    ---------
    folder : pathlib.Path
        That of a model.
    what : str
        The model and its setting, for the message.

    Raises
    ------
    InputError
        What is missing or broken.
    """
    paths = weight_files(folder)
    if not paths:
        raise InputError(
            f"{what}: the folder {folder} has no weights ({_NAME}); pickles "
            "(.bin, .pt, .ckpt) can run code and are not loaded: save the "
            "model with a current transformers' save_pretrained"
        )
    for path in paths:
        if not path.is_file():
            raise InputError(f"{what}: the folder {folder} has no {path.name}")
        try:
            # Reads the header, which knows how long the file must be.
            safe_open(path, framework="pt")
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{what}: {path} is broken ({error})"
                f"{how_to_mend(folder) or '; fetch it again'}"
            ) from None


def model_digest(folder, rename=lambda name: name):
    """Whose weights a folder holds: the same for the same, wherever they lie.

    Covers every tensor's name, dtype and shape, all of it up to 128 KiB, and
    of larger ones 32 blocks of 4 KiB at even distances, the first and the last
    bytes among them. Another model, fine-tuning, merged adapters, another
    dtype or quantisation of the files all show; a few numbers that were
    changed by hand inside one large tensor may not. The configuration and the
    tokenizer are not covered. Neither the folder's name nor how the tensors
    are dealt to files matters, nor the dtype that they are loaded in.

    Arguments
    ---------
    folder : path-like
        That of a model.
    rename : callable
        A tensor's name in the files to its name in the digest, or None for
        those that are not used.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    digests = {}
    for path in weight_files(Path(folder)):
        for name, described, size, block in _tensors(path):
            renamed = rename(name)
            if renamed is not None:
                digests[renamed] = _tensor_digest(described, size, block)
    whole = new_digest()
    for name, digest in sorted(digests.items()):
        whole.update(f"{name}\0".encode() + digest)
    return whole.hexdigest()


def _tensor_digest(described, size, block):
    digest = new_digest(described.encode())
    if size <= BLOCK_BYTES * BLOCKS:
        digest.update(block(0, size))
    else:
        last = size - BLOCK_BYTES
        for i in range(BLOCKS):
            digest.update(block(i * last // (BLOCKS - 1), BLOCK_BYTES))
    return digest.digest()


def _tensors(path):
    """Name, dtype and shape, size, and a reader of each tensor's bytes."""
    # By hand: a mapped file is read ahead, thirty times what is wanted.
    with open(path, "rb", buffering=0) as file:
        _expect_jumps(file)
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            described = f"{entry['dtype']} {entry['shape']}"
            block = partial(_read, file, 8 + length + first)
            yield name, described, last - first, block


def _read(file, base, start, size):
    file.seek(base + start)
    return file.read(size)


def _expect_jumps(file):
    """Tell the kernel to read no more than it is asked for, if it listens."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
