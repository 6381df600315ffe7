"""Manifests: the CSV files that say which utterances there are.

The columns are SpeechBrain's habit extended by what emotion recognition
needs; `manifests/README.md` explains them. Paths begin with ``$data_root``,
so that a manifest can move between machines, or with ``$manifest_folder``
where a preparation script made the audio (from films) beside its manifest.
"""

import os
from pathlib import Path

import numpy as np
import pandas

from speechbrain_mser.dataio.own_emotions import OWN_FILE, read_own
from speechbrain_mser.emotions import canonical
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import atomic_path
from speechbrain_mser.files.csv_files import read_csv, write_csv
from speechbrain_mser.spelling import compose, find_spelling

COLUMNS = (
    "ID",
    "duration",
    "wav",
    "start",
    "stop",
    "corpus",
    "split",
    "language",
    "speaker",
    "gender",
    "emotion",
    "label",
    "text",
)

DATA_ROOT = "$data_root/"
# The folder that holds the manifest itself.
MANIFEST_FOLDER = "$manifest_folder/"
# How many examples of a fault an error message shows.
SHOWN = 5
# A file that is no manifest may have anything for its first line.
SHOWN_CHARACTERS = 300


class ManifestError(InputError):
    """A manifest that cannot be used, and why."""


def write_manifest(path, rows):
    """Write a manifest, checked and atomically.

    Arguments
    ---------
    path : str or path-like
        The CSV file to write; its folder is made when missing.
    rows : iterable of dict
        One per utterance, with the keys of `COLUMNS`; missing ones and NaN
        become empty.

    Raises
    ------
    ManifestError
        A row that `read_manifest` would refuse.

    Example
    -------
    >>> import tempfile
    >>> row = {"ID": "a", "duration": 1.5, "wav": "$data_root/a.wav",
    ...        "emotion": "happy", "label": "joy"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_manifest(f"{folder}/m.csv", [row])
    ...     read_manifest(f"{folder}/m.csv").emotion.tolist()
    ['happy']
    """
    with atomic_path(path) as partial:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            write_csv(file, COLUMNS, map(_cells, rows))
        try:
            read_manifest(partial)
        except ManifestError as error:
            # Name the file that was asked for: the other is gone.
            message = str(error).replace(str(partial), str(path))
            raise ManifestError(message) from None


def read_manifest(path, data_root=None, own_columns=False):
    """Read a manifest and check every row.

    Arguments
    ---------
    path : str or path-like
        The CSV file.
    data_root : str or path-like, optional
        What ``$data_root`` stands for. When given, ``wav`` holds the resolved
        paths (``$manifest_folder`` is the manifest's own folder) and every
        file must exist.
    own_columns : bool
        Whether columns beyond `COLUMNS` are kept, where they have a name that
        Python could use.

    Returns
    -------
    pandas.DataFrame
        One row per utterance: ``duration``, ``start`` and ``stop`` are
        floats in seconds (NaN where empty), everything else strings (empty
        where empty).

    Raises
    ------
    ManifestError
        The file or a column is missing, an ID is empty or there twice, an
        emotion is unknown, a time is no number, a path is outside
        ``$data_root`` and ``$manifest_folder`` or not there.
    """
    path = Path(path)
    table = _read_table(path)
    own = [name for name in table if name not in COLUMNS]
    kept = [name for name in own if own_columns and name.isidentifier()]
    table = table.loc[:, [*COLUMNS, *kept]]
    _check_ids(path, table)
    _check_emotions(path, table)
    for name in ("duration", "start", "stop"):
        table[name] = _seconds(path, table, name)
    _check_times(path, table)
    table["wav"] = _resolve(path, table, data_root)
    return table.reset_index(drop=True)


def read_manifests(sources, own_columns=False):
    """Read several manifests into one table; IDs must be unique over all.

    Arguments
    ---------
    sources : dict
        Manifest path to its data root.
    own_columns : bool
        As for `read_manifest`; empty where another manifest has them.

    Returns
    -------
    pandas.DataFrame
        As `read_manifest` returns, concatenated.

    Raises
    ------
    ManifestError
        No sources, one ID in two manifests, or as `read_manifest`.
    """
    if not sources:
        raise ManifestError("no manifests given: at least one is needed")
    tables = []
    seen = {}
    for path, data_root in sources.items():
        table = read_manifest(path, data_root, own_columns)
        twice = [name for name in table.ID if name in seen]
        if twice:
            raise ManifestError(
                f"{path}: ID {_examples(twice)} also in {seen[twice[0]]}"
            )
        seen.update(dict.fromkeys(table.ID, path))
        tables.append(table)
    table = pandas.concat(tables, ignore_index=True)
    own = [name for name in table if name not in COLUMNS]
    return table.fillna(dict.fromkeys(own, "")) if own else table


def _examples(items):
    """The first few of many, and how many there are."""
    items = [str(item) for item in items]
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more


def _cells(row):
    """A row as read back (``start`` NaN) to a row as written (empty)."""
    unknown = sorted(set(row) - set(COLUMNS))
    if unknown:
        raise ValueError(f"a manifest has no column {', '.join(unknown)}")
    cells = [row.get(name, "") for name in COLUMNS]
    return [
        _spell(name, "" if cell != cell else cell)
        for name, cell in zip(COLUMNS, cells, strict=True)
    ]


def _spell(name, cell):
    """A cell in the one spelling of its text; a path is spelled by the disk."""
    return compose(cell) if isinstance(cell, str) and name != "wav" else cell


