#!/usr/bin/env python3
"""Simple methods under leave-one-corpus-out, beside the system of loco.py.

On the same utterances: always the commonest emotion; an RBF SVM on openSMILE's
eGeMAPS; logistic regression (balanced) on the mean, and on mean and deviation,
over time of each layer of the same Whisper encoder, and of layers 2 to 4 side
by side. "as they are" changes no feature; else each training corpus is
standardised by itself, and the test corpus by all training corpora
("inductive") or by itself ("transductive"). "self-trained" is transductive: a
second training has the test corpus's surer half too, with the labels that the
first one gave it, as the system's has.

Usage: python loco_baselines.py --data FOLDER --folder F --output F/simple.json
"""

import argparse
import json
from pathlib import Path

import numpy as np
import recipe  # noqa: F401  finds the recipe's scripts
from baseline import FOLDERS, pooled_features
from corpora import prepare_manifests
from egemaps import egemaps_features, support_vectors
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from speechbrain_mser.dataio.batching import select_utterances
from speechbrain_mser.dataio.cached_encoding import open_store
from speechbrain_mser.dataio.manifest import read_manifests
from speechbrain_mser.emotions import CANONICAL, candidate_labels
from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.evaluation.metrics import emotion_metrics
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.inference.pseudo_labels import even_out, surest
from speechbrain_mser.lobes import build_encoder

LABELS = {
    "emodb": "emodb6",
    "emovo": "paper7",
    "ravdess": "ravdess7",
    "urdu": "urdu4",
}
AS_THEY_ARE = "as they are"
INDUCTIVE, TRANSDUCTIVE = "inductive", "transductive"
SELF_TRAINED = "self-trained"
SIDE_BY_SIDE = [2, 3, 4]


def standardize(features, corpora, test, kind):
    """Features ``[n, dim]`` with each training corpus standardised by itself.

    "as they are" changes nothing; "inductive" takes the test corpus by the
    statistics of all training utterances; else by its own.
    """
    if kind == AS_THEY_ARE:
        return features
    moved = np.empty_like(features)
    for corpus in np.unique(corpora):
        rows = source = corpora == corpus
        if corpus == test and kind == INDUCTIVE:
            source = ~rows
        mean, std = features[source].mean(0), features[source].std(0)
        moved[rows] = (features[rows] - mean) / (std + 1e-6)
    return moved


def logistic_regression(features, emotions, corpora):
    """A strongly regularised classifier; ``corpora`` are not needed."""
    del corpora
    model = LogisticRegression(C=0.001, class_weight="balanced", max_iter=300)
    return model.fit(features, emotions)


def leave_out(fit, features, table, test, kind):
    """UA on a corpus, with the labels that occur in it, of training on the others.

    ``fit`` is ``(features, emotions, corpora) -> model``; the kind is one of
    `standardize`, or "self-trained".
    """
    corpora = table.corpus.to_numpy(str)
    emotions = table.emotion.to_numpy(str)
    features = standardize(features, corpora, test, kind)
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
        [*plain, SELF_TRAINED],
    )
    return every


@exits_on_input_error
def main():
    """Run all methods on all corpora."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in ("data", "folder", "output"):
        parser.add_argument(f"--{flag}", type=Path, required=True)
    arguments = parser.parse_args()
    data, folder = arguments.data, arguments.folder
    manifests = prepare_manifests(
        list(FOLDERS), data / "speech", FOLDERS, folder / "manifests"
    )
    table = select_utterances(read_manifests(manifests))
    encoder = build_encoder(data / "whisper-base-encoder", layers="all")
    store = open_store(encoder, "write", folder / "features", "float16")
    pooled = pooled_features(encoder, store, table)
    egemaps = egemaps_features(table, folder / "features")
    results = {
        "always one emotion": {
            test: 1 / len(candidate_labels(labels))
            for test, labels in LABELS.items()
        }
    }
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
