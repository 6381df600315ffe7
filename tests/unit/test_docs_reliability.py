"""docs/reliability.md promises nothing that no test holds."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
# Example: tests/unit/test_audio.py::test_a_short_file_is_refused
TEST = re.compile(r"`((?:tests|benchmarks)/[\w/]+\.py)(?:::(\w+))?`")


def rows():
    """The cells of every row of every table, without heads and rules."""
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    return [c for c in cells if c[0] != "promise" and set(c[0]) != {"-"}]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:60])
def test_every_promise_names_tests_that_are_there(row):
    promise, how = row[:2]
    assert len(row) == 3
    named = TEST.findall(how)
    assert named, f"no test for: {promise}"
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        functions = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
        }
        assert not name or name in functions, f"{path} has no {name}"


def test_the_page_has_promises():
    assert len(rows()) > 40
