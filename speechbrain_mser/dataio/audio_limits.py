"""Which audio is accepted: by whoever probes files and whoever reads them.

What `load_audio` refuses must not enter a manifest, and probing tens of
thousands of files must not import torch: hence a file of their own.
"""

import re

import numpy as np

from speechbrain_mser.errors import InputError

# What is looked for as a recording that libsndfile does not know.
CONTAINERS = (".mp4", ".m4a", ".aac", ".mov", ".mkv", ".webm", ".avi")
# Below this there is no syllable to hear and hardly a frame to encode.
MIN_SECONDS = 0.1
# One hour: bounded memory for a file given by mistake.
MAX_SECONDS = 3600.0
# What is decoded at once, over all channels: an hour of 5.1 at 48 kHz.
MAX_VALUES = 2**30
# Hz. Radio and telephones have 4,000 and more, recorders up to 384,000: a
# header that says otherwise is damaged.
MIN_RATE, MAX_RATE = 1000, 400_000
# Ambisonics of the seventh order, and every array of microphones.
MAX_CHANNELS = 64
# Full scale is 1. Lossy codecs and normalisation pass it by a few decibels;
# 18 of them are passed by damaged files, and by integers never scaled.
MAX_PEAK = 8.0
# One step of 16 bits: a muted recording has no more, if it has dither.
DITHER = 2.0**-15
# libsndfile repairs a header that promises more than the file holds and tells
# only its log about it. The words are those of WAV, AIFF, AU, RF64 and W64; a
# wrong "RIFF" size is common and harmless.
REPAIRED = re.compile(
    r"^\s*(?:data|SSND|Data Size|Riff size|riff)\s*:\s*(\d+) "
    r"\(should be (\d+)\)",
    re.MULTILINE,
)
# A writer that streams does not know the size and promises the maximum: ffmpeg
# 0xFFFFFFFF, sox and eSpeak NG 0x7FFFF000.
STREAMED = 0x7FFFF000


class AudioError(InputError):
    """An audio file or signal that cannot be used, and why.

    Arguments
    ---------
    message : str
        For the user.
    kind : str
        In a word or two, for whoever counts reasons.
    """

    def __init__(self, message, kind="unreadable"):
        super().__init__(message)
        self.kind = kind

    @property
    def reason(self):
        """``kind: detail``, as a list of what was dropped has it."""
        detail = str(self).removeprefix(f"{self.kind}: ")
        return f"{self.kind}: {detail}"

    def __reduce__(self):
        # Across processes: exceptions are pickled by their arguments.
        return type(self), (str(self), self.kind)


class TooLarge(AudioError):
    """More audio than the memory holds at once."""

    def __init__(self):
        super().__init__(
            "as a whole it does not fit into this machine's memory; a timeline "
            "reads it piece by piece",
            "too long",
        )


def check_form(rate, n_channels):
    """Refuse a rate or a number of channels that no recording has.

    Arguments
    ---------
    rate : int
        In Hz.
    n_channels : int
        How many.

    Raises
    ------
    AudioError
        It is out of bounds.

    Example
    -------
    >>> check_form(1, 1)
    Traceback (most recent call last):
    ...
    AudioError: a sample rate of 1 Hz; 1000 to 400000 Hz are read
    """
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(
            f"a sample rate of {rate} Hz; {MIN_RATE} to {MAX_RATE} Hz are read"
        )
    if not 1 <= n_channels <= MAX_CHANNELS:
        raise AudioError(f"{n_channels} channels; 1 to {MAX_CHANNELS} are read")


def check_size(n_samples, rate, n_channels=1):
    """Refuse what would decode to more than fits in memory, before it is.

    Arguments
    ---------
    n_samples : int
        In each channel.
    rate : int
        In Hz.
    n_channels : int
        How many are decoded at once.

    Raises
    ------
    AudioError
        It is too long, or too large.

    Example
    -------
    >>> check_size(3590 * 96000, 96000, 8)
    Traceback (most recent call last):
    ...
    AudioError: 3590 s at 96000 Hz in 8 channels would decode to 11.0 GB; ...
    """
    if n_samples > MAX_SECONDS * rate:
        raise AudioError(
            f"more than {MAX_SECONDS:.0f} s of audio: "
            "cut the recording into utterances",
            "too long",
        )
    if n_samples * n_channels > MAX_VALUES:
        raise AudioError(
            f"{n_samples / rate:.0f} s at {rate} Hz in {n_channels} channels "
            f"would decode to {4 * n_samples * n_channels / 1e9:.1f} GB; "
            f"{4 * MAX_VALUES / 1e9:.1f} GB at most are read: cut the "
            "recording into utterances",
            "too large",
        )


def check_range(samples):
    """Refuse what is not finite, or far beyond full scale.

    Arguments
    ---------
    samples : numpy.ndarray
        At least one, of any shape.

    Returns
    -------
    float
        The largest absolute value.

    Raises
    ------
    AudioError
        Some are NaN or infinite, or beyond `MAX_PEAK`.

    Example
    -------
    >>> check_range(np.array([0.5, -30000.0]))
    Traceback (most recent call last):
    ...
    AudioError: samples up to 3e+04, where full scale is 1 ...
    """
    peak = max(samples.max(), -samples.min())
    # Not the other way round: NaN is neither above nor below.
    if peak <= MAX_PEAK:
        return peak
    bad = int((~np.isfinite(samples)).sum())
    if bad:
        raise AudioError(f"{bad} of {samples.size} samples are NaN or infinite")
    raise AudioError(
        f"samples up to {peak:.4g}, where full scale is 1 and {MAX_PEAK:g} is "
        "the limit: damaged, or integers that were not scaled (divide those of "
        "16 bits by 32768)",
        "out of range",
    )
