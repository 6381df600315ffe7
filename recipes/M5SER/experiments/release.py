#!/usr/bin/env python3
"""The released recogniser: trained on all open corpora, calibrated, described.

The open recipe (hparams/open/train.yaml) with open frozen models, on RAVDESS,
EmoDB, EMOVO and URDU. Nothing of them is left to calibrate it on, or to say
how good it is. So the same recipe is trained four times on three of them, and
what each says of the corpus that it never heard is what the calibration is
fitted to and what the card reports: with the final training alone the former
would be wishful, the latter wrong.

Leaves hyperparams.yaml, connector.safetensors (parameters in float16),
calibration.json, card.json and README.md, the card, where
EmotionRecognizer.from_hparams("open") finds them. Interrupted, it goes on where
it was; on one machine it makes the same files again, bit by bit.

Usage: python release.py --data FOLDER [--folder results/release]

FOLDER/speech holds the corpora, as their distributions name their folders.
"""

import argparse
import json
import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import recipe  # noqa: F401  finds the recipe's scripts
import torch
from corpora import read_corpora
from recognition import load_recognizer
from release_card import release_card
from steps import Steps, as_flags, begin_with

import speechbrain_mser
from speechbrain_mser.dataio.batching import select_utterances
from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.evaluation.calibration import (
    FILE,
    MODES,
    compare_calibrations,
    fit_calibration,
)
from speechbrain_mser.evaluation.intervals import (
    bootstrap_intervals,
    speakers_to_draw,
)
from speechbrain_mser.evaluation.metrics import emotion_metrics
from speechbrain_mser.files.atomic import PARTIAL, write_text
from speechbrain_mser.inference.export import export_in_half
from speechbrain_mser.inference.folder import RELEASED_FOLDER
from speechbrain_mser.settings.experiment_files import included_files
from speechbrain_mser.settings.hparams import read_settings
from speechbrain_mser.settings.project_files import HPARAMS

CORPORA = ("ravdess", "emodb", "emovo", "urdu")
MODELS = {
    "whisper_hub": "open:whisper-base",
    "llama_hub": "open:smollm2-135m-instruct",
}
RECIPE_FILE = HPARAMS / "open" / "train.yaml"
PACKAGES = ("torch", "transformers", "speechbrain", "numpy")
# Utterances that show what halving does, at most.
COMPARED = 200


def train(folder, corpora, shared):
    """A recogniser's folder, trained unless that was done before."""
    files = [RECIPE_FILE, *included_files(RECIPE_FILE).values()]
    flags = {**shared, "corpora": list(corpora)}
    texts = {path.name: path.read_text(encoding="utf-8") for path in files}
    begin_with(folder, {"flags": flags, "files": texts})
    Steps(folder).run(
        folder.name,
        "train.py",
        RECIPE_FILE,
        *as_flags({**flags, "output_folder": str(folder)}),
    )
    return folder / "recognizer"


def load(source, flags, corpora=()):
    """A recogniser, the reader of its features, and the settings of both."""
    overrides = {**flags, "recognizer": str(source), "corpora": corpora}
    settings = read_settings(HPARAMS / "calibrate.yaml", overrides)
    return *load_recognizer(str(source), settings, {}), settings


def score_left_out(recognizers, flags):
    """What each says of the corpus that it never heard.

    Arguments
    ---------
    recognizers : dict
        Corpus to the folder of the recogniser trained without it.
    flags : dict
        Settings of calibrate.yaml: where corpora and features are.

    Returns
    -------
    dict
        Corpus to its utterances and ``[n, n_labels]``, log-probabilities of
        all words of training.
    """
    scored = {}
    for corpus, source in recognizers.items():
        recognizer, reader, settings = load(source, flags, corpus)
        table = select_utterances(
            read_corpora(corpus, settings), labels=recognizer.labels()
        ).sort_values("ID")
        scored[corpus] = reader.compute(
            recognizer.score_features, table, f"{corpus}, left out"
        )
    return scored


def join(scored):
    """All utterances' log-probabilities and emotions."""
    log_probs = torch.cat([torch.as_tensor(p) for _, p in scored.values()])
    return log_probs, [e for table, _ in scored.values() for e in table.emotion]


def measure(table, log_probs, labels):
    """Metrics on a corpus that was left out, among the words that occur in it."""
    words = [word for word in labels if word in set(table.emotion)]
    among = torch.as_tensor(log_probs)[:, [labels.index(w) for w in words]]
    references = table.emotion.tolist()
    said = [words[k] for k in among.argmax(-1).tolist()]
    speakers = speakers_to_draw(table)
    figures = emotion_metrics(references, said, words)
    return {
        "utterances": len(table),
        "words": len(words),
        "UA": figures["UA"],
        "WA": figures["WA"],
        "interval": bootstrap_intervals(
            references, said, words, "present", speakers
        )["UA"],
        "drawn": "utterances" if speakers is None else "speakers",
    }


