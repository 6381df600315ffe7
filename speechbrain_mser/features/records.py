"""What is stored of an utterance: its features' shape and numbers, as bytes.

A checksum stands at the end, over the record's name too: XXH3, since CRC-32
takes several times as long as reading the record. Records of earlier versions
have none and are taken as they are.
"""

import math
import struct

import numpy as np
import torch
import xxhash

from speechbrain_mser.errors import InputError

DTYPES = ("float32", "float16", "bfloat16", "int8")
# To be raised when records change, so that old ones are not misread.
RECORD_VERSION = 1
HEADER = struct.Struct("<III")  # layers (0: no such axis), frames, dim
CHECKSUM = struct.Struct("<I")


class DamagedFeaturesError(Exception):
    """A record that is not what was written."""


def encode_record(name, features, dtype):
    """Header, numbers and checksum of an utterance.

    Arguments
    ---------
    name : bytes
        Under which the record is stored.
    features : torch.Tensor
        ``[frames, dim]`` or ``[layers, frames, dim]``, on the CPU.
    dtype : str
        One of `DTYPES`.

    Returns
    -------
    bytes
        The record.

    Raises
    ------
    InputError
        Values that are not finite, or too large for float16.

    Example
    -------
    >>> record = encode_record(b"a", torch.tensor([[0.5, -2.0]]), "float16")
    >>> len(record), decode_record(b"a", record, "float16").tolist()
    (20, [[0.5, -2.0]])
    """
    kept = "float32" if dtype == "int8" else dtype
    rounded = features.to(getattr(torch, kept))
    if not _is_finite(rounded):
        raise InputError(
            f"the encoder's features are too large for {kept}: set "
            "feature_dtype to bfloat16 or float32"
            if _is_finite(features)
            else "the encoder's features are not finite; an encoder in "
            "float16 may need frozen_dtype bfloat16 or float32"
        )
    shape = features.shape
    layers = 0 if features.ndim == 2 else shape[0]
    header = HEADER.pack(layers, *shape[-2:])
    parts = _quantize(rounded) if dtype == "int8" else [rounded]
    record = b"".join([header, *map(_bytes, parts)])
    return record + CHECKSUM.pack(_checksum(name, record))


def decode_record(name, record, dtype):
    """The tensor in a record.

    Arguments
    ---------
    name : bytes
        Under which it was found.
    record : bytes or buffer
        From `encode_record`; a buffer may go away afterwards.
    dtype : str
        The same as then.

    Returns
    -------
    torch.Tensor
        ``[frames, dim]`` or ``[layers, frames, dim]``, in that dtype (float32
        for "int8").

    Raises
    ------
    DamagedFeaturesError
        It is not what was written.
    """
    if len(record) < HEADER.size:
        raise DamagedFeaturesError("the record is cut")
    layers, *shape = HEADER.unpack_from(record)
    shape = [layers, *shape] if layers else shape
    size = HEADER.size + _n_bytes(shape, dtype)
    # Before the numbers are looked at: in a damaged file a record may seem to
    # be longer than the file.
    if len(record) not in (size, size + CHECKSUM.size):
        raise DamagedFeaturesError("its length is not that of its shape")
    # One copy: what is read must outlive the transaction.
    n_bytes = size - HEADER.size
    data = np.frombuffer(record, np.uint8, n_bytes, HEADER.size).copy()
    if len(record) > size:
        (expected,) = CHECKSUM.unpack_from(record, size)
        if _checksum(name, record[: HEADER.size], data) != expected:
            raise DamagedFeaturesError("its checksum differs")
    data = torch.from_numpy(data)
    if dtype != "int8":
        return data.view(getattr(torch, dtype)).view(shape)
    each = (*shape[:-2], 1, shape[-1])
    size = 4 * int(np.prod(each))
    low = data[:size].view(torch.float32).view(each)
    scale = data[size : 2 * size].view(torch.float32).view(each)
    return low + scale * data[2 * size :].view(shape)


def _n_bytes(shape, dtype):
    """How many a tensor's numbers take."""
    if dtype != "int8":
        return math.prod(shape) * getattr(torch, dtype).itemsize
    return math.prod(shape) + 8 * math.prod(shape[:-2]) * shape[-1]


def _checksum(*parts):
    digest = xxhash.xxh3_64()
    for part in parts:
        digest.update(part)
    return digest.intdigest() & 0xFFFFFFFF


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
