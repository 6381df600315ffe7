"""Who feels what and when: recordings of any length, and streams."""

from speechbrain_mser.timeline.segments import Segment, Timeline
from speechbrain_mser.timeline.stream import EmotionStream
from speechbrain_mser.timeline.whole import make_timeline

__all__ = [
    "EmotionStream",
    "Segment",
    "Timeline",
    "make_timeline",
    "plot_timeline",
]


def __getattr__(name):
    # matplotlib, for a drawing alone: 25 MiB and half a second
    if name != "plot_timeline":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from speechbrain_mser.timeline.drawing import plot_timeline

    return plot_timeline
