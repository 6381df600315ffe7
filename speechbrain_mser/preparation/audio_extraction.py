"""Audio out of mp4 and m4a, decoded once to FLAC: 16 kHz, mono, 16 bit.

Corpora that come as films are read many times in training; decoding AAC each
time costs more than everything else that is done to the audio. Headers and
soundfile are enough for whoever reads what this leaves behind.
"""

import io
import os
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import NamedTuple

import soundfile
from tqdm import tqdm

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.dataio.audio import read_samples
from speechbrain_mser.dataio.audio_limits import AudioError
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import atomic_path
from speechbrain_mser.preparation.prepared_files import unwritable

# How many files wait for a process: bounds the memory for packed ones.
_AHEAD = 4


class Packed(NamedTuple):
    """A file that lies in an archive; takes the place of a path."""

    # As it shall be named to the user
    name: str
    data: bytes
    # Seconds, as in `os.stat`
    mtime: float


class Extracted(NamedTuple):
    """What became of an item."""

    # The path, or the name of a packed one
    source: str
    target: str
    # The duration; 0.0 when there is a problem
    seconds: float
    # ``kind: detail``, empty when the target is there
    problem: str


def extract_audio(
    source_root, items, target_root, workers=None, title="extracting audio"
):
    """Decode the audio of many files, on all cores, with a progress bar.

    What an earlier run left is not done again: a target carries the time of
    its source, and is there whole or not at all.

    Arguments
    ---------
    source_root : str or path-like
        What the sources are relative to.
    items : iterable of (str or Packed, str)
        Source and target. A target is a relative path that ends in
        ``.flac``. May be a generator: files out of an archive are read as
        they are needed.
    target_root : str or path-like
        What the targets are relative to; for a preparation script
        ``<save_folder>/<corpus>_audio``.
    workers : int, optional
        Number of processes; by default one per core.
    title : str
        What the progress bar says.

    Returns
    -------
    seconds : dict
        Target to duration, of all that are there now.
    problems : dict
        Source (the name of a packed one) to ``kind: detail``, of all others.

    Raises
    ------
    InputError
        PyAV is missing, a target is outside its root or cannot be written.

    Example
    -------
    A script collects its rows from what is there now:

    >>> def collect(folder, paths):
    ...     items = [(path, path.replace(".m4a", ".flac")) for path in paths]
    ...     seconds, problems = extract_audio(
    ...         folder, items, save_folder / "toy_audio"
    ...     )
    ...     rows = [
    ...         {"ID": source, "wav": f"$manifest_folder/toy_audio/{target}"}
    ...         for source, target in items
    ...         if target in seconds
    ...     ]
    ...     return rows, [*problems.items()]
    >>> save_folder = Path("manifests")
    >>> collect("films", [])
    ([], [])
    """
    items = [*extract_each(source_root, items, target_root, workers, title)]
    seconds = {item.target: item.seconds for item in items if not item.problem}
    return seconds, {
        item.source: item.problem for item in items if item.problem
    }


def extract_each(
    source_root, items, target_root, workers=None, title="extracting audio"
):
    """`extract_audio`, one result after the other.

    Arguments
    ---------
    source_root, items, target_root, workers, title
        As for `extract_audio`.

    Yields
    ------
    Extracted
        One per item, in their order.
    """
    total = len(items) if hasattr(items, "__len__") else None
    if total == 0:
        return
    _check_pyav()
    workers = workers or os.cpu_count() or 1
    if total is not None:
        workers = min(workers, total)
    work = partial(_extract, os.fspath(source_root), os.fspath(target_root))
    extracted = _in_processes(work, items, workers)
    # Shown on terminals only, so that logs stay readable
    yield from tqdm(
        extracted, total=total, desc=title, unit=" files", disable=None
    )


def _check_pyav():
    try:
        import av  # noqa: F401
    except ImportError:
        raise InputError(
            "extracting audio from films needs PyAV: pip install av, or "
            "install this package with the extra 'containers'"
        ) from None


def _in_processes(work, items, workers):
    """``map``, in order, never far ahead of what was asked for."""
    if workers <= 1:
        yield from map(work, items)
        return
    pool = ProcessPoolExecutor(max_workers=workers)
    waiting = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise InputError(
            "a process that extracts audio was ended from outside, perhaps "
            "for want of memory; what is extracted is kept: run this again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _extract(source_root, target_root, item):
    """One item, here or in a process of its own."""
    source, target = item
    _check_target(target)
    packed = isinstance(source, Packed)
    name = source.name if packed else source
    try:
        if packed:
            size, mtime = len(source.data), round(source.mtime * 1e9)
            file = io.BytesIO(source.data)
        else:
            file = os.path.join(source_root, source)
            status = os.stat(file)
            size, mtime = status.st_size, status.st_mtime_ns
            # A folder without permission shows here, before FFmpeg blurs it
            open(file, "rb").close()
    except OSError as error:
        problem = f"unreadable: {error.strerror}"
        return Extracted(name, target, 0.0, problem)
    if size == 0:
        return Extracted(name, target, 0.0, "empty: 0 bytes")
    seconds = _already_there(Path(target_root, target), mtime)
    if seconds:
        return Extracted(name, target, seconds, "")
    try:
        samples = read_samples(file)
    except AudioError as error:
        return Extracted(name, target, 0.0, error.reason)
    _write(target_root, target, samples, mtime)
    return Extracted(name, target, round(len(samples) / SAMPLE_RATE, 6), "")


def _check_target(target):
    parts = target.split("/")
    if not target.endswith(".flac") or {"", ".", ".."} & set(parts):
        raise InputError(
            f"target {target!r} must be a relative path to a .flac file and "
            "stay inside its folder"
        )


def _already_there(path, mtime):
    """The duration of what an earlier run left, or 0.0."""
    try:
        # Some file systems keep time in steps of two seconds
        if abs(path.stat().st_mtime_ns - mtime) > 2e9:
            return 0.0
        with soundfile.SoundFile(path) as file:
            return round(file.frames / file.samplerate, 6)
    except (OSError, soundfile.LibsndfileError):
        return 0.0


def _write(root, target, samples, mtime):
    # To memory first: libsndfile does not say that a disk is full
    flac = io.BytesIO()
    soundfile.write(flac, samples, SAMPLE_RATE, "PCM_16", format="FLAC")
    try:
        with atomic_path(Path(root, target)) as unfinished:
            unfinished.write_bytes(flac.getvalue())
            os.utime(unfinished, ns=(mtime, mtime))
    except OSError as error:
        raise unwritable(root, error) from None
