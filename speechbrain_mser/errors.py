"""Errors that are the input's fault, and how scripts end on them.

Whatever a user can cause (a wrong folder, a broken file, a bad setting) is
raised as `InputError` with a message that says what was found, what was
expected and what to do. Scripts end on it with that message and exit code 2;
everything else is a bug in this project and keeps its traceback.

So do errors of the file system, unless they are the user's: a full or read-only
disk, a place without permission, or a path that was given on the command line
or lies below one that was. A file that this program alone has made up is ours.
"""

import errno
import functools
import os
import re
import sys
import sysconfig
from pathlib import Path

from speechbrain_mser.termination import EXIT_CODE, Terminated, handled

# No space left, quota used up, larger than allowed, mounted read-only: wherever
# that is.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# Installed code is nobody's data.
_PROGRAM = tuple(
    Path(place).resolve()
    for place in (
        Path(__file__).parent,
        *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")),
    )
)
# What stands between the paths of a flag that names several.
_BETWEEN = re.compile(r"""[\s,:={}\[\]"']+""")


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what to do."""


def exits_on_input_error(main=None, *, resumes=False):
    """Decorate a script's ``main`` to turn `InputError` into exit code 2.

    An error of the file system that is the user's ends the same way, see
    `is_users`.
    An interrupt (Ctrl-C) ends with a line and exit code 130, as in shells,
    SIGTERM with one and 143.

    Arguments
    ---------
    main : callable, optional
        The script's entry point; without it, what decorates one.
    resumes : bool
        Whether what was done is kept, wherever it is interrupted, and is not
        done again the next time; then an interrupt says so.

    Returns
    -------
    callable
        The same function, ending the process with a message instead of a
        traceback.

    Example
    -------
    >>> @exits_on_input_error
    ... def main():
    ...     raise InputError("no folder /data: give --data_root")
    >>> main()
    Traceback (most recent call last):
    ...
    SystemExit: 2
    """

    if main is None:
        return functools.partial(exits_on_input_error, resumes=resumes)
    more = "; run it again to go on" if resumes else ""

    @functools.wraps(main)
    def wrapper(*args, **kwargs):
        try:
            with handled():
                return main(*args, **kwargs)
        except InputError as error:
            message = str(error)
        except KeyboardInterrupt:
            print(f"interrupted{more}", file=sys.stderr)
            sys.exit(130)
        except Terminated:
            print(f"terminated{more}", file=sys.stderr)
            sys.exit(EXIT_CODE)
        except OSError as error:
            if not is_users(error, sys.argv[1:]):
                raise
            message = _explain(error)
        print(f"error: {message}", file=sys.stderr, flush=True)
        sys.exit(2)

    return wrapper


def is_users(error, arguments):
    """Whether an error of the file system is the user's and not a bug.

    Arguments
    ---------
    error : OSError
        What was raised.
    arguments : list of str
        The command line.

    Returns
    -------
    bool
        True for a full or read-only disk, for a place that may not be used,
        and for a path that is, or lies in, one of the command line; False for
        whatever has no file name or lies in installed code.

    Example
    -------
    >>> error = FileNotFoundError(2, "No such file", "/corpora/a.wav")
    >>> is_users(error, ["--data_root", "/corpora"]), is_users(error, [])
    (True, False)
    """
    if error.errno in _FULL:
        return True
    names = [
        os.fsdecode(name)
        for name in (error.filename, error.filename2)
        if isinstance(name, (str, bytes, os.PathLike))
    ]
    paths = [Path(os.path.abspath(name)) for name in names]
    resolved = [Path(os.path.realpath(name)) for name in names]
    if any(path.is_relative_to(p) for path in resolved for p in _PROGRAM):
        return False
    if isinstance(error, PermissionError) and paths:
        return True
    given = _given_paths(arguments)
    return any({path, *path.parents} & given for path in (*paths, *resolved))


def _given_paths(arguments):
    """Everything on a command line that may be a path."""
    words = {
        word
        for argument in arguments
        for text in (argument, argument.partition("=")[2])
        for word in (text, *_BETWEEN.split(text))
        if word and not word.startswith("--")
    }
    return {
        Path(spell(os.path.expanduser(word)))
        for word in words
        for spell in (os.path.abspath, os.path.realpath)
    }


def _explain(error):
    """An `OSError` in words."""
    what = error.strerror or str(error)
    if isinstance(error, PermissionError):
        what = "permission denied"
    if error.filename is None:
        return what
    return f"{what}: {os.fsdecode(error.filename)}"
