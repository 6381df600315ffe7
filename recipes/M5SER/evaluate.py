#!/usr/bin/env python3
"""Evaluate a recogniser on any manifests, with any label sets.

    python evaluate.py hparams/evaluate.yaml --data_root /corpora \
        --recognizer results/stage2/1234/recognizer
    python evaluate.py hparams/evaluate.yaml --data_root /corpora \
        --recognizer results/stage2/1234/recognizer --sets "[RESD-7, MELD-7]"

Writes into the output folder: metrics.json and table.md over all sets,
absent.json with those that are not there, and for each set
<set>/predictions.csv, <set>/confusion.png and, where the recogniser is
calibrated (calibrate.py), <set>/reliability.png and .pdf.
"""

import json
import sys
from pathlib import Path

from protocols import read_sets
from recognition import check_adaptation, load_recognizers, recognize_sets
from speechbrain.utils.logger import get_logger

from speechbrain_mser.errors import InputError, exits_on_input_error
from speechbrain_mser.evaluation.calibration import (
    check_mode,
    compare_calibrations,
)
from speechbrain_mser.evaluation.confusion_plot import plot_confusion
from speechbrain_mser.evaluation.intervals import (
    bootstrap_intervals,
    speakers_to_draw,
)
from speechbrain_mser.evaluation.metrics import (
    calibration,
    confusion_matrix,
    emotion_metrics,
)
from speechbrain_mser.evaluation.reliability import plot_reliability
from speechbrain_mser.evaluation.report import evaluation_report, read_published
from speechbrain_mser.files.atomic import atomic_path
from speechbrain_mser.files.csv_files import write_csv
from speechbrain_mser.settings.flags import read_command_line
from speechbrain_mser.settings.hparams import read_settings

logger = get_logger(__name__)


def find_calibration(recognizer, mode):
    """The recogniser's calibration; None if it has none and none is asked.

    Raises
    ------
    InputError
        One is asked for, and there is none that fits.
    """
    try:
        return recognizer.load_calibration()
    except InputError as error:
        if mode != "none":
            raise
        logger.info("without calibrated figures: %s", error)
        return None


def check_alone(mode):
    """Refuse to calibrate several recognisers together.

    Raises
    ------
    InputError
        It is asked for.
    """
    if mode != "none":
        raise InputError(
            f"calibration is {mode!r}, which belongs to one recogniser; "
            "several are evaluated with --calibration none"
        )


def score(kind, table, log_probs):
    """The metrics of a set, and its predictions."""
    predictions = [kind.labels[k] for k in log_probs.argmax(-1).tolist()]
    metrics = emotion_metrics(
        table.emotion.tolist(), predictions, kind.labels, kind.ua_over
    )
    return metrics, predictions


def note_words(recognizers, trained):
    """Pass recognisers on, and add what they were trained to say to a set."""
    for loaded in recognizers:
        trained.update(loaded[0].trained_words())
        yield loaded


def measure_alone(kind, table, log_probs):
    """WA, UA, WF1 of one recogniser among several."""
    metrics, _ = score(kind, table, log_probs)
    return {name: metrics[name] for name in ("WA", "UA", "WF1")}


def measure(kind, table, log_probs, settings):
    """A set's metrics, intervals and predictions.

    Arguments
    ---------
    kind : EvaluationSet
        Labels and how to average.
    table : pandas.DataFrame
        The utterances that could be read.
    log_probs : torch.Tensor
        ``[n, n_labels]``, calibrated as asked.
    settings : dict
        How to draw.

    Returns
    -------
    metrics : dict
        Ready for JSON.
    predictions : list of str
        ``[n]``.
    """
    labels, references = kind.labels, table.emotion.tolist()
    metrics, predictions = score(kind, table, log_probs)
    metrics["calibration"] = calibration(log_probs, references, labels)
    if settings["resamples"]:
        metrics["intervals"] = bootstrap_intervals(
            references,
            predictions,
            labels,
            kind.ua_over,
            speakers_to_draw(table),
            settings["resamples"],
            settings["level"],
            settings["seed"],
        )
    metrics["protocol"] = kind.protocol
    metrics["note"] = kind.note
    metrics["adaptation"] = "inductive"
    if settings["adaptation"] == "set":
        metrics["adaptation"] = "transductive"
        moved = "transductive: moved to the training's mean and deviation"
        metrics["note"] = "; ".join(filter(None, [kind.note, moved]))
    metrics["unreadable"] = len(kind.table) - len(table)
    metrics["languages"] = sorted(set(kind.table.language))
    return metrics, predictions


