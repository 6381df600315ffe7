"""Open the page, on this machine alone unless told otherwise.

What is uploaded or recorded is recognised and forgotten.
"""

import argparse

from speechbrain_mser.command import DONE, loading
from speechbrain_mser.errors import InputError


def add_arguments(parser):
    """Where it is, and with which recogniser.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Gets them.
    """
    # By default as the library says: it is not imported for this
    for name, kind, what in (
        ("--host", str, "127.0.0.1; 0.0.0.0 is for all who reach it"),
        ("--port", int, "7860"),
        ("--max-mb", float, "megabytes that may be uploaded: 100"),
        ("--max-minutes", float, "of audio at a time: 60"),
    ):
        parser.add_argument(
            name, type=kind, default=argparse.SUPPRESS, help=what
        )
    loading.add_calibration(parser)
    loading.add_arguments(parser)


def run(options, data):
    """Serve it until interrupted.

    Arguments
    ---------
    options : argparse.Namespace
        Parsed.
    data : file-like
        Gets nothing.

    Returns
    -------
    int
        The exit code.

    Raises
    ------
    InputError
        What the page is made with is not installed.
    """
    try:
        from speechbrain_mser.page import serve
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise InputError(
            "the page needs Gradio: pip install 'speechbrain-mser[page]'"
        ) from None
    serve(
        loading.load_named(options),
        calibration=options.calibration,
        **{
            name: value
            for name, value in vars(options).items()
            if name in ("host", "port", "max_mb", "max_minutes")
        },
    )
    return DONE
