"""Say which emotion is heard, a line for each recording.

Recordings are answered in the order in which they are named, each as soon as
it can be; one that cannot be used has its reason in its line, and the others
go on.
"""

import os
import sys
import tempfile
from contextlib import contextmanager
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
from speechbrain_mser.command.workers import recognize_by, recognize_one
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import check_output
from speechbrain_mser.termination import Terminated

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
    loading.add_calibration(parser)
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
    found = recordings.sized(options.recordings)
    if options.adapt:
        found = list(found)
    answer, labels, settings = _prepare(options, found)
    form = _form(options, labels, data)
    finished = []
    if options.output:
        finished = read_finished(options.output, form, settings, labels)
    done = {record["path"] for _, record in finished}
    bad = sum("error" in record for _, record in finished)
    answers = tqdm(
        answer(one for one in found if one[0] not in done),
        "recognising",
        total=len(found) if isinstance(found, list) else None,
        initial=len(done),
        # Lines that are looked at are a progress of their own
        disable=True if _seen(options, data) else None,
    )
    with _destination(options.output, form, finished, data) as data:
        for record in answers:
            data.write(form.line(record | settings))
            data.flush()
            bad += "error" in record
    if bad:
        print(f"of these, {bad} could not be used", file=sys.stderr)
    return SOME_BAD if bad else DONE


def _prepare(options, found):
    """What answers recordings, the candidates, and what answers depend on."""
    from speechbrain_mser.devices import find_device

    named = {
        name: getattr(options, name)
        for name in ("recognizer", "heard", "overrides", "trusted")
    }
    devices = (options.device or "").split(",")
    devices = [find_device(device.strip() or None) for device in devices]
    recognizer = loading.load_recognizer(**named, device=devices[0])
    labels = recognizer.labels(options.labels)
    calibration = options.calibration or recognizer.usual_calibration(labels)
    if calibration != "none":
        recognizer.load_calibration()
    if options.adapt:
        recognizer.listen([path for path, problem in found if not problem])
    settings = {
        "schema": SCHEMA,
        **loading.identify(recognizer),
        "calibration": calibration,
    }
    asked = (labels, calibration)
    if options.jobs == 1:
        return partial(_one_by_one, recognizer, asked), labels, settings
    heard = recognizer.heard if options.adapt else None
    by_several = partial(
        _by_several, options.jobs, heard, named, devices, asked
    )
    return by_several, labels, settings


@contextmanager
def _destination(output, form, finished, data):
    """Where lines go; of a file, what is whole stays when interrupted."""
    if not output:
        data.write(form.head)
        yield data
        return
    with open_output(output, form, finished) as file:
        try:
            yield file
        except (KeyboardInterrupt, Terminated):
            print(f"{output}: --resume goes on with it", file=sys.stderr)
            raise


def _one_by_one(recognizer, asked, found):
    for path, problem in found:
        yield recognize_one(recognizer, path, problem, *asked)


def _by_several(jobs, heard, named, devices, asked, found):
    with tempfile.TemporaryDirectory() as folder:
        if heard is not None:
            # What was heard here is for all of them
            named = {**named, "heard": str(Path(folder, "heard.safetensors"))}
            heard.save(named["heard"])
        yield from recognize_by(jobs, named, devices, found, *asked)


def _check(options):
    """Refuse what would be found out too late."""
    from speechbrain_mser.evaluation.calibration import check_mode

    check_mode(options.calibration or "none")
    if options.jobs < 1:
        raise InputError(f"--jobs is {options.jobs}, expected 1 or more")
    if options.resume and not options.output:
        raise InputError("--resume goes on with an output: name it (--output)")
    if options.output:
        check_output(options.output)
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
