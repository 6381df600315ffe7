"""Manifests: what was written comes back, and every fault has its message."""

import csv

import pytest

from speechbrain_mser.dataio.manifest import (
    COLUMNS,
    ManifestError,
    read_manifest,
    read_manifests,
    write_manifest,
)
from speechbrain_mser.errors import InputError

ROW = {
    "ID": "meld_train_dia0_utt0",
    "duration": 1.5,
    "wav": "$data_root/train/dia0_utt0.mp4",
    "corpus": "meld",
    "split": "train",
    "language": "eng",
    "speaker": "meld_Chandler",
    "gender": "male",
    "emotion": "happy",
    "label": "joy",
    "text": "also I was the point person",
}


def row(**fields):
    return {**ROW, **fields}


def write_csv(path, rows, columns=COLUMNS):
    """A CSV file that nobody checked."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def error_of(path, rows, columns=COLUMNS, data_root=None):
    """The message with which a manifest of these rows is refused."""
    write_csv(path, rows, columns)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, data_root)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "manifest.csv"


def test_what_was_written_comes_back(path):
    write_manifest(path, [row(), row(ID="b", start=0.25, stop=1.0)])
    table = read_manifest(path)
    assert tuple(table.columns) == COLUMNS
    assert table.index.tolist() == [0, 1]
    first = table.iloc[0].to_dict()
    for key, value in ROW.items():
        assert first[key] == value
    assert table.start.isna().tolist() == [True, False]
    assert (table.start[1], table.stop[1]) == (0.25, 1.0)
    assert table.duration.dtype == float


@pytest.mark.parametrize(
    "text",
    [
        "That's $112, $data_root and $ID",
        'He said "no", twice: ""',
        "“Ça va?” Да, καλά — 好的 😀",
        "one\ntwo\r\nthree\rfour",
        "a, b; c\td \\ \\n",
        "NA",
        "null",
        "007",
        " spaces around ",
        "",
    ],
)
def test_any_text_round_trips(path, text):
    write_manifest(path, [row(text=text, speaker=text)])
    table = read_manifest(path)
    assert table.text.tolist() == [text]
    assert table.speaker.tolist() == [text]


def test_times_round_trip_to_the_last_bit(path):
    times = [0.1 + 0.2, 1 / 3, 12345.678901234567, 1e-3]
    write_manifest(path, [row(ID=f"{t}", duration=t) for t in times])
    assert read_manifest(path).duration.tolist() == times


def test_what_was_read_can_be_written_again(path, tmp_path):
    write_manifest(path, [row(), row(ID="b", start=0.5)])
    table = read_manifest(path)
    copy = tmp_path / "copy.csv"
    write_manifest(copy, table.to_dict("records"))
    assert copy.read_bytes() == path.read_bytes()


def test_missing_keys_become_empty(path):
    minimal = {"ID": "a", "duration": 1, "wav": "$data_root/a.wav"}
    write_manifest(path, [minimal])
    table = read_manifest(path)
    assert table.emotion.tolist() == [""]
    assert table.label.tolist() == [""]


def test_the_folder_is_made_when_missing(tmp_path):
    path = tmp_path / "a" / "b" / "manifest.csv"
    write_manifest(path, [row()])
    assert len(read_manifest(path)) == 1


def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_first_column(path):
    write_csv(path, [row()])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_manifest(path).ID.tolist() == [ROW["ID"]]


def test_further_columns_and_another_order_are_accepted(path):
    write_csv(path, [row(arousal=3)], ("arousal", *COLUMNS[::-1]))
    table = read_manifest(path)
    assert tuple(table.columns) == COLUMNS
    assert table.emotion.tolist() == ["happy"]


def test_data_root_is_put_in_and_files_are_looked_for(path, tmp_path):
    wav = tmp_path / "audio" / "train" / "dia0_utt0.mp4"
    wav.parent.mkdir(parents=True)
    wav.touch()
    write_manifest(path, [row()])
    table = read_manifest(path, tmp_path / "audio")
    assert table.wav.tolist() == [str(wav)]


def test_without_a_data_root_paths_stay_as_they_are(path):
    write_manifest(path, [row()])
    assert read_manifest(path).wav.tolist() == [ROW["wav"]]


def test_a_missing_manifest_names_the_preparation_script(path):
    with pytest.raises(ManifestError, match=r"no such manifest.*preparation"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"\x89PNG\xff\xfe\x00\x01" * 9, "not a CSV file"),
        (",".join(COLUMNS).encode() + b'\na,"b', "not a CSV file"),
        (b'{"ID": "a"}\n', 'column ID, .* is missing; found {"ID'),
        (",".join(COLUMNS).encode() + b"\n\n", "no utterances"),
    ],
)
def test_what_is_no_manifest_is_refused(path, content, reason):
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=reason):
        read_manifest(path)


@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_is_needed(path, name):
    columns = [column for column in COLUMNS if column != name]
    message = error_of(path, [row()], columns)
    assert f"column {name} is missing; found {columns[0]}" in message


def test_a_column_twice_is_refused(path):
    message = error_of(path, [row()], (*COLUMNS, "emotion"))
    assert "column emotion is there twice" in message


@pytest.mark.parametrize(
    ("tail", "fields"), [(b"", 12), (b",more", 13), (b",a,b", 14)]
)
def test_a_row_with_too_few_or_many_fields_is_refused(path, tail, fields):
    write_csv(path, [row()])
    # a file that was cut off, or an unquoted comma
    content = path.read_bytes().rstrip().rsplit(b",", 1)[0] + tail
    path.write_bytes(content)
    if fields == len(COLUMNS):
        assert read_manifest(path).text.tolist() == ["more"]
        return
    with pytest.raises(ManifestError, match=f"line 2: {fields} fields.* 13"):
        read_manifest(path)


def test_an_unknown_emotion_is_refused_with_its_line_and_a_suggestion(path):
    message = error_of(path, [row(), row(ID="b", emotion="anrgy")])
    assert "line 3: unknown emotion 'anrgy'; did you mean 'angry'?" in message


def test_the_line_is_the_editors_despite_line_breaks_in_texts(path):
    rows = [row(text="one\ntwo\nthree"), row(ID="b", emotion="anrgy")]
    message = error_of(path, rows)
    line = int(message.split("line ")[1].split(":")[0])
    assert "anrgy" in path.read_text(encoding="utf-8").splitlines()[line - 1]


@pytest.mark.parametrize("emotion", ["joy", "Happy", " happy"])
def test_an_emotion_in_another_spelling_is_refused(path, emotion):
    message = error_of(path, [row(emotion=emotion)])
    assert f"emotion {emotion!r} must be written 'happy'" in message


def test_an_id_twice_is_refused_with_its_lines(path):
    message = error_of(path, [row(), row(ID="b"), row()])
    assert f"ID {ROW['ID']!r} is there 2 times, on lines 2, 4" in message


def test_an_empty_id_is_refused(path):
    assert "line 2: the ID is empty" in error_of(path, [row(ID="")])


def test_an_id_in_two_manifests_is_refused(tmp_path):
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    write_manifest(one, [row(), row(ID="b")])
    write_manifest(two, [row(ID="c"), row(ID="b")])
    with pytest.raises(ManifestError) as caught:
        read_manifests({one: None, two: None})
    assert str(caught.value) == f"{two}: ID b also in {one}"


def test_several_manifests_become_one_table(tmp_path):
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    write_manifest(one, [row(), row(ID="b")])
    write_manifest(two, [row(ID="c")])
    table = read_manifests({one: None, two: None})
    assert table.ID.tolist() == [ROW["ID"], "b", "c"]
    assert table.index.tolist() == [0, 1, 2]


def test_no_manifests_at_all_are_refused():
    with pytest.raises(ManifestError, match="at least one"):
        read_manifests({})


@pytest.mark.parametrize("name", ["duration", "start", "stop"])
@pytest.mark.parametrize("value", ["1,5", "one", "nan", "inf", "0:01"])
def test_a_time_that_is_no_number_is_refused(path, name, value):
    message = error_of(path, [row(**{name: value})])
    assert f"line 2: {name} '{value}' is not a number of seconds" in message


@pytest.mark.parametrize("duration", ["", 0, -1])
def test_a_duration_must_be_above_zero(path, duration):
    message = error_of(path, [row(duration=duration)])
    assert "line 2: duration must be above 0 s" in message


@pytest.mark.parametrize(
    ("start", "stop"), [(1, 0.5), (1, 1), (-1, 1), (-1, ""), ("", 0), ("", -1)]
)
def test_times_that_enclose_no_audio_are_refused(path, start, stop):
    message = error_of(path, [row(start=start, stop=stop)])
    assert "enclose no audio" in message


@pytest.mark.parametrize(
    "wav",
    [
        "$data_root/../../etc/passwd",
        "$data_root/a/../../b.wav",
        "$data_root//etc/passwd",
        "/etc/passwd",
        "$data_root_b/a.wav",
        "$data_root/",
        "$data_root",
        "a.wav",
        "",
        "$manifest_folder/../a.flac",
        "$manifest_folder/a/../../b.flac",
        "$manifest_folder//etc/passwd",
        "$manifest_folder/",
        "$manifest_folder",
        "$manifest_folder_b/a.flac",
        "$manifest_folder/$data_root/../../a.flac",
        "$home/a.wav",
    ],
)
def test_a_path_outside_the_roots_is_refused(path, wav, tmp_path):
    message = error_of(path, [row(wav=wav)], data_root=tmp_path)
    assert f"line 2: wav {wav!r} must begin with $data_root/" in message
    assert "or $manifest_folder/ and stay inside it" in message


def test_a_path_may_be_relative_to_the_manifests_own_folder(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    for file in (data / "a.wav", out / "meld_audio/b.flac"):
        file.parent.mkdir(parents=True)
        file.touch()
    rows = [
        row(ID="a", wav="$data_root/a.wav"),
        row(ID="b", wav="$manifest_folder/meld_audio/b.flac"),
    ]
    write_manifest(out / "manifest.csv", rows)
    assert read_manifest(out / "manifest.csv").wav.tolist() == [
        "$data_root/a.wav",
        "$manifest_folder/meld_audio/b.flac",
    ]
    # Both move along
    moved = out.rename(tmp_path / "moved")
    assert read_manifest(moved / "manifest.csv", data).wav.tolist() == [
        str(data / "a.wav"),
        str(moved / "meld_audio/b.flac"),
    ]
    (moved / "meld_audio/b.flac").unlink()
    with pytest.raises(ManifestError, match="1 of 2 audio files are not the"):
        read_manifest(moved / "manifest.csv", data)


def test_two_dots_inside_a_name_are_a_name(path):
    write_manifest(path, [row(wav="$data_root/a..b/..c.wav")])
    assert len(read_manifest(path)) == 1


def test_audio_that_is_not_there_is_counted_and_shown(path, tmp_path):
    rows = [row(ID=f"{k}", wav=f"$data_root/{k}.wav") for k in range(7)]
    (tmp_path / "0.wav").touch()
    message = error_of(path, rows, data_root=tmp_path)
    assert "6 of 7 audio files are not there" in message
    assert f"{tmp_path}/1.wav" in message
    assert "and 1 more" in message
    assert f"is {tmp_path} the right data root?" in message


def test_a_folder_in_the_place_of_audio_is_not_audio(path, tmp_path):
    (tmp_path / "a.wav").mkdir()
    rows = [row(wav="$data_root/a.wav")]
    assert "not there" in error_of(path, rows, data_root=tmp_path)


def test_a_data_root_that_is_no_folder_is_refused(path, tmp_path):
    message = error_of(path, [row()], data_root=tmp_path / "wrong")
    assert f"the data root {tmp_path / 'wrong'} is not a folder" in message


def test_a_failing_write_leaves_the_old_manifest_and_nothing_else(path):
    write_manifest(path, [row()])
    before = path.read_bytes()
    with pytest.raises(ManifestError) as caught:
        write_manifest(path, [row(), row(ID="b", emotion="anrgy")])
    # names the file that was asked for, not the one that is gone
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert "partial" not in str(caught.value)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_write_interrupted_midway_leaves_nothing_behind(path):
    def rows():
        yield row()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_manifest(path, rows())
    assert list(path.parent.iterdir()) == []


def test_a_manifest_without_rows_is_not_written(path):
    with pytest.raises(ManifestError, match="no utterances"):
        write_manifest(path, [])
    assert list(path.parent.iterdir()) == []


def test_manifest_errors_are_the_users():
    assert issubclass(ManifestError, InputError)
