"""Processes that train together: how they end."""

import os
import signal
import subprocess
import sys

import pytest

# Whoever is asked for a tensor's reference when the interpreter is being taken
# apart ends the process; here a finaliser notes that this was begun.
SCRIPT = """
import atexit, os, sys
import torch
from speechbrain_mser.distributed import ends_with_its_group, process_group

class Finalised:
    def __del__(self):
        print("taken apart", flush=True)

kept = Finalised()
atexit.register(print, "registered")

@ends_with_its_group
def main():
    torch.distributed.init_process_group(
        "gloo", init_method="file://" + sys.argv[1], rank=0, world_size=1
    )
    with process_group({{}}):
        print("in the group", end="")
        {body}

main()
print("beyond")
"""


def run(body, folder):
    """A real process; its exit code, output and errors."""
    environment = {**os.environ}
    environment.pop("RANK", None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body), folder / "meeting"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=environment,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("pass", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('no folder')", 1, "no folder\n"),
        ("raise KeyError('a bug')", 1, "KeyError: 'a bug'\n"),
    ],
)
def test_a_process_ends_with_its_group_however_it_ends(
    body, code, message, tmp_path
):
    ended, output, errors = run(body, tmp_path)
    assert ended == code
    assert ended != -signal.SIGABRT
    assert errors.endswith(message)
    # What is registered is done; the interpreter is not taken apart, and
    # nothing is left of its threads that could mind.
    assert output == "in the groupregistered\n"
