"""What `emovo_prepare.py` makes of EMOVO as people have it on disk."""

import csv
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

RECIPES = Path(__file__).parents[2] / "recipes/M5SER"
sys.path.insert(0, str(RECIPES))

from emovo_prepare import prepare_emovo  # noqa: E402

from speechbrain_mser.dataio.manifest import read_manifest  # noqa: E402


def write_noise(path, rate=48000, channels=2):
    """0.3 s of noise, in the format of the name's extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).normal(0, 0.1, (rate * 3 // 10, channels))
    soundfile.write(path, noise, rate)


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, str(RECIPES / "emovo_prepare.py"), *arguments],
        capture_output=True,
        text=True,
        **options,
    )


@pytest.fixture
def release(tmp_path):
    """One utterance per emotion, by all six actors."""
    root = tmp_path / "EMOVO"
    for name in (
        *("dis-f1-b1", "gio-f2-l3", "neu-f3-n1", "pau-m1-d2"),
        *("rab-m2-b2", "sor-m3-n5", "tri-m3-l4"),
    ):
        write_noise(root / name[4:6] / f"{name}.wav")
    (root / "LA STRUTTURA DI EMOVO.pdf").write_bytes(b"%PDF")
    return root


def test_codes_are_italian_words_for_emotions(release, tmp_path):
    manifest = prepare_emovo(release, tmp_path / "out")
    columns = ["ID", "split", "speaker", "gender", "emotion", "label"]
    assert read_manifest(manifest, release)[columns].values.tolist() == [
        ["emovo_dis-f1-b1", "train", "f1", "female", "disgust", "disgust"],
        ["emovo_gio-f2-l3", "train", "f2", "female", "happy", "joy"],
        ["emovo_neu-f3-n1", "valid", "f3", "female", "neutral", "neutral"],
        ["emovo_pau-m1-d2", "train", "m1", "male", "fear", "fear"],
        ["emovo_rab-m2-b2", "train", "m2", "male", "angry", "anger"],
        ["emovo_sor-m3-n5", "valid", "m3", "male", "surprise", "surprise"],
        ["emovo_tri-m3-l4", "valid", "m3", "male", "sad", "sadness"],
    ]


def test_a_row_is_complete(release, tmp_path):
    manifest = prepare_emovo(release, tmp_path / "out")
    assert read_csv(manifest)[2] == [
        *("emovo_gio-f2-l3", "0.3", "$data_root/f2/gio-f2-l3.wav", "", ""),
        *("emovo", "train", "ita", "f2", "female", "happy", "joy"),
        "Un attimo dopo s'è incamminato ed è inciampato.",
    ]


def test_unknown_codes_actors_and_sentences_are_dropped(release, tmp_path):
    misnamed = ("xxx-f1-b1", "dis-f4-b1", "dis-f1-b9", "dis-f1", "dis_f1_b1")
    for name in misnamed:
        write_noise(release / f"f1/{name}.wav")
    prepare_emovo(release, tmp_path / "out")
    dropped = dict(read_csv(tmp_path / "out/emovo_dropped.csv")[1:])
    assert dropped == {
        f"f1/{name}.wav": "misnamed: not like gio-f1-b1" for name in misnamed
    }


def test_flac_gives_the_rows_of_wav(release, tmp_path):
    for path in release.glob("*/*.wav"):
        write_noise(tmp_path / f"flac/{path.parent.name}/{path.stem}.flac")
    wav = prepare_emovo(release, tmp_path / "out").read_text()
    flac = prepare_emovo(tmp_path / "flac", tmp_path / "out_flac").read_text()
    assert flac.replace(".flac", ".wav") == wav


def test_a_read_only_save_folder_ends_with_a_message(release, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        # To root only the kernel says no
        folder = Path("/sys")
    result = run("--data_folder", release, "--save_folder", folder / "out")
    assert result.returncode == 2
    assert f"{folder / 'out'}: cannot be written to" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_save_folder_that_is_a_file_ends_with_a_message(release, tmp_path):
    (tmp_path / "out").write_text("mine")
    result = run("--data_folder", release, "--save_folder", tmp_path / "out")
    assert result.returncode == 2
    assert f"{tmp_path / 'out'}: cannot be written to" in result.stderr
    assert "Traceback" not in result.stderr
    assert (tmp_path / "out").read_text() == "mine"


def test_a_full_disk_leaves_no_half_manifest(release, tmp_path):
    out = tmp_path / "out"

    def allow_200_bytes():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))

    result = run(
        *("--data_folder", release, "--save_folder", out),
        preexec_fn=allow_200_bytes,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert result.returncode == 2
    assert f"{out}: cannot be written to" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(out.iterdir()) == []
