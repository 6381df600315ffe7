"""The file that makes a folder a checkpoint: written last, with checksums.

``CKPT.yaml`` holds what is known of a checkpoint, the checksum of each of its
files, and in its last line its own, as its head says. One of an earlier
version has no checksums; it counts as it is.
"""

import zlib

import yaml
from speechbrain.utils.checkpoints import METAFNAME

from speechbrain_mser.files.atomic import atomic_path, to_disk

# What is cut after it is known to be cut, whatever stands in which order: some
# packages (oyaml) change the order in which YAML is written.
HEAD = b"# yamllint disable\n# The checksum of this file is its last line.\n"
# Before the checksum of all that stands before it; a comment in YAML.
MARK = b"# crc32 "
BLOCK = 1 << 20


class DamagedError(Exception):
    """What is wrong with a checkpoint's files."""


def seal(folder, meta):
    """Make a folder a checkpoint, when all in it is on the disk.

    Arguments
    ---------
    folder : pathlib.Path
        With all files of the checkpoint.
    meta : dict
        What is to be known of it: plain values.

    Returns
    -------
    dict
        The same and the files' checksums.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "counter.ckpt").write_text("1")
    >>> meta = seal(folder, {"unixtime": 1.5, "end-of-epoch": True})
    >>> meta["checksums"]
    {'counter.ckpt': '83dcefb7'}
    >>> read_seal(folder) == meta
    True
    """
    checksums = {}
    for path in sorted(folder.iterdir()):
        to_disk(path)
        checksums[path.name] = _checksum(path)
    meta = {**meta, "checksums": checksums}
    body = HEAD + yaml.safe_dump(meta).encode()
    with atomic_path(folder / METAFNAME) as partial:
        partial.write_bytes(body + MARK + f"{zlib.crc32(body):08x}\n".encode())
    # The folder's own name
    to_disk(folder.parent)
    return meta


def read_seal(folder):
    """What is known of a checkpoint.

    Arguments
    ---------
    folder : pathlib.Path
        With a ``CKPT.yaml`` in it.

    Returns
    -------
    dict
        At least ``unixtime`` and ``end-of-epoch``.

    Raises
    ------
    DamagedError
        It is empty, half a file, or was changed.
    """
    text = (folder / METAFNAME).read_bytes()
    body, mark, checksum = text.rpartition(MARK)
    if mark and checksum.strip() != f"{zlib.crc32(body):08x}".encode():
        raise DamagedError(f"{METAFNAME} is not what was written")
    try:
        meta = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        meta = None
    if (
        not isinstance(meta, dict)
        or not isinstance(meta.get("unixtime"), (int, float))
        or not isinstance(meta.get("end-of-epoch"), bool)
        or not isinstance(meta.get("number", 0), int)
        or (not mark and ("checksums" in meta or text.startswith(HEAD)))
    ):
        raise DamagedError(f"{METAFNAME} is empty, cut or garbled")
    return meta


def check_files(folder, meta):
    """Compare a checkpoint's files with their checksums.

    Arguments
    ---------
    folder : pathlib.Path
        The checkpoint.
    meta : dict
        From `read_seal`.

    Raises
    ------
    DamagedError
        Names the first file that is not what was written.
    """
    for name, expected in meta.get("checksums", {}).items():
        try:
            checksum = _checksum(folder / name)
        except FileNotFoundError:
            raise DamagedError(f"{name} is not there") from None
        if checksum != expected:
            raise DamagedError(
                f"{name} is not what was written (its checksum differs)"
            )


def _checksum(path):
    value = 0
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            value = zlib.crc32(block, value)
    return f"{value:08x}"
