"""Shards made by actors of a Ray cluster, or of a Ray of this machine.

Ray brings the places and notices who dies; which shard is whose is decided
here, with one request at a time for each actor. All hosts must have this
environment and see the output folder at the same path, which every actor
confirms before it gets a shard. Actors belong to the run: when it is gone,
however that happened, Ray ends them.
"""

import contextlib
import logging
import os
import pickle
import re
import signal
import socket
import sys
import threading
import time
import uuid
from pathlib import Path

from speechbrain_mser.errors import InputError
from speechbrain_mser.synthesis.executors.queue import attempt, run_queue
from speechbrain_mser.synthesis.executors.ray_resources import (
    check_room,
    check_share,
    in_words,
)
from speechbrain_mser.synthesis.folder import PARTIAL, writing

# Seconds: how often it is looked at whether there are actors, how long one
# that was told to end may take, and a shared file system to show a file.
_LOOK = 1.0
_PATIENCE = 10.0
_SIGHT = 10.0


def import_ray():
    """Ray, which is an extra."""
    try:
        import ray
    except ImportError:
        raise InputError(
            "executor ray needs Ray: pip install 'speechbrain-mser[ray]', on "
            "all hosts"
        ) from None
    return ray


def run_ray(
    work,
    shards,
    n_workers=1,
    max_attempts=3,
    address="local",
    num_cpus=1.0,
    num_gpus=None,
    patience=300.0,
):
    """Make shards in actors of a Ray cluster.

    Arguments
    ---------
    work, shards, n_workers, max_attempts
        As for `run_local`, of actors. An actor that dies before it is there
        is started so often in a row, too.
    address : str
        ``local``: a Ray of this machine, started for this run; ``auto``: the
        cluster that this machine belongs to; or its ``host:port``.
    num_cpus : float
        CPUs of each actor; below 1 it shares one.
    num_gpus : float, optional
        GPUs of each actor, which sees no others; below 1 it shares one. By
        default one where the cluster has any.
    patience : float
        Seconds in which no actor finds a place until the run ends; other
        programs may hold all places.

    Yields
    ------
    Outcome
        As `run_local`.

    Raises
    ------
    InputError
        As `run_local`; or there is no Ray, no place for so many actors, or a
        host without the folder.
    """
    check_share("ray_cpus", num_cpus)
    if num_gpus:
        check_share("ray_gpus", num_gpus)
    ray = import_ray()
    with _connected(ray, address), _sign(work.folder.path) as sign:
        nodes = _nodes(ray)
        if num_gpus is None:
            num_gpus = int(any(node["Resources"].get("GPU") for node in nodes))
        asked = check_room(nodes, n_workers, num_cpus, num_gpus)
        # Who is replaced, and when, is decided here
        options = {"max_restarts": 0, "scheduling_strategy": "SPREAD"}
        actor_class = ray.remote(
            num_cpus=num_cpus, num_gpus=num_gpus, **options
        )(Worker)
        begin = sys.path, os.getcwd(), str(sign), pickle.dumps(work)
        places = [
            _Place(ray, actor_class, begin, max_attempts)
            for _ in range(n_workers)
        ]
        wait = _Waiting(ray, asked, patience)
        try:
            yield from run_queue(places, shards, max_attempts, wait)
        finally:
            closing = [p.actor.close.remote() for p in places if p.is_free()]
            if closing:
                ray.wait(closing, num_returns=len(closing), timeout=_PATIENCE)
            for place in places:
                place.end()


class Worker:
    """What lives in an actor, on whatever host."""

    def begin(self, path, folder, sign, work):
        """Be where the run is, with its ``sys.path``, and see its sign."""
        self.host, self.work, self.pickled = socket.gethostname(), None, work
        # Scripts and their backends need not be installed
        sys.path[:] = dict.fromkeys([*path, *sys.path])
        try:
            os.chdir(folder)
        except OSError as error:
            return "refused", (
                f"host {self.host} has no folder {folder}, where this was "
                f"started ({error.strerror}); start it from a folder that all "
                "hosts share"
            )
        until = time.monotonic() + _SIGHT
        while not os.path.exists(sign):
            if time.monotonic() > until:
                return "refused", (
                    f"host {self.host} does not see what is written to "
                    f"{Path(sign).parents[1]}; the output folder must be on a "
                    "file system that all hosts share, at the same path"
                )
            time.sleep(0.1)
        return "there", self.host

    def make(self, shard):
        """Make a shard; as `attempt`."""
        self.work = self.work or pickle.loads(self.pickled)
        kind, content = attempt(self.work, shard)
        return kind, (
            content if kind == "made" else f"host {self.host}: {content}"
        )

    def close(self):
        """Close the backend."""
        if self.work is not None:
            self.work.close()


