"""SIGTERM: what Slurm and Kubernetes send before they kill.

A script ends on it at once, as on Ctrl-C: what is done is kept. A training
puts it off to the end of its step, and saves.
"""

import os
import signal
import sys
import threading
from contextlib import contextmanager

EXIT_CODE = 128 + signal.SIGTERM


class Terminated(BaseException):
    """SIGTERM came; no `Exception`, so that nobody takes it for one."""


class Deferral:
    """Whether SIGTERM came, for work that ends by itself soon after.

    Arguments
    ---------
    within : float
        Seconds after SIGTERM in which it ends; then the process does.

    Attributes
    ----------
    asked : bool
        Whether SIGTERM came.
    """

    def __init__(self, within):
        self.within = within
        self.asked = False
        self._came, self._over = threading.Event(), threading.Event()
        # Begun now: a signal's handler is no place to begin a thread.
        threading.Thread(target=self._watch, daemon=True).start()

    def ask(self):
        """Note that it came."""
        self.asked = True
        self._came.set()

    def end(self):
        """The work has ended by itself."""
        self._over.set()
        self._came.set()

    def _watch(self):
        self._came.wait()
        if not self._over.wait(self.within):
            print(
                f"terminated; not done within {self.within:g} s "
                "(terminate_within), ended without saving",
                file=sys.stderr,
                flush=True,
            )
            os._exit(EXIT_CODE)


_deferrals = []


def _handle(*_):
    if not _deferrals:
        raise Terminated
    _deferrals[-1].ask()


@contextmanager
def handled():
    """Raise `Terminated` on SIGTERM, in the main thread.

    Elsewhere it does nothing: Python runs handlers in the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _handle)
    try:
        yield
    finally:
        # None: what was not set from Python cannot be set back from it.
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextmanager
def deferred(within):
    """Put `Terminated` off to the end of the block.

    Arguments
    ---------
    within : float
        Seconds after SIGTERM in which the block has to end; then the process
        ends without it.

    Yields
    ------
    Deferral
        Says whether SIGTERM came.

    Raises
    ------
    Terminated
        It came, and the block ended by itself.

    Example
    -------
    >>> with handled(), deferred(within=60) as deferral:
    ...     os.kill(os.getpid(), signal.SIGTERM)
    ...     print(deferral.asked)
    Traceback (most recent call last):
    ...
    speechbrain_mser.termination.Terminated
    """
    deferral = Deferral(within)
    _deferrals.append(deferral)
    try:
        yield deferral
    finally:
        _deferrals.remove(deferral)
        deferral.end()
    if deferral.asked:
        raise Terminated
