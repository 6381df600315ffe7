"""Utterances that cannot be used: left out by name, or the end of a run."""

from dataclasses import dataclass

from speechbrain.utils.logger import get_logger

from speechbrain_mser.errors import InputError

logger = get_logger(__name__)


@dataclass(frozen=True)
class BadUtterance:
    """An utterance that could not be read, in place of its signal.

    Arguments
    ---------
    utterance : str
        Its ID.
    reason : str
        What is wrong with it.
    """

    utterance: str
    reason: str


class BadUtterances:
    """What becomes of bad utterances; called with each, as often as it is met.

    Arguments
    ---------
    on_bad_utterance : str
        "skip" logs each once and goes on without it, "stop" ends the run.
    reasons : dict, optional
        Utterance to reason, to be filled: those of a run that goes on.

    Raises
    ------
    InputError
        Another word; when called, an utterance where none may be bad.

    Example
    -------
    >>> leave_out = BadUtterances("skip")
    >>> leave_out(BadUtterance("a", "no such file"))
    >>> leave_out.reasons
    {'a': 'no such file'}
    >>> BadUtterances("stop")(BadUtterance("a", "no such file"))
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: utterance a: no such file; mend or ...
    """

    def __init__(self, on_bad_utterance, reasons=None):
        if on_bad_utterance not in ("skip", "stop"):
            raise InputError(
                f"on_bad_utterance is {on_bad_utterance!r}, expected skip or "
                "stop"
            )
        self.stops = on_bad_utterance == "stop"
        self.reasons = {} if reasons is None else reasons

    def __call__(self, bad):
        """Leave an utterance out.

        Arguments
        ---------
        bad : BadUtterance
            The utterance, and why.
        """
        if self.stops:
            raise InputError(
                f"utterance {bad.utterance}: {bad.reason}; mend or remove "
                "it, or set on_bad_utterance: skip"
            )
        if bad.utterance not in self.reasons:
            self.reasons[bad.utterance] = bad.reason
            logger.warning(
                "utterance %s left out: %s", bad.utterance, bad.reason
            )

    def of_batch(self, batch):
        """Leave out what could not be read of a batch; is anything left?

        Arguments
        ---------
        batch : UtteranceBatch
            Any batch.

        Returns
        -------
        bool
            Whether it holds an utterance.
        """
        for bad in batch.bad:
            self(bad)
        return len(batch) > 0
