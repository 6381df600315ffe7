#!/usr/bin/env python3
"""What a linear classifier on an encoder's features reaches, zero-shot.

Mean and standard deviation over time of one encoder layer, logistic
regression (C 0.01, balanced classes): trained on RAVDESS, and on RAVDESS,
EmoDB and EMOVO (training speakers only, as the system is), tested on URDU.
Also with every corpus standardised by its own mean and deviation, which needs
the test corpus's audio but none of its labels.

Usage: python baseline.py --whisper_hub W --data_root D --manifest_folder M
           --feature_folder F --output results/baseline.json
"""

import argparse
import json

import recipe  # noqa: F401  finds the recipe's scripts
import torch
from corpora import prepare_manifests
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from speechbrain_mser.dataio.cached_encoding import open_store
from speechbrain_mser.dataio.feature_reader import FeatureReader
from speechbrain_mser.dataio.manifest import read_manifests
from speechbrain_mser.dataio.utterances import select_utterances
from speechbrain_mser.emotions import CANONICAL, candidate_labels
from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.evaluation.corpus_figures import standardize_each
from speechbrain_mser.evaluation.metrics import emotion_metrics
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.lobes import build_encoder

FOLDERS = {
    "ravdess": "RAVDESS",
    "emodb": "EmoDB",
    "emovo": "EMOVO",
    "urdu": "URDU",
}
TRAINING = {
    "RAVDESS": ["ravdess"],
    "RAVDESS+EmoDB+EMOVO": ["ravdess", "emodb", "emovo"],
}
TEST, LABELS = "urdu", "urdu4"


def pooled_features(encoder, store, table):
    """``[utterances, layers, 2 dim]``: mean and deviation over time."""
    reader = FeatureReader(encoder, store)
    return reader.compute(mean_and_deviation, table, "pooled features")[
        1
    ].numpy()


def mean_and_deviation(features, lens):
    """Those over each utterance's frames, ``[batch, layers, 2 dim]``."""
    frames = (lens * features.shape[2]).round().long().tolist()
    pooled = []
    for hidden, n in zip(features, frames, strict=True):
        hidden = hidden[:, :n].float()  # [layers, time, dim]
        pooled.append(torch.cat([hidden.mean(1), hidden.std(1)], dim=-1))
    return torch.stack(pooled)


def zero_shot(features, table, training, labels):
    """Metrics on the test corpus of a classifier trained on others."""
    known = table.emotion.isin(CANONICAL)
    train = table.corpus.isin(training) & (table.split == "train") & known
    test = (table.corpus == TEST) & table.emotion.isin(labels)
    model = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000),
    )
    model.fit(features[train], table.emotion[train])
    scores = model.decision_function(features[test])
    # Closed set, as the system is asked: only the candidates can win.
    columns = [list(model.classes_).index(label) for label in labels]
    said = [labels[i] for i in scores[:, columns].argmax(1)]
    return emotion_metrics(list(table.emotion[test]), said, labels)


@exits_on_input_error
def main():
    """Run all combinations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in (
        "whisper_hub",
        "data_root",
        "manifest_folder",
        "feature_folder",
        "output",
    ):
        parser.add_argument(f"--{flag}", required=True)
    arguments = parser.parse_args()
    manifests = prepare_manifests(
        list(FOLDERS),
        arguments.data_root,
        FOLDERS,
        arguments.manifest_folder,
    )
    table = select_utterances(read_manifests(manifests))
    encoder = build_encoder(arguments.whisper_hub, layers="all")
    store = open_store(encoder, "write", arguments.feature_folder, "float16")
    features = pooled_features(encoder, store, table)
    labels = list(candidate_labels(LABELS))
    results = {}
    for layer in range(features.shape[1]):
        plain = features[:, layer]
        own = standardize_each(plain, table.corpus.to_numpy())
        for name, training in TRAINING.items():
            for kind, values in (("", plain), (", own standardisation", own)):
                metrics = zero_shot(values, table, training, labels)
                key = f"{name}, layer {layer}{kind}"
                results[key] = {m: metrics[m] for m in ("WA", "UA", "WF1")}
    write_text(arguments.output, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
