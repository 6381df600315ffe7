"""A training's folder: its settings, and who may use it."""

import json
import os
import resource
import signal
import socket

import pytest
from processes import FORK, in_processes
from ruamel.yaml import YAML

from speechbrain_mser.errors import InputError
from speechbrain_mser.files import folder_lock
from speechbrain_mser.files.folder_lock import HOLDER, hold_folder
from speechbrain_mser.training import output_folder
from speechbrain_mser.training.resuming import refuse_other_settings

ELSEWHERE = {"host": "elsewhere", "process": 1, "since": "yesterday"}


# Settings


@pytest.mark.parametrize(
    "content",
    [b"", b"model: [", b"\xff\0", b"model: 1", b"[" * 2000, b"a: &a [*a"],
    ids=["empty", "half", "bytes", "number", "brackets", "alias"],
)
def test_settings_that_cannot_be_read_are_said(tmp_path, content, caplog):
    path = tmp_path / "hyperparams.yaml"
    path.write_bytes(content)
    assert output_folder.read_settings_of(tmp_path) is None
    assert f"{path} cannot be read" in caplog.text


def test_missing_settings_are_said(tmp_path, caplog):
    assert output_folder.read_settings_of(tmp_path) is None
    assert "No such file" in caplog.text


def test_settings_are_whole_or_those_before(tmp_path):
    yaml = tmp_path / "a.yaml"
    yaml.write_text(f"model:\n  width: {'x' * 9000}\n")
    output_folder.write_settings(tmp_path, yaml, {"model": {"width": 2}})
    before = (tmp_path / "hyperparams.yaml").read_bytes()
    assert b"width: 2" in before

    def fail():
        # To a process that may not write larger files the disk is full.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        with pytest.raises(OSError, match="too large"):
            output_folder.write_settings(tmp_path, yaml, {})
        return True

    assert in_processes(fail) == [True]
    assert (tmp_path / "hyperparams.yaml").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_training_from_before_a_setting_does_not_go_on_with_it():
    before = {"model": {"prompt": "?"}, "training": {"lr": 0.1}}
    now = {
        "model": {"prompt": "?", "trim_silence": None, "newer": 1},
        "training": {"lr": 0.1, "microphone_shift": 0.0},
    }
    refuse_other_settings("out", before, now)
    for section, name in (
        ("model", "trim_silence"),
        ("training", "microphone_shift"),
    ):
        other = {**now, section: {**now[section], name: 3.0}}
        with pytest.raises(InputError, match=f"a training with {name}"):
            refuse_other_settings("out", before, other)


WHOLE = """
encoder: !apply:speechbrain_mser.lobes.build_encoder {source: a, layers: -1}
llm: !new:own.Llama
connector: &connector !new:own.Mine
  width: !apply:getattr [{source: a}, hidden_size]
  kernels: [3, 5]
  inner: !new:own.Inner {n: 1}
modules:
  connector: *connector
  loss: !new:own.Loss
opt_class: !name:torch.optim.SGD {lr: 0.1}
lr: 0.1
"""


@pytest.mark.parametrize(
    "old, new, told",
    [
        ("[3, 5]", "[7, 9]", "connector: kernels"),
        ("Inner {n: 1}", "Inner {n: 2}", "connector: inner"),
        ("own.Inner", "own.Outer", "connector: inner"),
        ("own.Llama", "own.Other", "llm"),
        ("own.Llama", "own.Llama {prompt: x}", ""),
        ("own.Loss", "own.Other", "modules.loss"),
        ("layers: -1", "layers: [0, 1]", "encoder: layers"),
        ("SGD {lr: 0.1}", "SGD {lr: 0.2}", "opt_class"),
        # Where a model lies is nobody's business, nor what it was called.
        ("source: a", "source: b", ""),
        (
            "!apply:speechbrain_mser.lobes.build_encoder",
            "!new:speechbrain_mser.lobes.whisper.WhisperEncoder",
            "",
        ),
    ],
)
def test_another_object_is_another_training(old, new, told):
    before, now = (
        {"model": YAML().load(text), "training": {}}
        for text in (WHOLE, WHOLE.replace(old, new))
    )
    refuse_other_settings("out", before, before)
    if not told:
        refuse_other_settings("out", before, now)
        refuse_other_settings("out", now, before)
        return
    with pytest.raises(InputError, match=f"a training with {told} "):
        refuse_other_settings("out", before, now)


# The lock


def refused(folder):
    """What is said to a second one."""
    with pytest.raises(InputError) as error, hold_folder(folder):
        pass
    return str(error.value)


def test_a_second_process_is_told_who_has_the_folder(tmp_path):
    with hold_folder(tmp_path):
        (said,) = in_processes(lambda: refused(tmp_path))
    here = f"process {os.getpid()} on {socket.gethostname()}, since 20"
    assert here in said
    assert str(tmp_path) in said
    with hold_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_which_nothing_was_made_is_not_left(tmp_path):
    with hold_folder(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()
    with hold_folder(tmp_path / "new"):
        (tmp_path / "new" / "made").touch()
    assert (tmp_path / "new" / "made").exists()


@pytest.mark.parametrize("with_locks", [True, False])
def test_who_was_killed_holds_nothing(tmp_path, monkeypatch, with_locks):
    if not with_locks:
        without_locks(monkeypatch)
    began = FORK.Event()

    def hold():
        with hold_folder(tmp_path):
            began.set()
            signal.pause()

    process = FORK.Process(target=hold)
    process.start()
    assert began.wait(60)
    assert str(process.pid) in refused(tmp_path)
    process.kill()
    process.join()
    assert json.loads((tmp_path / HOLDER).read_text())
    with hold_folder(tmp_path):
        holder = json.loads((tmp_path / HOLDER).read_text())
    assert holder["process"] == os.getpid()


def without_locks(monkeypatch):
    """As on a file system that has none."""

    class NoLock:
        def __init__(self, *_, **__):
            pass

        def acquire(self, timeout):
            raise OSError(38, "Function not implemented")

    monkeypatch.setattr(folder_lock, "FileLock", NoLock)


def test_of_another_host_the_lock_decides(tmp_path):
    (tmp_path / HOLDER).write_text(json.dumps(ELSEWHERE))
    with hold_folder(tmp_path):
        assert "elsewhere" not in (tmp_path / HOLDER).read_text()


def test_without_locks_another_host_is_believed(tmp_path, monkeypatch):
    without_locks(monkeypatch)
    (tmp_path / HOLDER).write_text(json.dumps(ELSEWHERE))
    said = refused(tmp_path)
    assert "process 1 on elsewhere, since yesterday" in said
    assert f"delete {HOLDER}" in said
    (tmp_path / HOLDER).unlink()
    with hold_folder(tmp_path):
        assert str(os.getpid()) in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"{}"])
def test_an_unreadable_holder_is_in_nobodys_way(tmp_path, content):
    (tmp_path / HOLDER).write_bytes(content)
    with hold_folder(tmp_path):
        pass
