"""The timeline of a whole recording."""

import os

import soundfile
from tqdm import tqdm

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.dataio.audio_blocks import read_blocks
from speechbrain_mser.timeline.segments import Timeline
from speechbrain_mser.timeline.stream import CHANNELS, EmotionStream
from speechbrain_mser.timeline.turns import check_end, read_turns

_BAR = (
    "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s "
    "[{elapsed}<{remaining}]"
)


def make_timeline(
    recognizer,
    source,
    labels=None,
    speakers=None,
    listen=True,
    sample_rate=SAMPLE_RATE,
    progress=True,
    **settings,
):
    """Who felt what and when in a recording of any length.

    The recording goes through an `EmotionStream` once, block by block, so
    that ten hours take no more memory than ten minutes, and the segments are
    the stream's.

    Arguments
    ---------
    recognizer : EmotionRecognizer
        Who recognises.
    source : path-like, array, tensor, bytes, open file or iterable
        A file of any kind and length, its content, or an open one (read as a
        whole); a signal ``[time]`` or ``[time, channel]`` of floating point;
        or an iterable of such signals, which is read once.
    labels, speakers, listen
        As for `EmotionStream`; of an RTTM file the turns of the recording.
    sample_rate : int
        Of signals, in Hz.
    progress : bool
        Show how far it is.
    **settings : dict
        More of `EmotionStream`'s: ``window``, ``hop``, ``delay``,
        ``threshold``, ``pause``, ``calibration``.

    Returns
    -------
    Timeline
        Without segments, where nobody speaks.

    Raises
    ------
    InputError
        The recording cannot be used, or a setting.

    Example
    -------
    >>> timeline = make_timeline(recognizer, "call.wav")  # doctest: +SKIP
    >>> timeline.write("call.TextGrid", "textgrid")  # doctest: +SKIP
    """
    name = os.fspath(source) if isinstance(source, os.PathLike) else source
    # Of a file alone: another may be called "audio"
    name = name if isinstance(name, str) else None
    by_turns = speakers not in (None, CHANNELS)
    if by_turns:
        speakers = read_turns(speakers, name)
    stream = EmotionStream(recognizer, labels, speakers, listen, **settings)
    blocks = read_blocks(source, sample_rate, mono=speakers != CHANNELS)
    seconds = None if name is None else _seconds(name)
    if seconds and by_turns:
        # Before ten hours have passed
        check_end(speakers, seconds)
    segments = []
    with tqdm(
        total=seconds,
        desc="timeline",
        bar_format=_BAR if seconds else "{desc}: {n:.0f} s [{elapsed}]",
        disable=not progress,
    ) as bar:
        for block in blocks:
            segments += stream.push(block)
            bar.update(len(block) / SAMPLE_RATE)
        segments += stream.close()
    segments.sort(key=lambda one: (one.start, one.speaker or ""))
    return Timeline(
        segments,
        stream.labels,
        stream.duration,
        name or "audio",
        stream.calibration,
    )


def _seconds(path):
    """How long a file says that it is, if it does."""
    try:
        return soundfile.info(path).duration
    # A name that is no text, for soundfile
    except (OSError, RuntimeError, UnicodeError):
        return None
