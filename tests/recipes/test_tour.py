"""docs/tour.ipynb runs, and what it shows is of no machine."""

import csv
import importlib.util
import json
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("espeakng_loader", reason="the extra demo is not installed")

ROOT = Path(__file__).parents[2]
TOUR = ROOT / "docs" / "tour.ipynb"
sys.path.insert(0, str(ROOT / "tools"))

from run_notebook import run_notebook, strip  # noqa: E402


def read():
    return nbformat.read(TOUR, as_version=4)


def shown(notebook):
    """The data of all outputs, by kind."""
    return [
        kind
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        for kind in sorted(output.get("data", ["text"]))
    ]


def test_the_notebook_runs(folder, tmp_path, monkeypatch):
    """As it is, but for the recogniser."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = read()
    first = next(c for c in notebook.cells if c.cell_type == "code")
    assert first.source == 'source = "open"'
    first.source = f"source = {str(folder)!r}"
    run_notebook(notebook, tmp_path)
    strip(notebook)
    assert shown(notebook) == shown(read())
    timeline = json.loads((tmp_path / "call.json").read_text("utf-8"))
    speakers = {one["speaker"] for one in timeline["segments"]}
    assert speakers == {"channel 1", "channel 2"}
    with open(tmp_path / "call.csv", encoding="utf-8") as file:
        assert len([*csv.DictReader(file)]) == len(timeline["segments"])
    for kind in ("png", "rttm", "textgrid", "audformat"):
        assert (tmp_path / f"call.{kind}").stat().st_size


def test_what_it_shows_is_of_no_machine():
    notebook = read()
    text = TOUR.read_text("utf-8")
    for trace in ("/home/", "/root", "/work", "/tmp", "site-packages"):
        assert trace not in text
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [c.execution_count for c in code] == [*range(1, len(code) + 1)]
    for cell in code:
        assert not cell.metadata
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr"


def test_all_that_a_recogniser_gives(
    run_script, folder, tmp_path, capsys, monkeypatch
):
    """Of the demo's; without the released one and the page, which take a while."""
    import tour

    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *more: None if name == "gradio" else find(name, *more),
    )

    monkeypatch.setattr(tour, "lacking_of_released", lambda: "no models")
    flags = ("--folder", tmp_path / "tour", "--demo", folder)
    assert run_script("tour", *flags) == 0
    said = capsys.readouterr().out
    assert "without the released recogniser: no models" in said
    for command in ("models", "listen", "recognize", "find", "card"):
        assert f"$ mser {command}" in said
    assert "no page: pip install 'speechbrain-mser[page]'" in said
    made = tmp_path / "tour" / "demo"
    for name in ("call.png", "call.rttm", "call.textgrid", "call.audformat"):
        assert str(made / name) in said
    # A turn of each segment, and an answer for each turn
    rows = json.loads((made / "call.json").read_text("utf-8"))["segments"]
    assert len([*(made / "turns").iterdir()]) == len(rows) > 2
    assert said.count('"schema": "recognize/1"') == len(rows)
    flags = ("--folder", tmp_path / "none", "--demo", tmp_path / "none")
    assert run_script("tour", *flags) == 2
