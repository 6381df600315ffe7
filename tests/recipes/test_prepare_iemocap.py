"""What `iemocap_prepare.py` makes of IEMOCAP as people have it on disk."""

import os

import pytest
from iemocap_prepare import COUNTS, NAME, prepare_iemocap
from miniature import read_csv, refused, run, write_noise

from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.errors import InputError

HEADER = [
    *("ID", "duration", "wav", "start", "stop", "corpus", "split"),
    *("language", "speaker", "gender", "emotion", "label", "text"),
]

# As in the release: a head, then blocks with the judges' own lines
EVALUATION = """\
% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
C-E3:\tNeutral;\t()
C-F1:\tNeutral;\t(curious)
A-E3:\tval 3; act 2; dom  2;\t()
A-F1:\tval 3; act 2; dom  1;\t()

[10.0100 - 11.3925]\tSes01F_impro01_M000\texc\t[2.5000, 2.5000, 2.5000]
C-E2:\tExcited;\t()

"""
TRANSCRIPTION = """\
Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
M: [garbage]
Ses01F_impro01_MXX0 [008.5000-009.0000]: Uh-huh.
Ses01F_impro01_M000 [010.0100-011.3925]: Do you have $5, and your forms?
"""


def write_text(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding, newline="")


def write_turn(root, turn, label, text=None):
    """A recording and its line, in the places of the release."""
    session, dialogue = root / f"Session{turn[4]}", turn[:-5]
    write_noise(session / f"sentences/wav/{dialogue}/{turn}.wav")
    line = f"[1.0000 - 1.3000]\t{turn}\t{label}\t[2.0000, 3.0000, 2.0000]\n\n"
    path = session / f"dialog/EmoEvaluation/{dialogue}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(line)
    if text is not None:
        path = session / f"dialog/transcriptions/{dialogue}.txt"
        write_text(path, f"{turn} [001.0000-001.3000]: {text}\n")


@pytest.fixture
def release(tmp_path):
    """A few turns of three sessions, with what lies around them."""
    root = tmp_path / "IEMOCAP_full_release"
    one = root / "Session1"
    dialogue = "Ses01F_impro01"
    write_text(one / f"dialog/EmoEvaluation/{dialogue}.txt", EVALUATION)
    write_text(one / f"dialog/transcriptions/{dialogue}.txt", TRANSCRIPTION)
    for turn in ("F000", "M000"):
        write_noise(one / f"sentences/wav/{dialogue}/{dialogue}_{turn}.wav")
    write_turn(root, "Ses04M_script01_1b_F011", "xxx", "I’m not sure.")
    write_turn(root, "Ses05F_impro05a_M003", "oth")
    # What the release holds beside that
    write_noise(one / f"dialog/wav/{dialogue}.wav")
    (one / "dialog/avi/DivX").mkdir(parents=True)
    (one / f"dialog/avi/DivX/{dialogue}.avi").write_bytes(b"film")
    (one / "dialog/avi/DivX/clip.mp4").write_bytes(b"film")
    align = one / f"sentences/ForcedAlignment/{dialogue}/a.wdseg"
    write_text(align, "SFrm")
    write_text(one / f"sentences/MOCAP_hand/{dialogue}/a.txt", "Frame#")
    write_text(root / "README.txt", "IEMOCAP")
    for kind in ("Attribute", "Categorical", "Self-evaluation"):
        path = one / f"dialog/EmoEvaluation/{kind}/{dialogue}_e2.txt"
        write_text(path, "[1.0 - 2.0]\tSes01F_impro01_F000\tang\t[1, 1, 1]\n")
    shadow = one / f"dialog/EmoEvaluation/._{dialogue}.txt"
    shadow.write_bytes(b"\x00\x05\x16\x07Mac OS X\xff")
    shadow = one / f"sentences/wav/{dialogue}/._{dialogue}_F000.wav"
    shadow.write_bytes(b"\x00\x05\x16\x07Mac OS X\xff")
    return root


