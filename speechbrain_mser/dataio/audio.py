"""Any audio file to float32 mono at 16 kHz, or a reason why not.

Decoded by `decoding.decode`, mixed by `downmix.downmix`, resampled by soxr.
"""

import io
import math
import os

import numpy as np
import soxr

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.dataio.audio_limits import (
    DITHER,
    MIN_SECONDS,
    AudioError,
    TooLarge,
    check_range,
    check_size,
)
from speechbrain_mser.dataio.decoding import decode

# What decides which samples a file has; features that were computed with
# others are not taken for these.
DECODING = {
    "rate": SAMPLE_RATE,
    "channels": "by place, one where they cancel",
    "resampler": "soxr HQ",
}


def load_audio(path, start=None, stop=None):
    """Read an audio file, or a part of one.

    Arguments
    ---------
    path : str or path-like
        The file.
    start : float, optional
        Where to begin, in seconds; NaN, as in a manifest, means the
        beginning.
    stop : float, optional
        Where to end, in seconds; NaN, or beyond the end, means the end.

    Returns
    -------
    torch.Tensor
        ``[time]``, float32, mono, 16 kHz, checked by `check_signal`.

    Raises
    ------
    AudioError
        The file is missing, empty, truncated or no audio, ``start`` and
        ``stop`` enclose nothing, or the signal is not usable.

    Example
    -------
    >>> import soundfile, tempfile
    >>> stereo = np.random.default_rng(0).normal(0, 0.1, (8000, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/a.wav", stereo, 8000)
    ...     load_audio(f"{folder}/a.wav").shape
    torch.Size([16000])
    """
    import torch

    return torch.from_numpy(load_samples(path, start, stop))


def load_samples(path, start=None, stop=None):
    """`load_audio` for whoever does without torch.

    Arguments
    ---------
    path, start, stop
        As for `load_audio`.

    Returns
    -------
    numpy.ndarray
        ``[time]``, float32, mono, 16 kHz.

    Raises
    ------
    AudioError
        As `load_audio`.
    """
    path = os.fspath(path)
    try:
        return read_samples(path, start, stop)
    except AudioError as error:
        raise AudioError(f"{path}: {error}", error.kind) from None


def read_samples(file, start=None, stop=None):
    """`load_samples`, of a file's content too; errors do not name the file.

    Arguments
    ---------
    file : str or io.BytesIO
        The file, or its content.
    start, stop
        As for `load_audio`.

    Returns
    -------
    numpy.ndarray
        ``[time]``, float32, mono, 16 kHz.

    Raises
    ------
    AudioError
        As `load_audio`.
    """
    check_file(file)
    start = _seconds("start", start) or 0.0
    stop = _seconds("stop", stop)
    try:
        samples, rate = decode(file, start, stop)
        check_signal(samples, rate)
        if rate != SAMPLE_RATE:
            # Its default, HQ: a lower one saves a twentieth of the time, and
            # is heard in the highest mel bands.
            samples = soxr.resample(samples, rate, SAMPLE_RATE)
        return np.ascontiguousarray(samples, dtype=np.float32)
    except MemoryError:
        raise TooLarge from None


def check_signal(samples, sample_rate=SAMPLE_RATE):
    """Refuse a signal in which there is nothing to recognise.

    Arguments
    ---------
    samples : numpy.ndarray or torch.Tensor
        ``[time]``.
    sample_rate : int
        In Hz.

    Raises
    ------
    AudioError
        Not one-dimensional, too short, too long, silent, not finite, or far
        beyond ±1 (`limits.MAX_PEAK`).

    Example
    -------
    >>> check_signal(np.zeros(16000))
    Traceback (most recent call last):
    ...
    AudioError: all 16000 samples are zero: there is nothing to recognise
    """
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise AudioError(
            f"a signal of shape {list(samples.shape)}; one utterance, "
            "[time], is needed"
        )
    seconds = len(samples) / sample_rate
    if seconds < MIN_SECONDS:
        raise AudioError(
            f"{seconds:.3f} s of audio; at least {MIN_SECONDS} s are needed",
            "too short",
        )
    check_size(len(samples), sample_rate)
    peak = check_range(samples)
    if peak <= DITHER:
        all_are = "zero" if not peak else f"within {peak:.1e} of full scale"
        raise AudioError(
            f"all {len(samples)} samples are {all_are}: there is nothing to "
            "recognise",
            "silent",
        )


def check_file(path):
    """Refuse what is no file with something in it.

    Arguments
    ---------
    path : str or io.BytesIO
        The file, or its content.

    Raises
    ------
    AudioError
        It is missing, a folder, or empty.

    Example
    -------
    >>> check_file(io.BytesIO(b""))
    Traceback (most recent call last):
    ...
    AudioError: the file is empty (0 bytes)
    """
    if isinstance(path, io.BytesIO):
        if not path.getbuffer().nbytes:
            raise AudioError("the file is empty (0 bytes)", "empty")
        return
    if not os.path.exists(path):
        raise AudioError("no such file")
    if os.path.isdir(path):
        raise AudioError("this is a folder, not a file")
    if os.path.getsize(path) == 0:
        raise AudioError("the file is empty (0 bytes)", "empty")


def _seconds(name, value):
    """A time as a float; None for None and for a manifest's NaN."""
    if value is None or math.isnan(value):
        return None
    if value < 0 or math.isinf(value):
        raise AudioError(f"{name} is {value:g} s, which is no time in a file")
    return float(value)
