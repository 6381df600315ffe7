"""The base of the preparation scripts: files, durations, splits, output."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.errors import InputError
from speechbrain_mser.preparation.audio_listing import (
    find_data_folder,
    find_files,
    list_files,
    probe,
    probe_all,
)
from speechbrain_mser.preparation.command_line import argument_parser
from speechbrain_mser.preparation.corpus import (
    Corpus,
    preparation,
    prepare_corpus,
)
from speechbrain_mser.preparation.file_names import NotAnUtterance, by_name
from speechbrain_mser.preparation.splits import check_speakers_disjoint

TOY = Corpus(name="toy", language="eng", script=__file__, layout="speech")


def write_noise(path, seconds=0.3, rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).normal(0, 0.1, round(seconds * rate))
    soundfile.write(path, samples, rate)


def parse_name(path):
    # Example: anna-happy-1
    speaker, label, _ = path.stem.split("-")
    if label == "cough":
        raise NotAnUtterance("noise: a cough")
    return {"label": label, "speaker": speaker}


def prepare(root, out, corpus=TOY, collect=None, **options):
    collect = collect or by_name(parse_name)
    return prepare_corpus(corpus, collect, root, out, **options)


def dropped(out):
    with open(out / "toy_dropped.csv", newline="", encoding="utf-8") as file:
        return {row["item"]: row["reason"] for row in csv.DictReader(file)}


@pytest.fixture
def root(tmp_path):
    for name in ("anna-happy-1", "anna-sad-1", "bert-angry-1", "carl-calm-1"):
        write_noise(tmp_path / f"toy/speech/{name}.wav")
    return tmp_path / "toy"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


# What is looked at


def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    write_noise(tmp_path / "elsewhere/b.wav")
    write_noise(tmp_path / "root/a.wav")
    (tmp_path / "root/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/loop").symlink_to(tmp_path / "root")
    assert list_files(tmp_path / "root").audio == ["a.wav", "link/b.wav"]


def test_broken_links_pipes_and_odd_names_are_dropped(tmp_path):
    write_noise(tmp_path / "good.wav")
    write_noise(tmp_path / "$5.wav")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    write_noise(tmp_path / "new.wav")
    os.rename(tmp_path / "new.wav", os.fsencode(tmp_path) + b"/\xe9.wav")
    listing = list_files(tmp_path)
    assert listing.audio == ["good.wav"]
    assert dict(listing.dropped) == {
        "$5.wav": "misnamed: a dollar sign in the path",
        "gone.wav": "unreadable: No such file or directory",
        "pipe.wav": "unreadable: not a regular file",
        "\\udce9.wav": "misnamed: the path is not UTF-8",
    }


def test_archives_are_named_since_their_content_may_be_missing(tmp_path):
    for name in ("male.ZIP", "audio.tar", "a.tar.gz", "known.zip"):
        (tmp_path / name).touch()
    listing = list_files(tmp_path, companions=("known.zip",))
    assert dict(listing.dropped) == dict.fromkeys(
        ("male.ZIP", "audio.tar", "a.tar.gz"),
        "packed: an archive; unpack what you need",
    )


def test_companions_are_found_through_links(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for name in ("b.txt", "._b.txt", "a.wav"):
        (tmp_path / "elsewhere" / name).touch()
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a.txt").touch()
    (tmp_path / "root/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/gone.txt").symlink_to(tmp_path / "nowhere")
    assert find_files(tmp_path / "root", "*.txt") == [
        tmp_path / "root/a.txt",
        tmp_path / "root/link/b.txt",
    ]


def test_hidden_files_and_folders_are_counted(tmp_path):
    for name in (".DS_Store", "._a.wav", "__MACOSX/._b.wav", ".git/HEAD"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listing = list_files(tmp_path)
    assert (listing.audio, listing.dropped) == ([], [])
    assert dict(listing.ignored) == {
        "AppleDouble (._*)": 2,
        "hidden files (.*)": 1,
        "hidden folders (.*)": 1,
    }


def test_the_fingerprint_changes_with_name_size_and_time(tmp_path):
    write_noise(tmp_path / "a.wav")
    prints = [list_files(tmp_path).fingerprint]
    assert list_files(tmp_path).fingerprint == prints[0]
    os.rename(tmp_path / "a.wav", tmp_path / "b.wav")
    prints.append(list_files(tmp_path).fingerprint)
    with open(tmp_path / "b.wav", "ab") as file:
        file.write(b"more")
    prints.append(list_files(tmp_path).fingerprint)
    os.utime(tmp_path / "b.wav", ns=(0, 0))
    prints.append(list_files(tmp_path).fingerprint)
    assert len(set(prints)) == 4


def test_the_right_folder_one_level_off_is_named(root):
    for wrong in (root.parent, root / "speech"):
        with pytest.raises(InputError, match=f"give {root}$"):
            find_data_folder(wrong, "speech")
    assert find_data_folder(root, "speech") == root


def test_a_folder_that_is_still_packed_says_so(tmp_path):
    (tmp_path / "toy.tar.gz").touch()
    with pytest.raises(InputError, match=r"unpack toy\.tar\.gz first$"):
        find_data_folder(tmp_path, "speech")


def test_a_folder_may_look_in_one_of_several_ways(root):
    assert find_data_folder(root, "singing|speech") == root
    with pytest.raises(InputError, match=rf"holds a\|speech; give {root}$"):
        find_data_folder(root / "speech", "a|speech")


def test_a_file_in_place_of_the_folder_is_named(root):
    with pytest.raises(InputError, match=r"1\.wav: a file, not a folder"):
        find_data_folder(root / "speech/anna-happy-1.wav", "speech")


# How long it is


def test_headers_give_the_duration(tmp_path):
    for name, rate in (("a.wav", 44100), ("b.flac", 16000), ("c.ogg", 48000)):
        write_noise(tmp_path / name, seconds=0.5, rate=rate)
        assert probe(tmp_path / name) == (0.5, "")


def test_broken_files_have_a_problem(tmp_path):
    write_noise(tmp_path / "cut.wav", seconds=1.0)
    os.truncate(tmp_path / "cut.wav", 44 + 1000)
    assert probe(tmp_path / "cut.wav") == (
        0.0,
        "truncated: its header promises 32000 bytes of audio, the file holds "
        "1000",
    )
    (tmp_path / "text.wav").write_text("not found")
    assert probe(tmp_path / "text.wav")[1].startswith("unreadable: ")
    assert probe(tmp_path / "gone.wav")[1].startswith("unreadable: No such")
    (tmp_path / "broken.mp3").write_bytes(b"ID3 and nothing else")
    assert probe(tmp_path / "broken.mp3")[1].startswith(
        "unreadable: cannot be decoded as audio"
    )


def test_a_header_that_streams_is_no_truncation(tmp_path):
    write_noise(tmp_path / "a.wav", seconds=0.5)
    header = bytearray((tmp_path / "a.wav").read_bytes())
    header[40:44] = b"\xff\xff\xff\xff"  # the size of the data chunk
    (tmp_path / "a.wav").write_bytes(header)
    assert probe(tmp_path / "a.wav") == (0.5, "")


def test_decoding_finds_silence_and_a_flac_that_breaks_off(tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000), 16000)
    write_noise(tmp_path / "cut.flac", seconds=2.0)
    os.truncate(tmp_path / "cut.flac", 20000)
    for name in ("silent.wav", "cut.flac"):
        assert probe(tmp_path / name)[1] == ""
        assert probe(tmp_path / name, decode=True)[1].startswith("undecodable")


def test_mp4_is_as_long_as_its_audio_stream(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        noise = np.random.default_rng(0).normal(0, 0.1, (1, 16000))
        for first in range(0, 16000, 1024):
            block = noise[:, first : first + 1024].astype("float32")
            frame = av.AudioFrame.from_ndarray(block, "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, first
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    seconds, problem = probe(path)
    assert problem == "" and abs(seconds - 1.0) < 0.1
    path.write_bytes(b"no film")
    assert probe(path)[1].startswith("unreadable: ")


def test_many_headers_are_read_in_processes_with_the_same_result(tmp_path):
    write_noise(tmp_path / "one.wav")
    write_noise(tmp_path / "two.wav", seconds=0.4)
    names = [f"{number}.wav" for number in range(1200)]
    for number, name in enumerate(names):
        source = "two.wav" if number % 7 == 0 else "one.wav"
        os.link(tmp_path / source, tmp_path / name)
    found = probe_all(tmp_path, names)
    assert found == {name: probe(tmp_path / name) for name in names}
    assert [*found] == names


# What becomes of it


def test_reasons_of_the_script_are_kept(root, out):
    write_noise(root / "speech/anna-cough-1.wav")
    prepare(root, out)
    assert dropped(out) == {"speech/anna-cough-1.wav": "noise: a cough"}


def test_a_label_without_a_word_keeps_its_row(root, out):
    write_noise(root / "speech/anna-xxx-1.wav")
    table = read_manifest(
        prepare(
            root,
            out,
            Corpus("toy", "eng", __file__, "speech", without_emotion=["xxx"]),
        )
    ).set_index("ID")
    assert table.emotion["toy_anna-xxx-1"] == ""
    assert table.label["toy_anna-xxx-1"] == "xxx"


def test_a_label_that_nobody_declared_is_an_error(root, out):
    write_noise(root / "speech/anna-hapy-1.wav")
    message = "toy, speech/anna-hapy-1.wav: .*did you mean 'happy'"
    with pytest.raises(InputError, match=message):
        prepare(root, out)
    assert list(out.iterdir()) == []


def test_parts_of_a_file_are_as_long_as_they_are_inside_it(root, out):
    write_noise(root / "speech/long.wav", seconds=2.0)

    def collect(folder, paths):
        parts = ((0.0, 0.5), (1.5, 2.25), (0.5, None), (1.95, 2.5), (3.0, 4.0))
        rows = [
            {
                **{"ID": str(number), "wav": "speech/long.wav"},
                **{"label": "sad", "speaker": "anna", "text": "It's $5.\nBye"},
                **{"start": start, "stop": stop},
            }
            for number, (start, stop) in enumerate(parts)
        ]
        return rows, []

    table = read_manifest(prepare(root, out, collect=collect))
    assert table.duration.tolist() == [0.5, 0.5, 1.5]
    assert table.start.tolist() == [0.0, 1.5, 0.5]
    # Nothing that SpeechBrain would replace, and one line
    assert set(table.text) == {"It's 5. Bye"}
    assert dropped(out) == {
        "3": "too short: 0.050 s from 1.95 s to 2.5 s of a file of 2 s",
        "4": "too short: 0.000 s from 3 s to 4 s of a file of 2 s",
    }


def test_a_file_that_a_label_promises_and_is_not_there_is_dropped(root, out):
    def collect(folder, paths):
        rows, reasons = by_name(parse_name)(folder, paths)
        return [*rows, {**rows[0], "ID": "x", "wav": "speech/x.wav"}], reasons

    prepare(root, out, collect=collect)
    assert dropped(out) == {
        "speech/x.wav": "unreadable: No such file or directory"
    }


def test_known_bad_items_that_can_be_read_are_dropped_when_asked(root, out):
    write_noise(root / "speech/dora-sad-1.wav", seconds=0.05)
    known = root.parent / "known.csv"
    known.write_text(
        "item,reason,source\n"
        "anna-sad-1,a cough,we heard it\n"
        "dora-sad-1,cut off,we heard it\n"
    )
    corpus = Corpus("toy", "eng", __file__, "speech", exclusions=known)
    table = read_manifest(prepare(root, out, corpus))
    assert "toy_anna-sad-1" in set(table.ID)
    # What is known says more than what is found
    assert dropped(out) == {"speech/dora-sad-1.wav": "known bad: cut off"}
    table = read_manifest(prepare(root, out, corpus, drop_known_bad=True))
    assert "toy_anna-sad-1" not in set(table.ID)
    assert dropped(out)["speech/anna-sad-1.wav"] == "known bad: a cough"
    # Another reason is another outcome
    known.write_text(known.read_text().replace("a cough", "a sneeze"))
    prepare(root, out, corpus, drop_known_bad=True)
    assert dropped(out)["speech/anna-sad-1.wav"] == "known bad: a sneeze"


def test_a_script_may_refuse_by_duration(root, out):
    write_noise(root / "speech/dora-sad-1.wav", seconds=0.6)
    lengths = {}

    def refuse(row, seconds):
        lengths[row["ID"]] = seconds
        return "long: too long for a toy" if seconds > 0.5 else ""

    (root / "speech/anna-sad-1.wav").write_bytes(b"")
    prepare(root, out, refuse=refuse)
    assert dropped(out) == {
        "speech/anna-sad-1.wav": "empty: 0 bytes",
        "speech/dora-sad-1.wav": "long: too long for a toy",
    }
    # Asked about what can be read only
    assert lengths == {
        **dict.fromkeys(("anna-happy-1", "bert-angry-1", "carl-calm-1"), 0.3),
        "dora-sad-1": 0.6,
    }


def test_a_list_of_known_bad_items_that_is_missing_is_an_error(root, out):
    corpus = Corpus(
        "toy", "eng", __file__, "speech", exclusions=root / "none.csv"
    )
    with pytest.raises(InputError, match="list of known-bad items is missing"):
        prepare(root, out, corpus)


# Splits


def test_all_means_whoever_is_not_in_the_validation_split(root, out):
    table = read_manifest(
        prepare(root, out, valid_speakers=["bert"], test_speakers="all")
    )
    assert dict(zip(table.speaker, table.split, strict=True)) == {
        "anna": "test",
        "bert": "valid",
        "carl": "test",
    }


def test_official_splits_may_share_speakers_and_it_is_said(root, out, capsys):
    corpus = Corpus("toy", "eng", __file__, "speech", official_splits=True)

    def collect(folder, paths):
        rows, reasons = by_name(parse_name)(folder, paths)
        for row in rows:
            row["split"] = "test" if row["label"] == "sad" else "train"
        return rows, reasons

    table = read_manifest(prepare(root, out, corpus, collect))
    assert table.split.tolist() == ["train", "test", "train", "train"]
    assert "1 of 3 speakers are in more than one split (anna)" in (
        capsys.readouterr().err
    )
    with pytest.raises(InputError, match="toy: speaker anna is in the splits"):
        check_speakers_disjoint(table.to_dict("records"))
    parser = argument_parser(corpus, preparation(corpus, collect), "")
    assert "--valid_speakers" not in parser.format_help()


# Output


def test_a_second_run_does_nothing(root, out, capsys):
    manifest = prepare(root, out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert {path.name for path in before} == {
        *("toy.csv", "toy_dropped.csv", "toy.json")
    }
    capsys.readouterr()
    assert prepare(root, out) == manifest
    assert "nothing to do" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == before


@pytest.mark.parametrize(
    "change",
    [
        lambda root, out: write_noise(root / "speech/dora-sad-1.wav"),
        lambda root, out: (root / "speech/anna-sad-1.wav").unlink(),
        lambda root, out: write_noise(root / "speech/anna-sad-1.wav", 0.7),
        lambda root, out: (out / "toy_dropped.csv").unlink(),
        lambda root, out: (out / "toy.csv").write_text("ID,durat"),
        lambda root, out: (out / "toy.json").write_text("{"),
    ],
)
def test_whatever_changed_is_prepared_again(root, out, capsys, change):
    prepare(root, out)
    change(root, out)
    capsys.readouterr()
    manifest = prepare(root, out)
    assert "nothing to do" not in capsys.readouterr().out
    assert len(read_manifest(manifest, root)) == len(
        list(root.glob("speech/*.wav"))
    )


def test_other_options_are_prepared_again(root, out):
    assert set(read_manifest(prepare(root, out)).split) == {"train"}
    table = read_manifest(prepare(root, out, valid_speakers=["anna"]))
    assert set(table.split) == {"train", "valid"}
    record = json.loads((out / "toy.json").read_text())
    assert record["options"]["valid_speakers"] == ["anna"]


def test_an_edited_script_is_prepared_again(root, out, tmp_path, capsys):
    script = tmp_path / "toy_prepare.py"
    script.write_text("EMOTIONS = {}")
    corpus = Corpus("toy", "eng", script, "speech")
    prepare(root, out, corpus)
    prepare(root, out, corpus)
    assert "nothing to do" in capsys.readouterr().out
    script.write_text("EMOTIONS = {'calm': 'neutral'}")
    prepare(root, out, corpus)
    assert "nothing to do" not in capsys.readouterr().out


def test_output_inside_the_corpus_is_not_taken_for_it(root, capsys):
    prepare(root, root)
    prepare(root, root)
    assert dropped(root) == {}
    assert "nothing to do" in capsys.readouterr().out


def test_counts_that_differ_are_named_with_both_numbers(root, out, capsys):
    corpus = Corpus(
        "toy",
        "eng",
        __file__,
        "speech",
        counts={"happy": 3, "sad": 1, "angry": 1},
    )
    prepare(root, out, corpus)
    assert (
        "warning: 4 utterances, the release has 5: happy 1 instead of 3, "
        "calm 1 instead of 0"
    ) in capsys.readouterr().err


def test_the_table_shows_splits_and_emotions(root, out, capsys):
    prepare(root, out, valid_speakers=["anna"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for line in (
        ["train", "valid", "total"],
        ["happy", "0", "1", "1"],
        ["calm", "1", "0", "1"],
        ["utterances", "2", "2", "4"],
        ["speakers", "2", "1", "3"],
    ):
        assert line in lines


def test_nothing_usable_is_an_error_with_an_example(root, out):
    for path in Path(root, "speech").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"none of 4 .*\(empty 4\); for ex"):
        prepare(root, out)
    assert list(out.iterdir()) == []


# Audio that a script makes


def extracting(out, calls):
    """A collect that makes one file beside the manifest, and takes another."""

    def collect(folder, paths):
        calls.append(len(paths))
        write_noise(out / "toy_audio/x/made.wav", 0.4)
        common = {"label": "happy", "speaker": "anna"}
        return [
            {"ID": "made", "wav": "$manifest_folder/toy_audio/x/made.wav"}
            | common,
            {"ID": "given", "wav": paths[0], **common},
            {"ID": "bad", "wav": "films/bad.mp4", "problem": "silent: all"}
            | common,
        ], []

    return collect


def test_audio_made_beside_the_manifest_has_a_root_of_its_own(root, out):
    manifest = prepare(root, out, collect=extracting(out, []))
    table = read_manifest(manifest, root)
    assert dict(zip(table.ID, table.duration, strict=True)) == {
        "toy_made": 0.4,
        "toy_given": 0.3,
    }
    assert set(table.wav) == {
        str(out / "toy_audio/x/made.wav"),
        str(root / "speech/anna-happy-1.wav"),
    }


def test_a_problem_that_the_script_knows_is_taken_as_it_is(root, out):
    prepare(root, out, collect=extracting(out, []))
    assert dropped(out) == {"films/bad.mp4": "silent: all"}


def test_audio_made_in_the_corpuss_own_folder_is_not_taken_for_corpus(root):
    calls = []
    collect = extracting(root / "out", calls)
    for _ in range(2):
        prepare(root, root / "out", collect=collect)
    assert calls == [4]
    # Gone audio is made again
    (root / "out/toy_audio/x/made.wav").unlink()
    prepare(root, root / "out", collect=collect)
    assert calls == [4, 4]
    assert len(read_manifest(root / "out/toy.csv", root)) == 2


def test_folders_can_be_passed_over(root):
    write_noise(root / "other/b.wav")
    assert list_files(root, skip=[root / "speech"]).audio == ["other/b.wav"]


def test_a_flag_for_each_argument_and_no_other():
    def prepare_toy(data_folder, save_folder, session=5, share=0.2):
        return data_folder, save_folder, session, share

    options = {"session": {"help": "left out"}, "share": {}, "other": {}}
    parser = argument_parser(TOY, prepare_toy, "", options)
    folders = ["--data_folder", "a", "--save_folder", "b"]
    given = parser.parse_args([*folders, "--session", "1"])
    assert vars(given) == {
        **{"data_folder": "a", "save_folder": "b"},
        **{"session": 1, "share": 0.2},
    }
    for flag in ("--test_speakers", "--decode", "--other"):
        with pytest.raises(SystemExit):
            parser.parse_args([*folders, flag])


def test_a_prepared_function_takes_what_its_corpus_has(root, out):
    prepare_toy = preparation(TOY, by_name(parse_name))
    manifest = prepare_toy(root, out, test_speakers=["anna"])
    other = prepare(root, out / "other", test_speakers=["anna"])
    assert manifest.read_bytes() == other.read_bytes()
    with pytest.raises(TypeError, match="drop_known_bad"):
        prepare_toy(root, out, drop_known_bad=True)
