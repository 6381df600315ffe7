"""The card says what is in the folder, and is written once."""

import json
import shutil

import pytest
from synthesized import synthesize

from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.errors import InputError


def finish(folder, manifests, sources, **options):
    """As `synthesize.py` ends; where the card is."""
    from m5ser_card import write_card
    from m5ser_prepare import prepare_m5ser

    prepare_m5ser(folder, manifests)
    return write_card(folder, manifests, sources, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder with ``m5ser`` and ``manifests``, finished; and the sources."""
    folder = tmp_path_factory.mktemp("made")
    sources = synthesize(folder)
    finish(folder / "m5ser", folder / "manifests", sources)
    return folder, sources


def cells(card, first, column=-1):
    """Of the first table row that begins so: one cell's text."""
    (line, *_) = (
        line for line in card.splitlines() if line.startswith(f"| {first} ")
    )
    return line.strip("| ").split("|")[column].strip()


def test_the_card_counts_what_the_manifest_has(made):
    folder, _ = made
    card = (folder / "m5ser/README.md").read_text()
    table = read_manifest(folder / "manifests/m5ser.csv", folder / "m5ser")
    assert "42 utterances" in card and "by `echo` from 21 utterances" in card
    # Of six, number 5 cannot be said
    happy = (table.emotion == "happy").sum()
    assert happy == 10
    # source, deu, fra
    assert [cells(card, "happy", k) for k in (1, 2, 3)] == ["5", "5", "5"]
    hours = table[table.language == "fra"].duration.sum() / 3600
    assert cells(card, "tones", 3) == "21"
    assert cells(card[card.index("Hours") :], "tones", 3) == f"{hours:.2f}"
    assert cells(card, "test", 2) == "4"


def test_the_card_says_how_it_was_made_and_what_was_lost(made):
    folder, _ = made
    card = (folder / "m5ser/README.md").read_text()
    assert "Of 48 translations that were planned" in card
    assert "44 were made, 2 failed and 2 were too long" in card
    assert cells(card, "`echo`") == "1.0"
    assert cells(card, "`half`") == "True"
    assert cells(card, "not translated") == "2"
    # The filters': number 7 is 0.48 s, in both languages; 46 KB
    assert cells(card, "tones  | deu", 2) == "22"
    facts = json.loads((folder / "m5ser/card.json").read_text())
    assert facts["filters"]["toll"][-1]["both"] == 2
    assert facts["dropped"] == {"too short and too small": 2}


def test_the_card_compares_languages_with_the_source(made):
    folder, _ = made
    card = (folder / "m5ser/README.md").read_text()
    numbers = json.loads((folder / "m5ser/card.json").read_text())[
        "spectrograms"
    ]
    assert numbers["n"] == 63 and numbers["source"] == "eng"
    for language in ("deu", "fra"):
        found = numbers["languages"][language]
        # Tones remain what they were
        assert found["probe"] == 1.0 and found["centroids"] < 0.2
        assert f"{found['mmd']:.3f}" in card
        by = found["centroids_by_emotion"]
        assert set(by) == {"neutral", "happy", "sad", "angry"}
        assert found["centroids"] == pytest.approx(sum(by.values()) / 4)
    assert "spectrograms.png" in card
    for name in ("distributions", "spectrograms"):
        assert (folder / f"m5ser/{name}.png").stat().st_size > 1000


def test_unknown_terms_are_said_to_be_unknown(made):
    folder, _ = made
    card = (folder / "m5ser/README.md").read_text()
    assert "| tones | unknown, see the corpus |" in " ".join(card.split())
    assert "unknown, see its weights" in card


def test_known_terms_name_their_source():
    from licences import CORPORA, TRANSLATORS, inherited

    for terms, source in (*CORPORA.values(), *TRANSLATORS.values()):
        assert terms and source
    rows = inherited({"meld", "iemocap"}, "seamless_expressive")
    assert [row[:2] for row in rows] == [
        ("corpus", "iemocap"),
        ("corpus", "meld"),
        ("translator", "seamless_expressive"),
    ]
    assert "noncommercial" in rows[-1][2]


def test_finishing_again_changes_no_file_of_the_folder(made, tmp_path):
    folder, sources = made
    before = {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in (folder / "m5ser").rglob("*")
        if path.is_file()
    }
    finish(folder / "m5ser", folder / "manifests", sources)
    for path, (time, data) in before.items():
        assert (path.stat().st_mtime_ns, path.read_bytes()) == (time, data)


def test_a_corpus_made_elsewhere_has_a_card_too(made, tmp_path):
    folder, sources = made
    for language in ("deu", "fra"):
        shutil.copytree(folder / "m5ser" / language, tmp_path / "m" / language)
    shutil.copytree(folder / "manifests", tmp_path / "manifests")
    card = finish(tmp_path / "m", tmp_path / "manifests", sources, most=12)
    text = card.read_text()
    assert "42 utterances" in text and "the folder has no receipts" in text


def test_too_few_for_a_map_leave_a_card_without(tmp_path):
    sources = synthesize(tmp_path, most=1, minutes=0.05)
    finish(tmp_path / "m5ser", tmp_path / "manifests", sources)
    card = (tmp_path / "m5ser/README.md").read_text()
    assert "3 utterances" in card and "spectrograms" not in card


def test_the_script_writes_the_card_and_names_missing_sources(
    made, tmp_path, run_script, capsys
):
    folder, sources = made
    ((manifest, root),) = sources.items()
    shutil.copytree(folder, tmp_path / "made")
    (tmp_path / "made/m5ser/README.md").unlink()
    arguments = (
        *("--data_folder", tmp_path / "made/m5ser"),
        *("--save_folder", tmp_path / "made/manifests"),
    )
    assert (
        run_script("m5ser_card", *arguments, "--manifest", manifest, root) == 0
    )
    written = (tmp_path / "made/m5ser/README.md").read_text()
    assert written == (folder / "m5ser/README.md").read_text()
    other = tmp_path / "other.csv"
    text = (folder / "manifests/tones.csv").read_text()
    other.write_text(text.replace("\ntones_", "\nother_"))
    assert run_script("m5ser_card", *arguments, "--manifest", other, root) == 2
    assert "give those of tones" in capsys.readouterr().err


def test_without_a_manifest_the_card_says_what_to_do(tmp_path):
    from m5ser_card import write_card

    with pytest.raises(InputError, match="no such manifest"):
        write_card(tmp_path, tmp_path, {})
