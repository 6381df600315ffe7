"""An installed wheel trains, evaluates and recognises: tools/try_wheel.py.

Not among the tests of a checkout: it starts Python anew for every step.
"""

import subprocess
import sys
from pathlib import Path

import pytest

import speechbrain_mser
from speechbrain_mser.inference.folder import find_folder

ROOT = Path(__file__).resolve().parents[1]
SETS = "[{name: tiny, corpus: tiny, labels: [neutral, happy, sad, angry]}]"
RECOGNIZE = """
import sys
from speechbrain_mser.inference import EmotionRecognizer
recognizer = EmotionRecognizer.from_hparams(sys.argv[1])
print(recognizer.recognize_file(sys.argv[2]))
"""


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Runs Python in an empty folder, as somebody without a checkout does."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, **flags):
        given = [f"--{name}={value}" for name, value in flags.items()]
        done = subprocess.run(
            [sys.executable, *map(str, arguments), *given],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_wheel_trains_evaluates_and_recognises(
    python, tiny_flags, tiny_corpus
):
    assert not Path(speechbrain_mser.__file__).is_relative_to(ROOT)
    command = ("-m", "speechbrain_mser")
    python(
        *(*command, "train", "hparams/stage1.yaml"),
        **tiny_flags,
        output_folder="stage1",
    )
    python(
        *(*command, "evaluate", "hparams/evaluate.yaml"),
        recognizer="stage1/recognizer",
        output_folder="evaluation",
        sets=SETS,
        **{
            name: tiny_flags[name]
            for name in ("data_root", "manifest_folder", "skip_prep")
        },
    )
    assert Path("evaluation/table.md").is_file()
    wav = tiny_corpus / "corpora/tiny/tiny_eng_5_happy.wav"
    said = python("-c", RECOGNIZE, "stage1/recognizer", wav)
    assert any(
        word in said for word in tiny_flags["label_words"][1:-1].split(", ")
    )


@pytest.mark.skipif(
    not (ROOT / "speechbrain_mser/models/open").is_dir(),
    reason="not trained yet: make train-open",
)
def test_a_wheel_has_the_released_recogniser():
    folder = find_folder("open")
    assert not folder.is_relative_to(ROOT)
    theirs = {path.name for path in folder.iterdir()}
    ours = (ROOT / "speechbrain_mser/models/open").iterdir()
    assert theirs == {path.name for path in ours}


def test_a_wheel_has_the_corpora_files(python, tmp_path):
    said = python("-m", "speechbrain_mser", "ravdess_prepare", "--help")
    assert "exclusions/ravdess.csv" in said
    assert "train" in python("-m", "speechbrain_mser", "--help")
