"""The demo's translations: the same by any executor, whatever was killed."""

import importlib
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("espeakng_loader")

import m5ser_card
from demo_m5ser import compare, differences, synthesis_flags
from espeak_prepare import prepare_espeak
from miniature import RECIPES
from steps import as_flags

from speechbrain_mser.dataio.manifest import read_manifest, write_manifest
from speechbrain_mser.errors import InputError
from speechbrain_mser.settings.project_files import HPARAMS

SPEAKERS = ("espeak_eng_m1", "espeak_eng_m7")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """English of two voices, 14 utterances."""
    folder = tmp_path_factory.mktemp("data")
    prepare_espeak(folder, utterances=1, languages=("eng",))
    table = read_manifest(folder / "espeak.csv")
    few = table[table.speaker.isin(SPEAKERS)]
    write_manifest(folder / "espeak.csv", few.to_dict("records"))
    return folder


def command(data, folder, workers):
    """What the demo runs."""
    flags = synthesis_flags(data, folder, "local", workers)
    script, yaml = (
        RECIPES / "synthesize.py",
        HPARAMS / "synthesize.yaml",
    )
    return [str(word) for word in (script, yaml, *as_flags(flags))]


def run_here(argv):
    """Run it without starting Python anew; its workers are processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        # test_m5ser_card.py sees to the pictures
        patch.setattr(m5ser_card, "_draw_map", lambda *_: None)
        patch.setattr(m5ser_card, "draw_distributions", lambda *_: None)
        importlib.import_module("synthesize").main()


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "M5SER"
    run_here(command(data, folder, 2))
    return folder


def test_the_demo_translates_into_five_languages(undisturbed, data):
    table = read_manifest(data / "m5ser.csv", undisturbed)
    assert table.groupby(["language", "split"]).size().to_dict() == {
        (language, split): 7
        for language in ("cmn", "deu", "fra", "ita", "spa")
        for split in ("test", "train")
    }
    row = table.set_index("ID").loc["m5ser_fra_espeak_eng_m1_sad_10"]
    assert row.text == "La réunion est mardi."
    assert (row.emotion, row.speaker) == ("sad", "espeak_espeak_eng_m1")


def test_killed_on_the_way_it_makes_the_same(undisturbed, data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    folder = tmp_path / "M5SER"
    again = command(tmp_path / "data", folder, 1)
    process = subprocess.Popen(
        [sys.executable, *again], stderr=subprocess.DEVNULL
    )
    while len([*folder.glob("shards/*.json")]) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert differences(undisturbed, folder)
    run_here(again)
    assert differences(undisturbed, folder) == []


def test_different_translations_are_named(undisturbed, tmp_path, capsys):
    shutil.copytree(undisturbed, tmp_path / "same")
    shutil.copytree(undisturbed, tmp_path / "other")
    # When and where something was made is no difference
    receipt = tmp_path / "same/shards/fra-00000.json"
    receipt.write_text(receipt.read_text().replace('"host": "', '"host": "x'))
    compare({"local": undisturbed, "ray": tmp_path / "same"})
    assert "local and ray made the same" in capsys.readouterr().out
    audio = next((tmp_path / "other/deu").rglob("*.flac"))
    audio.write_bytes(audio.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=f"in 1 files, such as .*{audio.name}"):
        compare({"local": undisturbed, "ray": tmp_path / "other"})
