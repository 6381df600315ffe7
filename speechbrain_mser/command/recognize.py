"""Say which emotion is heard, a line for each recording.

Recordings are answered in the order in which they are named, each as soon as
it can be; one that cannot be used has its reason in its line, and the others
go on.
"""

import os
import sys
import tempfile
from functools import partial
from pathlib import Path

from tqdm import tqdm

from speechbrain_mser.command import DONE, SOME_BAD, loading, recordings
from speechbrain_mser.command.results import (
    CSVRows,
    JSONLines,
    Table,
    open_output,
    read_finished,
)
from speechbrain_mser.errors import InputError

SCHEMA = "recognize/1"


def add_arguments(parser):
    """What is recognised, as what, and where that goes.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Gets them.
    """
    recordings.add_arguments(parser)
    loading.add_labels(parser)
    parser.add_argument(
        "--calibration",
        default="none",
        help="none, temperature or temperature+prior: what to take back of "
        "the probabilities, where the recogniser was calibrated",
    )
    parser.add_argument(
        "--adapt",
        action="store_true",
        help="first listen to all of the recordings: where they are of one "
        "room or speaker, and many",
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument(
        "--json",
        action="store_const",
        dest="form",
        const="json",
        help="an object a line; what is written where nobody looks on",
    )
    forms.add_argument("--csv", action="store_const", dest="form", const="csv")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="by default standard output"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with an output that was interrupted",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="how many processes, each with the recogniser; with several "
        "devices (--device cuda:0,cuda:1) they take turns",
    )
    loading.add_arguments(parser)


def run(options, data):
    """Recognise.

    Arguments
    ---------
    options : argparse.Namespace
        Parsed.
    data : file-like
        Gets the lines, where no output is named.

    Returns
    -------
    int
        The exit code.

    Raises
    ------
    InputError
        The recogniser, the output or the settings cannot be used.
    """
    _check(options)
    named = {
        name: getattr(options, name)
        for name in ("recognizer", "heard", "overrides")
    }
    devices = (options.device or "").split(",")
    devices = [device.strip() or None for device in devices]
    recognizer = loading.load_recognizer(**named, device=devices[0])
    labels = recognizer.labels(options.labels)
    if options.calibration != "none":
        recognizer.load_calibration()
    found = recordings.sized(options.recordings)
    if options.adapt:
        found = list(found)
        recognizer.listen([path for path, problem in found if not problem])
    settings = {
        "schema": SCHEMA,
        **loading.identify(recognizer),
        "calibration": options.calibration,
    }
    form = _form(options, labels, data)
    finished = []
    if options.output:
        finished = read_finished(options.output, form, settings, labels)
    answer = _answerer(options, recognizer, named, devices, labels)
    del recognizer  # by several processes, it is not needed here
    done = {record["path"] for _, record in finished}
    bad = sum("error" in record for _, record in finished)
    left = (one for one in found if one[0] not in done)
    total = len(found) if isinstance(found, list) else None
    bar = tqdm(
        answer(left),
        "recognising",
        total=total,
        initial=len(done),
        # Lines that are looked at are a progress of their own
        disable=True if _seen(options, data) else None,
    )
    if options.output:
        data = open_output(options.output, form, finished)
    else:
        data.write(form.head)
    try:
        for record in bar:
            data.write(form.line(record | settings))
            data.flush()
            bad += "error" in record
    finally:
        if options.output:
            data.close()
    if bad:
        print(f"{bad} recordings could not be used", file=sys.stderr)
    return SOME_BAD if bad else DONE


def _check(options):
    """Refuse what would be found out too late."""
    from speechbrain_mser.evaluation.calibration import check_mode

    check_mode(options.calibration)
    if options.jobs < 1:
        raise InputError(f"--jobs is {options.jobs}, expected 1 or more")
    if options.resume and not options.output:
        raise InputError("--resume goes on with an output: name it (--output)")
    if options.output and os.path.isdir(options.output):
        raise InputError(f"{options.output}: a folder; name a file in it")
    if options.output and not options.resume and os.path.exists(options.output):
        raise InputError(
            f"{options.output} is there already: --resume goes on with it; "
            "else remove it, or name another file"
        )


def _seen(options, data):
    return data.isatty() and not options.output


def _form(options, labels, data):
    if options.form == "csv":
        return CSVRows(labels)
    if options.form is None and _seen(options, data):
        return Table()
    return JSONLines()


def _answerer(options, recognizer, named, devices, labels):
    """Makes records of recordings, here or by several processes."""
    if options.jobs == 1:
        return partial(_one_by_one, recognizer, labels, options.calibration)
    heard = recognizer.heard if options.adapt else None
    return partial(_by_several, options, heard, named, devices, labels=labels)


def _one_by_one(recognizer, labels, calibration, found):
    from speechbrain_mser.command.workers import recognize_one

    for path, problem in found:
        yield recognize_one(recognizer, path, problem, labels, calibration)


def _by_several(options, heard, named, devices, found, labels):
    from speechbrain_mser.command.workers import recognize_by

    with tempfile.TemporaryDirectory() as folder:
        if heard is not None:
            # What was heard here is for all of them
            named = {**named, "heard": str(Path(folder, "heard.safetensors"))}
            heard.save(named["heard"])
        yield from recognize_by(
            *(options.jobs, named, devices),
            *(found, labels, options.calibration),
        )
