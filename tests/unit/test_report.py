"""Reports: every number shown is one that was given, and has its source."""

from pathlib import Path

import pytest

from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.intervals import bootstrap_intervals
from speechbrain_mser.evaluation.metrics import FIGURES, emotion_metrics
from speechbrain_mser.evaluation.report import evaluation_report, read_published

ROOT = Path(__file__).resolve().parents[2]
HEADER = "protocol,system,WA,UA,WF1,precision,source,note\n"
WORDS = ["sad", "sad", "angry"], ["sad", "angry", "angry"], ["sad", "angry"]


@pytest.fixture
def published(tmp_path):
    def write(rows):
        path = tmp_path / "published.csv"
        path.write_text(HEADER + rows, encoding="utf-8")
        return path

    return write


# Table I of the paper, the rows "Ours", typed off once more
PAPER = {
    "IEMOCAP-4": (70.3, 72.4, 70.3),
    "IEMOCAP-7": (69.0, 51.3, 68.5),
    "MELD-4": (61.4, 52.6, 59.9),
    "MELD-7": (54.9, 31.4, 49.8),
    "ShEMO-6": (71.3, 57.4, 71.8),
    "AESDD-5": (42.6, 42.6, 36.5),
    "RAVDESS-7": (41.7, 45.3, 34.8),
    "RESD-7": (39.2, 33.0, 33.2),
}


def test_the_papers_numbers_stand_beside_every_protocol_of_its_table():
    found = read_published(ROOT / "hparams" / "published.csv")
    assert set(found) == set(PAPER)
    for protocol, figures in PAPER.items():
        ours = [
            row
            for row in found[protocol]
            if row["system"].startswith("the paper")
        ]
        assert len(ours) == 1
        for name, percent in zip(("WA", "UA", "WF1"), figures, strict=True):
            assert ours[0][name] == pytest.approx(percent / 100)


def test_every_published_number_has_a_source_and_every_row_a_number():
    for rows in read_published(ROOT / "hparams" / "published.csv").values():
        for row in rows:
            assert row["source"]
            assert any(row[name] is not None for name in FIGURES)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("MELD-7,Vesper,,0.268x,,,somewhere,", "0.268x"),
        ("MELD-7,Vesper,,268,,,somewhere,", "'268', expected percent"),
        ("MELD-7,Vesper,,-1,,,somewhere,", "'-1'"),
        ("MELD-7,Vesper,,nan,,,somewhere,", "'nan'"),
        ("MELD-7,Vesper,,26.8,,,,", "Vesper on MELD-7 has no source"),
    ],
)
def test_a_number_that_cannot_be_cited_is_refused(published, row, reason):
    with pytest.raises(InputError, match=reason):
        read_published(published(row + "\n"))


def test_a_file_without_the_columns_is_refused(tmp_path):
    path = tmp_path / "published.csv"
    path.write_text("protocol,system\n")
    with pytest.raises(InputError, match="column WA"):
        read_published(path)
    with pytest.raises(InputError, match="No such file"):
        read_published(tmp_path / "none.csv")


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_ours_theirs_and_the_absent_stand_in_one_table(published):
    path = published('URDU-2,Them,66.7,,,,"Them, 2020",by speaker\n')
    metrics = emotion_metrics(*WORDS)
    metrics["intervals"] = {
        **bootstrap_intervals(*WORDS),
        "WA": [0.123, 0.987],
    }
    metrics["published"] = read_published(path)["URDU-2"]
    metrics["note"] = "all recordings"
    report = evaluation_report({"URDU-2": metrics}, {"RESD-7": "no folder /x"})
    lines = report.splitlines()
    assert cells(lines[2])[:6] == [
        *["URDU-2", "this recogniser", "3", "2", "0.500"],
        "0.667 [0.123, 0.987]",
    ]
    assert cells(lines[3]) == ["URDU-2", "Them", "", "", "", "0.667", *[""] * 3]
    assert cells(lines[4])[:2] == ["RESD-7", "absent: no folder /x"]
    assert len({len(line) for line in lines[:5]}) == 1
    assert "- URDU-2: all recordings." in lines
    assert "- URDU-2, Them: Them, 2020 (by speaker)." in lines
    assert (
        "- Intervals: 95 %, percentile bootstrap, 2,000 resamples of "
        "utterances: URDU-2 (3). Fewer than 10 speakers are known there: for "
        "other voices these are too narrow." in lines
    )


def test_a_set_that_its_calibration_was_fitted_on_says_so():
    metrics = emotion_metrics(*WORDS)
    none = {"WA": 0.5, "UA": 0.5, "ECE": 0.25, "brier": 0.5, "NLL": 0.7}
    metrics |= {"calibrations": {"none": none}, "calibrated_on_it": True}
    report = evaluation_report({"mine": metrics})
    assert "| 0.250 | 0.500 | 0.700 |" in report
    assert "fitted on utterances of this set" in report
    metrics["calibrated_on_it"] = False
    assert "fitted on" not in evaluation_report({"mine": metrics})


def test_a_report_without_notes_is_its_tables():
    report = evaluation_report({"mine": emotion_metrics(*WORDS)})
    assert [len(part.splitlines()) for part in report.split("\n\n")] == [3, 3]


def test_each_labels_recall_is_shown_and_what_was_not_trained_is_marked():
    # sad: one of two; angry: one of one
    mine = emotion_metrics(*WORDS)
    words = ["sad", "sad"], ["sad", "fear"], ["sad", "angry", "fear"]
    other = {**emotion_metrics(*words), "untrained": ["fear"]}
    report = evaluation_report({"mine": mine, "other": other})
    lines = report.splitlines()
    table = [cells(line) for line in lines[lines.index("") + 1 :][:4]]
    assert table[0] == ["recall", "sad", "angry", "fear"]
    assert table[2] == ["mine", "0.500", "1.000", ""]
    assert table[3] == ["other", "0.500", "-", "-*"]
    assert "- *: zero-shot, no utterance with this label was" in report
    assert "zero-shot" not in evaluation_report({"mine": mine})
