"""Errors that are the input's fault, and how scripts end on them.

Whatever a user can cause (a wrong folder, a broken file, a bad setting) is
raised as `InputError` with a message that says what was found, what was
expected and what to do. Scripts end on it with that message and exit code 2;
everything else is a bug in this project and keeps its traceback.
"""

import errno
import functools
import sys

from speechbrain_mser.termination import EXIT_CODE, Terminated, handled

# What the file system refuses because of what the user asked for.
_USERS = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
# No space left, quota used up, larger than allowed, mounted read-only
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what to do."""


def exits_on_input_error(main):
    """Decorate a script's ``main`` to turn `InputError` into exit code 2.

    A full disk or a read-only folder (`OSError` on writing) ends the same way.
    An interrupt (Ctrl-C) ends with a line and exit code 130, as in shells,
    SIGTERM with one and 143.

    Arguments
    ---------
    main : callable
        The script's entry point.

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

    @functools.wraps(main)
    def wrapper(*args, **kwargs):
        try:
            with handled():
                return main(*args, **kwargs)
        except InputError as error:
            message = str(error)
        except KeyboardInterrupt:
            # What is done is kept, everywhere: nothing to explain in length.
            print("interrupted; run it again to go on", file=sys.stderr)
            sys.exit(130)
        except Terminated:
            print("terminated; run it again to go on", file=sys.stderr)
            sys.exit(EXIT_CODE)
        except OSError as error:
            if not isinstance(error, _USERS) and error.errno not in _FULL:
                raise
            message = _explain(error)
        print(f"error: {message}", file=sys.stderr, flush=True)
        sys.exit(2)

    return wrapper


def _explain(error):
    """An `OSError` in words; some carry a message only, some no file name."""
    if error.strerror is None:
        return str(error)
    if error.filename is None:
        return error.strerror
    return f"{error.strerror}: {error.filename}"
