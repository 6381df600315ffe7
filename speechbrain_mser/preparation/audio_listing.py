"""Which files lie under a folder, and how long their audio is.

Headers only, wherever they say how much is decoded: the preparation scripts
read tens of thousands of files before any model is built, so nothing here
imports torch.
"""

import hashlib
import os
import stat
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from speechbrain_mser.dataio.audio import load_samples
from speechbrain_mser.dataio.audio_limits import CONTAINERS, AudioError
from speechbrain_mser.dataio.decoding import duration
from speechbrain_mser.errors import InputError
from speechbrain_mser.spelling import compose, find_spelling

# What is taken for audio, by its extension.
AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", *CONTAINERS)

# A header takes 50 microseconds: below this, starting processes costs more.
_SERIAL = 1000
_CHUNK = 64

# Unpacked or not, a user must hear of them: what is in them may be missing.
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".rar", ".7z")


class Listing(NamedTuple):
    """What lies under a folder; paths are relative, with ``/``."""

    # Candidates for utterances, shallow folders first
    audio: list
    # (path, reason) of what can be no utterance
    dropped: list
    # Kind to number of files that are not worth a row each
    ignored: Counter
    # Changes when a file comes, goes, or changes
    fingerprint: str


def find_data_folder(data_folder, layout):
    """The folder that a user gave, if it is the corpus's.

    Arguments
    ---------
    data_folder : str or path-like
        What the user gave.
    layout : str
        A pattern (`glob`) that the corpus's own folder matches, or several
        with ``|`` between them, one of which it matches.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    InputError
        It is no folder or another one; when the right one is next to it (one
        level up or down), the message names that.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "RAVDESS/Actor_01").mkdir(parents=True)
    ...     find_data_folder(folder, "Actor_[0-9][0-9]")
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: ... give .../RAVDESS
    """
    folder = find_spelling(Path(data_folder).expanduser())
    if not folder.is_dir():
        what = "a file, not a folder" if folder.exists() else "no such folder"
        raise InputError(
            f"{folder}: {what}; give the folder that holds {layout}"
        )
    if _matches(folder, layout):
        return folder
    entries = sorted(folder.iterdir())
    near = [folder.resolve().parent, *filter(Path.is_dir, entries)]
    right = [str(other) for other in near if _matches(other, layout)]
    if right:
        raise InputError(
            f"{folder}: not the corpus's own folder, which holds {layout}; "
            f"give {' or '.join(right[:3])}"
        )
    shown = ", ".join(entry.name for entry in entries[:5]) or "nothing"
    more = f" and {len(entries) - 5} more" if len(entries) > 5 else ""
    packed = [e.name for e in entries if e.name.lower().endswith(_ARCHIVES)]
    unpack = f"; unpack {packed[0]} first" if packed else ""
    raise InputError(
        f"{folder}: looked for {layout} here and one level up and down; "
        f"found here: {shown}{more}{unpack}"
    )


def _matches(folder, layout):
    return any(
        next(folder.glob(pattern), None) is not None
        for pattern in layout.split("|")
    )


