"""What `urdu_prepare.py` makes of URDU-Dataset as people have it on disk."""

from functools import partial

import miniature
import pytest
from miniature import read_csv, refused, run
from urdu_prepare import prepare_urdu

from speechbrain_mser.dataio.manifest import read_manifest

write_noise = partial(miniature.write_noise, rate=44100)


@pytest.fixture
def release(tmp_path):
    """Four clips by three speakers, as a clone of the repository."""
    root = tmp_path / "URDU-Dataset"
    for path in (
        *("Angry/SM1_F10_A010", "Happy/SF1_F1_H01"),
        *("Neutral/SM5_F72_N0100", "Sad/SM5_F1_S097"),
    ):
        write_noise(root / f"{path}.wav")
    (root / "README.md").write_text("# URDU-Dataset")
    (root / ".git").mkdir()
    (root / ".git/config").write_text("[core]")
    return root


def test_everything_is_for_testing(release, tmp_path):
    manifest = prepare_urdu(release, tmp_path / "out")
    columns = ["ID", "split", "speaker", "gender", "emotion", "label"]
    assert read_manifest(manifest, release)[columns].values.tolist() == [
        ["urdu_SM1_F10_A010", "test", "SM1", "male", "angry", "Angry"],
        ["urdu_SF1_F1_H01", "test", "SF1", "female", "happy", "Happy"],
        ["urdu_SM5_F72_N0100", "test", "SM5", "male", "neutral", "Neutral"],
        ["urdu_SM5_F1_S097", "test", "SM5", "male", "sad", "Sad"],
    ]


def test_a_row_is_complete(release, tmp_path):
    manifest = prepare_urdu(release, tmp_path / "out")
    assert read_csv(manifest)[1] == [
        *("urdu_SM1_F10_A010", "0.3", "$data_root/Angry/SM1_F10_A010.wav"),
        *("", "", "urdu", "test", "urd", "SM1", "male", "angry", "Angry", ""),
    ]


def test_what_belongs_to_the_clone_is_only_counted(release, tmp_path, capsys):
    prepare_urdu(release, tmp_path / "out")
    assert read_csv(tmp_path / "out/urdu_dropped.csv") == [["item", "reason"]]
    printed = capsys.readouterr().out
    assert "hidden folders (.*) 1" in printed
    assert "companions of the audio 1" in printed


def test_a_name_that_contradicts_its_folder_is_dropped(release, tmp_path):
    write_noise(release / "Happy/SM9_F1_A0101.wav")
    write_noise(release / "Happy/XM9_F1_H0101.wav")
    prepare_urdu(release, tmp_path / "out")
    assert read_csv(tmp_path / "out/urdu_dropped.csv")[1:] == [
        [
            "Happy/SM9_F1_A0101.wav",
            "misnamed: Angry by its name, Happy by its folder",
        ],
        ["Happy/XM9_F1_H0101.wav", "misnamed: not like SM1_F12_A012"],
    ]


def test_flac_gives_the_rows_of_wav(release, tmp_path):
    for path in release.glob("*/*.wav"):
        write_noise(tmp_path / f"flac/{path.parent.name}/{path.stem}.flac")
    wav = prepare_urdu(release, tmp_path / "out").read_text()
    flac = prepare_urdu(tmp_path / "flac", tmp_path / "out_flac").read_text()
    assert flac.replace(".flac", ".wav") == wav


def test_an_option_without_names_makes_a_training_corpus(release, tmp_path):
    out = tmp_path / "out"
    result = run(
        "urdu", release, out, *("--valid_speakers", "SF1", "--test_speakers")
    )
    assert result.returncode == 0, result.stderr
    table = read_manifest(out / "urdu.csv")
    assert table.split.tolist() == ["train", "valid", "train", "train"]


def test_unknown_speakers_end_with_the_known_ones(release, tmp_path):
    out = tmp_path / "out"
    message = refused("urdu", release, out, *("--valid_speakers", "SM99"))
    assert "no speaker SM99; there are SF1, SM1, SM5" in message
    assert list(out.iterdir()) == []


def test_a_speaker_in_two_splits_ends_with_a_message(release, tmp_path):
    out = tmp_path / "out"
    message = refused(
        *("urdu", release, out),
        *("--valid_speakers", "SM1", "--test_speakers", "SM1", "SF1"),
    )
    assert "speaker SM1 is in both" in message
    assert list(out.iterdir()) == []
