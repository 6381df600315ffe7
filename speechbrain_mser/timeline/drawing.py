"""A timeline as a picture: what each speaker felt, and how surely."""

from pathlib import Path

from matplotlib.patches import Patch

from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.drawing import (
    DPI,
    GREY,
    new_figure,
    styles,
)
from speechbrain_mser.files.atomic import atomic_path

KINDS = (".png", ".pdf", ".svg")


def plot_timeline(timeline, path, speaker=None):
    """Draw a timeline: a row for each speaker, a bar for each segment.

    A bar is as high as its emotion is probable.

    Arguments
    ---------
    timeline : Timeline
        With any number of segments.
    path : str or path-like
        A file to make or replace: ``.png``, ``.pdf`` or ``.svg``.
    speaker : str, optional
        Whose row alone to draw; by default those of all.

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
    >>> plot_timeline(timeline, path)
    >>> path.stat().st_size > 0
    True
    """
    path = Path(path)
    if path.suffix.lower() not in KINDS:
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
    shown = styles(list(timeline.labels))
    figure = new_figure(10, 1.1 + 1.2 * len(speakers))
    axes = figure.subplots(len(speakers), sharex=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, speakers, strict=True):
        own = [one for one in timeline.segments if one.speaker == name]
        axis.bar(
            [one.start for one in own],
            [one.probability for one in own],
            [one.end - one.start for one in own],
            align="edge",
            color=[shown[one.emotion][0] for one in own],
            edgecolor="white",
            linewidth=0.5,
        )
        axis.set(ylim=(0, 1), yticks=(0, 1), ylabel=name or "probability")
        axis.axhline(1 / max(len(timeline.labels), 1), color=GREY, lw=0.5)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set(xlim=(0, max(timeline.duration, 0.1)), xlabel="seconds")
    figure.legend(
        handles=[Patch(color=shown[w][0], label=w) for w in timeline.labels],
        loc="outside upper center",
        ncols=min(max(len(timeline.labels), 1), 8),
        frameon=False,
    )
    with atomic_path(path) as partial:
        figure.savefig(
            partial, dpi=DPI, format=path.suffix.lower().removeprefix(".")
        )
