"""A timeline is read back from every format as what was written."""

import csv
import io
import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest

from speechbrain_mser.errors import InputError
from speechbrain_mser.timeline import Segment, Timeline
from speechbrain_mser.timeline.turns import read_turns

LABELS = ["angry", "very sad"]


@pytest.fixture
def call():
    """Two speakers, of whom one is interrupted."""
    rows = [
        (0.5, 2.25, "anna", 0.75),
        (2.0, 3.0, 'bert "B"', 0.125),
        (2.25, 4.0, "anna", 0.25),
    ]
    segments = [
        Segment(start, end, who, {"angry": p, "very sad": 1 - p})
        for start, end, who, p in rows
    ]
    return Timeline(segments, LABELS, 5.0, "calls/my call.wav")


@pytest.fixture
def nobody():
    """Five seconds in which nobody speaks."""
    return Timeline([], LABELS, 5.0, "silence.wav")


FORMATS = ("json", "csv", "rttm", "textgrid", "audformat")


def test_a_segments_emotion_is_the_most_probable(call):
    assert [one.emotion for one in call.segments] == [
        "angry",
        "very sad",
        "very sad",
    ]
    assert [one.probability for one in call.segments] == [0.75, 0.875, 0.75]


def test_json_has_all_of_it(call):
    data = json.loads(call.to_json())
    assert (data["format"], data["version"]) == ("speechbrain_mser.timeline", 1)
    assert data["source"] == "calls/my call.wav" and data["duration"] == 5.0
    assert data["labels"] == LABELS
    assert data["segments"][1] == {
        "start": 2.0,
        "end": 3.0,
        "speaker": 'bert "B"',
        "emotion": "very sad",
        "probability": 0.875,
        "probabilities": {"angry": 0.125, "very sad": 0.875},
    }


def test_csv_has_a_column_for_each_label(call):
    rows = list(csv.DictReader(io.StringIO(call.to_text("csv"))))
    assert list(rows[0]) == [
        *("start", "end", "speaker", "emotion", "probability"),
        *("p_angry", "p_very sad"),
    ]
    assert rows[2] == {
        "start": "2.25",
        "end": "4.0",
        "speaker": "anna",
        "emotion": "very sad",
        "probability": "0.75",
        "p_angry": "0.25",
        "p_very sad": "0.75",
    }


def test_a_speaker_called_like_a_formula_is_not_computed():
    segment = Segment(0.0, 1.0, "=1+1", {"angry": 1.0})
    text = Timeline([segment], ["angry"], 1.0, "=a.wav").to_text
    assert ",'=1+1," in text("csv")
    assert "\n'=a.wav," in text("audformat")


def test_rttm_is_read_as_turns(call, tmp_path):
    call.write(tmp_path / "a.rttm", "rttm")
    assert read_turns(tmp_path / "a.rttm") == {
        "anna/angry": [(8000, 36000)],
        "anna/very_sad": [(36000, 64000)],
        'bert_"B"/very_sad': [(32000, 48000)],
    }
    first = (tmp_path / "a.rttm").read_text().splitlines()[0]
    assert first == (
        "SPEAKER my_call 1 0.500 1.750 <NA> <NA> anna/angry 0.7500 <NA>"
    )


def read_textgrid(text):
    """Tiers by name: ``[(start, end, text), ...]``; a reader of its own."""
    tiers = {}
    for block in re.split(r"item \[\d+\]:", text)[1:]:
        name = re.search(r'name = "((?:[^"]|"")*)"', block).group(1)
        found = re.findall(
            r"intervals \[\d+\]:\s+xmin = (\S+)\s+xmax = (\S+)\s+"
            r'text = "((?:[^"]|"")*)"',
            block,
        )
        count = int(re.search(r"intervals: size = (\d+)", block).group(1))
        assert count == len(found)
        tiers[name.replace('""', '"')] = [
            (float(a), float(b), words) for a, b, words in found
        ]
    assert f"size = {len(tiers)}\n" in text
    return tiers


def test_a_textgrid_has_tiers_without_gaps(call):
    tiers = read_textgrid(call.to_text("textgrid"))
    assert set(tiers) == {
        *("anna emotion", "anna probability"),
        *('bert "B" emotion', 'bert "B" probability'),
    }
    assert tiers["anna emotion"] == [
        (0.0, 0.5, ""),
        (0.5, 2.25, "angry"),
        (2.25, 4.0, "very sad"),
        (4.0, 5.0, ""),
    ]
    assert tiers['bert "B" probability'][1] == (2.0, 3.0, "0.8750")


def test_audformat_reads_its_table(call, tmp_path):
    audformat = pytest.importorskip("audformat")
    call.write(tmp_path / "a.csv", "audformat")
    table = audformat.utils.read_csv(tmp_path / "a.csv")
    assert table.index.names == ["file", "start", "end"]
    assert set(table.index.get_level_values("file")) == {call.source}
    ends = table.index.get_level_values("end").total_seconds()
    np.testing.assert_allclose(ends, [2.25, 3.0, 4.0])
    assert table["emotion"].tolist() == ["angry", "very sad", "very sad"]


def test_pyannote_has_emotions_by_segment(call):
    core = pytest.importorskip("pyannote.core")
    annotation = call.to_annotation()
    found = [
        (span.start, span.end, track, label)
        for span, track, label in annotation.itertracks(yield_label=True)
    ]
    assert found[0] == (0.5, 2.25, "anna", "angry")
    assert annotation.label_duration("very sad") == 2.0  # of either
    assert isinstance(annotation, core.Annotation)


@pytest.mark.parametrize("format", FORMATS)
def test_a_name_that_is_no_text_is_written_in_any_format(
    call, format, tmp_path
):
    odd = replace(call, source=os.fsdecode(b"caf\xe9.wav"))
    odd.write(tmp_path / "a", format)
    written = (tmp_path / "a").read_bytes()
    if format == "json":
        assert json.loads(written.decode())["source"] == odd.source
    elif format in ("rttm", "audformat"):
        assert b"caf\xe9" in written


@pytest.mark.parametrize("format", FORMATS)
def test_nobody_speaks_in_any_format(nobody, format, tmp_path):
    nobody.write(tmp_path / "new" / "a", format)
    stream = io.StringIO()
    nobody.write(stream, format)
    assert (tmp_path / "new" / "a").read_text("utf-8") == stream.getvalue()
    if format == "textgrid":
        assert read_textgrid(stream.getvalue())["emotion"] == [(0.0, 5.0, "")]


@pytest.mark.parametrize("format", ["xml", "", None, "JSON"])
def test_an_unknown_format_writes_nothing(call, format, tmp_path):
    with pytest.raises(InputError, match=r"expected one of json, csv"):
        call.write(tmp_path / "a", format)
    assert not list(tmp_path.iterdir())
