"""A timeline as a picture: what each speaker felt, and how surely."""

import math
from pathlib import Path

from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MultipleLocator

from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.drawing import (
    DPI,
    emotion_colors,
    new_figure,
)
from speechbrain_mser.files.atomic import atomic_path

KINDS = (".png", ".pdf", ".svg")
# Inches; of a line with the rows of all speakers, the space around them too.
WIDTH, ROW, AROUND = 10, 0.9, 0.45
# Seconds of a line: half an hour has room for a segment of two seconds.
# Longer recordings have several, and from 24 on longer ones.
LINE, LINES = 1800, 24
# Seconds between two marks of the time, of which an axis has ten at most.
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)
STEPS += (60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)
# Characters of a name, which may be of any length.
LONGEST = 40


def plot_timeline(timeline, path=None, speaker=None):
    """Draw a timeline: a row for each speaker, a bar for each segment.

    A bar is as high as its emotion is probable; a line says how high that
    were by chance. What is longer than half an hour goes on below.

    Arguments
    ---------
    timeline : Timeline
        With any number of segments.
    path : str or path-like, optional
        A file to make or replace: ``.png``, ``.pdf`` or ``.svg``.
    speaker : str, optional
        Whose row alone to draw; by default those of all.

    Returns
    -------
    matplotlib.figure.Figure
        The picture, which a notebook shows.

    Raises
    ------
    InputError
        Another kind of file, or a speaker who does not speak.

    Example
    -------
    >>> from speechbrain_mser.timeline.segments import Segment, Timeline
    >>> segment = Segment(0.5, 2.0, "anna", {"angry": 0.8, "sad": 0.2})
    >>> timeline = Timeline([segment], ["angry", "sad"], 3.0)
    >>> path = getfixture("tmp_path") / "call.png"
    >>> figure = plot_timeline(timeline, path)
    >>> path.stat().st_size > 0
    True
    """
    kind = None if path is None else Path(path).suffix.lower()
    if kind not in (None, *KINDS):
        raise InputError(
            f"{path}: a picture's name ends in one of {', '.join(KINDS)}"
        )
    speakers = timeline.speakers or [None]
    if speaker is not None:
        if speaker not in speakers:
            raise InputError(
                f"speaker {speaker!r} is not in the timeline, which has "
                f"{', '.join(map(repr, speakers))}"
            )
        speakers = [speaker]
    figure = _draw(timeline, speakers)
    if path is not None:
        with atomic_path(path) as partial:
            figure.savefig(partial, dpi=DPI, format=kind.removeprefix("."))
    return figure


def clock(seconds, decimals=0):
    """Hours, where there are any, minutes and seconds.

    Arguments
    ---------
    seconds : float
        A time.
    decimals : int
        Of the seconds.

    Returns
    -------
    str
        As clocks show it.

    Example
    -------
    >>> clock(62.36), clock(59.97, 1), clock(3723)
    ('1:02', '1:00.0', '1:02:03')
    """
    seconds = round(seconds, decimals)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    rest = f"{seconds:0{3 + decimals if decimals else 2}.{decimals}f}"
    return f"{hours}:{minutes:02}:{rest}" if hours else f"{minutes}:{rest}"


def _draw(timeline, speakers):
    line = LINE * max(1, math.ceil(timeline.duration / LINE / LINES))
    lines = max(1, math.ceil(timeline.duration / line))
    length = line if lines > 1 else max(timeline.duration, 0.1)
    words = {
        one.emotion for one in timeline.segments if one.speaker in speakers
    }
    words = [word for word in timeline.labels if word in words]
    colors = emotion_colors(timeline.labels)
    figure = new_figure(WIDTH, AROUND + lines * (ROW * len(speakers) + AROUND))
    grid = figure.subplots(lines * len(speakers), squeeze=False)[:, 0]
    for number, axes in enumerate(grid):
        line, row = divmod(number, len(speakers))
        name, begin = speakers[row], line * length
        own = [one for one in timeline.segments if one.speaker == name]
        _draw_row(axes, own, colors, begin, begin + length)
        if lines > 1 and begin + length > timeline.duration:
            axes.axvspan(timeline.duration, begin + length, color="0.93")
        if row < len(speakers) - 1:
            axes.tick_params(labelbottom=False)
        if name is not None:
            _write(axes.set_title("", loc="left", fontsize=9), name)
    if timeline.labels:
        _add_chance(grid, len(timeline.labels))
    figure.supylabel("probability", fontsize=9)
    _add_legend(figure, words, colors)
    return figure


def _draw_row(axes, segments, colors, begin, end):
    """A speaker's bars within a line of time."""
    thinnest = (end - begin) / (WIDTH * DPI) * 1.5
    drawn = []
    for one in segments:
        if one.start < end and one.end > begin:
            left = min(max(one.start, begin), end - thinnest)
            right = max(min(one.end, end), left + thinnest)
            drawn.append((left, right, one.probability, colors[one.emotion]))
    # The shortest last: no neighbour hides it
    drawn.sort(key=lambda bar: bar[0] - bar[1])
    axes.add_collection(
        PolyCollection(
            [
                [(left, 0), (left, top), (right, top), (right, 0)]
                for left, right, top, _ in drawn
            ],
            facecolors=[color for *_, color in drawn],
            linewidths=0,
        )
    )
    step = next((one for one in STEPS if (end - begin) / one <= 10), STEPS[-1])
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda now, _: clock(now, int(step < 1)))
    )
    axes.set(xlim=(begin, end), ylim=(0, 1), yticks=(0, 1))
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _add_chance(grid, n_labels):
    """A line as high as a bar were by chance; the first is explained."""
    for axes in grid:
        axes.axhline(1 / n_labels, color="0.4", linewidth=0.8, linestyle="--")
    grid[0].text(
        *(1.005, 1 / n_labels, f"chance\n1/{n_labels}"),
        transform=grid[0].get_yaxis_transform(),
        **{"fontsize": 7, "color": "0.4", "va": "center"},
    )


def _add_legend(figure, words, colors):
    if not words:
        return
    legend = figure.legend(
        handles=[Patch(color=colors[word]) for word in words],
        labels=["-"] * len(words),
        loc="outside upper center",
        ncols=min(len(words), 8),
        frameon=False,
        fontsize=9,
    )
    for text, word in zip(legend.get_texts(), words, strict=True):
        _write(text, word)


def _write(text, words):
    """Put a stranger's words there, which are no formula and may be long."""
    text.set_parse_math(False)
    words = "".join(
        one if one.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for one in words
    )
    text.set_text(words if len(words) <= LONGEST else words[:LONGEST] + "…")
