"""Your own recordings: a table or one folder per emotion, one manifest.

Either a CSV file says what is what (UTF-8; ``labels.csv`` in the data folder
is found by itself, ``--table`` names another one). The columns path and label
are needed, the others may be missing, and so may a cell:

    path,label,speaker,gender,language,split,text
    monday/001.wav,joy,anna,female,ell,train,Καλημέρα.
    monday/002.wav,angry,bert,male,,test,

or every emotion has a folder, whatever lies below it:

    happy/001.wav    happy/anna/002.wav    angry/001.mp4

Labels are words that the vocabulary knows (joy, Happiness, ang ...);
``--emotions freude=happy unclear=`` says what others mean, or that they mean
none of its words. Without a column split everything is in the test split by
default, to be recognised by a model that never heard it; to train, name the
speakers to hold out: ``--valid_speakers anna --test_speakers bert``, or none.

Usage: python folder_prepare.py --data_folder mine --save_folder manifests
"""

import glob
import os
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

from speechbrain_mser.dataio.own_emotions import OWN_FILE, read_own
from speechbrain_mser.emotions import canonical
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.fingerprints import sha256
from speechbrain_mser.files.tables import read_table
from speechbrain_mser.preparation.command_line import entry_point
from speechbrain_mser.preparation.corpus import Corpus, prepare_corpus
from speechbrain_mser.preparation.splits import ALL
from speechbrain_mser.spelling import compose, find_spelling

FOLDER = Corpus(
    name="folder",
    language="und",
    script=__file__,
    layout="*",
    test_speakers=(ALL,),
)

# Looked for in the data folder
TABLE = "labels.csv"

SPLITS = {
    **{"train": "train", "test": "test", "valid": "valid"},
    **dict.fromkeys(("validation", "val", "dev"), "valid"),
}
GENDERS = {
    **dict.fromkeys(("m", "male"), "male"),
    **dict.fromkeys(("f", "female"), "female"),
}


def prepare_folder(
    data_folder,
    save_folder,
    table=None,
    name=FOLDER.name,
    language=FOLDER.language,
    emotions=(),
    valid_speakers=FOLDER.valid_speakers,
    test_speakers=FOLDER.test_speakers,
    decode=False,
):
    """Write ``<name>.csv`` and ``<name>_dropped.csv``.

    Arguments
    ---------
    data_folder : str or path-like
        The folder that holds the recordings.
    save_folder : str or path-like
        Where the manifest goes.
    table : str or path-like, optional
        The CSV file; default: ``labels.csv`` in the data folder, and if
        there is none, one folder per emotion.
    name : str
        What the corpus shall be called: lower case letters, digits, ``_``
        and ``-``.
    language : str
        ISO 639-3, where the table does not say; ``und`` is undetermined.
    emotions : list of str
        ``label=emotion`` for labels that the vocabulary does not know, or
        ``label=`` for those without an emotion.
    valid_speakers, test_speakers : list of str
        As in the column speaker; ``all`` for test_speakers means all others.
        Not together with a column split.
    decode : bool
        Decode every file, to find silent and broken-off ones too.

    Returns
    -------
    pathlib.Path
        The manifest.

    Raises
    ------
    InputError
        The table is missing or lacks a column, an unknown label or language,
        a recording with two labels, or see `prepare_corpus`.
    """
    folder = find_spelling(Path(data_folder).expanduser())
    _check_folder(folder)
    if not re.fullmatch("[a-z0-9][a-z0-9_-]*", name):
        raise InputError(
            f"name is {name!r}; lower case letters, digits, _ and - are for "
            "names"
        )
    _check_name_is_free(name)
    _check_language("language", language)
    own = read_own(save_folder)
    meanings = dict(_meaning(pair, own) for pair in emotions)
    table = _find_table(folder, table)
    corpus = replace(FOLDER, name=name, language=language)
    if table is None:
        table_digest = ""

        def collect(_, paths):
            return _by_folder(paths, meanings, own)

    else:
        entries = read_table(table, ["path", "label"])
        table_digest = sha256(table.read_bytes())
        has_splits = bool(entries) and "split" in entries[0]
        if has_splits and (valid_speakers or [*test_speakers] != [ALL]):
            raise InputError(
                f"{table} has a column split, so valid_speakers and "
                "test_speakers cannot be given; remove one or the other"
            )
        corpus = replace(
            corpus,
            companions=_companions(folder, table),
            official_splits=has_splits,
        )

        def collect(folder, paths):
            return _by_table(folder, paths, table, entries, meanings, own)

    return prepare_corpus(
        corpus,
        collect,
        folder,
        save_folder,
        valid_speakers,
        test_speakers,
        decode=decode,
        language=language,
        emotions=meanings,
        table=table_digest,
    )


def _check_folder(folder):
    if not folder.is_dir():
        what = "a file, not a folder" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {what}; give the one with the recordings")
    if not any(folder.iterdir()):
        raise InputError(f"{folder}: the folder is empty")


def _check_name_is_free(name):
    """Not to write over the manifest of a corpus that has a script."""
    script = f"{name}_prepare.py"
    if name != FOLDER.name and [*Path(__file__).parent.rglob(script)]:
        raise InputError(
            f"name is {name!r}, and {name}.csv is what {script} writes; give "
            "another name"
        )


