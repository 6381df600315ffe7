"""What a recogniser was trained on, what it reaches, what it is not for."""

from pathlib import Path

from speechbrain_mser.command import DONE
from speechbrain_mser.command.loading import RELEASED
from speechbrain_mser.errors import InputError

CARD, FIGURES = "README.md", "card.json"


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
        metavar="FOLDER",
        help="a recogniser's folder; by default the released one's",
    )
    parser.add_argument(
        "--json", action="store_true", help=f"its figures ({FIGURES})"
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
    from speechbrain_mser.inference.folder import RELEASED_FOLDER

    released = options.recognizer == RELEASED
    folder = RELEASED_FOLDER if released else Path(options.recognizer)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    path = folder / (FIGURES if options.json else CARD)
    if not path.is_file():
        raise InputError(
            f"{folder} has no {path.name}: whoever trained this recogniser "
            "says neither on what, nor what it reaches"
        )
    text = path.read_text(encoding="utf-8")
    data.write(text if options.json else _without_front_matter(text))
    return DONE


def _without_front_matter(text):
    """The text without what is for the hub's machines."""
    lines = text.splitlines(keepends=True)
    if lines and lines[0].strip() == "---":
        ends = [n for n, line in enumerate(lines) if line.strip() == "---"]
        if len(ends) > 1:
            lines = lines[ends[1] + 1 :]
    return "".join(lines).lstrip("\n")
