#!/usr/bin/env python3
"""Leave one emotion out: does the LLM hear what a word means, untrained?

The open recipe (hparams/open/train.yaml, as it stands) is trained on three of
EmoDB, EMOVO, RAVDESS and URDU without fear and disgust, and tested on the
fourth, with EmoDB's boredom and RAVDESS's calm, which are never trained. (URDU
is never left out: it has no emotion that is not trained.)

AUROC: how well the unseen word's log-probability, over that of the trained words
together, tells its utterances from those of the trained emotions; 0.5 is chance.
Beside the word, words of the same meaning. UA: the mean recall if all labels of
the corpus are candidates, how much of it is of the unseen, and that of the
trained alone.

Usage: python loeo.py --data FOLDER [--folder results/loco] [--seeds 1 2 3] \
           [--overrides "{lr: 1.0e-3}"]
"""

import statistics

import numpy as np
from folds import (
    LABELS,
    Folds,
    argument_parser,
    columns,
    mean_and_sd,
    others_than,
    read_log_probs,
    side_by_side,
)
from scipy.special import logsumexp

from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.evaluation.auroc import auroc, auroc_interval
from speechbrain_mser.evaluation.intervals import speakers_to_draw
from speechbrain_mser.evaluation.metrics import emotion_metrics
from speechbrain_mser.files.markdown import markdown_table

HELD_OUT = ("fear", "disgust")
# Emotions that a corpus has beside the labels of loco.py; never trained.
FURTHER = {"emodb": ["boredom"], "emovo": [], "ravdess": ["calm"]}
# Other words for the unseen: as speakers are said to be first.
SYNONYMS = {
    "fear": ("scared", "afraid"),
    "disgust": ("disgusted",),
    "boredom": ("bored",),
    "calm": (),
}
KINDS = {"none": "inductive", "set": "transductive"}
FIGURES = {
    "UA": "UA, all candidates",
    "unseen": "recall of the unseen",
    "seen": "UA of the trained, alone",
    "chance": "chance, all candidates",
}


def run_fold(folds, seed, corpus):
    """Train without the emotions and the corpus; kind to what is measured."""
    place = f"loeo/{corpus}/seed{seed}"
    trained = [w for w in folds.setting("label_words") if w not in HELD_OUT]
    recognizer = folds.train(
        f"{place}/training",
        others_than(corpus),
        {"label_words": trained},
        seed,
    )
    seen, unseen = split_labels(corpus)
    words = [word for label in unseen for word in SYNONYMS[label]]
    utterances = folds.utterances().set_index("ID")
    results = {}
    for kind in KINDS:
        asked = [*seen, *unseen, *words]
        folds.evaluate(f"{place}/{kind}", recognizer, corpus, asked, kind)
        path = folds.folder / place / kind / corpus / "predictions.csv"
        table = read_log_probs(path, asked)
        speakers = utterances.loc[table.index, ["corpus", "speaker"]]
        results[kind] = measure(table.join(speakers), seen, unseen)
    return results


def split_labels(corpus):
    """A corpus's labels: those that are trained, and those that are not."""
    labels = [*candidate_labels(LABELS[corpus]), *FURTHER[corpus]]
    unseen = [label for label in labels if label in SYNONYMS]
    return [label for label in labels if label not in unseen], unseen


def measure(table, seen, unseen):
    """What there is to say of a corpus, ready for JSON.

    Arguments
    ---------
    table : pandas.DataFrame
        As `read_log_probs` returns, with ``corpus`` and ``speaker``.
    seen, unseen : list of str
        The corpus's labels, trained and not; `SYNONYMS` of the latter are
        columns too.

    Returns
    -------
    dict
        `FIGURES`; and ``words``: for each unseen label its ``n``, ``AUROC``,
        ``interval`` and, word to AUROC, ``synonyms``.
    """
    labels = [*seen, *unseen]
    said = table[labels].idxmax(axis=1).tolist()
    whole = emotion_metrics(table.label.tolist(), said, labels)
    alone = table[table.label.isin(seen)]
    among = emotion_metrics(
        alone.label.tolist(), alone[seen].idxmax(axis=1).tolist(), seen
    )
    recalls = [whole["per_class"][label]["recall"] for label in unseen]
    return {
        "UA": whole["UA"],
        "unseen": statistics.mean(recalls),
        "seen": among["UA"],
        "chance": whole["chance"],
        "words": {label: of_word(table, seen, label) for label in unseen},
    }


