"""The commands of docs/m5ser.md are commands that there are."""

import re
from pathlib import Path

import pytest
from miniature import RECIPES
from ruamel.yaml import YAML

from speechbrain_mser.settings.hparams import included_files
from speechbrain_mser.synthesis.filters import PaperFilters

DOC = Path(__file__).resolve().parents[2] / "docs/m5ser.md"
# Of scripts with a hyperparameter file, outside of it
OUTSIDE = {"part"}


def commands():
    """Script, hyperparameter file if any, and flags of every command."""
    blocks = re.findall(r"(?:^    .*\n|^\n)+", DOC.read_text(), re.MULTILINE)
    text = "".join(blocks).replace("\\\n", " ")
    setting = re.search(r'SYNTHESIS="(.*?)"', text, re.DOTALL).group(1)
    text = text.replace("$SYNTHESIS", setting.replace("\n", " "))
    for line in text.splitlines():
        found = re.search(r"python (\w+\.py)( hparams/\w+\.yaml)?(.*)", line)
        if found:
            script, yaml, rest = found.groups()
            yield script, (yaml or "").strip(), re.findall(r"--(\w+)", rest)


def known_settings(yaml):
    """Whatever is a flag of a hyperparameter file."""
    path = RECIPES / yaml
    tables = [path, *included_files(path).values()]
    return {name for table in tables for name in YAML().load(table)}


def test_every_flag_is_known(run_script, capsys):
    found = list(commands())
    assert len(found) > 15
    for script, yaml, flags in found:
        assert (RECIPES / script).is_file()
        if yaml:
            assert set(flags) <= known_settings(yaml) | OUTSIDE, script
            continue
        assert run_script(script.removesuffix(".py"), "--help") == 0
        told = set(re.findall(r"--(\w+)", capsys.readouterr().out))
        assert set(flags) <= told, script


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
