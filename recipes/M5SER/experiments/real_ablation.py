#!/usr/bin/env python3
"""The paper's claims on real speech: rows that differ from the open recipe.

    python real_ablation.py hparams/real_ablation.yaml --data FOLDER

Each row changes settings of the open recipe (hparams/open/train.yaml), or first
trains on one corpus alone and then on all (the paper's two stages). Each is
trained with one of four corpora left out in turn, as in loco.py, and tested on
that corpus: at once (inductive) and after listening to all of it (transductive).
A row whose settings are the recipe's own is loco.py's training, if it is in the
same folder.

Usage: python real_ablation.py hparams/real_ablation.yaml --data FOLDER \
           [--folder results/loco] [--seeds 1 2 3] [--rows recipe linear]
"""

import json

from folds import (
    LABELS,
    Folds,
    argument_parser,
    columns,
    others_than,
    side_by_side,
)
from loco import fold_place

from speechbrain_mser.errors import InputError, exits_on_input_error
from speechbrain_mser.files.markdown import markdown_table
from speechbrain_mser.settings.hparams import read_settings

KINDS = {"none": "inductive", "set": "transductive"}
ROW_KEYS = {"name", "settings", "first"}


def read_rows(path, folds, wanted):
    """The rows by key, those that are wanted; all if none is named.

    Of their settings those that are not the recipe's anyway.

    Raises
    ------
    InputError
        A row that is not there or cannot be run, before anything is.
    """
    # Plain values: what YAML's parser made of them keeps its comments.
    rows = json.loads(json.dumps(read_settings(path, {})["rows"]))
    for key, row in rows.items():
        if "name" not in row or not set(row) <= ROW_KEYS:
            raise InputError(
                f"row {key}: a row has a name and may have settings and "
                f"first; found {', '.join(sorted(row))}"
            )
        row["settings"] = {
            name: value
            for name, value in row.get("settings", {}).items()
            if folds.setting(name) != value
        }
        for corpus in row.get("first", []):
            if corpus not in LABELS:
                raise InputError(
                    f"row {key}: first is {corpus!r}, expected one of "
                    f"{', '.join(LABELS)}"
                )
    for key in wanted or ():
        if key not in rows:
            raise InputError(f"no row {key!r} among {', '.join(rows)}")
    return {key: row for key, row in rows.items() if key in (wanted or rows)}


def rows_parser(doc):
    """The command line of scripts that run rows."""
    parser = argument_parser(doc.splitlines()[0])
    parser.add_argument("yaml", help="the rows")
    parser.add_argument("--rows", nargs="+", help="those to run; all if not")
    return parser


def begin(arguments):
    """The folds, prepared, and the rows that are asked for."""
    folds = Folds(arguments.data, arguments.folder, arguments.overrides)
    rows = read_rows(arguments.yaml, folds, arguments.rows)
    folds.prepare()
    return folds, rows


def run_row(folds, seed, key, row, corpus):
    """Train a row with one corpus left out and test it; kind to metrics."""
    others, place = others_than(corpus), fold_place(corpus, seed)
    settings = dict(row["settings"])
    if settings or "first" in row:
        place = f"ablation/{key}/{place}"
    if "first" in row:
        (alone, *_) = [name for name in row["first"] if name != corpus]
        settings["pretrained"] = folds.train(
            f"{place}/first", [alone], settings, seed
        )
    recognizer = folds.train(f"{place}/training", others, settings, seed)
    return {
        kind: folds.evaluate(
            f"{place}/{kind}", recognizer, corpus, LABELS[corpus], kind
        )
        for kind in KINDS
    }


def report(rows, runs):
    """A table for each kind: a row each, mean and deviation over seeds.

    Arguments
    ---------
    rows : dict
        Key to row, as `read_rows` returns.
    runs : dict
        Seed to row's key to corpus to kind to metrics.
    """
    tables = []
    for kind, how in KINDS.items():
        first = next(iter(runs.values()))
        table = [[f"UA, {how}", *next(iter(first.values())), "mean"]]
        for key, row in rows.items():
            uas = [
                {corpus: of[kind]["UA"] for corpus, of in run[key].items()}
                for run in runs.values()
            ]
            table.append([row["name"], *columns(uas)])
        tables.append(markdown_table(table))
    return "\n\n".join(tables)


@exits_on_input_error(resumes=True)
def main():
    """Run every fold of every row and seed."""
    arguments = rows_parser(__doc__).parse_args()
    folds, rows = begin(arguments)
    # Rows that come to the same are trained once.
    same = {}
    own = {
        key: same.setdefault(json.dumps({**row, "name": ""}), key)
        for key, row in rows.items()
    }
    tasks = [
        (folds, seed, key, rows[key], corpus)
        for seed in arguments.seeds
        for key in same.values()
        for corpus in arguments.corpora
    ]
    done = side_by_side(arguments.jobs, run_row, tasks)
    runs = {}
    for seed in arguments.seeds:
        found = {
            key: {corpus: next(done) for corpus in arguments.corpora}
            for key in same.values()
        }
        runs[seed] = {key: found[own[key]] for key in rows}
        text = report(rows, runs)
        if not arguments.rows and set(arguments.corpora) == set(LABELS):
            folds.write_results("ablation", text, runs)
        print(f"\nseeds {[*runs]}\n{text}")


if __name__ == "__main__":
    main()
