"""Checkpoints after flipped bits, power cuts, wrong clocks and full disks."""

import os
import random
import resource
import signal
from types import SimpleNamespace

import pytest
import torch
import yaml
from processes import as_nobody, in_processes
from speechbrain.utils.checkpoints import (
    Checkpointer,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)

from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.linear import LinearConnector
from speechbrain_mser.training import checkpoints
from speechbrain_mser.training.checkpoints import (
    AtomicCheckpointer,
    RandomState,
)


@register_checkpoint_hooks
class Text:
    """Saved as SpeechBrain saves its counters."""

    @mark_as_saver
    def save(self, path):
        path.write_text("1" * 30_000)

    @mark_as_loader
    def load(self, path, end_of_epoch):
        assert path.read_text()


def objects():
    """What a training saves: safetensors, a pickle, and so on."""
    connector = LinearConnector(4, 4, 1)
    counter = torch.nn.ParameterDict({"n": torch.zeros(4)})
    return {"connector": connector, "counter": counter, "r": RandomState()}


def set_to(things, value):
    with torch.no_grad():
        things["connector"].output.weight.fill_(value)
        things["counter"]["n"].fill_(value)


def saved(folder, values=(1.0, 2.0), kind=AtomicCheckpointer, **others):
    """The folders of checkpoints with these values, in their order."""
    things = {**objects(), **others}
    checkpointer = kind(folder, things)
    paths = []
    for value in values:
        set_to(things, value)
        paths.append(checkpointer.save_checkpoint({"UA": value}).path)
    return paths


def recovered(folder):
    """The value that a new process goes on with; None if with nothing."""
    things = objects()
    if AtomicCheckpointer(folder, things).recover_if_possible() is None:
        return None
    values = {
        things["connector"].output.weight.unique().item(),
        things["counter"]["n"].unique().item(),
    }
    (value,) = values
    return value


# Damage


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"# yamllint disable\n",
        b"UA: 1\n",
        b"\xff\xfe\0",
        b"[" * 9000,
        b"7",
    ],
    ids=["empty", "comment", "another", "bytes", "brackets", "number"],
)
def test_an_unreadable_meta_file_is_no_checkpoint(tmp_path, content, caplog):
    first, second = saved(tmp_path)
    (second / "CKPT.yaml").write_bytes(content)
    assert recovered(tmp_path) == 1
    assert f"{second}: CKPT.yaml" in caplog.text
    (first / "CKPT.yaml").write_bytes(content)
    assert recovered(tmp_path) is None


@pytest.mark.parametrize("order", ["sorted", "as given"])
def test_a_meta_file_cut_anywhere_is_no_checkpoint(
    tmp_path, order, monkeypatch
):
    if order == "as given":  # as of `import oyaml`, which audformat does
        monkeypatch.setitem(
            yaml.SafeDumper.yaml_representers,
            dict,
            lambda dumper, data: dumper.represent_mapping(
                "tag:yaml.org,2002:map", data.items()
            ),
        )
    _, second = saved(tmp_path)
    meta = second / "CKPT.yaml"
    whole = meta.read_bytes()
    # Without its newline it is still known to be all there.
    for size in range(len(whole) - 1):
        meta.write_bytes(whole[:size])
        assert recovered(tmp_path) == 1, size
    meta.write_bytes(whole)
    assert recovered(tmp_path) == 2


@pytest.mark.parametrize("seed", range(5))
def test_any_flipped_bit_is_found(tmp_path, seed, caplog):
    _, second = saved(tmp_path)
    draw = random.Random(seed)
    for path in sorted(second.iterdir()):
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        assert recovered(tmp_path) == 1, path
        assert path.name in caplog.text
        path.write_bytes(whole)
        caplog.clear()
    assert recovered(tmp_path) == 2
    assert "WARNING" not in caplog.text


@pytest.mark.parametrize("damage", ["cut", "removed", "longer"])
def test_a_file_that_is_not_whole_is_found(tmp_path, damage):
    _, second = saved(tmp_path)
    path = second / "connector.ckpt"
    if damage == "removed":
        path.unlink()
    else:
        size = path.stat().st_size
        os.truncate(path, size - 1 if damage == "cut" else size + 1)
    assert recovered(tmp_path) == 1


def test_where_all_are_damaged_nothing_is_begun_anew_silently(tmp_path):
    for path in saved(tmp_path):
        os.truncate(path / "counter.ckpt", 100)
    with pytest.raises(InputError, match=r"counter\.ckpt.*delete them"):
        recovered(tmp_path)