def test_manifest_holds_every_turn_whatever_its_label(
    release, tmp_path, capsys
):
    manifest = prepare_iemocap(release, tmp_path / "out")
    one = "$data_root/Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01"
    assert read_csv(manifest) == [
        HEADER,
        [
            *("iemocap_Ses01F_impro01_F000", "0.3", f"{one}_F000.wav"),
            *("", "", "iemocap", "train", "eng", "1F", "female"),
            *("neutral", "neu", "Excuse me."),
        ],
        [
            # In a dialogue named F, for the actor with the markers
            *("iemocap_Ses01F_impro01_M000", "0.3", f"{one}_M000.wav"),
            *("", "", "iemocap", "train", "eng", "1M", "male"),
            *("happy", "exc", "Do you have 5, and your forms?"),
        ],
        [
            *("iemocap_Ses04M_script01_1b_F011", "0.3"),
            "$data_root/Session4/sentences/wav/Ses04M_script01_1b/"
            "Ses04M_script01_1b_F011.wav",
            *("", "", "iemocap", "valid", "eng", "4F", "female"),
            *("", "xxx", "I’m not sure."),
        ],
        [
            *("iemocap_Ses05F_impro05a_M003", "0.3"),
            "$data_root/Session5/sentences/wav/Ses05F_impro05a/"
            "Ses05F_impro05a_M003.wav",
            *("", "", "iemocap", "test", "eng", "5M", "male"),
            *("", "oth", ""),
        ],
    ]
    assert len(read_manifest(manifest, release)) == 4
    assert read_csv(tmp_path / "out/iemocap_dropped.csv") == [
        ["item", "reason"]
    ]
    printed = capsys.readouterr()
    assert "AppleDouble (._*) 2" in printed.out
    assert "4 utterances, the release has 10039" in printed.err


def test_excited_is_happy_unless_asked_otherwise(release, tmp_path):
    for options, emotion in (({}, "happy"), ({"excited": "keep"}, "excited")):
        table = read_manifest(
            prepare_iemocap(release, tmp_path / "out", **options)
        )
        assert table.emotion[table.label == "exc"].tolist() == [emotion]
    with pytest.raises(InputError, match="excited is 'sad', not happy or keep"):
        prepare_iemocap(release, tmp_path / "out", excited="sad")


def test_sessions_make_the_splits(tmp_path, capsys):
    root = tmp_path / "IEMOCAP_full_release"
    for session in range(1, 6):
        for sex in "FM":
            write_turn(root, f"Ses0{session}F_impro01_{sex}000", "ang")

    def splits(**options):
        table = read_manifest(prepare_iemocap(root, tmp_path, **options))
        return {
            split: "".join(sorted(set(group.speaker.str[0])))
            for split, group in table.groupby("split")
        }

    assert splits() == {"train": "123", "valid": "4", "test": "5"}
    assert splits(test_session=1) == {
        "train": "234",
        "valid": "5",
        "test": "1",
    }
    assert splits(test_session=3, valid_session=1) == {
        "train": "245",
        "valid": "1",
        "test": "3",
    }
    assert splits(test_session=0) == {"train": "1234", "valid": "5"}
    assert splits(test_session=2, valid_session=0) == {
        "train": "1345",
        "test": "2",
    }
    assert splits(test_session=0, valid_session=0) == {"train": "12345"}


def test_what_does_not_fit_is_dropped_with_a_reason(release, tmp_path):
    folder = "Session1/sentences/wav/Ses01F_impro01"
    write_noise(release / f"{folder}/Ses01F_impro01_F001.wav")
    write_noise(release / f"{folder}/take two.wav")
    (release / f"{folder}/Ses01F_impro01_M000.wav").write_bytes(b"")
    labels = "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    with open(release / labels, "a") as file:
        file.write("[1.0 - 2.0]\tSes01F_impro01_F077\tsad\t[1, 1, 1]\n")
        file.write("[1.0 - 2.0]\tSes01F_impro01_F000\tsad\t[1, 1, 1]\n")
        file.write("[1.0 - 2.0]\tSes01F_im\n")
    table = read_manifest(prepare_iemocap(release, tmp_path / "out"))
    assert len(table) == 3
    assert dict(read_csv(tmp_path / "out/iemocap_dropped.csv")) == {
        "item": "reason",
        "Ses01F_impro01_F077": "missing: a label without a recording",
        f"{folder}/Ses01F_impro01_F001.wav": (
            "unlabelled: no line in EmoEvaluation"
        ),
        f"{folder}/Ses01F_impro01_M000.wav": "empty: 0 bytes",
        f"{folder}/take two.wav": "misnamed: not like Ses01F_impro01_M003",
        f"{labels}, line 14": ("duplicate: Ses01F_impro01_F000 is neu before"),
        f"{labels}, line 15": (
            "unreadable: not like [start - end] turn label [...]"
        ),
    }


def test_texts_in_another_encoding_are_read(release, tmp_path):
    dialogue = "Ses04M_script01_1b"
    path = release / f"Session4/dialog/transcriptions/{dialogue}.txt"
    line = f"{dialogue}_F011 [001.0000-001.3000]: I’m a café.\r\n"
    write_text(path, line, "cp1252")
    table = read_manifest(prepare_iemocap(release, tmp_path / "out"))
    text = table.text[table.ID == f"iemocap_{dialogue}_F011"]
    assert text.tolist() == ["I’m a café."]


