#!/usr/bin/env python3
"""Leave one corpus out: zero-shot on real speech, beside simple methods.

Four corpora in four languages (EmoDB German, EMOVO Italian, RAVDESS English
without calm, URDU), the real Whisper-base encoder. For each corpus the system
is trained on the other three and tested on all of it, with the labels that
occur in it; epochs are chosen on speakers held out of the three. Inductive
takes the test utterances one by one, transductive moves the test corpus to the
training's mean and deviation first (its audio, none of its labels).

Beside it, on the same features: always the commonest emotion, and logistic
regression (C 0.001, balanced) on the mean over time of each encoder layer, with
the training corpora as they are or each standardised by itself.

Usage: python loco.py --data FOLDER [--folder results/loco] [--seeds 1 2 3]
"""

import argparse
import json
import statistics
from pathlib import Path

import numpy as np
from baseline import FOLDERS, pooled_features
from corpora import prepare_manifests
from real import bert_folder, require_data
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from steps import HERE, Steps, as_flags

from speechbrain_mser.atomic import atomic_path
from speechbrain_mser.dataio.batching import select_utterances
from speechbrain_mser.dataio.encoding import open_store
from speechbrain_mser.dataio.manifest import read_manifests
from speechbrain_mser.emotions import CANONICAL, candidate_labels
from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.lobes.whisper import WhisperEncoder
from speechbrain_mser.markdown import markdown_table
from speechbrain_mser.metrics import emotion_metrics

LABELS = {
    "emodb": "emodb6",
    "emovo": "paper7",
    "ravdess": "ravdess7",
    "urdu": "urdu4",
}
LAYERS = [2, 3, 4]
MODEL = {
    "frozen_dtype": "float32",
    "encoder_layers": LAYERS,
    "connector_type": "linear",
    "n_queries": 4,
    "precision": "fp32",
    "eval_precision": "fp32",
    "batch_size": 32,
    "balance": 0.5,
    "number_of_epochs": 10,
    "lr": 1e-3,
    "weight_decay": 0.01,
    "warmup": 0.1,
    "cooldown": 0.9,
    "reduction": "balanced",
    "align_corpora": True,
    "statistics_utterances": 600,
    "languages": ["eng", "deu", "ita", "urd"],
    "num_workers": 1,
}
INDUCTIVE, TRANSDUCTIVE = "inductive", "transductive"


def run_fold(steps, folder, data, models, corpus, seed):
    """Train on the other three, test on this one; UA in both ways."""
    common = {
        "data_root": str(data / "speech"),
        "manifest_folder": f"{models.parent}/manifests",
        "features": "write",
        "feature_folder": f"{models.parent}/features",
    }
    flags = {
        "seed": seed,
        "output_folder": f"{folder}/training",
        "corpora": [name for name in FOLDERS if name != corpus],
        "whisper_hub": str(data / "whisper-base-encoder"),
        "llama_hub": f"{models}/llama",
        "bert_hub": str(bert_folder()),
        **common,
        **MODEL,
    }
    name = f"{corpus}_seed{seed}"
    yaml = HERE / "hparams" / "stage1.yaml"
    steps.run(f"train_{name}", "train.py", yaml, *as_flags(flags))
    found = {}
    for kind, adaptation in ((INDUCTIVE, "none"), (TRANSDUCTIVE, "set")):
        flags = {
            "recognizer": f"{folder}/training/recognizer",
            "output_folder": f"{folder}/{kind}",
            "adaptation": adaptation,
            "sets": [
                {"name": corpus, "corpus": corpus, "labels": LABELS[corpus]}
            ],
            "batch_size": 32,
            "num_workers": 1,
            **common,
        }
        yaml = HERE / "hparams" / "evaluate.yaml"
        steps.run(f"{kind}_{name}", "evaluate.py", yaml, *as_flags(flags))
        metrics = json.loads((folder / kind / "metrics.json").read_text())
        found[kind] = metrics[corpus]
    return found


