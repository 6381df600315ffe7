"""Who feels what and when: recordings of any length, and streams."""

from speechbrain_mser.timeline.drawing import plot_timeline
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
