"""Open the page, on this machine alone unless told otherwise.

What is uploaded or recorded is recognised and forgotten.
"""

from speechbrain_mser.command import DONE, loading
from speechbrain_mser.errors import InputError


def add_arguments(parser):
    """Where it is, and with which recogniser.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Gets them.
    """
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7860)
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
        if error.name not in ("gradio", "speechbrain_mser.page"):
            raise
        raise InputError(
            "the page needs Gradio: pip install 'speechbrain-mser[page]'"
        ) from None
    serve(loading.load_named(options), host=options.host, port=options.port)
    return DONE
