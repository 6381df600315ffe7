"""Listen to a room or a speaker, and keep what was heard.

What is kept are sums over the encoder's features: no audio, and no utterance
can be had back. It serves the recogniser that heard it: --heard FILE.
"""

import sys

from speechbrain_mser.command import DONE, SOME_BAD, loading, recordings
from speechbrain_mser.files.atomic import check_output


def add_arguments(parser):
    """What is heard, by whom, and where that is kept.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Gets them.
    """
    recordings.add_arguments(parser)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="a safetensors file; with --heard, what was heard before "
        "is in it too",
    )
    loading.add_arguments(parser)


def run(options, data):
    """Listen.

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
        None of the recordings can be heard, or the output is a folder.
    """
    check_output(options.output)
    found = list(recordings.find_recordings(options.recordings))
    recognizer = loading.load_named(options)
    before = recognizer.heard.utterances if recognizer.heard else 0
    heard = recognizer.listen([path for path, _ in found])
    heard.save(options.output)
    now = heard.utterances - before
    print(
        f"{options.output}: heard {now} of {len(found)} recordings"
        + (f", {heard.utterances} in all" if before else ""),
        file=sys.stderr,
    )
    return DONE if now == len(found) else SOME_BAD
