"""CSV files: read whole or refused by the line, written so that none executes.

A spreadsheet takes a cell that begins with ``=`` for a formula and computes it.
Such a cell is written with an apostrophe before it, which is taken off when it
is read again.
"""

import csv
import io
import re
from pathlib import Path

from speechbrain_mser.errors import InputError

# What begins a formula, the wide forms of Japanese spreadsheets too.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def guard(cell):
    """A cell that no spreadsheet executes.

    Arguments
    ---------
    cell : object
        A text, or anything else, which is left alone.

    Returns
    -------
    object
        The same, unless it begins like a formula.

    Example
    -------
    >>> guard("=cmd|' /C calc'!A0")
    "'=cmd|' /C calc'!A0"
    >>> guard(-0.5)
    -0.5
    """
    if isinstance(cell, str) and _FORMULA.match(cell):
        return f"'{cell}"
    return cell


def unguard(cell):
    """What `guard` was given.

    Arguments
    ---------
    cell : str
        As written.

    Returns
    -------
    str
        Without the apostrophe.

    Example
    -------
    >>> unguard("'=1"), unguard("'tis")
    ('=1', "'tis")
    """
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell


def write_csv(file, header, rows, lineterminator="\r\n"):
    """Write a table.

    Arguments
    ---------
    file : file
        A text file, opened with ``newline=""``.
    header : iterable of str
        The columns.
    rows : iterable of sequence
        Cells in the columns' order.
    lineterminator : str
        The end of a line.

    Example
    -------
    >>> import sys
    >>> write_csv(sys.stdout, ["ID"], [["@a"]], "\\n")
    ID
    '@a
    """
    writer = csv.writer(file, lineterminator=lineterminator)
    writer.writerow(map(guard, header))
    writer.writerows([guard(cell) for cell in row] for row in rows)


def read_csv(path, content=None, skipinitialspace=False):
    """Read a table, every cell as it stands.

    Arguments
    ---------
    path : str or path-like
        The file, in UTF-8, with or without a byte order mark.
    content : str or bytes, optional
        What is in it, where that was read before.
    skipinitialspace : bool
        Whether a space may stand between a comma and a quote.

    Returns
    -------
    header : list of str
        The first row; empty when there is none.
    lines : list of int
        On which line each of the other rows begins; blank ones are left out.
    rows : list of list of str
        Their cells.

    Raises
    ------
    InputError
        The file cannot be read as such. A quote that is opened and not closed
        would swallow the rows that follow: its line is named.
    """
    if content is None:
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
    text = content if isinstance(content, str) else _decode(path, content)
    nul = text.find("\0")
    if nul >= 0:
        raise InputError(
            f"{path}, line {_line(text, nul)}: not a CSV file (it holds a zero "
            "byte); save it as CSV UTF-8"
        )
    reader = csv.reader(
        io.StringIO(text, newline=""),
        strict=True,
        skipinitialspace=skipinitialspace,
    )
    lines, rows, begins = [], [], 1
    try:
        for row in reader:
            if rows:
                _check_swallowed(path, begins, row, len(rows[0]))
            if row or not rows:  # not a blank line
                lines.append(begins)
                rows.append([unguard(cell) for cell in row])
            begins = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{path}, line {begins}: not a CSV file ({error}); a quote opens "
            "there that is not closed as it should be, in or before line "
            f"{reader.line_num}"
        ) from None
    header = rows[0] if rows else []
    return header, lines[1:], rows[1:]


def _decode(path, content):
    if content.startswith(_UTF16):
        raise InputError(
            f"{path}: not a CSV file in UTF-8 but in UTF-16; save it as CSV UTF-8"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {content[: error.start].count(10) + 1}: not a CSV "
            f"file in UTF-8 (byte 0x{content[error.start]:02x} at "
            f"{error.start}); save it as CSV UTF-8"
        ) from None


def _line(text, place):
    return text.count("\n", 0, place) + 1


def _check_swallowed(path, begins, row, columns):
    """Refuse a cell that goes on over lines which are rows themselves."""
    for cell in row:
        for line in re.split("\r\n|\r|\n", cell)[1:]:
            if columns > 1 and line.count(",") == columns - 1:
                raise InputError(
                    f"{path}, line {begins}: a quote opens there that is not "
                    "closed in its line, and what follows has the commas of a "
                    f"row: {line[:80]}; close it, or if this is one text, take "
                    "the breaks between its lines out"
                )
