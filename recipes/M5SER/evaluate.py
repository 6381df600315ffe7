#!/usr/bin/env python3
"""Evaluate a recogniser on any manifests, with any label sets.

    python evaluate.py hparams/evaluate.yaml --data_root /corpora \
        --recognizer results/stage2/1234/recognizer

Writes into the output folder: metrics.json and table.md over all sets, and
<set>/predictions.csv and <set>/confusion.png for each.
"""

import csv
import json
import math
import sys
from pathlib import Path

import speechbrain as sb
from corpora import prepare_manifests
from speechbrain.utils.logger import get_logger
from torch.utils.data import DataLoader
from tqdm import tqdm

from speechbrain_mser.atomic import atomic_path
from speechbrain_mser.dataio.batching import (
    UtteranceBatch,
    make_dataset,
    select_utterances,
)
from speechbrain_mser.dataio.encoding import encode_batch, open_store
from speechbrain_mser.dataio.manifest import read_manifests
from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError, exits_on_input_error
from speechbrain_mser.hparams import place_overrides, read_settings
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.metrics import (
    calibration,
    confusion_matrix,
    emotion_metrics,
    metrics_table,
    plot_confusion,
)

logger = get_logger(__name__)

KEYS = {
    "name",
    "corpus",
    "manifest",
    "data_root",
    "labels",
    "split",
    "languages",
    "ua_over",
}


def read_sets(settings):
    """The utterances and candidate labels of every set, all checked."""
    sets, tables = {}, {}
    if not settings["sets"]:
        raise InputError("no sets: there is nothing to evaluate")
    for entry in settings["sets"]:
        name = _check_entry(entry, sets)
        # Several sets may be of one corpus.
        source = tuple(
            entry.get(key) for key in ("corpus", "manifest", "data_root")
        )
        if source not in tables:
            tables[source] = read_source(entry, settings)
        labels = list(candidate_labels(entry["labels"]))
        table = select_utterances(
            tables[source],
            entry.get("split"),
            entry.get("languages"),
            labels,
        )
        sets[name] = (table, labels, entry.get("ua_over", "present"))
    return sets


def read_source(entry, settings):
    """The utterances of a set's corpus or manifest."""
    if "manifest" in entry:
        root = entry.get("data_root", settings["data_root"])
        return read_manifests({entry["manifest"]: root})
    return read_manifests(
        prepare_manifests(
            [entry["corpus"]],
            settings["data_root"],
            settings["corpus_folders"],
            settings["manifest_folder"],
            settings["skip_prep"],
            settings["corpus_options"],
        )
    )


def _check_entry(entry, sets):
    """A set's name, if its description can be used."""
    required = {"name", "labels"}
    if not isinstance(entry, dict):
        raise InputError(
            f"set {entry!r}: a set is described as {{name: ..., corpus: ..., "
            "labels: ...}"
        )
    if not required <= set(entry) <= KEYS or ("corpus" in entry) == (
        "manifest" in entry
    ):
        raise InputError(
            f"set {dict(entry)}: needs name and labels, and either corpus or "
            f"manifest; and may have {', '.join(sorted(KEYS - required))}"
        )
    name = str(entry["name"])
    if name in sets:
        raise InputError(f"the set {name!r} is there twice")
    if Path(name).name != name or name == "..":
        raise InputError(
            f"the set's name {name!r} becomes a folder and cannot be a path"
        )
    return name


def recognize(recognizer, store, table, labels, settings, name):
    """Predictions of a set, and what could not be read.

    Arguments
    ---------
    recognizer : EmotionRecognizer
        The trained system.
    store : FeatureStore or None
        Where the encoder's features may be.
    table : pandas.DataFrame
        The set's utterances.
    labels : list of str
        The candidates.
    settings : dict
        Batch size, workers, and what to do with unreadable utterances.
    name : str
        The set's, for the progress bar.

    Returns
    -------
    rows : list of dict
        ID, label, prediction, and the log-probability of every candidate.
    bad : list of BadUtterance
        What could not be read.
    """
    loader = DataLoader(
        # Neighbours of like length: little is computed for padding.
        make_dataset(table.sort_values(["duration", "ID"]), store),
        batch_size=settings["batch_size"],
        num_workers=settings["num_workers"],
        collate_fn=UtteranceBatch,
    )
    rows, bad = [], []
    for batch in tqdm(loader, name):
        for utterance in batch.bad:
            if settings["on_bad_utterance"] == "stop":
                raise InputError(f"{utterance.utterance}: {utterance.reason}")
            logger.warning(
                "%s left out: %s", utterance.utterance, utterance.reason
            )
            bad.append(utterance)
        if len(batch) == 0:
            continue
        features = encode_batch(
            batch.to(recognizer.device), recognizer.mods.whisper, store
        )
        words, log_probs = recognizer.recognize_features(*features, labels)
        for i, utterance in enumerate(batch.id):
            scores = dict(zip(labels, log_probs[i].tolist(), strict=True))
            rows.append(
                {
                    "ID": utterance,
                    "label": batch.emotion[i],
                    "prediction": words[i],
                    "log_probs": scores,
                }
            )
    return sorted(rows, key=lambda row: row["ID"]), bad


def write_set(folder, name, rows, labels, ua_over):
    """Write a set's predictions and confusions; return its metrics."""
    with (
        atomic_path(folder / "predictions.csv") as partial,
        open(partial, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["ID", "label", "prediction", *labels])
        for row in rows:
            probabilities = [
                f"{math.exp(row['log_probs'][word]):.6f}" for word in labels
            ]
            writer.writerow(
                [row["ID"], row["label"], row["prediction"], *probabilities]
            )
    references = [row["label"] for row in rows]
    predictions = [row["prediction"] for row in rows]
    metrics = emotion_metrics(references, predictions, labels, ua_over)
    metrics["labels"] = labels
    metrics["calibration"] = calibration(
        [list(row["log_probs"].values()) for row in rows], references, labels
    )
    plot_confusion(
        confusion_matrix(references, predictions, labels),
        labels,
        folder / "confusion.png",
        name,
    )
    return metrics


def write_results(folder, results):
    """Write metrics.json and table.md."""
    for name, text in (
        ("metrics.json", json.dumps(results, indent=2) + "\n"),
        ("table.md", metrics_table(results) + "\n"),
    ):
        with atomic_path(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")


@exits_on_input_error
def main():
    """Evaluate."""
    hparams_file, run_opts, flags = sb.parse_arguments(sys.argv[1:])
    overrides = place_overrides(hparams_file, flags)
    settings = read_settings(hparams_file, overrides)
    sets = read_sets(settings)
    recognizer = EmotionRecognizer.from_hparams(
        settings["recognizer"],
        overrides={
            hub: settings[hub]
            for hub in ("whisper_hub", "llama_hub")
            if settings[hub] is not None
        },
        run_opts=run_opts,
    )
    store = open_store(
        recognizer.mods.whisper,
        settings["features"],
        settings["feature_folder"],
        settings["feature_dtype"],
    )
    folder = Path(settings["output_folder"])
    results = {}
    for name, (table, labels, ua_over) in sets.items():
        rows, bad = recognize(recognizer, store, table, labels, settings, name)
        if not rows:
            raise InputError(f"{name}: no utterance could be read")
        results[name] = write_set(folder / name, name, rows, labels, ua_over)
        results[name]["unreadable"] = len(bad)
        results[name]["languages"] = sorted(set(table.language))
        write_results(folder, results)
    print(metrics_table(results))


if __name__ == "__main__":
    main()
