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

Usage: python release.py --data FOLDER [--folder results/loco] [--seed 1] \
           [--jobs 2]

The folder is that of loco.py and loeo.py: features and trainings that they left
are taken, and their results go into the card.
"""

import argparse
import shutil
import statistics
from pathlib import Path

import pandas as pd
import recipe  # noqa: F401  finds the recipe's scripts
import torch
from corpora import read_corpora
from folds import LABELS, Folds, others_than, read_overrides, side_by_side
from loco import KINDS, fold_place
from recognition import load_recognizer
from release_card import release_card

from speechbrain_mser.dataio.microphones import WORSE
from speechbrain_mser.dataio.utterances import select_utterances
from speechbrain_mser.errors import InputError, exits_on_input_error
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
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.inference.export import export_in_half, replace_recognizer
from speechbrain_mser.inference.folder import RELEASED_FOLDER
from speechbrain_mser.models.registry import OPEN_MODELS
from speechbrain_mser.settings.hparams import read_settings
from speechbrain_mser.settings.project_files import HPARAMS
from speechbrain_mser.training.record import FILE as RECORD
from speechbrain_mser.training.record import (
    TOLD,
    describe_corpus,
    package_versions,
    write_record,
)

# Utterances that show what halving does, at most.
COMPARED = 200


def train(folds, seed, jobs):
    """The recogniser of all corpora, and those with one left out.

    The latter are those of `make loco`, if it was run with the same seed.

    Returns
    -------
    final : str
        Its folder.
    left_out : dict
        Corpus to the folder of the recogniser trained without it.
    """
    tasks = [(f"all/seed{seed}/training", list(LABELS), {}, seed)]
    tasks += [
        (f"{fold_place(corpus, seed)}/training", others_than(corpus), {}, seed)
        for corpus in LABELS
    ]
    final, *others = side_by_side(jobs, folds.train, tasks)
    return final, dict(zip(LABELS, others, strict=True))


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
        Corpus to its utterances, ``[n, n_labels]``, log-probabilities of all
        words of training, and ``[n, n_words]``, those of the words that occur
        in it when no others are asked for.
    """
    scored = {}
    for corpus, source in recognizers.items():
        recognizer, reader, settings = load(source, flags, corpus)
        table = select_utterances(
            read_corpora(corpus, settings), labels=recognizer.labels()
        ).sort_values("ID")
        words = occurring(recognizer.labels(), table)

        def both(features, lens, score=recognizer.score_features, words=words):
            answers = score(features, lens), score(features, lens, words)
            return torch.cat(answers, dim=1)

        table, found = reader.compute(both, table, f"{corpus}, left out")
        n_labels = len(recognizer.labels())
        scored[corpus] = table, found[:, :n_labels], found[:, n_labels:]
    return scored


def occurring(labels, table):
    """The words that occur in a corpus, in their order."""
    return [word for word in labels if word in set(table.emotion)]


def join(scored):
    """All utterances' log-probabilities and emotions."""
    log_probs = torch.cat([p for _, p, _ in scored.values()])
    tables = [table for table, *_ in scored.values()]
    return log_probs, [emotion for t in tables for emotion in t.emotion]


