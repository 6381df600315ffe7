#!/usr/bin/env python3
"""Calibrate a recogniser: temperature and log-priors, on validation data.

    python calibrate.py hparams/calibrate.yaml --data_root /corpora \
        --recognizer results/stage2/1234/recognizer --corpora "[iemocap, meld]"

Writes calibration.json into the recogniser's folder, where evaluate.py
(--calibration temperature+prior) and EmotionRecognizer (calibration=...) find
it. Only utterances whose split is "valid" are ever read.
"""

import sys
from functools import partial
from pathlib import Path

from corpora import read_corpora
from recognition import load_recognizer

from speechbrain_mser.dataio.utterances import select_utterances
from speechbrain_mser.errors import InputError, exits_on_input_error
from speechbrain_mser.evaluation.calibration import (
    FILE,
    compare_calibrations,
    fit_calibration,
)
from speechbrain_mser.evaluation.diagrams import plot_reliability
from speechbrain_mser.evaluation.report import calibration_table
from speechbrain_mser.files.atomic import check_output, write_text
from speechbrain_mser.inference.folder import RELEASED, find_folder
from speechbrain_mser.settings.flags import read_command_line
from speechbrain_mser.settings.hparams import read_settings

# Not a setting: nothing else may be fitted on.
SPLIT = "valid"


def read_validation(settings):
    """The validation utterances of all corpora, whatever their emotions are."""
    table = read_corpora(settings["corpora"], settings)
    return select_utterances(table, SPLIT, settings["languages"])


def write_report(folder, compared, fitted):
    """Write and return the table; draw the reliability diagrams."""
    n = fitted.fitted_on["n"]
    title = f"{n:,} validation utterances, which the calibration was fitted on"
    plot_reliability(compared, folder / "reliability", title)
    lines = [
        calibration_table({"validation": compared}),
        "",
        f"Temperature {fitted.temperature:.3f}; beside the log-priors "
        f"{fitted.temperature_with_prior:.3f}. Log-priors:",
        *(f"- {word} {x:+.3f}" for word, x in fitted.log_prior.items()),
        "",
        f"Fitted on these {n:,} utterances: what it does to others shows on "
        "others only.",
    ]
    write_text(folder / "calibration.md", "\n".join(lines) + "\n")
    return "\n".join(lines)


@exits_on_input_error
def main():
    """Calibrate."""
    hparams_file, run_opts, overrides = read_command_line(sys.argv[1:])
    settings = read_settings(hparams_file, overrides)
    table = read_validation(settings)
    if settings["recognizer"] == RELEASED:
        raise InputError(
            f"{RELEASED!r}, the released recogniser, has a calibration of its "
            f"own, in {find_folder(RELEASED)}; copy that folder, and name the "
            "copy, to calibrate on data of yours"
        )
    source = Path(settings["recognizer"])
    if not source.is_dir():
        raise InputError(
            f"there is no folder {source}: the calibration is written into "
            "the recogniser's, so a hub's has to be downloaded first"
        )
    output = Path(settings["output_folder"])
    for path in (source / FILE, output / "calibration.md"):
        check_output(path)
    recognizer, reader = load_recognizer(str(source), settings, run_opts)
    # What is its meaning's is not the LLM's to be mended.
    meant = recognizer.meant_words()
    labels = [word for word in recognizer.labels() if word not in meant]
    table = select_utterances(table, labels=labels).sort_values("ID")
    table, log_probs = reader.compute(
        partial(recognizer.score_features, labels=labels), table, "validation"
    )
    references = table.emotion.tolist()
    fitted = fit_calibration(
        log_probs,
        references,
        labels,
        split=SPLIT,
        corpora=table.corpus.value_counts().sort_index().to_dict(),
        **recognizer.describe(),
    )
    compared = compare_calibrations(
        fitted, log_probs, references, labels, "present"
    )
    fitted.save(source / FILE)
    print(write_report(output, compared, fitted))


if __name__ == "__main__":
    main()
