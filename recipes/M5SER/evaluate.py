#!/usr/bin/env python3
"""Evaluate a recogniser on any manifests, with any label sets.

    python evaluate.py hparams/evaluate.yaml --data_root /corpora \
        --recognizer results/stage2/1234/recognizer
    python evaluate.py hparams/evaluate.yaml --data_root /corpora \
        --recognizer results/stage2/1234/recognizer --sets "[RESD-7, MELD-7]"

Writes into the output folder: metrics.json and table.md over all sets,
absent.json with those that are not there, and for each set
<set>/predictions.csv, <set>/confusion.png and .pdf and, where the recogniser is
calibrated (calibrate.py), <set>/reliability.png and .pdf.
"""

import json
import statistics
import sys
from pathlib import Path

from protocols import read_sets
from recognition import load_recognizers, read_adaptation
from speechbrain.utils.logger import get_logger

from speechbrain_mser.dataio.microphones import find_worse
from speechbrain_mser.emotions import without_trained
from speechbrain_mser.errors import InputError, exits_on_input_error
from speechbrain_mser.evaluation.calibration import (
    check_mode,
    compare_calibrations,
)
from speechbrain_mser.evaluation.diagrams import (
    plot_confusion,
    plot_reliability,
)
from speechbrain_mser.evaluation.intervals import (
    bootstrap_intervals,
    speakers_to_draw,
)
from speechbrain_mser.evaluation.metrics import (
    FIGURES,
    confusion_matrix,
    emotion_metrics,
    mean_metrics,
)
from speechbrain_mser.evaluation.reliability import calibration
from speechbrain_mser.evaluation.report import evaluation_report, read_published
from speechbrain_mser.evaluation.unfinished import Unfinished
from speechbrain_mser.files.atomic import (
    atomic_path,
    check_output,
    write_text,
)
from speechbrain_mser.files.csv_files import write_csv
from speechbrain_mser.inference.ensemble import recognize_sets
from speechbrain_mser.settings.flags import read_command_line
from speechbrain_mser.settings.hparams import read_settings

logger = get_logger(__name__)

# Settings that answers depend on; of what is made of them others do.
ANSWERED_BY = (
    "adaptation",
    "draws",
    "seed",
    "kappa_mean",
    "kappa_variance",
    "kappa_speaker",
    "microphone",
    "features",
    "feature_dtype",
)


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
    """Refuse to calibrate several recognisers together."""
    if mode != "none":
        raise InputError(
            f"calibration is {mode!r}, which belongs to one recogniser; "
            "several are evaluated with --calibration none"
        )


def read_others(hparams_file, settings):
    """Others' results, as `read_published` returns them."""
    if not settings["published"]:
        return {}
    # Beside the file itself, not beside a link to it.
    folder = Path(hparams_file).resolve().parent
    return read_published(folder / settings["published"])


def said(test_set, log_probs):
    """The most probable label of every utterance."""
    return [test_set.labels[k] for k in log_probs.argmax(-1).tolist()]


def score(test_set, table, log_probs, settings=None):
    """The metrics of a set as it was recognised once, with intervals."""
    what = (
        table.emotion.tolist(),
        said(test_set, log_probs),
        test_set.labels,
        test_set.ua_over,
    )
    metrics = emotion_metrics(*what)
    if settings and settings["resamples"]:
        metrics["intervals"] = bootstrap_intervals(
            *what,
            speakers_to_draw(table),
            settings["resamples"],
            settings["level"],
            settings["seed"],
        )
    return metrics


def measure(test_set, table, log_probs, settings):
    """A set's metrics, means over all draws, ready for JSON."""
    draws = [score(test_set, table, one, settings) for one in log_probs]
    metrics = mean_metrics(draws)
    references, labels = table.emotion.tolist(), test_set.labels
    metrics["calibration"] = calibration(log_probs[0], references, labels)
    metrics["protocol"] = test_set.protocol
    adaptation = settings["adaptation"]
    metrics["adaptation"] = {
        "none": "inductive",
        "set": "transductive",
    }.get(adaptation, adaptation)
    notes = [test_set.note]
    if adaptation == "set":
        notes.append("transductive: moved to the training's mean and deviation")
    elif adaptation != "none":
        metrics["draws"] = {
            figure: [one[figure] for one in draws] for figure in FIGURES
        }
        notes.append(listening_note(adaptation, metrics["draws"]["UA"]))
    if settings["microphone"] is not None:
        metrics["microphone"] = settings["microphone"]
        notes.append(
            f"heard through a worse microphone: {metrics['microphone']}"
        )
    metrics["note"] = "; ".join(filter(None, notes))
    metrics["unreadable"] = len(test_set.table) - len(table)
    metrics["languages"] = sorted(set(test_set.table.language))
    return metrics


def listening_note(adaptation, each):
    """What a reader must know of figures after listening."""
    _, number, *by_speaker = adaptation.split(":")
    heard = f"{number} utterances of {'each speaker' if by_speaker else 'it'}"
    note = f"recognised after hearing {heard}, without labels"
    if len(each) > 1:
        note += (
            f"; means over {len(each)} draws, between which UA has a standard "
            f"deviation of {statistics.stdev(each):.3f}"
        )
    return note


def measure_alone(test_set, table, log_probs):
    """WA, UA, WF1 of one recogniser among several, means over all draws."""
    metrics = mean_metrics([score(test_set, table, one) for one in log_probs])
    return {name: metrics[name] for name in ("WA", "UA", "WF1")}


