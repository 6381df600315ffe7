#!/usr/bin/env python3
"""Make torchaudio importable beside a CPU-only torch.

On Linux x86-64 the package index's torchaudio is linked against CUDA; beside
a torch without CUDA its compiled extension cannot be loaded, ``import
torchaudio`` fails, and with it SpeechBrain. torchaudio works without the
extension where it is absent. This removes the extension's files from the
environment that runs it, when torch has no CUDA and the import does fail;
everything else is left alone.

Usage: python tools/mend_torchaudio.py
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

IMPORT = [sys.executable, "-c", "import torchaudio"]


def imports():
    """Whether torchaudio can be imported, and the last line of the error."""
    run = subprocess.run(IMPORT, capture_output=True, text=True, check=False)
    lines = run.stderr.strip().splitlines()
    return run.returncode == 0, lines[-1] if lines else ""


def main():
    """Look, and mend where that is needed."""
    import torch

    if torch.version.cuda or getattr(torch.version, "hip", None):
        print("torchaudio: torch is a GPU build, nothing to mend")
        return 0
    works, error = imports()
    if works:
        print("torchaudio: can be imported, nothing to mend")
        return 0
    spec = importlib.util.find_spec("torchaudio")
    if spec is None:
        print("torchaudio: not installed", file=sys.stderr)
        return 1
    compiled = sorted(Path(spec.origin).parent.glob("lib/*.so"))
    if not compiled or "load" not in error.lower():
        print(f"torchaudio: cannot be imported: {error}", file=sys.stderr)
        return 1
    for path in compiled:
        path.unlink()
    names = ", ".join(path.name for path in compiled)
    print(
        "torchaudio: its compiled extension needs CUDA and this torch has "
        f"none; removed {names} from {compiled[0].parent}"
    )
    works, error = imports()
    if not works:
        print(f"torchaudio: still not importable: {error}", file=sys.stderr)
    return 0 if works else 1


if __name__ == "__main__":
    sys.exit(main())
