"""SIGTERM, locks and full disks: a training loses a step at most."""

import os
import random
import signal
import time

import pytest
import ready
import torch
from miniature import RECIPES
from safetensors.torch import load_file

from speechbrain_mser import brain
from speechbrain_mser.brain import EmotionBrain
from speechbrain_mser.files.folder_lock import hold_folder
from speechbrain_mser.settings.project_files import HPARAMS

STAGE1 = HPARAMS / "stage1.yaml"


@pytest.fixture(scope="module")
def flags(tiny_flags):
    """Two epochs of six steps; no checkpoint within an epoch by itself."""
    return {
        **tiny_flags,
        "number_of_epochs": 2,
        "batch_size": 4,
        "lr": 1e-3,
        "warmup": 0.2,
        "cooldown": 0.5,
        "ckpt_interval_steps": 0,
        "languages": "[eng, deu]",
    }


def result(folder):
    """What is left of a training: connector and log, without the paths."""
    last = max(
        (folder / "save").glob("CKPT*"),
        key=lambda path: (path / "epoch_counter.ckpt").read_text(),
    )
    return load_file(last / "connector.ckpt"), rows(folder)


def rows(folder):
    return (folder / "train_log.txt").read_text().splitlines()


def assert_same(found, expected):
    assert found[1] == expected[1]
    assert found[0].keys() == expected[0].keys()
    for name, value in expected[0].items():
        assert torch.equal(value, found[0][name]), name


@pytest.fixture(scope="module")
def whole(flags, tmp_path_factory):
    """The result of a training that was left alone."""
    folder = tmp_path_factory.mktemp("whole")
    done = ready.run(command(flags, folder), cwd=RECIPES)
    assert done.returncode == 0, done.stderr
    return result(folder)


def command(flags, folder):
    argv = ["train.py", str(STAGE1)]
    for name, value in {**flags, "output_folder": folder}.items():
        argv += [f"--{name}", str(value)]
    return argv


@pytest.fixture
def steps(monkeypatch):
    """The optimiser's steps, in the order in which they are made."""
    made = []
    step = EmotionBrain.optimizers_step

    def noted(self):
        made.append(self.optimizer_step)
        return step(self)

    monkeypatch.setattr(EmotionBrain, "optimizers_step", noted)
    return made


def terminate_at(monkeypatch, owner, name, calls):
    """Send this process SIGTERM when a function is called for the nth time."""
    original, count = getattr(owner, name), iter(range(1, 10_000))

    def called(*args, **kwargs):
        if next(count) == calls:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, called)


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("compute_objectives", 3),
        ("optimizers_step", 6),  # the epoch's last
        ("_predict", 1),  # in validation
        ("_save_and_export", 1),
        ("_save_and_export", 2),  # of the last epoch
    ],
)
def test_sigterm_costs_no_step_and_changes_nothing(
    run_script, flags, whole, steps, tmp_path, monkeypatch, name, calls, capsys
):
    flags = {**flags, "output_folder": tmp_path}
    with monkeypatch.context() as patch:
        terminate_at(patch, EmotionBrain, name, calls)
        assert run_script("train", STAGE1, flags=flags) == 143
    assert capsys.readouterr().err.endswith(
        "terminated; run it again to go on\n"
    )
    assert steps == list(range(len(steps)))
    assert run_script("train", STAGE1, flags=flags) == 0
    assert steps == list(range(12))
    assert_same(result(tmp_path), whole)


def test_sigterm_waits_for_gradients_that_are_gathered(
    run_script, flags, steps, tmp_path, monkeypatch
):
    flags = {**flags, "grad_accumulation_factor": 2, "batch_size": 2}
    output = {"output_folder": tmp_path / "whole"}
    assert run_script("train", STAGE1, flags={**flags, **output}) == 0
    alone = steps[:]
    steps.clear()
    output = {"output_folder": tmp_path / "ended"}
    with monkeypatch.context() as patch:
        terminate_at(patch, EmotionBrain, "compute_objectives", 3)
        assert run_script("train", STAGE1, flags={**flags, **output}) == 143
    assert steps == [0, 1]
    assert run_script("train", STAGE1, flags={**flags, **output}) == 0
    assert steps == alone
    assert_same(result(tmp_path / "ended"), result(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("train", "read_tables"),
        ("train", "load_hparams"),
        ("train", "write_settings"),
        ("brain", "encode"),  # the features' statistics
    ],
)
def test_sigterm_before_the_first_step_ends_at_once(
    run_script, flags, whole, steps, tmp_path, monkeypatch, owner, name
):
    import train

    owner = train if owner == "train" else EmotionBrain
    flags = {**flags, "output_folder": tmp_path}
    with monkeypatch.context() as patch:
        terminate_at(patch, owner, name, 1)
        assert run_script("train", STAGE1, flags=flags) == 143
    assert steps == []
    assert run_script("train", STAGE1, flags=flags) == 0
    assert_same(result(tmp_path), whole)


