"""Translators that fail in all ways that there are."""

import errno
import os
import signal
import time

import numpy as np
from echo_backend import EchoBackend

from speechbrain_mser.errors import InputError
from speechbrain_mser.synthesis.backend import Translation


class Noting(EchoBackend):
    """Notes what it is asked for."""

    def __init__(self, notes, only=""):
        super().__init__()
        self.notes = notes
        # The utterance on which it fails
        self.only = only

    def note(self, text):
        """Add a word to the file."""
        with open(self.notes, "a") as file:
            file.write(f"{text}\n")

    def translate(self, utterances, language):
        """Fail where it should, else echo."""
        self.note("+".join(utterance.id for utterance in utterances))
        found = super().translate(utterances, language)
        for number, utterance in enumerate(utterances):
            if utterance.id == self.only:
                found[number] = self.fail(utterance)
        return found

    def fail(self, utterance):
        """Echo after all."""
        return Translation(utterance.samples, 16000)


class Says(Noting):
    """Says that it failed."""

    def fail(self, utterance):
        """An error in words."""
        return Translation(text="half of it", error="out of tune")


class Raises(Noting):
    """Raises on one utterance, and takes the batch with it."""

    def fail(self, utterance):
        """As memory does."""
        raise MemoryError("too much")


class Full(Noting):
    """Finds no space for a file of its own."""

    def fail(self, utterance):
        """As any write does."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x")


class Broken(Noting):
    """Raises on every utterance."""

    def translate(self, utterances, language):
        """As a bug does."""
        raise KeyError("missing")


class Nonsense(Noting):
    """Gives audio that is none."""

    def __init__(self, notes, only="", samples=(), rate=16000):
        super().__init__(notes, only)
        self.samples, self.rate = samples, rate

    def fail(self, utterance):
        """Whatever the test wants."""
        samples = self.samples
        if samples is not None:
            samples = np.array(samples, dtype=np.float32)
        return Translation(samples, self.rate)


class TooFew(Noting):
    """Gives one translation less than asked for."""

    def translate(self, utterances, language):
        """All but the last."""
        return super().translate(utterances, language)[:-1]


class DiesOnce(Noting):
    """Its process is killed over an utterance, the first time."""

    def fail(self, utterance):
        """As the kernel does that is out of memory."""
        if not os.path.exists(f"{self.notes}.died"):
            open(f"{self.notes}.died", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        backwards = utterance.samples[::-1] / np.float32(3)
        return Translation(backwards, 16000, utterance.text.upper())


class Dies(Noting):
    """Its process ends over an utterance, always."""

    def fail(self, utterance):
        """As a crash in a library does."""
        os._exit(77)


class WithoutWeights(Noting):
    """Cannot be opened."""

    def open(self):
        """Says so."""
        self.note("open")
        raise InputError("there are no weights in /models")


class Slow(Noting):
    """Takes its time over an utterance, and says which process it is."""

    def translate(self, utterances, language):
        """Wait, then echo."""
        self.note(os.getpid())
        time.sleep(0.3 * len(utterances))
        return super().translate(utterances, language)


class Closing(Noting):
    """Notes that it is opened, told of shards, and closed."""

    def open(self):
        """As `Backend.open`."""
        self.note("open")
        return {"closing": "1"}

    def begin_shard(self, name):
        """As `Backend.begin_shard`."""
        self.note(name)

    def close(self):
        """As `Backend.close`."""
        self.note("close")
