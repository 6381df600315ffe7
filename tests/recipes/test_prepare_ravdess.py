"""What `ravdess_prepare.py` makes of RAVDESS as people have it on disk."""

import os
import shutil
from functools import partial

import miniature
import pytest
from miniature import read_csv, refused, run
from ravdess_prepare import prepare_ravdess

from speechbrain_mser.dataio.manifest import read_manifest

write_noise = partial(miniature.write_noise, rate=48000)

HEADER = [
    *("ID", "duration", "wav", "start", "stop", "corpus", "split"),
    *("language", "speaker", "gender", "emotion", "label", "text"),
]


@pytest.fixture
def release(tmp_path):
    """Three actors, with the traps that people's folders hold."""
    root = tmp_path / "RAVDESS"
    write_noise(root / "Actor_01/03-01-02-01-01-01-01.wav")
    write_noise(root / "Actor_02/03-01-06-02-02-01-02.wav", channels=2)
    write_noise(root / "Actor_21/03-01-01-01-02-02-21.wav")
    write_noise(root / "Actor_01/03-02-03-01-01-01-01.wav")  # a song
    write_noise(root / "Actor_01/03-01-09-01-01-01-01.wav")  # no emotion 09
    write_noise(root / "Actor_01/03-01-03-01-01-01-25.wav")  # no actor 25
    write_noise(root / "Actor_01/happy take 2.wav")
    (root / "Actor_01/01-01-03-01-01-01-01.mp4").write_bytes(b"film")
    (root / "Actor_01/02-01-03-01-01-01-01.mp4").write_bytes(b"film")
    (root / "Actor_01/._03-01-02-01-01-01-01.wav").write_bytes(b"Mac OS X")
    (root / "Actor_02/03-01-05-01-01-01-02.wav").touch()
    (root / "Actor_02/03-01-05-01-01-02-02.wav").write_text("<html>404</html>")
    return root


def test_manifest_holds_every_utterance_and_calm_too(release, tmp_path):
    manifest = prepare_ravdess(release, tmp_path / "out")
    assert read_csv(manifest) == [
        HEADER,
        [
            *("ravdess_03-01-02-01-01-01-01", "0.3"),
            "$data_root/Actor_01/03-01-02-01-01-01-01.wav",
            *("", "", "ravdess", "train", "eng", "01", "male"),
            *("calm", "calm", "Kids are talking by the door."),
        ],
        [
            *("ravdess_03-01-06-02-02-01-02", "0.3"),
            "$data_root/Actor_02/03-01-06-02-02-01-02.wav",
            *("", "", "ravdess", "train", "eng", "02", "female"),
            *("fear", "fearful", "Dogs are sitting by the door."),
        ],
        [
            *("ravdess_03-01-01-01-02-02-21", "0.3"),
            "$data_root/Actor_21/03-01-01-01-02-02-21.wav",
            *("", "", "ravdess", "valid", "eng", "21", "male"),
            *("neutral", "neutral", "Dogs are sitting by the door."),
        ],
    ]
    assert len(read_manifest(manifest, release)) == 3


def test_whatever_is_no_utterance_is_dropped_with_a_reason(
    release, tmp_path, capsys
):
    prepare_ravdess(release, tmp_path / "out")
    dropped = dict(read_csv(tmp_path / "out/ravdess_dropped.csv"))
    misnamed = "misnamed: not like 03-01-06-01-02-01-12"
    html = dropped.pop("Actor_02/03-01-05-01-01-02-02.wav")
    assert html.startswith("unreadable: ")
    assert dropped == {
        "item": "reason",
        "Actor_01/01-01-03-01-01-01-01.mp4": "video: modality 01",
        "Actor_01/02-01-03-01-01-01-01.mp4": "video: modality 02",
        "Actor_01/03-02-03-01-01-01-01.wav": "song: channel 02",
        "Actor_01/03-01-09-01-01-01-01.wav": misnamed,
        "Actor_01/03-01-03-01-01-01-25.wav": misnamed,
        "Actor_01/happy take 2.wav": misnamed,
        "Actor_02/03-01-05-01-01-01-02.wav": "empty: 0 bytes",
    }
    printed = capsys.readouterr()
    assert "ignored: AppleDouble (._*) 1" in printed.out
    assert "3 utterances, the release has 1440" in printed.err
    assert "calm 1 instead of 192" in printed.err


def test_flac_gives_the_rows_of_wav(tmp_path):
    names = ["03-01-05-01-01-01-03", "03-01-08-02-02-02-04"]
    rows = {}
    for kind in ("wav", "flac"):
        for name in names:
            actor = f"Actor_{name[-2:]}"
            write_noise(tmp_path / kind / actor / f"{name}.{kind}")
        manifest = prepare_ravdess(tmp_path / kind, tmp_path / f"out_{kind}")
        rows[kind] = manifest.read_text().replace(f".{kind}", "")
    assert rows["wav"] == rows["flac"]