def calibrated_on(found, table):
    """Whether a calibration was fitted on utterances of a set."""
    corpora = found.fitted_on.get("corpora", {})
    return bool(((table.split == "valid") & table.corpus.isin(corpora)).any())


def write_predictions(path, table, predictions, log_probs, labels):
    """Write what was said of every utterance, and how probable all was."""
    with (
        atomic_path(path) as partial,
        open(partial, "w", newline="", encoding="utf-8") as file,
    ):
        probs = ([f"{p:.6f}" for p in row] for row in log_probs.exp().tolist())
        rows = zip(table.ID, table.emotion, predictions, probs, strict=True)
        write_csv(
            file,
            ["ID", "label", "prediction", *labels],
            ([name, label, said, *p] for name, label, said, p in rows),
        )


def write_results(folder, results, absent):
    """Write metrics.json, absent.json and table.md."""
    for name, text in (
        ("metrics.json", json.dumps(results, indent=2)),
        ("absent.json", json.dumps(absent, indent=2)),
        ("table.md", evaluation_report(results, absent)),
    ):
        with atomic_path(folder / name) as partial:
            partial.write_text(text + "\n", encoding="utf-8")


@exits_on_input_error
def main():
    """Evaluate."""
    hparams_file, run_opts, overrides = read_command_line(sys.argv[1:])
    settings = read_settings(hparams_file, overrides)
    mode = settings["calibration"]
    check_mode(mode)
    check_adaptation(settings)
    recognizers, count = load_recognizers(settings, run_opts)
    if count > 1:
        check_alone(mode)
    published = {}
    if settings["published"]:
        # Beside the file itself, not beside a link to it.
        beside = Path(hparams_file).resolve().parent
        published = read_published(beside / settings["published"])
    sets, absent = read_sets(settings)
    wanted = {
        name: (kind.table, kind.labels, kind.audio)
        for name, kind in sets.items()
    }
    folder, results, found = Path(settings["output_folder"]), {}, None
    trained = set()
    recognizers = note_words(recognizers, trained)
    if count == 1:
        recognizers = list(recognizers)
        found = find_calibration(recognizers[0][0], mode)
    for name, table, raw, each in recognize_sets(
        recognizers, count, settings, wanted
    ):
        kind = sets[name]
        log_probs = found.apply(raw, kind.labels, mode) if found else raw
        metrics, predictions = measure(kind, table, log_probs, settings)
        if count > 1:
            metrics["each"] = [measure_alone(kind, table, own) for own in each]
        metrics["published"] = published.get(kind.protocol, [])
        untrained = [word for word in kind.labels if word not in trained]
        metrics["untrained"] = untrained
        references, place = table.emotion.tolist(), folder / name
        write_predictions(
            place / "predictions.csv",
            table,
            predictions,
            log_probs,
            kind.labels,
        )
        plot_confusion(
            confusion_matrix(references, predictions, kind.labels),
            kind.labels,
            place / "confusion.png",
            name,
            untrained,
        )
        if found:
            metrics["calibrated_on_it"] = calibrated_on(found, table)
            metrics["calibrations"] = compare_calibrations(
                found, raw, references, kind.labels, kind.ua_over
            )
            plot_reliability(
                metrics["calibrations"], place / "reliability", name
            )
        results[name] = metrics
        write_results(folder, results, absent)
    print(evaluation_report(results, absent))


if __name__ == "__main__":
    main()