def calibrated_on(fitted, table):
    """Whether a calibration was fitted on utterances of a set."""
    on = fitted.fitted_on
    within = table.corpus.isin(on.get("corpora", {}))
    # The released one's is on all splits of its corpora, and says None.
    if (split := on.get("split", "valid")) is not None:
        within &= table.split == split
    return bool(within.any())


def write_predictions(path, table, predictions, log_probs, labels):
    """Write what was said of every utterance, and how probable all was."""
    with (
        atomic_path(path) as partial,
        open(partial, "w", newline="", encoding="utf-8") as file,
    ):
        probs = ([f"{p:.6g}" for p in row] for row in log_probs.exp().tolist())
        rows = zip(table.ID, table.emotion, predictions, probs, strict=True)
        write_csv(
            file,
            ["ID", "label", "prediction", *labels],
            ([name, label, said, *p] for name, label, said, p in rows),
        )


class Evaluation:
    """The results of all sets, written as they come.

    Arguments
    ---------
    settings : dict
        Of evaluate.yaml, as `read_settings` returns them.
    published : dict
        Others' results, as `read_published` returns them.
    """

    def __init__(self, settings, published):
        self.settings, self.published = settings, published
        self.sets, self.absent = read_sets(settings)
        self.folder = Path(settings["output_folder"])
        self.unfinished = Unfinished(
            self.folder, {name: settings[name] for name in ANSWERED_BY}
        )
        self.results, self.fitted, self.connector = {}, None, None
        # What the recognisers were trained to say, and on which corpora.
        self.trained, self.corpora = set(), set()

    def run(self, recognizers, count):
        """Evaluate one recogniser, or several together; return the table."""
        mode = self.settings["calibration"]
        if count == 1:
            recognizers = list(recognizers)
            self.fitted = find_calibration(recognizers[0][0], mode)
            self.recognizer = recognizers[0][0]
            self.connector = recognizers[0][0].describe()["connector"]
        sets = {
            name: (one.table, one.labels, one.audio)
            for name, one in self.sets.items()
        }
        for name, *answers in recognize_sets(
            self._note_words(recognizers),
            count,
            sets,
            read_adaptation(self.settings),
            self.unfinished,
        ):
            self.results[name] = self._evaluate(name, self.sets[name], *answers)
            self._write_results()
        self.unfinished.forget()
        return evaluation_report(self.results, self.absent)

    def _note_words(self, recognizers):
        """Pass recognisers on, and note what they were trained to say."""
        for recognizer, reader in recognizers:
            self.trained.update(recognizer.trained_words())
            corpora = getattr(recognizer.hparams, "trained_corpora", None)
            self.corpora.update(corpora or ())
            yield recognizer, reader

    def _evaluate(self, name, test_set, table, raw, each):
        """A set's metrics; its files are written, those of the first draw."""
        labels, log_probs = test_set.labels, raw
        if self.fitted:
            mode = self.settings["calibration"]
            names = self.recognizer.as_said(labels)
            meant = self.recognizer.meant_words(names)
            log_probs = [
                self.fitted.apply(one, names, mode, meant) for one in raw
            ]
        metrics = measure(test_set, table, log_probs, self.settings)
        if heard := sorted(set(table.corpus) & self.corpora):
            note = f"not zero-shot, trained on {', '.join(heard)}"
            metrics["note"] = "; ".join(filter(None, [metrics["note"], note]))
        predictions = said(test_set, log_probs[0])
        if len(each) > 1:
            metrics["each"] = [measure_alone(test_set, table, p) for p in each]
        if self.connector is not None:
            metrics["connector"] = self.connector
        metrics["published"] = self.published.get(test_set.protocol, [])
        metrics["untrained"] = without_trained(labels, self.trained)
        folder, references = self.folder / name, table.emotion.tolist()
        write_predictions(
            folder / "predictions.csv", table, predictions, log_probs[0], labels
        )
        plot_confusion(
            confusion_matrix(references, predictions, labels),
            labels,
            folder / "confusion",
            name,
            metrics["untrained"],
        )
        if self.fitted:
            metrics["calibrated_on_it"] = calibrated_on(self.fitted, table)
            trained_as = dict(zip(labels, names, strict=True))
            metrics["calibrations"] = compare_calibrations(
                self.fitted,
                raw[0],
                [trained_as[label] for label in references],
                names,
                test_set.ua_over,
            )
            plot_reliability(
                metrics["calibrations"], folder / "reliability", name
            )
        return metrics

    def _write_results(self):
        for name, text in (
            ("metrics.json", json.dumps(self.results, indent=2)),
            ("absent.json", json.dumps(self.absent, indent=2)),
            ("table.md", evaluation_report(self.results, self.absent)),
        ):
            write_text(self.folder / name, text + "\n")


@exits_on_input_error(resumes=True)
def main():
    """Evaluate."""
    hparams_file, run_opts, overrides = read_command_line(sys.argv[1:])
    settings = read_settings(hparams_file, overrides)
    check_mode(settings["calibration"])
    read_adaptation(settings)
    find_worse(settings["microphone"])
    check_output(Path(settings["output_folder"]) / "metrics.json")
    recognizers, count = load_recognizers(settings, run_opts)
    if count > 1:
        check_alone(settings["calibration"])
    published = read_others(hparams_file, settings)
    print(Evaluation(settings, published).run(recognizers, count))


if __name__ == "__main__":
    main()
