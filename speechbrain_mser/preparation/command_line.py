"""The command lines that several scripts have in common."""

import argparse
from pathlib import Path

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


def argument_parser(corpus, about, speaker_options=True):
    """Read the folders, and the choices that a corpus leaves.

    Arguments
    ---------
    corpus : Corpus
        What is true of the corpus.
    about : str
        The script's docstring.
    speaker_options : bool
        False for a script with options of its own for its splits.

    Returns
    -------
    argparse.ArgumentParser
        A script may add options of its own.

    Example
    -------
    >>> from speechbrain_mser.preparation.corpus import Corpus
    >>> toy = Corpus("toy", "eng", __file__, "wav", valid_speakers=("anna",))
    >>> parser = argument_parser(toy, "A toy corpus.")
    >>> parser.parse_args(["--data_folder", "toy", "--save_folder", "out"])
    Namespace(data_folder='toy', save_folder='out', valid_speakers=('anna',),
              test_speakers=(), decode=False)
    """
    parser = argparse.ArgumentParser(
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--data_folder",
        required=True,
        help=f"the corpus as distributed: the folder with {corpus.layout}",
    )
    add("--save_folder", required=True, help="where the manifest goes")
    if speaker_options and not corpus.official_splits:
        add(
            "--valid_speakers",
            nargs="*",
            metavar="SPEAKER",
            default=corpus.valid_speakers,
            help="the validation split; default: "
            f"{' '.join(corpus.valid_speakers) or 'none'}",
        )
        add(
            "--test_speakers",
            nargs="*",
            metavar="SPEAKER",
            default=corpus.test_speakers,
            help=f"the test split, or '{ALL}' for all others; default: "
            f"{' '.join(corpus.test_speakers) or 'none'}",
        )
    if corpus.exclusions:
        add(
            "--drop_known_bad",
            action="store_true",
            help=f"drop the items of exclusions/{Path(corpus.exclusions).name} "
            "although they can be read",
        )
    add(
        "--decode",
        action="store_true",
        help="decode every file, to find silent and broken-off ones too",
    )
    return parser
