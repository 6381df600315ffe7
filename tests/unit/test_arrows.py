"""Imports go one way, from the recipes down to the vocabulary."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# A room imports from those before it, and from itself.
ROOMS = (
    *("torchaudio_extension", "termination", "errors", "spelling", "emotions"),
    *("devices", "finite", "distributed", "job_array", "files", "settings"),
    *("losses", "models", "lobes", "features", "dataio", "preparation"),
    *("evaluation", "training", "brain", "inference", "synthesis"),
    *("timeline", "page", "command"),
)
# The one method that leads users to a room above: EmotionRecognizer.timeline.
WAYS_IN = {"inference/recognizer.py -> timeline"}
ABOVE = ("__main__",)


def imported_rooms(path):
    """The rooms of this package that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "speechbrain_mser":
                names = [f"speechbrain_mser.{a.name}" for a in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "speechbrain_mser" and len(parts) > 1:
                yield parts[1]


def test_no_arrow_goes_upwards():
    package = ROOT / "speechbrain_mser"
    upwards = set()
    for path in package.rglob("*.py"):
        room = path.relative_to(package).with_suffix("").parts[0]
        if room in (*ABOVE, "__init__"):
            continue
        assert room in ROOMS, f"{room} has no place among the rooms"
        upwards |= {
            f"{path.relative_to(package)} -> {other}"
            for other in imported_rooms(path)
            if other in ROOMS and ROOMS.index(other) > ROOMS.index(room)
        }
    assert upwards == WAYS_IN


def test_the_library_imports_no_recipe():
    scripts = {path.stem for path in (ROOT / "recipes/M5SER").rglob("*.py")}
    for path in (ROOT / "speechbrain_mser").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in scripts, path