@pytest.mark.parametrize("seed", [1])
def test_sigterm_to_all_processes_of_a_job(
    run_script, flags, whole, tmp_path, seed
):
    # As Slurm does it: to the workers that read batches, too.
    flags = {**flags, "num_workers": 2}
    process = ready.Ready(
        command(flags, tmp_path), cwd=RECIPES, start_new_session=True
    )
    try:
        while not (tmp_path / "env.log").exists():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(random.Random(seed).uniform(0, 0.5))
        os.killpg(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 143, said
    assert "Traceback" not in said
    assert said.endswith("terminated; run it again to go on\n")
    output = {"output_folder": tmp_path}
    assert run_script("train", STAGE1, flags={**flags, **output}) == 0
    assert_same(result(tmp_path), whole)


def test_a_step_that_takes_too_long_is_not_waited_for(flags, tmp_path):
    script = (
        "import os, signal, sys, threading\n"
        "from speechbrain_mser.brain import EmotionBrain\n"
        "def hang(*args):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    threading.Event().wait()\n"
        "EmotionBrain.optimizers_step = hang\n"
        "sys.path.insert(0, '.')\n"
        "import train\n"
        "train.main()\n"
    )
    _, *arguments = command({**flags, "terminate_within": 0.1}, tmp_path)
    ended = ready.run(["-c", script, *arguments], cwd=RECIPES)
    assert ended.returncode == 143, ended.stderr
    assert "not done within 0.1 s (terminate_within)" in ended.stderr


# One training at a time


def test_a_second_training_in_a_folder_is_refused(
    run_script, flags, whole, tmp_path, capsys
):
    flags = {**flags, "output_folder": tmp_path}
    with hold_folder(tmp_path):
        assert run_script("train", STAGE1, flags=flags) == 2
    said = capsys.readouterr().err
    assert f"process {os.getpid()} on {os.uname().nodename}, since 20" in said
    assert "another output_folder" in said
    assert not (tmp_path / "hyperparams.yaml").exists()
    assert run_script("train", STAGE1, flags=flags) == 0
    assert_same(result(tmp_path), whole)


# Rows


def test_a_kill_between_row_and_checkpoint_leaves_one_row(
    run_script, flags, whole, tmp_path, monkeypatch
):
    class Kill(BaseException):
        pass

    def kill(*_):
        raise Kill

    flags = {**flags, "output_folder": tmp_path}
    with monkeypatch.context() as patch:
        patch.setattr(EmotionBrain, "_save_and_export", kill)
        with pytest.raises(Kill):
            run_script("train", STAGE1, flags=flags)
    assert len(rows(tmp_path)) == 1
    # Of a power cut
    with open(tmp_path / "train_log.txt", "a") as file:
        file.write("epoch: 2, lr: 1.0")
    assert run_script("train", STAGE1, flags=flags) == 0
    assert_same(result(tmp_path), whole)


# The best epoch


def test_the_best_epoch_stays_the_best_when_its_checkpoint_is_damaged(
    run_script, flags, tmp_path, monkeypatch
):
    accuracies = iter([0.9, 0.1, 0.2])
    measured = brain.emotion_metrics

    def measure(*args):
        return {**measured(*args), "UA": next(accuracies)}

    monkeypatch.setattr(brain, "emotion_metrics", measure)
    flags = {**flags, "output_folder": tmp_path}
    assert run_script("train", STAGE1, flags=flags) == 0
    exported = tmp_path / "recognizer" / "connector.safetensors"
    before = exported.read_bytes()
    (best,) = (
        meta
        for meta in tmp_path.glob("save/CKPT*/CKPT.yaml")
        if "\nUA: 0.9\n" in meta.read_text()
    )
    best.write_bytes(b"")
    flags["number_of_epochs"] = 3
    assert run_script("train", STAGE1, flags=flags) == 0
    assert exported.read_bytes() == before


# Settings


def test_unreadable_settings_are_written_again(run_script, flags, tmp_path):
    flags = {**flags, "number_of_epochs": 1, "output_folder": tmp_path}
    assert run_script("train", STAGE1, flags=flags) == 0
    path = tmp_path / "hyperparams.yaml"
    written = path.read_bytes()
    path.write_bytes(b"model: [")
    flags["number_of_epochs"] = 2
    assert run_script("train", STAGE1, flags=flags) == 0
    assert len(path.read_bytes()) == len(written)


# Two processes

NEVER = ("optimizers_step", "", 0)
TERMINATED = """
import os, signal, sys
from speechbrain_mser.brain import EmotionBrain

name, rank, calls = {moment!r}
original, count = getattr(EmotionBrain, name), 0

def called(self, *args):
    global count
    count += 1
    if count == calls and os.environ["RANK"] in rank:
        os.kill(os.getpid(), signal.SIGTERM)
    return original(self, *args)

setattr(EmotionBrain, name, called)
sys.path.insert(0, ".")
import train

train.main()
"""


def train_in_two(flags, folder, moment, code):
    """Train in two processes; ``moment`` says when which is sent SIGTERM."""
    two = {"distributed_backend": "gloo", "device": "cpu"}
    flags = {**flags, **two, "number_of_epochs": 1, "batch_size": 4}
    _, *arguments = command(flags, folder)
    script = TERMINATED.format(moment=moment)
    both = ready.run_group(2, ["-c", script, *arguments], cwd=RECIPES)
    assert [each.returncode for each in both] == [code, code], both
    return result(folder) if code == 0 else None


@pytest.fixture(scope="module")
def whole_of_two(flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return train_in_two(flags, folder, NEVER, 0)


@pytest.mark.parametrize(
    "moment",
    [("optimizers_step", "1", 2), ("_predict", "0", 1)],
    ids=["one of them, in a step", "the other, in validation"],
)
def test_two_processes_end_together_and_go_on_as_if_nothing_had_been(
    flags, whole_of_two, tmp_path, moment
):
    train_in_two(flags, tmp_path, moment, 143)
    assert_same(train_in_two(flags, tmp_path, NEVER, 0), whole_of_two)