def standardize(features, corpora, test, kind):
    """Features with each training corpus standardised by itself.

    Arguments
    ---------
    features : numpy.ndarray
        ``[n, dim]``.
    corpora : numpy.ndarray
        ``[n]``, names.
    test : str
        The corpus that is tested on.
    kind : str
        "as they are" changes nothing; "inductive" takes the test corpus by
        the statistics of all training utterances; "transductive" by its own.

    Returns
    -------
    numpy.ndarray
        ``[n, dim]``.
    """
    if kind == "as they are":
        return features
    moved = np.empty_like(features)
    for corpus in np.unique(corpora):
        rows = source = corpora == corpus
        if corpus == test and kind == INDUCTIVE:
            source = ~rows
        mean, std = features[source].mean(0), features[source].std(0)
        moved[rows] = (features[rows] - mean) / (std + 1e-6)
    return moved


def logistic_regression(features, table, test):
    """UA on a corpus of a classifier trained on the others."""
    train = (table.corpus != test) & table.emotion.isin(CANONICAL)
    labels = list(candidate_labels(LABELS[test]))
    chosen = (table.corpus == test) & table.emotion.isin(labels)
    scaler = StandardScaler().fit(features[train])
    model = LogisticRegression(C=0.001, class_weight="balanced", max_iter=300)
    model.fit(scaler.transform(features[train]), table.emotion[train])
    scores = model.decision_function(scaler.transform(features[chosen]))
    # Closed set, as the system is asked: only the candidates can win.
    columns = [list(model.classes_).index(label) for label in labels]
    said = [labels[i] for i in scores[:, columns].argmax(1)]
    return emotion_metrics(list(table.emotion[chosen]), said, labels)["UA"]


def baselines(data, folder):
    """UA of every simple method on every corpus."""
    manifests = prepare_manifests(
        list(FOLDERS), data / "speech", FOLDERS, folder / "manifests"
    )
    table = select_utterances(read_manifests(manifests))
    whisper = WhisperEncoder(data / "whisper-base-encoder", layers="all")
    store = open_store(whisper, "write", folder / "features", "float16")
    pooled = pooled_features(whisper, store, table)
    means = pooled[..., : whisper.hidden_size]
    corpora = table.corpus.to_numpy()
    results = {
        "always one emotion": {
            test: 1 / len(candidate_labels(labels))
            for test, labels in LABELS.items()
        }
    }
    for kind in ("as they are", INDUCTIVE, TRANSDUCTIVE):
        for layer in range(means.shape[1]):
            results[f"logistic regression, layer {layer}, {kind}"] = {
                test: logistic_regression(
                    standardize(means[:, layer], corpora, test, kind),
                    table,
                    test,
                )
                for test in LABELS
            }
    return results


def report(simple, folds):
    """All methods in one table; the system as mean and deviation over seeds."""
    rows = [
        [method, *(f"{ua:.3f}" for ua in uas.values()), ""]
        for method, uas in simple.items()
    ]
    for row, uas in zip(rows, simple.values(), strict=True):
        row[-1] = f"{statistics.mean(uas.values()):.3f}"
    for kind in (INDUCTIVE, TRANSDUCTIVE):
        by_seed = [
            [found[corpus][kind]["UA"] for corpus in LABELS]
            for found in folds.values()
        ]
        columns = [*zip(*by_seed, strict=True), [*map(np.mean, by_seed)]]
        rows.append(
            [f"the system, {kind}", *(_mean_and_sd(each) for each in columns)]
        )
    return markdown_table([["UA", *LABELS, "mean"], *rows])


def _mean_and_sd(values):
    sd = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{sd}"


@exits_on_input_error
def main():
    """Run every fold with every seed, and the simple methods."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("results/loco"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    require_data(arguments.data)
    folder, models = arguments.folder, arguments.folder / "models"
    steps = Steps(folder)
    steps.run("models", "demo_models.py", "--save_folder", models)
    simple = baselines(arguments.data, folder)
    folds = {}
    for seed in arguments.seeds:
        folds[seed] = {
            corpus: run_fold(
                steps,
                folder / f"seed{seed}" / corpus,
                arguments.data,
                models,
                corpus,
                seed,
            )
            for corpus in LABELS
        }
        text = report(simple, folds)
        results = {"simple": simple, "system": folds}
        for name, content in (
            ("table.md", text),
            ("results.json", json.dumps(results, indent=1)),
        ):
            with atomic_path(folder / name) as partial:
                partial.write_text(content + "\n", encoding="utf-8")
        print(f"\nseeds {[*folds]}\n{text}")


if __name__ == "__main__":
    main()
