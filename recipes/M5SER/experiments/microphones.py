"""What may be done before the encoder: what `front_end.py` compares.

Each is a callable ``[time] -> [time]`` at 16 kHz with ``settings()``, as a
`FrontEnd` is, and as are the worse microphones beside them.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.dataio.microphones import FRAME, Recorded, filtered
from speechbrain_mser.lobes.front_end import FrontEnd


@dataclass
class Chain(Recorded):
    """One after the other."""

    parts: list

    def settings(self):
        """Those of all."""
        return {"chain": [part.settings() for part in self.parts]}

    def __call__(self, wav):
        """Through all parts."""
        for part in self.parts:
            wav = part(wav)
        return wav


@dataclass
class Loudness(Recorded):
    """Loudness by ITU-R BS.1770, gated, to so many LUFS."""

    lufs: float = -26.0

    def __call__(self, wav):
        """Scale it; what the gates leave nothing of stays."""
        heard = filtered(wav, _k_weighting)
        heard = pad(heard, (0, max(6400 - len(heard), 0)))
        # Blocks of 400 ms that begin every 100 ms
        powers = heard.unfold(0, 6400, 1600).square().mean(1)
        loudness = -0.691 + 10 * powers.log10()
        gate = loudness > -70
        if not gate.any():
            return wav
        relative = -0.691 + 10 * powers[gate].mean().log10() - 10
        gate &= loudness > relative
        loudness = -0.691 + 10 * powers[gate].mean().log10()
        return wav * 10 ** ((self.lufs - loudness) / 20)


def _k_weighting(hertz):
    """The analogue filters that BS.1770's are made from."""
    s, gain, q = 1j * hertz / 1682, 10 ** (4 / 40), 0.7072
    shelf = gain * (gain * s**2 + gain**0.5 / q * s + 1)
    shelf = shelf / (s**2 + gain**0.5 / q * s + gain)
    s = 1j * hertz / 38
    return (shelf * s**2 / (s**2 + s / 0.5 + 1)).abs()


@dataclass
class NoPauses(Recorded):
    """Pauses inside as well, but for so many seconds on either side."""

    under: float = 35.0
    margin: float = 0.1

    def __call__(self, wav):
        """The frames with speech, and those near them."""
        size = min(FRAME, len(wav))
        powers = wav[: len(wav) // size * size].view(-1, size).var(1)
        speech = (powers >= powers.amax() * 10 ** (-self.under / 10)).float()
        reach = round(self.margin * SAMPLE_RATE / size)
        near = torch.nn.functional.max_pool1d(
            speech[None], 2 * reach + 1, 1, reach
        )[0]
        near = pad(near.repeat_interleave(size) > 0, (0, len(wav) % size))
        return wav[near] if near.any() else wav


@dataclass
class Equalised(Recorded):
    """The long-term spectrum part of the way to that of average speech.

    Level up to 500 Hz, 9 dB an octave down above: in bands of a third of an
    octave, by 26 dB at most.
    """

    part: float = 0.5

    def __call__(self, wav):
        """Through the filter that its own spectrum asks for."""
        centres = 100 * 2 ** (torch.arange(20) / 3)
        power = torch.fft.rfft(wav).abs().square()
        hertz = torch.fft.rfftfreq(len(wav), 1 / SAMPLE_RATE)
        bands = torch.stack(
            [
                power[(hertz >= f / 2 ** (1 / 6)) & (hertz < f * 2 ** (1 / 6))]
                .sum()
                .div(f)
                for f in centres
            ]
        )
        found = 10 * (bands + 1e-20).log10()
        wanted = -9 * (centres / 500).log2().clamp(min=0)
        gains = wanted - found
        gains = self.part * (gains - gains.mean()).clamp(-26, 26)
        return filtered(
            wav, lambda at: 10 ** (_between(at, centres, gains) / 20)
        )


def _between(at, centres, gains):
    """Gains at frequencies, linear in the logarithm between the bands."""
    place = (at.clamp(min=1) / centres[0]).log2() * 3
    place = place.clamp(0, len(centres) - 1)
    low = place.long().clamp(max=len(centres) - 2)
    return gains[low] + (gains[low + 1] - gains[low]) * (place - low)


@dataclass
class HighPass(Recorded):
    """Nothing under so many Hz: steps, wind, mains."""

    hertz: float = 80.0

    def __call__(self, wav):
        """Twelve dB an octave."""
        return filtered(
            wav, lambda hertz: (1 + (self.hertz / (hertz + 1)) ** 4) ** -0.5
        )


def trim(under):
    """Silence at both ends cut."""
    return FrontEnd(trim_silence=under)


def level():
    """Active speech at -26 dB under full scale."""
    return FrontEnd(speech_level=-26.0)


def both(under=35.0):
    """The open recipe's."""
    return FrontEnd(trim_silence=under, speech_level=-26.0)
