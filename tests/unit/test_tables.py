"""Tables of labels are read whole, or refused."""

import pytest

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.tables import read_table


def test_a_row_with_too_many_fields_is_refused(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("path,text,speaker\na.wav,yes, well,anna\n")
    with pytest.raises(InputError, match=r"4 fields for 3 columns.*quotes"):
        read_table(path, ["path"])


def test_trailing_commas_and_short_rows_are_harmless(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text('path,text,speaker\na.wav,"yes, well",anna,,\nb.wav\n')
    assert read_table(path, ["path"]) == [
        {"path": "a.wav", "text": "yes, well", "speaker": "anna"},
        {"path": "b.wav", "text": "", "speaker": ""},
    ]


def test_windows_and_spreadsheets_write_tables_too(tmp_path):
    path = tmp_path / "labels.csv"
    # A byte order mark, CRLF, and nothing at the end of the last line
    path.write_bytes(b"\xef\xbb\xbfpath,text\r\na.wav,$112\r\nb.wav,ok")
    assert read_table(path, ["path"]) == [
        {"path": "a.wav", "text": "$112"},
        {"path": "b.wav", "text": "ok"},
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,text\na.wav,it\x92s\n", "in UTF-8 (byte 0x92 at 18); save it"),
        (b"path;text\na.wav;x\n", "column path is missing; found path;text"),
        (b'path,text\n"a.wav,x\n', "not a CSV file (unexpected end of data)"),
        (b"", "column path is missing; found an empty file"),
    ],
)
def test_what_is_no_such_table_says_what_to_do(tmp_path, content, message):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_table(tmp_path / "labels.csv", ["path"])
    assert message in str(caught.value)
