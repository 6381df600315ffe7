"""How a script ends: on the user's fault with a message, on ours loudly."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import speechbrain_mser
from speechbrain_mser.errors import exits_on_input_error, is_users

SCRIPT = """
import errno, os, shutil
from pathlib import Path
from speechbrain_mser.errors import InputError, exits_on_input_error

@exits_on_input_error
def main():
    {body}

main()
"""


def run(body, *arguments, cwd=None):
    """A real process, as a shell sees it."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=cwd,
    )


def ends_with(message, process):
    assert process.returncode == 2, process.stderr
    assert process.stderr.startswith("error: ")
    assert message in process.stderr
    assert "Traceback" not in process.stderr
    assert "None" not in process.stderr
    assert process.stdout == ""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise InputError('no folder /x: give --data_root')", "no folder /x"),
        # writing into a full disk has no file name in its error
        (
            "raise OSError(errno.ENOSPC, 'No space left on device')",
            "No space left on device\n",
        ),
        ("raise OSError(errno.EDQUOT, 'Quota exceeded')", "Quota exceeded\n"),
        ("raise OSError(errno.EROFS, 'Read-only', '/ro')", "Read-only: /ro"),
        ("raise PermissionError(13, 'x', '/ro')", "permission denied: /ro"),
    ],
)
def test_the_users_fault_ends_with_its_message_and_code_2(body, message):
    ends_with(message, run(body))


@pytest.mark.parametrize(
    ("body", "flags"),
    [
        ("open('{0}/a.csv')", ["--data_root", "{0}"]),
        ("open('{0}/a/b/c.csv')", ["--data_root={0}"]),
        ("os.mkdir('{0}')", ["--save_folder", "{0}/"]),
        ("open('{0}')", ["--table", "{0}"]),
        ("open('{0}/a')", ["--corpus_folders", "{{meld: {0}, mead: /x}}"]),
        ("open('{0}/a')", ["--recognizer", "[/x, '{0}']"]),
        ("os.rename('{0}/a', '/tmp/b')", ["--data_root", "{0}"]),
        ("open(Path('{0}') / 'n' * 300)", ["--output_folder", "{0}"]),
        ("os.listdir(b'{0}/a')", ["{0}"]),
    ],
)
def test_a_path_of_the_command_line_is_the_users(tmp_path, body, flags):
    body = body.replace("Path('{0}') / 'n' * 300", "'{0}/' + 'n' * 300")
    flags = [flag.format(tmp_path) for flag in flags]
    ends_with(str(tmp_path), run(body.format(tmp_path), *flags))


def test_a_relative_path_of_the_command_line_is_the_users(tmp_path):
    ends_with("none/a", run("open('none/a')", "--x", "none", cwd=tmp_path))
    ends_with("none/a", run("open('none/a')", "--x", ".", cwd=tmp_path))
    link = tmp_path / "link"
    (tmp_path / "real").mkdir()
    link.symlink_to("real")
    body = f"open('{tmp_path}/real/a')"
    ends_with("real/a", run(body, "--data_root", link))


@pytest.mark.parametrize(
    "body",
    [
        "[][1]",
        "raise ValueError('a bug')",
        "raise OSError(errno.EIO, 'disk')",
        "open('/nowhere/a.csv')",
        "os.mkdir('/tmp')",
        "open('label_map.json')",
        "shutil.move('nothing', 'nowhere')",
        "raise FileNotFoundError('what was this?')",
        "raise PermissionError('which?')",
        "raise BrokenPipeError(errno.EPIPE, 'Broken pipe')",
    ],
)
def test_a_bug_keeps_its_traceback(body, tmp_path):
    process = run(body, "--data_root", tmp_path / "data", cwd=tmp_path)
    assert process.returncode == 1
    assert "Traceback" in process.stderr


def test_what_lies_in_the_program_is_a_bug_whatever_was_given():
    inside = Path(speechbrain_mser.__file__).with_name("lost.yaml")
    assert not is_users(FileNotFoundError(2, "no", str(inside)), ["/", "."])
    library = Path(pytest.__file__).with_name("lost.json")
    assert not is_users(FileNotFoundError(2, "no", str(library)), ["/"])
    assert not is_users(PermissionError(13, "no", str(library)), ["/"])
    full = OSError(errno.ENOSPC, "full", str(library))
    assert is_users(full, [])


def test_a_place_without_permission_is_said_as_such(tmp_path):
    if os.geteuid() == 0:
        body = f"raise PermissionError(13, 'Permission denied', '{tmp_path}/a')"
    else:
        tmp_path.chmod(0o500)
        body = f"open('{tmp_path}/a', 'w')"
    ends_with(f"permission denied: {tmp_path}/a", run(body))


def test_a_main_that_works_returns_what_it_returns():
    process = run("print('done')")
    assert (process.returncode, process.stdout) == (0, "done\n")
    assert process.stderr == ""


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")],
)
@pytest.mark.parametrize("resumes", [True, False])
def test_an_interrupt_ends_without_a_traceback(
    tmp_path, sent, code, said, resumes
):
    script = tmp_path / "slow.py"
    script.write_text(
        "import os, signal\n"
        "from speechbrain_mser.errors import exits_on_input_error\n"
        f"@exits_on_input_error(resumes={resumes})\n"
        "def main():\n"
        f"    os.kill(os.getpid(), signal.{sent})\n"
        "    signal.pause()\n"
        "main()\n"
    )
    run = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False
    )
    assert run.returncode == code
    more = "; run it again to go on" if resumes else ""
    assert run.stderr == f"{said}{more}\n"


def test_a_signals_handling_is_given_back():
    before = signal.getsignal(signal.SIGTERM)
    seen = []
    exits_on_input_error(
        lambda: seen.append(signal.getsignal(signal.SIGTERM))
    )()
    assert seen != [before]
    assert signal.getsignal(signal.SIGTERM) == before
