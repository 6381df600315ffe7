"""What `msp_podcast_prepare.py` makes of MSP-Podcast as people have it."""

import csv
import json

import msp_podcast_prepare
import pytest
from miniature import read_csv, read_dropped, refused, run, write_noise
from msp_podcast_prepare import prepare_msp_podcast

from speechbrain_mser.dataio.manifest import read_manifest

HEADER = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
LABELS = f"""{HEADER}
MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,Test1
MSP-PODCAST_0001_0019.wav,A,6.0,1.8,5.6,30,Male,Development
MSP-PODCAST_0002_0033.wav,H,5.0,6.0,4.0,127,Female,Train
MSP-PODCAST_0002_0039.wav,X,4.0,4.0,4.0,Unknown,Unknown,Train
MSP-PODCAST_0003_0001.wav,C,4.0,2.0,5.0,Unknown,Male,Train
MSP-PODCAST_4515_0062_003.wav,O,3.0,3.0,3.0,2001,Female,Test2
MSP-PODCAST_4515_0062_004.wav,U,3.0,3.0,3.0,2001,Female,Test2
"""


def write_release(root, audio="Audios", labels="Labels/labels_consensus.csv"):
    for line in LABELS.splitlines()[1:]:
        write_noise(root / audio / line.split(",")[0])
    write_noise(root / audio / "MSP-PODCAST_test3_0001.wav")
    (root / labels).parent.mkdir()
    (root / labels).write_text(LABELS, encoding="ascii")
    return root


@pytest.fixture
def release(tmp_path):
    """Seven labelled turns, one of Test3, and what comes with them."""
    root = write_release(tmp_path / "MSP-PODCAST-Publish-1.11")
    for name, content in {
        "readme.txt": b"MSP-PODCAST Database",
        "Partitions.txt": b"Test3; MSP-PODCAST_test3_0001.wav",
        "Labels/labels.txt": b"MSP-PODCAST_0001_0008.wav; N; A:2.200000;",
        "Labels/labels_detailed.csv": b"FileName,Worker",
        "Transcripts/MSP-PODCAST_0001_0008.txt": b"It cost $5, right?\r\n",
        "Transcripts/MSP-PODCAST_0002_0033.txt": b"That\x92s great",
        "Transcripts/._MSP-PODCAST_0001_0008.txt": b"Mac OS X",
        "ForceAligned/MSP-PODCAST_0001_0008.TextGrid": b"ooTextFile",
    }.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    removed = "Previous_releases_information/files_removed_from_prev_versions"
    write_noise(root / removed / "MSP-PODCAST_0009_0001.wav")
    return root


def test_letters_splits_speakers_and_genders(release, tmp_path):
    manifest = prepare_msp_podcast(release, tmp_path / "out")
    columns = ["ID", "split", "speaker", "gender", "emotion", "label"]
    table = read_manifest(manifest, release)
    assert table[columns].values.tolist() == [
        [f"msp_podcast_MSP-PODCAST_{name}", *row]
        for name, *row in (
            ("0001_0008", "test", "30", "male", "neutral", "neutral"),
            ("0001_0019", "valid", "30", "male", "angry", "angry"),
            ("0002_0033", "train", "127", "female", "happy", "happy"),
            ("0002_0039", "train", "", "", "", "no agreement"),
            ("0003_0001", "train", "", "male", "contempt", "contempt"),
            ("4515_0062_003", "test", "2001", "female", "", "other"),
            ("4515_0062_004", "test", "2001", "female", "surprise", "surprise"),
        )
    ]


def test_a_row_is_complete_and_its_transcript_harmless(release, tmp_path):
    manifest = prepare_msp_podcast(release, tmp_path / "out")
    rows = read_csv(manifest)
    assert rows[1] == [
        *("msp_podcast_MSP-PODCAST_0001_0008", "0.3"),
        *("$data_root/Audios/MSP-PODCAST_0001_0008.wav", "", ""),
        *("msp_podcast", "test", "eng", "30", "male", "neutral", "neutral"),
        "It cost 5, right?",
    ]
    # Not UTF-8
    assert rows[3][-1] == "That’s great"
    # Without a transcript
    assert rows[2][-1] == ""


