"""What the miniatures of the corpora share: audio, tables, real processes."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import ready
import soundfile

from speechbrain_mser.files.csv_files import unguard

RECIPES = Path(__file__).parents[2] / "recipes/M5SER"


def write_noise(path, seconds=0.3, rate=16000, channels=1, subtype=None):
    """Noise in the format of the name's extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (round(seconds * rate), channels)
    noise = np.random.default_rng(0).normal(0, 0.1, shape)
    soundfile.write(path, noise, rate, subtype)


def read_csv(path):
    """The rows, the header's first; without guards against spreadsheets."""
    with open(path, newline="", encoding="utf-8") as file:
        return [list(map(unguard, row)) for row in csv.reader(file)]


def read_dropped(save_folder):
    """Item to reason, of the one corpus that was prepared there."""
    (path,) = save_folder.glob("*_dropped.csv")
    header, *rows = read_csv(path)
    assert header == ["item", "reason"]
    return dict(rows)


def run(script, data_folder, save_folder, *arguments, **options):
    """Run ``<script>_prepare.py`` as a user does.

    With options of `subprocess.run`, in a Python that is started for it.
    """
    words = [
        RECIPES / f"{script}_prepare.py",
        *("--data_folder", data_folder, "--save_folder", save_folder),
        *arguments,
    ]
    if not options:
        return ready.run(words)
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, **options
    )


def refused(script, data_folder, save_folder, *arguments, **options):
    """What a script says when it ends as it should on bad input."""
    result = run(script, data_folder, save_folder, *arguments, **options)
    assert result.returncode == 2, result.stdout
    assert "Traceback" not in result.stderr
    # No manifest, no half of one
    assert not Path(save_folder, f"{script}.csv").exists()
    return result.stderr.strip()


def cells(table):
    """The cells of a Markdown table's lines, the rule's among them."""
    return [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in table.splitlines()
    ]
