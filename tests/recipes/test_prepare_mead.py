"""What `mead_prepare.py` makes of MEAD as people have it on disk.

The m4a files are real ones: AAC at 48 kHz, made with PyAV.
"""

import os
import resource
import shutil
import tarfile
from pathlib import PurePosixPath

import av
import mead_prepare
import numpy as np
import pytest
import soundfile
from mead_prepare import prepare_mead
from miniature import read_csv, read_dropped, refused, run, write_noise

from speechbrain_mser.dataio.audio import load_audio
from speechbrain_mser.dataio.manifest import read_manifest

NAMES = (
    *("M003/audio/neutral/level_1/040", "M007/audio/angry/level_3/001"),
    *("M007/audio/contempt/level_2/030", "M041/audio/disgusted/level_1/002"),
    *("W009/audio/fear/level_1/003", "W014/audio/happy/level_2/004"),
    *("W014/audio/sad/level_3/005", "W040/audio/surprised/level_2/006"),
)


def write_m4a(path, rate=48000):
    """0.3 s of noise as AAC, in mono."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).normal(0, 0.1, (1, rate * 3 // 10))
    with av.open(os.fspath(path), "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            noise.astype(np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


@pytest.fixture(scope="session")
def two_rates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mead")
    for rate in (44100, 48000):
        write_m4a(folder / f"{rate}.m4a", rate)
    return folder


@pytest.fixture
def release(tmp_path, two_rates):
    """One clip per emotion, by six actors, and a film."""
    root = tmp_path / "MEAD"
    for number, name in enumerate(NAMES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        rate = 48000 if number else 44100
        shutil.copy(two_rates / f"{rate}.m4a", root / f"{name}.m4a")
    film = root / "M003/video/front/angry/level_1/001.mp4"
    film.parent.mkdir(parents=True)
    film.write_bytes(b"film")
    # Left over after unpacking
    (root / "M003/audio.tar").write_bytes(b"packed")
    return root


def test_actors_emotions_and_splits(release, tmp_path):
    manifest = prepare_mead(release, tmp_path / "out")
    columns = ["ID", "split", "speaker", "gender", "emotion", "label"]
    assert read_manifest(manifest, release)[columns].values.tolist() == [
        [f"mead_{name}", *row]
        for name, *row in (
            ("M003_neutral_1_040", "test", "M003", "male", *["neutral"] * 2),
            ("M007_angry_3_001", "train", "M007", "male", *["angry"] * 2),
            ("M007_contempt_2_030", "train", "M007", "male", *["contempt"] * 2),
            (
                *("M041_disgusted_1_002", "valid", "M041", "male"),
                *("disgust", "disgusted"),
            ),
            ("W009_fear_1_003", "test", "W009", "female", "fear", "fear"),
            ("W014_happy_2_004", "train", "W014", "female", "happy", "happy"),
            ("W014_sad_3_005", "train", "W014", "female", "sad", "sad"),
            (
                *("W040_surprised_2_006", "valid", "W040", "female"),
                *("surprise", "surprised"),
            ),
        )
    ]


def test_a_row_is_complete_and_its_audio_extracted(release, tmp_path, capsys):
    manifest = prepare_mead(release, tmp_path / "out")
    row = read_csv(manifest)[2]
    seconds = float(row[1])
    assert row == [
        *("mead_M007_angry_3_001", row[1]),
        "$manifest_folder/mead_audio/M007/audio/angry/level_3/001.m4a.flac",
        *("", "", "mead", "train", "eng", "M007", "male", "angry", "angry", ""),
    ]
    # AAC adds up to two frames of 1,024 samples
    assert 0.3 <= seconds < 0.35
    for wav in read_manifest(manifest, release).wav:
        info = soundfile.info(wav)
        assert (info.samplerate, info.channels) == (16000, 1)
        assert 0.3 <= len(load_audio(wav)) / 16000 < 0.35
    assert "companions of the audio 2" in capsys.readouterr().out


def test_a_second_run_does_nothing_and_a_third_only_what_is_missing(
    release, tmp_path, capsys
):
    manifest = prepare_mead(release, tmp_path / "out")
    before = manifest.read_text()
    capsys.readouterr()
    prepare_mead(release, tmp_path / "out")
    assert "nothing to do" in capsys.readouterr().out
    audio = sorted((tmp_path / "out/mead_audio").rglob("*.flac"))
    times = [path.stat().st_ino for path in audio]
    audio[0].unlink()
    prepare_mead(release, tmp_path / "out")
    assert manifest.read_text() == before
    assert [path.stat().st_ino for path in audio][1:] == times[1:]


def test_wav_is_taken_where_it_is(release, tmp_path):
    root = tmp_path / "MEAD_wav"
    for name in NAMES:
        write_noise(root / f"{name}.wav")
    manifest = prepare_mead(root, tmp_path / "out")
    table = read_manifest(manifest, root)
    assert read_csv(manifest)[1][2] == f"$data_root/{NAMES[0]}.wav"
    assert table.duration.tolist() == [0.3] * 8
    assert not (tmp_path / "out/mead_audio").exists()


def test_whatever_is_no_utterance_is_dropped_with_a_reason(release, tmp_path):
    m4a = release / f"{NAMES[1]}.m4a"
    misnamed = (
        *("M036/audio/angry/level_1/001.m4a", "M003/audio/calm/level_1/1.m4a"),
        *("M003/audio/angry/level_4/001.m4a", "M003/angry/level_1/001.m4a"),
        "M003/audio/angry/level_1/001 (1).m4a",
    )
    for name in misnamed:
        (release / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(m4a, release / name)
    (release / "M003/audio/sad/level_1").mkdir(parents=True)
    (release / "M003/audio/sad/level_1/001.m4a").touch()
    half = m4a.read_bytes()
    (release / "M003/audio/sad/level_1/002.m4a").write_bytes(half[:900])
    (release / "M003/audio/sad/level_1/._003.m4a").write_bytes(b"Mac OS X")
    # One clip in two formats
    write_noise(release / f"{NAMES[1]}.wav")
    manifest = prepare_mead(release, tmp_path / "out")
    dropped = read_dropped(tmp_path / "out")
    broken = dropped.pop("M003/audio/sad/level_1/002.m4a")
    assert broken.startswith("unreadable: ")
    twice = dropped.pop(f"{NAMES[1]}.wav")
    assert twice.startswith("duplicate: has the name of ")
    reason = "misnamed: not like M003/audio/angry/level_1/001"
    assert dropped == {
        **dict.fromkeys(misnamed, reason),
        "M003/audio/sad/level_1/001.m4a": "empty: 0 bytes",
    }
    assert len(read_manifest(manifest)) == 8


def test_known_numbers_add_up():
    assert sum(mead_prepare.MEAD.counts.values()) == 31729
    assert 31729 - mead_prepare.MEAD.counts["contempt"] == 27514
    actors = mead_prepare.ACTORS
    assert len(set(actors)) == 48
    assert sum(actor.startswith("M") for actor in actors) == 27
    corpus = mead_prepare.MEAD
    held_out = {*corpus.valid_speakers, *corpus.test_speakers}
    assert len(held_out & set(actors)) == 8


def test_actors_on_the_command_line_make_the_splits(release, tmp_path):
    out = tmp_path / "out"
    result = run(
        *("mead", release, out),
        *("--valid_speakers", "W014", "--test_speakers", "M007"),
    )
    assert result.returncode == 0, result.stderr
    table = read_manifest(out / "mead.csv")
    splits = dict(zip(table.speaker, table.split, strict=True))
    assert splits == {
        **{"M003": "train", "M007": "test", "M041": "train"},
        **{"W009": "train", "W014": "valid", "W040": "train"},
    }
    assert "8 utterances, the release has 31729" in result.stderr


def pack(path, folder, prefix):
    """A tarball of a folder's files, and of what macOS adds to them."""
    with tarfile.open(path, "w") as tarball:
        for file in sorted(folder.rglob("*.m4a")):
            name = f"{prefix}{file.relative_to(folder)}"
            tarball.add(file, name)
            shadow = tarfile.TarInfo(
                str(PurePosixPath(name).with_name(f"._{file.name}"))
            )
            tarball.addfile(shadow)