def list_files(folder, companions=(), skip=()):
    """List the files under a folder.

    Arguments
    ---------
    folder : str or path-like
        Where to look; links to folders are followed.
    companions : iterable of str
        Patterns (`fnmatch`, on the relative path) of files that the release
        holds beside the audio; they are counted, not listed.
    skip : iterable of str or path-like
        Files and folders to pass over, such as our own output.

    Returns
    -------
    Listing
        The audio files by extension, and what became of all others.

    Example
    -------
    >>> import tempfile
    >>> from pathlib import Path, PurePosixPath
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.wav", "a.FLAC", "._a.FLAC", "notes.txt"):
    ...         Path(folder, name).touch()
    ...     listing = list_files(folder)
    >>> listing.audio, listing.dropped, dict(listing.ignored)
    (['a.FLAC', 'b.wav'], [('notes.txt', 'not audio: .txt')],
     {'AppleDouble (._*)': 1})
    """
    skip = {os.path.realpath(path) for path in skip}
    audio, dropped, ignored, digest = [], [], Counter(), hashlib.sha256()
    for path in walk_files(folder, skip, dropped, ignored):
        full = os.path.join(folder, path)
        name = os.path.basename(path)
        kind = os.path.splitext(name)[1].lower()
        if name.startswith("._"):
            # macOS's shadow of a file: it has its name and is no audio
            ignored["AppleDouble (._*)"] += 1
            continue
        if name.startswith("."):
            ignored["hidden files (.*)"] += 1
            continue
        problem, signature = _look_at(full, path)
        digest.update(f"{path!r} {signature}\n".encode())
        if problem:
            dropped.append((_printable(path), problem))
        elif any(fnmatch(path, pattern) for pattern in companions):
            ignored["companions of the audio"] += 1
        elif name.lower().endswith(_ARCHIVES):
            dropped.append((path, "packed: an archive; unpack what you need"))
        elif kind not in AUDIO:
            dropped.append((path, f"not audio: {kind or 'no extension'}"))
        else:
            audio.append(path)
    return Listing(audio, dropped, ignored, digest.hexdigest())


def find_files(folder, pattern):
    """Files beside the audio, such as labels and transcripts.

    Arguments
    ---------
    folder : str or path-like
        Where to look; links to folders are followed, hidden files and
        folders are not looked at.
    pattern : str
        Of the name (`fnmatch`).

    Returns
    -------
    list of pathlib.Path
        Shallow folders first, then by name.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.ort", "._b.ort", "a.wav"):
    ...         Path(folder, name).touch()
    ...     [path.name for path in find_files(folder, "*.ort")]
    ['b.ort']
    """
    return [
        Path(folder, path)
        for path in walk_files(folder, (), [], Counter())
        for name in [os.path.basename(path)]
        if fnmatch(name, pattern)
        and not name.startswith(".")
        and os.path.isfile(os.path.join(folder, path))
    ]


def locate(wanted, paths):
    """Find files that another's list names, wherever they lie here.

    A file is known by as much of the end of its path as tells it from all
    others of the list, without its extension: MELD has ``dia0_utt0`` in three
    folders, MEAD ``001`` in hundreds.

    Arguments
    ---------
    wanted : iterable of str
        Paths as the list has them.
    paths : list of str
        Those here.

    Returns
    -------
    dict
        Path of the list to the one here; without those that are not here.

    Example
    -------
    >>> wanted = ["downloads/dev/dia0_utt0.mp4", "downloads/test/dia0_utt0.mp4"]
    >>> locate(wanted, ["MELD/test/dia0_utt0.wav", "MELD/dia0_utt0.wav"])
    {'downloads/test/dia0_utt0.mp4': 'MELD/test/dia0_utt0.wav'}
    """
    ends = {path: _ends(path) for path in wanted}
    shared = Counter(end for path in ends for end in ends[path])
    here = {}
    for path in paths:
        for end in _ends(path):
            here.setdefault(end, path)
    located = {}
    for path in ends:
        known = [e for e in ends[path] if shared[e] == 1 and e in here]
        if known:
            # The longest: a mirror may hold the tree twice
            located[path] = here[known[-1]]
    return located


def _ends(path):
    """The last part of a path, the last two ..., without the extension."""
    parts = PurePosixPath(compose(path)).with_suffix("").parts
    return ["/".join(parts[-n:]) for n in range(1, len(parts) + 1)]


