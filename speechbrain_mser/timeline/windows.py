"""Windows over speech, and segments out of what was recognised in them.

Speech from a to b is cut into windows of equal length whose starts are a hop
apart; one more ends at b, where the last did not; speech that is shorter than
a window is one. From hop to hop there is a cell, and its probabilities are
the mean over all windows that reach into it, each weighed by how far. So a
change of emotion lies in the middle of the windows that heard both sides,
neither late nor early, and a single odd window is outvoted.

Neighbouring cells whose most probable emotion is the same are a segment,
whose probabilities are the cells' mean, weighed by their length. At the end
of speech a cell of less than half a hop joins the one before.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from speechbrain_mser import SAMPLE_RATE

# A segment of a minute is given as it is, and another begins: who speaks on
# and on in one mood is not waited for. In samples.
LONGEST = 60 * SAMPLE_RATE


@dataclass
class Window:
    """What is recognised at a time.

    Arguments
    ---------
    start, end : int
        In samples.
    heard : bool
        Whether it is the first to hear what it hears: of windows that
        overlap, the others add nothing to what is known of a microphone.
    """

    start: int
    end: int
    heard: bool


@dataclass
class End:
    """Speech is over, after the windows before.

    Arguments
    ---------
    end : int
        In samples.
    """

    end: int


class Cutter:
    """Cuts speech into windows, as it comes.

    Arguments
    ---------
    window, hop : int
        In samples.

    Example
    -------
    >>> from speechbrain_mser.timeline.speech import Span
    >>> cutter = Cutter(window=4, hop=2)
    >>> for item in cutter(Span(10, 19, True)):
    ...     print(item)
    Window(start=10, end=14, heard=True)
    Window(start=12, end=16, heard=False)
    Window(start=14, end=18, heard=True)
    Window(start=15, end=19, heard=False)
    End(end=19)
    """

    def __init__(self, window, hop):
        self.window, self.hop = window, hop
        self._forget()

    def _forget(self):
        self.begin = self.last = self.heard_until = None

    def needs(self, otherwise):
        """The first sample that a window of this speech may still hear."""
        if self.begin is None:
            return otherwise
        return self.begin if self.last is None else self.last

    def __call__(self, span):
        """Windows of which all is there now.

        Arguments
        ---------
        span : Span
            Speech from the same start as the last one, if that has not
            ended.

        Returns
        -------
        list of Window and End
            In order.
        """
        items = []
        self.begin = span.start
        start = span.start if self.last is None else self.last + self.hop
        while start + self.window <= span.end:
            items.append(self._window(start, start + self.window))
            start += self.hop
        if span.ended:
            rest = max(span.end - self.window, span.start)
            if self.last is None or self.last + self.window < span.end:
                items.append(self._window(rest, span.end))
            items.append(End(span.end))
            self._forget()
        return items

    def _window(self, start, end):
        heard = self.heard_until is None or start >= self.heard_until
        if heard:
            self.heard_until = end
        self.last = start
        return Window(start, end, heard)


@dataclass
class _Run:
    """Cells of one emotion: where, and the sum of their probabilities."""

    emotion: int
    start: int
    end: int
    total: np.ndarray


@dataclass
class Smoother:
    """Segments of one speaker from windows' probabilities, in order.

    Arguments
    ---------
    window, hop : int
        In samples.

    Example
    -------
    >>> smoother = Smoother(window=4, hop=2)
    >>> surely = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    >>> windows = Cutter(4, 2)
    >>> from speechbrain_mser.timeline.speech import Span
    >>> *parts, end = windows(Span(0, 10, True))
    >>> for part, one in zip(parts, (0, 0, 1, 1), strict=True):
    ...     print(smoother.add(part, surely[one]))
    []
    []
    []
    []
    >>> for start, stop, probabilities in smoother.end(end):
    ...     print(start, stop, probabilities)
    0 6 [0.83333333 0.16666667]
    6 10 [0. 1.]
    """

    window: int
    hop: int
    begin: int | None = None
    windows: deque = field(default_factory=deque)
    run: _Run | None = None

    def add(self, window, probabilities):
        """Take a window.

        Arguments
        ---------
        window : Window
            The next one.
        probabilities : numpy.ndarray or None
            ``[n_labels]``, float64; None where there was nothing to hear.

        Returns
        -------
        list of tuple
            ``(start, end, probabilities)`` of segments that are sure now.
        """
        if self.begin is None:
            self.begin = window.start
        done = []
        # Of a cell that ends before this window, all windows are there; the
        # last of all may begin anywhere
        while self.begin + self.hop <= window.start and (
            (window.start - self.begin) % self.hop == 0
        ):
            done += self._cell(self.begin + self.hop)
        if probabilities is not None:
            self.windows.append((window.start, window.end, probabilities))
        return done

    def end(self, end):
        """Speech is over; as `add`."""
        done = []
        if self.begin is not None:
            while end.end - self.begin >= 1.5 * self.hop:
                done += self._cell(self.begin + self.hop)
            done += self._cell(end.end)
        done += self._close()
        self.begin = None
        self.windows.clear()
        return done

    def _cell(self, end):
        """Decide on the cell from `begin` to an end."""
        start, self.begin = self.begin, end
        weights = [
            max(min(end, last) - max(start, first), 0)
            for first, last, _ in self.windows
        ]
        done = []
        if not sum(weights):
            done += self._close()
        else:
            parts = [one for _, _, one in self.windows]
            mean = np.average(parts, axis=0, weights=weights)
            emotion = int(mean.argmax())
            run = self.run
            if run and (run.emotion != emotion or start - run.start >= LONGEST):
                done += self._close()
            if self.run is None:
                self.run = _Run(emotion, start, start, np.zeros(len(mean)))
            self.run.total += mean * (end - start)
            self.run.end = end
        while self.windows and self.windows[0][1] <= end:
            self.windows.popleft()
        return done

    def _close(self):
        run, self.run = self.run, None
        if run is None:
            return []
        return [(run.start, run.end, run.total / run.total.sum())]
