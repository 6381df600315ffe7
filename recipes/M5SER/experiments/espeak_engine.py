"""eSpeak NG through ctypes, and the voice qualities that it lacks.

Its library comes with the PyPI package `espeakng-loader`. It keeps state: the
same call sounds a little different after another one, and only the same
sequence in a new process repeats exactly.
"""

import ctypes
import os
from pathlib import Path

import numpy as np
import soxr

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.errors import InputError

# Neutral speech: eSpeak's settings, and dB below full scale, which leave room
# for the loudest anger.
NEUTRAL = {"pitch": 45, "range": 45, "rate": 160, "level": -27}


class Engine:
    """The synthesiser: one per process, since it is all global state.

    Arguments
    ---------
    seed : int
        Of its noise. The same seed and the same utterances, from the first
        on, give the same samples.
    """

    # enum espeak_PARAMETER, and the options of speak_lib.h
    RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4
    SYNCHRONOUS, DONT_EXIT, UTF8, BY_CHARACTER = 2, 0x8000, 1, 1

    def __init__(self, seed):
        import espeakng_loader

        self._lib = ctypes.CDLL(espeakng_loader.get_library_path())
        self._data = Path(espeakng_loader.get_data_path())
        self._rate = self._lib.espeak_Initialize(
            self.SYNCHRONOUS, 0, os.fsencode(self._data), self.DONT_EXIT
        )
        if self._rate <= 0:
            raise InputError(f"eSpeak NG cannot read its data in {self._data}")
        # The noise of some voices; by itself it starts from the clock.
        self._lib.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        self._chunks = []
        self._voice = None
        callback = ctypes.CFUNCTYPE(
            ctypes.c_int,
            ctypes.POINTER(ctypes.c_short),
            ctypes.c_int,
            ctypes.c_void_p,
        )
        # Kept: ctypes frees a callback that nothing refers to.
        self._callback = callback(self._receive)
        self._lib.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples, count, _events):
        if samples and count > 0:
            chunk = np.ctypeslib.as_array(samples, shape=(count,))
            self._chunks.append(chunk.copy())
        return 0

    def speak(self, language, item):
        """Speak one utterance.

        Arguments
        ---------
        language : str
            eSpeak's code, such as "en-us".
        item : dict
            ``voice`` (a variant's name), ``text``, ``seed`` and the prosody,
            as `espeak_corpus.yaml` explains it.

        Returns
        -------
        numpy.ndarray
            ``[time]``, float32 in -1..1, at 16 kHz.

        Raises
        ------
        InputError
            There is no such language or variant.
        """
        self._choose(f"{language}+{item['voice']}")
        rate = NEUTRAL["rate"] * (1 + item["rate"])
        pitch = NEUTRAL["pitch"] + item["pitch"]
        pitch_range = NEUTRAL["range"] + item["range"]
        for parameter, value in (
            (self.RATE, np.clip(rate, 80, 450)),
            (self.PITCH, np.clip(pitch, 0, 99)),
            (self.RANGE, np.clip(pitch_range, 0, 99)),
            (self.VOLUME, 60),  # far from clipping: the level is set below
        ):
            self._lib.espeak_SetParameter(parameter, round(float(value)), 0)
        text = item["text"]
        if item["rising"]:
            text = text.rstrip(".。") + "?"
        samples = soxr.resample(self._say(text), self._rate, SAMPLE_RATE)
        return _shape(samples, item)

    def _choose(self, voice):
        if voice == self._voice:
            return
        # Asked for a variant that it lacks, eSpeak speaks without it.
        variant = self._data / "voices" / "!v" / voice.split("+")[1]
        if (
            not variant.is_file()
            or self._lib.espeak_SetVoiceByName(voice.encode()) != 0
        ):
            raise InputError(f"eSpeak NG in {self._data} has no voice {voice}")
        self._voice = voice

    def _say(self, text):
        """``[time]`` samples at eSpeak's own rate."""
        self._chunks.clear()
        text = text.encode()
        self._lib.espeak_Synth(
            text, len(text) + 1, 0, self.BY_CHARACTER, 0, self.UTF8, None, None
        )
        self._lib.espeak_Synchronize()
        if not self._chunks:
            raise RuntimeError(f"eSpeak NG said nothing for {text.decode()!r}")
        return np.concatenate(self._chunks) / np.float32(2**15)


def _shape(samples, item):
    """Level and voice quality, which eSpeak's parameters do not reach."""
    rng = np.random.default_rng(item["seed"])
    samples = np.trim_zeros(samples)
    for name, hertz in (("tremor", 7), ("creak", 30)):
        if item[name]:
            # Irregular: the beat's phase wanders.
            steps = rng.normal(hertz, 10 * hertz, len(samples))
            phase = np.cumsum(steps) / SAMPLE_RATE
            samples = samples * (1 - item[name] * np.sin(np.pi * phase) ** 2)
    if item["breath"]:
        # Loud where the voice is loud, over 20 ms.
        window = np.full(SAMPLE_RATE // 50, 50 / SAMPLE_RATE)
        loudness = np.convolve(np.abs(samples), window, mode="same")
        noise = rng.standard_normal(len(samples))
        samples = samples + item["breath"] * loudness * noise
    # One zero: 5 dB between the ends of the spectrum for a tilt of 0.3.
    samples = samples - item["tilt"] * np.append(0, samples[:-1])
    level = NEUTRAL["level"] + item["level"] - 20 * np.log10(samples.std())
    return np.clip(samples * 10 ** (level / 20), -1, 1).astype(np.float32)
