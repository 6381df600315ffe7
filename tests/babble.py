"""Sounds that silero-vad takes for speech, without a recording."""

import numpy as np
from scipy.signal import lfilter

RATE = 16000
PITCH = 90  # Hz: of a man with a low voice, whom it hears best


def babble(seconds, seed=0):
    """Vowels: pulses through three formants, four syllables a second."""
    rng = np.random.default_rng(seed)
    size, syllables = int(seconds * RATE), []
    while sum(map(len, syllables)) < size:
        t = np.arange(int(RATE * rng.uniform(0.15, 0.3))) / RATE
        falling = PITCH * rng.uniform(0.85, 1.15) * t * (1 - 0.3 * t)
        sound = np.diff(np.floor(falling), prepend=0)
        sound += 0.003 * rng.standard_normal(len(t))
        formants = rng.uniform(300, 800), rng.uniform(900, 2200), 2600
        for formant, width in zip(formants, (80, 120, 200), strict=True):
            radius = np.exp(-np.pi * width / RATE)
            turn = 2 * radius * np.cos(2 * np.pi * formant / RATE)
            sound = lfilter([1 - radius], [1, -turn, radius**2], sound)
        sound *= np.hanning(len(t)) ** 0.5
        syllables.append(sound / np.abs(sound).max() * rng.uniform(0.2, 0.4))
    return np.concatenate(syllables)[:size].astype(np.float32)


def pause(seconds, seed=0):
    """A quiet room."""
    rng = np.random.default_rng(seed)
    noise = 1e-4 * rng.standard_normal(int(seconds * RATE))
    return noise.astype(np.float32)