@pytest.mark.parametrize("prefix", ["audio/", "./audio/", "M007/audio/"])
def test_actors_whose_audio_is_packed_are_read_too(release, tmp_path, prefix):
    unpacked = read_manifest(prepare_mead(release, tmp_path / "unpacked"))
    actor = release / "M007"
    pack(actor / "audio.tar", actor / "audio", prefix)
    shutil.rmtree(actor / "audio")
    packed = read_manifest(prepare_mead(release, tmp_path / "packed"))
    assert packed.equals(unpacked)
    assert read_dropped(tmp_path / "packed") == {}


def test_a_tarball_that_breaks_off_ends_with_a_message(release, tmp_path):
    tarball = release / "W014/audio.tar"
    pack(tarball, release / "W014/audio", "audio/")
    shutil.rmtree(release / "W014/audio")
    tarball.write_bytes(tarball.read_bytes()[:4000])
    message = refused("mead", release, tmp_path / "out")
    assert f"{tarball}: broken off or damaged" in message


def test_a_disk_that_fills_while_extracting_ends_with_a_message(
    release, tmp_path
):
    out = tmp_path / "out"

    def allow_2000_bytes():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    message = refused(
        *("mead", release, out),
        preexec_fn=allow_2000_bytes,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert f"{out / 'mead_audio'}: cannot be written to" in message
    assert [path for path in out.rglob("*") if path.is_file()] == []


def test_one_clip_in_two_films_is_there_once(release, tmp_path):
    m4a = release / f"{NAMES[1]}.m4a"
    shutil.copy(m4a, m4a.with_suffix(".mp4"))
    out = tmp_path / "out"
    assert len(read_manifest(prepare_mead(release, out), release)) == 8
    ((item, reason),) = read_dropped(out).items()
    # Each film has a FLAC of its own, so that neither is written twice
    assert item.endswith(f"{NAMES[1]}.mp4.flac")
    assert reason.endswith(f"{NAMES[1]}.m4a.flac")
    # And where one of them is broken, the other one is taken
    m4a.write_bytes(b"no film")
    out = tmp_path / "anew"
    prepare_mead(release, out)
    assert read_dropped(out).keys() == {f"{NAMES[1]}.m4a"}
    assert len(read_manifest(out / "mead.csv", release)) == 8


def test_a_folder_without_one_good_file_leaves_no_manifest(tmp_path):
    path = tmp_path / "MEAD/M003/audio/angry/level_1/001.m4a"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"<html>404</html>")
    out = tmp_path / "out"
    message = refused("mead", tmp_path / "MEAD", out)
    assert "none of 1 audio files can be used" in message
    assert list(out.iterdir()) == []
