"""Audio out of tarballs as corpora ship them, without unpacking them to disk.

Nobody unpacks tens of gigabytes of film for the sake of a gigabyte of sound.
"""

import tarfile
from pathlib import Path, PurePosixPath

from speechbrain_mser.errors import InputError
from speechbrain_mser.preparation.audio_extraction import Packed

# The largest film of a corpus has some tens of megabytes.
_MAX_BYTES = 256 * 2**20
# What is passed over is read too, so many bytes at a time.
_CHUNK = 2**20


def read_tarball(folder, path, dropped):
    """Read the files of a tarball one after the other.

    Arguments
    ---------
    folder : str or path-like
        What the path is relative to.
    path : str
        The tarball, compressed or not.
    dropped : list of (str, str)
        Gets the name and ``kind: detail`` of what is not read. Folders and
        hidden files need no mention.

    Yields
    ------
    Packed
        Its name is the tarball's path and, after a ``/``, its own.

    Raises
    ------
    InputError
        It breaks off, or is no tarball.

    Example
    -------
    >>> import io, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with tarfile.open(f"{folder}/audio.tar", "w") as tarball:
    ...     member = tarfile.TarInfo("audio/a.txt")
    ...     member.size = 5
    ...     tarball.addfile(member, io.BytesIO(b"hello"))
    >>> for packed in read_tarball(folder, "audio.tar", []):
    ...     print(packed.name, packed.data)
    audio.tar/audio/a.txt b'hello'
    """
    full = Path(folder, path)
    # As a stream: what is gzipped cannot be searched
    with _call(full, tarfile.open, full, "r|*") as tarball:
        while member := _call(full, tarball.next):
            inside = PurePosixPath(member.name)
            if member.isdir() or inside.name.startswith("."):
                problem = ""
            else:
                problem = _problem(member, inside)
                if not problem:
                    data = _call(full, tarball.extractfile(member).read)
                    yield Packed(f"{path}/{member.name}", data, member.mtime)
                    continue
                dropped.append((f"{path}/{member.name}", problem))
            _call(full, _pass_over, tarball, member)


def _call(full, function, *args):
    """Call tarfile; what it raises is the tarball's fault.

    Of `tarfile`, of every decompressor, and of numbers in a header that are
    none.
    """
    try:
        return function(*args)
    except Exception as error:
        raise InputError(
            f"{full}: broken off or damaged ({error}); download it again, "
            "or unpack what can be unpacked and delete it"
        ) from None


def _pass_over(tarball, member):
    """Read what is not wanted.

    `tarfile` would do so by itself, and would not end for a while where a
    header claims more than any tarball holds: here its end is an error.
    """
    # Those that have content: a link would be followed
    if member.isreg() or member.type not in tarfile.SUPPORTED_TYPES:
        content = tarball.extractfile(member)
        while content.read(_CHUNK):
            pass


def _problem(member, inside):
    if inside.is_absolute() or ".." in inside.parts:
        return "unsafe: a path that leaves its folder"
    if not member.isfile():
        return "unreadable: not a regular file"
    if member.size > _MAX_BYTES:
        return f"too large: {member.size} bytes"
    return ""
