"""What scripts leave may be read by whom the umask says, and no less."""

import errno
import os
import resource
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from speechbrain_mser.files.atomic import atomic_path, write_text

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes" / "M5SER"
NOBODY = 65534


def test_all_that_scripts_leave_has_the_umasks_permissions(
    run_script, tiny_flags, tmp_path
):
    given = {
        name: tiny_flags[name]
        for name in ("data_root", "manifest_folder", "skip_prep", "num_workers")
    }
    stored = {"features": "write", "feature_folder": tmp_path / "features"}
    hparams = ROOT / "hparams"
    before = os.umask(0o027)
    try:
        trained = {**tiny_flags, **stored, "output_folder": tmp_path / "train"}
        assert run_script("train", hparams / "stage1.yaml", flags=trained) == 0
        given |= {"recognizer": tmp_path / "train" / "recognizer", **stored}
        for script, own in (
            ("calibrate", {"corpora": "[tiny]"}),
            (
                "evaluate",
                {"sets": "[{name: all, corpus: tiny, labels: paper4}]"},
            ),
        ):
            flags = {**given, **own, "output_folder": tmp_path / script}
            yaml = hparams / f"{script}.yaml"
            assert run_script(script, yaml, flags=flags) == 0
    finally:
        os.umask(before)
    found = {
        str(path.relative_to(tmp_path)): oct(stat.S_IMODE(path.stat().st_mode))
        for path in tmp_path.rglob("*")
        # SpeechBrain's copy of the script has the script's own
        if path.is_file() and path.name != "train.py"
    }
    assert len(found) > 20
    assert {k: v for k, v in found.items() if v != "0o640"} == {}


def test_a_file_that_is_replaced_gets_the_umasks_permissions(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(0o600)
    before = os.umask(0o022)
    try:
        with atomic_path(path) as partial:
            os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_what_is_not_written_is_missing_and_not_empty(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import os, sys
from speechbrain_mser.files.atomic import atomic_path
from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.inference.folder import (
    find_folder, find_weights, read_settings,
)
from speechbrain_mser.lobes.hub import find_model
from speechbrain_mser.models.kept import make_once

if os.getuid() == 0:
    os.setgroups([])
    os.setuid(NOBODY)
folder = sys.argv[1]
os.environ["MSER_MODELS"] = f"{folder}/closed/models"

def write():
    with atomic_path(f"{folder}/closed/table.md") as partial:
        partial.write_text("x")

steps = {
    "write": write,
    "settings": lambda: read_settings(f"{folder}/unreadable.yaml"),
    "weights": lambda: find_weights(folder, "connector", "0" * 32),
    "model": lambda: find_model(f"{folder}/locked/folder", "", "x", "x_hub"),
    "folder": lambda: find_folder(f"{folder}/locked/folder"),
    "converted": lambda: make_once("a", None, {}, "the LLM"),
}
for name, step in steps.items():
    try:
        exits_on_input_error(step)()
    except SystemExit as ended:
        print(name, ended.code, file=sys.stderr)
""".replace("NOBODY", str(NOBODY))


@pytest.fixture
def open_folder():
    """A folder that everybody may read, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_permission_denied_is_said_as_such(open_folder):
    (open_folder / "closed").mkdir(mode=0o555)
    for name in ("unreadable.yaml", "connector.safetensors"):
        (open_folder / name).write_text("x")
        (open_folder / name).chmod(0)
    (open_folder / "locked" / "folder").mkdir(parents=True)
    (open_folder / "locked").chmod(0)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(open_folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    (open_folder / "locked").chmod(0o755)
    messages = done.stderr.splitlines()
    for name, named in (
        ("write", "closed/table.md"),
        ("settings", "unreadable.yaml"),
        ("weights", "connector.safetensors"),
        ("model", "locked/folder"),
        ("folder", "locked/folder"),
        ("converted", "closed/models"),
    ):
        message = messages[messages.index(f"{name} 2") - 1]
        assert "permission denied" in message.lower()
        assert named in message


def test_a_full_disk_is_an_error_of_the_system_by_whoever_writes(tmp_path):
    """Safetensors says it in words of its own (Linux says EFBIG here)."""
    path = tmp_path / "a.safetensors"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(OSError) as full, atomic_path(path) as partial:
            save_file({"a": torch.zeros(10_000)}, partial)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (full.value.errno, full.value.filename) == (errno.EFBIG, str(path))
    assert [*tmp_path.iterdir()] == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no names")
def test_a_pipe_is_written_to_and_stays(tmp_path):
    """As /dev/stdout and /dev/null do: no file is put in their place."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_text(path, "all of it")
        assert os.read(reader, 99) == b"all of it"
    finally:
        os.close(reader)
    assert path.is_fifo() and [*tmp_path.iterdir()] == [path]
