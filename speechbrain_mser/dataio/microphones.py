"""What a worse microphone would have recorded of an utterance, or another voice.

Each is a callable ``[time] -> [time]`` at 16 kHz with ``settings()``, as a
`FrontEnd` is. What is drawn at random is drawn by the utterance's own samples
and a seed: the same each time, so that it can be stored.
"""

import zlib
from dataclasses import asdict, dataclass

import torch
import torchaudio.functional as AF

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.errors import InputError

FRAME = SAMPLE_RATE // 50


class Recorded:
    """Something that happens to a waveform, by its fields alone."""

    def settings(self):
        """All that decides it, as plain values."""
        own = type(self)
        kind = own.__name__
        if own.__module__ != __name__:
            kind = f"{own.__module__}.{own.__qualname__}"
        return {"kind": kind, **asdict(self)}


def draws(wav, seed):
    """A generator that the utterance and a seed decide."""
    number = zlib.crc32(wav.numpy().tobytes(), seed)
    return torch.Generator().manual_seed(number)


def uniform(generator, low, high):
    """A number between two."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def speech_rms(wav):
    """Root mean square of the frames within 35 dB of the loudest."""
    size = min(FRAME, len(wav))
    frames = wav[: len(wav) // size * size].view(-1, size)
    powers = frames.var(1, correction=0)
    return powers[powers >= powers.amax() * 10**-3.5].mean().sqrt()


def filtered(wav, response):
    """A waveform through a real response ``(frequencies in Hz) -> gain``."""
    n = len(wav)
    frequencies = torch.fft.rfftfreq(n, 1 / SAMPLE_RATE)
    return torch.fft.irfft(torch.fft.rfft(wav) * response(frequencies), n)


@dataclass
class Noise(Recorded):
    """Noise at so many dB under speech, between white and pink."""

    low: float
    high: float
    seed: int = 0

    def __call__(self, wav):
        """Add it."""
        generator = draws(wav, self.seed)
        under = uniform(generator, self.low, self.high)
        slope = uniform(generator, 0, 1)
        noise = filtered(
            torch.randn(len(wav), generator=generator),
            lambda hertz: hertz.clamp(min=50).pow(-slope / 2),
        )
        scale = speech_rms(wav) / noise.square().mean().sqrt()
        return wav + noise * scale * 10 ** (-under / 20)


@dataclass
class Room(Recorded):
    """A room that dies away by 60 dB in so many seconds."""

    shortest: float
    longest: float
    seed: int = 0

    def __call__(self, wav):
        """The direct sound, and as much or less of the room's."""
        generator = draws(wav, self.seed)
        seconds = uniform(generator, self.shortest, self.longest)
        direct = uniform(generator, 0, 10)  # dB over the reverberation
        time = torch.arange(max(round(seconds * SAMPLE_RATE), 1)) / SAMPLE_RATE
        tail = torch.randn(len(time), generator=generator)
        tail *= 10 ** (-3 * time / seconds)
        tail *= 10 ** (-direct / 20) / tail.norm()
        tail[0] = 1.0
        return AF.fftconvolve(wav, tail)


@dataclass
class Band(Recorded):
    """A telephone (300 to 3400 Hz), or a coder that drops what is high."""

    lowest: float
    least_highest: float
    most_highest: float
    seed: int = 0

    def __call__(self, wav):
        """What is left in the band, 40 dB more of it than outside."""
        highest = uniform(
            draws(wav, self.seed), self.least_highest, self.most_highest
        )
        return filtered(
            wav,
            lambda hertz: (
                ((hertz >= self.lowest) & (hertz <= highest))
                .float()
                .clamp(0.01)
            ),
        )


@dataclass
class Voice(Recorded):
    """A voice of somebody smaller or taller: played at another speed.

    Pitch, formants and tempo change together (Ko et al. 2015, *Audio
    augmentation for speech recognition*).
    """

    slowest: float
    fastest: float
    seed: int = 0

    def __call__(self, wav):
        """Play it; a hundredth of speed more or less is the same."""
        speed = uniform(draws(wav, self.seed), self.slowest, self.fastest)
        return AF.resample(wav, max(round(100 * speed), 1), 100)


# How a recogniser is tested: none of it is drawn but the noise.
WORSE = {
    "telephone": Band(300, 3400, 3400),
    "noise": Noise(15, 15),
    "room": Room(0.6, 0.6),
}


def find_worse(name):
    """One of `WORSE`, as a setting names it.

    Arguments
    ---------
    name : str or None
        None is none.

    Returns
    -------
    callable or None
        ``[time] -> [time]``.

    Raises
    ------
    InputError
        There is no such.

    Example
    -------
    >>> find_worse("telephone").settings()["kind"]
    'Band'
    """
    if name is not None and not (isinstance(name, str) and name in WORSE):
        raise InputError(
            f"microphone is {name!r}, expected one of {', '.join(WORSE)}, or null"
        )
    return WORSE.get(name)
