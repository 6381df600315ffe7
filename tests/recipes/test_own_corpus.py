"""A corpus of one's own, by a script that lies outside of the recipe."""

import sys
from pathlib import Path

import pytest
from corpora import prepare_manifests, read_corpora
from miniature import write_noise

from speechbrain_mser.errors import InputError

EXAMPLE = Path(__file__).parents[2] / "docs/examples/corpus_prepare.py"


@pytest.fixture
def root(tmp_path):
    for name in ("anna_joy_01", "bert_ire_01", "carl_calm_01", "carl_hum_01"):
        folder = tmp_path / "corpora/murmurs" / name.partition("_")[0]
        write_noise(folder / f"{name}.wav")
    return tmp_path / "corpora"


def settings(root, tmp_path, **options):
    return {
        **{"data_root": str(root), "corpus_folders": {}, "skip_prep": False},
        "manifest_folder": str(tmp_path / "manifests"),
        "corpus_options": {"murmurs": options},
    }


def test_the_example_is_prepared_and_read_by_its_script(root, tmp_path):
    assert len(EXAMPLE.read_text().splitlines()) <= 60
    given = settings(root, tmp_path, script=str(EXAMPLE))
    table = read_corpora("murmurs", given)
    columns = ["ID", "split", "speaker", "gender", "emotion", "label"]
    assert table[columns].values.tolist() == [
        ["murmurs_anna_joy_01", "train", "anna", "female", "happy", "joy"],
        ["murmurs_bert_ire_01", "valid", "bert", "male", "angry", "anger"],
        ["murmurs_carl_calm_01", "train", "carl", "male", "calm", "calm"],
    ]
    dropped = (tmp_path / "manifests/murmurs_dropped.csv").read_text()
    assert "carl_hum_01.wav,misnamed: not like anna_joy_01" in dropped


def test_a_script_in_the_folder_one_works_in_is_found(
    root, tmp_path, monkeypatch
):
    text = EXAMPLE.read_text()
    # What lies beside a script is found by it
    (tmp_path / "people.py").write_text('VALID = ("carl",)\n')
    text = text.replace('valid_speakers=("bert",)', "valid_speakers=VALID")
    text = text.replace("\nMURMURS =", "\nfrom people import VALID\nMURMURS =")
    (tmp_path / "murmurs_prepare.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    table = read_corpora("murmurs", settings(root, tmp_path))
    assert table.split.tolist() == ["train", "train", "valid"]


def test_a_script_that_is_nowhere_or_another_one_is_named(root, tmp_path):
    (tmp_path / "wrong.py").write_text("def prepare_mumbles(): pass\n")
    for script, message in (
        ("gone.py", "no preparation script for murmurs: no .*gone.py"),
        ("wrong.py", "has no function prepare_murmurs"),
    ):
        given = settings(root, tmp_path, script=str(tmp_path / script))
        with pytest.raises(InputError, match=message):
            read_corpora("murmurs", given)


def test_options_that_a_script_needs_are_asked_for(root, tmp_path):
    (root / "emobox").mkdir()
    with pytest.raises(InputError, match="emobox needs emobox, corpus"):
        prepare_manifests("emobox", str(root), {}, tmp_path)
