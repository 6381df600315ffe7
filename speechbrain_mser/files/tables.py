"""Label files and transcripts as corpora ship them.

Read with the standard library: a label file has a few hundred thousand rows
at most, and every cell is wanted as it stands (``N`` is no missing value).
"""

import json
from pathlib import Path

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.csv_files import read_csv
from speechbrain_mser.spelling import compose

# A file that is no table may have anything for its first line.
_SHOWN = 300


def read_table(path, columns):
    """Read a CSV file with a header; accents are composed.

    Arguments
    ---------
    path : str or path-like
        In UTF-8, with or without a byte order mark.
    columns : iterable of str
        Those that must be there.

    Returns
    -------
    list of dict
        Column to text, stripped; a short row is filled up with ``""``.

    Raises
    ------
    InputError
        The file cannot be read as such, a column is missing or there twice,
        or a row has more fields than there are columns.

    Example
    -------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels.csv"
    >>> _ = path.write_text("FileName,EmoClass\\na.wav, N\\n")
    >>> read_table(path, ["EmoClass"])
    [{'FileName': 'a.wav', 'EmoClass': 'N'}]
    """
    header, lines, rows = read_csv(path, skipinitialspace=True)
    header, *rows = (
        [compose(cell.strip()) for cell in row] for row in (header, *rows)
    )
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(
            f"{path}: column {', '.join(missing)} is missing; found "
            f"{', '.join(header)[:_SHOWN] or 'an empty file'}"
        )
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise InputError(f"{path}: column {twice[0]} is there twice")
    for line, row in zip(lines, rows, strict=True):
        if any(row[len(header) :]):
            raise InputError(
                f"{path}, line {line}: a row has {len(row)} fields for {len(header)} "
                f"columns: {', '.join(row)[:_SHOWN]}; a comma within a field "
                "needs quotes around it"
            )
    blank = [""] * len(header)
    return [
        dict(zip(header, [*row, *blank[len(row) :]], strict=False))
        for row in rows
    ]


def read_json(path):
    """Read a JSON file whose outermost value is an object.

    Arguments
    ---------
    path : str or path-like
        The file.

    Returns
    -------
    dict
        What it holds.

    Raises
    ------
    InputError
        The file cannot be read as such.

    Example
    -------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels.json"
    >>> _ = path.write_text('{"a.wav": {"EmoClass": "N"}}')
    >>> read_json(path)
    {'a.wav': {'EmoClass': 'N'}}
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    # RecursionError: a hundred thousand opening brackets
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(value, dict):
        raise InputError(
            f"{path}: holds a {type(value).__name__}, not an object"
        )
    return value


def read_json_lines(path, keys):
    """Read a file that holds a JSON object a line.

    Arguments
    ---------
    path : str or path-like
        The file.
    keys : iterable of str
        Those that every object must have, with a text.

    Returns
    -------
    list of dict
        What the lines hold, at least one.

    Raises
    ------
    InputError
        The file cannot be read as such.

    Example
    -------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "list.jsonl"
    >>> _ = path.write_text('{"key": "a", "length": 1.5}\\n')
    >>> read_json_lines(path, ["key"])
    [{'key': 'a', 'length': 1.5}]
    """
    lines = filter(str.strip, read_text(path).split("\n"))
    try:
        rows = [json.loads(line) for line in lines]
        texts = [row[key] for row in rows for key in keys]
    except (ValueError, TypeError, KeyError, RecursionError):
        texts = []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InputError(
            f"{path}: missing, or not a JSON object a line, each with the "
            f"texts {', '.join(keys)}; is it whole?"
        )
    return rows


def read_text(path):
    """The text of a small file, whatever of the two usual encodings it has.

    Arguments
    ---------
    path : str or path-like
        In UTF-8, with or without a byte order mark, or in Windows-1252.

    Returns
    -------
    str
        Empty when the file cannot be read: no utterance is lost for want of
        its transcript.

    Example
    -------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.txt"
    >>> _ = path.write_bytes(b"it\\x92s fine")
    >>> read_text(path)
    'it’s fine'
    """
    try:
        data = Path(path).read_bytes()
    except OSError:
        return ""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")
