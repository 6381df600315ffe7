"""A timeline as text of other programs' formats."""

import csv
import io
import re
from datetime import timedelta
from pathlib import PurePath

from speechbrain_mser.files.csv_files import guard
from speechbrain_mser.timeline.elan import to_eaf

_COLUMNS = ("start", "end", "speaker", "emotion", "probability")


def to_csv(timeline):
    """A row for each segment; a column ``p_LABEL`` for each label.

    Arguments
    ---------
    timeline : Timeline
        With any number of segments.

    Returns
    -------
    str
        Times in seconds. What a spreadsheet would take for a formula has an
        apostrophe before it.
    """
    labels = [f"p_{label}" for label in timeline.labels]
    rows = []
    for segment in timeline.segments:
        row = segment.to_dict()
        row["speaker"] = row["speaker"] or ""
        probabilities = row.pop("probabilities")
        rows.append([*row.values(), *probabilities.values()])
    return _table([*_COLUMNS, *labels], rows)


def to_audformat(timeline):
    """A segmented table of audformat: file, start, end, then columns.

    Arguments
    ---------
    timeline : Timeline
        With any number of segments.

    Returns
    -------
    str
        ``audformat.utils.read_csv`` reads it; times as pandas writes them.
    """
    rows = [
        [
            timeline.source,
            _pandas_time(one["start"]),
            _pandas_time(one["end"]),
            one["emotion"],
            one["probability"],
            one["speaker"] or "",
        ]
        for one in (segment.to_dict() for segment in timeline.segments)
    ]
    names = ("file", "start", "end", "emotion", "probability", "speaker")
    return _table(names, rows)


def to_rttm(timeline):
    """RTTM lines, the emotion in the place of the speaker's name.

    Where speakers are known a name is ``SPEAKER/EMOTION``. The probability is
    the confidence.

    Arguments
    ---------
    timeline : Timeline
        With any number of segments.

    Returns
    -------
    str
        A line for each segment; spaces in names are underscores.
    """
    file = rttm_word(PurePath(timeline.source).stem)
    lines = []
    for segment in timeline.segments:
        name = segment.emotion
        if segment.speaker is not None:
            name = f"{segment.speaker}/{name}"
        start, end = round(segment.start, 3), round(segment.end, 3)
        lines.append(
            f"SPEAKER {file} 1 {start:.3f} {end - start:.3f} <NA> <NA> "
            f"{rttm_word(name)} {segment.probability:.4f} <NA>\n"
        )
    return "".join(lines)


def to_textgrid(timeline):
    """Praat's TextGrid: two tiers for each speaker.

    The first has the emotion, the second its probability; between segments
    there are intervals without text, as Praat wants.

    Arguments
    ---------
    timeline : Timeline
        With any number of segments.

    Returns
    -------
    str
        Of Praat's long kind.
    """
    end = round(timeline.duration, 3)
    tiers = []
    for speaker, own in timeline.by_speaker():
        before = f"{speaker} " if speaker is not None else ""
        words = [one.emotion for one in own]
        numbers = [f"{one.probability:.4f}" for one in own]
        tiers += [
            (f"{before}emotion", _intervals(own, words, end)),
            (f"{before}probability", _intervals(own, numbers, end)),
        ]
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {end}",
        "tiers? <exists>",
        f"size = {len(tiers)}",
        "item []:",
    ]
    for number, (name, intervals) in enumerate(tiers, start=1):
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f"        name = {_quoted(name)}",
            "        xmin = 0",
            f"        xmax = {end}",
            f"        intervals: size = {len(intervals)}",
        ]
        for place, (first, last, text) in enumerate(intervals, start=1):
            lines += [
                f"        intervals [{place}]:",
                f"            xmin = {first}",
                f"            xmax = {last}",
                f"            text = {_quoted(text)}",
            ]
    return "\n".join(lines) + "\n"


FORMATS = {
    "csv": to_csv,
    "rttm": to_rttm,
    "textgrid": to_textgrid,
    "eaf": to_eaf,
    "audformat": to_audformat,
}


def _table(names, rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([guard(name) for name in names])
    writer.writerows([guard(cell) for cell in row] for row in rows)
    return text.getvalue()


def _pandas_time(seconds):
    """Example: 0 days 00:01:02.500000"""
    time = timedelta(milliseconds=round(seconds * 1000))
    minutes, seconds = divmod(time.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{time.days} days {hours:02}:{minutes:02}:{seconds:02}."
        f"{time.microseconds:06}"
    )


def rttm_word(text):
    """A name as one of RTTM's columns: without spaces, and not empty.

    Example
    -------
    >>> rttm_word("second call")
    'second_call'
    """
    return re.sub(r"\s+", "_", text.strip()) or "audio"


def _quoted(text):
    return '"{}"'.format(text.replace('"', '""'))


def _intervals(segments, texts, end):
    """``(start, end, text)`` without gaps, from 0 to the end."""
    intervals, now = [], 0.0
    for segment, text in zip(segments, texts, strict=True):
        first, last = round(segment.start, 3), round(segment.end, 3)
        if first > now:
            intervals.append((now, first, ""))
        intervals.append((first, last, text))
        now = last
    if now < end or not intervals:
        intervals.append((now, end, ""))
    return intervals
