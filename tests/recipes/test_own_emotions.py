"""Emotions beyond the vocabulary: declared beside the manifests, else a typo."""

import json

import pytest
from corpora import read_corpora
from folder_prepare import prepare_folder
from miniature import write_noise
from protocols import read_sets

from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.dataio.own_emotions import OWN_FILE, carry_own, read_own
from speechbrain_mser.errors import InputError
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.settings.project_files import HPARAMS


@pytest.fixture
def place(tmp_path):
    """Where a corpus of one's own is, and its manifests will be."""
    for number, label in enumerate(["stressed", "Relaxed", "sad"] * 4):
        wav = tmp_path / "corpora" / "mine" / label / f"{number}.wav"
        write_noise(wav, seconds=0.4 + number / 50)
    return tmp_path


@pytest.fixture
def declared(place):
    (place / "manifests").mkdir()
    text = "# rated by three\nstressed\n\nRelaxed  # at rest\n"
    (place / "manifests" / OWN_FILE).write_text(text)
    return place


def prepared(place, **options):
    return prepare_folder(
        place / "corpora" / "mine", place / "manifests", name="mine", **options
    )


def test_what_nobody_declared_is_a_mistake(place):
    told = f"unknown emotion 'Relaxed'.* a line of {OWN_FILE}"
    with pytest.raises(InputError, match=told):
        prepared(place)
    # Nor is it by saying that one means the other.
    with pytest.raises(InputError, match="unknown emotion 'stressed'"):
        prepared(place, emotions=["stressed=stressed", "relaxed="])


def test_it_is_trained_and_evaluated_like_any_other(
    declared, run_script, tiny_flags
):
    manifest = prepared(declared)
    rows = [line.split(",") for line in manifest.read_text().splitlines()]
    column = rows[0].index("emotion")
    emotions = sorted(row[column] for row in rows[1:])
    assert emotions == ["relaxed"] * 4 + ["sad"] * 4 + ["stressed"] * 4
    own = {
        "data_root": declared / "corpora",
        "manifest_folder": declared / "manifests",
        "skip_prep": True,
        "num_workers": 0,
    }
    flags = {
        **tiny_flags,
        **own,
        "corpora": "[mine]",
        "languages": "[und]",
        "label_words": "[stressed, relaxed, sad]",
        "train_split": "null",
        "valid_split": "null",
        "output_folder": declared / "out",
    }
    assert run_script("train", HPARAMS / "stage1.yaml", flags=flags) == 0
    folder = declared / "out" / "recognizer"
    recognizer = EmotionRecognizer.from_hparams(folder)
    assert recognizer.trained_words() == {"stressed", "relaxed", "sad"}
    table = declared / "table"
    flags = {**own, "recognizer": folder, "output_folder": table}
    flags |= {"sets": "[mine]", "resamples": 0}
    assert run_script("evaluate", HPARAMS / "evaluate.yaml", flags=flags) == 0
    metrics = json.loads((table / "metrics.json").read_text())["mine"]
    header = (table / "mine" / "predictions.csv").read_text().split("\n")[0]
    # The vocabulary's first
    assert header == "ID,label,prediction,sad,relaxed,stressed"
    assert metrics["untrained"] == []
    # What it labels itself may be called so, too; and nothing unknown.
    flags = {**own, "recognizer": folder, "output_folder": declared / "pseudo"}
    flags |= {"corpus": "mine", "adaptation": "none"}
    yaml = HPARAMS / "pseudo_label.yaml"
    wrong = {**flags, "labels": "[stresed, sad]"}
    assert run_script("pseudo_label", yaml, flags=wrong) == 2
    assert not (declared / "pseudo" / "mine.csv").exists()
    flags["labels"] = "[stressed, sad]"
    assert run_script("pseudo_label", yaml, flags=flags) == 0
    labelled = read_manifest(declared / "pseudo" / "mine.csv")
    assert set(labelled.emotion) == {"stressed", "sad"}


def test_a_protocol_may_ask_for_it_or_count_it_as_another(declared):
    prepared(declared)
    settings = {
        "data_root": str(declared / "corpora"),
        "corpus_folders": {},
        "manifest_folder": str(declared / "manifests"),
        "skip_prep": True,
        "corpus_options": {},
        "protocols": {},
        "sets": [
            {
                "name": "two",
                "corpus": "mine",
                "labels": ["stressed", "neutral"],
                "merge": {"relaxed": "neutral"},
            }
        ],
    }
    sets, _ = read_sets(settings)
    assert sorted(sets["two"].table.emotion) == ["neutral"] * 4 + (
        ["stressed"] * 4
    )
    assert set(read_corpora("mine", settings).emotion) == {
        *("relaxed", "sad", "stressed"),
    }


def test_what_is_carried_is_added(tmp_path):
    source, target = tmp_path / "a", tmp_path / "b"
    for folder, text in (
        (source, "relaxed\nstressed\n"),
        (target, "# x\nstressed"),
    ):
        folder.mkdir()
        (folder / OWN_FILE).write_text(text)
    assert carry_own(source, target) == ("stressed", "relaxed")
    assert (target / OWN_FILE).read_text() == "# x\nstressed\nrelaxed\n"
    assert carry_own(source, tmp_path / "new") == ("relaxed", "stressed")


@pytest.mark.parametrize(
    "content, told",
    [
        (b"joy\n", "line 1: 'joy' is 'happy' already"),
        (
            b"a\nb\x07\n",
            r"emotions.txt, line 2: the emotion is 'b.x07', which has control",
        ),
        (b"\xff\xfe", "no text in UTF-8"),
    ],
)
def test_a_line_that_is_no_new_word_is_said(tmp_path, content, told):
    (tmp_path / OWN_FILE).write_bytes(content)
    with pytest.raises(InputError, match=told):
        read_own(tmp_path)
