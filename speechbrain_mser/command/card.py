"""What a recogniser was trained on, what it reaches, what it is not for."""

import re

from speechbrain_mser.command import DONE
from speechbrain_mser.command.loading import RELEASED
from speechbrain_mser.errors import InputError

# What a stranger's card could move a terminal's cursor with.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def add_arguments(parser):
    """Whose card, and in which form.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Gets them.
    """
    parser.add_argument(
        "--recognizer",
        default=RELEASED,
        metavar="FOLDER|NAME",
        help="a recogniser's folder, or its name on the hub; by default the "
        "released one",
    )
    parser.add_argument(
        "--json", action="store_true", help="its figures (card.json)"
    )


def run(options, data):
    """Print it.

    Arguments
    ---------
    options : argparse.Namespace
        Parsed.
    data : file-like
        Gets the text.

    Returns
    -------
    int
        The exit code.

    Raises
    ------
    InputError
        There is no such folder, or no card in it.
    """
    from speechbrain_mser.files.tables import read_text
    from speechbrain_mser.inference.folder import (
        CARD,
        find_beside,
        find_folder,
    )
    from speechbrain_mser.inference.model_card import (
        card_facts,
        model_card,
        without_head,
    )
    from speechbrain_mser.training.record import FILE

    folder = find_folder(options.recognizer)
    path = find_beside(folder, FILE if options.json else CARD)
    if path.is_file():
        text = read_text(path)
    elif options.json or not (folder / FILE).is_file():
        raise InputError(
            f"{folder} has no {path.name}: whoever trained this recogniser "
            "says neither on what, nor what it reaches"
        )
    else:
        text = model_card(options.recognizer, card_facts(folder))
    text = text if options.json else without_head(text)
    data.write(_CONTROL.sub("", text))
    return DONE
