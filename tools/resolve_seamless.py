#!/usr/bin/env python3
"""Check that SeamlessExpressive's requirements can be had, installing nothing.

Asks the package index, through ``uv`` (pip install uv), for what the pins of
recipes/M5SER/seamless_expressive/requirements.txt need on Python 3.11, Linux
x86-64, as wheels; only descriptions are fetched. They must agree with each
other, and everything they need must be pinned too, but for what torch pins.

Usage: python tools/resolve_seamless.py
"""

import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = (
    Path(__file__).resolve().parent.parent
    / "recipes/M5SER/seamless_expressive/requirements.txt"
)
# torch's own wheel names their versions.
PINNED_BY_TORCH = ("nvidia-", "triton")


def pins(text):
    """The ``name==version`` lines of a requirements file."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return {
        line for line in lines if line and not line.startswith(PINNED_BY_TORCH)
    }


def main():
    """Resolve, compare, say so."""
    uv = shutil.which("uv", path=Path(sys.executable).parent)
    uv = uv or shutil.which("uv")
    if uv is None:
        print("error: needs uv: pip install uv", file=sys.stderr)
        return 2
    resolved = subprocess.run(
        [
            *(uv, "pip", "compile", REQUIREMENTS, "--quiet"),
            *("--python-version", "3.11", "--only-binary", ":all:"),
            *("--python-platform", "x86_64-unknown-linux-gnu"),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if resolved.returncode:
        return 1
    wanted = pins(REQUIREMENTS.read_text())
    missing = sorted(pins(resolved.stdout) - wanted)
    if missing:
        print(f"error: not pinned: {', '.join(missing)}", file=sys.stderr)
        return 1
    print(f"{len(wanted)} pins agree and are complete")
    return 0


if __name__ == "__main__":
    sys.exit(main())
