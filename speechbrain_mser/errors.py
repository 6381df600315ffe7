"""Errors that are the input's fault, and how scripts end on them.

Whatever a user can cause (a wrong folder, a broken file, a bad setting) is
raised as `InputError` with a message that says what was found, what was
expected and what to do. Scripts end on it with that message and exit code 2;
everything else is a bug in this project and keeps its traceback.
"""

import functools
import os
import sys


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what to do."""


def exits_on_input_error(main):
    """Decorate a script's ``main`` to turn `InputError` into exit code 2.

    A full disk or a read-only folder (`OSError` on writing) ends the same way.

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
            return main(*args, **kwargs)
        except InputError as error:
            message = str(error)
        except (PermissionError, FileNotFoundError, IsADirectoryError) as error:
            message = f"{error.strerror}: {error.filename}"
        except OSError as error:
            # 28: no space left on device; 30: read-only file system
            if error.errno not in (28, 30):
                raise
            message = f"{os.strerror(error.errno)}: {error.filename}"
        print(f"error: {message}", file=sys.stderr, flush=True)
        sys.exit(2)

    return wrapper
