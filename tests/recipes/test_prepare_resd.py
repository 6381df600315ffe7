"""What `resd_prepare.py` makes of RESD as the hub gives it."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("av")

from miniature import read_csv, read_dropped, refused  # noqa: E402
from pyarrow import parquet  # noqa: E402
from resd_prepare import prepare_resd  # noqa: E402

from speechbrain_mser.dataio.manifest import read_manifest  # noqa: E402
from speechbrain_mser.errors import InputError  # noqa: E402

RATES = {"32": 16000, "03": 16000, "45": 44100}
SPEECH = pyarrow.struct(
    [("bytes", pyarrow.binary()), ("path", pyarrow.string())]
)


def wav(rate, seconds=0.3):
    file = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, round(rate * seconds))
    soundfile.write(file, noise, rate, format="WAV")
    return file.getvalue()


def write_shard(target, entries, **columns):
    """A parquet file of (name, emotion) pairs, as `datasets` writes it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    names = [name for name, _ in entries]
    speech = [
        {"bytes": wav(RATES[name[:2]]), "path": f"{name}.wav"} for name in names
    ]
    table = {
        "name": names,
        "path": [f"{name[:-6]}/{name}.wav" for name in names],
        "emotion": [emotion for _, emotion in entries],
        "speech": pyarrow.array(speech, SPEECH),
        **columns,
    }
    table = {key: value for key, value in table.items() if value is not None}
    parquet.write_table(pyarrow.table(table), target)


TRAIN = "data/train-00000-of-00001-a1b2.parquet"
TEST = "data/test-00000-of-00001-c3d4.parquet"


@pytest.fixture
def release(tmp_path):
    """Both splits, both sampling rates and both forms of the name."""
    root = tmp_path / "RESD"
    write_shard(
        root / TRAIN,
        [
            ("32_happiness_enthusiasm_h_120", "happiness"),
            ("32_happiness_enthusiasm_e_040", "enthusiasm"),
            ("03_disgust_neutral n_050", "neutral"),
        ],
    )
    write_shard(
        root / TEST,
        [
            ("32_happiness_enthusiasm_h_121", "happiness"),
            ("45_anger_fear_f_010", "fear"),
        ],
    )
    (root / "README.md").write_text("# RESD\n")
    return root


def test_splits_are_the_releases_and_share_voices(release, tmp_path):
    manifest = prepare_resd(release, tmp_path / "out")
    columns = ["ID", "split", "speaker", "emotion", "label"]
    assert read_manifest(manifest, release)[columns].values.tolist() == [
        ["resd_32_happiness_enthusiasm_h_121", "test", "32h", *HAPPY],
        ["resd_45_anger_fear_f_010", "test", "45f", "fear", "fear"],
        ["resd_03_disgust_neutral_n_050", "train", "03n", *NEUTRAL],
        ["resd_32_happiness_enthusiasm_e_040", "train", "32e", *ENTHUSIASM],
        ["resd_32_happiness_enthusiasm_h_120", "train", "32h", *HAPPY],
    ]


HAPPY = ["happy", "happiness"]
NEUTRAL = ["neutral", "neutral"]
ENTHUSIASM = ["enthusiasm", "enthusiasm"]


def test_a_row_is_complete_and_the_audio_lies_beside_the_manifest(
    release, tmp_path
):
    manifest = prepare_resd(release, tmp_path / "out")
    assert read_csv(manifest)[2] == [
        *("resd_45_anger_fear_f_010", "0.3"),
        "$manifest_folder/resd_audio/test/45_anger_fear_f_010.flac",
        *("", "", "resd", "test", "rus", "45f", "", "fear", "fear", ""),
    ]
    for wav in read_manifest(manifest, release).wav:
        info = soundfile.info(wav)
        assert (info.samplerate, info.channels) == (16000, 1)
        assert info.frames == 4800
        assert str(tmp_path / "out/resd_audio") in wav


def test_audio_at_16_khz_is_what_the_parquet_file_holds(release, tmp_path):
    manifest = prepare_resd(release, tmp_path / "out")
    table = read_manifest(manifest, release).set_index("ID")
    written, _ = soundfile.read(
        table.wav["resd_32_happiness_enthusiasm_h_120"], dtype="int16"
    )
    held, _ = soundfile.read(io.BytesIO(wav(16000)), dtype="int16")
    assert np.abs(written.astype(int) - held).max() <= 1


@pytest.mark.parametrize(
    "enthusiasm, emotions",
    [
        ("keep", ["enthusiasm", "fear", "happy", "happy", "neutral"]),
        ("drop", ["fear", "happy", "happy", "neutral"]),
        ("happy", ["fear", "happy", "happy", "happy", "neutral"]),
    ],
)
def test_enthusiasm_is_a_choice(release, tmp_path, enthusiasm, emotions):
    out = tmp_path / "out"
    table = read_manifest(prepare_resd(release, out, enthusiasm=enthusiasm))
    assert sorted(table.emotion) == emotions
    dropped = [
        "train-00000-of-00001-a1b2.parquet: 32_happiness_enthusiasm_e_040",
        "enthusiasm: left out by choice",
    ]
    assert read_csv(out / "resd_dropped.csv")[1:] == [dropped] * (
        enthusiasm == "drop"
    )


def test_everything_may_be_test(release, tmp_path):
    manifest = prepare_resd(release, tmp_path / "out", all_test=True)
    assert set(read_manifest(manifest).split) == {"test"}


