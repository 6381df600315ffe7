"""A translator that costs nothing: the source again, its end first."""

import time

import numpy as np

from speechbrain_mser.synthesis.backend import Backend, Translation


class EchoBackend(Backend):
    """Says the source backwards; the same audio whatever came before.

    Arguments
    ---------
    gain : float
        Its loudness; another setting is another corpus.
    seconds : float
        How long it takes over an utterance.

    Example
    -------

    >>> EchoBackend(0.5).translate([source], "fra")[0].samples
    array([0.1 , 0.05], dtype=float32)
    """

    languages = ("cmn", "deu", "fra", "ita", "spa")

    def __init__(self, gain=1.0, seconds=0.0):
        self.gain = gain
        self.seconds = seconds

    def settings(self):
        """What changes the audio."""
        return {"gain": self.gain}

    def open(self):
        """Nothing to load."""
        return {"echo": "1"}

    def translate(self, utterances, language):
        """Turn every source around."""
        time.sleep(self.seconds * len(utterances))
        # So that languages differ
        gain = np.float32(self.gain / (1 + self.languages.index(language)))
        return [
            Translation(
                gain * utterance.samples[::-1], 16000, utterance.text.upper()
            )
            for utterance in utterances
        ]
