"""What a translator of speech must be able to do for M5SER."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SourceUtterance:
    """An utterance to translate.

    Arguments
    ---------
    id : str
        Its ID in the source's manifest.
    samples : numpy.ndarray
        ``[samples]``, float32, mono, 16 kHz.
    text : str
        What is said, where the manifest knows it; else empty.
    emotion : str
        One of ours; a translator that copies prosody does not need it.
    speaker : str
        Of the source.
    """

    id: str
    samples: np.ndarray
    text: str = ""
    emotion: str = ""
    speaker: str = ""


@dataclass(frozen=True)
class Translation:
    """What became of it.

    Arguments
    ---------
    samples : numpy.ndarray, optional
        ``[samples]``, float32, mono; None when it failed.
    sample_rate : int
        Hz.
    text : str
        The translation in words, if the translator gives it.
    error : str
        Why there is no translation; empty when there is one.
    """

    samples: np.ndarray | None = None
    sample_rate: int = 0
    text: str = ""
    error: str = ""


class Backend:
    """A speech-to-speech translator.

    Opened once per worker process, asked many times, closed at the end. One
    that fails on an utterance says so in its `Translation`; one that raises
    an `InputError` (no weights, no such language) stops the run, since every
    other utterance would fail as well.
    """

    #: Target languages, ISO 639-3.
    languages = ()
    #: Longest utterance in seconds that it takes; None: any.
    max_seconds = None

    def settings(self):
        """What of its settings changes the audio.

        Returns
        -------
        dict
            JSON-like; a corpus is never made with two different ones.
        """
        raise NotImplementedError

    def open(self):
        """Load what it needs.

        Returns
        -------
        dict
            Versions of what is loaded, for the receipts.

        Raises
        ------
        InputError
            Weights or programs are missing; says what to do.
        """
        return {}

    def begin_shard(self, name):
        """Called before each shard, for translators with state.

        Arguments
        ---------
        name : str
            The shard's.
        """

    def translate(self, utterances, language):
        """Translate a batch.

        Arguments
        ---------
        utterances : list of SourceUtterance
            Of similar duration.
        language : str
            The target, ISO 639-3.

        Returns
        -------
        list of Translation
            In the same order.
        """
        raise NotImplementedError

    def close(self):
        """Let go of what `open` took; harmless when repeated."""
