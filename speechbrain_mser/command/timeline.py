"""Say who feels what and when, in a recording of any length.

Speech is found, cut into windows, recognised and smoothed; segments have
start, end, speaker and probabilities.
"""

import os

from speechbrain_mser.command import DONE, loading
from speechbrain_mser.command.results import printable
from speechbrain_mser.errors import InputError

FORMATS = ("json", "csv", "rttm", "textgrid", "audformat")
CHANNELS = "channels"


def add_arguments(parser):
    """Of which recording, and in which form.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Gets them.
    """
    parser.add_argument("recording", metavar="FILE")
    loading.add_labels(parser)
    speakers = parser.add_mutually_exclusive_group()
    speakers.add_argument(
        "--rttm", metavar="FILE", help="who speaks when, as pyannote writes it"
    )
    speakers.add_argument(
        "--speakers",
        choices=[CHANNELS],
        help="channels: each channel of a call is a speaker",
    )
    parser.add_argument(
        "--no-listen",
        action="store_true",
        help="do not get to know each speaker's voice first",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="by default a table on a terminal, else json",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="by default standard output"
    )
    parser.add_argument(
        "--plot", metavar="FILE", help="a picture of it: .png, .pdf or .svg"
    )
    loading.add_arguments(parser)


def run(options, data):
    """Make it, write it, draw it.

    Arguments
    ---------
    options : argparse.Namespace
        Parsed.
    data : file-like
        Gets it, where no output is named.

    Returns
    -------
    int
        The exit code.

    Raises
    ------
    InputError
        The recording, the recogniser or the speakers cannot be used.
    """
    for path in (options.recording, options.rttm):
        if path and not os.path.isfile(path):
            raise InputError(f"{path}: there is no such file")
    from speechbrain_mser.timeline import make_timeline, plot_timeline

    made = make_timeline(
        loading.load_named(options),
        options.recording,
        labels=options.labels,
        speakers=options.rttm or options.speakers,
        listen=not options.no_listen,
    )
    if options.output:
        made.write(options.output, options.format or "json")
    elif options.format or not data.isatty():
        made.write(data, options.format or "json")
    else:
        data.writelines(map(_line, made.segments))
    if options.plot:
        plot_timeline(made, options.plot)
    return DONE


def _line(segment):
    """A segment, for people."""
    speaker = f"{printable(segment.speaker):<12} " if segment.speaker else ""
    return (
        f"{segment.start:8.1f} {segment.end:8.1f} s  {speaker}"
        f"{segment.emotion:<12} {segment.probability:4.2f}\n"
    )
