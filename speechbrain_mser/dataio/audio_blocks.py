"""Audio of any length, a block at a time: the samples that `load_audio` gives.

Nothing is held but a block, so that ten hours take no more memory than ten
minutes, and there is no limit of an hour. Samples are `load_audio`'s to the
last bits of a float32, unless channels cancel in a part of a recording alone:
whether they do is asked of each block.
"""

import io
import os
from collections.abc import Iterable

import numpy as np
import soxr

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.dataio.audio import check_file
from speechbrain_mser.dataio.audio_limits import (
    MAX_CHANNELS,
    AudioError,
    check_form,
    check_range,
)
from speechbrain_mser.dataio.decoding import decode_blocks
from speechbrain_mser.dataio.downmix import downmix

# Samples of each channel that are mixed at once, whatever the blocks in which
# they came: where channels cancel is asked of so many.
MIXED = 1 << 18


def read_blocks(source, sample_rate=SAMPLE_RATE, mono=True):
    """Read audio block by block.

    Arguments
    ---------
    source : path-like, numpy.ndarray, torch.Tensor, bytes, file or iterable
        A file of any kind, its content, or an open one, which is read as a
        whole; a signal ``[time]`` or ``[time, channel]`` of floating point;
        or an iterable of such signals, one after the other.
    sample_rate : int
        Of signals, in Hz; files have their own.
    mono : bool
        Mix the channels, as `downmix` does, or keep them.

    Yields
    ------
    numpy.ndarray
        ``[time]``, or ``[time, channel]`` where they are kept; float32,
        16 kHz.

    Raises
    ------
    AudioError
        The audio cannot be used: no such file, no audio, truncated, NaN, no
        sample at all, or a change of channels where these are kept.

    Example
    -------
    >>> blocks = read_blocks(np.zeros((8000, 2), np.float32), 8000)
    >>> sum(map(len, blocks))
    16000
    """
    name = os.fspath(source) if isinstance(source, os.PathLike) else source
    try:
        if isinstance(name, (str, bytes, bytearray)) or hasattr(name, "read"):
            blocks = _of_file(name)
        else:
            blocks = _of_signals(name, sample_rate)
        yield from _resampled(blocks, mono)
    except AudioError as error:
        if isinstance(name, str) and not str(error).startswith(name):
            raise AudioError(f"{name}: {error}", error.kind) from None
        raise


def _of_file(file):
    """Blocks as `decode_blocks` has them, of a path, bytes or an open file."""
    if hasattr(file, "read"):
        file = file.read()
        if not isinstance(file, (bytes, bytearray)):
            raise AudioError(
                f"the open file gives {type(file).__name__}; open it for "
                'bytes ("rb")'
            )
    if isinstance(file, (bytes, bytearray)):
        file = io.BytesIO(file)
    check_file(file)
    return decode_blocks(file)


def _of_signals(source, rate):
    """The same, of a signal or of an iterable of signals."""
    if not isinstance(rate, int) or isinstance(rate, bool):
        raise AudioError(f"sample_rate is {rate!r}; a whole number is expected")
    check_form(rate, 1)
    if hasattr(source, "shape"):
        source = [source]
    if not isinstance(source, Iterable):
        raise AudioError(
            f"a {type(source).__name__}; a path, bytes, an open file, a signal "
            "or an iterable of signals is expected"
        )
    for block in source:
        signal = as_samples(block)
        for first in range(0, len(signal), MIXED):
            yield signal[first : first + MIXED], rate, False


def as_samples(signal):
    """A signal that a user holds, as an array.

    Arguments
    ---------
    signal : numpy.ndarray or torch.Tensor
        ``[time]`` or ``[time, channel]``, of floating point.

    Returns
    -------
    numpy.ndarray
        ``[time, channel]``, float32.

    Raises
    ------
    AudioError
        It is none, of integers, of another shape, or not finite.

    Example
    -------
    >>> as_samples(np.zeros(5)).shape
    (5, 1)
    """
    if hasattr(signal, "detach"):
        signal = signal.detach().cpu().float().numpy()
    if not isinstance(signal, np.ndarray) or signal.dtype.kind != "f":
        of = getattr(signal, "dtype", None)
        raise AudioError(
            f"a block is a {type(signal).__name__}{f' of {of}' if of else ''}; "
            "signals are arrays or tensors of floating point between -1 and 1 "
            "(divide integers of 16 bits by 32768)"
        )
    shape = signal.shape
    if signal.ndim == 1:
        signal = signal[:, None]
    if signal.ndim != 2 or not 1 <= signal.shape[1] <= MAX_CHANNELS:
        raise AudioError(
            f"a signal of shape {list(shape)}; [time], or [time, channel] with "
            f"up to {MAX_CHANNELS} channels, is expected (transpose what is "
            "[channel, time])"
        )
    if signal.size:
        check_range(signal)
    # Whatever its strides and the order of its bytes
    return np.ascontiguousarray(signal, dtype=np.float32)


def _resampled(blocks, mono):
    """Mixed, where that is asked for, and at 16 kHz."""
    form, n_channels = None, None
    resampler = None
    for samples, rate, ogg in _regrouped(blocks):
        samples = downmix(samples, ogg)[:, None] if mono else samples
        if n_channels not in (None, samples.shape[1]):
            raise AudioError(
                f"{n_channels} channels, then {samples.shape[1]}: they cannot "
                "be told apart"
            )
        n_channels = samples.shape[1]
        if rate != form:
            if resampler is not None:
                yield _shaped(_end(resampler, n_channels), mono)
            form, resampler = rate, None
            if rate != SAMPLE_RATE:
                resampler = soxr.ResampleStream(
                    rate, SAMPLE_RATE, n_channels, dtype="float32"
                )
        if resampler is not None:
            samples = resampler.resample_chunk(np.ascontiguousarray(samples))
        yield _shaped(samples, mono)
    if form is None:
        raise AudioError("no audio: there is not one sample in it", "empty")
    if resampler is not None:
        yield _shaped(_end(resampler, n_channels), mono)


def _end(resampler, n_channels):
    empty = np.zeros((0, n_channels), np.float32)
    return resampler.resample_chunk(empty, last=True)


def _shaped(samples, mono):
    return np.ascontiguousarray(samples[:, 0] if mono else samples)


def _regrouped(blocks):
    """Blocks of `MIXED` samples, of those of any size and of one form."""
    kept, form = [], None
    for samples, rate, ogg in blocks:
        if (rate, ogg, samples.shape[1]) != form:
            if kept:
                yield np.concatenate(kept), *form[:2]
            kept, form = [], (rate, ogg, samples.shape[1])
        kept.append(samples)
        if sum(map(len, kept)) >= MIXED:
            whole = np.concatenate(kept)
            while len(whole) >= MIXED:
                yield whole[:MIXED], rate, ogg
                whole = whole[MIXED:]
            kept = [whole]
    kept = [one for one in kept if len(one)]
    if kept:
        yield np.concatenate(kept), *form[:2]