def _read_table(path):
    """All columns as strings, indexed by the line on which a row begins."""
    if not path.is_file():
        raise ManifestError(
            f"{path}: no such manifest; write it with the corpus's "
            "preparation script in recipes/M5SER"
        )
    # Not pandas.read_csv: it fills a short row up and takes the first column
    # of a long one for an index, and it does not say on which line a row is.
    try:
        header, lines, rows = read_csv(path)
    except InputError as error:
        raise ManifestError(str(error)) from None
    if not header:
        raise ManifestError(f"{path}: the file is empty")
    _check_shape(path, header, lines, rows)
    rows = [
        [_spell(name, cell) for name, cell in zip(header, row, strict=True)]
        for row in rows
    ]
    return pandas.DataFrame(rows, index=lines, columns=header, dtype=str)


def _check_shape(path, header, lines, rows):
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise ManifestError(
            f"{path}: column {', '.join(missing)} is missing; found "
            f"{', '.join(header)[:SHOWN_CHARACTERS]}"
        )
    names = sorted({name for name in header if name.isidentifier()})
    twice = [name for name in names if header.count(name) > 1]
    if twice:
        raise ManifestError(f"{path}: column {', '.join(twice)} is there twice")
    if not rows:
        raise ManifestError(f"{path}: the manifest has no utterances")
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(header):
            raise ManifestError(
                f"{path}, line {line}: {len(row)} fields, but the header has "
                f"{len(header)}; is the file cut off, or a comma unquoted?"
            )


def _check_ids(path, table):
    empty = table.index[table.ID == ""]
    if len(empty):
        raise ManifestError(f"{path}, line {empty[0]}: the ID is empty")
    twice = table.ID[table.ID.duplicated()]
    if len(twice):
        lines = table.index[table.ID == twice.iloc[0]]
        raise ManifestError(
            f"{path}: ID {twice.iloc[0]!r} is there {len(lines)} times, on "
            f"lines {_examples(lines)}; in all {len(twice)} "
            "repeated; IDs must be unique"
        )


def _check_emotions(path, table):
    # Empty is allowed: the corpus has the utterance, but no usable label.
    own = read_own(Path(path).parent)
    for emotion in sorted(set(table.emotion) - {""}):
        line = table.index[table.emotion == emotion][0]
        try:
            word = canonical(emotion, own)
        except InputError as error:
            raise ManifestError(
                f"{path}, line {line}: {error}; a further emotion is a line of "
                f"{Path(path).parent / OWN_FILE}"
            ) from None
        if word != emotion:
            raise ManifestError(
                f"{path}, line {line}: emotion {emotion!r} must be written "
                f"{word!r} (the corpus's own word belongs in 'label')"
            )


def _seconds(path, table, name):
    values = pandas.to_numeric(table[name], errors="coerce")
    wrong = table.index[~np.isfinite(values) & (table[name] != "")]
    if len(wrong):
        raise ManifestError(
            f"{path}, line {wrong[0]}: {name} "
            f"{table[name][wrong[0]]!r} is not a number of seconds"
        )
    # Python's own: pandas before 3 errs in the last bit
    return table[name].replace("", "nan").map(float).astype(float)


def _check_times(path, table):
    # Written so that NaN (an empty duration) fails too.
    wrong = table.index[~(table.duration > 0)]
    if len(wrong):
        raise ManifestError(
            f"{path}, line {wrong[0]}: duration must be above 0 s"
        )
    start = table.start.fillna(0)
    wrong = table.index[(start < 0) | (table.stop <= start)]
    if len(wrong):
        raise ManifestError(
            f"{path}, line {wrong[0]}: start {start[wrong[0]]} "
            f"and stop {table.stop[wrong[0]]} enclose no audio"
        )


def _inside(wav):
    """Whether a path begins with one of the roots and stays inside it."""
    root, slash, rest = wav.partition("/")
    parts = rest.split("/")
    return (
        root + slash in (DATA_ROOT, MANIFEST_FOLDER)
        and parts[0] != ""  # $data_root//etc/passwd
        and parts[-1] not in ("", ".")
        and ".." not in parts
    )


def _resolve(path, table, data_root):
    """The ``wav`` column, with the roots replaced when one is given."""
    wavs = table.wav
    outside = [(line, wav) for line, wav in wavs.items() if not _inside(wav)]
    if outside:
        line, wav = outside[0]
        raise ManifestError(
            f"{path}, line {line}: wav {wav!r} must begin with "
            f"{DATA_ROOT} or {MANIFEST_FOLDER} and stay inside it"
        )
    if data_root is None:
        return wavs
    root = find_spelling(data_root)
    if not root.is_dir():
        raise ManifestError(
            f"{path}: the data root {root} is not a folder; give the folder "
            "that the manifest's $data_root stands for"
        )
    roots = {DATA_ROOT: root, MANIFEST_FOLDER: path.parent}

    listings = {}

    def resolve(wav):
        start, slash, rest = wav.partition("/")
        return str(find_spelling(roots[start + slash] / rest, listings))

    resolved = wavs.map(resolve)
    gone = [wav for wav in resolved.unique() if not os.path.isfile(wav)]
    if gone:
        raise ManifestError(
            f"{path}: {len(gone)} of {resolved.nunique()} audio files are not "
            f"there: {_examples(gone)}; is {root} the right data root?"
        )
    return resolved