@pytest.mark.parametrize(
    "turn",
    [
        "Ses01F_impro01_F000",
        "Ses05M_impro05b_M039",
        "Ses02F_impro08a_F003",
        "Ses03M_script01_1b_F011",
        "Ses04F_script03_2_M044",
    ],
)
def test_every_kind_of_name_is_known(turn):
    assert NAME.fullmatch(turn).groups() == (turn[4], turn[-4])


def test_the_whole_release_is_recognised_by_its_counts(tmp_path, capsys):
    root = tmp_path / "IEMOCAP_full_release"
    write_noise(tmp_path / "one.wav", 0.1)
    labels = [label for label, n in COUNTS.items() for _ in range(n)]
    for number, label in enumerate(labels):
        dialogue = f"Ses0{number % 5 + 1}F_impro{number // 5000 + 1:02d}"
        session = root / f"Session{number % 5 + 1}"
        turn = f"{dialogue}_{'FM'[number // 5 % 2]}{number % 5000 // 5:03d}"
        folder = session / f"sentences/wav/{dialogue}"
        folder.mkdir(parents=True, exist_ok=True)
        os.link(tmp_path / "one.wav", folder / f"{turn}.wav")
        path = session / f"dialog/EmoEvaluation/{dialogue}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as file:
            file.write(f"[1.0 - 1.1]\t{turn}\t{label}\t[1.0, 1.0, 1.0]\n")
    manifest = prepare_iemocap(root, tmp_path / "out")
    printed = capsys.readouterr()
    assert "counts equal the release's: 10039 utterances" in printed.out
    assert printed.err == ""
    emotions = read_manifest(manifest).emotion
    # The four-class protocol's 5,531, the paper's seven: 5,680
    assert emotions.isin(["neutral", "happy", "sad", "angry"]).sum() == 5531
    assert emotions.isin(["surprise", "fear", "disgust"]).sum() == 149
    assert (emotions == "").sum() == 2510


def test_the_folder_beside_the_right_one_is_named(release, tmp_path):
    for wrong in (release.parent, release / "Session1"):
        message = refused("iemocap", wrong, tmp_path / "out")
        assert message.endswith(f"give {release}")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--test_session", "6"), "no session 6; there are 1 to 5"),
        (("--test_session", "five"), "invalid int value: 'five'"),
        (
            ("--test_session", "4", "--valid_session", "4"),
            "session 4 is both test_session and valid_session",
        ),
        (("--test_speakers", "1F"), "unrecognized arguments"),
    ],
)
def test_sessions_that_do_not_exist_are_refused(
    release, tmp_path, options, message
):
    out = tmp_path / "out"
    assert message in refused("iemocap", release, out, *options)
    assert not out.exists()


def test_recordings_without_labels_are_refused(release, tmp_path):
    for path in release.glob("Session*/dialog/EmoEvaluation/*.txt"):
        path.unlink()
    out = tmp_path / "out"
    message = refused("iemocap", release, out)
    assert "no labels in Session*/dialog/EmoEvaluation" in message
    assert list(out.iterdir()) == []


def test_an_unknown_label_is_refused(release, tmp_path):
    write_turn(release, "Ses02F_impro02_F000", "hpa")
    out = tmp_path / "out"
    message = refused("iemocap", release, out)
    assert "unknown emotion 'hpa'" in message
    assert list(out.iterdir()) == []


def test_the_command_line_writes_the_manifest(release, tmp_path):
    out = tmp_path / "out"
    result = run(
        *("iemocap", release, out),
        *("--test_session", "1", "--valid_session", "4", "--excited", "keep"),
    )
    assert result.returncode == 0, result.stderr
    table = read_manifest(out / "iemocap.csv")
    assert dict(zip(table.speaker, table.split, strict=True)) == {
        "1F": "test",
        "1M": "test",
        "4F": "valid",
        "5M": "train",
    }
    assert set(table.emotion) == {"neutral", "excited", ""}
    assert result.stdout.startswith(str(out / "iemocap.csv"))


def test_a_second_run_does_nothing(release, tmp_path, capsys):
    prepare_iemocap(release, tmp_path / "out")
    capsys.readouterr()
    prepare_iemocap(release, tmp_path / "out")
    assert "nothing to do" in capsys.readouterr().out
    # Labels count as well as recordings
    write_turn(release, "Ses05F_impro05a_M004", "sad")
    manifest = prepare_iemocap(release, tmp_path / "out")
    assert len(read_manifest(manifest)) == 5
