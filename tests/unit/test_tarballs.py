"""Tarballs as corpora ship them, whole and broken."""

import io
import tarfile

import pytest

from speechbrain_mser.dataio.tarballs import read_tarball
from speechbrain_mser.errors import InputError

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
