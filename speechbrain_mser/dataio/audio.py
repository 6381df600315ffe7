"""Any audio file to float32 mono at 16 kHz, or a reason why not.

Decoded by soundfile (libsndfile) and, for the containers it does not know
(mp4, m4a), by PyAV; resampled by soxr. Channels are averaged, never
interleaved.
"""

import os
import re

import numpy as np
import soundfile
import soxr
import torch

from speechbrain_mser.errors import InputError

SAMPLE_RATE = 16000
# Below this there is no syllable to hear and hardly a frame to encode.
MIN_SECONDS = 0.1
# One hour: bounded memory for a file given by mistake.
MAX_SECONDS = 3600.0

CONTAINERS = (".mp4", ".m4a", ".aac", ".mov", ".mkv", ".webm")

# libsndfile repairs a WAV header that promises more than the file holds and
# tells only its log about it. Streaming writers promise the maximum.
_REPAIRED = re.compile(r"data\s*:\s*(\d+) \(should be (\d+)\)")
_STREAMED = 0xFFFFFF00


class AudioError(InputError):
    """An audio file or signal that cannot be used, and why."""


def load_audio(path, start=None, stop=None):
    """Read an audio file, or a part of one.

    Arguments
    ---------
    path : str or path-like
        The file.
    start : float, optional
        Where to begin, in seconds.
    stop : float, optional
        Where to end, in seconds.

    Returns
    -------
    torch.Tensor
        ``[time]``, float32, mono, 16 kHz, checked by `check_signal`.

    Raises
    ------
    AudioError
        The file is missing, empty, truncated or no audio, or its signal is
        not usable.

    Example
    -------
    >>> import tempfile
    >>> stereo = np.random.default_rng(0).normal(0, 0.1, (8000, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/a.wav", stereo, 8000)
    ...     load_audio(f"{folder}/a.wav").shape
    torch.Size([16000])
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise AudioError(f"{path}: no such file")
    if os.path.getsize(path) == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes)")
    if path.lower().endswith(CONTAINERS):
        samples, rate = _read_container(path)
        samples = samples[_frame(start, rate) : _frame(stop, rate)]
    else:
        samples, rate = _read_soundfile(path, start, stop)
    if samples.ndim == 2:  # [time, channel]
        samples = samples.mean(axis=1, dtype=np.float32)
    try:
        check_signal(samples, rate)
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from None
    if rate != SAMPLE_RATE:
        samples = soxr.resample(samples, rate, SAMPLE_RATE)
    return torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))


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
        Too short, too long, all zeros, or not finite.

    Example
    -------
    >>> check_signal(np.zeros(16000))
    Traceback (most recent call last):
    ...
    speechbrain_mser.dataio.audio.AudioError: all 16000 samples are zero: there is nothing to recognise
    """
    samples = np.asarray(samples)
    seconds = len(samples) / sample_rate
    if seconds < MIN_SECONDS:
        raise AudioError(
            f"{seconds:.3f} s of audio; at least {MIN_SECONDS} s are needed"
        )
    if seconds > MAX_SECONDS:
        raise AudioError(
            f"{seconds:.0f} s of audio; the limit is {MAX_SECONDS:.0f} s: "
            "cut the recording into utterances"
        )
    if not np.isfinite(samples).all():
        bad = int((~np.isfinite(samples)).sum())
        raise AudioError(f"{bad} of {len(samples)} samples are NaN or infinite")
    if not samples.any():
        raise AudioError(
            f"all {len(samples)} samples are zero: there is nothing to recognise"
        )


def _frame(seconds, rate):
    """A position in seconds as a sample index (None stays None)."""
    return None if seconds is None else round(seconds * rate)


def _read_soundfile(path, start, stop):
    """``[time]`` or ``[time, channel]`` float32 samples and their rate."""
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            repaired = _REPAIRED.search(file.extra_info)
            if repaired and int(repaired.group(1)) < _STREAMED:
                raise AudioError(
                    f"{path}: truncated: its header promises "
                    f"{repaired.group(1)} bytes of audio, the file holds "
                    f"{repaired.group(2)}"
                )
            first = _frame(start, rate) or 0
            last = file.frames if stop is None else _frame(stop, rate)
            last = min(last, file.frames)
            if first >= last:
                raise AudioError(
                    f"{path}: no audio between {start or 0:g} s and "
                    f"{stop if stop is not None else 'the end'}: the file has "
                    f"{file.frames / rate:.2f} s"
                )
            file.seek(first)
            samples = file.read(last - first, dtype="float32")
            if len(samples) < last - first:
                raise AudioError(
                    f"{path}: truncated: {len(samples)} of {last - first} "
                    "samples could be decoded"
                )
            return samples, rate
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{path}: cannot be decoded as audio ({error.error_string})"
        ) from None


def _read_container(path):
    """``[time, channel]`` float32 samples of an mp4 or the like, and rate."""
    try:
        import av
    except ImportError:
        raise AudioError(
            f"{path}: reading this container needs PyAV: pip install av"
        ) from None
    try:
        with av.open(path) as container:
            if not container.streams.audio:
                raise AudioError(f"{path}: the file has no audio stream")
            stream = container.streams.audio[0]
            rate = stream.rate
            # The decoder's own layout, planar float: nothing is downmixed
            # behind our back.
            resampler = av.AudioResampler(format="fltp", rate=rate)
            frames = [
                out.to_ndarray()
                for frame in container.decode(stream)
                for out in resampler.resample(frame)
            ]
            frames += [out.to_ndarray() for out in resampler.resample(None)]
    except av.error.FFmpegError as error:
        raise AudioError(
            f"{path}: cannot be decoded as audio ({error.strerror})"
        ) from None
    if not frames:
        raise AudioError(f"{path}: the audio stream is empty")
    return np.concatenate(frames, axis=1).T.astype(np.float32), rate