def test_test3_and_what_former_releases_held_are_left_out(
    release, tmp_path, capsys
):
    prepare_msp_podcast(release, tmp_path / "out")
    assert read_dropped(tmp_path / "out") == {
        "Audios/MSP-PODCAST_test3_0001.wav": "unlabelled: Test3 has no public "
        "labels"
    }
    # Three in Labels, two transcripts, one alignment, two texts, one removed
    assert "companions of the audio 9" in capsys.readouterr().out


def test_former_releases_spell_consensus_and_splits_otherwise(tmp_path):
    root = write_release(
        tmp_path / "1.8", "Audio", "label/labels_concensus.csv"
    )
    path = root / "label/labels_concensus.csv"
    path.write_text(LABELS.replace("Development", "Validation"))
    table = read_manifest(prepare_msp_podcast(root, tmp_path / "out"), root)
    assert table.split.tolist().count("valid") == 1
    assert table.wav[0].endswith("Audio/MSP-PODCAST_0001_0008.wav")


def test_json_gives_the_rows_of_csv(release, tmp_path):
    from_csv = prepare_msp_podcast(release, tmp_path / "out").read_text()
    path = release / "Labels/labels_consensus.csv"
    table = {}
    for row in csv.DictReader(LABELS.splitlines()):
        name = row.pop("FileName")
        speaker = row["SpkrID"]
        number = int(speaker) if speaker.isdigit() else speaker
        table[name] = {**row, "EmoAct": 2.2, "SpkrID": number}
    path.with_suffix(".json").write_text(json.dumps(table))
    path.unlink()
    from_json = prepare_msp_podcast(release, tmp_path / "out_json").read_text()
    assert from_json == from_csv


def test_flac_and_folders_in_folders_and_copies(tmp_path):
    root = write_release(tmp_path / "msp", "Audios/Audios")
    inner = root / "Audios/Audios"
    write_noise(root / "Audios/MSP-PODCAST_0001_0008.flac")
    # As in 1.8
    write_noise(inner / "MSP-PODCAST_0001_0019.wav", rate=44100, channels=2)
    table = read_manifest(prepare_msp_podcast(root, tmp_path / "out"), root)
    assert len(table) == 7
    assert table.duration.tolist() == [0.3] * 7
    outer = str(root / "Audios/MSP-PODCAST_0001_0008.flac")
    assert outer in table.wav.tolist()
    assert read_dropped(tmp_path / "out")[
        "Audios/Audios/MSP-PODCAST_0001_0008.wav"
    ] == ("duplicate: has the name of Audios/MSP-PODCAST_0001_0008.flac")


def test_whatever_cannot_be_used_is_dropped_with_a_reason(release, tmp_path):
    with open(release / "Labels/labels_consensus.csv", "a") as file:
        file.write("MSP-PODCAST_0007_0001.wav,N,1,1,1,5,Male,Train\n")
        for number, rest in enumerate(("Z,1,1,1,5,Male,Train", "N,1,1,1,5")):
            name = f"MSP-PODCAST_0008_000{number}.wav"
            write_noise(release / "Audios" / name)
            file.write(f"{name},{rest}\n")
        # Twice, and not the same
        file.write("MSP-PODCAST_0001_0008.wav,S,1,1,1,30,Male,Test1\n")
    (release / "Audios/MSP-PODCAST_0001_0019.wav").write_bytes(b"")
    write_noise(release / "Audios/MSP-PODCAST_0005_0001.wav")
    manifest = prepare_msp_podcast(release, tmp_path / "out")
    reasons = read_dropped(tmp_path / "out")
    del reasons["Audios/MSP-PODCAST_test3_0001.wav"]
    assert {
        item.removeprefix("Audios/"): reason for item, reason in reasons.items()
    } == {
        "MSP-PODCAST_0007_0001": "missing: labelled, but without audio",
        "MSP-PODCAST_0008_0000.wav": "mislabelled: EmoClass 'Z'",
        "MSP-PODCAST_0008_0001.wav": "mislabelled: Split_Set ''",
        "MSP-PODCAST_0001_0008.wav": "duplicate: has the name of "
        "Audios/MSP-PODCAST_0001_0008.wav",
        "MSP-PODCAST_0001_0019.wav": "empty: 0 bytes",
        "MSP-PODCAST_0005_0001.wav": "unlabelled: not in the label file",
    }
    assert read_manifest(manifest).label[0] == "neutral"


