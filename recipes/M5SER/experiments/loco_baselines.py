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

from speechbrain_mser.dataio.cached_encoding import open_store
from speechbrain_mser.dataio.utterances import select_utterances
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


def leave_out(fit, features, table, test, kinds):
    """UA on a corpus, with the labels that occur in it, of training on the others.

    ``fit`` is ``(features, emotions, corpora) -> model``; a kind is one of
    `standardize`, or "self-trained". Kind to UA; after listening, the mean
    over draws.
    """
    corpora = table.corpus.to_numpy(str)
    emotions = table.emotion.to_numpy(str)
    labels = list(candidate_labels(LABELS[test]))
    train = (corpora != test) & np.isin(emotions, CANONICAL)
    chosen = (corpora == test) & np.isin(emotions, labels)
    # By whether features are as they are: else kinds differ in the test
    # corpus only, and what is trained on is the same.
    trained = {}

    def ua_of_draw(kind, heard):
        moved = standardize(features, corpora, test, kind, heard)
        plain = kind == AS_THEY_ARE
        if plain not in trained:
            scaler = StandardScaler().fit(moved[train])
            own = scaler.transform(moved[train])
            trained[plain] = scaler, fit(own, emotions[train], corpora[train])
        scaler, model = trained[plain]
        moved = scaler.transform(moved)
        if kind == SELF_TRAINED:
            target = np.flatnonzero(corpora == test)
            scores = log_probs(model, moved[target], labels)
            said, believed = surest(even_out(scores), keep=0.5)
            guessed = emotions.copy()
            guessed[target] = np.array(labels)[said]
            again = train.copy()
            again[target[believed]] = True
            model = fit(moved[again], guessed[again], corpora[again])
        best = log_probs(model, moved[chosen], labels).argmax(1)
        said = [labels[i] for i in best]
        return emotion_metrics(list(emotions[chosen]), said, labels)["UA"]

    return {
        kind: statistics.mean(
            ua_of_draw(kind, heard) for heard in draws(table, test, kind)
        )
        for kind in kinds
    }


def log_probs(model, features, labels):
    """Of a closed set, as the system is asked: only the candidates can win."""
    columns = [list(model.classes_).index(label) for label in labels]
    scores = model.decision_function(features)
    return log_softmax(scores[:, columns], axis=1)


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
        for test in LABELS:
            uas = leave_out(fit, values, table, test, kinds)
            for kind, ua in uas.items():
                results.setdefault(f"{name}, {kind}", {})[test] = ua
    write_text(arguments.output, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
