"""A corpus is prepared again when what decides its manifest has changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_mser.preparation.code_digest import code_digest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def copy(tmp_path):
    """The package and the scripts, to be edited."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", "synthesis")
    for name in ("speechbrain_mser", "recipes", "manifests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    return tmp_path


def digest(copy, corpus="ravdess"):
    script = copy / "recipes" / "M5SER" / f"{corpus}_prepare.py"
    return code_digest(script, copy / "speechbrain_mser")


def edit(path, before, after):
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def append(path, text):
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def test_the_project_may_move(copy):
    script = ROOT / "recipes" / "M5SER" / "ravdess_prepare.py"
    assert digest(copy) == code_digest(script)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("dataio/audio.py", "\n# Another comment\n"),
        ("emotions.py", "\n\n\n# Another comment\n"),
        # Of training alone, or of messages
        ("dataio/batch_sampler.py", "\nX = 1\n"),
        ("dataio/batching.py", "\nX = 1\n"),
        ("dataio/utterances.py", "\nX = 1\n"),
        ("features/store.py", "\nX = 1\n"),
        ("errors.py", "\nX = 1\n"),
        ("brain.py", "\nX = 1\n"),
    ],
)
def test_what_decides_nothing_prepares_nothing_again(copy, module, text):
    before = digest(copy)
    append(copy / "speechbrain_mser" / module, text)
    assert digest(copy) == before


def test_a_docstring_decides_nothing(copy):
    before = digest(copy)
    manifest = copy / "speechbrain_mser" / "dataio" / "manifest.py"
    edit(manifest, '"""Manifests: the CSV', '"""Manifests, the CSV')
    edit(manifest, '    """Read a manifest and', '    """Reads a manifest and')
    assert digest(copy) == before


@pytest.mark.parametrize(
    ("module", "before", "after"),
    [
        ("emotions.py", '"joy": "happy"', '"joy": "calm"'),
        ("dataio/manifest.py", '"ID",\n', '"ID",\n    "age",\n'),
        ("dataio/audio_limits.py", "MIN_SECONDS = 0.1", "MIN_SECONDS = 0.2"),
        ("preparation/splits.py", 'else "test"', 'else "train"'),
        ("preparation/audio_listing.py", '".flac", ', ""),
        ("spelling.py", '"NFC"', '"NFKC"'),
    ],
)
def test_library_code_that_decides_a_manifest_prepares_again(
    copy, module, before, after
):
    unedited = digest(copy)
    edit(copy / "speechbrain_mser" / module, before, after)
    assert digest(copy) != unedited


def test_only_the_scripts_that_use_a_module_prepare_again(copy):
    before = digest(copy, "ravdess"), digest(copy, "meld")
    append(
        copy / "speechbrain_mser" / "preparation" / "tarballs.py", "\nX = 1\n"
    )
    assert digest(copy, "ravdess") == before[0]
    assert digest(copy, "meld") != before[1]


def test_an_edited_label_map_prepares_again_and_a_comment_does_not(copy):
    noise = np.random.default_rng(0).normal(0, 0.1, 8000)
    for name in ("happy", "sad"):
        (copy / "mine" / name).mkdir(parents=True)
        soundfile.write(copy / "mine" / name / "a.wav", noise, 16000)

    def prepare():
        run = subprocess.run(
            [
                *(sys.executable, copy / "recipes/M5SER/folder_prepare.py"),
                *("--data_folder", copy / "mine"),
                *("--save_folder", copy / "out"),
            ],
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return "nothing to do" in run.stdout

    assert not prepare()
    assert prepare()
    append(copy / "speechbrain_mser" / "dataio" / "audio.py", "\n# Hm\n")
    append(copy / "recipes" / "M5SER" / "folder_prepare.py", "\n# Hm\n")
    assert prepare()
    script = copy / "recipes" / "M5SER" / "folder_prepare.py"
    edit(script, '("validation", "val", "dev")', '("validation", "val")')
    assert not prepare()
