"""What `shemo_prepare.py` makes of ShEMO as people have it on disk."""

import json
from functools import partial

import miniature
import pytest
from miniature import read_csv, read_dropped, refused
from shemo_prepare import prepare_shemo

from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.errors import InputError

write_noise = partial(miniature.write_noise, rate=44100)

# "I cannot bear it any more.", with a left-to-right mark inside a word
BEAR = "دیگه نمی\u200eتونم تحمل کنم."
SECRET = "مگه من به تو نگفته بودم؟"


@pytest.fixture
def release(tmp_path):
    """One recording per emotion; two have no transcript of their name."""
    root = tmp_path / "ShEMO"
    for name in ("F01A01", "F03S02", "F21N05", "F09H01"):
        write_noise(root / f"female/{name}.wav")
    for name in ("M02F01", "M56W12"):
        write_noise(root / f"male/{name}.wav", rate=22050)
    texts = {
        "F01A01": "\ufeff" + BEAR + "\r\n",  # a byte order mark
        "F03S02": SECRET,
        "F21N37": SECRET,  # no recording has this name
        "F09H01": "$5 " + SECRET,
        "M02F01": BEAR,
    }
    (root / "final text").mkdir()
    (root / "final script").mkdir()
    for name, text in texts.items():
        (root / f"final text/{name}.ort").write_bytes(text.encode())
        (root / f"final script/{name}.tra").write_bytes(b"dige")
    (root / "final text/._F03S02.ort").write_bytes(b"\xff Mac OS X")
    (root / "male.zip").write_bytes(b"PK")
    return root


@pytest.fixture
def modified(tmp_path):
    """The list of the study that listened to what is said."""
    entries = [
        ("F01A01", "F01A01", "anger", BEAR),
        ("F03S02", "F03N09", "neutral", BEAR),
        ("F21N05", "F21N37", "neutral", SECRET),
        ("F09H01", "F09H01", "happiness", SECRET),
        ("M02F01", "M02F01", "fear", BEAR),
        ("M40S01", "M40S01", "sadness", BEAR),
    ]
    path = tmp_path / "modified_shemo.json"
    names = ("speech_name", "text_name", "emotion", "transcript")
    path.write_text(
        json.dumps(
            {
                f"{entry[0]}.wav": dict(zip(names, entry, strict=True))
                for entry in entries
            }
        )
    )
    return path


# Whoever has not unpacked it yet must hear of it
PACKED = {"male.zip": "packed: an archive; unpack what you need"}
COLUMNS = ["ID", "split", "speaker", "gender", "emotion", "label", "text"]


def test_names_give_labels_and_transcripts_lose_their_byte_order_mark(
    release, tmp_path
):
    manifest = prepare_shemo(release, tmp_path / "out")
    assert read_manifest(manifest, release)[COLUMNS].values.tolist() == [
        ["shemo_F01A01", "test", "F01", "female", "angry", "anger", BEAR],
        ["shemo_F03S02", "test", "F03", "female", "sad", "sadness", SECRET],
        [
            *("shemo_F09H01", "test", "F09", "female", "happy", "happiness"),
            "5 " + SECRET,
        ],
        ["shemo_F21N05", "test", "F21", "female", "neutral", "neutral", ""],
        ["shemo_M02F01", "test", "M02", "male", "fear", "fear", BEAR],
        ["shemo_M56W12", "test", "M56", "male", "surprise", "surprise", ""],
    ]


def test_a_row_is_complete_whatever_the_sampling_rate(release, tmp_path):
    manifest = prepare_shemo(release, tmp_path / "out")
    assert read_csv(manifest)[5] == [
        *("shemo_M02F01", "0.3", "$data_root/male/M02F01.wav", "", ""),
        *("shemo", "test", "fas", "M02", "male", "fear", "fear", BEAR),
    ]
    assert read_dropped(tmp_path / "out") == PACKED


def test_emobox_takes_recordings_with_a_transcript_of_their_name(
    release, tmp_path, capsys
):
    manifest = prepare_shemo(release, tmp_path / "out", subset="emobox")
    assert read_manifest(manifest).ID.tolist() == [
        *("shemo_F01A01", "shemo_F03S02", "shemo_F09H01", "shemo_M02F01")
    ]
    assert read_dropped(tmp_path / "out") == {
        "female/F21N05.wav": "no transcript: no F21N05.ort",
        "male/M56W12.wav": "no transcript: no M56W12.ort",
        **PACKED,
    }
    assert "the release has 2838" in capsys.readouterr().err


def test_modified_labels_and_transcripts_replace_the_names(
    release, modified, tmp_path
):
    manifest = prepare_shemo(
        release, tmp_path / "out", labels="modified", modified_labels=modified
    )
    columns = ["ID", "label", "text"]
    assert read_manifest(manifest)[columns].values.tolist() == [
        ["shemo_F01A01", "anger", BEAR],
        ["shemo_F03S02", "neutral", BEAR],
        ["shemo_F09H01", "happiness", SECRET],
        ["shemo_F21N05", "neutral", SECRET],
        ["shemo_M02F01", "fear", BEAR],
    ]
    assert read_dropped(tmp_path / "out") == {
        "male/M56W12.wav": "no label: not in the modified list",
        **PACKED,
    }


