"""Results, a record each: as JSON lines, as CSV, or as a text for people.

A record is a dict: path, what was recognised (or an error), and what that
depends on. ``schema/recognize.json`` says it in full.
"""

import csv
import io
import json
import os

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import atomic_path
from speechbrain_mser.files.csv_files import guard, unguard

# What an answer depends on, beside the labels; the same in all of a file.
SETTINGS = ("schema", "recognizer", "heard", "calibration")
# Paths are bytes, of any encoding.
_BYTES = "surrogateescape"


class JSONLines:
    """One JSON object a line.

    Example
    -------
    >>> JSONLines().line({"path": "Öl.wav", "error": "no such file"})
    '{"path": "Öl.wav", "error": "no such file"}\\n'
    """

    head = ""

    def line(self, record):
        """A record's text, its line break too."""
        text = json.dumps(record, ensure_ascii=False)
        # A path that is no UTF-8 is escaped: the line is, whatever it is of
        if any("\ud800" <= character <= "\udfff" for character in text):
            text = json.dumps(record)
        return text + "\n"

    def read(self, text):
        """(line, record) of what was written; half a last line is left out.

        Raises
        ------
        InputError
            It is something else.
        """
        *lines, half = text.split("\n")
        if half and not half.startswith("{"):
            lines.append(half)
        read = []
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if not _is_result(record):
                raise InputError(
                    f"line {number} is no result of mser: {line[:60]!r}"
                )
            read.append((line + "\n", record))
        return read


def _is_result(record):
    """Whether a record that was read is one that `JSONLines` writes."""
    return (
        isinstance(record, dict)
        and isinstance(record.get("path"), str)
        and isinstance(record.get("probabilities", {}), dict)
    )


class CSVRows:
    """One row a record, under a row of names.

    Arguments
    ---------
    labels : list of str
        The candidates, a column ``p_LABEL`` each.

    Example
    -------
    >>> rows = CSVRows(["sad", "happy"])
    >>> rows.head.rstrip()
    'path,duration,emotion,p_sad,p_happy,error,schema,recognizer,heard,...'
    """

    def __init__(self, labels):
        self.labels = labels
        self.columns = ["path", "duration", "emotion"]
        self.columns += [f"p_{label}" for label in labels]
        self.columns += ["error", *SETTINGS]
        self.head = _row(self.columns)

    def line(self, record):
        """A record's row, its line break too."""
        probabilities = record.get("probabilities", {})
        flat = record | {
            f"p_{label}": probabilities[label] for label in probabilities
        }
        return _row(flat.get(name) for name in self.columns)

    def read(self, text):
        """(row, record) of what was written; half a last row is left out.

        Raises
        ------
        InputError
            It is something else, or of other labels.
        """
        if self.head.startswith(text):
            return []
        if not text.startswith(self.head):
            raise InputError(
                f"it begins with {text.splitlines()[0][:200]!r}, expected "
                f"{self.head.rstrip()!r}: other labels or another format"
            )
        try:
            rows = list(csv.reader(io.StringIO(text, newline="")))[1:]
        except csv.Error as error:
            raise InputError(f"it is no result of mser: {error}") from None
        # A path may hold a line break: half of its row may end with one
        if rows and (text[-1] != "\n" or len(rows[-1]) != len(self.columns)):
            rows.pop()
        read = []
        for number, row in enumerate(rows, start=1):
            if len(row) != len(self.columns):
                raise InputError(f"row {number} is no result of mser: {row}")
            cells = map(unguard, row)
            record = dict(zip(self.columns, cells, strict=True))
            record["heard"] = record["heard"] or None
            if not record["error"]:
                del record["error"]
            read.append((_row(map(unguard, row)), record))
        return read


class Table:
    """For people: the word, how probable it is, the recording."""

    head = ""

    def line(self, record):
        """A record's line."""
        path = printable(record["path"])
        if "error" in record:
            return f"{'?':<12}    -  {path}: {printable(record['error'])}\n"
        word = record["emotion"]
        value = record["probabilities"][word]
        return f"{printable(word):<12} {value:4.2f}  {path}\n"


def printable(text):
    """A path on a terminal, to which it shall say nothing else.

    Arguments
    ---------
    text : str
        Any.

    Returns
    -------
    str
        The same with control characters escaped.

    Example
    -------
    >>> printable("a\\x1b[2J.wav")
    'a\\\\x1b[2J.wav'
    """
    return "".join(
        character if character.isprintable() else repr(character)[1:-1]
        for character in text
    )


def why(error, path):
    """What an error says of a recording, without naming it again.

    Arguments
    ---------
    error : InputError or OSError
        What was raised.
    path : str
        The recording.

    Returns
    -------
    str
        The reason.

    Example
    -------
    >>> why(InputError("a.wav: the file is empty"), "a.wav")
    'the file is empty'
    """
    reason = getattr(error, "strerror", None) or str(error)
    return reason.removeprefix(f"{path}: ")


def read_finished(path, form, settings, labels):
    """What an interrupted run has left, if this one can go on with it.

    Arguments
    ---------
    path : str
        Its output, there or not.
    form : JSONLines or CSVRows
        How it was written.
    settings : dict
        `SETTINGS` of this run.
    labels : list of str
        Its candidates.

    Returns
    -------
    list of (str, dict)
        Lines and records.

    Raises
    ------
    InputError
        It is something else, or was made with other settings.
    """
    if not os.path.exists(path):
        return []
    try:
        with open(path, encoding="utf-8", newline="", errors=_BYTES) as file:
            read = form.read(file.read())
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    for _, record in read:
        for name in SETTINGS:
            if record.get(name) != settings[name]:
                raise InputError(
                    f"{path} was made with another {name} "
                    f"({record.get(name)}, now {settings[name]}): go on with "
                    "that one, or write to another file"
                )
        its = list(record.get("probabilities", labels))
        if its != labels:
            raise InputError(
                f"{path} has the labels {', '.join(its)}, now they are "
                f"{', '.join(labels)}: go on with those, or write to another "
                "file"
            )
    return read


def open_output(path, form, finished):
    """A file that goes on where it ended.

    Arguments
    ---------
    path : str
        Where results go.
    form : JSONLines or CSVRows
        How.
    finished : list of (str, dict)
        As from `read_finished`.

    Returns
    -------
    file-like
        To which lines are added.
    """
    kept = form.head + "".join(line for line, _ in finished)
    # Whole, without the half of a line that a kill may have left
    with atomic_path(path) as partial:
        partial.write_bytes(kept.encode("utf-8", _BYTES))
    return open(path, "a", encoding="utf-8", newline="", errors=_BYTES)


def _row(fields):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(map(guard, fields))
    return text.getvalue()
