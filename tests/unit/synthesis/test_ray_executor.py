"""A cluster of two nodes on this machine: whoever dies, the run goes on."""

import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from echo_backend import EchoBackend
from made_audio import audio

from speechbrain_mser.errors import InputError
from speechbrain_mser.synthesis.executors import ray_executor
from speechbrain_mser.synthesis.executors.ray_executor import run_ray
from speechbrain_mser.synthesis.executors.ray_resources import check_room

HERE = Path(__file__).parent
PATH = os.pathsep.join(map(str, (HERE, HERE.parents[2] / "benchmarks")))


class TwoNodes:
    """A head and a node with one place each."""

    def __init__(self, kind):
        place = {"num_cpus": 1, "num_gpus": 1}
        with pytest.MonkeyPatch.context() as patch:
            # Ray would look for the GPU that is claimed here
            patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
            self.cluster = kind(
                initialize_head=True,
                head_node_args={**place, "include_dashboard": False},
            )
            self.node = self.cluster.add_node(**place)
        self.address = self.cluster.address

    def kill_node(self):
        """As a host does that loses its power."""
        self.cluster.remove_node(self.node, allow_graceful=False)


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    before = signal.getsignal(signal.SIGTERM)
    found = TwoNodes(Cluster)
    yield found
    found.cluster.shutdown()
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def calm(begin):
    """What is in the files when nothing happens."""

    def make(make_backend=EchoBackend):
        plan, work = begin(make_backend, folder="calm")
        for name in plan.shards.name:
            work.make(plan.shard(name))
        return audio(work)

    return make


def made_by(cluster, plan, work, n_workers=2, **options):
    """Shard to outcome."""
    names = plan.shards.name.tolist()
    shards = map(plan.shard, names)
    options = {"address": cluster.address, **options}
    found = list(run_ray(work, shards, n_workers, **options))
    assert sorted(outcome.shard for outcome in found) == names
    return {outcome.shard: outcome for outcome in found}


def actors():
    """Those that still live, whoever started them."""
    found = psutil.Process().children(recursive=True)
    return [p for p in found if p.name().startswith("ray::Worker")]


class Sees(EchoBackend):
    """Tells what of the GPUs it sees."""

    def open(self):
        return {"gpus": os.environ["CUDA_VISIBLE_DEVICES"]}


def test_actors_make_what_is_made_here_and_each_has_its_gpu(
    cluster, begin, calm
):
    before = signal.getsignal(signal.SIGTERM)
    plan, work = begin(Sees)
    # As many actors as places: nobody starves
    found = made_by(cluster, plan, work)
    assert {o.receipt["versions"]["gpus"] for o in found.values()} == {"0"}
    assert audio(work) == calm()
    assert len(audio(work)) == 12 + len(plan.shards)
    assert list(work.folder.path.glob(".partial/ray-*")) == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_shard_whose_actor_is_killed_is_made_by_another(
    cluster, begin, mischief, notes, calm
):
    plan, work = begin(mischief("DiesOnce", only="toy_08"))
    found = made_by(cluster, plan, work, num_gpus=0)
    assert all(outcome.receipt for outcome in found.values())
    assert sum("toy_08" in note for note in notes()) == 2
    assert audio(work) == calm(mischief("DiesOnce", only="toy_08"))


def test_a_shard_that_always_kills_is_given_up_and_the_others_made(
    cluster, begin, mischief, notes
):
    plan, work = begin(mischief("Dies", only="toy_08"))
    found = made_by(cluster, plan, work, max_attempts=2)
    (bad,) = [outcome for outcome in found.values() if not outcome.receipt]
    assert "its actor ended: The actor died unexpectedly" in bad.error
    assert "toy_08" in [task.ID for task in plan.shard(bad.shard).tasks]
    assert sum("toy_08" in note for note in notes()) == 2


