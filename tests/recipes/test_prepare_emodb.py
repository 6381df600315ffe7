"""What `emodb_prepare.py` makes of EmoDB as people have it on disk."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

RECIPES = Path(__file__).parents[2] / "recipes/M5SER"
sys.path.insert(0, str(RECIPES))

from emodb_prepare import prepare_emodb  # noqa: E402

from speechbrain_mser.dataio.manifest import read_manifest  # noqa: E402


def write_noise(path, rate=16000):
    """0.3 s of noise, in the format of the name's extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).normal(0, 0.1, rate * 3 // 10)
    soundfile.write(path, noise, rate)


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(RECIPES / "emodb_prepare.py"), *arguments],
        capture_output=True,
        text=True,
    )


@pytest.fixture
def release(tmp_path):
    """One utterance per emotion, by seven speakers, and the rest of the zip."""
    root = tmp_path / "EmoDB"
    for name in (
        *("03a01Wa", "08a02Lb", "09a04Ec", "10b01Ad", "11b02Fa"),
        *("16b03Ta", "14b10Nc"),
    ):
        write_noise(root / f"wav/{name}.wav")
    for companion in ("lablaut/03a01Wa.lablaut", "silb/03a01Wa.silb"):
        (root / companion).parent.mkdir()
        (root / companion).write_text("0.1 # a\n")
    (root / "erkennung.txt").write_text("Satz erkannt\n")
    return root


def test_letters_are_german_words_for_emotions(release, tmp_path):
    manifest = prepare_emodb(release, tmp_path / "out")
    columns = ["ID", "split", "speaker", "gender", "emotion", "label"]
    assert read_manifest(manifest, release)[columns].values.tolist() == [
        ["emodb_03a01Wa", "train", "03", "male", "angry", "anger"],
        ["emodb_08a02Lb", "train", "08", "female", "boredom", "boredom"],
        ["emodb_09a04Ec", "valid", "09", "female", "disgust", "disgust"],
        ["emodb_10b01Ad", "valid", "10", "male", "fear", "fear"],
        ["emodb_11b02Fa", "train", "11", "male", "happy", "happiness"],
        ["emodb_14b10Nc", "train", "14", "female", "neutral", "neutral"],
        ["emodb_16b03Ta", "train", "16", "female", "sad", "sadness"],
    ]


def test_a_row_is_complete(release, tmp_path):
    manifest = prepare_emodb(release, tmp_path / "out")
    assert read_csv(manifest)[1] == [
        *("emodb_03a01Wa", "0.3", "$data_root/wav/03a01Wa.wav", "", ""),
        *("emodb", "train", "deu", "03", "male", "angry", "anger"),
        "Der Lappen liegt auf dem Eisschrank.",
    ]


def test_what_the_release_holds_beside_its_audio_is_only_counted(
    release, tmp_path, capsys
):
    prepare_emodb(release, tmp_path / "out")
    assert read_csv(tmp_path / "out/emodb_dropped.csv") == [["item", "reason"]]
    assert "ignored: companions of the audio 3" in capsys.readouterr().out


def test_unknown_speakers_texts_letters_and_formats_are_dropped(
    release, tmp_path
):
    misnamed = ("04a01Wa", "03a03Wa", "03a01Xa", "03a01W", "03a01Wa (1)")
    for name in misnamed:
        write_noise(release / f"wav/{name}.wav")
    (release / "wav/list.xls").write_bytes(b"\xd0\xcf")
    prepare_emodb(release, tmp_path / "out")
    dropped = dict(read_csv(tmp_path / "out/emodb_dropped.csv")[1:])
    assert dropped == {
        **{f"wav/{n}.wav": "misnamed: not like 03a01Fa" for n in misnamed},
        "wav/list.xls": "not audio: .xls",
    }


def test_flac_gives_the_rows_of_wav(release, tmp_path):
    for path in (release / "wav").iterdir():
        write_noise(tmp_path / f"flac/wav/{path.stem}.flac")
    wav = prepare_emodb(release, tmp_path / "out").read_text()
    flac = prepare_emodb(tmp_path / "flac", tmp_path / "out_flac").read_text()
    assert flac.replace(".flac", ".wav") == wav


def test_a_folder_that_is_not_there_ends_with_a_message(tmp_path):
    out = tmp_path / "out"
    result = run("--data_folder", tmp_path / "EmoDB", "--save_folder", out)
    assert result.returncode == 2
    assert f"{tmp_path / 'EmoDB'}: no such folder" in result.stderr
    assert "Traceback" not in result.stderr
    assert not out.exists()


def test_another_corpus_ends_with_what_was_sought_and_found(tmp_path):
    (tmp_path / "IEMOCAP/Session1").mkdir(parents=True)
    out = tmp_path / "out"
    result = run("--data_folder", tmp_path / "IEMOCAP", "--save_folder", out)
    assert result.returncode == 2
    assert "looked for wav/[0-9][0-9][ab]*" in result.stderr
    assert "found here: Session1" in result.stderr
    assert "Traceback" not in result.stderr
    assert not out.exists()


def test_a_folder_without_one_good_file_leaves_no_manifest(tmp_path):
    (tmp_path / "EmoDB/wav").mkdir(parents=True)
    (tmp_path / "EmoDB/wav/03a01Wa.wav").touch()
    out = tmp_path / "out"
    result = run("--data_folder", tmp_path / "EmoDB", "--save_folder", out)
    assert result.returncode == 2
    assert "none of 1 audio files can be used" in result.stderr
    assert "wav/03a01Wa.wav: empty: 0 bytes" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(out.iterdir()) == []
