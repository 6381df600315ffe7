"""Tarballs as corpora ship them, whole and broken."""

import gzip
import io
import lzma
import tarfile

import numpy as np
import pytest

from speechbrain_mser.errors import InputError
from speechbrain_mser.preparation import tarballs
from speechbrain_mser.preparation.tarballs import read_tarball

# Not a multiple of a block, and more than one
SOUND = bytes(range(256)) * 5


def pack(path, mode="w", names=("a/1.m4a", "a/2.m4a")):
    with tarfile.open(path, mode) as tarball:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(SOUND), 1e9
            tarball.addfile(member, io.BytesIO(SOUND))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_files_come_with_name_content_and_time(tmp_path, mode):
    pack(tmp_path / "x.tar", mode)
    found = [*read_tarball(tmp_path, "x.tar", [])]
    assert found == [(f"x.tar/a/{number}.m4a", SOUND, 1e9) for number in (1, 2)]


def test_what_is_unsafe_or_no_file_is_dropped(tmp_path):
    names = ("../1.m4a", "/2.m4a", "a/../../3.m4a", "a/._4.m4a", "5.m4a")
    path = pack(tmp_path / "x.tar", names=names)
    with tarfile.open(path, "a") as tarball:
        folder, link = tarfile.TarInfo("a"), tarfile.TarInfo("6.m4a")
        folder.type, link.type = tarfile.DIRTYPE, tarfile.SYMTYPE
        link.linkname = "/etc/passwd"
        tarball.addfile(folder)
        tarball.addfile(link)
    dropped = []
    found = [packed.name for packed in read_tarball(tmp_path, "x.tar", dropped)]
    assert found == ["x.tar/5.m4a"]
    unsafe = "unsafe: a path that leaves its folder"
    assert dict(dropped) == {
        **{f"x.tar/{name}": unsafe for name in names[:3]},
        "x.tar/6.m4a": "unreadable: not a regular file",
    }


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.9])
def test_a_tarball_that_breaks_off_is_named_wherever_it_does(
    tmp_path, mode, part
):
    path = pack(tmp_path / "x.tar", mode)
    content = path.read_bytes()
    if mode == "w":
        # Blocks of zeros follow the end
        content = content[: 2 * (512 + 1536)]
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(InputError, match=r"x\.tar: broken off or damaged"):
        [*read_tarball(tmp_path, "x.tar", [])]


def test_a_page_in_place_of_a_tarball_is_named(tmp_path):
    (tmp_path / "x.tar").write_text("<html>404</html>")
    with pytest.raises(InputError, match=r"x\.tar: broken off or damaged"):
        [*read_tarball(tmp_path, "x.tar", [])]


def header(name, size, kind=tarfile.REGTYPE):
    """A member's header alone, whatever it claims."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("size", [2**50, 2**33, 300 * 2**20, 5000])
@pytest.mark.parametrize("name", ["a/1.m4a", "a/._1.m4a", "/a/1.m4a"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress])
def test_a_header_that_claims_more_than_there_is_is_damage(
    tmp_path, size, name, compress
):
    """`tarfile` looks for the end of 2^50 bytes until the next day."""
    content = header(name, size) + bytes(2048)
    (tmp_path / "x.tar").write_bytes(compress(content))
    with pytest.raises(InputError, match=r"x\.tar: broken off or damaged"):
        [*read_tarball(tmp_path, "x.tar", [])]


@pytest.mark.parametrize("size", [2**50, -512, -(2**40)])
@pytest.mark.parametrize(
    "kind",
    [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.GNUTYPE_LONGNAME, b"x", b"Z"],
)
def test_absurd_sizes_of_other_members_end_too(tmp_path, size, kind):
    content = header("a", size, kind) + bytes(2048)
    (tmp_path / "x.tar").write_bytes(content)
    try:
        [*read_tarball(tmp_path, "x.tar", [])]
    except InputError as error:
        assert "broken off or damaged" in str(error)


def test_what_is_too_large_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(tarballs, "_MAX_BYTES", len(SOUND))
    with tarfile.open(tmp_path / "x.tar", "w") as tarball:
        for name, more in (("1.m4a", 5000), ("2.m4a", 0)):
            member = tarfile.TarInfo(name)
            member.size = len(SOUND) + more
            tarball.addfile(member, io.BytesIO(SOUND + bytes(more)))
    dropped = []
    found = [packed.name for packed in read_tarball(tmp_path, "x.tar", dropped)]
    assert found == ["x.tar/2.m4a"]
    assert dropped == [("x.tar/1.m4a", "too large: 6280 bytes")]


def test_damage_is_named_whatever_it_makes_tarfile_raise(tmp_path):
    """Bytes changed in the headers and the compression; seeded."""
    rng = np.random.default_rng(0)
    for mode in ("w", "w:gz", "w:xz", "w:bz2"):
        whole = pack(tmp_path / "x.tar", mode).read_bytes()
        for _ in range(60):
            damaged = np.frombuffer(whole, np.uint8).copy()
            # Headers lie at 0 and at 2048
            where = rng.integers(0, 512, 4) + 2048 * rng.integers(0, 2)
            where %= len(damaged)
            damaged[where] = rng.integers(0, 256, 4)
            (tmp_path / "x.tar").write_bytes(damaged.tobytes())
            try:
                [*read_tarball(tmp_path, "x.tar", [])]
            except InputError as error:
                assert "broken off or damaged" in str(error)
