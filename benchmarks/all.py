#!/usr/bin/env python3
"""Every benchmark of this folder, and one table of what they found.

Each script runs in a process of its own, so that none warms another's caches
or counts another's memory. A script that fails is named in the end; the
others' rows are printed all the same.

Usage: python benchmarks/all.py [--data ../shared/data]
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from report import RESULTS, Row, table

from speechbrain_mser.files.atomic import write_text

HERE = Path(__file__).resolve().parent
# Those that work on speech take --data.
SCRIPTS = {
    "encode": True,
    "epoch": True,
    "score": False,
    "dtype": False,
    "prefix": False,
    "loss_memory": False,
    "feature_store": False,
    "decode_audio": True,
    "connect": True,
    "batches": False,
    "one_by_one": True,
    "synthesis": True,
    "timeline": True,
    "lengths": True,
}


def rows_of(name):
    """The rows that a script has written."""
    results = json.loads((RESULTS / f"{name}.json").read_text())
    for row in results["rows"]:
        del row["met"]
    return [Row(**row) for row in results["rows"]]


def main():
    """Run, collect, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=SCRIPTS)
    arguments = parser.parse_args()
    rows, failed = [], []
    for name in arguments.only:
        print(f"\n[{name}]", flush=True)
        data = ["--data", arguments.data] if SCRIPTS[name] else []
        command = [sys.executable, HERE / f"{name}.py", *data]
        if subprocess.call(command) == 0:
            rows += rows_of(name)
        else:
            failed.append(name)
    text = table(rows)
    write_text(RESULTS / "table.md", text + "\n")
    print(f"\n{text}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
