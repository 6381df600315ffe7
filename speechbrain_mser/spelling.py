"""One text, one spelling: letters with accents are one character or two.

``é`` is one character (composed, NFC) on most systems, and a letter with an
accent behind it (decomposed, NFD) in what macOS has packed. Both look alike, so
a speaker may be two, and a file that is there not be found.
"""

import os
import unicodedata
from pathlib import Path


def compose(text):
    """A text with every accented letter as one character (NFC).

    Arguments
    ---------
    text : str
        Whatever its spelling.

    Returns
    -------
    str
        Equal for texts that look alike.

    Example
    -------
    >>> compose("Jose\\u0301") == "Jos\\u00e9"
    True
    """
    return unicodedata.normalize("NFC", text)


def find_spelling(path, listings=None):
    """A path as the disk spells it, which may be otherwise than a user does.

    Arguments
    ---------
    path : str or path-like
        Wanted.
    listings : dict, optional
        What was listed before, where many paths are looked for; it is added
        to.

    Returns
    -------
    pathlib.Path
        The file or folder that is there, else the path, below whatever of it
        is there.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "Jose\\u0301").mkdir()
    >>> find_spelling(folder / "Jos\\u00e9").exists()
    True
    """
    path = Path(path)
    if str(path).isascii() or os.path.lexists(path):
        return path
    listings = {} if listings is None else listings
    found = Path(path.anchor)
    for part in path.parts[bool(path.anchor) :]:
        if not part.isascii() and not os.path.lexists(found / part):
            if found not in listings:
                listings[found] = _list(found)
            part = listings[found].get(compose(part), part)
        found /= part
    return found


def _list(folder):
    """Composed name to name, of what is in a folder."""
    try:
        return {compose(name): name for name in sorted(os.listdir(folder))}
    except OSError:
        return {}
