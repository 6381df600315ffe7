"""What is stored of an utterance: its features' shape and numbers, as bytes."""

import math
import struct

import numpy as np
import torch

from speechbrain_mser.errors import InputError

DTYPES = ("float32", "float16", "bfloat16", "int8")
# To be raised when records change, so that old ones are not misread.
RECORD_VERSION = 1
HEADER = struct.Struct("<III")  # layers (0: no such axis), frames, dim


def encode_record(features, dtype):
    """Header and numbers of an utterance.

    Arguments
    ---------
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
            else "the encoder's features are not finite; an encoder in "
            "float16 may need frozen_dtype bfloat16 or float32"
        )
    shape = features.shape
    layers = 0 if features.ndim == 2 else shape[0]
    header = HEADER.pack(layers, *shape[-2:])
    parts = _quantize(rounded) if dtype == "int8" else [rounded]
    return b"".join([header, *map(_bytes, parts)])


def decode_record(record, dtype):
    """The tensor in a record.

    Arguments
    ---------
    record : bytes or buffer
        From `encode_record`; a buffer may go away afterwards.
    dtype : str
        The same as then.

    Returns
    -------
    torch.Tensor
        ``[frames, dim]`` or ``[layers, frames, dim]``, in that dtype (float32
        for "int8").
    """
    layers, *shape = HEADER.unpack_from(record)
    shape = [layers, *shape] if layers else shape
    # One copy: what is read must outlive the transaction.
    data = np.frombuffer(record, np.uint8, offset=HEADER.size).copy()
    data = torch.from_numpy(data)
    if dtype != "int8":
        return data.view(getattr(torch, dtype)).view(shape)
    each = (*shape[:-2], 1, shape[-1])
    size = 4 * int(np.prod(each))
    low = data[:size].view(torch.float32).view(each)
    scale = data[size : 2 * size].view(torch.float32).view(each)
    return low + scale * data[2 * size :].view(shape)


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
