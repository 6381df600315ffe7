"""Files that are there whole or not at all."""

import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path):
    """A path to write to, that becomes the real one if nothing fails.

    Arguments
    ---------
    path : str or path-like
        The file to make or replace; its folder is made when missing.

    Yields
    ------
    pathlib.Path
        A file beside it (a rename cannot cross file systems), which is
        removed again when the block raises.

    Example
    -------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_path(path) as partial:
    ...     _ = partial.write_text("whole")
    ...     path.exists()
    False
    >>> path.read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays: writers such as matplotlib's go by it.
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
