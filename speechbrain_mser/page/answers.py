"""What the page answers: words, timelines, and cuts of what was uploaded."""

import os
import threading
from contextlib import contextmanager
from dataclasses import replace

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.dataio.audio import check_file, load_samples
from speechbrain_mser.dataio.audio_blocks import read_blocks
from speechbrain_mser.dataio.audio_limits import AudioError
from speechbrain_mser.dataio.decoding import duration
from speechbrain_mser.emotions import LABEL_SETS, candidate_labels
from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.calibration import check_mode
from speechbrain_mser.timeline import make_timeline
from speechbrain_mser.timeline.speech import SpeechFinder

# Seconds. What is longer is hardly one utterance: it gets a timeline.
UTTERANCE = 15.0
MAX_MINUTES = 60.0
# Of what a stranger asks for: a word more is a branch more of the LLM's tree.
MAX_CHARACTERS = 500
NOT_SPEECH = "no speech was found in the recording"


def read_words(text):
    """The candidates that a box holds.

    Arguments
    ---------
    text : str
        Words with commas between them, the name of a set, or nothing.

    Returns
    -------
    list of str or None
        The words; None for the recogniser's own.

    Raises
    ------
    InputError
        One is empty or given twice, or they are too many.

    Example
    -------
    >>> read_words("bored, excited")
    ['bored', 'excited']
    >>> read_words(" ")
    """
    text = text.strip()
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"candidate words of {len(text)} characters; {MAX_CHARACTERS} at "
            "most are read"
        )
    if not text:
        return None
    return list(
        candidate_labels(text if text in LABEL_SETS else text.split(","))
    )


class Answers:
    """One recogniser for all who come, each of them by themselves.

    One asks at a time; who has a long recording lets others through after
    every few seconds of it. Nothing that was heard of one is kept for
    another.

    Arguments
    ---------
    recognizer : EmotionRecognizer
        Who recognises; nobody else asks it meanwhile.
    max_minutes : float
        Of audio, at a time.
    calibration : str, optional
        As for ``recognize_batch``; by default the recogniser's
        ``usual_calibration``.
    """

    def __init__(self, recognizer, max_minutes=MAX_MINUTES, calibration=None):
        if not max_minutes > 0:
            raise InputError(
                f"max_minutes is {max_minutes}, expected more than 0"
            )
        SpeechFinder()  # if it cannot be found, that is said at once
        self.recognizer = recognizer
        if calibration not in (None, "none"):
            check_mode(calibration)
            recognizer.load_calibration()
        self.max_minutes, self.calibration = max_minutes, calibration
        self._mine = threading.Lock()

    def __call__(self, path, words="", speakers=None, progress=None):
        """Recognise an utterance, or make a recording's timeline.

        Arguments
        ---------
        path : str
            The audio, of any kind.
        words : str
            As for `read_words`.
        speakers : str, optional
            "channels": each of two channels is a speaker, and however short
            it is, it gets a timeline.
        progress : callable, optional
            Is told how far a timeline is, from 0 to 1.

        Returns
        -------
        probabilities : dict
            Of every word; of a timeline, the mean over its speech.
        timeline : Timeline or None
            None for an utterance.

        Raises
        ------
        InputError
            The audio or the words cannot be used. It names the file as the
            user knows it.
        """
        labels = read_words(words)
        calibration = self.calibration or self.recognizer.usual_calibration(
            labels
        )
        with _named_as_uploaded(path):
            _check_there(path)
            check_file(path)
            seconds = duration(path)
            if seconds > 60 * self.max_minutes:
                raise InputError(
                    f"{path}: {seconds / 60:.1f} minutes of audio; "
                    f"{self.max_minutes:g} at most are taken here"
                )
            if seconds <= UTTERANCE and speakers is None:
                return self._recognize(path, labels, calibration), None
            blocks = read_blocks(path, mono=speakers is None)
            blocks = self._in_turns(blocks, seconds, progress, speakers)
            timeline = self._timeline(
                path, blocks, labels, speakers, calibration
            )
            return _mean(timeline, path), timeline

    def cut(self, path, start, end):
        """A piece of a recording, to be heard.

        Arguments
        ---------
        path : str
            The audio.
        start, end : float
            In seconds.

        Returns
        -------
        numpy.ndarray
            ``[time]``, float32, 16 kHz.

        Raises
        ------
        InputError
            The recording is no longer there, or has nothing there.
        """
        with _named_as_uploaded(path):
            _check_there(path)
            return load_samples(path, start, end)

    def _recognize(self, path, *asked):
        labels, _ = asked
        with self._mine:
            _, log_probs = self.recognizer.recognize_file(path, *asked)
            labels = self.recognizer.labels(labels)
        return dict(zip(labels, log_probs[0].exp().tolist(), strict=True))

    def _timeline(self, path, blocks, labels, speakers, calibration):
        with self._mine:
            timeline = make_timeline(
                self.recognizer,
                blocks,
                labels,
                speakers,
                progress=False,
                calibration=calibration,
            )
        return replace(timeline, source=os.path.basename(path))

    def _in_turns(self, blocks, seconds, progress, speakers):
        """The same blocks; others are let through before each."""
        done = 0
        while True:
            self._mine.release()
            try:
                block = next(blocks, None)
            finally:
                self._mine.acquire()
            if block is None:
                return
            if speakers is not None and block.shape[1] != 2:
                raise InputError(
                    f"{block.shape[1]} channel(s), where each of two shall "
                    "be a speaker: choose one speaker, or another recording"
                )
            yield block
            done += len(block) / SAMPLE_RATE
            if progress is not None:
                progress(min(done / seconds, 1.0))


def _mean(timeline, path):
    """Probabilities over all speech, weighed by how long it is."""
    if not timeline.segments:
        raise InputError(f"{path}: {NOT_SPEECH}")
    lengths = [one.end - one.start for one in timeline.segments]
    return {
        label: sum(
            length * one.probabilities[label]
            for length, one in zip(lengths, timeline.segments, strict=True)
        )
        / sum(lengths)
        for label in timeline.labels
    }


def _check_there(path):
    if not os.path.exists(path):
        raise InputError(
            f"{path} is no longer kept here: upload or record it again"
        )


@contextmanager
def _named_as_uploaded(path):
    """No message tells where this machine keeps a file."""
    try:
        yield
    except InputError as error:
        name, message = os.path.basename(path), str(error)
        if isinstance(error, AudioError) and path not in message:
            message = f"{path}: {message}"
        raise InputError(message.replace(path, name)) from None
