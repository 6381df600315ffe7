#!/usr/bin/env python3
"""Simple methods under leave-one-corpus-out, beside the system of loco.py.

On the same utterances, through the same front end: an RBF SVM on openSMILE's
eGeMAPS; logistic regression (balanced) on the mean, and on mean and deviation,
over time of each layer of the same Whisper encoder, and of layers 2 to 4 side
by side. "as they are" changes no feature; else each training corpus is
standardised by itself, and the test corpus by all training corpora
("inductive"), by itself ("transductive"), or by what was heard of it, shrunk to
the training corpora ("listen:10": the utterances that the system hears).
"self-trained" is transductive: a second training has the test corpus's surer
half too, with the labels that the first one gave it, as the system's has.

Usage: python loco_baselines.py --data FOLDER --folder F --output F/simple.json
"""

import argparse
import json
import statistics
from pathlib import Path

import numpy as np
import recipe  # noqa: F401  finds the recipe's scripts
from baseline import pooled_features
from egemaps import egemaps_features, support_vectors
from folds import DRAWS, LABELS, SEED, Folds, read_overrides
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from speechbrain_mser.dataio.batching import select_utterances
from speechbrain_mser.dataio.cached_encoding import open_store
from speechbrain_mser.emotions import CANONICAL, candidate_labels
from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.evaluation.metrics import emotion_metrics
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.inference.adaptation import KAPPA_MEAN, KAPPA_VARIANCE
from speechbrain_mser.inference.listening import parse_adaptation
from speechbrain_mser.inference.pseudo_labels import even_out, surest

AS_THEY_ARE = "as they are"
INDUCTIVE, TRANSDUCTIVE = "inductive", "transductive"
LISTENING = tuple(f"listen:{number}" for number in (1, 3, 10, 30))
SELF_TRAINED = "self-trained"
SIDE_BY_SIDE = [2, 3, 4]


def standardize(features, corpora, test, kind, heard=()):
    """Features ``[n, dim]`` with each training corpus standardised by itself.

    "as they are" changes nothing; "inductive" takes the test corpus by the
    statistics of all training utterances, "listen" by these and those of the
    rows that were heard, as `shrink` does; else by its own.
    """
    if kind == AS_THEY_ARE:
        return features
    moved = np.empty_like(features)
    for corpus in np.unique(corpora):
        rows = source = corpora == corpus
        shrunk = corpus == test and kind in (INDUCTIVE, *LISTENING)
        if shrunk:
            source = ~rows
        mean, variance = features[source].mean(0), features[source].var(0)
        if shrunk and len(heard):
            n, own = len(heard), features[heard]
            mean += n / (n + KAPPA_MEAN) * (own.mean(0) - mean)
            variance += n / (n + KAPPA_VARIANCE) * (own.var(0) - variance)
        moved[rows] = (features[rows] - mean) / (np.sqrt(variance) + 1e-6)
    return moved


def draws(table, test, kind):
    """Rows of the test corpus that are heard, for each draw; as evaluation does."""
    if kind not in LISTENING:
        return [[]]
    listening = parse_adaptation(kind, DRAWS, SEED)
    return [
        np.flatnonzero(table.ID.isin(heard))
        for heard in listening.draw(table[table.corpus == test])
    ]


def logistic_regression(features, emotions, corpora):
    """A strongly regularised classifier; ``corpora`` are not needed."""
    del corpora
    model = LogisticRegression(C=0.001, class_weight="balanced", max_iter=300)
    return model.fit(features, emotions)


def leave_out(fit, features, table, test, kind):
    """UA on a corpus, with the labels that occur in it, of training on the others.

    ``fit`` is ``(features, emotions, corpora) -> model``; the kind is one of
    `standardize`, or "self-trained". After listening, the mean over draws.
    """
    return statistics.mean(
        ua_of_draw(fit, features, table, test, kind, heard)
        for heard in draws(table, test, kind)
    )


def ua_of_draw(fit, features, table, test, kind, heard):
    """The same, where those rows were heard."""
    corpora = table.corpus.to_numpy(str)
    emotions = table.emotion.to_numpy(str)
    features = standardize(features, corpora, test, kind, heard)
    train = (corpora != test) & np.isin(emotions, CANONICAL)
    scaler = StandardScaler().fit(features[train])
    features = scaler.transform(features)
    labels = list(candidate_labels(LABELS[test]))

    def log_probs(model, rows):
        scores = model.decision_function(features[rows])
        # Closed set, as the system is asked: only the candidates can win.
        columns = [list(model.classes_).index(label) for label in labels]
        return log_softmax(scores[:, columns], axis=1)

    model = fit(features[train], emotions[train], corpora[train])
    if kind == SELF_TRAINED:
        target = corpora == test
        said, believed = surest(even_out(log_probs(model, target)), keep=0.5)
        guessed = emotions.copy()
        guessed[target] = np.array(labels)[said]
        train[np.flatnonzero(target)[believed]] = True
        model = fit(features[train], guessed[train], corpora[train])
    chosen = (corpora == test) & np.isin(emotions, labels)
    said = [labels[i] for i in log_probs(model, chosen).argmax(1)]
    return emotion_metrics(list(emotions[chosen]), said, labels)["UA"]


def methods(pooled, egemaps):
    """Name to classifier, features and kinds of standardisation."""
    plain = [AS_THEY_ARE, INDUCTIVE, TRANSDUCTIVE]
    dim = pooled.shape[-1] // 2
    every = {"eGeMAPS, RBF SVM": (support_vectors, egemaps, plain)}
    for layer in range(pooled.shape[1]):
        for name, values in (
            ("mean", pooled[:, layer, :dim]),
            ("mean and deviation", pooled[:, layer]),
        ):
            every[f"layer {layer}, {name}"] = (
                logistic_regression,
                values,
                plain,
            )
    beside = pooled[:, SIDE_BY_SIDE, :dim].reshape(len(pooled), -1)
    every["layers 2-4, mean"] = (
        logistic_regression,
        beside,
        [*plain, *LISTENING, SELF_TRAINED],
    )
    return every


@exits_on_input_error
def main():
    """Run all methods on all corpora."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in ("data", "folder", "output"):
        parser.add_argument(f"--{flag}", type=Path, required=True)
    parser.add_argument("--overrides", type=read_overrides, default={})
    arguments = parser.parse_args()
    folds = Folds(arguments.data, arguments.folder, arguments.overrides)
    table = select_utterances(folds.utterances())
    encoder = folds.encoder("all")
    folder = folds.store["feature_folder"]
    store = open_store(encoder, "write", folder, "float16")
    pooled = pooled_features(encoder, store, table)
    egemaps = egemaps_features(table, folder, encoder.front_end)
    results = {}
    for name, (fit, values, kinds) in tqdm(
        methods(pooled, egemaps).items(), "simple methods"
    ):
        for kind in kinds:
            results[f"{name}, {kind}"] = {
                test: leave_out(fit, values, table, test, kind)
                for test in LABELS
            }
    write_text(arguments.output, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
