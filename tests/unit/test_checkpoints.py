"""Checkpoints after a kill and on two processes."""

import pytest
import torch
from speechbrain.utils.checkpoints import (
    Checkpointer,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)

from speechbrain_mser.lobes.linear import LinearConnector
from speechbrain_mser.training.checkpoints import (
    AtomicCheckpointer,
    RandomState,
)

MODELS = {"llm": {"name": "tiny", "width": 4}}


@register_checkpoint_hooks
class Killed:
    """Ends the process that saves it, or so it seems to the rest."""

    armed = False

    @mark_as_saver
    def save(self, path):
        path.write_text("half of what should be h")
        if self.armed:
            raise KeyboardInterrupt

    @mark_as_loader
    def load(self, path, end_of_epoch):
        assert path.read_text()


# The checkpointer


@pytest.mark.parametrize("order", [["killed", "value"], ["value", "killed"]])
def test_a_kill_while_saving_leaves_the_previous_checkpoint(order, tmp_path):
    objects = {"killed": Killed(), "value": LinearConnector(4, 4, 1)}
    checkpointer = AtomicCheckpointer(
        tmp_path, {name: objects[name] for name in order}
    )
    weight = objects["value"].output.weight
    torch.nn.init.constant_(weight, 1.0)
    checkpointer.save_and_keep_only({"UA": 0.5}, max_keys=["UA"])
    torch.nn.init.constant_(weight, 2.0)
    objects["killed"].armed = True
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save_and_keep_only({"UA": 0.9}, max_keys=["UA"])
    # a new process comes and sees what is there
    again = AtomicCheckpointer(tmp_path, objects)
    assert len(again.list_checkpoints()) == 1
    assert again.find_checkpoint(max_key="UA").meta["UA"] == 0.5
    again.recover_if_possible()
    assert (weight == 1).all()
    # and goes on
    objects["killed"].armed = False
    torch.nn.init.constant_(weight, 3.0)
    again.save_and_keep_only({"UA": 0.8}, max_keys=["UA"])
    assert again.find_checkpoint().meta["UA"] == 0.8
    torch.nn.init.constant_(weight, 0.0)
    again.recover_if_possible()
    assert (weight == 3).all()


def test_without_a_checkpoint_before_a_kill_leaves_none(tmp_path):
    killed = Killed()
    killed.armed = True
    for kind, expected in ((Checkpointer, 1), (AtomicCheckpointer, 0)):
        checkpointer = kind(tmp_path / kind.__name__, {"killed": killed})
        with pytest.raises(KeyboardInterrupt):
            checkpointer.save_checkpoint()
        # SpeechBrain's counts what is half written: the trap is real
        assert len(checkpointer.list_checkpoints()) == expected


def test_a_checkpoint_keeps_its_meta(tmp_path):
    checkpointer = AtomicCheckpointer(tmp_path, {"state": RandomState()})
    saved = checkpointer.save_checkpoint({"UA": 0.25}, end_of_epoch=False)
    found = checkpointer.find_checkpoint()
    assert found.path == saved.path
    assert found.meta == saved.meta
    assert (found.meta["UA"], found.meta["end-of-epoch"]) == (0.25, False)
    assert set(found.paramfiles) == {"state"}
    assert sorted(p.name for p in found.path.iterdir()) == [
        "CKPT.yaml",
        "state.ckpt",
    ]


def test_random_numbers_go_on_where_they_were(tmp_path):
    state = RandomState()
    checkpointer = AtomicCheckpointer(tmp_path, {"state": state})
    torch.rand(7)
    checkpointer.save_checkpoint()
    dropout = torch.nn.functional.dropout
    expected = torch.rand(3), dropout(torch.ones(99)), torch.randperm(9)
    torch.manual_seed(99)
    checkpointer.recover_if_possible()
    found = torch.rand(3), dropout(torch.ones(99)), torch.randperm(9)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


# Two processes

SCRIPT = """
from speechbrain_mser.training.checkpoints import AtomicCheckpointer, RandomState
from speechbrain_mser.lobes.linear import LinearConnector
from speechbrain_mser.lobes.standardize import FeatureStandardizer

connector = LinearConnector(4, 4, 2)
checkpointer = AtomicCheckpointer(
    f"{folder}/save", {"connector": connector, "random": RandomState()}
)
torch.manual_seed(rank)
checkpointer.save_checkpoint()
torch.distributed.barrier()
drawn = torch.rand(3)
checkpointer.recover_if_possible()
again = torch.rand(3)

# On one process alone, as when the best model is exported
if rank == 0:
    connector.save(f"{folder}/exported.safetensors")
total = torch.ones(1)
torch.distributed.all_reduce(total)

both = FeatureStandardizer(dim=4)
for features in data[rank]:
    both.update(features, torch.ones(len(features)))
both.finish()
first_only = FeatureStandardizer(dim=4)
if rank == 0:
    first_only.update(data[0][0], torch.ones(len(data[0][0])))
first_only.finish()
save({
    "drawn": drawn, "again": again, "total": total,
    "both": both.state_dict(), "first_only": first_only.state_dict(),
})
"""


@pytest.fixture(scope="module")
def two(in_two_processes):
    """Features of two processes, unequal in number, and what became of them."""
    generator = torch.Generator().manual_seed(0)
    data = [
        [3 + 5 * torch.randn(n, 6, 4, generator=generator) for n in sizes]
        for sizes in ([2, 1, 3], [4])
    ]
    return data, in_two_processes(SCRIPT, data)


def test_each_process_goes_on_with_its_own_random_numbers(two):
    first, second = two[1]
    assert torch.equal(first["again"], first["drawn"])
    assert torch.equal(second["again"], second["drawn"])
    assert not torch.equal(first["drawn"], second["drawn"])


def test_one_process_can_save_alone(two):
    # else the next thing that all processes do together never ends
    assert [result["total"].item() for result in two[1]] == [2, 2]


def test_statistics_are_those_of_all_processes_together(two):
    data, results = two
    for name, batches in (
        ("both", data[0] + data[1]),
        ("first_only", data[0][:1]),  # the second had nothing to add
    ):
        frames = torch.cat(batches).flatten(0, 1)
        for result in results:
            found = result[name]
            torch.testing.assert_close(found["mean"][0], frames.mean(0))
            torch.testing.assert_close(
                found["std"][0], frames.std(0, correction=0)
            )
            assert found["frames"] == len(frames)
