"""A timeline is read back from every format as what was written."""

import csv
import io
import json
import os
import re
from dataclasses import replace
from datetime import datetime
from urllib.request import url2pathname
from xml.etree import ElementTree

import numpy as np
import pympi
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


FORMATS = ("json", "csv", "rttm", "textgrid", "eaf", "audformat")


def test_a_segments_emotion_is_the_most_probable(call):
    assert [one.emotion for one in call.segments] == [
        "angry",
        "very sad",
        "very sad",
    ]
    assert [one.probability for one in call.segments] == [0.75, 0.875, 0.75]


def test_json_has_all_of_it(call):
    data = json.loads(call.to_json())
    assert (data["format"], data["version"]) == ("speechbrain_mser.timeline", 2)
    assert data["source"] == "calls/my call.wav" and data["duration"] == 5.0
    assert data["labels"] == LABELS and data["calibration"] == "none"
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


def read_eaf(text):
    """Tiers by name: ``[(start, end, value), ...]`` in milliseconds.

    What ELAN's schema, EAFv3.0.xsd, asks of a file is asked on the way: which
    elements in which order, which attributes, names that are unique, and
    references to what is there.
    """
    root = ElementTree.fromstring(text.encode())
    assert root.tag == "ANNOTATION_DOCUMENT"
    assert (root.get("FORMAT"), root.get("VERSION")) == ("3.0", "3.0")
    assert root.get("AUTHOR") and datetime.fromisoformat(root.get("DATE"))
    header, order, *tiers, kind = root
    assert header.tag == "HEADER"
    assert header.attrib == {"TIME_UNITS": "milliseconds"}
    for media in header:
        assert media.tag == "MEDIA_DESCRIPTOR"
        assert set(media.attrib) == {"MEDIA_URL", "MIME_TYPE"}
    assert (order.tag, kind.tag) == ("TIME_ORDER", "LINGUISTIC_TYPE")
    assert kind.get("TIME_ALIGNABLE") == "true"
    times = {}
    for slot in order:
        assert slot.tag == "TIME_SLOT"
        assert set(slot.attrib) == {"TIME_SLOT_ID", "TIME_VALUE"}
        assert slot.get("TIME_SLOT_ID") not in times
        times[slot.get("TIME_SLOT_ID")] = int(slot.get("TIME_VALUE"))
    assert list(times.values()) == sorted(times.values())
    found, ids, places = {}, set(times), list(times)
    for tier in tiers:
        assert tier.tag == "TIER" and tier.get("TIER_ID") not in found
        assert tier.get("LINGUISTIC_TYPE_REF") == kind.get("LINGUISTIC_TYPE_ID")
        rows = found[tier.get("TIER_ID")] = []
        for annotation in tier:
            assert annotation.tag == "ANNOTATION" and not annotation.attrib
            (aligned,) = annotation
            assert aligned.tag == "ALIGNABLE_ANNOTATION"
            assert aligned.get("ANNOTATION_ID") not in ids  # both are xsd:ID
            ids.add(aligned.get("ANNOTATION_ID"))
            slots = [aligned.get(f"TIME_SLOT_REF{k}") for k in (1, 2)]
            first, last = (times[slot] for slot in slots)
            assert first < last and places.index(slots[0]) < places.index(
                slots[1]
            )
            (value,) = aligned
            assert value.tag == "ANNOTATION_VALUE"
            rows.append((first, last, value.text))
    assert all(re.fullmatch(r"[A-Za-z_][\w.-]*", one) for one in ids)
    return found


def test_an_eaf_has_a_tier_for_each_speaker(call, tmp_path):
    assert read_eaf(call.to_text("eaf")) == {
        "anna": [(500, 2250, "angry"), (2250, 4000, "very sad")],
        'bert "B"': [(2000, 3000, "very sad")],
    }
    alone = replace(call, segments=[replace(call.segments[0], speaker=None)])
    assert read_eaf(alone.to_text("eaf")) == {"emotion": [(500, 2250, "angry")]}


def test_an_eaf_is_opened_by_another_library(call, tmp_path):
    call.write(tmp_path / "a.eaf", "eaf")
    eaf = pympi.Eaf(tmp_path / "a.eaf")
    assert set(eaf.get_tier_names()) == {"anna", 'bert "B"'}
    found = sorted(eaf.get_annotation_data_for_tier("anna"))
    assert found == [(500, 2250, "angry"), (2250, 4000, "very sad")]
    assert eaf.get_parameters_for_tier("anna")["PARTICIPANT"] == "anna"


def test_an_eaf_knows_its_recording_where_there_is_one(call, tmp_path):
    recording = tmp_path / "d\xfcr & sch\xf6n 100%.wav"
    recording.touch()
    text = replace(call, source=str(recording)).to_text("eaf")
    (media,) = ElementTree.fromstring(text.encode()).find("HEADER")
    url = media.get("MEDIA_URL").removeprefix("file://")
    assert url.isascii() and url2pathname(url) == str(recording)
    assert media.get("MIME_TYPE").startswith("audio/")
    assert not ElementTree.fromstring(call.to_text("eaf").encode()).find(
        "HEADER"
    )


def test_any_names_are_an_eafs():
    names = [
        "<a & b>",
        "a\x00",
        "a\x1b",
        "a\ufffd",
        "\udce9\uffff",
        "\U0001f600",
    ]
    segments = [
        Segment(0.0, 1.0, name, {f"{name} <word>": 1.0, "]]>": 0.0})
        for name in names
    ]
    found = read_eaf(Timeline(segments, [], 1.0, "a\0" * 999).to_text("eaf"))
    assert list(found) == [
        *("<a & b>", "a\ufffd", "a\ufffd 2", "a\ufffd 3"),
        *("\ufffd\ufffd", "\U0001f600"),
    ]
    assert found["<a & b>"] == [(0, 1000, "<a & b> <word>")]


def test_turns_of_less_than_a_millisecond_stay_an_eafs_one_after_the_other():
    times = [(0.0, 0.0001), (0.0002, 0.0003), (0.0004, 1.0), (1.0, 2.0)]
    segments = [Segment(*one, None, {"sad": 1.0}) for one in times]
    found = read_eaf(Timeline(segments, ["sad"], 2.0).to_text("eaf"))
    assert [row[:2] for row in found["emotion"]] == [
        *((0, 1), (1, 2), (2, 1000), (1000, 2000))
    ]


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
    if format == "eaf":
        assert read_eaf(stream.getvalue()) == {"emotion": []}


@pytest.mark.parametrize("format", ["xml", "", None, "JSON"])
def test_an_unknown_format_writes_nothing(call, format, tmp_path):
    with pytest.raises(InputError, match=r"expected one of json, csv"):
        call.write(tmp_path / "a", format)
    assert not list(tmp_path.iterdir())
