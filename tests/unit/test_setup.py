"""What an installation promises: versions, and the files that travel."""

import importlib
import importlib.util
import re
import runpy
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENT = re.compile(r"([\w.-]+)(>=|==)([\d.]+)")


@pytest.fixture
def settings(monkeypatch):
    """What setup.py says, without doing it."""
    said = {}
    monkeypatch.setattr(setuptools, "setup", lambda **given: said.update(given))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return said


def test_the_lower_bounds_are_those_that_are_tried(settings):
    lists = settings["install_requires"], *settings["extras_require"].values()
    asked = {line for names in lists for line in names}
    lines = (ROOT / "tests/oldest.txt").read_text().splitlines()
    tried = {line for line in lines if line and not line.startswith("#")}
    parts = [REQUIREMENT.fullmatch(line).groups() for line in sorted(asked)]
    assert sorted(tried) == [f"{name}=={bound}" for name, _, bound in parts]
    assert {sign for _, sign, _ in parts} == {">="}


def test_hyperparameters_manifests_and_recipe_travel(
    settings, tmp_path, monkeypatch
):
    distribution = setuptools.Distribution(
        {"packages": settings["packages"], "script_name": "setup.py"}
    )
    command = settings["cmdclass"]["build_py"](distribution)
    command.build_lib = str(tmp_path)
    command.compile = False
    command.ensure_finalized()
    command.run()
    package = tmp_path / "speechbrain_mser"
    spec = importlib.util.spec_from_file_location(
        "project_files", package / "settings/project_files.py"
    )
    files = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(files)
    for folder, pattern in (
        (files.HPARAMS, "**/*.yaml"),
        (files.RECIPE, "**/*.py"),
        (files.RECIPE, "experiments/*.yaml"),
        (files.MANIFESTS, "*/*.csv"),
    ):
        assert folder.is_relative_to(package)
        here = ROOT / folder.relative_to(package)
        names = {path.relative_to(here) for path in here.glob(pattern)}
        names = {name for name in names if "results" not in name.parts}
        assert names
        assert {p.relative_to(folder) for p in folder.glob(pattern)} == names
    monkeypatch.chdir(tmp_path)
    stage1 = files.find_hparams_file("hparams/stage1.yaml")
    assert Path(stage1) == package / "hparams/stage1.yaml"
    # What was prepared or trained in a checkout stays there
    assert {path.name for path in files.MANIFESTS.iterdir()} == {
        "exclusions",
        "splits",
    }


def test_the_command_and_what_it_promises_travel(settings, tmp_path):
    (line,) = settings["entry_points"]["console_scripts"]
    name, _, function = line.partition(" = ")
    module, _, function = function.partition(":")
    assert name == "mser"
    assert callable(getattr(importlib.import_module(module), function))
    given = {key: settings[key] for key in ("packages", "package_data")}
    given["script_name"] = "setup.py"
    distribution = setuptools.Distribution(given)
    command = distribution.get_command_obj("build_py")
    command.build_lib, command.compile = str(tmp_path), False
    command.ensure_finalized()
    command.run()
    built = tmp_path / "speechbrain_mser" / "command"
    here = ROOT / "speechbrain_mser" / "command"
    names = {path.name for path in (here / "schema").iterdir()}
    assert "recognize.json" in names
    assert {path.name for path in (built / "schema").iterdir()} == names


def test_the_weights_have_a_licence_of_their_own_that_travels(settings):
    card = (ROOT / "speechbrain_mser/models/open/README.md").read_text()
    (name,) = re.findall("^license_name: (.+)$", card, re.MULTILINE)
    expression = settings["license_expression"]
    assert expression == f"Apache-2.0 AND LicenseRef-{name}"
    code, weights = (
        (ROOT / path).read_text() for path in settings["license_files"]
    )
    assert "Apache License" in code and f"LicenseRef-{name}" in weights


def test_an_editable_install_copies_nothing(settings, tmp_path):
    distribution = setuptools.Distribution({"packages": []})
    command = settings["cmdclass"]["build_py"](distribution)
    command.build_lib = str(tmp_path / "build")
    command.editable_mode = True
    command.ensure_finalized()
    command.run()
    assert not (tmp_path / "build").exists()
