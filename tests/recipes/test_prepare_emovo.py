"""What `emovo_prepare.py` makes of EMOVO as people have it on disk."""

import os
import resource
from functools import partial
from pathlib import Path

import miniature
import pytest
from emovo_prepare import prepare_emovo
from miniature import read_csv, read_dropped, refused

from speechbrain_mser.dataio.manifest import read_manifest

write_noise = partial(miniature.write_noise, rate=48000, channels=2)


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
    dropped = read_dropped(tmp_path / "out")
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
    message = refused("emovo", release, folder / "out")
    assert f"{folder / 'out'}: cannot be written to" in message


def test_a_save_folder_that_is_a_file_ends_with_a_message(release, tmp_path):
    (tmp_path / "out").write_text("mine")
    message = refused("emovo", release, tmp_path / "out")
    assert f"{tmp_path / 'out'}: cannot be written to" in message
    assert (tmp_path / "out").read_text() == "mine"


def test_a_full_disk_leaves_no_half_manifest(release, tmp_path):
    out = tmp_path / "out"

    def allow_200_bytes():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))

    message = refused(
        *("emovo", release, out),
        preexec_fn=allow_200_bytes,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert f"{out}: cannot be written to" in message
    assert list(out.iterdir()) == []
