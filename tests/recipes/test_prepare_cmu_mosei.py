"""What `cmu_mosei_prepare.py` makes of CMU-MOSEI as people have it on disk.

The label files are real HDF5, in the layout of the corpus's own software.
"""

import json
import os
import sys
from functools import partial

import h5py
import miniature
import numpy as np
import pytest
from cmu_mosei_prepare import EMOTIONS, FOLDS, prepare_cmu_mosei
from miniature import read_csv, read_dropped, refused, run

from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.errors import InputError

write_noise = partial(miniature.write_noise, seconds=4.0)

DIMENSIONS = ["sentiment", *EMOTIONS]
THIRD = 1 / 3
# Three videos of the standard folds, and one of none
TRAIN, VALID, TEST = "-3g5yACwYnA", "-571d8cVauQ", "-6rXp3zJ3kc"
OUTSIDE = "in_no_foldX"
UNLABELLED = ("7l3BNtSE0xc", "dZFV0lyedX4")

# start, stop, sentiment, happy, sad, anger, surprise, disgust, fear; the
# rows of a video are in no order
SEGMENTS = {
    TRAIN: [
        (2.5, 3.5, 1.0, 2 * THIRD, THIRD, 0, 0, 0, 0),
        (-0.49, 1.0, 0.0, 0, 0, 0, 0, 0, 0),
        (1.0, 2.5, -1.0, 0, 0, 0, 0, 0, 1.0),
    ],
    VALID: [(0.5, 2.0, 0.333, 2 * THIRD, 0, 0.667, 0, 0, 0)],
    TEST: [
        (0.0, 1.5, -2.0, 0, 4.5, 1.0, 0, 0, 0),
        (1.5, 3.0, -2.0, 0, THIRD, THIRD, 0, 1.0, 0),
    ],
}


