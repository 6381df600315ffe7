"""``mser``: parses a command line, and ends with an exit code."""

import argparse
import io
import os
import sys
from contextlib import contextmanager, redirect_stdout, suppress

from speechbrain_mser import __version__
from speechbrain_mser.command import (
    NOBODY_READS,
    card,
    find,
    listen,
    models,
    recognize,
    serve,
    timeline,
)
from speechbrain_mser.errors import InputError, exits_on_input_error
from speechbrain_mser.torchaudio_extension import check_torchaudio

COMMANDS = {
    module.__name__.rpartition(".")[2]: module
    for module in (recognize, timeline, listen, find, models, serve, card)
}
_EPILOG = """\
exit codes: 0 all is done; 2 nothing could be done, the reason is on stderr;
3 some files could not be used, each with its reason; 130 interrupted.
Training and evaluation: python -m speechbrain_mser --help
"""


def summary(module):
    """What a subcommand does, in a line.

    Arguments
    ---------
    module : module
        One of `COMMANDS`.

    Returns
    -------
    str
        Its docstring's first line.

    Example
    -------
    >>> summary(listen)
    'Listen to a room or a speaker, and keep what was heard.'
    """
    return module.__doc__.partition("\n")[0]


def build_parser():
    """The command line, whole.

    Returns
    -------
    argparse.ArgumentParser
        Its options hold ``run``, the subcommand's.
    """
    parser = argparse.ArgumentParser(
        prog="mser",
        description="Say which emotion is heard in recordings of speech.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        own = parsers.add_parser(
            name,
            help=summary(module),
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(own)
        own.set_defaults(run=module.run)
    return parser


# Of the commands, those that go on where they were say so.
@exits_on_input_error
def main(arguments=None):
    """Run a subcommand.

    Arguments
    ---------
    arguments : list of str, optional
        By default those that the process was called with.

    Returns
    -------
    int
        The exit code.

    Raises
    ------
    SystemExit
        The command line, or what it names, cannot be used.
    """
    options = build_parser().parse_args(arguments)
    try:
        check_torchaudio()
    except ImportError as error:
        raise InputError(str(error)) from None
    with _data_alone() as data:
        try:
            code = options.run(options, data)
            data.flush()
        except BrokenPipeError:
            # head has seen enough; what is still to be flushed goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), data.fileno())
            return NOBODY_READS
    return code


class _Closed(io.TextIOBase):
    """In place of standard output that is closed; some need none."""

    def write(self, text):
        """Refuse."""
        raise InputError("standard output is closed: name a file (--output)")


@contextmanager
def _data_alone():
    """Standard output for data; whatever libraries print goes to stderr."""
    data = sys.stdout or _Closed()
    # What a test or a notebook puts there need not have it
    with suppress(AttributeError):
        # Paths come out as the bytes that they are
        data.reconfigure(
            encoding=None if data.isatty() else "utf-8",
            errors="surrogateescape",
        )
    with redirect_stdout(sys.stderr):
        yield data