def of_word(table, seen, label):
    """AUROC of an unseen label's word, and of its synonyms."""
    table = table[table.label.isin([*seen, label])]
    positive = (table.label == label).to_numpy()
    # Those of the other candidates cancel out.
    trained = logsumexp(table[seen].to_numpy(), axis=1)

    def scores(word):
        return table[word].to_numpy() - trained

    return {
        "n": int(positive.sum()),
        "AUROC": auroc(scores(label), positive),
        "interval": auroc_interval(
            scores(label), positive, speakers_to_draw(table)
        ),
        "synonyms": {
            word: auroc(scores(word), positive) for word in SYNONYMS[label]
        },
    }


def auroc_table(runs, kind):
    """AUROC of every unseen label of every corpus, over seeds, and their mean."""
    seed, first = next(iter(runs.items()))
    heading = [f"AUROC, {KINDS[kind]}", "n", "the word", f"95 %, seed {seed}"]
    rows = [[*heading, "another word", "and another"]]
    words, adjectives = [], []
    for corpus, results in first.items():
        for label, found in results[kind]["words"].items():
            every = [run[corpus][kind]["words"][label] for run in runs.values()]
            words.append([one["AUROC"] for one in every])
            of_synonym = {
                word: [one["synonyms"][word] for one in every]
                for word in found["synonyms"]
            }
            adjectives.append(next(iter(of_synonym.values()), words[-1]))
            low, high = found["interval"]
            others = [f"{w}: {mean_and_sd(x)}" for w, x in of_synonym.items()]
            rows.append(
                [
                    f"{corpus}, {label}",
                    str(found["n"]),
                    mean_and_sd(words[-1]),
                    f"{low:.3f} to {high:.3f}",
                    *[*others, "", ""][:2],
                ]
            )
    means = [
        mean_and_sd(np.mean(each, axis=0).tolist())
        for each in (words, adjectives)
    ]
    # Without another word it is the word itself.
    rows.append(["mean of all", "", means[0], "", means[1], ""])
    return markdown_table(rows)


def recall_table(runs):
    """`FIGURES` of every corpus and kind, over seeds."""
    corpora = list(next(iter(runs.values())))
    rows = [["", *corpora, "mean"]]
    for kind, how in KINDS.items():
        for figure, name in FIGURES.items():
            every = [
                {c: run[c][kind][figure] for c in corpora}
                for run in runs.values()
            ]
            rows.append([f"{name}, {how}", *columns(every)])
    return markdown_table(rows)


@exits_on_input_error(resumes=True)
def main():
    """Run every fold of every seed."""
    parser = argument_parser(__doc__.splitlines()[0], tuple(FURTHER))
    arguments = parser.parse_args()
    folds = Folds(arguments.data, arguments.folder, arguments.overrides)
    folds.prepare()
    done = side_by_side(
        arguments.jobs,
        run_fold,
        [(folds, s, c) for s in arguments.seeds for c in arguments.corpora],
    )
    runs = {}
    for seed in arguments.seeds:
        runs[seed] = {corpus: next(done) for corpus in arguments.corpora}
        texts = [auroc_table(runs, kind) for kind in KINDS]
        text = "\n\n".join([*texts, recall_table(runs)])
        if set(arguments.corpora) == set(FURTHER):
            folds.write_results("loeo", text, runs)
        print(f"\nseeds {[*runs]}\n{text}")


if __name__ == "__main__":
    main()