def write_labels(path, segments, names=DIMENSIONS):
    """As `mmsdk` writes a computational sequence."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        group = file.create_group("All Labels")
        for video, rows in segments.items():
            table = np.array(rows, np.float32)
            data = group.create_group(f"data/{video}")
            data.create_dataset("features", data=table[:, 2:])
            data.create_dataset("intervals", data=table[:, :2])
        metadata = group.create_group("metadata")
        for key, value in {
            "root name": "All Labels",
            "dimension names": list(names),
        }.items():
            text = metadata.create_dataset(
                key, (1,), dtype=h5py.special_dtype(vlen=str)
            )
            text[0] = json.dumps(value)


@pytest.fixture
def release(tmp_path):
    """Three videos with labels, and what lies beside them in the release."""
    root = tmp_path / "CMU_MOSEI"
    for video in SEGMENTS:
        write_noise(root / f"Raw/Audio/Full/WAV_16000/{video}.wav")
    write_labels(root / "CMU_MOSEI_Labels.csd", SEGMENTS)
    transcripts = root / "Raw/Transcript/Segmented/Combined"
    transcripts.mkdir(parents=True)
    # By the clips' own numbers; a text may hold the separator
    (transcripts / f"{TRAIN}.txt").write_text(
        f"{TRAIN}___10___2.5___3.5___It was _____ and $5\n"
        f"{TRAIN}___0___1.004___2.496___I was afraid’\n"
        f"{TRAIN}___1___-0.49___1.0___Hello\n"
        "broken line\n",
        encoding="utf-8",
    )
    for companion in (
        *("Raw/Videos/Full/Combined/a.mp4", "Raw/Audio/Full/COVAREP/a.mat"),
        *("Raw/Labels/5000_batch_raw.csv", "CMU_MOSEI_COVAREP.csd"),
    ):
        (root / companion).parent.mkdir(parents=True, exist_ok=True)
        (root / companion).write_bytes(b"not read")
    return root


def test_one_label_of_six_intensities(release, tmp_path):
    manifest = prepare_cmu_mosei(release, tmp_path / "out")
    table = read_manifest(manifest, release)
    columns = ["ID", "start", "stop", "split", "emotion", "label"]
    assert table[columns].values.tolist() == [
        # Nothing at all is not happy either
        [f"cmu_mosei_{TRAIN}_000000_001000", 0, 1, "train", "neutral", "none"],
        [f"cmu_mosei_{TRAIN}_001000_002500", 1, 2.5, "train", "fear", "fear"],
        [
            f"cmu_mosei_{TRAIN}_002500_003500",
            *(2.5, 3.5, "train", "happy", "happy"),
        ],
        # A tie is not happy because happy comes first
        [
            f"cmu_mosei_{VALID}_000500_002000",
            *(0.5, 2.0, "valid", "", "happy+anger"),
        ],
        # 3.0 at most, so that sad is still the strongest
        [f"cmu_mosei_{TEST}_000000_001500", 0, 1.5, "test", "sad", "sad"],
        [
            f"cmu_mosei_{TEST}_001500_003000",
            *(1.5, 3.0, "test", "disgust", "disgust"),
        ],
    ]


def test_a_row_is_complete_and_texts_are_joined_by_time(release, tmp_path):
    rows = read_csv(prepare_cmu_mosei(release, tmp_path / "out"))
    assert rows[2] == [
        *(f"cmu_mosei_{TRAIN}_001000_002500", "1.5"),
        f"$data_root/Raw/Audio/Full/WAV_16000/{TRAIN}.wav",
        *("1.0", "2.5", "cmu_mosei", "train", "eng", TRAIN, ""),
        *("fear", "fear", "I was afraid’"),
    ]
    assert rows[1][-1] == "Hello"
    assert rows[3][-1] == "It was _____ and 5"
    # Without a transcript
    assert rows[4][-1] == ""


def test_a_segment_without_emotion_is_neutral_only_if_wanted(release, tmp_path):
    out = tmp_path / "out"
    result = run("cmu_mosei", release, out, *("--all_zero", "none"))
    assert result.returncode == 0, result.stderr
    table = read_manifest(out / "cmu_mosei.csv")
    assert table.emotion[table.label == "none"].tolist() == [""]


def test_the_columns_go_by_their_names(release, tmp_path):
    expected = prepare_cmu_mosei(release, tmp_path / "out").read_text()
    names = ["Fear", *DIMENSIONS[:-1]]
    names[names.index("happy")] = "happiness"
    # start, stop, fear, sentiment, happy ...
    shuffled = {
        video: [[*row[:2], row[8], *row[2:8]] for row in rows]
        for video, rows in SEGMENTS.items()
    }
    write_labels(release / "CMU_MOSEI_Labels.csd", shuffled, names)
    found = prepare_cmu_mosei(release, tmp_path / "out").read_text()
    assert found == expected


def test_what_cannot_be_used_is_dropped_with_a_reason(
    release, tmp_path, capsys
):
    zeros = (0,) * 6
    segments = {
        **SEGMENTS,
        TRAIN: [
            *SEGMENTS[TRAIN],
            (2.5, 3.5, *zeros, 1),  # a second time
            (3.5, 3.55, *zeros, 1),
            (3.6, 4.3, *zeros, 1),  # ends a bit after the audio
            (3.7, 4.6, *zeros, 1),  # much
            (9.0, 8.0, *zeros, 1),
            (3.0, 4.0, *zeros, float("nan")),
        ],
        OUTSIDE: [(0, 1, *zeros, 1)],
        "hh04W3xXa5s": [(0, 1, *zeros, 1)],  # in a fold, without audio
    }
    write_labels(release / "CMU_MOSEI_Labels.csd", segments)
    wavs = release / "Raw/Audio/Full/WAV_16000"
    write_noise(wavs / f"{OUTSIDE}.wav")
    write_noise(wavs / "zzzzzzzzzzz.wav")
    write_noise(wavs.parent / f"{TRAIN}.wav")
    (wavs / f"{VALID}.wav").write_bytes(b"<html>")
    manifest = prepare_cmu_mosei(release, tmp_path / "out")
    reasons = read_dropped(tmp_path / "out")
    html = reasons.pop(f"{VALID}_000500_002000")
    assert html.startswith("unreadable: ")
    wav = f"Raw/Audio/Full/WAV_16000/{TRAIN}.wav"
    assert reasons == {
        f"Raw/Audio/Full/{TRAIN}.wav": "not a whole video: not in WAV_16000",
        "Raw/Audio/Full/WAV_16000/zzzzzzzzzzz.wav": "unlabelled: not in "
        "CMU_MOSEI_Labels.csd",
        f"{TRAIN}_002500_003500": f"duplicate: has the name of {wav}",
        f"{TRAIN}_003500_003550": "too short: 0.050 s from 3.5 s to 3.55 s "
        "of a file of 4 s",
        f"{TRAIN}_003700_004600": "outside: ends at 4.6 s of a file of 4 s",
        f"{TRAIN}_009000_008000": "mislabelled: from 9.0 s to 8.0 s",
        f"{TRAIN}_003000_004000": "mislabelled: an intensity is NaN",
        f"{OUTSIDE}_000000_001000": "in no fold: the video has no split",
        "hh04W3xXa5s_000000_001000": "missing: no WAV_16000/hh04W3xXa5s.wav",
    }
    table = read_manifest(manifest, release)
    assert table.duration.tolist() == [1.0, 1.5, 1.0, 0.4, 1.5, 1.5]
    warning = "has 14 segments of 5 videos, the release has 23259 of 3293"
    assert warning in capsys.readouterr().err


def test_labels_may_be_elsewhere(release, tmp_path):
    expected = prepare_cmu_mosei(release, tmp_path / "out").read_text()
    moved = release / "labels/CMU_MOSEI_Labels.csd"
    moved.parent.mkdir()
    (release / "CMU_MOSEI_Labels.csd").rename(moved)
    found = prepare_cmu_mosei(release, tmp_path / "out_2").read_text()
    assert found == expected
    moved.rename(tmp_path / "labels.csd")
    out = tmp_path / "out_3"
    manifest = prepare_cmu_mosei(
        release, out, labels=str(tmp_path / "labels.csd")
    )
    assert manifest.read_text() == expected
    # It changed: the manifest is made anew
    write_labels(tmp_path / "labels.csd", {TRAIN: SEGMENTS[TRAIN]})
    manifest = prepare_cmu_mosei(
        release, out, labels=str(tmp_path / "labels.csd")
    )
    assert len(read_manifest(manifest)) == 3


def test_the_whole_release_is_recognised_by_its_counts(tmp_path, capsys):
    root = tmp_path / "CMU_MOSEI"
    wavs = root / "Raw/Audio/Full/WAV_16000"
    write_noise(tmp_path / "one.wav", seconds=1)
    wavs.mkdir(parents=True)
    folds = read_csv(FOLDS)
    videos = [video for video, _ in folds[1:]]
    assert len(set(videos)) == 2249 + 300 + 678
    # Two of them have no labels, 68 others no fold
    videos = [video for video in videos if video not in UNLABELLED]
    outside = [f"{number:011d}" for number in range(68)]
    segments = {video: [] for video in [*videos, *outside]}
    for number in range(23259):
        video = [*segments][number % len(segments)]
        start = len(segments[video]) * 0.1
        segments[video].append((start, start + 0.2, *([0] * 6), 1))
    for video in segments:
        os.link(tmp_path / "one.wav", wavs / f"{video}.wav")
    write_labels(root / "CMU_MOSEI_Labels.csd", segments)
    prepare_cmu_mosei(root, tmp_path / "out")
    printed = capsys.readouterr()
    assert "labels equal the release's: 23259 segments" in printed.out
    assert "warning" not in printed.err


def test_splits_are_those_of_the_corpus():
    folds = read_csv(FOLDS)
    splits = [split for _, split in folds[1:]]
    counts = {split: splits.count(split) for split in set(splits)}
    assert counts == {"train": 2249, "valid": 300, "test": 678}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "CMU_MOSEI_Labels.csd as released"),
        (b"<html>404</html>", "CMU_MOSEI_Labels.csd as released"),
        (None, "--labels says where it is"),
    ],
)
def test_a_label_file_that_is_none_ends_with_a_message(
    release, tmp_path, content, message, run_script, capsys
):
    path = release / "CMU_MOSEI_Labels.csd"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    code = run_script(
        "cmu_mosei_prepare",
        flags={"data_folder": release, "save_folder": tmp_path / "out"},
    )
    assert code == 2
    assert message in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "layout", ["no groups", "no data", "one column", "no times", "other names"]
)
def test_another_hdf5_file_ends_with_a_message(
    release, tmp_path, layout, run_script, capsys
):
    path = release / "CMU_MOSEI_Labels.csd"
    if layout == "other names":
        write_labels(path, SEGMENTS, ["a", "b", "c", "d", "e", "f", "g"])
    else:
        with h5py.File(path, "w") as file:
            if layout != "no groups":
                file.create_group("All Labels")
            if layout == "one column":
                file[f"All Labels/data/{TRAIN}/features"] = np.ones((2, 1))
                file[f"All Labels/data/{TRAIN}/intervals"] = np.ones((2, 2))
            if layout == "no times":
                file[f"All Labels/data/{TRAIN}/features"] = np.ones((2, 7))
    code = run_script(
        "cmu_mosei_prepare",
        flags={"data_folder": release, "save_folder": tmp_path / "out"},
    )
    assert code == 2
    assert f"error: {path}: " in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_without_h5py_it_ends_with_what_to_install(
    release, tmp_path, run_script, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "h5py", None)
    code = run_script(
        "cmu_mosei_prepare",
        flags={"data_folder": release, "save_folder": tmp_path / "out"},
    )
    assert code == 2
    assert "needs h5py: pip install h5py" in capsys.readouterr().err


def test_labels_that_are_nowhere_end_with_a_message(
    release, tmp_path, run_script, capsys
):
    code = run_script(
        "cmu_mosei_prepare",
        flags={
            "data_folder": release,
            "save_folder": tmp_path / "out",
            "labels": tmp_path / "labels.csd",
        },
    )
    assert code == 2
    assert "labels.csd: no such label file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_broken_off_label_file_ends_a_process_with_a_message(
    release, tmp_path
):
    path = release / "CMU_MOSEI_Labels.csd"
    path.write_bytes(path.read_bytes()[:3000])
    out = tmp_path / "out"
    message = refused("cmu_mosei", release, out)
    assert "not CMU_MOSEI_Labels.csd as released" in message
    assert list(out.iterdir()) == []


def test_a_label_file_with_a_hole_is_read_or_refused(release, tmp_path):
    # As a download leaves it that was interrupted and went on too far ahead
    path = release / "CMU_MOSEI_Labels.csd"
    whole = path.read_bytes()
    refusals = 0
    for begin in range(0, len(whole), 256):
        path.write_bytes(whole[:begin] + bytes(256) + whole[begin + 256 :])
        try:
            prepare_cmu_mosei(release, tmp_path / "out")
        except InputError:
            refusals += 1
    assert refusals > 10


def test_the_folder_beside_the_right_one_is_named(release, tmp_path):
    message = refused("cmu_mosei", release.parent, tmp_path / "out")
    assert message.endswith(f"give {release}")
    assert not (tmp_path / "out").exists()
