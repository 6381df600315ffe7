"""Records of a feature store: a tensor as bytes, in a file with a checksum.

A file is written under another name and renamed: it is there whole or not at
all, whenever its writer is killed, and nobody has to lock anything, on network
disks too. Nothing waits for the disk: what a power cut leaves of the last
files the checksum tells. It is XXH3, since CRC-32 takes several times as long
as reading, and stands over the record's name too.
"""

import math
import os
import secrets
import struct
from contextlib import suppress

import numpy as np
import torch
import xxhash

from speechbrain_mser.errors import InputError
from speechbrain_mser.finite import NOT_FINITE

DTYPES = ("float32", "float16", "bfloat16", "int8")
# To be raised when records change, so that old ones are not misread.
RECORD_VERSION = 2
CHECKSUM = struct.Struct("<I")
HEADER = struct.Struct("<III")  # layers (0: no such axis), frames, dim


class DamagedFeaturesError(Exception):
    """A record that is not what was written."""


def encode_record(features, dtype):
    """An utterance's features as bytes.

    Arguments
    ---------
    features : torch.Tensor
        ``[frames, dim]`` or ``[layers, frames, dim]``, on the CPU.
    dtype : str
        One of `DTYPES`.

    Returns
    -------
    numpy.ndarray
        Header and numbers.

    Raises
    ------
    InputError
        Values that are not finite, or too large for float16.

    Example
    -------
    >>> record = encode_record(torch.tensor([[0.5, -2.0]]), "float16")
    >>> len(record), decode_record(record, "float16").tolist()
    (16, [[0.5, -2.0]])
    """
    kept = "float32" if dtype == "int8" else dtype
    rounded = features.to(getattr(torch, kept))
    if not _is_finite(rounded):
        raise InputError(
            f"the encoder's features are too large for {kept}: set "
            "feature_dtype to bfloat16 or float32"
            if _is_finite(features)
            else NOT_FINITE
        )
    layers = 0 if features.ndim == 2 else len(features)
    header = np.frombuffer(HEADER.pack(layers, *features.shape[-2:]), np.uint8)
    parts = _quantize(rounded) if dtype == "int8" else [rounded]
    return np.concatenate([header, *map(_bytes, parts)])


def decode_record(record, dtype):
    """The features in a record, which may share its memory.

    Arguments
    ---------
    record, dtype
        From and as for `encode_record`.

    Returns
    -------
    torch.Tensor
        In that dtype; float32 for "int8".
    """
    layers, *shape = HEADER.unpack_from(record)
    shape = [layers, *shape] if layers else shape
    data = torch.from_numpy(record[HEADER.size :])
    if dtype != "int8":
        return data.view(getattr(torch, dtype)).view(shape)
    each = (*shape[:-2], 1, shape[-1])
    size = 4 * math.prod(each)
    low = data[:size].view(torch.float32).view(each)
    scale = data[size : 2 * size].view(torch.float32).view(each)
    return low + scale * data[2 * size :].view(shape)


def write_record(folder, name, record):
    """Write a record, in place of another if there is one.

    Arguments
    ---------
    folder : str or path-like
        In which "partial" and the first folder of the name are.
    name : str
        Two folders and a file.
    record : buffer
        Bytes.

    Raises
    ------
    OSError
        They cannot be written; nothing is left of them.
    """
    path = os.path.join(folder, name)
    partial = os.path.join(folder, "partial", secrets.token_hex(16))
    try:
        with open(partial, "xb") as file:
            file.write(CHECKSUM.pack(_checksum(name, record)))
            file.write(record)
        try:
            os.replace(partial, path)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkdir(os.path.dirname(path))
            os.replace(partial, path)
    except OSError:
        with suppress(OSError):
            os.remove(partial)
        raise


def read_record(folder, name):
    """Read a record.

    Arguments
    ---------
    folder, name
        As for `write_record`.

    Returns
    -------
    numpy.ndarray or None
        Bytes; None if there is no such record.

    Raises
    ------
    DamagedFeaturesError
        They are not what was written, or cannot be read from the disk.
    InputError
        They may not be read.
    """
    path = os.path.join(folder, name)
    try:
        with open(path, "rb", buffering=0) as file:
            content = np.empty(os.fstat(file.fileno()).st_size, np.uint8)
            rest = content
            # At most 2 GiB at once
            while n_read := file.readinto(rest):
                rest = rest[n_read:]
    except FileNotFoundError:
        return None
    except PermissionError:
        raise InputError(
            f"{path}: permission denied to read these features"
        ) from None
    except OSError as error:
        raise DamagedFeaturesError(f"{path}: {error.strerror}") from None
    record = content[CHECKSUM.size :]
    if len(rest) or len(content) < CHECKSUM.size:
        raise DamagedFeaturesError(f"{path}: it is cut")
    if CHECKSUM.unpack_from(content) != (_checksum(name, record),):
        raise DamagedFeaturesError(f"{path}: its checksum differs")
    return record


def _checksum(name, record):
    digest = xxhash.xxh3_64(name.encode())
    digest.update(record)
    return digest.intdigest() & 0xFFFFFFFF


def _is_finite(features):
    # Over the whole tensor: by rows, as `finite_rows` does, takes ten times as
    # long for one. A NaN is both extremes.
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
    return tensor.contiguous().view(-1).view(torch.uint8).numpy()