def test_a_damaged_checkpoint_makes_way_for_new_ones(tmp_path):
    _, second = saved(tmp_path)
    os.truncate(second / "connector.ckpt", 10)
    things = objects()
    checkpointer = AtomicCheckpointer(tmp_path, things)
    checkpointer.recover_if_possible()
    set_to(things, 3.0)
    checkpointer.save_and_keep_only({"UA": 0.5}, importance_keys=[])
    assert recovered(tmp_path) == 3
    assert not second.exists()


def test_checkpoints_of_an_earlier_version_are_accepted(tmp_path):
    saved(tmp_path, (1.0, 2.0), Checkpointer)
    assert recovered(tmp_path) == 2
    (third,) = saved(tmp_path, (3.0,))
    assert recovered(tmp_path) == 3
    os.truncate(third / "connector.ckpt", 10)
    assert recovered(tmp_path) == 2


def test_half_a_checkpoint_is_removed_by_the_next_one(tmp_path):
    saved(tmp_path)
    left = tmp_path / "CKPT+of-a-kill"
    left.mkdir()
    (left / "connector.ckpt").write_bytes(b"half")
    other = tmp_path / "notes"
    other.mkdir()
    saved(tmp_path, (3.0,))
    assert not left.exists()
    assert other.exists()


# Time


@pytest.mark.parametrize("clock", [86400.0, -86400.0], ids=["ahead", "behind"])
def test_a_wrong_clock_does_not_decide_what_is_newest(
    tmp_path, monkeypatch, clock
):
    now = 1.8e9
    times = iter([now, now + clock, now + 1])
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "time", SimpleNamespace(time=times.__next__))
        things = objects()
        checkpointer = AtomicCheckpointer(tmp_path, things)
        for value in (1.0, 2.0, 3.0):
            set_to(things, value)
            meta = checkpointer.save_checkpoint({"UA": 0.5}).meta
    assert meta["unixtime"] == now + 1
    assert recovered(tmp_path) == 3
    # Of equals the one that was saved last, too
    best = checkpointer.find_checkpoint(max_key="UA")
    assert best.meta["number"] == 3
    set_to(things, 4.0)
    checkpointer.save_and_keep_only({"UA": 0.1}, importance_keys=[])
    assert recovered(tmp_path) == 4
    assert len(checkpointer.list_checkpoints()) == 1


def test_the_best_and_the_worst_are_found(tmp_path):
    saved(tmp_path, (2.0, 3.0, 1.0))
    checkpointer = AtomicCheckpointer(tmp_path, objects())
    assert checkpointer.find_checkpoint(max_key="UA").meta["UA"] == 3
    assert checkpointer.find_checkpoint(min_key="UA").meta["UA"] == 1
    assert checkpointer.find_checkpoint().meta["UA"] == 1
    third = checkpointer.find_checkpoint(
        importance_key=lambda checkpoint: -checkpoint.meta["UA"],
        ckpt_predicate=lambda checkpoint: checkpoint.meta["UA"] > 1,
    )
    assert third.meta["UA"] == 2


# No room, no permission


@pytest.mark.parametrize(
    "large",
    [LinearConnector(99, 99, 1), torch.nn.Linear(99, 99), Text()],
    ids=["safetensors", "pickle", "text"],
)
def test_a_full_disk_is_said_and_the_checkpoint_before_serves(tmp_path, large):
    saved(tmp_path)

    def save():
        # To a process that may not write larger files the disk is full.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        with pytest.raises(InputError) as error:
            saved(tmp_path, (3.0,), large=large)
        return str(error.value)

    (said,) = in_processes(save)
    assert f"cannot save a checkpoint in {tmp_path}" in said
    assert "too large" in said or "disk is full" in said
    assert len(list(tmp_path.iterdir())) == 2
    assert recovered(tmp_path) == 2


def test_a_folder_without_permission_is_said(shared_folder):
    _, second = saved(shared_folder)

    def use():
        as_nobody()
        said = []
        for attempt in (
            lambda: saved(shared_folder, (3.0,)),
            lambda: recovered(shared_folder),
        ):
            try:
                attempt()
            except (InputError, PermissionError) as error:
                said.append(str(error))
        return said

    for path in shared_folder.glob("*/*"):
        path.chmod(0o644)
    (second / "connector.ckpt").chmod(0)
    shared_folder.chmod(0o555)
    ((cannot_save, cannot_read),) = in_processes(use)
    assert "cannot save a checkpoint" in cannot_save
    assert "Permission denied" in cannot_save
    # Not taken for damage: the one before would serve
    assert "Permission denied" in cannot_read
    assert "connector.ckpt" in cannot_read


def test_the_meta_file_is_read_by_speechbrain_too(tmp_path):
    first, _ = saved(tmp_path)
    meta = yaml.safe_load((first / "CKPT.yaml").read_text())
    assert meta["UA"] == 1
    assert len(Checkpointer(tmp_path, objects()).list_checkpoints()) == 2
