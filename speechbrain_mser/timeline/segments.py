"""A timeline: segments of one emotion, with times, speaker, probabilities."""

import json
from dataclasses import dataclass, field

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.timeline.formats import FORMATS

# Of the JSON; to be raised when a key changes its meaning or goes.
FORMAT, VERSION = "speechbrain_mser.timeline", 2


@dataclass(frozen=True)
class Segment:
    """A piece of speech with one emotion.

    Arguments
    ---------
    start, end : float
        In seconds.
    speaker : str or None
        Who speaks, where that is known.
    probabilities : dict
        Of every label, in the labels' order; they sum to one.

    Example
    -------
    >>> segment = Segment(0.5, 2.0, None, {"angry": 0.8, "sad": 0.2})
    >>> segment.emotion, segment.probability
    ('angry', 0.8)
    """

    start: float
    end: float
    speaker: str | None
    probabilities: dict

    @property
    def emotion(self):
        """The most probable label."""
        return max(self.probabilities, key=self.probabilities.get)

    @property
    def probability(self):
        """How probable it is."""
        return self.probabilities[self.emotion]

    def to_dict(self):
        """As plain values, times to the millisecond."""
        return {
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "speaker": self.speaker,
            "emotion": self.emotion,
            "probability": round(self.probability, 6),
            "probabilities": {
                label: round(value, 6)
                for label, value in self.probabilities.items()
            },
        }


@dataclass(frozen=True)
class Timeline:
    """Who felt what and when in a recording.

    Arguments
    ---------
    segments : list of Segment
        By start, then speaker; those of one speaker do not overlap.
    labels : list of str
        The candidates.
    duration : float
        Of the recording, in seconds.
    source : str
        Its name.
    calibration : str
        What was taken back of the probabilities, as for `EmotionStream`.

    Example
    -------
    >>> segment = Segment(0.5, 2.0, None, {"angry": 0.8, "sad": 0.2})
    >>> timeline = Timeline([segment], ["angry", "sad"], 3.0, "call.wav")
    >>> print(timeline.to_text("rttm"), end="")
    SPEAKER call 1 0.500 1.500 <NA> <NA> angry 0.8000 <NA>
    """

    segments: list = field(default_factory=list)
    labels: list = field(default_factory=list)
    duration: float = 0.0
    source: str = "audio"
    calibration: str = "none"

    @property
    def speakers(self):
        """Those who speak, in order; ``[None]`` where they are not told."""
        found = {segment.speaker for segment in self.segments}
        return sorted(found, key=lambda name: (name is not None, name or ""))

    def by_speaker(self):
        """``(speaker, segments)`` of each; of ``None`` where nobody speaks."""
        for speaker in self.speakers or [None]:
            own = [one for one in self.segments if one.speaker == speaker]
            yield speaker, own

    def to_dict(self):
        """As plain values: what `to_json` writes."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "source": self.source,
            "duration": round(self.duration, 3),
            "labels": list(self.labels),
            "calibration": self.calibration,
            "segments": [segment.to_dict() for segment in self.segments],
        }

    def to_json(self):
        """As JSON text, in UTF-8 even where the source's name is not."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            text = json.dumps(self.to_dict(), indent=2)
        return text + "\n"

    def to_text(self, format):
        """As text of a format.

        Arguments
        ---------
        format : str
            "json"; "csv"; "rttm"; "textgrid", for Praat; "eaf", for ELAN; or
            "audformat", a table that audEERING's tools read.

        Returns
        -------
        str
            All of it.

        Raises
        ------
        InputError
            There is no such format.
        """
        if format == "json":
            return self.to_json()
        if format not in FORMATS:
            raise InputError(
                f"format is {format!r}, expected one of json, "
                f"{', '.join(FORMATS)}"
            )
        return FORMATS[format](self)

    def write(self, file, format="json"):
        """Write it to a file, whole or not at all, or to an open one.

        Arguments
        ---------
        file : path-like or text stream
            Where to.
        format : str
            As for `to_text`.

        Raises
        ------
        InputError
            There is no such format.
        """
        text = self.to_text(format)
        if hasattr(file, "write"):
            file.write(text)
        else:
            write_text(file, text)

    def to_annotation(self):
        """As pyannote's annotation: emotions by segment, speakers as tracks.

        Returns
        -------
        pyannote.core.Annotation
            To be drawn, compared and cropped with pyannote's tools.

        Raises
        ------
        InputError
            pyannote.core is not installed.
        """
        try:
            from pyannote import core
        except ImportError:
            raise InputError(
                "an annotation needs pyannote.core: pip install pyannote.core"
            ) from None
        annotation = core.Annotation(uri=self.source)
        for segment in self.segments:
            span = core.Segment(segment.start, segment.end)
            annotation[span, segment.speaker or "_"] = segment.emotion
        return annotation
