"""What `folder_prepare.py` makes of a user's own recordings."""

import unicodedata
from itertools import product

import pytest
from corpora import prepare_manifests
from folder_prepare import prepare_folder
from miniature import read_csv, read_dropped, refused, write_noise

from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.errors import InputError


@pytest.fixture
def folders(tmp_path):
    """One folder per emotion."""
    root = tmp_path / "mine"
    for name in ("happy/1.wav", "Anger/1.wav", "Anger/anna/2.flac"):
        write_noise(root / name)
    return root


@pytest.fixture
def listed(tmp_path):
    """Recordings and a table, as a spreadsheet saves it."""
    root = tmp_path / "mine"
    for name in ("monday/001.wav", "monday/002.wav", "café.wav"):
        write_noise(root / name)
    write_table(
        root,
        "path,label,speaker,gender,language,split,text",
        'monday/001.wav,joy,anna,F,ell,train,"Καλημέρα, Άννα."',
        "monday\\002.wav,Angry,bert,male,,dev,",
        "café.wav,sad",
    )
    return root


def write_table(root, *lines):
    text = "\ufeff" + "\r\n".join(lines) + "\r\n"
    (root / "labels.csv").write_bytes(text.encode())


def change_table(root, old, new):
    path = root / "labels.csv"
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new).encode())


# One folder per emotion


def test_folders_are_labels_and_paths_are_ids(folders, tmp_path):
    manifest = prepare_folder(folders, tmp_path / "out")
    assert read_csv(manifest)[1:] == [
        [
            *("folder_Anger/1", "0.3", "$data_root/Anger/1.wav", "", ""),
            *("folder", "test", "und", "", "", "angry", "Anger", ""),
        ],
        [
            *("folder_Anger/anna/2", "0.3", "$data_root/Anger/anna/2.flac"),
            *("", "", "folder", "test", "und", "", "", "angry", "Anger", ""),
        ],
        [
            *("folder_happy/1", "0.3", "$data_root/happy/1.wav", "", ""),
            *("folder", "test", "und", "", "", "happy", "happy", ""),
        ],
    ]
    assert len(read_manifest(manifest, folders)) == 3


def test_name_and_language_are_the_users(folders, tmp_path):
    manifest = prepare_folder(
        folders, tmp_path / "out", name="calls", language="ell"
    )
    assert manifest.name == "calls.csv"
    table = read_manifest(manifest)
    assert set(table.corpus) == {"calls"} and set(table.language) == {"ell"}
    assert table.ID[0] == "calls_Anger/1"


def test_words_of_ones_own_are_translated_or_left_without_emotion(
    folders, tmp_path
):
    (folders / "happy").rename(folders / "Freude")
    write_noise(folders / "unklar/1.wav")
    manifest = prepare_folder(
        folders, tmp_path / "out", emotions=["freude=joy", "unklar="]
    )
    columns = ["label", "emotion"]
    assert read_manifest(manifest)[columns].values.tolist() == [
        *(["Anger", "angry"], ["Anger", "angry"]),
        *(["Freude", "happy"], ["unklar", ""]),
    ]


def test_without_test_speakers_all_is_for_training(folders, tmp_path):
    manifest = prepare_folder(folders, tmp_path / "out", test_speakers=())
    assert set(read_manifest(manifest).split) == {"train"}


def test_what_lies_beside_the_folders_has_no_label(folders, tmp_path):
    write_noise(folders / "3.wav")
    write_noise(folders / "happy/1.flac")
    (folders / "notes.txt").touch()
    prepare_folder(folders, tmp_path / "out")
    dropped = read_dropped(tmp_path / "out")
    assert dropped == {
        "3.wav": "no label: not in a folder of an emotion",
        "happy/1.wav": "duplicate: has the name of happy/1.flac",
        "notes.txt": "not audio: .txt",
    }


# A table


