#!/usr/bin/env python3
"""Leave one corpus out with the paper's connector, a Q-Former.

The protocol is that of loco.py, the system the open recipe as it stands: a
small Q-Former reads all frames of layers 2 to 4. Nothing is chosen: the layers
are those that were good with a linear connector.

With --beside it also says what the linear connectors of loco.py and these
Q-Formers make of an utterance together.

Usage: python loco_qformer.py --data FOLDER [--folder results/loco_qformer] \
           [--beside results/loco]
"""

import argparse
from pathlib import Path

import numpy as np
import pandas
from loco import (
    PLACES,
    begin,
    columns,
    intervals,
    report,
    run_fold,
    write_results,
)
from loco_baselines import LABELS

from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError, exits_on_input_error
from speechbrain_mser.evaluation.metrics import emotion_metrics
from speechbrain_mser.files.markdown import markdown_table
from speechbrain_mser.files.tables import read_table

# Half of the last digit of a probability in predictions.csv.
LEAST = 5e-7


def together(folders, place, corpus):
    """UA on a corpus of the mean log-probabilities of several experiments.

    Raises
    ------
    InputError
        An experiment has no evaluation in that place, or one of other
        utterances.
    """
    labels, tables = list(candidate_labels(LABELS[corpus])), []
    for folder in folders:
        path = folder / place / corpus / "predictions.csv"
        if not path.is_file():
            raise InputError(
                f"there is no {path}: run loco.py in that folder first, with "
                "the same --runs"
            )
        tables.append(_read_predictions(path, labels))
        if not tables[-1].index.equals(tables[0].index):
            raise InputError(f"{path} has other utterances than the first one")
    total = sum(np.log(table[labels].clip(lower=LEAST)) for table in tables)
    said = np.array(labels)[total.to_numpy().argmax(1)].tolist()
    return emotion_metrics(tables[0].label.tolist(), said, labels)["UA"]


def _read_predictions(path, labels):
    """What evaluate.py left, by ID; no ID is a number, nor is one missing."""
    rows = read_table(path, ["ID", "label", *labels])
    table = pandas.DataFrame(rows).set_index("ID").sort_index()
    return table.astype(dict.fromkeys(labels, float))


def joint_report(folders, runs):
    """The connectors of several experiments together, over the runs of all."""
    rows = []
    for kind, place in PLACES.items():
        results = [
            {
                corpus: together(folders, f"{corpus}/run{run}/{place}", corpus)
                for corpus in LABELS
            }
            for run in runs
        ]
        rows.append([f"linear and Q-Former, {kind}", *columns(results)])
    return markdown_table([["UA", *LABELS, "mean"], *rows])


@exits_on_input_error
def main():
    """Run every fold of every run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--folder", type=Path, default=Path("results/loco_qformer")
    )
    parser.add_argument(
        "--beside", type=Path, help="where loco.py wrote the same runs"
    )
    parser.add_argument("--runs", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--corpora",
        nargs="+",
        choices=LABELS,
        default=list(LABELS),
        help="folds to run; the table wants all of them",
    )
    arguments = parser.parse_args()
    folder = arguments.folder
    protocol, _ = begin(arguments.data, folder, feature_dtype="float16")
    runs = {
        run: {
            corpus: run_fold(protocol, corpus, {}, run)
            for corpus in arguments.corpora
        }
        for run in arguments.runs
    }
    if set(arguments.corpora) < set(LABELS):
        return
    text = f"{report({}, runs)}\n\n{intervals(runs)}"
    if arguments.beside:
        text += "\n\n" + joint_report([arguments.beside, folder], runs)
    write_results(folder, text, runs)
    print(text)


if __name__ == "__main__":
    main()
