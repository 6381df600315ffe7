"""Scores beside a folder of translations: complete, resumable, no filter."""

import csv
import hashlib
import json
import shutil

import pytest
from synthesized import synthesize
from trained import train_recognizer

from speechbrain_mser.dataio.manifest import read_manifest, read_manifests
from speechbrain_mser.errors import InputError
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.synthesis.scorers import (
    Clipping,
    DurationRatio,
    EmotionAgreement,
    Scorer,
)
from speechbrain_mser.synthesis.scoring import score_folder


@pytest.fixture(scope="module")
def synthesized(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return folder, synthesize(folder)


@pytest.fixture
def made(synthesized, tmp_path):
    """A copy of a finished folder, and the sources' table."""
    folder, sources = synthesized
    shutil.copytree(folder / "m5ser", tmp_path / "m5ser")
    return tmp_path / "m5ser", read_manifests(sources)


class Counting(Scorer):
    """Numbers the pairs that it is given."""

    columns = ("number",)

    def __init__(self, version=1):
        self.version = version
        self.seen = []

    def settings(self):
        return {"version": self.version}

    def score(self, pairs):
        assert pairs
        self.seen += [pair.path for pair in pairs]
        return [{"number": len(self.seen)} for _ in pairs]


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_translation_has_a_row_with_all_columns(made):
    folder, sources = made
    path = score_folder(folder, sources, [DurationRatio(), Clipping()], 4)
    rows = read(path)
    there = {str(p.relative_to(folder)) for p in folder.glob("*/tones/*.flac")}
    assert {row["audio"] for row in rows} == there and len(rows) == 44
    assert {row["problem"] for row in rows} == {""}
    # The translator left a fifth of everything out, and shouted nowhere
    assert {row["duration_ratio"] for row in rows} == {"0.8"}
    assert {float(row["clipped"]) for row in rows} == {0.0}


def test_what_was_scored_is_not_scored_again(made):
    folder, sources = made
    first = Counting()
    path = score_folder(folder, sources, [first])
    before = path.read_bytes()
    assert len(first.seen) == 44
    again = Counting()
    assert score_folder(folder, sources, [again]).read_bytes() == before
    assert again.seen == []
    # A killed run has left all but a shard
    (folder / "scores/fra-00002.json").unlink()
    score_folder(folder, sources, [again])
    shard = read(folder / "shards/fra-00002.csv")
    assert len(again.seen) == sum(row["audio"] != "" for row in shard)
    other = Counting(version=2)
    score_folder(folder, sources, [other])
    assert len(other.seen) == 44


def test_a_shard_that_was_made_anew_is_scored_anew(made):
    folder, sources = made
    score_folder(folder, sources, [Counting()])
    receipt = folder / "shards/deu-00000.json"
    told = json.loads(receipt.read_text())
    rows = folder / "shards/deu-00000.csv"
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join([lines[0], *lines[2:]]))
    again = Counting()
    # Its receipt is of other rows now: it is not finished
    table = read(score_folder(folder, sources, [again]))
    assert again.seen == [] and len(table) < 44
    told["rows_sha256"] = hashlib.sha256(rows.read_bytes()).hexdigest()
    told["made"] -= 1
    receipt.write_text(json.dumps(told))
    assert len(read(score_folder(folder, sources, [again]))) == 43
    assert len(again.seen) == told["made"]


def test_audio_that_cannot_be_read_is_named_in_its_row(made):
    folder, sources = made
    bad = folder / "fra/tones/tones_02.flac"
    bad.write_bytes(b"not audio")
    rows = read(score_folder(folder, sources, [DurationRatio()]))
    (row,) = (row for row in rows if row["problem"])
    assert row["audio"] == "fra/tones/tones_02.flac"
    assert "cannot be decoded" in row["problem"]
    assert row["duration_ratio"] == ""


def test_what_cannot_be_scored_is_explained(made, tmp_path):
    folder, sources = made
    with pytest.raises(InputError, match="none of the sources' manifests"):
        score_folder(folder, sources.iloc[:5], [DurationRatio()])
    with pytest.raises(InputError, match="columns in common"):
        score_folder(folder, sources, [Clipping(), Clipping()])
    for receipt in folder.glob("shards/*.json"):
        receipt.unlink()
    with pytest.raises(InputError, match="no shard is finished"):
        score_folder(folder, sources, [DurationRatio()])
    with pytest.raises(InputError, match=r"no synthesis\.json"):
        score_folder(tmp_path / "elsewhere", sources, [DurationRatio()])


@pytest.fixture(scope="module")
def recognizer(tiny_flags, tmp_path_factory):
    return train_recognizer(tiny_flags, tmp_path_factory.mktemp("trained"))


def test_the_recogniser_is_asked_about_both(made, recognizer):
    folder, sources = made
    rows = read(score_folder(folder, sources, [EmotionAgreement(recognizer)]))
    by_id = sources.set_index("ID")
    asked = EmotionRecognizer.from_hparams(str(recognizer))
    labels = asked.labels()
    for row in rows[::9]:
        source = by_id.loc[row["ID"]]
        heard, _ = asked.recognize_file(source.wav)
        words, log_probs = asked.recognize_file(folder / row["audio"])
        assert row["emotion_of_source"] == heard[0]
        assert row["emotion_of_translation"] == words[0]
        assert row["emotion_agrees"] == str(int(heard == words))
        label = log_probs.exp()[0, labels.index(source.emotion)].item()
        assert float(row["label_probability"]) == pytest.approx(label, abs=1e-3)


def test_from_scores_to_filter_to_card(
    synthesized, recognizer, tmp_path, run_script, capsys
):
    shutil.copytree(synthesized[0], tmp_path / "made")
    ((manifest, root),) = synthesized[1].items()
    folder, out = tmp_path / "made/m5ser", tmp_path / "made/manifests"
    given = ("--data_folder", folder, "--manifest", manifest, root)
    assert run_script("m5ser_scores", *given, "--recognizer", recognizer) == 0
    assert "scores.csv" in capsys.readouterr().out
    arguments = ("--data_folder", folder, "--save_folder", out)
    chosen = ("--scores", folder / "scores.csv", "--keep_if")
    for condition, kept in (("duration_ratio<=0.8", 42), ("clipped>=1", None)):
        code = run_script("m5ser_prepare", *arguments, *chosen, condition)
        assert code == (0 if kept else 2)
        if kept:
            table = read_manifest(out / "m5ser.csv", folder)
            assert len(table) == kept
    assert "score 42" in capsys.readouterr().err
    run_script("m5ser_card", *given, "--save_folder", out)
    card = (folder / "README.md").read_text()
    assert "## Scores" in card and "| duration_ratio    | 0.800" in card
    assert "duration_ratio<=0.8" in card