def measure_calibration(scored, labels):
    """What a calibration does to a corpus that was not in it either.

    It is fitted to three of the corpora, each left out of its recogniser's
    training, and applied to the fourth.
    """
    measured = {}
    for corpus, (table, log_probs) in scored.items():
        others = {name: s for name, s in scored.items() if name != corpus}
        compared = compare_calibrations(
            fit_calibration(*join(others), labels),
            torch.as_tensor(log_probs),
            table.emotion.tolist(),
            labels,
            "present",
        )
        measured[corpus] = {
            mode: {name: compared[mode][name] for name in ("UA", "ECE", "NLL")}
            for mode in MODES
        }
    return measured


def halve(recognizer, reader, source, target, table):
    """Write a recogniser with half the bytes; what it says otherwise.

    The recogniser has the halved parameters from then on.
    """
    connector, score = recognizer.mods.connector, recognizer.score_features
    _, before = reader.compute(score, table, "before halving")
    export_in_half(source, target, connector)
    path = target / "connector.safetensors"
    connector.load(path)
    _, after = reader.compute(score, table, "after halving")
    before, after = torch.as_tensor(before), torch.as_tensor(after)
    return {
        "bytes": path.stat().st_size,
        "parameters": sum(p.numel() for p in connector.parameters()),
        "compared": len(table),
        "most": (before.exp() - after.exp()).abs().max().item(),
        "other_words": int((before.argmax(-1) != after.argmax(-1)).sum()),
    }


def describe_corpus(table):
    """What a corpus is made of."""
    return {
        "utterances": len(table),
        "hours": float(table.duration.sum() / 3600),
        "speakers": int(table.speaker.nunique()),
        "languages": sorted(set(table.language)),
        "emotions": table.emotion.value_counts().sort_index().to_dict(),
    }


def describe_training(settings):
    """What the recipe came to, of what a reader of the card asks."""
    names = ("number_of_epochs", "batch_size", "lr", "ce_weight", "reduction")
    return {
        "seed": settings["seed"],
        **{name: settings["training"][name] for name in names},
    }


def release(source, scored, flags, training, target):
    """Write all of the released folder.

    Arguments
    ---------
    source : pathlib.Path
        The folder that training on all corpora left.
    scored : dict
        As `score_left_out` returns it.
    flags : dict
        As for it.
    training : dict
        Of the recipe, for the card.
    target : pathlib.Path
        An empty folder, or none yet.
    """
    table = pd.concat([table for table, _ in scored.values()])
    recognizer, reader, _ = load(source, flags)
    labels = recognizer.labels()
    every = table.iloc[:: -(-len(table) // COMPARED)]
    halved = halve(recognizer, reader, source, target, every)
    fitted = fit_calibration(
        *join(scored),
        labels,
        # All of it: no split of these corpora is new to the calibration.
        split=None,
        corpora={name: len(table) for name, (table, _) in scored.items()},
        **recognizer.describe(),
    )
    fitted.save(target / FILE)
    facts = {
        "labels": labels,
        "training": training,
        "corpora": {
            name: describe_corpus(table) for name, (table, _) in scored.items()
        },
        "frozen_models": recognizer.mods.connector.frozen_models,
        "connector": halved,
        "left_out": {
            name: measure(table, log_probs, labels)
            for name, (table, log_probs) in scored.items()
        },
        "calibration": {
            "temperature": fitted.temperature,
            "left_out": measure_calibration(scored, labels),
        },
        "versions": {
            "speechbrain-mser": speechbrain_mser.__version__,
            "Python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
    }
    write_text(target / "card.json", json.dumps(facts, indent=1) + "\n")
    write_text(target / "README.md", release_card(facts))


def publish(folder, target):
    """Put a finished folder in place of another, or of none."""
    target = Path(target)
    partial = target.with_name(f"{PARTIAL}{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, partial)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)


@exits_on_input_error
def main():
    """Train five times, calibrate, describe, release."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("results/release"))
    parser.add_argument("--output", type=Path, default=RELEASED_FOLDER)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    data_root = str(arguments.data.resolve() / "speech")
    settings = read_settings(RECIPE_FILE, {"data_root": data_root})
    flags = {
        "data_root": data_root,
        "manifest_folder": str(folder / "manifests"),
        "features": "write",
        "feature_folder": str(folder / "features"),
        "feature_dtype": settings["training"]["feature_dtype"],
        "num_workers": 0,
    }
    shared = {**flags, **MODELS}
    final = train(folder / "all", CORPORA, shared)
    left_out = {
        corpus: train(
            folder / f"without_{corpus}",
            [name for name in CORPORA if name != corpus],
            shared,
        )
        for corpus in CORPORA
    }
    released = folder / "released"
    shutil.rmtree(released, ignore_errors=True)
    release(
        final,
        score_left_out(left_out, flags),
        flags,
        describe_training(settings),
        released,
    )
    publish(released, arguments.output)
    print((released / "README.md").read_text(encoding="utf-8"))
    print(f"released in {arguments.output}")


if __name__ == "__main__":
    main()
