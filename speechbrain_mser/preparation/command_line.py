"""The command lines that several scripts have in common."""

import argparse
import inspect
from pathlib import Path

from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.preparation.splits import ALL


def sources_parser(about):
    """Read where translations and their sources are.

    Arguments
    ---------
    about : str
        The script's docstring.

    Returns
    -------
    argparse.ArgumentParser
        Of ``data_folder`` and ``manifest``, a list of pairs; a script may add
        options of its own.

    Example
    -------
    >>> parser = sources_parser("Look at translations.")
    >>> parser.parse_args(
    ...     ["--data_folder", "M5SER", "--manifest", "meld.csv", "MELD"]
    ... )
    Namespace(data_folder='M5SER', manifest=[['meld.csv', 'MELD']])
    """
    parser = argparse.ArgumentParser(
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data_folder", required=True, help="what synthesize.py wrote"
    )
    parser.add_argument(
        "--manifest",
        nargs=2,
        action="append",
        required=True,
        metavar=("FILE", "FOLDER"),
        help="a source's manifest, and the folder of its corpus",
    )
    return parser


def argument_parser(corpus, prepare, about, options=None):
    """Read the folders, and the choices that a corpus leaves.

    Arguments
    ---------
    corpus : Corpus
        What is true of the corpus.
    prepare : callable
        ``prepare_<corpus>``: a flag for each of its arguments, with the
        same default.
    about : str
        The script's docstring.
    options : dict, optional
        For arguments that no other corpus has: name to what
        `argparse.ArgumentParser.add_argument` takes.

    Returns
    -------
    argparse.ArgumentParser
        Of the function's arguments.

    Example
    -------
    >>> from speechbrain_mser.preparation.corpus import Corpus, preparation
    >>> toy = Corpus("toy", "eng", __file__, "wav", valid_speakers=("anna",))
    >>> parser = argument_parser(toy, preparation(toy, None), "A toy corpus.")
    >>> parser.parse_args(["--data_folder", "toy", "--save_folder", "out"])
    Namespace(data_folder='toy', save_folder='out', valid_speakers=('anna',),
              test_speakers=(), decode=False)
    """
    parser = argparse.ArgumentParser(
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    flags = {**_common_flags(corpus), **(options or {})}
    arguments = inspect.signature(prepare).parameters
    for name in (name for name in flags if name in arguments):
        default = arguments[name].default
        if default is inspect.Parameter.empty:
            usual = {"required": True}
        elif type(default) in (int, float):
            usual = {"type": type(default), "default": default}
        else:
            usual = {"default": default}
        parser.add_argument(f"--{name}", **{**usual, **flags[name]})
    return parser


def _common_flags(corpus):
    """The arguments that most corpora have."""
    speakers = {"nargs": "*", "metavar": "SPEAKER"}
    valid = " ".join(corpus.valid_speakers) or "none"
    test = " ".join(corpus.test_speakers) or "none"
    listed = Path(corpus.exclusions or "").name
    return {
        "data_folder": {
            "help": f"the corpus as distributed: the folder with {corpus.layout}"
        },
        "save_folder": {"help": "where the manifest goes"},
        "valid_speakers": {
            **speakers,
            "help": f"the validation split; default: {valid}",
        },
        "test_speakers": {
            **speakers,
            "help": f"the test split, or '{ALL}' for all others; "
            f"default: {test}",
        },
        "drop_known_bad": {
            "action": "store_true",
            "help": f"drop the items of exclusions/{listed} although they can "
            "be read",
        },
        "decode": {
            "action": "store_true",
            "help": "decode every file, to find silent and broken-off ones too",
        },
    }


def entry_point(corpus, prepare, about, /, **options):
    """The ``main`` of a preparation script.

    Arguments
    ---------
    corpus, prepare, about, **options
        As for `argument_parser`.

    Returns
    -------
    callable
        Reads the command line and prepares; ends as
        `exits_on_input_error` says.
    """

    @exits_on_input_error
    def main():
        parser = argument_parser(corpus, prepare, about, options)
        prepare(**vars(parser.parse_args()))

    return main
