"""Find where a word fits best, in many recordings.

Short recordings are taken whole, long ones in the segments of mser timeline.
Each is ranked by the word's probability among the recogniser's own words and
this one. All are judged alike: by what --heard has heard, and else as they
come; none is listened to for itself, so that places can be compared.
"""

import heapq
import sys

from tqdm import tqdm

from speechbrain_mser.command import DONE, SOME_BAD, loading, recordings
from speechbrain_mser.command.results import JSONLines, printable, why
from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError

SCHEMA = "find/2"
# Up to here a recording is one utterance, in seconds.
SHORT = 30.0


def add_arguments(parser):
    """Which word, where, and how many places.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Gets them.
    """
    parser.add_argument("word", metavar="WORD", help="any, such as angry")
    recordings.add_arguments(parser)
    parser.add_argument(
        "--top", type=int, default=10, metavar="N", help="places; default 10"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="an object a line; what is written where nobody looks on",
    )
    loading.add_calibration(parser)
    loading.add_arguments(parser)


def run(options, data):
    """Rank all that is found, and print the first.

    Arguments
    ---------
    options : argparse.Namespace
        Parsed.
    data : file-like
        Gets the places, the most probable first.

    Returns
    -------
    int
        The exit code.

    Raises
    ------
    InputError
        The recogniser, the word or the recordings cannot be used.
    """
    # --help does without numpy
    from speechbrain_mser.evaluation.calibration import check_mode

    if options.top < 1:
        raise InputError(f"--top is {options.top}, expected 1 or more")
    (word,) = candidate_labels([options.word])
    check_mode(options.calibration or "none")
    found = recordings.sized(options.recordings)
    recognizer = loading.load_named(options)
    own = recognizer.labels()
    (word,) = recognizer.as_said([word])
    labels = recognizer.labels(own if word in own else [*own, word])
    calibration = options.calibration or recognizer.usual_calibration(labels)
    best, bad = _rank(
        found, options.top, recognizer, word, (labels, calibration)
    )
    as_json = options.json or not data.isatty()
    for probability, _, start, end, path in best:
        if not as_json:
            data.write(
                f"{probability:4.2f}  {-start:8.1f} {end:8.1f} s  "
                f"{printable(path)}\n"
            )
            continue
        record = {
            "path": path,
            "start": round(-start, 3),
            "end": round(end, 3),
            "word": word,
            "probability": round(probability, 6),
            "calibration": calibration,
            "schema": SCHEMA,
        }
        data.write(JSONLines().line(record))
    for path, reason in bad:
        print(f"{printable(path)}: {printable(reason)}", file=sys.stderr)
        if as_json:
            record = {"path": path, "error": reason, "schema": SCHEMA}
            data.write(JSONLines().line(record))
    return SOME_BAD if bad else DONE


def _rank(found, top, recognizer, word, asked):
    """The best places, and the recordings that cannot be used."""
    best, bad = [], []
    for number, (path, problem) in enumerate(
        tqdm(found, "finding", disable=None)
    ):
        try:
            if problem:
                raise InputError(problem)
            places = _places(recognizer, path, *asked)
            for start, end, probabilities in places:
                # At a tie, the one that came first
                place = (probabilities[word], -number, -start, end, path)
                heapq.heappush(best, place)
                if len(best) > top:
                    heapq.heappop(best)
        except (InputError, OSError) as error:
            bad.append((path, why(error, path)))
    return sorted(best, reverse=True), bad


def _places(recognizer, path, labels, calibration):
    """(start, end, probabilities) of what is recognised in a recording."""
    from speechbrain_mser import SAMPLE_RATE
    from speechbrain_mser.dataio.decoding import duration

    if duration(path) > SHORT:
        from speechbrain_mser.timeline import make_timeline

        # Unlike mser timeline: a short recording is not listened to either
        found = make_timeline(
            recognizer,
            path,
            labels,
            listen=False,
            progress=False,
            calibration=calibration,
        )
        for one in found.segments:
            yield one.start, one.end, dict(one.probabilities)
        return
    wav = recognizer.load_audio(path)
    _, log_probs = recognizer.recognize_batch(
        wav[None], labels=labels, calibration=calibration
    )
    probabilities = log_probs[0].double().exp().tolist()
    yield (
        *(0.0, len(wav) / SAMPLE_RATE),
        dict(zip(labels, probabilities, strict=True)),
    )
