"""Digests of what features are made of: settings, weights, audio files."""

import hashlib
import json
import os

DIGEST_BYTES = 16
# Read in pieces: a whole-video WAV does not have to fit the memory.
BLOCK = 1 << 20


def new_digest(data=b""):
    """What the digests of features and models are made with.

    Arguments
    ---------
    data : bytes
        The beginning.

    Returns
    -------
    hashlib.blake2b
        To be updated.
    """
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES)


def sha256(data):
    """What a record says of the bytes that it goes with.

    Arguments
    ---------
    data : bytes
        All of them.

    Returns
    -------
    str
        SHA-256, which any ``sha256sum`` checks.

    Example
    -------
    >>> sha256(b"abc")[:16]
    'ba7816bf8f01cfea'
    """
    return hashlib.sha256(data).hexdigest()


def settings_digest(settings):
    """A name for a set of settings.

    Arguments
    ---------
    settings : dict
        Plain values, nested or not; their order does not matter.

    Returns
    -------
    str
        32 hexadecimal digits.

    Example
    -------
    >>> a = settings_digest({"layers": [1, 2], "dtype": "float16"})
    >>> a == settings_digest({"dtype": "float16", "layers": [1, 2]})
    True
    >>> a == settings_digest({"dtype": "float16", "layers": [2, 1]})
    False
    """
    text = json.dumps(settings, sort_keys=True)
    return new_digest(text.encode()).hexdigest()


def weights_digest(module):
    """What a module's parameters and buffers are, whatever it was loaded from.

    Arguments
    ---------
    module : torch.nn.Module
        On any device.

    Returns
    -------
    str
        32 hexadecimal digits.

    Example
    -------
    >>> import torch
    >>> layer = torch.nn.Linear(2, 2)
    >>> before = weights_digest(layer)
    >>> with torch.no_grad():
    ...     _ = layer.bias.add_(1e-3)
    >>> before == weights_digest(layer)
    False
    """
    # Processes that look at files only do without
    import torch

    digest = new_digest()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        tensor = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(tensor.view(torch.uint8).numpy())
    return digest.hexdigest()


def file_digest(path):
    """What is in a file.

    Arguments
    ---------
    path : str or path-like
        The file.

    Returns
    -------
    bytes
        16 bytes.

    Raises
    ------
    OSError
        It cannot be read.
    """
    return _read_into(new_digest(), path).digest()


def file_sha256(path):
    """What other people say is in a file.

    Arguments
    ---------
    path : str or path-like
        The file.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    OSError
        It cannot be read.
    """
    return _read_into(hashlib.sha256(), path).hexdigest()


def _read_into(digest, path):
    """A digest of hashlib's, with all of a file added to it."""
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest


def file_identity(path):
    """A file's path, size and times: another one when its content changes.

    The time of the last change of the inode is in it too, which copying tools
    cannot set back as they do the time of the last modification.

    Arguments
    ---------
    path : str or path-like
        The file.

    Returns
    -------
    bytes
        16 bytes.

    Raises
    ------
    OSError
        There is none.
    """
    status = os.stat(path)
    text = (
        f"{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}"
        f"\0{status.st_ctime_ns}\0{status.st_ino}"
    )
    return new_digest(text.encode(errors="surrogateescape")).digest()