class _Place:
    """A place for an actor, which is replaced when it dies; see `run_queue`."""

    def __init__(self, ray, actor_class, arguments, max_starts):
        self.ray, self.actor_class = ray, actor_class
        self.arguments = arguments
        self.starts_left = self.max_starts = max_starts
        # `reference` is to the answer that the actor owes
        self.actor = self.reference = self.job = None
        # Where the actor is, once it is there; why the last one never was
        self.host = self.failure = ""

    def start(self):
        """Ask Ray for an actor, where none is; it may take long to come."""
        if self.actor is None and self.starts_left:
            self.starts_left -= 1
            self.actor = self.actor_class.remote()
            self.reference = self.actor.begin.remote(*self.arguments)

    def arrive(self):
        """Take an actor's first answer."""
        kind, content = self.answer()
        if kind == "refused":
            raise InputError(content)
        if kind == "there":
            self.host, self.starts_left = content, self.max_starts
        else:
            self.failure = content

    def is_free(self):
        return bool(self.host) and self.reference is None

    def begin(self, job):
        self.job, self.reference = job, self.actor.make.remote(job[0])

    def answer(self):
        reference, self.reference = self.reference, None
        try:
            kind, content = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            # Ray writes in colours
            told = re.sub(r"\x1b\[\d+m", "", str(error))
            kind, content = "failed", f"its actor ended: {told}"
        if kind == "failed":
            self.end()
        return kind, content

    def end(self):
        """Be rid of the actor, dead or of a state that nobody knows."""
        if self.actor is not None:
            self.ray.kill(self.actor)
        self.actor, self.host = None, ""


class _Waiting:
    """Waits for actors and their answers, as long as there is hope."""

    def __init__(self, ray, asked, patience):
        self.ray, self.asked, self.patience = ray, asked, patience
        self.last_seen = time.monotonic()

    def __call__(self, places):
        """The places whose actors have answered for a shard, or have died."""
        for place in places:
            place.start()
        self._hope(places)
        owed = {p.reference: p for p in places if p.reference is not None}
        ready, _ = self.ray.wait(list(owed), timeout=_LOOK)
        answered = [owed[reference] for reference in ready]
        for place in answered:
            if not place.job:
                place.arrive()
        return [place for place in answered if place.job]

    def _hope(self, places):
        if any(place.host for place in places):
            self.last_seen = time.monotonic()
        elif not any(place.actor for place in places):
            raise InputError(
                "workers end before they begin; all hosts need this "
                "environment, with the same Python and Ray, at the same "
                f"path. The last: {places[-1].failure}"
            )
        elif time.monotonic() - self.last_seen > self.patience:
            free = self.ray.available_resources()
            raise InputError(
                f"{self.asked}, and none of them was there in "
                f"{self.patience:g} s: {in_words(_nodes(self.ray))}; of that "
                f"{free.get('CPU', 0):g} CPU and {free.get('GPU', 0):g} GPU "
                "are free. Wait for the cluster's other programs or lost "
                "hosts, or ask for less"
            )


def _nodes(ray):
    return [node for node in ray.nodes() if node["Alive"]]


@contextlib.contextmanager
def _connected(ray, address):
    """Be part of a Ray, and leave this process as it was."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options = {"logging_level": logging.WARNING}
    if address == "local":
        options = {
            "logging_level": logging.ERROR,
            "include_dashboard": False,
            # Whatever becomes of the network, this machine can reach itself
            "_node_ip_address": "127.0.0.1",
            # Only tasks and receipts are sent, audio goes by the file system
            "object_store_memory": 100 * 2**20,
        }
    sigterm = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    try:
        if address not in ("local", "auto"):
            # Where nobody is, Ray would look for minutes
            host, _, port = str(address).rpartition(":")
            socket.create_connection((host, int(port)), _PATIENCE).close()
        ray.init(address, **options)
    except (OSError, RuntimeError, ValueError, OverflowError) as error:
        raise InputError(
            f"there is no Ray to be reached at ray_address {address}: {error}; "
            "expected local, auto on a host where `ray start` was run, or "
            "host:port of the cluster's head"
        ) from None
    finally:
        # Ray's own handling ends in an abort with a trace
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, sigterm)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _sign(folder):
    """A file by which actors recognise the output folder."""
    sign = Path(os.path.abspath(folder), PARTIAL, f"ray-{uuid.uuid4().hex}")
    with writing(folder):
        sign.parent.mkdir(parents=True, exist_ok=True)
        sign.touch()
    try:
        yield sign
    finally:
        with contextlib.suppress(OSError):
            sign.unlink()