def test_a_table_gives_labels_speakers_splits_languages_and_texts(
    listed, tmp_path
):
    change_table(listed, "café.wav,sad", "café.wav,sad,,,,test")
    manifest = prepare_folder(listed, tmp_path / "out", language="fra")
    rows = [row[0:1] + row[6:] for row in read_csv(manifest)[1:]]
    assert rows == [
        ["folder_café", "test", "fra", "", "", "sad", "sad", ""],
        [
            *("folder_monday/001", "train", "ell", "anna", "female"),
            *("happy", "joy", "Καλημέρα, Άννα."),
        ],
        [
            *("folder_monday/002", "valid", "fra", "bert", "male"),
            *("angry", "Angry", ""),
        ],
    ]
    assert read_csv(tmp_path / "out/folder_dropped.csv") == [["item", "reason"]]


def test_path_and_label_are_enough(listed, tmp_path):
    write_table(listed, "label,path", "sad,café.wav", "joy,monday/001.wav")
    manifest = prepare_folder(listed, tmp_path / "out")
    columns = ["ID", "split", "emotion"]
    assert read_manifest(manifest)[columns].values.tolist() == [
        ["folder_café", "test", "sad"],
        ["folder_monday/001", "test", "happy"],
    ]
    assert read_csv(tmp_path / "out/folder_dropped.csv")[1:] == [
        ["monday/002.wav", "unlisted: not in labels.csv"]
    ]


def test_speakers_of_the_table_may_be_held_out(listed, tmp_path):
    write_table(
        listed,
        "path,label,speaker",
        "monday/001.wav,joy,anna",
        "monday/002.wav,sad,bert",
        "café.wav,sad,carl",
    )
    manifest = prepare_folder(
        listed,
        tmp_path / "out",
        valid_speakers=["anna"],
        test_speakers=["carl"],
    )
    table = read_manifest(manifest)
    assert dict(zip(table.speaker, table.split, strict=True)) == {
        **{"anna": "valid", "bert": "train", "carl": "test"}
    }


def test_a_name_is_found_however_its_accents_are_composed(listed, tmp_path):
    (listed / "café.wav").rename(
        listed / unicodedata.normalize("NFD", "café.wav")
    )
    change_table(listed, "café.wav,sad", "café.wav,sad,,,,test")
    table = read_manifest(prepare_folder(listed, tmp_path / "out"), listed)
    assert len(table) == 3


def test_training_finds_a_manifest_that_has_a_name_of_its_own(
    folders, tmp_path
):
    out = tmp_path / "out"
    manifests = prepare_manifests(
        *("folder", folders.parent, {"folder": folders.name}, out),
        corpus_options={"folder": {"name": "calls"}},
    )
    assert manifests == {str(out / "calls.csv"): str(folders)}
    assert (out / "calls.csv").is_file()


def test_rows_that_cannot_be_used_are_dropped_with_a_reason(listed, tmp_path):
    write_noise(tmp_path / "outside.wav")
    write_noise(listed / ".hidden.wav")
    (listed / "notes.txt").touch()
    write_table(
        listed,
        "path,label",
        f"{listed}/monday/001.wav,joy",
        "./monday//001.wav,happy",
        "monday/002.wav,",
        "../outside.wav,sad",
        "gone.wav,sad",
        "notes.txt,sad",
        ".hidden.wav,sad",
    )
    manifest = prepare_folder(listed, tmp_path / "out")
    assert read_manifest(manifest).ID.tolist() == ["folder_monday/001"]
    unusable = "unusable: hidden, no audio, or a name that cannot be written"
    assert read_csv(tmp_path / "out/folder_dropped.csv")[1:] == [
        ["../outside.wav", "outside: not in the data folder"],
        [".hidden.wav", unusable],
        ["café.wav", "unlisted: not in labels.csv"],
        ["gone.wav", "missing: no such file"],
        ["monday/001.wav", "duplicate: twice in the table"],
        ["monday/002.wav", "no label: the cell is empty"],
        ["notes.txt", "not audio: .txt"],
        ["notes.txt", unusable],
    ]


