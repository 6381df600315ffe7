"""Say who feels what and when, in a recording of any length.

Speech is found, cut into windows, recognised and smoothed; segments have
start, end, speaker and probabilities.
"""

import argparse
import os
from pathlib import Path

from speechbrain_mser.command import DONE, loading
from speechbrain_mser.command.recordings import STDIN, standard_input
from speechbrain_mser.command.results import printable
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import check_output

FORMATS = ("json", "csv", "rttm", "textgrid", "eaf", "audformat")
CHANNELS = "channels"


def add_arguments(parser):
    """Of which recording, and in which form.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Gets them.
    """
    parser.add_argument(
        "recording",
        metavar="FILE|-",
        help="audio of any kind and length; - reads it from standard input",
    )
    loading.add_labels(parser)
    loading.add_calibration(parser)
    for name, what in (
        ("--window", "seconds that are recognised at a time"),
        ("--hop", "seconds between their starts"),
    ):
        parser.add_argument(
            name, type=float, default=argparse.SUPPRESS, metavar="S", help=what
        )
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
        help="by default what the output's name ends in; json; on a terminal "
        "a table",
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
    _check(options)
    from speechbrain_mser.timeline import make_timeline

    from_stdin = options.recording == STDIN
    recognizer = loading.load_named(options)
    made = make_timeline(
        recognizer,
        standard_input() if from_stdin else options.recording,
        labels=options.labels,
        speakers=options.rttm or options.speakers,
        listen=not options.no_listen,
        calibration=options.calibration
        or recognizer.usual_calibration(options.labels),
        **{
            name: value
            for name, value in vars(options).items()
            if name in ("window", "hop")
        },
    )
    if options.output:
        made.write(options.output, options.format or _format(options.output))
    elif options.format or not data.isatty():
        made.write(data, options.format or "json")
    else:
        data.writelines(map(_line, made.segments))
    if options.plot:
        from speechbrain_mser.timeline import plot_timeline

        plot_timeline(made, options.plot)
    return DONE


def _check(options):
    """Refuse what would be found out after hours."""
    from speechbrain_mser.evaluation.calibration import check_mode

    check_mode(options.calibration or "none")
    if options.recording == STDIN:
        standard_input()
    named = [options.rttm]
    if options.recording != STDIN:
        named.append(options.recording)
    for path in filter(None, named):
        if not os.path.exists(path):
            raise InputError(f"{path}: there is no such file")
    for path in filter(None, (options.output, options.plot)):
        check_output(path)
    if options.plot:
        from speechbrain_mser.timeline.drawing import KINDS

        if not options.plot.lower().endswith(KINDS):
            raise InputError(
                f"{options.plot}: a picture's name ends in one of "
                f"{', '.join(KINDS)}"
            )


def _format(output):
    """What a name ends in, as far as that is a format."""
    kind = Path(output).suffix[1:].lower()
    return kind if kind in FORMATS else "json"


def _line(segment):
    """A segment, for people."""
    speaker = f"{printable(segment.speaker):<12} " if segment.speaker else ""
    return (
        f"{segment.start:8.1f} {segment.end:8.1f} s  {speaker}"
        f"{printable(segment.emotion):<12} {segment.probability:4.2f}\n"
    )
