"""What `meld_prepare.py` makes of MELD as people have it on disk."""

import io
import tarfile
from collections import Counter

import av
import numpy as np
import pytest
import soundfile
from meld_prepare import MELD, prepare_meld
from miniature import read_csv, read_dropped, refused, run

from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.errors import InputError

HEADER = [
    *("ID", "duration", "wav", "start", "stop", "corpus", "split"),
    *("language", "speaker", "gender", "emotion", "label", "text"),
]
ANNOTATIONS = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,"
    "Season,Episode,StartTime,EndTime"
)
# One second, whatever is said in them
TIMES = '8,21,"00:16:16,059","0:16:17,05"'

TRAIN = [
    f"1,also I was the point person on my company’s move.,Chandler,"
    f"neutral,neutral,0,0,{TIMES}",
    f'2,"Well it came to about $112, call it ""even"".",Ross,joy,positive,'
    f"0,1,{TIMES}",
    # Undecodable in the release, and on the exclusion list
    f"4,Oh no-no-no,Ross,neutral,neutral,125,3,{TIMES}",
]
# Windows' quotes as control characters, as in the tarball's files
DEV = [
    f"1,Oh my God\x85 he\x92s lost it.,Phoebe,sadness,negative,0,0,{TIMES}",
    # Absent from the release
    f"2,Did they tell you anything?,Phoebe,neutral,neutral,110,7,{TIMES}",
    f"3,No clip either,Joey\x92s Doctor,fear,negative,111,0,{TIMES}",
]
TEST = [
    f"1,Why do all your coffee mugs have numbers?,Mark,surprise,positive,"
    f"0,0,{TIMES}",
    f"2,Y'know what?,Rachel,anger,negative,0,1,{TIMES}",
]