def test_one_test_set_can_be_chosen(release, tmp_path):
    out = tmp_path / "out"
    result = run("msp_podcast", release, out, *("--test_sets", "Test1"))
    assert result.returncode == 0, result.stderr
    table = read_manifest(out / "msp_podcast.csv")
    assert table.ID[table.split == "test"].tolist() == [
        "msp_podcast_MSP-PODCAST_0001_0008"
    ]
    name = "Audios/MSP-PODCAST_4515_0062_003.wav"
    assert read_dropped(out)[name] == "other test set: Test2"
    # Another choice is another manifest
    prepare_msp_podcast(release, out)
    assert len(read_manifest(out / "msp_podcast.csv")) == 7


def test_a_version_is_known_by_its_turns(
    release, tmp_path, capsys, monkeypatch
):
    prepare_msp_podcast(release, tmp_path / "out")
    printed = capsys.readouterr().err
    assert "warning: 8 turns are of no known version (1.8 73042, " in printed
    numbers = {"train": 3, "valid": 1, "Test1": 1, "Test2": 2}
    versions = {8: ("1.11", numbers)}
    monkeypatch.setattr(msp_podcast_prepare, "VERSIONS", versions)
    prepare_msp_podcast(release, tmp_path / "out_2")
    printed = capsys.readouterr()
    assert "version 1.11: 8 turns, 7 of them labelled" in printed.out
    # Nothing but this: one of them is in Development and in Test1
    assert printed.err.startswith("warning: 1 of 3 speakers are in more than ")
    assert "(30)" in printed.err and printed.err.count("\n") == 1
    versions[8] = ("1.8", {"train": 4})
    prepare_msp_podcast(release, tmp_path / "out_3")
    printed = capsys.readouterr().err
    assert "labelled are train 3 instead of 4, neutral 1 instead" in printed


def test_known_numbers_add_up():
    versions = msp_podcast_prepare.VERSIONS
    # With the turns of Test3
    assert sum(versions[151654][1].values()) + 2347 == 151654
    assert sum(versions[119421][1].values()) + 3200 == 119421
    emotions = msp_podcast_prepare.V18_EMOTIONS
    assert sum(emotions.values()) == 73042
    homeless = emotions["contempt"] + emotions["other"]
    assert 73042 - homeless - emotions["no agreement"] == 54382


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Labels/labels_consensus.csv": None}, "looked for [Ll]abel*/labels"),
        ({"Labels/labels_consensus.csv": b""}, "found an empty file"),
        (
            {"Labels/labels_consensus.csv": b"FileName;EmoClass\n"},
            "column FileName, EmoClass, SpkrID, Gender, Split_Set is missing; "
            "found FileName;EmoClass",
        ),
        ({"Labels/labels_consensus.csv": b"\xff\xfe\0\0"}, "not a CSV file"),
        (
            {
                "Labels/labels_consensus.csv": None,
                "Labels/labels_consensus.json": b'{"a.wav": {"EmoClass"',
            },
            "not a JSON file",
        ),
        (
            {
                "Labels/labels_consensus.csv": None,
                "Labels/labels_consensus.json": b'{"a.wav": {"EmoClass": 1}}',
            },
            "a.wav has not all of EmoClass, SpkrID, Gender, Split_Set",
        ),
        (
            {"Labels/labels_consensus.csv": f"{HEADER}\n".encode()},
            "none of 8 audio files can be used",
        ),
    ],
)
def test_label_files_that_are_none_end_with_a_message(
    release, tmp_path, change, message, run_script, capsys
):
    for name, content in change.items():
        if content is None:
            (release / name).unlink()
        else:
            (release / name).write_bytes(content)
    out = tmp_path / "out"
    code = run_script(
        "msp_podcast_prepare",
        flags={"data_folder": release, "save_folder": out},
    )
    assert code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))


def test_bad_input_ends_a_process_with_a_message(release, tmp_path):
    (release / "Labels/labels_consensus.csv").write_bytes(b"\0\xff")
    out = tmp_path / "out"
    message = refused("msp_podcast", release, out)
    assert "not a CSV file" in message
    assert list(out.iterdir()) == []


def test_an_unknown_test_set_ends_with_the_known_ones(release, tmp_path):
    out = tmp_path / "out"
    message = refused(
        "msp_podcast", release, out, *("--test_sets", "Test1", "Test3")
    )
    assert "no test set Test3; there are Test1, Test2" in message
    assert not out.exists()
