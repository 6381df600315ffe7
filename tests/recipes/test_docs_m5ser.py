"""The commands of docs/m5ser.md are commands that there are."""

import re
import shlex
from pathlib import Path

import pytest
from miniature import RECIPES, write_noise
from ruamel.yaml import YAML

from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.settings.experiment_files import included_files
from speechbrain_mser.settings.project_files import HPARAMS
from speechbrain_mser.synthesis.filters import PaperFilters

DOC = Path(__file__).resolve().parents[2] / "docs/m5ser.md"
# Of scripts with a hyperparameter file, outside of it
OUTSIDE = {"part"}


def commands(text):
    """The words of every Python script's command, after the program's."""
    blocks = re.findall(r"(?:^    .*\n|^\n)+", text, re.MULTILINE)
    text = "".join(blocks).replace("\\\n", " ")
    for name, value in re.findall(r'^    (\w+)="(.*?)"', text, re.M | re.S):
        text = text.replace(f"${name} ", value.replace("\n", " ") + " ")
    for line in text.splitlines():
        found = re.search(r"(?<!\S)(\w+\.py .*)", line)
        if found and re.search(r"python |train\.py hparams", line):
            yield shlex.split(found[1])


def known_settings(yaml):
    """Whatever is a flag of a hyperparameter file."""
    path = HPARAMS / Path(yaml).name
    tables = [path, *included_files(path).values()]
    return {name for table in tables for name in YAML().load(table)}


def test_every_flag_is_known(run_script, capsys):
    found = list(commands(DOC.read_text()))
    assert len(found) > 20
    assert [words[0] for words in found].count("train.py") == 2
    for script, *words in found:
        assert (RECIPES / script).is_file()
        flags = {word[2:] for word in words if word.startswith("--")}
        if words[0].endswith(".yaml"):
            assert flags <= known_settings(words[0]) | OUTSIDE, script
            continue
        assert run_script(script.removesuffix(".py"), "--help") == 0
        told = set(re.findall(r"--(\w+)", capsys.readouterr().out))
        assert flags <= told, script


def test_the_rehearsal_goes_through(run_script, tmp_path, monkeypatch, capsys):
    # Four surprised utterances of two actors, one of them for validation
    for actor in ("01", "21"):
        for take in ("01", "02"):
            name = f"Actor_{actor}/03-01-08-01-01-{take}-{actor}.wav"
            write_noise(tmp_path / "RAVDESS" / name, 0.7)
        write_noise(
            tmp_path / f"RAVDESS/Actor_{actor}/03-01-05-01-01-01-{actor}.wav"
        )
    monkeypatch.chdir(tmp_path)
    text = DOC.read_text()
    text = text[: text.index("## 1.")].replace("/corpora", str(tmp_path))
    found = list(commands(text))
    assert [script for script, *_ in found] == [
        "ravdess_prepare.py",
        *["synthesize.py"] * 3,
    ]
    for script, *words in found:
        yaml = [HPARAMS / Path(w).name for w in words[:1] if w.endswith("yaml")]
        words = [*yaml, *words[len(yaml) :]]
        assert run_script(script.removesuffix(".py"), *words) == 0
    told = capsys.readouterr().out
    cells = [line.split() for line in told.splitlines()]
    assert ["total", "4", "0.00", "1"] in cells
    assert ["total", "1/1", "4/4", "4", "0", "0"] in cells
    assert "| ravdess | fra      |            4 |" in told
    made = tmp_path / "rehearsal"
    table = read_manifest(made / "manifests/m5ser.csv", made / "M5SER")
    assert sorted(table.split) == ["train", "train", "valid", "valid"]
    assert set(table.emotion) == {"surprise"} and set(table.language) == {"fra"}
    assert (made / "M5SER/README.md").is_file()


def test_seconds_of_kilobytes_are_right():
    text = DOC.read_text()
    rows = re.findall(
        r"\| (24|16) kHz (\S+).*\| ([\d.]+) s \| ([\d.]+) s", text
    )
    assert len(rows) == 4
    for rate, width, of_20, of_50 in rows:
        rules = PaperFilters(
            0,
            50,
            {"meld": 20},
            int(rate) * 1000,
            {"float32": 4, "float32,": 4, "16": 2}[width],
        )
        for corpus, seconds in (("meld", of_20), ("mead", of_50)):
            # Rounded to the nearest hundredth
            assert rules.refuse(corpus, float(seconds) + 0.0051) == ""
            assert rules.refuse(corpus, float(seconds) - 0.0051) != ""


def test_gpu_hours_are_the_formulas():
    text = DOC.read_text()
    (speeds,) = re.findall(r"\| speed \|(.*)\|", text)
    (hours,) = re.findall(r"\| GPU-hours \|(.*)\|", text)
    for speed, told in zip(speeds.split("|"), hours.split("|"), strict=True):
        assert 185 * 5 / float(speed) == pytest.approx(float(told), abs=0.51)
