"""Shards made by actors of a Ray cluster, or of a Ray of this machine.

Ray brings the places and notices who dies; which shard is whose is decided
here, with a fixed number of actors and one request at a time for each. All
hosts must have this environment and see the output folder at the same path,
which every actor confirms before it gets a shard. Actors belong to the run:
when it is gone, however that happened, Ray ends them.
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
from speechbrain_mser.synthesis.executors import check_counts
from speechbrain_mser.synthesis.executors.jobs import Jobs
from speechbrain_mser.synthesis.executors.ray_resources import (
    check_room,
    check_share,
    in_words,
    shown,
)
from speechbrain_mser.synthesis.executors.ray_worker import Worker
from speechbrain_mser.synthesis.receipts import PARTIAL, writing

logger = logging.getLogger(__name__)

# Seconds: how often it is looked at whether there are actors, and how long one
# that was told to end may take.
_LOOK = 1.0
_PATIENCE = 10.0
# Bytes: only tasks and receipts are sent, audio goes by the file system.
_STORE = 100 * 2**20


def import_ray():
    """Ray, which is an extra.

    Returns
    -------
    module

    Raises
    ------
    InputError
        It is not installed.
    """
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
    work : ShardWork
        Makes one shard; travels to every actor.
    shards : iterable of Shard
        Asked for one by one, as actors become free.
    n_workers : int
        How many actors.
    max_attempts : int
        How often a shard is begun when its actor dies or fails on it; and
        how often in a row an actor is started that dies before it has one.
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
        One for each shard, in the order in which they end.

    Raises
    ------
    InputError
        Nothing can be made: no weights, no such language, a full disk; there
        is no Ray, no place for so many actors, or a host without the folder.
    """
    check_counts(n_workers, max_attempts)
    check_share("ray_cpus", num_cpus)
    if num_gpus:
        check_share("ray_gpus", num_gpus)
    jobs = Jobs(shards, max_attempts)
    if not jobs:
        return
    ray = import_ray()
    with _connected(ray, address), _sign(work.output_folder) as sign:
        asked = check_room(_nodes(ray), n_workers, num_cpus, num_gpus)
        actor = ray.remote(
            num_cpus=asked["CPU"],
            num_gpus=asked["GPU"],
            # Who is replaced, and when, is decided here
            max_restarts=0,
            scheduling_strategy="SPREAD",
        )(Worker)
        begin = sys.path, os.getcwd(), str(sign), pickle.dumps(work)
        places = [
            _Place(ray, actor, begin, max_attempts) for _ in range(n_workers)
        ]
        hope = _Hope(ray, asked, n_workers, patience)
        try:
            while jobs or any(place.shard for place in places):
                _hand_out(places, jobs)
                hope.check(places)
                for place in _with_news(ray, places):
                    shard, attempts = place.shard, place.attempts
                    news = place.news()
                    if shard is None:
                        continue
                    outcome = jobs.ended(shard, attempts, *news)
                    if outcome is not None:
                        yield outcome
        finally:
            _dismiss(ray, places)


def _hand_out(places, jobs):
    """Give everybody something to do, as far as there is anything."""
    for place in places:
        if not jobs:
            return
        if place.actor is None and not place.given_up:
            place.start()
        elif place.host and place.shard is None:
            place.begin(*jobs.next())


def _with_news(ray, places):
    """The places whose actors have answered, or have died."""
    asked = {p.reference: p for p in places if p.reference is not None}
    found, _ = ray.wait(list(asked), timeout=_LOOK) if asked else ([], [])
    return [asked[reference] for reference in found]


def _dismiss(ray, places):
    """Let actors close their backends; those at work end at once."""
    there = [place for place in places if place.actor is not None]
    closing = [p.actor.close.remote() for p in there if p.reference is None]
    ending = [p.reference for p in there if p.reference is not None]
    if closing:
        ray.wait(closing, num_returns=len(closing), timeout=_PATIENCE)
    for place in there:
        ray.kill(place.actor)
    if ending:
        # It is answered when its actor is gone
        ray.wait(ending, num_returns=len(ending), timeout=_PATIENCE)


