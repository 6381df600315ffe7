"""Who speaks when, as an RTTM file says: pyannote's output and its kin."""

import math
from pathlib import Path, PurePath

from speechbrain.utils.logger import get_logger

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.errors import InputError
from speechbrain_mser.timeline.formats import rttm_word
from speechbrain_mser.timeline.speech import Span

logger = get_logger(__name__)

# Far more than the turns of ten hours take, in bytes.
LARGEST_FILE = 1 << 26
# How far a turn may reach beyond the recording's end, in seconds: programs
# round, and count in frames.
BEYOND = 0.5


def read_turns(path, recording=None):
    """Read a recording's turns from an RTTM file.

    Arguments
    ---------
    path : str or path-like
        The file; of its lines those of type SPEAKER count.
    recording : str or path-like, optional
        Whose name without its ending is in the lines that are read. If it is
        in none and all are of one other name, they are taken for the
        recording's, with a warning. By default all have to be of one name.

    Returns
    -------
    dict
        Speaker to ``[(start, end), ...]`` in samples at 16 kHz, in order;
        turns of one speaker that overlap or touch are one.

    Raises
    ------
    InputError
        No such file, none of RTTM, no turn, turns of several other
        recordings, or times that are none; the line is named.

    Example
    -------
    >>> path = getfixture("tmp_path") / "call.rttm"
    >>> _ = path.write_text("SPEAKER call 1 0.5 1.0 <NA> <NA> anna <NA> <NA>")
    >>> read_turns(path)
    {'anna': [(8000, 24000)]}
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of speakers' turns")
    if path.stat().st_size > LARGEST_FILE:
        raise InputError(
            f"{path}: more than {LARGEST_FILE >> 20} MB are not the turns of "
            "one recording"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not text in UTF-8, so no RTTM") from None
    files = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith(";;"):
            continue
        try:
            turn = _parse_line(words)
        except ValueError as error:
            raise InputError(
                f"{path}, line {number}: {error}; expected SPEAKER FILE 1 "
                "START DURATION <NA> <NA> NAME <NA> <NA>, in seconds"
            ) from None
        if turn is not None:
            file, speaker, *span = turn
            turns = files.setdefault(file, {})
            turns.setdefault(speaker, []).append(tuple(span))
    if not files:
        raise InputError(f"{path}: no line of type SPEAKER, so nobody's turn")
    turns = _choose(path, files, recording)
    return {speaker: _joined(turns[speaker]) for speaker in sorted(turns)}


def _choose(path, files, recording):
    """Of the turns of several recordings those of one."""
    own = None if recording is None else rttm_word(PurePath(recording).stem)
    if own in files:
        return files[own]
    names = sorted(files)
    if len(names) > 1:
        shown = ", ".join(names[:3]) + (", ..." if names[3:] else "")
        other = "" if own is None else f", none of them {own!r}"
        raise InputError(
            f"{path}: turns of {len(names)} recordings ({shown}){other}: give "
            "the lines of one"
        )
    if own is not None:
        logger.warning(
            "%s: its turns are of %r, and are taken for those of %r",
            path,
            *names,
            own,
        )
    return files[names[0]]


def _parse_line(words):
    """File, speaker, start and end of a turn; None for another type's line."""
    # Example: SPEAKER call 1 0.50 1.20 <NA> <NA> SPEAKER_00 <NA> <NA>
    if words[0] != "SPEAKER":
        if words[0].isupper() or words[0].startswith("NO"):
            return None
        raise ValueError(f"it begins with {words[0][:20]!r}")
    if len(words) < 8:
        raise ValueError(f"{len(words)} columns of at least 8")
    try:
        start, duration = float(words[3]), float(words[4])
    except ValueError:
        raise ValueError(
            f"{words[3]!r} and {words[4]!r} are no start and duration"
        ) from None
    end = start + duration
    if 0 <= start < end < math.inf:
        first, last = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
        if first < last:
            return words[1], words[7], first, last
    raise ValueError(f"a turn at {start:g} s of {duration:g} s")


def _joined(spans):
    joined = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def check_end(turns, seconds):
    """Refuse turns beyond the end of a recording.

    Arguments
    ---------
    turns : dict
        As from `read_turns`.
    seconds : float
        How long the recording is; half a second more is let pass.

    Raises
    ------
    InputError
        A turn ends later.

    Example
    -------
    >>> check_end({"anna": [(0, 32000)]}, seconds=1.0)
    Traceback (most recent call last):
    ...
    InputError: a turn of anna from 0.00 to 2.00 s, and the recording ends ...
    """
    for speaker, spans in turns.items():
        for start, end in spans:
            if end > (seconds + BEYOND) * SAMPLE_RATE:
                raise InputError(
                    f"a turn of {speaker} from {start / SAMPLE_RATE:.2f} to "
                    f"{end / SAMPLE_RATE:.2f} s, and the recording ends at "
                    f"{seconds:.2f} s: is the RTTM file another recording's?"
                )


class TurnFinder:
    """One speaker's turns as regions of speech, in step with the audio.

    Arguments
    ---------
    turns : list of tuple
        ``(start, end)`` in samples, in order, apart.
    speaker : str
        Whose, for messages.

    Example
    -------
    >>> import numpy as np
    >>> finder = TurnFinder([(8000, 24000)], "anna")
    >>> finder(np.zeros(16000))
    [Span(start=8000, end=16000, ended=False)]
    >>> finder(np.zeros(16000))
    [Span(start=8000, end=24000, ended=True)]
    """

    memory = 0

    def __init__(self, turns, speaker):
        self.turns, self.speaker = list(turns), speaker
        self.now = 0

    def __call__(self, samples):
        """Listen on; as `speechbrain_mser.timeline.speech.SpeechFinder`."""
        self.now += len(samples)
        spans = []
        while self.turns and self.turns[0][0] < self.now:
            start, end = self.turns[0]
            ended = end <= self.now
            spans.append(Span(start, min(end, self.now), ended))
            if not ended:
                break
            self.turns.pop(0)
        return spans

    def close(self, length=None):
        """What is left at the end; turns beyond it are refused."""
        length = self.now if length is None else length
        check_end({self.speaker: self.turns}, length / SAMPLE_RATE)
        spans = [
            Span(start, min(end, length), True)
            for start, end in self.turns
            if start < length
        ]
        self.turns = []
        return spans