@pytest.mark.parametrize(
    "options, told",
    [
        ({"n_workers": 3}, "3 workers with 1 CPU and 1 GPU each"),
        ({"num_cpus": 2}, "2 workers with 2 CPU and 1 GPU each"),
        ({"num_cpus": 0.5, "num_gpus": 2}, "with 0.5 CPU and 2 GPU each"),
    ],
)
def test_actors_for_which_there_is_no_room_are_refused(
    cluster, begin, options, told
):
    plan, work = begin()
    with pytest.raises(InputError, match=f"{told}.* has 1 CPU and 1 GPU"):
        made_by(cluster, plan, work, **options)


def test_missing_weights_stop_the_run_at_once(cluster, begin, mischief, notes):
    plan, work = begin(mischief("WithoutWeights"))
    with pytest.raises(InputError, match=r"host .*: there are no weights"):
        made_by(cluster, plan, work, n_workers=1)
    assert notes() == ["open"]


DRIVER = """
import pickle, sys
from speechbrain_mser.synthesis.executors.ray_executor import run_ray
work, shards = pickle.load(open(sys.argv[1], "rb"))
options = {"address": sys.argv[2], "num_cpus": float(sys.argv[3])}
for outcome in run_ray(work, shards, 2, **options):
    print(outcome.shard, flush=True)
"""


def start_driver(plan, work, tmp_path, address, cpus):
    with open(tmp_path / "work.pkl", "wb") as file:
        pickle.dump((work, list(map(plan.shard, plan.shards.name))), file)
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, tmp_path / "work.pkl", address, cpus],
        env={**os.environ, "PYTHONPATH": PATH},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for_workers(driver, notes):
    """Two processes that are at work."""
    until = time.monotonic() + 600
    while len(found := {int(n) for n in notes() if n.isdigit()}) < 2:
        assert driver.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    return [psutil.Process(number) for number in found]


def test_workers_end_with_their_driver_and_leave_their_places(
    cluster, begin, mischief, notes, tmp_path
):
    plan, slow = begin(mischief("Slow"), batch_size=1)
    driver = start_driver(plan, slow, tmp_path, cluster.address, "1")
    try:
        workers = wait_for_workers(driver, notes)
        # Nobody waits for ever for places that others have
        _, work = begin(folder="late")
        with pytest.raises(
            InputError, match=r"there in 1 s: .*; of that 0 CPU"
        ):
            made_by(cluster, plan, work, patience=1)
    finally:
        driver.kill()
        driver.communicate()
    assert not psutil.wait_procs(workers, 20)[1]
    assert all(o.receipt for o in made_by(cluster, plan, work).values())


def test_a_host_with_another_environment_ends_the_run(
    cluster, begin, tmp_path, monkeypatch
):
    package = tmp_path / "path/speechbrain_mser"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('too old')")
    # What is in the folder where a run is started is found everywhere
    monkeypatch.chdir(tmp_path)
    path = {"PYTHONPATH": str(package.parent)}
    other = cluster.cluster.add_node(num_cpus=2, num_gpus=0, env_vars=path)
    plan, work = begin()
    # Of which only the other host has so many
    wanted = {"num_cpus": 2, "num_gpus": 0, "max_attempts": 2}
    try:
        with pytest.raises(InputError, match=r"(?s)end before .*too old"):
            made_by(cluster, plan, work, n_workers=1, **wanted)
    finally:
        cluster.cluster.remove_node(other)


# The last one that needs the node
def test_a_node_that_is_lost_costs_no_shard(cluster, begin, mischief, calm):
    plan, work = begin(mischief("Slow"), batch_size=1)
    shards = map(plan.shard, plan.shards.name)
    outcomes = run_ray(work, shards, 2, address=cluster.address)
    found = [next(outcomes)]
    assert len(actors()) == 2
    cluster.kill_node()
    found += outcomes
    assert [outcome.error for outcome in found] == [""] * len(plan.shards)
    assert audio(work) == calm()


def is_agent(process):
    """One of Ray's, by its name, or in older releases by its script."""
    scripts = ("/agent.py", "/agent/main.py")
    return process.name().endswith("Agent") or any(
        word.endswith(scripts) for word in process.cmdline()
    )