def test_another_list_is_prepared_again(release, modified, tmp_path, capsys):
    modified.rename(release / modified.name)
    modified = release / modified.name
    prepare_shemo(release, tmp_path / "out", labels="modified")
    modified.write_text(modified.read_text().replace("neutral", "surprise"))
    manifest = prepare_shemo(release, tmp_path / "out", labels="modified")
    assert "surprise" in set(read_manifest(manifest).label)
    assert "nothing to do" not in capsys.readouterr().out
    prepare_shemo(release, tmp_path / "out", labels="modified")
    assert "nothing to do" in capsys.readouterr().out


def test_both_choices_together_have_counts_of_their_own(
    release, modified, tmp_path, capsys
):
    prepare_shemo(
        release,
        tmp_path / "out",
        labels="modified",
        subset="emobox",
        modified_labels=modified,
    )
    errors = capsys.readouterr().err
    assert "4 utterances, the release has 2838: anger 1 instead of 1033" in (
        errors
    )


def test_transcripts_are_found_through_a_link(release, tmp_path):
    (release / "final text").rename(tmp_path / "texts")
    (release / "final text").symlink_to(tmp_path / "texts")
    manifest = prepare_shemo(release, tmp_path / "out", subset="emobox")
    assert len(read_manifest(manifest)) == 4


def test_one_of_the_two_archives_is_enough(release, tmp_path):
    for path in (release / "female").iterdir():
        path.unlink()
    manifest = prepare_shemo(release, tmp_path / "out")
    assert len(read_manifest(manifest)) == 2


def test_misnamed_files_are_dropped_and_a_broken_transcript_is_not_text(
    release, tmp_path, capsys
):
    misnamed = ("X01A01", "F01B01", "F1A01", "F01A01 (1)")
    for name in misnamed:
        write_noise(release / f"female/{name}.wav")
    (release / "final text/M02F01.ort").write_bytes(b"\xff\xfe\x00\xd8")
    table = read_manifest(prepare_shemo(release, tmp_path / "out"))
    dropped = read_dropped(tmp_path / "out")
    reason = "misnamed: not like F03S02"
    assert dropped == {
        **{f"female/{name}.wav": reason for name in misnamed},
        **PACKED,
    }
    assert table.text[table.ID == "shemo_M02F01"].item() == ""
    assert "M02F01.ort: no transcript" in capsys.readouterr().err


def test_flac_gives_the_rows_of_wav(release, tmp_path):
    for path in release.rglob("*.wav"):
        write_noise(tmp_path / f"flac/{path.parent.name}/{path.stem}.flac")
    (release / "final text").rename(tmp_path / "flac/final text")
    flac = prepare_shemo(tmp_path / "flac", tmp_path / "out_flac").read_text()
    (tmp_path / "flac/final text").rename(release / "final text")
    wav = prepare_shemo(release, tmp_path / "out").read_text()
    assert flac.replace(".flac", ".wav") == wav


@pytest.mark.parametrize(
    "content",
    ["[1]", "{}", "{", '{"a": 1}', '{"a": {"speech_name": "F01A01"}}'],
)
def test_another_json_file_is_refused(release, modified, tmp_path, content):
    modified.write_text(content)
    with pytest.raises(InputError, match="not the modified_shemo"):
        prepare_shemo(
            *(release, tmp_path / "out"),
            labels="modified",
            modified_labels=modified,
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"labels": "text"}, "labels is 'text', not name or modified"),
        ({"subset": "mine"}, "subset is 'mine', not all or emobox"),
        ({"modified_labels": "x.json"}, "read with labels modified only"),
    ],
)
def test_choices_that_do_not_exist_are_named(
    release, tmp_path, options, message
):
    with pytest.raises(InputError, match=message):
        prepare_shemo(release, tmp_path / "out", **options)


def test_modified_labels_without_the_list_end_with_where_it_is(
    release, tmp_path
):
    out = tmp_path / "out"
    message = refused("shemo", release, out, *("--labels", "modified"))
    assert "labels modified needs modified_shemo.json of https:" in (message)
    assert not out.exists()


def test_emobox_without_transcripts_says_what_to_do(release, tmp_path):
    for path in (release / "final text").glob("*.ort"):
        path.unlink()
    with pytest.raises(InputError, match=r"unpack transcript\.zip here"):
        prepare_shemo(release, tmp_path / "out", subset="emobox")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_folder_inside_ends_with_the_right_one(release, tmp_path):
    out = tmp_path / "out"
    message = refused("shemo", release / "male", out)
    assert f"give {release}" in message
    assert not out.exists()
