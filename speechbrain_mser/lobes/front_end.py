"""What becomes of a waveform before the frozen encoder hears it."""

import math

import torch

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.errors import InputError

# 20 ms: as long as most encoders' frames.
FRAME = SAMPLE_RATE // 50
# What is kept before and after speech, where silence is cut: 50 ms.
MARGIN = SAMPLE_RATE // 20
# Speech is what lies less than so many dB under the loudest frame, where its
# level is measured and no silence is cut.
SPEECH_RANGE = 35.0


class FrontEnd:
    """Takes out of a waveform what the recording put in, not the speaker.

    First the silence before and after speech is cut, then speech is brought
    to one level. Both depend on the utterance alone. A frame's level is that
    of its deviation from its mean, so that a microphone's constant offset
    counts for nothing.

    Nothing is clipped: samples beyond full scale are numbers like others to
    an encoder. Where no frame has any sound (digital silence, one sample, a
    constant), or samples are not finite, the waveform stays as it is.

    Arguments
    ---------
    trim_silence : float, optional
        Frames of 20 ms that lie more than so many dB under the utterance's
        loudest are silence; it is cut at both ends, but for 50 ms. None cuts
        nothing.
    speech_level : float, optional
        Root mean square that the frames with speech are brought to, in dB
        under full scale (-26.0; full scale is a square wave of amplitude 1).
        None leaves the level as it is.

    Example
    -------
    >>> tone = torch.sin(torch.arange(16000) * 0.4) / 100
    >>> wav = torch.cat([torch.zeros(16000), tone, torch.zeros(16000)])
    >>> heard = FrontEnd(trim_silence=35.0, speech_level=-26.0)(wav)
    >>> len(heard) / 16000  # seconds
    1.1
    >>> heard[800:-800].square().mean().sqrt()  # 10 ** (-26 / 20)
    tensor(0.0501)
    """

    # To be raised when the same settings make another waveform.
    version = 1

    def __init__(self, trim_silence=None, speech_level=None):
        if trim_silence is not None and not 1 <= trim_silence <= 100:
            raise InputError(
                f"trim_silence is {trim_silence!r}, expected dB under the "
                "loudest frame (35.0; from 1 to 100), or null"
            )
        if speech_level is not None and not -100 <= speech_level <= 0:
            raise InputError(
                f"speech_level is {speech_level!r}, expected dB under full "
                "scale (-26.0; from -100 to 0), or null"
            )
        self.trim_silence, self.speech_level = trim_silence, speech_level

    def settings(self):
        """All that decides what becomes of a waveform, as plain values."""
        return {
            "version": self.version,
            "trim_silence": self.trim_silence,
            "speech_level": self.speech_level,
        }

    def __call__(self, wav):
        """Prepare an utterance.

        Arguments
        ---------
        wav : torch.Tensor
            ``[time]``, 16 kHz mono, on any device.

        Returns
        -------
        torch.Tensor
            ``[time]``, as long or shorter, never empty.
        """
        # Of the loudest sample: neither very quiet nor very loud sound has
        # squares that a float32 cannot hold.
        scale = torch.stack(wav.aminmax()).abs().amax()
        size = min(FRAME, len(wav))
        frames = (wav[: len(wav) // size * size] / scale).view(-1, size)
        powers = frames.var(1, correction=0)
        threshold = powers.amax() * self.threshold()
        speech = ((powers > 0) & (powers >= threshold)).nonzero()[:, 0]
        if len(speech) == 0:
            return wav
        level = scale * powers[speech].mean().sqrt()
        if self.trim_silence is not None:
            first, last = speech[[0, -1]].tolist()
            start = max(first * size - MARGIN, 0)
            wav = wav[start : (last + 1) * size + MARGIN]
        if self.speech_level is not None:
            # In this order: a quotient by 1e-40 is beyond float32.
            wav = wav / level * 10 ** (self.speech_level / 20)
        return wav

    def threshold(self):
        """The least power of speech, as a part of the loudest frame's."""
        decibels = self.trim_silence or SPEECH_RANGE
        return math.pow(10, -decibels / 10)
