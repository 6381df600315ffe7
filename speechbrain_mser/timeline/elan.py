"""A timeline as ELAN's own file: EAF, version 3.0."""

import mimetypes
import os
import re
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
# The linguistic type of all tiers, and the tier where no speaker is known.
_EMOTION = "emotion"
# What XML cannot hold: control characters, halves of surrogate pairs.
_NO_XML = re.compile(
    "[^\\t\\n\\r\\u0020-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]"
)


def to_eaf(timeline):
    """A tier for each speaker, with their emotions.

    Arguments
    ---------
    timeline : Timeline
        With any number of segments.

    Returns
    -------
    str
        XML, the same for the same timeline. It names the recording, where
        that is a file. What XML cannot hold of a name is U+FFFD.

    Example
    -------
    >>> from speechbrain_mser.timeline import Segment, Timeline
    >>> segment = Segment(0.5, 2.0, "anna", {"angry": 1.0})
    >>> text = to_eaf(Timeline([segment], ["angry"], 3.0, "call.wav"))
    >>> print(*text.splitlines()[3:7], sep="\\n")
      <TIME_ORDER>
        <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="500" />
        <TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="2000" />
      </TIME_ORDER>
    """
    root = Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "speechbrain_mser",
            # There must be one; ELAN puts its own when it saves
            "DATE": "1970-01-01T00:00:00+00:00",
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:noNamespaceSchemaLocation": _SCHEMA,
        },
    )
    _add_header(root, timeline.source)
    order = SubElement(root, "TIME_ORDER")
    slots, names = [], set()
    for speaker, own in timeline.by_speaker():
        _add_tier(root, speaker, own, slots, names)
    for time, _, name in sorted(slots, key=lambda slot: slot[:2]):
        SubElement(order, "TIME_SLOT", TIME_SLOT_ID=name, TIME_VALUE=str(time))
    SubElement(
        root,
        "LINGUISTIC_TYPE",
        GRAPHIC_REFERENCES="false",
        LINGUISTIC_TYPE_ID=_EMOTION,
        TIME_ALIGNABLE="true",
    )
    indent(root)
    return f"{_HEAD}{tostring(root, encoding='unicode')}\n"


def _add_header(root, source):
    header = SubElement(root, "HEADER", TIME_UNITS="milliseconds")
    if os.path.isfile(source):
        SubElement(
            header,
            "MEDIA_DESCRIPTOR",
            MEDIA_URL=Path(source).absolute().as_uri(),
            MIME_TYPE=mimetypes.guess_type(source)[0] or "unknown",
        )


def _add_tier(root, speaker, segments, slots, names):
    """A speaker's segments, and their times to those of all tiers."""
    name = _as_xml(_EMOTION if speaker is None else speaker)
    tier = SubElement(
        root,
        "TIER",
        LINGUISTIC_TYPE_REF=_EMOTION,
        TIER_ID=_another(name, names),
    )
    if speaker is not None:
        tier.set("PARTICIPANT", name)
    for first, last, emotion in _milliseconds(segments):
        number = len(slots) // 2 + 1
        begin, end = f"ts{2 * number - 1}", f"ts{2 * number}"
        # At one moment, what ends is before what begins
        slots += [(first, 1, begin), (last, 0, end)]
        annotation = SubElement(
            SubElement(tier, "ANNOTATION"),
            "ALIGNABLE_ANNOTATION",
            ANNOTATION_ID=f"a{number}",
            TIME_SLOT_REF1=begin,
            TIME_SLOT_REF2=end,
        )
        SubElement(annotation, "ANNOTATION_VALUE").text = _as_xml(emotion)


def _milliseconds(segments):
    """``(start, end, emotion)``, of a millisecond at least, none in another."""
    now = 0
    for segment in segments:
        first = max(round(segment.start * 1000), now)
        now = max(round(segment.end * 1000), first + 1)
        yield first, now, segment.emotion


def _as_xml(text):
    return _NO_XML.sub("\ufffd", text)


def _another(name, names):
    """A name that is not among these yet, and is now."""
    own, number = name, 1
    while own in names:
        number += 1
        own = f"{name} {number}"
    names.add(own)
    return own
