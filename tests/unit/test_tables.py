"""Tables of labels are read whole, or refused."""

import pytest

from speechbrain_mser.dataio.tables import read_table
from speechbrain_mser.errors import InputError


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
