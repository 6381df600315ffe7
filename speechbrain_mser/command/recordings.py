"""The recordings that a command line names: files, folders, or a list."""

import os
import sys
from collections import Counter

from speechbrain_mser.errors import InputError

STDIN = "-"


def add_arguments(parser):
    """What names recordings.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Gets them.
    """
    parser.add_argument(
        "recordings",
        nargs="+",
        metavar="FILE|FOLDER|-",
        help="audio of any kind; folders are walked; - reads paths from "
        "standard input, one a line",
    )


def find_recordings(sources):
    """The recordings, in the order in which they are named.

    A file that is named is one, whatever it is called; in folders, those with
    an extension of audio are. What is passed over is counted on stderr.

    Arguments
    ---------
    sources : iterable of str
        Files, folders and "-".

    Yields
    ------
    path : str
        Each once; in folders shallow ones first, then by name.
    problem : str
        Why a folder below could not be looked into; empty for a file.

    Raises
    ------
    InputError
        There is none.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("b.wav", "a.FLAC", "notes.txt"):
    ...     (folder / name).touch()
    >>> [os.path.basename(path) for path, _ in find_recordings([str(folder)])]
    ['a.FLAC', 'b.wav']
    """
    seen, again = set(), 0
    for source in _named(sources):
        for path, problem in _under(source):
            if path in seen:
                again += 1
                continue
            seen.add(path)
            yield path, problem
    if not seen:
        raise InputError(
            "there is no recording: "
            + ", ".join("standard input" if s == STDIN else s for s in sources)
        )
    if again:
        _say(f"{again} named more than once, taken once")


def sized(sources):
    """The recordings as a list, unless their names are still to come.

    Arguments
    ---------
    sources : list of str
        As for `find_recordings`.

    Returns
    -------
    iterable of tuple
        As `find_recordings` yields them.

    Raises
    ------
    InputError
        There is none, or what is to name them is closed.
    """
    found = find_recordings(sources)
    if STDIN in sources:
        standard_input()
        return found
    return list(found)


def standard_input():
    """Its bytes.

    Returns
    -------
    file-like
        Open.

    Raises
    ------
    InputError
        It is closed.
    """
    if sys.stdin is None:
        raise InputError("-: standard input is closed")
    return sys.stdin.buffer


def _named(sources):
    for source in sources:
        if source != STDIN:
            yield source
            continue
        # Bytes, as files are called
        for line in standard_input():
            if path := os.fsdecode(line.rstrip(b"\r\n")):
                yield path


def _under(source):
    """A file is itself; of a folder, what is audio by its name."""
    if not os.path.isdir(source):
        yield source, ""
        return
    # numpy and soundfile, which --help does without
    from speechbrain_mser.preparation.audio_listing import AUDIO, walk_files

    unreadable, skipped, audio = [], Counter(), 0
    for path in walk_files(source, (), unreadable, skipped):
        name = os.path.basename(path)
        kind = os.path.splitext(name)[1].lower()
        if name.startswith("."):
            skipped["hidden files (.*)"] += 1
        elif kind not in AUDIO:
            skipped[kind or "without extension"] += 1
        else:
            audio += 1
            yield os.path.join(source, path), ""
    for path, reason in unreadable:
        yield os.path.join(source, path), reason
    if skipped or not audio:
        kinds = ", ".join(f"{n} {kind}" for kind, n in skipped.most_common())
        passed = f", passed over {kinds}" if skipped else ""
        _say(f"{source}: took {audio}{passed}")


def _say(text):
    print(text, file=sys.stderr)
