#!/usr/bin/env python3
"""Build the wheel, and try it in an empty environment of each Python.

    python tools/try_wheel.py --folder .venv-wheel python3.10 python3.13

The wheel is built from the sdist, as an index would have it. In each
environment are the wheel, what it asks for, and pytest; there a miniature is
trained, evaluated and recognised with, in a folder that holds nothing else
(tests/installed.py). On Linux x86-64 torch comes with CUDA, several GB, unless
pip finds another; PIP_CONSTRAINT=tests/oldest.txt takes the oldest of all.
"""

import argparse
import shutil
import subprocess
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*command, **options):
    """Run a command, and say it."""
    print("+", *command, flush=True)
    return subprocess.run(list(map(str, command)), check=True, **options)


def build(folder):
    """The wheel, built from the sdist.

    Arguments
    ---------
    folder : pathlib.Path
        Where the environment that builds it goes, and both files.

    Returns
    -------
    pathlib.Path
        The wheel.
    """
    venv.create(folder / "build", with_pip=True)
    run(folder / "build/bin/pip", "install", "--quiet", "build")
    shutil.rmtree(folder / "dist", ignore_errors=True)
    run(
        *(folder / "build/bin/python", "-m", "build"),
        *("--outdir", folder / "dist", ROOT),
        stdout=subprocess.DEVNULL,
    )
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def try_wheel(wheel, python, folder):
    """Install it in an environment that is made anew, and use it.

    Arguments
    ---------
    wheel : pathlib.Path
        What `build` made.
    python : str
        A Python: its command or its path.
    folder : pathlib.Path
        The environment's.
    """
    run(python, "-m", "venv", "--clear", folder)
    own = folder / "bin/python"
    run(own, "-m", "pip", "install", "--quiet", wheel, "pytest")
    run(own, "-m", "speechbrain_mser", "mend-torchaudio")
    run(folder / "bin/mser", "--help", stdout=subprocess.DEVNULL)
    run(folder / "bin/mser", "card", stdout=subprocess.DEVNULL)
    versions = "import sys, torch, transformers, numpy, pandas; print(" + (
        "'Python', sys.version.split()[0], *(f'{m.__name__} {m.__version__}' "
        "for m in (torch, transformers, numpy, pandas)))"
    )
    run(own, "-c", versions)
    # pytest's own command: python -m would find the checkout's package
    run(
        *(folder / "bin/pytest", "-q", "-p", "no:cacheprovider"),
        ROOT / "tests/installed.py",
        cwd=folder,
    )


def main():
    """Build once, try in each."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pythons", nargs="+", metavar="python")
    parser.add_argument("--folder", type=Path, default=Path(".venv-wheel"))
    options = parser.parse_args()
    folder = options.folder.absolute()
    wheel = build(folder)
    for python in options.pythons:
        name = Path(shutil.which(python) or python).resolve().name
        try_wheel(wheel, python, folder / name)


if __name__ == "__main__":
    main()
