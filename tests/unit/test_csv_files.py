"""CSV files: a quote swallows no row, and no cell is executed."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_mser.dataio.manifest import (
    COLUMNS,
    ManifestError,
    read_manifest,
    write_manifest,
)
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.csv_files import (
    guard,
    read_csv,
    unguard,
    write_csv,
)
from speechbrain_mser.files.tables import read_table

EXECUTED = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
FORMULAS = [
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "+1+1",
    "-1+1",
    "\t=1",
    "\r=1",
    '=HYPERLINK("http://x","y")',
    "＝1+1",
    "'=1",
    "''=1",
]


def table(*lines):
    return "\n".join(["path,label,text", *lines, ""])


def refusal(tmp_path, content):
    path = tmp_path / "labels.csv"
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_table(path, ["path", "label"])
    message = str(caught.value)
    assert message.startswith(str(path))
    return message


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        # Never closed: the rest of the file would be one cell
        (['a.wav,"happy,', "b.wav,sad,", "c.wav,sad,"], 2),
        (["a.wav,happy,", 'b.wav,sad,"well', "c.wav,sad,"], 3),
        # Closed by the next stray one, and two rows are gone
        (['a.wav,"happy,', "b.wav,sad,", 'c.wav,",x'], 2),
        (["a.wav,happy,hm", 'b.wav,sad,"oh', "c.wav,sad,no", 'd.wav,sad"'], 3),
        # Closed by another cell's quote
        (["a.wav,happy,hm", 'b.wav,sad,"oh', 'c.wav,sad,"no"'], 3),
        (['a.wav,happy,"oh" no'], 2),
    ],
)
def test_a_stray_quote_names_its_line(tmp_path, lines, number):
    message = refusal(tmp_path, table(*lines))
    assert f"labels.csv, line {number}: " in message and "quote" in message


def test_a_quote_that_opens_a_cell_longer_than_csv_takes_names_its_line(
    tmp_path,
):
    rows = [f"{k}.wav,happy,yes well" for k in range(20_000)]
    assert "line 3: " in refusal(tmp_path, table("a,b,c", 'b,c,"d', *rows))


def test_quoted_commas_quotes_and_line_breaks_are_read(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(table('a.wav,happy,"one, ""two""\nthree"', 'b,sad,4" x'))
    _, lines, rows = read_csv(path)
    assert lines == [2, 4]
    assert rows == [
        ["a.wav", "happy", 'one, "two"\nthree'],
        ["b", "sad", '4" x'],
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table("a,b,\0"), "line 2: not a CSV file (it holds a zero byte)"),
        (table("a,happy,c").encode("utf-16"), "in UTF-16; save it as CSV"),
        (table("a,happy,c").encode("utf-16-le"), "line 1: not a CSV file"),
        (table("a,b,c").encode() + b"\xe9,b,c\n", "line 3: not a CSV file in"),
        ("path,label,label\na,b,c\n", "column label is there twice"),
        ("path,label,text\na,b,c,d\n", "line 2: a row has 4 fields"),
        ("path,lable\na,b\n", "column label is missing"),
    ],
)
def test_what_is_no_table_is_refused_where_it_goes_wrong(
    tmp_path, content, message
):
    assert message in refusal(tmp_path, content)


def test_bom_crlf_and_trailing_commas_change_nothing(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(b"\xef\xbb\xbfpath,label,,\r\na.wav,happy,,\r\n")
    (row,) = read_table(path, ["path", "label"])
    assert (row["path"], row["label"]) == ("a.wav", "happy")


@pytest.mark.parametrize("text", FORMULAS)
def test_a_manifest_holds_no_formula_and_gives_every_text_back(tmp_path, text):
    row = {
        **{"ID": text, "duration": 1.0, "wav": "$data_root/a.wav"},
        **{"speaker": text, "label": text, "text": text, "corpus": text},
    }
    path = tmp_path / "m.csv"
    write_manifest(path, [row])
    with open(path, newline="", encoding="utf-8") as file:
        _, cells = csv.reader(file)
    assert not [cell for cell in cells if cell.startswith(EXECUTED)]
    table = read_manifest(path)
    for name in ("ID", "speaker", "label", "text", "corpus"):
        assert table[name].tolist() == [text]


@settings(max_examples=300, deadline=None)
@given(st.text("='+-@\t\r\n ab\"", max_size=8))
def test_guarding_is_undone_and_nothing_guarded_is_executed(text):
    assert unguard(guard(text)) == text
    assert not guard(text).startswith(EXECUTED)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("='+-@\n ab\"", max_size=6), min_size=3, max_size=3))
def test_a_written_table_is_read_as_it_was(cells):
    text = io.StringIO(newline="")
    write_csv(text, ["a", "b", "c"], [cells])
    assert read_csv("x", text.getvalue())[2] == [cells]


def test_manifests_name_the_line_of_a_stray_quote(tmp_path):
    path = tmp_path / "m.csv"
    rows = [
        {"ID": f"{k}", "duration": 1.0, "wav": "$data_root/a.wav", "text": "x"}
        for k in range(5)
    ]
    write_manifest(path, rows)
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:-1] + '"x'
    lines[4] = lines[4][:-1] + '"'
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ManifestError, match=r"m\.csv, line 3: .*quote"):
        read_manifest(path)


def test_a_row_with_an_unknown_column_is_a_bug(tmp_path):
    with pytest.raises(ValueError, match="no column lable"):
        write_manifest(tmp_path / "m.csv", [{"ID": "a", "lable": "x"}])
    assert "lable" not in COLUMNS
