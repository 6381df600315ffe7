"""A timeline as HTML: segments to click on, and files to take away."""

import base64
from html import escape
from pathlib import Path

from speechbrain_mser.evaluation.drawing import emotion_colors
from speechbrain_mser.timeline.drawing import clock

CSS = """
.mser-name { margin-top: 0.5rem; font-size: 0.9em; overflow-wrap: anywhere; }
.mser-row { position: relative; isolation: isolate; height: 4rem;
  background: white; border-bottom: 1px solid #888; }
.mser-row button { position: absolute; bottom: 0; min-width: 2px; margin: 0;
  border: 0; border-radius: 0; padding: 0; cursor: pointer; }
.mser-axis, .mser-words, .mser-files { display: flex; flex-wrap: wrap;
  gap: 0.2rem 1rem; margin: 0.3rem 0; }
.mser-axis { justify-content: space-between; opacity: 0.7; }
.mser-words i { display: inline-block; width: 0.8em; height: 0.8em;
  margin-right: 0.3em; }
.mser-list { max-height: 20rem; overflow: auto; }
.mser-list table { width: 100%; border-collapse: collapse; }
.mser-list td { padding: 0.3rem 0.5rem 0.3rem 0; }
.mser-list tr { cursor: pointer; border-bottom: 1px solid #8884; }
.mser-files a { text-decoration: underline; }
"""
# A click on whatever has a start and an end asks for what is between them.
SCRIPT = """
element.addEventListener("click", (event) => {
  const place = event.target.closest("[data-start]");
  if (place) trigger("click", {
    start: Number(place.dataset.start), end: Number(place.dataset.end) });
});
"""
FILES = {"json": "application/json", "csv": "text/csv"}


def timeline_html(timeline):
    """A timeline as HTML.

    A row for each speaker; a segment is as high as its emotion is probable.

    Arguments
    ---------
    timeline : Timeline
        With at least one segment.

    Returns
    -------
    str
        HTML, and in it the timeline as JSON and CSV: nothing is kept for
        those who may want to have it.

    Example
    -------
    >>> from speechbrain_mser.timeline import Segment, Timeline
    >>> segment = Segment(0.5, 2.0, None, {"angry": 0.8, "sad": 0.2})
    >>> timeline = Timeline([segment], ["angry", "sad"], 3.0)
    >>> "<td>0:00.5 – 0:02.0</td><td>angry</td>" in timeline_html(timeline)
    True
    """
    colors = emotion_colors(timeline.labels)
    found = {one.emotion for one in timeline.segments}
    return "\n".join(
        [
            *(_row(timeline, name, colors) for name in timeline.speakers),
            _axis(timeline.duration),
            _words([word for word in timeline.labels if word in found], colors),
            _list(timeline),
            _files(timeline),
        ]
    )


def _place(segment):
    return f'data-start="{segment.start:.3f}" data-end="{segment.end:.3f}"'


def _row(timeline, speaker, colors):
    bars = "".join(
        _bar(one, timeline.duration, colors[one.emotion])
        for one in timeline.segments
        if one.speaker == speaker
    )
    row = f'<div class="mser-row">{bars}</div>'
    if speaker is None:
        return row
    return f'<div class="mser-name">{escape(speaker)}</div>{row}'


def _bar(segment, duration, color):
    what = escape(
        f"{clock(segment.start)} {segment.emotion} {segment.probability:.2f}"
    )
    left, width = (
        100 * seconds / duration
        for seconds in (segment.start, segment.end - segment.start)
    )
    # The shorter lies above the longer beside it
    above = round(1000 / (1 + segment.end - segment.start))
    return (
        f'<button {_place(segment)} title="{what}" aria-label="{what}" '
        f'style="left:{left:.3f}%;width:{width:.3f}%;'
        f"height:{100 * segment.probability:.0f}%;background:{color};"
        f'z-index:{above}">'
        "</button>"
    )


def _axis(duration):
    times = (clock(part * duration / 4) for part in range(5))
    marks = "".join(f"<span>{time}</span>" for time in times)
    return f'<div class="mser-axis">{marks}</div>'


def _words(words, colors):
    marks = "".join(
        f'<span><i style="background:{colors[word]}"></i>{escape(word)}</span>'
        for word in words
    )
    return f'<div class="mser-words">{marks}</div>'


def _list(timeline):
    told = timeline.speakers != [None]
    rows = []
    for one in timeline.segments:
        cells = [f"{clock(one.start, 1)} – {clock(one.end, 1)}"]
        cells += [one.speaker or ""] if told else []
        cells += [one.emotion, f"{one.probability:.2f}"]
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        rows.append(f"<tr {_place(one)}>{cells}</tr>")
    return f'<div class="mser-list"><table>{"".join(rows)}</table></div>'


def _files(timeline):
    stem = escape(Path(timeline.source).stem)
    links = []
    for form, kind in FILES.items():
        text = timeline.to_text(form).encode("utf-8")
        data = base64.b64encode(text).decode("ascii")
        links.append(
            f'<a download="{stem}.{form}" '
            f'href="data:{kind};base64,{data}">{form.upper()}</a>'
        )
    return f'<div class="mser-files">{"".join(links)}</div>'