def probe(path, decode=False):
    """The duration of an audio file, from its header where that knows it.

    Arguments
    ---------
    path : str or path-like
        The file.
    decode : bool
        Decode the whole file with `dataio.audio.load_audio` too: slower, and
        finds silent files and FLAC or mp4 files that break off.

    Returns
    -------
    seconds : float
        The duration; 0.0 when there is a problem.
    problem : str
        ``kind: detail``, empty when the file can be read.

    Example
    -------
    >>> import tempfile
    >>> import soundfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/a.wav", [0.1] * 4000, 8000)
    ...     probe(f"{folder}/a.wav")
    ...     open(f"{folder}/b.wav", "w").close()
    ...     probe(f"{folder}/b.wav")
    (0.5, '')
    (0.0, 'empty: 0 bytes')
    """
    path = os.fspath(path)
    try:
        if os.path.getsize(path) == 0:
            return 0.0, "empty: 0 bytes"
        # A folder without permission shows here, before libsndfile blurs it
        open(path, "rb").close()
        seconds = duration(path)
    except OSError as error:
        return 0.0, f"unreadable: {error.strerror}"
    except AudioError as error:
        return 0.0, error.reason
    problem = _decoding_problem(path) if decode else ""
    return (0.0, problem) if problem else (round(seconds, 6), "")


def probe_all(folder, paths, decode=False, title="reading headers"):
    """`probe` many files, on all cores, with a progress bar.

    Arguments
    ---------
    folder : str or path-like
        What the paths are relative to.
    paths : list of str
        The files.
    decode : bool
        As for `probe`.
    title : str
        What the progress bar says.

    Returns
    -------
    dict
        Path to (seconds, problem).
    """
    full = [os.path.join(folder, path) for path in paths]
    # Shown on terminals only, so that logs stay readable
    bar = partial(
        tqdm, total=len(full), desc=title, unit=" files", disable=None
    )
    look = partial(probe, decode=decode)
    if len(full) < (_CHUNK if decode else _SERIAL):
        return dict(zip(paths, bar(map(look, full)), strict=True))
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        probed = bar(pool.map(look, full, chunksize=_CHUNK))
        return dict(zip(paths, probed, strict=True))


def walk_files(folder, skip, dropped, ignored):
    """Every file below a folder; nothing hidden is entered.

    Arguments
    ---------
    folder : str or path-like
        Where to look; links to folders are followed, each folder once.
    skip : collection of str
        Real paths to pass over.
    dropped : list
        Gets (path, reason) of folders that cannot be looked into.
    ignored : collections.Counter
        Counts hidden folders.

    Returns
    -------
    list of str
        Relative paths, shallow folders first, then by name.
    """
    paths, seen = [], set()
    # To resolve every file would cost more than all else that is done here
    holders = {os.path.dirname(path) for path in skip}

    def note(error):
        path = os.path.relpath(error.filename, folder)
        dropped.append((_printable(path), f"unreadable: {error.strerror}"))

    for parent, folders, names in os.walk(
        folder, onerror=note, followlinks=True
    ):
        # A link to a folder above it would otherwise never end
        real = os.path.realpath(parent)
        if real in seen or real in skip:
            folders.clear()
            continue
        seen.add(real)
        # Of a folder and a link to it, always the same one is taken
        folders.sort()
        # .git and the like
        hidden = [name for name in folders if name.startswith(".")]
        if hidden:
            ignored["hidden folders (.*)"] += len(hidden)
            folders[:] = [name for name in folders if name not in hidden]
        if real in holders:
            names = [n for n in names if os.path.join(real, n) not in skip]
        relative = os.path.relpath(parent, folder)
        prefix = "" if relative == "." else relative.replace(os.sep, "/") + "/"
        paths += [prefix + name for name in names]
    return sorted(paths, key=lambda path: (path.count("/"), path))


def _look_at(full, path):
    """Why this can be no utterance whatever is in it, and its signature."""
    try:
        status = os.stat(full)
    except OSError as error:
        return f"unreadable: {error.strerror}", ""
    signature = f"{status.st_size} {status.st_mtime_ns}"
    if not stat.S_ISREG(status.st_mode):
        return "unreadable: not a regular file", signature
    if _printable(path) != path:
        return "misnamed: the path is not UTF-8", signature
    if "$" in path:
        # SpeechBrain replaces $name in every field of a manifest
        return "misnamed: a dollar sign in the path", signature
    return "", signature


def _printable(path):
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def _decoding_problem(path):
    try:
        load_samples(path)
    except AudioError as error:
        return f"undecodable: {str(error).removeprefix(f'{path}: ')}"
    return ""
