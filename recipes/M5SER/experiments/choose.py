#!/usr/bin/env python3
"""Which settings to take, asked inside the training corpora alone.

    python choose.py hparams/choices.yaml --data FOLDER

Rows as in real_ablation.py: settings in which each differs from the open recipe.
Of four corpora each two are trained on, and each of the two others is tested: as
its utterances come, or after listening to some. Whoever tests on one corpus may
choose by the other three, each tested by what was trained on the remaining two:
the corpus that a figure is reported on has no part in it. The table has, for each
corpus left out, each row's mean UA on those three; what is the best for all four
has been chosen without looking. Its last column is the mean over all twelve.

Usage: python choose.py hparams/choices.yaml --data FOLDER \
           [--folder results/loco] [--seeds 1 2 3] [--rows recipe as_recorded] \
           [--kinds none listen:30]
"""

import statistics
from itertools import combinations

from folds import LABELS, mean_and_sd, side_by_side
from real_ablation import begin, rows_parser

from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.files.markdown import markdown_table

PAIRS = [*combinations(LABELS, 2)]
KINDS = {
    "none": "one utterance by one",
    "listen:30": "after 30 utterances",
    "listen:30:speaker": "after 30 of each speaker",
    "set": "after all of them",
}


def run_pair(folds, kinds, seed, key, row, pair):
    """Train a row on two corpora and test the others; kind to corpus to UA."""
    place = f"choices/{key}/{'_'.join(pair)}/seed{seed}"
    recognizer = folds.train(
        f"{place}/training", [*pair], row["settings"], seed
    )
    return {
        kind: {
            corpus: folds.evaluate(
                f"{place}/{corpus}_{kind.replace(':', '_')}",
                recognizer,
                corpus,
                LABELS[corpus],
                kind,
            )["UA"]
            for corpus in LABELS
            if corpus not in pair
        }
        for kind in kinds
    }


def inside(found, left_out):
    """Mean UA on the three other corpora, where one has no part in it.

    Of all four, where none is left out.

    Arguments
    ---------
    found : dict
        Pair to corpus to UA, of one row.
    left_out : str or None
        The corpus.

    Returns
    -------
    float
        The mean.

    Example
    -------
    >>> found = {pair: {c: 0.5 for c in LABELS} for pair in PAIRS}
    >>> found["ravdess", "urdu"]["emovo"] = 0.8  # without EmoDB
    >>> round(inside(found, "emodb"), 3), inside(found, "urdu")
    (0.6, 0.5)
    """
    return statistics.mean(
        uas[corpus]
        for pair, uas in found.items()
        for corpus in LABELS
        if left_out not in (corpus, *pair) and corpus not in pair
    )


def report(rows, runs, kind):
    """Rows by corpus left out; the last line has each corpus's choice.

    Arguments
    ---------
    rows : dict
        Key to row, as `read_rows` returns.
    runs : dict
        Seed to row's key to pair to kind to corpus to UA.
    kind : str
        One of KINDS.
    """
    table = [[f"UA, {KINDS[kind]}, without", *LABELS, "twelve"]]
    # The column's best so far; the mean of all twelve is a choice, too.
    best = dict.fromkeys(table[0][1:], (0.0, ""))
    for key, row in rows.items():
        found = [
            {pair: of_pair[kind] for pair, of_pair in of[key].items()}
            for of in runs.values()
        ]
        cells = [row["name"]]
        for column in best:
            uas = [
                inside(one, None if column == "twelve" else column)
                for one in found
            ]
            cells.append(mean_and_sd(uas))
            best[column] = max(
                best[column],
                (statistics.mean(uas), row["name"]),
                key=lambda one: one[0],
            )
        table.append(cells)
    table.append(["chosen", *(name for _, name in best.values())])
    return markdown_table(table)


@exits_on_input_error(resumes=True)
def main():
    """Run every pair of every row and seed."""
    parser = rows_parser(__doc__)
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=KINDS,
        default=["none"],
        help="what is heard before: none; after listening it takes as long "
        "for each draw, three of them",
    )
    arguments = parser.parse_args()
    folds, rows = begin(arguments)
    tasks = [
        (folds, arguments.kinds, seed, key, row, pair)
        for seed in arguments.seeds
        for key, row in rows.items()
        for pair in PAIRS
    ]
    done = side_by_side(arguments.jobs, run_pair, tasks)
    runs = {}
    for seed in arguments.seeds:
        runs[seed] = {key: {pair: next(done) for pair in PAIRS} for key in rows}
        print(f"\nseeds {[*runs]}")
        for kind in arguments.kinds:
            print(f"\n{report(rows, runs, kind)}")


if __name__ == "__main__":
    main()
