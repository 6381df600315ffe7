"""A recogniser to test with: trained for an epoch on the tiny corpus."""

import importlib
import sys

from speechbrain_mser.settings.project_files import HPARAMS


def train_recognizer(tiny_flags, output):
    """Run train.py in this process; return the recogniser's folder."""
    flags = {"lr": 1e-2, **tiny_flags, "output_folder": output}
    argv = ["train", str(HPARAMS / "stage1.yaml")]
    for name, value in flags.items():
        argv += [f"--{name}", str(value)]
    saved, sys.argv = sys.argv, argv
    try:
        importlib.import_module("train").main()
    finally:
        sys.argv = saved
    return output / "recognizer"