@contextlib.contextmanager
def _sigterm_kept():
    """Undo Ray's own handling, which ends in an abort with a trace.

    Whoever is told to end just ends; Ray sees to the actors all the same.
    """
    before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _connected(ray, address):
    """Be part of a Ray, and leave this process as it was."""
    _check_address(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Whatever becomes of the network, this machine can reach itself
    own = {
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
        "object_store_memory": _STORE,
    }
    try:
        with _sigterm_kept():
            if address == "local":
                ray.init(address, logging_level=logging.ERROR, **own)
            else:
                ray.init(address, logging_level=logging.WARNING)
    except (
        OSError,
        RuntimeError,
        ValueError,
        ray.exceptions.RayError,
    ) as error:
        raise InputError(_no_ray(address, error)) from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_address(address):
    """Refuse one where nobody is; Ray would look for minutes."""
    if address in ("local", "auto"):
        return
    host, _, port = str(address).rpartition(":")
    try:
        socket.create_connection((host, int(port)), _PATIENCE).close()
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(_no_ray(address, error)) from None


def _no_ray(address, error):
    return (
        f"there is no Ray to be reached at ray_address {address}: {error}; "
        "expected local, auto on a host where `ray start` was run, or "
        "host:port of the cluster's head"
    )


@contextlib.contextmanager
def _sign(folder):
    """A file by which actors recognise the output folder."""
    place = Path(os.path.abspath(folder), PARTIAL)
    sign = place / f"ray-{uuid.uuid4().hex}"
    with writing(folder):
        place.mkdir(parents=True, exist_ok=True)
        sign.touch()
    try:
        yield sign
    finally:
        with contextlib.suppress(OSError):
            sign.unlink()


def _nodes(ray):
    return [node for node in ray.nodes() if node["Alive"]]


class _Hope:
    """Ends a run that waits for actors which never come."""

    def __init__(self, ray, asked, n_workers, patience):
        self.ray = ray
        self.asked = asked
        self.n_workers = n_workers
        self.patience = patience
        self.since = time.monotonic()

    def check(self, places):
        """Refuse to wait longer, if there is nobody."""
        if any(place.host for place in places):
            self.since = time.monotonic()
        elif all(place.given_up for place in places):
            raise InputError(
                "workers end before they begin; all hosts need this "
                "environment, with the same Python and Ray, at the same "
                f"path. The last: {places[-1].given_up}"
            )
        elif time.monotonic() - self.since > self.patience:
            free = self.ray.available_resources()
            raise InputError(
                f"{in_words(self.n_workers, self.asked)} are asked for, and "
                f"none of them was there in {self.patience:g} s: "
                f"{shown(_nodes(self.ray))}; of that {free.get('CPU', 0):g} CPU and "
                f"{free.get('GPU', 0):g} GPU are free. Wait for the cluster's "
                "other programs or lost hosts, or ask for less"
            )


class _Place:
    """A place for an actor, which is replaced when it dies."""

    def __init__(self, ray, actor_class, arguments, max_attempts):
        self.ray = ray
        self.actor_class = actor_class
        self.arguments = arguments
        self.max_attempts = max_attempts
        # What it was asked, until it has answered
        self.actor = self.reference = self.shard = None
        # Where it is, once it is there
        self.host = ""
        self.attempts = self.failed = 0
        # Why no actor is started here any more
        self.given_up = ""

    def start(self):
        """Ask Ray for an actor; it may take long to come."""
        self.actor = self.actor_class.remote()
        self.reference = self.actor.begin.remote(*self.arguments)

    def begin(self, shard, attempts):
        """Give it a shard that was begun so often before."""
        self.shard, self.attempts = shard, attempts
        self.reference = self.actor.make.remote(shard)

    def news(self):
        """What became of its shard, if any: a receipt, or why not."""
        reference, self.reference = self.reference, None
        try:
            kind, found = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            # Ray writes in colours
            told = re.sub(r"\x1b\[\d+m", "", str(error))
            kind, found = "failed", f"its actor ended: {told}"
        if kind == "refused":
            raise InputError(found)
        if kind == "there":
            self.host, self.failed = found, 0
        elif kind == "failed":
            self._lose(found)
            return None, found
        self.shard = None
        return found, ""

    def _lose(self, why):
        """Be rid of an actor that died, or of which nobody knows its state."""
        if not self.host:
            self.failed += 1
            if self.failed == self.max_attempts:
                logger.warning("a worker is given up: %s", why)
                self.given_up = why
        self.ray.kill(self.actor)
        self.actor = self.shard = None
        self.host = ""