def test_transcripts_are_taken_where_they_are(release, tmp_path):
    write_shard(
        release / TEST, [("45_anger_fear_f_010", "fear")], text=["Я боюсь. "]
    )
    table = read_manifest(prepare_resd(release, tmp_path / "out"))
    assert set(table.text) == {"", "Я боюсь."}


def test_a_second_run_writes_no_audio_and_a_lost_file_comes_back(
    release, tmp_path, capsys
):
    manifest = prepare_resd(release, tmp_path / "out")
    wavs = [Path(wav) for wav in read_manifest(manifest, release).wav]
    before = [wav.stat().st_ino for wav in wavs]
    prepare_resd(release, tmp_path / "out")
    assert "nothing to do" in capsys.readouterr().out
    wavs[0].unlink()
    prepare_resd(release, tmp_path / "out")
    assert [wav.stat().st_ino for wav in wavs[1:]] == before[1:]
    assert wavs[0].is_file()


def test_other_layouts_of_the_hub_are_read(release, tmp_path):
    expected = prepare_resd(release, tmp_path / "out").read_text()
    flat, converted = tmp_path / "flat", tmp_path / "converted"
    (release / "data").rename(flat)
    for split in ("train", "test"):
        (shard,) = flat.glob(f"{split}-*")
        folder = converted / f"default/{split}"
        folder.mkdir(parents=True)
        (folder / "0000.parquet").write_bytes(shard.read_bytes())
    for number, root in enumerate((flat, converted)):
        out = tmp_path / f"out_{number}"
        assert prepare_resd(root, out).read_text() == expected


def test_rows_that_cannot_be_used_are_dropped_with_a_reason(release, tmp_path):
    names = ["45_anger_fear_f_011", "45_anger_fear_f_012", "45_anger_fear_a_1"]
    names += ["45_anger_fear_a_013", "45_anger_fear_f_014", names[0]]
    speech = [wav(44100), b"", wav(44100), wav(44100), b"RIFF no audio", b""]
    write_shard(
        release / TEST,
        [(name, "fear") for name in names],
        speech=pyarrow.array([{"bytes": held} for held in speech], SPEECH),
    )
    write_shard(
        release / TRAIN,
        [("45_anger_fear_f_011", "fear")],
        speech=pyarrow.array([None], SPEECH),
    )
    (release / "a.wav").write_bytes(wav(16000))
    table = read_manifest(prepare_resd(release, tmp_path / "out"))
    assert table.ID.tolist() == ["resd_45_anger_fear_f_011"]
    dropped = read_dropped(tmp_path / "out")
    audio = "$manifest_folder/resd_audio"
    assert dropped.pop(f"{audio}/test/45_anger_fear_f_014.flac").startswith(
        "unreadable: "
    )
    test = "test-00000-of-00001-c3d4.parquet"
    assert dropped == {
        f"{audio}/test/45_anger_fear_f_012.flac": "empty: 0 bytes",
        f"{audio}/train/45_anger_fear_f_011.flac": "empty: 0 bytes",
        f"{test}: 45_anger_fear_f_011": "duplicate: a row before it has the "
        "name",
        f"{test}: 45_anger_fear_a_1": "misnamed: not like "
        "32_happiness_enthusiasm_h_120",
        f"{test}: 45_anger_fear_a_013": "misnamed: fear in the table, a by "
        "its name",
        "a.wav": "unlisted: the release has its audio in parquet files",
    }


# Bad input


def test_an_early_revision_is_refused_before_anything_is_written(
    release, tmp_path
):
    floats = pyarrow.array([[0.1, 0.2]], pyarrow.list_(pyarrow.float32()))
    entry = [("45_anger_fear_f_010", "fear")]
    write_shard(release / TEST, entry, speech=floats)
    out = tmp_path / "out"
    message = refused("resd", release, out)
    assert "the column speech holds list<" in message
    assert "an early revision of the data set" in message
    assert list(out.iterdir()) == []


def test_columns_that_are_missing_or_no_text_are_named(release, tmp_path):
    entry = [("45_anger_fear_f_010", "fear")]
    write_shard(release / TEST, entry, name=None, path=None)
    with pytest.raises(
        InputError, match="column name is missing; found emotion, speech"
    ):
        prepare_resd(release, tmp_path / "out")
    write_shard(release / TEST, entry, emotion=[5])
    with pytest.raises(InputError, match="column emotion holds int64, not"):
        prepare_resd(release, tmp_path / "out")


def test_a_pointer_and_broken_files_end_with_a_message(release, tmp_path):
    whole = (release / TEST).read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    half = whole[: len(whole) // 2]
    no_utf8 = whole.replace(b"emotion", b"emot\xffon")
    for content in (pointer, b"", half, no_utf8):
        (release / TEST).write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as parquet"):
            prepare_resd(release, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_shard_of_no_split_is_named(release, tmp_path):
    (release / TEST).rename(release / "data/0000.parquet")
    with pytest.raises(InputError, match="neither train nor test in its name"):
        prepare_resd(release, tmp_path / "out")


def test_an_unknown_choice_and_folder_end_with_a_message(release, tmp_path):
    with pytest.raises(InputError, match="'merge', not keep or drop or happy"):
        prepare_resd(release, tmp_path / "out", enthusiasm="merge")
    out = tmp_path / "out"
    message = refused("resd", tmp_path / "none", out)
    assert f"{tmp_path / 'none'}: no such folder" in message
    assert not out.exists()