def test_a_ray_of_its_own_ends_with_its_driver(begin, mischief, tmp_path):
    pytest.importorskip("ray")
    drivers = {}
    # Both at once: most of it is waiting for Ray
    for sent in (signal.SIGTERM, signal.SIGINT):
        place = tmp_path / sent.name
        place.mkdir()
        slow = mischief("Slow").func
        notes = str(place / "notes")
        plan, work = begin(
            partial(slow, notes=notes), folder=sent.name, batch_size=1
        )
        driver = start_driver(plan, work, place, "local", "0.5")
        drivers[sent] = driver, lambda path=notes: read_words(path)
    try:
        families = {}
        for sent, (driver, noted) in drivers.items():
            wait_for_workers(driver, noted)
            family = psutil.Process(driver.pid).children(recursive=True)
            # They look after their node twice a minute, and go then
            families[sent] = [p for p in family if not is_agent(p)]
    finally:
        for sent, (driver, _) in drivers.items():
            # Ctrl-C is for the whole group
            group = sent == signal.SIGINT
            os.killpg(driver.pid, sent) if group else driver.send_signal(sent)
        for driver, _ in drivers.values():
            driver.communicate()
    for sent, (driver, _) in drivers.items():
        assert driver.returncode == -sent
        # The actors, their node and what keeps a cluster together
        assert len(families[sent]) >= 4
        assert not psutil.wait_procs(families[sent], 20)[1]


def read_words(path):
    """As `notes` reads them."""
    return Path(path).read_text().split() if Path(path).exists() else []


@pytest.mark.parametrize(
    "cpus, gpus, room",
    [
        (1, 0, 10),
        (0.1, 0, 100),
        (3, 0, 3),
        # A share is of one GPU, and two whole ones are of one host
        (1, 0.4, 6),
        (1, 0.3, 9),
        (1, 2, 1),
        (4, 1, 2),
        (2, 3, 0),
    ],
)
def test_room_is_counted_host_by_host(cpus, gpus, room):
    hosts = [{"CPU": 6.0, "GPU": 2.0}, {"CPU": 4.0, "GPU": 1.0}]
    nodes = [{"Resources": h, "NodeManagerHostname": "h"} for h in hosts]
    if room:
        check_room(nodes, room, cpus, gpus)
    with pytest.raises(InputError, match=f"there is room for {room}: h has 6"):
        check_room(nodes, room + 1, cpus, gpus)


def test_a_host_without_the_folders_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_executor, "_SIGHT", 0.0)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    place = str(tmp_path / "out/.partial/ray-1")
    kind, told = ray_executor.Worker().begin([], str(tmp_path), place, b"")
    assert kind == "refused"
    assert f"does not see what is written to {tmp_path}/out" in told
    kind, told = ray_executor.Worker().begin(
        [], str(tmp_path / "home"), place, b""
    )
    assert kind == "refused"
    assert f"has no folder {tmp_path}/home, where this was started" in told


def test_without_ray_its_extra_is_named(begin, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    plan, work = begin()
    with pytest.raises(InputError, match=r"pip install 'speechbrain-mser\[ray"):
        list(run_ray(work, map(plan.shard, plan.shards.name)))


@pytest.mark.parametrize(
    "options, told",
    [
        ({"num_cpus": 0}, "ray_cpus is 0, expected"),
        ({"num_cpus": "all"}, "ray_cpus is 'all', expected"),
        ({"num_gpus": 1.5}, "ray_gpus is 1.5, expected .* a whole number"),
        ({"num_gpus": -1}, "ray_gpus is -1, expected"),
        ({"num_gpus": float("nan")}, "ray_gpus is nan, expected"),
        ({"address": "ray://head:10001"}, "no Ray .* expected local, auto"),
        ({"address": "localhost:1"}, "no Ray .*localhost:1: .*refused"),
    ],
)
def test_settings_that_cannot_be_are_refused(begin, options, told):
    pytest.importorskip("ray")
    plan, work = begin()
    with pytest.raises(InputError, match=told):
        list(run_ray(work, map(plan.shard, plan.shards.name), **options))
