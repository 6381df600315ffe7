"""What the tests of this folder share: `miniature`, and steps without Python."""

import importlib
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from speechbrain_mser.dataio.manifest import read_manifest, write_manifest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def folder(tiny_flags, tmp_path_factory):
    """A recogniser's folder, trained for an epoch; of each module its own."""
    from trained import train_recognizer

    return train_recognizer(tiny_flags, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def recognizer(folder):
    """That recogniser, loaded."""
    from speechbrain_mser.inference import EmotionRecognizer

    return EmotionRecognizer.from_hparams(folder)


@pytest.fixture
def rooms(tiny_corpus, tmp_path):
    """A folder as people have them: audio, and what else lies about."""
    place = tmp_path / "rooms"
    (place / "deep").mkdir(parents=True)
    wavs = sorted((tiny_corpus / "corpora" / "tiny").glob("*.wav"))
    for name, wav in zip(
        ("b.wav", "a $1.WAV", "deep/Öl.wav", "deep/z.wav"), wavs, strict=False
    ):
        shutil.copy(wav, place / name)
    (place / "deep" / "broken.wav").write_text("no audio")
    for name in ("notes.txt", "more.txt", ".hidden.wav", "README"):
        (place / name).write_text("text")
    return place


@pytest.fixture
def mser(folder, capsys):
    """Runs a subcommand with the tiny recogniser; exit code, output, errors."""

    from speechbrain_mser.command.main import main

    def run(name, *arguments, own=True):
        given = ["--recognizer", str(folder)] if own else []
        try:
            code = main([name, *map(str, arguments), *given])
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def in_this_process(monkeypatch):
    """Steps run their scripts here, without starting Python anew.

    Gives the list of what has been run; a script named in ``fail`` ends with
    exit code 3 instead.
    """
    import steps

    ran, fail = [], []

    def call(command):
        script, *arguments = map(str, command[1:])
        name = Path(script).stem
        ran.append((name, arguments))
        if name in fail:
            return 3
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [script, *arguments])
            try:
                importlib.import_module(name).main()
            except SystemExit as ended:
                return ended.code
        return 0

    monkeypatch.setattr(steps, "subprocess", SimpleNamespace(call=call))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return SimpleNamespace(ran=ran, fail=fail)


@pytest.fixture
def real_corpora(tiny_corpus, tiny_whisper, tiny_llama, tmp_path, monkeypatch):
    """The four real corpora in miniature: one of the tiny one's speakers each.

    The data, the experiment's folder with their manifests, and the overrides
    that make the open recipe a second's work.
    """
    import folds

    data, folder = tmp_path / "data", tmp_path / "loco"
    table = read_manifest(tiny_corpus / "manifests" / "tiny.csv")
    names = {"emodb": "EmoDB", "emovo": "EMOVO"}
    names |= {"ravdess": "RAVDESS", "urdu": "URDU"}
    for number, (corpus, name) in enumerate(names.items(), start=1):
        monkeypatch.setitem(folds.LABELS, corpus, "paper4")
        audio = data / "speech" / name
        audio.parent.mkdir(parents=True, exist_ok=True)
        audio.symlink_to(tiny_corpus / "corpora" / "tiny")
        rows = table[table.speaker == f"tiny_{number}"].assign(corpus=corpus)
        rows = rows.assign(ID=corpus + "_" + rows.ID)
        write_manifest(
            folder / "manifests" / f"{corpus}.csv", rows.to_dict("records")
        )
    overrides = {
        "whisper_hub": str(tiny_whisper),
        "llama_hub": str(tiny_llama),
        "frozen_dtype": "float32",
        "encoder_layers": [0, 2],
        "label_words": ["neutral", "happy", "sad", "angry"],
        "languages": ["eng", "deu"],
        "skip_prep": True,
        "number_of_epochs": 1,
        "batch_size": 8,
        "qformer_hidden": 32,
        "qformer_heads": 2,
        "query_dim": 16,
    }
    return data, folder, json.dumps(overrides)