def measure(table, among, labels):
    """Metrics on a corpus that was left out, among the words that occur in it."""
    words = occurring(labels, table)
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
    for corpus, (table, log_probs, _) in scored.items():
        others = {name: s for name, s in scored.items() if name != corpus}
        compared = compare_calibrations(
            fit_calibration(*join(others), labels),
            log_probs,
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
    # Other machines multiply something else natively than this one.
    export_in_half(source, target, connector, frozen_dtype="auto")
    path = target / "connector.safetensors"
    connector.load(path)
    _, after = reader.compute(score, table, "after halving")

    return {
        "bytes": path.stat().st_size,
        "parameters": sum(p.numel() for p in connector.parameters()),
        "compared": len(table),
        "most": (before.exp() - after.exp()).abs().max().item(),
        "other_words": int((before.argmax(-1) != after.argmax(-1)).sum()),
    }


def describe_training(folds, seed):
    """What the recipe came to, of what a reader of the card asks."""
    return {
        "seed": seed,
        **{name: folds.setting(name) for name in TOLD},
        "copies": len(folds.setting("microphones")),
        **folds.overrides,
    }


def read_results(folds, seed):
    """What `make loco` and `make loeo` have left beside these trainings.

    Arguments
    ---------
    folds : Folds
        All five trainings were made by it.
    seed : int
        Theirs.

    Returns
    -------
    dict
        "seeds"; "listening" and "worse", which have each kind's mean UA over
        corpora, as recorded and through worse microphones, and
        "unseen", each unseen word's AUROC, both means over seeds. None for
        what was not run.

    Raises
    ------
    InputError
        They are of another recipe or other trainings.
    """
    measured = dict.fromkeys(("seeds", "listening", "worse", "unseen"))
    own = [f"{fold_place(corpus, seed)}/training" for corpus in LABELS]
    runs = folds.read_results("", own)
    if runs is not None:
        measured["seeds"] = len(runs)
        means = {
            kind: statistics.mean(
                of_corpus[kind]["UA"]
                for run in runs.values()
                for of_corpus in run.values()
            )
            for kind in KINDS
            if all(kind in one for run in runs.values() for one in run.values())
        }
        measured["listening"], measured["worse"] = (
            {
                KINDS[kind]: ua
                for kind, ua in means.items()
                if one == (kind in WORSE)
            }
            for one in (False, True)
        )
    runs = folds.read_results("loeo")
    if runs is not None:
        first = next(iter(runs.values()))
        measured["unseen"] = {
            f"{word} ({corpus})": statistics.mean(
                run[corpus]["none"]["words"][word]["AUROC"]
                for run in runs.values()
            )
            for corpus, kinds in first.items()
            for word in kinds["none"]["words"]
        }
    return measured


def check_models(settings):
    """Refuse frozen models that not everybody can have."""
    for name in ("whisper_hub", "llama_hub"):
        if settings[name] not in OPEN_MODELS:
            raise InputError(
                f"the recipe's {name} is {settings[name]}, which is no open "
                f"model: {', '.join(OPEN_MODELS)}"
            )


def release(source, scored, flags, training, measured, target):
    """Write all of the released folder.

    Arguments
    ---------
    source : str or path-like
        The folder that training on all corpora left.
    scored : dict
        As `score_left_out` returns it.
    flags : dict
        As for it.
    training : dict
        Of the recipe, for the card.
    measured : dict
        As `read_results` returns it, for the card.
    target : pathlib.Path
        An empty folder, or none yet.
    """
    table = pd.concat([table for table, *_ in scored.values()])
    recognizer, reader, _ = load(source, flags)
    labels = recognizer.labels()
    left_out = {
        name: measure(table, among, labels)
        for name, (table, _, among) in scored.items()
    }
    every = table.iloc[:: -(-len(table) // COMPARED)]
    halved = halve(recognizer, reader, source, target, every)
    fitted = fit_calibration(
        *join(scored),
        labels,
        # All of it: no split of these corpora is new to the calibration.
        split=None,
        corpora={name: len(table) for name, (table, *_) in scored.items()},
        **recognizer.describe(),
    )
    fitted.save(target / FILE)
    facts = {
        "labels": labels,
        "training": training,
        "corpora": {
            name: describe_corpus(table) for name, (table, *_) in scored.items()
        },
        "frozen_models": recognizer.mods.connector.frozen_models,
        "connector": halved,
        "left_out": left_out,
        "results": measured,
        "calibration": {
            "temperature": fitted.temperature,
            "left_out": measure_calibration(scored, labels),
        },
        "versions": package_versions(),
    }
    write_record(target / RECORD, facts)
    write_text(target / "README.md", release_card(facts))


@exits_on_input_error(resumes=True)
def main():
    """Train five times, calibrate, describe, release."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add(
        "--data", type=Path, required=True, help="speech/ in it has the corpora"
    )
    add("--folder", type=Path, default=Path("results/loco"))
    add("--output", type=Path, default=RELEASED_FOLDER)
    add("--seed", type=int, default=1)
    add("--overrides", type=read_overrides, default={})
    add("--jobs", type=int, default=1, help="trainings at a time")
    arguments = parser.parse_args()
    folds = Folds(arguments.data, arguments.folder, arguments.overrides)
    check_models({n: folds.setting(n) for n in ("whisper_hub", "llama_hub")})
    folds.prepare()
    final, left_out = train(folds, arguments.seed, arguments.jobs)
    measured = read_results(folds, arguments.seed)
    released = folds.folder / "released"
    shutil.rmtree(released, ignore_errors=True)
    release(
        final,
        score_left_out(left_out, folds.shared),
        folds.shared,
        describe_training(folds, arguments.seed),
        measured,
        released,
    )
    replace_recognizer(released, arguments.output)
    print((released / "README.md").read_text(encoding="utf-8"))
    print(f"released in {arguments.output}")


if __name__ == "__main__":
    main()