def test_a_mirror_that_holds_the_tree_twice_counts_once(tmp_path):
    root = tmp_path / "archive"
    write_noise(root / "Actor_03/03-01-05-01-01-01-03.wav")
    inner = root / "audio_speech_actors_01-24"
    write_noise(inner / "Actor_03/03-01-05-01-01-01-03.wav")
    # Only the inner copy of this one can be read: that one is taken
    write_noise(inner / "Actor_03/03-01-05-01-01-02-03.wav")
    (root / "Actor_03/03-01-05-01-01-02-03.wav").touch()
    table = read_manifest(prepare_ravdess(root, tmp_path / "out"))
    assert table.wav.tolist() == [
        "$data_root/Actor_03/03-01-05-01-01-01-03.wav",
        "$data_root/audio_speech_actors_01-24/Actor_03/"
        "03-01-05-01-01-02-03.wav",
    ]
    assert read_csv(tmp_path / "out/ravdess_dropped.csv") == [
        ["item", "reason"],
        ["Actor_03/03-01-05-01-01-02-03.wav", "empty: 0 bytes"],
        [
            "audio_speech_actors_01-24/Actor_03/03-01-05-01-01-01-03.wav",
            "duplicate: has the name of Actor_03/03-01-05-01-01-01-03.wav",
        ],
    ]


def test_the_whole_release_is_recognised_by_its_counts(tmp_path, capsys):
    one = tmp_path / "one.wav"
    write_noise(one, rate=8000)
    for actor in range(1, 25):
        folder = tmp_path / f"RAVDESS/Actor_{actor:02d}"
        folder.mkdir(parents=True)
        for emotion in range(1, 9):
            for intensity in (1, 2)[: 1 if emotion == 1 else 2]:
                for take in ("01-01", "01-02", "02-01", "02-02"):
                    name = f"03-01-{emotion:02d}-{intensity:02d}-{take}"
                    os.link(one, folder / f"{name}-{actor:02d}.wav")
    manifest = prepare_ravdess(tmp_path / "RAVDESS", tmp_path / "out")
    printed = capsys.readouterr()
    assert "counts equal the release's: 1440 utterances" in printed.out
    assert printed.err == ""
    # The recording with two names is there twice, as in others' results ...
    twice = "ravdess_03-01-03-01-02-02-07"
    table = read_manifest(manifest)
    assert len(table) == 1440 and twice in set(table.ID)
    # The paper's seven emotions
    assert (table.emotion != "calm").sum() == 1248
    assert set(table.speaker[table.split == "valid"]) == {
        *("21", "22", "23", "24")
    }
    # One of the two is broken in one copy of a mirror and whole in the other
    copy = tmp_path / "RAVDESS/mirror/Actor_07/03-01-03-01-02-02-07.wav"
    write_noise(copy)
    (tmp_path / "RAVDESS/Actor_07" / copy.name).unlink()
    (tmp_path / "RAVDESS/Actor_07" / copy.name).touch()
    prepare_ravdess(tmp_path / "RAVDESS", tmp_path / "out")
    assert "counts equal the release's: 1440" in capsys.readouterr().out
    # ... unless asked otherwise, and the counts are the release's still
    manifest = prepare_ravdess(
        tmp_path / "RAVDESS", tmp_path / "out", drop_known_bad=True
    )
    table = read_manifest(manifest)
    assert len(table) == 1439 and twice not in set(table.ID)
    assert "counts equal the release's: 1440" in capsys.readouterr().out


def test_the_folder_beside_the_right_one_is_named(release, tmp_path):
    for wrong in (release.parent, release / "Actor_01"):
        message = refused("ravdess", wrong, tmp_path / "out")
        assert message.endswith(f"give {release}")
        assert not (tmp_path / "out").exists()


def test_actors_on_the_command_line_make_the_splits(release, tmp_path):
    out = tmp_path / "out"
    result = run(
        *("ravdess", release, out),
        *("--valid_speakers", "01", "--test_speakers", "02", "21"),
    )
    assert result.returncode == 0, result.stderr
    table = read_manifest(out / "ravdess.csv")
    assert dict(zip(table.speaker, table.split, strict=True)) == {
        "01": "valid",
        "02": "test",
        "21": "test",
    }


def test_a_part_of_the_release_is_enough(release, tmp_path, capsys):
    shutil.rmtree(release / "Actor_21")
    table = read_manifest(prepare_ravdess(release, tmp_path / "out"))
    assert set(table.split) == {"train"}
    assert "nothing here by speaker 21, 22, 23, 24" in capsys.readouterr().err
