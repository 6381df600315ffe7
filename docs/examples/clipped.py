"""A microphone of one's own: one that is overdriven."""

from dataclasses import dataclass

from speechbrain_mser.dataio.microphones import Recorded


@dataclass
class Clipped(Recorded):
    """What is louder than a part of the loudest sample is cut off."""

    part: float = 0.3

    def __call__(self, wav):
        """``[time]`` to ``[time]``."""
        most = self.part * wav.abs().max()
        return wav.clamp(-most, most)