def test_absolute_paths_may_go_through_a_link(listed, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(listed)
    for root, written in product((link, listed), repeat=2):
        write_table(listed, "path,label", f"{written}/café.wav,sad")
        manifest = prepare_folder(root, tmp_path / "out")
        assert read_manifest(manifest).ID.tolist() == ["folder_café"]


def test_one_speaker_in_two_splits_is_a_warning(listed, tmp_path, capsys):
    change_table(listed, "bert", "anna")
    change_table(listed, "café.wav,sad", "café.wav,sad,,,,test")
    prepare_folder(listed, tmp_path / "out")
    assert "1 of 1 speakers are in more than one split (anna)" in (
        capsys.readouterr().err
    )


def test_a_table_elsewhere_that_changes_is_read_again(listed, tmp_path, capsys):
    table = tmp_path / "table.csv"
    table.write_text("path,label\ncafé.wav,sad\n", encoding="utf-8")
    (listed / "labels.csv").unlink()
    prepare_folder(listed, tmp_path / "out", table=table)
    table.write_text("path,label\ncafé.wav,joy\n", encoding="utf-8")
    manifest = prepare_folder(listed, tmp_path / "out", table=table)
    assert read_manifest(manifest).label.tolist() == ["joy"]
    capsys.readouterr()
    prepare_folder(listed, tmp_path / "out", table=table)
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("dev", "later", "002.wav: split is 'later', not train, valid or"),
        ("ell", "el", "001.wav: 'el' is no language in ISO 639-3"),
        (
            "joy",
            "hapy",
            "001.wav: unknown emotion 'hapy'; did you mean 'happy'",
        ),
        (
            ",label,",
            ",emotion,",
            "column label is missing; found path, emotion",
        ),
        (
            "café.wav,sad",
            "monday/002.wav,sad,,,,test",
            "twice, as Angry and as",
        ),
        ("café.wav,sad", "café.wav,sad", "café.wav: split is ''"),
    ],
)
def test_a_wrong_cell_is_named(listed, tmp_path, old, new, message):
    change_table(listed, old, new)
    with pytest.raises(InputError, match=message):
        prepare_folder(listed, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


# Bad input


@pytest.mark.parametrize(
    "options, message",
    [
        ({"table": "none.csv"}, r"none\.csv: no such file, here or in"),
        ({"name": "My Data"}, "name is 'My Data'; lower case letters"),
        ({"language": "en"}, "language: 'en' is no language"),
        ({"emotions": ["happy"]}, "'happy' is not of the form label=emotion"),
        ({"emotions": ["happy=hapy"]}, "did you mean 'happy'"),
        ({"test_speakers": ["zoe"]}, "has a column split"),
    ],
)
def test_options_that_cannot_be_used_are_named(
    listed, tmp_path, options, message
):
    with pytest.raises(InputError, match=message):
        prepare_folder(listed, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["meld", "m5ser"])
def test_the_name_of_a_corpus_with_a_script_is_taken(folders, tmp_path, name):
    (tmp_path / f"{name}.csv").write_text("of another corpus")
    with pytest.raises(InputError, match=f"what {name}_prepare.py writes"):
        prepare_folder(folders, tmp_path, name=name)
    assert (tmp_path / f"{name}.csv").read_text() == "of another corpus"


def test_a_table_without_labels_ends_with_a_message(listed, tmp_path):
    out = tmp_path / "out"
    write_table(listed, "path,emotion", "café.wav,sad")
    message = refused("folder", listed, out)
    assert "labels.csv: column label is missing" in message
    assert not out.exists()


def test_a_folder_that_is_no_emotion_ends_with_a_message(folders, tmp_path):
    write_noise(folders / "Actor_01/1.wav")
    out = tmp_path / "out"
    message = refused("folder", folders, out)
    assert "folder Actor_01: unknown emotion 'Actor_01'" in message
    assert "--emotions 'Actor_01=happy'" in message
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\xff\xfe", b"", b"a;b\n"])
def test_a_table_that_is_none_ends_with_a_message(listed, tmp_path, content):
    (listed / "labels.csv").write_bytes(content)
    with pytest.raises(InputError, match="labels"):
        prepare_folder(listed, tmp_path / "out")


def test_no_folder_a_file_and_an_empty_folder_are_told_apart(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, message in (
        ("none", "no such folder"),
        ("file", "a file, not a folder"),
        ("empty", "the folder is empty"),
    ):
        with pytest.raises(InputError, match=message):
            prepare_folder(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()
