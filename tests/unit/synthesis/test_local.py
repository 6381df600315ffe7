"""Processes of this machine: whatever happens to them, the run goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from echo_backend import EchoBackend
from made_audio import audio

from speechbrain_mser.errors import InputError
from speechbrain_mser.synthesis.executors.local import run_local

HERE = Path(__file__).parent
BENCHMARKS = HERE.parents[2] / "benchmarks"
PATH = os.pathsep.join(map(str, (HERE, BENCHMARKS)))


def made_by(plan, work, n_workers=1, most=None, **options):
    """Shard to outcome, of a plan's first shards."""
    names = plan.shards.name.tolist()[:most]
    found = list(run_local(work, map(plan.shard, names), n_workers, **options))
    assert sorted(outcome.shard for outcome in found) == names
    return {outcome.shard: outcome for outcome in found}


def running():
    """All processes that this one has started and that still run."""
    return {
        process
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE
    }


@pytest.fixture
def children():
    """Those that the test has started: other tests may have left some."""
    before = running()
    return lambda: running() - before


def test_any_number_of_processes_makes_what_one_makes_here(begin, children):
    plan, here = begin(folder="here")
    for name in plan.shards.name:
        here.make(plan.shard(name))
    _, there = begin(folder="there")
    found = made_by(plan, there, n_workers=2)
    assert all(o.receipt["made"] and not o.error for o in found.values())
    assert audio(there) == audio(here)
    assert len(audio(here)) == 12 + len(plan.shards)
    assert not children()


def test_a_shard_whose_process_is_killed_is_made_by_another(
    begin, mischief, notes
):
    plan, work = begin(mischief("DiesOnce", only="toy_08"))
    found = made_by(plan, work)
    assert all(outcome.receipt for outcome in found.values())
    assert sum("toy_08" in note for note in notes()) == 2
    _, calm = begin(folder="calm")
    for name in plan.shards.name:
        calm.make(plan.shard(name))
    assert audio(work) == audio(calm)


def test_a_shard_that_always_kills_is_given_up_and_the_others_made(
    begin, mischief, notes, children
):
    plan, work = begin(mischief("Dies", only="toy_08"))
    found = made_by(plan, work, max_attempts=2)
    (bad,) = [outcome for outcome in found.values() if not outcome.receipt]
    assert bad.error == "its process ended (exit code 77)"
    assert "toy_08" in [task.ID for task in plan.shard(bad.shard).tasks]
    assert sum("toy_08" in note for note in notes()) == 2
    assert not children()


def test_an_error_in_the_translator_comes_back_with_its_traceback(
    begin, mischief
):
    plan, work = begin(mischief("Broken"))
    for outcome in made_by(plan, work, most=1, max_attempts=1).values():
        assert "KeyError: 'missing'" in outcome.error
        assert "mischief_backends.py" in outcome.error


def test_missing_weights_stop_the_run_at_once(begin, mischief, notes, children):
    plan, work = begin(mischief("WithoutWeights"))
    with pytest.raises(InputError, match="no weights in /models"):
        made_by(plan, work, max_attempts=3)
    assert notes() == ["open"]
    assert not children()


def test_a_translator_that_cannot_be_sent_is_an_error_not_a_hang(
    begin, monkeypatch
):
    # Importable here, and nowhere else
    monkeypatch.setattr(EchoBackend, "__module__", "nowhere")
    monkeypatch.setitem(sys.modules, "nowhere", sys.modules["echo_backend"])
    plan, work = begin()
    for outcome in made_by(plan, work, most=1, max_attempts=1).values():
        assert "No module named 'nowhere'" in outcome.error


def test_a_run_that_is_left_ends_its_processes(
    begin, mischief, notes, children
):
    plan, work = begin(mischief("Slow"), batch_size=1)
    shards = map(plan.shard, plan.shards.name)
    outcomes = run_local(work, shards, 2)
    first = next(outcomes)
    assert first.receipt
    assert children()
    outcomes.close()
    assert not children()


def test_translators_are_closed_at_the_end(begin, mischief, notes):
    plan, work = begin(mischief("Closing"))
    made_by(plan, work)
    assert notes().count("open") == notes().count("close") == 1


@pytest.mark.parametrize("options", [{"n_workers": 0}, {"max_attempts": 0}])
def test_nobody_to_do_it_is_refused(begin, options):
    plan, work = begin()
    with pytest.raises(InputError, match="at least 1"):
        made_by(plan, work, **options)


def test_workers_take_gpus_in_turn(begin, monkeypatch):
    plan, work = begin(Sees)
    found = made_by(plan, work, n_workers=2, gpus=[3, 5])
    seen = {o.receipt["versions"]["gpus"] for o in found.values()}
    assert seen <= {"3", "5"}


class Sees(EchoBackend):
    """Tells what of the GPUs it sees."""

    def open(self):
        return {"gpus": os.environ["CUDA_VISIBLE_DEVICES"]}


DRIVER = """
import pickle, sys
from speechbrain_mser.synthesis.executors.local import run_local
work, shards = pickle.load(open(sys.argv[1], "rb"))
for outcome in run_local(work, shards, 2):
    print(outcome.shard, flush=True)
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_workers_and_all_they_started_end_with_their_driver(
    begin, mischief, notes, tmp_path, sent
):
    plan, work = begin(mischief("Slow"), batch_size=1)
    driver = start_driver(plan, work, tmp_path)
    try:
        family = wait_for_workers(driver, notes)
    finally:
        driver.send_signal(sent)
        driver.communicate()
    _, alive = psutil.wait_procs(family, 10)
    assert not alive


def start_driver(plan, work, tmp_path):
    import pickle

    with open(tmp_path / "work.pkl", "wb") as file:
        pickle.dump((work, list(map(plan.shard, plan.shards.name))), file)
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, tmp_path / "work.pkl"],
        env={**os.environ, "PYTHONPATH": PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for_workers(driver, notes):
    """The driver's children, once both are at work."""
    until = time.monotonic() + 600
    while len({note for note in notes() if note.isdigit()}) < 2:
        assert driver.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    return psutil.Process(driver.pid).children(recursive=True)
