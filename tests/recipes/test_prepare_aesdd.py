"""What `aesdd_prepare.py` makes of AESDD as people have it on disk."""

from functools import partial

import miniature
import pytest
from aesdd_prepare import prepare_aesdd
from miniature import read_csv, read_dropped, refused

from speechbrain_mser.dataio.manifest import read_manifest

write_noise = partial(miniature.write_noise, rate=44100)

FOLDER = "Acted Emotional Speech Dynamic Database"


def write_header_only(path):
    """A WAV that ends before its data chunk, as s05 (3).wav does."""
    write_noise(path)
    path.write_bytes(path.read_bytes()[:36])


@pytest.fixture
def unzipped(tmp_path):
    """The folder into which the zip was unpacked: two folders, then files."""
    root = tmp_path / "AESDD"
    release = root / FOLDER / FOLDER
    for name in (
        *("anger/a03 (3)", "anger/a06 (5)", "anger/a06 (5)b"),
        *("disgust/d03 (01)", "fear/f18 (6)", "happiness/h01 (4)"),
        *("sadness/s01 (5)a", "sadness/s20 (2)"),
    ):
        write_noise(release / f"{name}.wav")
    write_header_only(release / "sadness/s05 (3).wav")
    tools = release / "Tools and Documentation"
    tools.mkdir()
    (tools / "readme.txt").write_text("3 F + 2 M\n")
    write_noise(tools / "example.wav")
    return root


COLUMNS = ["ID", "split", "language", "speaker", "gender", "emotion", "label"]
ROWS = [
    ["aesdd_a03 (3)", "test", "ell", "3", "", "angry", "anger"],
    ["aesdd_a06 (5)", "test", "ell", "5", "", "angry", "anger"],
    ["aesdd_a06 (5)b", "test", "ell", "5", "", "angry", "anger"],
    ["aesdd_d03 (01)", "test", "ell", "1", "", "disgust", "disgust"],
    ["aesdd_f18 (6)", "test", "ell", "6", "", "fear", "fear"],
    ["aesdd_h01 (4)", "test", "ell", "4", "", "happy", "happiness"],
    ["aesdd_s01 (5)a", "test", "ell", "5", "", "sad", "sadness"],
    ["aesdd_s20 (2)", "test", "ell", "2", "", "sad", "sadness"],
]


def test_every_folder_of_the_zip_gives_the_same_rows(unzipped, tmp_path):
    for inner in ("", FOLDER, f"{FOLDER}/{FOLDER}"):
        root = unzipped / inner
        manifest = prepare_aesdd(root, tmp_path / "out")
        table = read_manifest(manifest, root)
        assert table[COLUMNS].values.tolist() == ROWS


def test_a_row_is_complete(unzipped, tmp_path):
    root = unzipped / FOLDER / FOLDER
    manifest = prepare_aesdd(root, tmp_path / "out")
    assert read_csv(manifest)[3] == [
        *("aesdd_a06 (5)b", "0.3", "$data_root/anger/a06 (5)b.wav", "", ""),
        *("aesdd", "test", "ell", "5", "", "angry", "anger", ""),
    ]


def test_the_file_without_audio_is_known_bad_and_the_tools_are_counted(
    unzipped, tmp_path, capsys
):
    root = unzipped / FOLDER / FOLDER
    prepare_aesdd(root, tmp_path / "out")
    assert read_dropped(tmp_path / "out") == {
        "sadness/s05 (3).wav": (
            "known bad: a header without a data chunk: no audio in the file"
        )
    }
    printed = capsys.readouterr()
    assert "ignored: companions of the audio 2" in printed.out
    assert "sadness 3 instead of 123" in printed.err
    # A copy that holds it whole
    write_noise(root / "sadness/s05 (3).wav")
    assert len(read_manifest(prepare_aesdd(root, tmp_path / "out"))) == 9
    manifest = prepare_aesdd(root, tmp_path / "out", drop_known_bad=True)
    assert len(read_manifest(manifest)) == 8


def test_speakers_may_be_held_out_for_training(unzipped, tmp_path):
    manifest = prepare_aesdd(
        unzipped, tmp_path / "out", valid_speakers=["1"], test_speakers=["5"]
    )
    assert read_manifest(manifest).split.tolist() == [
        *("train", "test", "test", "valid"),
        *("train", "train", "test", "train"),
    ]


def test_other_speakers_letters_and_folders_are_dropped(unzipped, tmp_path):
    root = unzipped / FOLDER / FOLDER
    misnamed = ("a03 (7)", "a03 (0)", "a03(3)", "a3 (3)", "x03 (3)", "a03 (3)c")
    for name in misnamed:
        write_noise(root / f"anger/{name}.wav")
    write_noise(root / "anger/f03 (3).wav")
    prepare_aesdd(root, tmp_path / "out")
    dropped = read_dropped(tmp_path / "out")
    del dropped["sadness/s05 (3).wav"]
    assert dropped == {
        **{f"anger/{n}.wav": "misnamed: not like a03 (3)" for n in misnamed},
        "anger/f03 (3).wav": "misnamed: fear by its name, anger by its folder",
    }


def test_flac_gives_the_rows_of_wav(unzipped, tmp_path):
    for path in unzipped.rglob("?[0-9][0-9] *.wav"):
        relative = path.relative_to(unzipped).with_suffix(".flac")
        write_noise(tmp_path / "flac" / relative)
    (tmp_path / "flac" / FOLDER / FOLDER / "sadness/s05 (3).flac").unlink()
    wav = prepare_aesdd(unzipped, tmp_path / "out").read_text()
    flac = prepare_aesdd(tmp_path / "flac", tmp_path / "out_flac").read_text()
    assert flac.replace(".flac", ".wav") == wav


def test_another_corpus_ends_with_what_was_sought_and_found(tmp_path):
    (tmp_path / "IEMOCAP/Session1").mkdir(parents=True)
    out = tmp_path / "out"
    message = refused("aesdd", tmp_path / "IEMOCAP", out)
    assert "looked for anger/a[0-9][0-9] ([0-9]*" in message
    assert "found here: Session1" in message
    assert not out.exists()


def test_an_unknown_speaker_ends_with_the_known_ones(unzipped, tmp_path):
    out = tmp_path / "out"
    message = refused("aesdd", unzipped, out, *("--test_speakers", "01"))
    assert "no speaker 01; there are 1, 2, 3, 4, 5, 6" in message
    assert list(out.iterdir()) == []
