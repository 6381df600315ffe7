"""How a script ends: on the user's fault with a message, on ours loudly."""

import signal
import subprocess
import sys

import pytest

from speechbrain_mser.errors import exits_on_input_error

SCRIPT = """
import errno
from speechbrain_mser.errors import InputError, exits_on_input_error

@exits_on_input_error
def main():
    {body}

main()
"""


def run(body):
    """A real process, as a shell sees it."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise InputError('no folder /x: give --data_root')", "no folder /x"),
        ("open('/nowhere/a.csv')", "No such file or directory: /nowhere/a.csv"),
        ("import os; os.mkdir('/')", "File exists: /"),
        ("open('/')", "Is a directory: /"),
        ("raise FileNotFoundError('no hub, no model')", "no hub, no model"),
        # writing into a full disk has no file name in its error
        (
            "raise OSError(errno.ENOSPC, 'No space left on device')",
            "No space left on device\n",
        ),
        ("raise OSError(errno.EDQUOT, 'Quota exceeded')", "Quota exceeded\n"),
        ("raise PermissionError(13, 'Denied', '/ro')", "Denied: /ro"),
    ],
)
def test_the_users_fault_ends_with_its_message_and_code_2(body, message):
    process = run(body)
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert message in process.stderr
    assert "Traceback" not in process.stderr
    assert "None" not in process.stderr
    assert process.stdout == ""


@pytest.mark.parametrize(
    "body",
    ["[][1]", "raise ValueError('a bug')", "raise OSError(errno.EIO, 'disk')"],
)
def test_a_bug_keeps_its_traceback(body):
    process = run(body)
    assert process.returncode == 1
    assert "Traceback" in process.stderr


def test_a_main_that_works_returns_what_it_returns():
    process = run("print('done')")
    assert (process.returncode, process.stdout) == (0, "done\n")
    assert process.stderr == ""


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")],
)
def test_an_interrupt_ends_without_a_traceback(tmp_path, sent, code, said):
    script = tmp_path / "slow.py"
    script.write_text(
        "import os, signal\n"
        "from speechbrain_mser.errors import exits_on_input_error\n"
        "@exits_on_input_error\n"
        "def main():\n"
        f"    os.kill(os.getpid(), signal.{sent})\n"
        "    signal.pause()\n"
        "main()\n"
    )
    run = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False
    )
    assert run.returncode == code
    assert run.stderr == f"{said}; run it again to go on\n"


def test_a_signals_handling_is_given_back():
    before = signal.getsignal(signal.SIGTERM)
    seen = []
    exits_on_input_error(
        lambda: seen.append(signal.getsignal(signal.SIGTERM))
    )()
    assert seen != [before]
    assert signal.getsignal(signal.SIGTERM) == before
