"""Composed and decomposed letters are the same label, folder and speaker."""

import numpy as np
import pytest
import soundfile

from speechbrain_mser.dataio.manifest import read_manifest, write_manifest
from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError
from speechbrain_mser.settings.flags import read_value
from speechbrain_mser.spelling import compose, find_spelling

NFC, NFD = "Jos\u00e9", "Jose\u0301"


def speak(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).normal(0, 0.1, 8000)
    soundfile.write(path, noise, 16000)


def test_a_file_is_found_whichever_way_it_is_spelled(tmp_path):
    for place, there, wanted in (("1", NFC, NFD), ("2", NFD, NFC)):
        folder = tmp_path / place / f"{there}-folder" / "sub"
        speak(folder / f"{there}.wav")
        asked = tmp_path / place / f"{wanted}-folder/sub/{wanted}.wav"
        assert find_spelling(asked) == folder / f"{there}.wav"
    # Both are there: each is itself.
    speak(folder / f"{NFC}.wav")
    for name in (NFC, NFD):
        assert find_spelling(folder / f"{name}.wav").name == f"{name}.wav"


def test_what_is_not_there_yet_goes_where_its_folder_is(tmp_path):
    (tmp_path / NFD).mkdir()
    found = find_spelling(tmp_path / NFC / "new" / NFC)
    assert found == tmp_path / NFD / "new" / NFC
    assert find_spelling("nothing/é") == find_spelling("nothing") / "é"


def test_a_manifest_finds_audio_that_a_macs_archive_has_renamed(tmp_path):
    speak(tmp_path / NFD / f"{NFD}.wav")
    row = {
        **{"ID": f"c_{NFD}", "duration": 0.5, "speaker": NFD, "label": NFD},
        "wav": f"$data_root/{NFC}/{NFC}.wav",
    }
    path = tmp_path / "m.csv"
    write_manifest(path, [row])
    table = read_manifest(path, tmp_path)
    assert table.wav[0] == str(tmp_path / NFD / f"{NFD}.wav")
    assert (table.ID[0], table.speaker[0]) == (f"c_{NFC}", NFC)
    assert table.label[0] == NFC


def test_one_id_in_two_spellings_is_there_twice(tmp_path):
    rows = [
        {"ID": name, "duration": 1.0, "wav": "$data_root/a.wav"}
        for name in (NFC, NFD)
    ]
    with pytest.raises(InputError, match="there 2 times"):
        write_manifest(tmp_path / "m.csv", rows)


def test_a_label_in_two_spellings_is_given_twice():
    assert candidate_labels([NFD]) == (NFC,)
    with pytest.raises(InputError, match="given twice"):
        candidate_labels([NFC, NFD])


def test_a_flag_names_the_folder_that_is_there(tmp_path):
    (tmp_path / NFD).mkdir()
    for name in ("data_root", "output_folder", "recognizer"):
        given = f"{tmp_path}/{NFC}"
        assert read_value(name, given, "x") == f"{tmp_path}/{NFD}"


def test_a_speaker_in_two_spellings_is_in_one_split(tmp_path):
    from folder_prepare import prepare_folder

    data = tmp_path / NFD
    for k in range(4):
        speak(data / f"{k}.wav")
    (data / "labels.csv").write_text(
        "path,label,speaker\n"
        + "".join(
            f"{k}.wav,happy,{name}\n"
            for k, name in enumerate((NFC, NFD, "anna", "bert"))
        ),
        encoding="utf-8",
    )
    manifest = prepare_folder(
        tmp_path / NFC,
        tmp_path / "out",
        valid_speakers=[NFD],
        test_speakers=["anna"],
    )
    table = read_manifest(manifest)
    splits = table.groupby("speaker").split.agg(set).to_dict()
    assert splits == {NFC: {"valid"}, "anna": {"test"}, "bert": {"train"}}
    assert (table.speaker == NFC).sum() == 2


def test_a_folder_of_an_emotion_means_what_its_name_means_composed(tmp_path):
    from folder_prepare import prepare_folder

    for k, name in enumerate((f"{NFC}x", f"{NFD}y")):
        speak(tmp_path / "data" / name / f"{k}.wav")
    manifest = prepare_folder(
        tmp_path / "data",
        tmp_path / "out",
        emotions=[f"{NFD}x=happy", f"{NFC}y=sad"],
    )
    table = read_manifest(manifest, tmp_path / "data")
    assert dict(zip(table.label, table.emotion, strict=True)) == {
        f"{NFC}x": "happy",
        f"{NFC}y": "sad",
    }
    assert all(name == compose(name) for name in table.ID)


def test_two_files_whose_names_look_alike_are_one_utterance(tmp_path):
    from folder_prepare import prepare_folder

    for name in (NFC, NFD):
        speak(tmp_path / "data" / "happy" / f"{name}.wav")
    manifest = prepare_folder(tmp_path / "data", tmp_path / "out")
    assert len(read_manifest(manifest)) == 1
    dropped = manifest.with_name("folder_dropped.csv").read_text()
    assert "duplicate: has the name of" in dropped
