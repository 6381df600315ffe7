"""Any audio file to float32 mono at 16 kHz, or a reason why not.

Decoded by soundfile (libsndfile) and, for the containers it does not know
(mp4, m4a), by PyAV; resampled by soxr. Channels are averaged, never
interleaved.
"""

import math
import os
from itertools import chain

import numpy as np
import soundfile
import soxr

from speechbrain_mser.dataio.limits import (
    CONTAINERS,
    MAX_SECONDS,
    MIN_SECONDS,
    REPAIRED,
    STREAMED,
)
from speechbrain_mser.errors import InputError

SAMPLE_RATE = 16000
# What decides which samples a file has; features that were computed with
# others are not taken for these.
DECODING = {"rate": SAMPLE_RATE, "channels": "mean", "resampler": "soxr HQ"}


class AudioError(InputError):
    """An audio file or signal that cannot be used, and why."""


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
    >>> import tempfile
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
        _check_file(path)
        start = _seconds("start", start) or 0.0
        stop = _seconds("stop", stop)
        if path.lower().endswith(CONTAINERS):
            samples, rate = _read_container(path, start, stop)
        else:
            samples, rate = _read_soundfile(path, start, stop)
        samples = _mono(samples)
        check_signal(samples, rate)
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from None
    if rate != SAMPLE_RATE:
        # Its default, HQ: a lower one saves a twentieth of the time, and is
        # heard in the highest mel bands.
        samples = soxr.resample(samples, rate, SAMPLE_RATE)
    return np.ascontiguousarray(samples, dtype=np.float32)


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
        Not one-dimensional, too short, too long, all zeros, or not finite.

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
            f"{seconds:.3f} s of audio; at least {MIN_SECONDS} s are needed"
        )
    _check_not_too_long(seconds)
    if not np.isfinite(samples).all():
        bad = int((~np.isfinite(samples)).sum())
        raise AudioError(f"{bad} of {len(samples)} samples are NaN or infinite")
    if not samples.any():
        raise AudioError(
            f"all {len(samples)} samples are zero: there is nothing to "
            "recognise"
        )


def _check_not_too_long(seconds):
    if seconds > MAX_SECONDS:
        raise AudioError(
            f"more than {MAX_SECONDS:.0f} s of audio: "
            "cut the recording into utterances"
        )


def _check_file(path):
    if not os.path.exists(path):
        raise AudioError("no such file")
    if os.path.isdir(path):
        raise AudioError("this is a folder, not a file")
    if os.path.getsize(path) == 0:
        raise AudioError("the file is empty (0 bytes)")


def _seconds(name, value):
    """A time as a float; None for None and for a manifest's NaN."""
    if value is None or math.isnan(value):
        return None
    if value < 0 or math.isinf(value):
        raise AudioError(f"{name} is {value:g} s, which is no time in a file")
    return float(value)


def _mono(samples):
    """``[time]`` float32, from ``[time]`` or ``[time, channel]`` of a file."""
    if samples.dtype == np.int16:
        samples = samples * np.float32(2.0**-15)  # exact, as libsndfile's
    if samples.ndim == 2:
        n_channels = samples.shape[1]
        weights = np.full(n_channels, 1 / n_channels, np.float32)
        samples = samples @ weights
    return samples


def _nothing_between(start, stop, seconds):
    """The error for a start and a stop that enclose no audio."""
    end = "the end" if stop is None else f"{stop:g} s"
    return AudioError(
        f"no audio between {start:g} s and {end}: the file has {seconds:.2f} s"
    )


def _read_soundfile(path, start, stop):
    """``[time]`` or ``[time, channel]`` samples and their rate.

    16-bit files give int16, others float32.
    """
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            # A streamed FLAC does not say its length, and libsndfile cannot
            # find its end.
            if file.frames >= np.iinfo(np.int64).max:
                return _read_container(path, start, stop)
            _check_complete(file.extra_info)
            first, last = round(start * rate), file.frames
            if stop is not None:
                last = min(round(stop * rate), last)
            if first >= last:
                raise _nothing_between(start, stop, file.frames / rate)
            # Before reading, so that a day of audio does not fill the memory.
            _check_not_too_long((last - first) / rate)
            file.seek(first)
            dtype = "int16" if file.subtype == "PCM_16" else "float32"
            samples = file.read(last - first, dtype=dtype)
            if len(samples) < last - first:
                raise AudioError(
                    f"truncated: {len(samples)} of {last - first} samples "
                    "could be decoded"
                )
            return samples, rate
    except (soundfile.LibsndfileError, TypeError) as error:
        # TypeError: soundfile asks for the format of a headerless .raw
        reason = getattr(error, "error_string", error)
        raise AudioError(f"cannot be decoded as audio ({reason})") from None


def _check_complete(libsndfile_log):
    repaired = REPAIRED.search(libsndfile_log)
    if repaired is None:
        return
    promised, held = map(int, repaired.groups())
    if held < promised < STREAMED:
        raise AudioError(
            f"truncated: its header promises {promised} bytes of audio, the "
            f"file holds {held}"
        )


def _read_container(path, start, stop):
    """``[time, channel]`` float32 samples of an mp4 or the like, and rate."""
    try:
        import av
    except ImportError:
        raise AudioError(
            "reading this container needs PyAV: pip install av"
        ) from None
    try:
        with av.open(path) as container:
            if not container.streams.audio:
                raise AudioError("the file has no audio stream")
            stream = container.streams.audio[0]
            # The decoder's own layout, planar float: nothing is downmixed
            # behind our back.
            resampler = av.AudioResampler(format="fltp", rate=stream.rate)
            blocks = (
                block.to_ndarray()  # [channel, time]
                for frame in chain(container.decode(stream), [None])
                for block in resampler.resample(frame)
            )
            return _part(blocks, start, stop, stream.rate), stream.rate
    except av.error.FFmpegError as error:
        raise AudioError(
            f"cannot be decoded as audio ({error.strerror})"
        ) from None


def _part(blocks, start, stop, rate):
    """What lies between start and stop of ``[channel, time]`` blocks.

    Nothing before the start is kept and nothing after the stop is decoded.
    """
    first = round(start * rate)
    last = math.inf if stop is None else round(stop * rate)
    kept = []
    position = 0
    for block in blocks:
        kept.append(block[:, max(first - position, 0) :])
        position += block.shape[1]
        if position >= last:
            break
        _check_not_too_long((position - first) / rate)
    if min(position, last) <= first:
        raise _nothing_between(start, stop, position / rate)
    samples = np.concatenate(kept, axis=1).T
    return samples[: None if stop is None else last - first]
