#!/usr/bin/env python3
"""Leave one corpus out: zero-shot on real speech, beside simple methods.

For each of four corpora in four languages (EmoDB German, EMOVO Italian,
RAVDESS English without calm, URDU) the open recipe (hparams/open/train.yaml,
as it stands) is trained on the other three and tested on all of it, with the
labels that occur in it. No label of the test corpus is used anywhere:

- inductive takes the test utterances one by one, as they were recorded and
  through a telephone's band, with noise 15 dB under speech, in a room;
- after N utterances: so many, drawn at random, were listened to before;
- transductive has listened to all of them;
- self-labelled: all of them, moved to the training's mean and deviation, are
  labelled by the recogniser itself, and a second training has the surer half
  of them, with these labels, beside the other corpora.

One connector for each seed; and the mean of the log-probabilities of all
seeds' (after listening, of the first draw). Beside it, on the same
utterances, loco_baselines.py.

Usage: python loco.py --data FOLDER [--folder results/loco] [--seeds 1 2 3] \
           [--overrides "{lr: 1.0e-3}"]
"""

import json

from folds import (
    LABELS,
    Folds,
    argument_parser,
    columns,
    others_than,
    read_log_probs,
    side_by_side,
)
from steps import Steps

from speechbrain_mser.dataio.microphones import WORSE
from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.evaluation.metrics import emotion_metrics
from speechbrain_mser.files.markdown import markdown_table

SELF = "self"
# What is done before a corpus is tested: evaluation's adaptation, or SELF; or
# through which microphone it is heard, nothing done before.
KINDS = {
    "none": "inductive",
    "telephone": "inductive, through a telephone",
    "noise": "inductive, in noise",
    "room": "inductive, in a room",
    "listen:1": "after 1 utterance",
    "listen:3": "after 3 utterances",
    "listen:10": "after 10 utterances",
    "listen:30": "after 30 utterances",
    "listen:30:speaker": "after 30 of each speaker",
    "set": "transductive",
    SELF: "self-labelled",
}


def run_fold(folds, kinds, seed, corpus):
    """Train with one corpus left out and test on it; kind to metrics."""
    others, place = others_than(corpus), fold_place(corpus, seed)
    first = folds.train(f"{place}/training", others, {}, seed)
    results = {
        kind: folds.evaluate(
            evaluation_place(corpus, seed, kind),
            first,
            corpus,
            LABELS[corpus],
            *(("none", kind) if kind in WORSE else (kind,)),
        )
        for kind in kinds
        if kind != SELF
    }
    if SELF in kinds:
        manifests = folds.label(f"{place}/labels", first, corpus, others)
        second = folds.train(
            f"{place}/second", [*others, corpus], {}, seed, manifests
        )
        results[SELF] = folds.evaluate(
            evaluation_place(corpus, seed, SELF),
            second,
            corpus,
            LABELS[corpus],
            "set",
        )
    return results


def fold_place(corpus, seed):
    """Where the recipe's own trainings and tests are, in the folder."""
    return f"{corpus}/seed{seed}"


def evaluation_place(corpus, seed, kind):
    """Where a kind's evaluation is."""
    return f"{fold_place(corpus, seed)}/{kind.replace(':', '_')}"


def together(folder, corpus, seeds, kind):
    """UA on a corpus of the mean log-probabilities of several seeds."""
    labels = list(candidate_labels(LABELS[corpus]))
    tables = [
        read_log_probs(
            folder
            / evaluation_place(corpus, seed, kind)
            / corpus
            / "predictions.csv",
            labels,
        )
        for seed in seeds
    ]
    said = sum(table[labels] for table in tables).idxmax(axis=1).tolist()
    return emotion_metrics(tables[0].label.tolist(), said, labels)["UA"]


def report(simple, runs, joint):
    """All methods in one table; the system as mean and deviation over seeds.

    Arguments
    ---------
    simple : dict
        Method to corpus to UA.
    runs : dict
        Seed to corpus to kind to metrics.
    joint : callable
        Kind and corpus to UA of all seeds together.
    """
    first = next(iter(runs.values()))
    corpora = list(first)
    rows = [["UA", *corpora, "mean"]]
    chance = {c: 1 / len(candidate_labels(LABELS[c])) for c in corpora}
    rows += [
        [method, *columns([{c: uas[c] for c in corpora}])]
        for method, uas in {"chance": chance, **simple}.items()
    ]
    for kind in first[corpora[0]]:
        alone = [
            {c: folds[c][kind]["UA"] for c in corpora}
            for folds in runs.values()
        ]
        rows.append([f"system, {KINDS[kind]}", *columns(alone)])
        if len(runs) > 1:
            uas = {c: joint(kind, c) for c in corpora}
            name = f"system, {KINDS[kind]}, {len(runs)} seeds together"
            rows.append([name, *columns([uas])])
    return markdown_table(rows)


def intervals(seed, folds):
    """The UA of one seed with bootstrap intervals."""
    rows = [[f"seed {seed}", *folds]]
    for kind in next(iter(folds.values())):
        cells = []
        for metrics in folds.values():
            low, high = metrics[kind]["intervals"]["UA"]
            cells.append(f"{metrics[kind]['UA']:.3f} ({low:.3f} to {high:.3f})")
        rows.append([KINDS[kind], *cells])
    return markdown_table(rows)


@exits_on_input_error(resumes=True)
def main():
    """Run the simple methods and every fold of every seed."""
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--without",
        nargs="+",
        choices=("simple", *KINDS),
        default=[],
        help="what not to run",
    )
    arguments = parser.parse_args()
    folds = Folds(arguments.data, arguments.folder, arguments.overrides)
    folds.prepare()
    simple = {}
    if "simple" not in arguments.without:
        output = folds.folder / "simple.json"
        Steps(folds.folder / "simple").run(
            "simple methods",
            "loco_baselines.py",
            *("--data", arguments.data.resolve(), "--folder", folds.folder),
            *("--overrides", json.dumps(arguments.overrides)),
            *("--output", output),
        )
        simple = json.loads(output.read_text(encoding="utf-8"))
    kinds = [kind for kind in KINDS if kind not in arguments.without]
    tasks = [
        (folds, kinds, seed, corpus)
        for seed in arguments.seeds
        for corpus in arguments.corpora
    ]
    done = side_by_side(arguments.jobs, run_fold, tasks)
    runs = {}
    for seed in arguments.seeds:
        runs[seed] = {corpus: next(done) for corpus in arguments.corpora}

        def joint(kind, corpus):
            return together(folds.folder, corpus, runs, kind)

        first = next(iter(runs.items()))
        text = f"{report(simple, runs, joint)}\n\n{intervals(*first)}"
        if set(arguments.corpora) == set(LABELS):
            folds.write_results("", text, runs)
        print(f"\nseeds {[*runs]}\n{text}")


if __name__ == "__main__":
    main()