def _check_language(where, language):
    if not re.fullmatch("[a-z]{3}", language):
        raise InputError(
            f"{where}: {language!r} is no language in ISO 639-3, three letters "
            "in lower case: eng fra deu ita cmn spa ell rus fas ..."
        )


def _meaning(pair, own):
    """``freude=happy`` to ``("freude", "happy")``."""
    label, sign, emotion = pair.partition("=")
    if not sign:
        raise InputError(f"emotions: {pair!r} is not of the form label=emotion")
    emotion = emotion.strip()
    return compose(label).strip().lower(), emotion and canonical(emotion, own)


def _find_table(folder, table):
    """The table's path, or None when there is one folder per emotion."""
    if table is None:
        usual = folder / TABLE
        return usual if usual.is_file() else None
    given = Path(table).expanduser()
    for path in map(find_spelling, (given, folder / given)):
        if path.is_file():
            return path
    raise InputError(f"{table}: no such file, here or in {folder}")


def _companions(folder, table):
    """Our table is not to be listed as something that is no audio."""
    inside = os.path.relpath(table.resolve(), folder.resolve())
    return (glob.escape(inside),)


def _emotion(label, meanings, own, where):
    label = compose(label)
    if label.lower() in meanings:
        return meanings[label.lower()]
    try:
        return canonical(label, own)
    except InputError as error:
        raise InputError(
            f"{where}: {error}; or say what it means: --emotions "
            f"'{label}=happy', or '{label}=' for no emotion; a further emotion "
            f"is a line of {OWN_FILE} in the save folder"
        ) from None


def _by_folder(paths, meanings, own):
    rows, dropped, known = [], [], {}
    for path in paths:
        label, slash, _ = path.partition("/")
        if not slash:
            dropped.append((path, "no label: not in a folder of an emotion"))
            continue
        if label not in known:
            known[label] = _emotion(label, meanings, own, f"folder {label}")
        item = str(PurePosixPath(path).with_suffix(""))
        row = {"ID": item, "wav": path, "label": label, "speaker": ""}
        rows.append({**row, "emotion": known[label]})
    return rows, dropped


def _by_table(folder, paths, table, entries, meanings, own):
    # A name typed on one system may be composed otherwise than on another
    on_disk = {compose(path): path for path in paths}
    rows, dropped = {}, []
    for entry in entries:
        given = entry["path"]
        path = on_disk.get(_relative(folder, given))
        if path is None:
            dropped.append((given, _absence(folder, given)))
        elif not entry["label"]:
            dropped.append((path, "no label: the cell is empty"))
        else:
            row = _row(path, entry, meanings, own, f"{table}: {path}")
            first = rows.setdefault(path, row)
            if first["emotion"] != row["emotion"]:
                raise InputError(
                    f"{table}: {path} is there twice, as {first['label']} and "
                    f"as {row['label']}"
                )
            if first is not row:
                dropped.append((path, "duplicate: twice in the table"))
    mentioned = {*rows, *(item for item, _ in dropped)}
    dropped += [
        (path, f"unlisted: not in {table.name}")
        for path in paths
        if path not in mentioned
    ]
    return [*rows.values()], dropped


def _relative(folder, path):
    """A path of the table as `list_files` writes it."""
    # As written on Windows
    path = path.replace("\\", "/")
    if os.path.isabs(path):
        # The folder may be given, or written in the table, through a link
        roots = (folder.absolute(), folder.resolve())
        inside = [os.path.relpath(path, root) for root in roots]
        inside.append(os.path.relpath(os.path.realpath(path), roots[1]))
        path = min(inside, key=lambda relative: relative.startswith(".."))
    return compose(os.path.normpath(path))


def _absence(folder, path):
    inside = _relative(folder, path)
    if inside.startswith("../"):
        return "outside: not in the data folder"
    if "\0" in inside or not os.path.lexists(folder / inside):
        return "missing: no such file"
    return "unusable: hidden, no audio, or a name that cannot be written"


def _row(path, entry, meanings, own, where):
    row = {
        "ID": str(PurePosixPath(path).with_suffix("")),
        "wav": path,
        "label": entry["label"],
        "emotion": _emotion(entry["label"], meanings, own, where),
        "speaker": entry.get("speaker", ""),
        "gender": GENDERS.get(entry.get("gender", "").lower(), ""),
        "text": entry.get("text", ""),
    }
    if entry.get("language"):
        _check_language(where, entry["language"])
        row["language"] = entry["language"]
    if "split" in entry:
        split = entry["split"].lower()
        if split not in SPLITS:
            raise InputError(
                f"{where}: split is {entry['split']!r}, not train, valid or "
                "test"
            )
        row["split"] = SPLITS[split]
    return row


main = entry_point(
    FOLDER,
    prepare_folder,
    __doc__,
    table={
        "metavar": "FILE",
        "help": f"the CSV file; default: {TABLE} in the data folder, if any",
    },
    name={"help": "the corpus; default: folder"},
    language={"help": "ISO 639-3; default: und (undetermined)"},
    emotions={
        "nargs": "*",
        "metavar": "LABEL=EMOTION",
        "help": "what labels mean that the vocabulary does not know",
    },
)

if __name__ == "__main__":
    main()
