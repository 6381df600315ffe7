"""DataLoader's workers: without room, killed, and sent SIGTERM."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from speechbrain_mser.dataio.batching import UtteranceBatch, collate
from speechbrain_mser.dataio.loader_workers import (
    named_failures,
    worker_context,
)
from speechbrain_mser.errors import InputError
from speechbrain_mser.settings.project_files import PROJECT

READ = """
import torch
from torch.utils.data import DataLoader
from speechbrain_mser.dataio.batching import collate
from speechbrain_mser.dataio.loader_workers import named_failures
from speechbrain_mser.errors import exits_on_input_error

@exits_on_input_error
def main():
    items = [{"id": str(i), "sig": torch.ones(100_000)} for i in range(8)]
    with named_failures():
        for _ in DataLoader(items, 2, num_workers=1, collate_fn=collate):
            pass

main()
"""


def items(count=6):
    return [{"id": str(i), "sig": torch.full((9,), i)} for i in range(count)]


def can_mount():
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/dev/shm"]
    return (
        os.getuid() == 0
        and shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not can_mount(), reason="needs a /dev/shm of its own")
def test_a_small_shared_memory_is_said_instead_of_waited_for():
    mount = 'mount -t tmpfs -o size=64k none /dev/shm && exec "$@"'
    script = (sys.executable, "-c", READ)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "-", *script],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "num_workers to 0" in done.stderr
    assert "/dev/shm has 0.1 MB in all" in done.stderr
    assert "Traceback" not in done.stderr


class Fatal(torch.utils.data.Dataset):
    """Ends the worker that reads from it."""

    def __init__(self, sent):
        self.sent = sent

    def __len__(self):
        return 4

    def __getitem__(self, index):
        os.kill(os.getpid(), self.sent)
        signal.pause()


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGBUS])
def test_a_worker_that_is_killed_names_the_setting(sent):
    with pytest.raises(InputError, match="num_workers"), named_failures():
        list(DataLoader(Fatal(sent), num_workers=1))


class Faulty(Fatal):
    """Has a bug."""

    def __getitem__(self, index):
        raise RuntimeError("a bug")


def test_a_bug_in_a_worker_stays_one():
    with pytest.raises(RuntimeError, match="a bug"), named_failures():
        list(DataLoader(Faulty(0), num_workers=1))


def unblocked():
    """Threads of this process that SIGTERM would interrupt at their work."""
    sigterm = 1 << signal.SIGTERM - 1
    found = []
    for task in Path("/proc/self/task").glob("*"):
        lines = (task / "status").read_text().splitlines()
        (mask,) = (int(x.split()[1], 16) for x in lines if "SigBlk" in x)
        if not mask & sigterm:
            found.append(task.name)
    # Linux shows the one that waits for a signal as if it had not blocked it
    return found[1:]


class Terminated(Fatal):
    """Its workers are sent SIGTERM by another than their parent."""

    def __getitem__(self, index):
        assert not unblocked()
        subprocess.run(["kill", "-TERM", str(os.getpid())], check=True)
        return items()[index]


def test_a_worker_goes_on_after_sigterm():
    found = DataLoader(
        Terminated(0),
        num_workers=1,
        collate_fn=collate,
        multiprocessing_context=worker_context(1),
    )
    assert [batch.id for batch in found] == [["0"], ["1"], ["2"], ["3"]]


THREADS = """
import torch
from tests.unit.test_workers import test_a_worker_goes_on_after_sigterm
torch.set_num_threads(2)  # torch makes its pool anew in each worker then
test_a_worker_goes_on_after_sigterm()
"""


def test_a_worker_goes_on_after_sigterm_beside_torchs_threads():
    subprocess.run([sys.executable, "-c", THREADS], cwd=PROJECT, check=True)


def test_a_worker_ends_when_its_parent_says_so():
    loader = DataLoader(
        items(),
        num_workers=1,
        multiprocessing_context=worker_context(1),
        collate_fn=collate,
    )
    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == 0


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_of_workers_are_those_without(num_workers):
    loader = DataLoader(items(), 2, num_workers=num_workers, collate_fn=collate)
    for number, batch in enumerate(loader):
        expected = UtteranceBatch(items()[2 * number : 2 * number + 2])
        assert batch.id == expected.id
        assert torch.equal(batch.sig.data, expected.sig.data)
        assert torch.equal(batch.sig.lengths, expected.sig.lengths)
        assert batch.sig.data.is_shared() == (num_workers > 0)