def film(channels, layout, rate=48000):
    """The content of an mp4 with AAC, a tone in each channel."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=rate, layout=layout)
        samples = np.asarray(channels, dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(samples, "fltp", layout)
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


def tone(seconds):
    time = np.arange(round(48000 * seconds)) / 48000
    return 0.3 * np.sin(2 * np.pi * 440 * time)


STEREO = film([tone(0.5)] * 2, "stereo")
# What is said is in the centre; the others hold nothing
SURROUND = film(
    [np.zeros(24000), np.zeros(24000), tone(0.5), *[np.zeros(24000)] * 3],
    "5.1",
)
CORRECTED = film([tone(0.8)] * 2, "stereo")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def table(rows):
    """An annotation file: CRLF at the ends of lines."""
    return ("\r\n".join([ANNOTATIONS, *rows]) + "\r\n").encode()


def pack(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tarball:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1_600_000_000
            tarball.addfile(member, io.BytesIO(content))


TRAIN_FILES = {
    "train/train_splits/dia0_utt0.mp4": SURROUND,
    "train/train_splits/._dia0_utt0.mp4": b"Mac OS X        ",
    "train/train_splits/dia0_utt1.mp4": STEREO,
    "train/train_splits/dia125_utt3.mp4": b"no film",
    # After the films: they cannot wait for it
    "train/train_sent_emo.csv": table(TRAIN),
}


@pytest.fixture
def release(tmp_path):
    """MELD.Raw: train packed, dev unpacked into dev, test beside it."""
    root = tmp_path / "MELD.Raw"
    pack(root / "train.tar.gz", TRAIN_FILES)
    write(root / "README.txt", b"MELD")
    write(root / "dev_sent_emo.csv", table(DEV))
    write(root / "test_sent_emo.csv", b"\xef\xbb\xbf" + table(TEST))
    dev = root / "dev/dev_splits_complete"
    write(dev / "dia0_utt0.mp4", STEREO)
    write(dev / "._dia0_utt0.mp4", b"Mac OS X        ")
    write(dev / "dia49_utt4.mp4", STEREO)  # no row
    test = root / "output_repeated_splits_test"
    write(test / "dia0_utt0.mp4", STEREO)
    write(test / "dia0_utt1.mp4", STEREO)
    write(test / "final_videos_testdia0_utt1.mp4", CORRECTED)
    return root


def test_manifest_holds_every_annotation_with_a_clip(release, tmp_path, capsys):
    manifest = prepare_meld(release, tmp_path / "out")
    header, *rows = read_csv(manifest)
    durations = [float(row.pop(1)) for row in rows]
    assert header == HEADER
    audio = "$manifest_folder/meld_audio"
    assert rows == [
        [
            *("meld_dev_dia0_utt0", f"{audio}/dev/dia0_utt0.flac"),
            *("", "", "meld", "valid", "eng", "Phoebe", "", "sad"),
            *("sadness", "Oh my God… he’s lost it."),
        ],
        [
            *("meld_test_dia0_utt0", f"{audio}/test/dia0_utt0.flac"),
            *("", "", "meld", "test", "eng", "Mark", "", "surprise"),
            *("surprise", "Why do all your coffee mugs have numbers?"),
        ],
        [
            "meld_test_dia0_utt1",
            f"{audio}/test/final_videos_testdia0_utt1.flac",
            *("", "", "meld", "test", "eng", "Rachel", "", "angry"),
            *("anger", "Y'know what?"),
        ],
        [
            *("meld_train_dia0_utt0", f"{audio}/train/dia0_utt0.flac"),
            *("", "", "meld", "train", "eng", "Chandler", "", "neutral"),
            "neutral",
            "also I was the point person on my company’s move.",
        ],
        [
            *("meld_train_dia0_utt1", f"{audio}/train/dia0_utt1.flac"),
            *("", "", "meld", "train", "eng", "Ross", "", "happy"),
            *("joy", 'Well it came to about 112, call it "even".'),
        ],
    ]
    assert durations == pytest.approx([0.5, 0.5, 0.8, 0.5, 0.5], abs=0.05)
    found = read_manifest(manifest, release)
    for wav, seconds in zip(found.wav, durations, strict=True):
        info = soundfile.info(wav)
        assert (info.samplerate, info.channels) == (16000, 1)
        assert info.duration == pytest.approx(seconds, abs=1e-4)
    # In 5.1 the voice in the centre is heard
    surround, _ = soundfile.read(found.wav[3])
    assert abs(surround).max() > 0.05
    printed = capsys.readouterr()
    assert "7 utterances, the release has 13708" in printed.err


def test_whatever_is_no_utterance_is_dropped_with_a_reason(release, tmp_path):
    write(release / "dev/dev_splits_complete/dia111_utt1.mp4", b"")
    write(release / "trailer/dia0_utt0.mp4", STEREO)
    write(release / "dev/dev_splits_complete/final_videos.mp4", STEREO)
    prepare_meld(release, tmp_path / "out")
    dropped = read_dropped(tmp_path / "out")
    films = "train.tar.gz/train/train_splits"
    assert dropped.pop(f"{films}/dia125_utt3.mp4").startswith("known bad: ")
    absent = dropped.pop("dev_splits_complete/dia110_utt7.mp4")
    assert absent.startswith("known bad: ")
    misnamed = "misnamed: not like train_splits/dia0_utt0"
    assert dropped == {
        "dev/dev_splits_complete/dia111_utt1.mp4": "empty: 0 bytes",
        "dev/dev_splits_complete/dia49_utt4.mp4": (
            "unlabelled: no row in dev_sent_emo.csv"
        ),
        "dev/dev_splits_complete/final_videos.mp4": misnamed,
        "dev_splits_complete/dia111_utt0.mp4": (
            "missing: an annotation without a clip"
        ),
        "output_repeated_splits_test/dia0_utt1.mp4": (
            "replaced: output_repeated_splits_test/"
            "final_videos_testdia0_utt1.mp4 is taken"
        ),
        "trailer/dia0_utt0.mp4": misnamed,
    }


def test_packed_and_unpacked_give_the_same_manifest(release, tmp_path):
    packed = prepare_meld(release, tmp_path / "packed").read_text()
    (release / "train.tar.gz").unlink()
    for name, content in TRAIN_FILES.items():
        write(release / name, content)
    unpacked = prepare_meld(release, tmp_path / "unpacked").read_text()
    assert packed == unpacked


def test_audio_that_was_extracted_before_is_taken_where_it_lies(tmp_path):
    root = tmp_path / "MELD.Raw"
    write(root / "test_sent_emo.csv", table(TEST))
    for number in range(2):
        path = root / f"output_repeated_splits_test/dia0_utt{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, tone(0.4), 48000)
    found = read_manifest(prepare_meld(root, tmp_path / "out"), root)
    assert found.wav.tolist() == [
        str(root / f"output_repeated_splits_test/dia0_utt{number}.wav")
        for number in range(2)
    ]
    assert not (tmp_path / "out/meld_audio").exists()


def test_all_of_the_test_set_is_kept_unless_asked_otherwise(tmp_path):
    # Others report on all 2,610, this clip of 305 s among them
    root = tmp_path / "MELD.Raw"
    row = f"1,Oh it’s great,Student,joy,positive,38,4,{TIMES}"
    write(root / "test_sent_emo.csv", table([row, *TEST]))
    films = root / "test/output_repeated_splits_test"
    write(films / "dia38_utt4.mp4", film([tone(61)], "mono"))
    for name in ("dia0_utt0", "dia0_utt1"):
        write(films / f"{name}.mp4", STEREO)
    out = tmp_path / "out"
    table_of_all = read_manifest(prepare_meld(root, out))
    assert len(table_of_all) == 3 and table_of_all.duration.max() > 60
    assert read_dropped(out) == {}
    manifest = prepare_meld(root, out, drop_known_bad=True)
    assert len(read_manifest(manifest)) == 2
    ((item, reason),) = read_dropped(out).items()
    assert item.endswith("dia38_utt4.flac")
    assert reason == "known bad: cut wrongly: 305 s for one sentence"


def test_known_bad_items_that_can_be_read_are_few():
    known = dict(row[:2] for row in read_csv(MELD.exclusions)[1:])
    readable = Counter(
        item.split("_")[0]
        for item, reason in known.items()
        if reason.startswith(("cut wrongly", "the same", "labelled"))
    )
    # Two scenes of the training split that it holds twice, and mis-cut clips
    assert readable == {"train": 15 + 1, "test": 2}
    unreadable = Counter(item.split("_")[0] for item in known) - readable
    # With these the release has 9,989, 1,109 and 2,610
    assert unreadable == {"train": 7, "dev": 3}


def test_links_to_folders_are_followed(release, tmp_path):
    (release / "train.tar.gz").unlink()
    for name, content in TRAIN_FILES.items():
        write(tmp_path / "elsewhere" / name, content)
    (release / "train").symlink_to(tmp_path / "elsewhere/train")
    table = read_manifest(prepare_meld(release, tmp_path / "out"), release)
    assert (table.split == "train").sum() == 2


def test_a_split_without_clips_is_left_out(release, tmp_path, capsys):
    (release / "train.tar.gz").unlink()
    for path in (release / "output_repeated_splits_test").iterdir():
        path.unlink()
    table = read_manifest(prepare_meld(release, tmp_path / "out"))
    assert set(table.split) == {"valid"}
    assert "test_sent_emo.csv is here, no clip is" in capsys.readouterr().err


def test_a_second_run_extracts_nothing_and_says_so(release, tmp_path, capsys):
    out = release / "manifests"  # in the corpus itself
    manifest = prepare_meld(release, out)
    before = manifest.read_bytes()
    audio = {path: path.stat().st_ino for path in out.rglob("*.flac")}
    capsys.readouterr()
    prepare_meld(release, out)
    assert "nothing to do" in capsys.readouterr().out
    # One file is gone: that one is made again, the others are kept
    gone = out / "meld_audio/train/dia0_utt0.flac"
    gone.unlink()
    prepare_meld(release, out)
    assert manifest.read_bytes() == before
    now = {path: path.stat().st_ino for path in out.rglob("*.flac")}
    assert now.keys() == audio.keys()
    assert {path for path in now if now[path] != audio[path]} <= {gone}


def test_members_that_leave_the_tarball_are_dropped(release, tmp_path):
    names = {
        "../train_splits/dia0_utt0.mp4": STEREO,
        "/train_splits/dia0_utt1.mp4": STEREO,
        "train_splits/../../dia0_utt1.mp4": STEREO,
    }
    pack(release / "train.tar.gz", {**TRAIN_FILES, **names})
    with tarfile.open(release / "linked.tar.gz", "w:gz") as tarball:
        link = tarfile.TarInfo("train/train_splits/dia9_utt9.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tarball.addfile(link)
        data = tarfile.TarInfo("train/train_sent_emo.csv")
        data.size = len(table(TRAIN))
        tarball.addfile(data, io.BytesIO(table(TRAIN)))
        data = tarfile.TarInfo("train/train_splits/dia0_utt0.mp4")
        data.size = len(STEREO)
        tarball.addfile(data, io.BytesIO(STEREO))
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    out = tmp_path / "out"
    prepare_meld(release, out)
    made = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all(out in path.parents for path in made)
    dropped = read_dropped(out)
    for name in names:
        reason = dropped[f"train.tar.gz/{name}"]
        assert reason == "unsafe: a path that leaves its folder"
    (release / "linked.tar.gz").replace(release / "train.tar.gz")
    prepare_meld(release, out)
    dropped = read_dropped(out)
    name = "train.tar.gz/train/train_splits/dia9_utt9.mp4"
    assert dropped[name] == "unreadable: not a regular file"


@pytest.mark.parametrize("damage", ["broken off", "no tarball"])
def test_a_damaged_tarball_is_named(release, tmp_path, damage):
    path = release / "train.tar.gz"
    content = path.read_bytes()
    path.write_bytes(content[:-5000] if damage == "broken off" else b"<html>")
    message = refused("meld", release, tmp_path / "out")
    assert f"{path}: broken off or damaged" in message


def test_clips_without_annotations_are_refused(release, tmp_path):
    path = release / "dev_sent_emo.csv"
    path.write_bytes(table(DEV)[:-50])
    assert "is the file cut off?" in refused("meld", release, tmp_path / "out")
    path.unlink()
    message = refused("meld", release, tmp_path / "out")
    assert "no dev_sent_emo.csv for the clips of dev" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>404</html>", "the columns Utterance, Speaker"),
        (b"", "the columns Utterance, Speaker"),
        (b"\x00\xff\xfe\x00", "it holds a zero byte"),
        (table(["1,Hey,Joey,joy,positive,one,0"]), "line 2: 7 fields for 11"),
        (table(DEV)[:-5], "line 4: "),
        (table([*DEV, "4,Hey,Joey"]), "line 5: "),
        (
            table([f"1,Hey,Joey,hapy,positive,0,0,{TIMES}"]),
            "line 2: cannot be read (unknown emotion 'hapy'; did you mean",
        ),
    ],
)
def test_what_is_no_annotation_file_is_refused(
    release, tmp_path, content, message
):
    (release / "dev_sent_emo.csv").write_bytes(content)
    with pytest.raises(InputError) as caught:
        prepare_meld(release, tmp_path / "out")
    assert str(caught.value).startswith(f"{release / 'dev_sent_emo.csv'}")
    assert message in str(caught.value)
    # Found before the work, and nothing is left
    assert [*(tmp_path / "out").iterdir()] == []


def test_the_folder_above_or_below_is_named(release, tmp_path):
    for wrong in (release.parent, release / "output_repeated_splits_test"):
        message = refused("meld", wrong, tmp_path / "out")
        assert message.strip().endswith(f"give {release}")


def test_the_command_line_writes_the_manifest(release, tmp_path):
    out = tmp_path / "out"
    result = run("meld", release, out)
    assert result.returncode == 0, result.stderr
    assert len(read_manifest(out / "meld.csv", release)) == 5
    # No bar where there is no terminal
    assert "extracting" not in result.stderr
