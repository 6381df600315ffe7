#!/usr/bin/env python3
"""The whole system on a corpus that it speaks itself, in minutes, offline.

Speaks a small emotional corpus with eSpeak NG, makes tiny frozen models,
trains stage 1 on English and stage 2 on six languages, evaluates both on
held-out voices and, zero-shot, on three languages that no training heard, and
recognises one unseen utterance. It uses the same training files and scripts
as the real thing, with overrides.

It proves the code, not the science: the emotions are eSpeak's prosody rules.

Usage: python recipes/M5SER/experiments/demo.py [--folder results/demo]
"""

import argparse
import os
from pathlib import Path

from steps import Steps, evaluate_stages, summarize, train_stages

from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.errors import InputError, exits_on_input_error

SEEN = ("eng", "fra", "deu", "ita", "cmn", "spa")
UNSEEN = ("ell", "rus", "fas")

# What makes paper scale a toy's scale; everything else is as in the files.
SMALL = {
    "corpora": ["espeak"],
    "skip_prep": True,
    "frozen_dtype": "float32",
    "n_queries": 8,
    "query_dim": 128,
    "precision": "fp32",
    "eval_precision": "fp32",
    "batch_size": 48,
    "weight_decay": 0.01,
    "warmup": 0.1,
    "cooldown": 0.9,
    "reduction": "balanced",
    "features": "write",
    "num_workers": 0,
    "statistics_utterances": 200,
}
STAGES = {
    "stage1": {"languages": ["eng"], "number_of_epochs": 15, "lr": 1e-3},
    "stage2": {"languages": list(SEEN), "number_of_epochs": 8, "lr": 1e-3},
}


def train(folder, data, seed, stages=None):
    """Both stages, as `train_stages` returns them."""
    shared = {
        "seed": seed,
        "data_root": str(data),
        "manifest_folder": str(data),
        "feature_folder": f"{data}/features",
        **{f"{n}_hub": f"{data}/{n}" for n in ("whisper", "bert", "llama")},
        **SMALL,
    }
    return train_stages(folder, stages or STAGES, shared)


def held_out_sets(corpus, languages):
    """The test voices of a corpus, a set for each language."""
    return [
        {
            "name": language,
            "corpus": corpus,
            "split": "test",
            "languages": [language],
            "labels": "paper7",
        }
        for language in languages
    ]


def evaluate(steps, folder, data, sets):
    """Each stage on the same sets."""
    shared = {
        "data_root": str(data),
        "manifest_folder": str(data),
        "skip_prep": True,
        "features": "write",
        "feature_folder": f"{data}/features",
        "batch_size": 64,
        "num_workers": 0,
        "sets": sets,
    }
    evaluate_stages(folder, steps, shared)


def recognize_one(folder, data):
    """What a user does with the result: one file, one word."""
    from speechbrain_mser.inference import EmotionRecognizer

    manifest = read_manifest(data / "espeak.csv", data / "espeak")
    row = manifest[manifest.language == UNSEEN[0]].iloc[0]
    recognizer = EmotionRecognizer.from_hparams(f"{folder}/stage2/recognizer")
    print(f"\n{row.wav}\n  spoken as: {row.emotion}")
    show_answer(recognizer, row.wav)
    return row.wav


def lacking_of_released():
    """Why the released recogniser cannot be loaded as things are; or ""."""
    from speechbrain_mser.inference.folder import (
        RELEASED,
        SETTINGS_FILE,
        find_folder,
        read_settings,
    )
    from speechbrain_mser.models.kept import is_made
    from speechbrain_mser.models.registry import OPEN_MODELS, open_folder

    try:
        settings = read_settings(find_folder(RELEASED) / SETTINGS_FILE)
    except InputError as error:
        return str(error)
    hubs = [settings[name] for name in ("whisper_hub", "llama_hub")]
    lacking = [
        n for n in hubs if n in OPEN_MODELS and not is_made(open_folder(n))
    ]
    if not lacking:
        return ""
    return (
        f"{', '.join(lacking)} not fetched yet; make models gets what it needs"
    )


def recognize_released(wav):
    """The same file and the released recogniser, if nothing is to be fetched."""
    from speechbrain_mser.inference import EmotionRecognizer
    from speechbrain_mser.inference.folder import RELEASED

    if why := lacking_of_released():
        print(f"\nwithout the released recogniser: {why}")
        return
    print("\nthe released recogniser, which was trained on people's voices:")
    show_answer(EmotionRecognizer.from_hparams(RELEASED), wav)


def show_answer(recognizer, wav):
    """What a recogniser says of a file, and how probable each word is."""
    words, log_probs = recognizer.recognize_file(wav)
    print(f"  recognised: {words[0]}")
    probabilities = log_probs.exp()[0].tolist()
    for word, value in zip(recognizer.labels(), probabilities, strict=True):
        print(f"  {word:10s} {value:.3f} {'#' * round(40 * value)}")


@exits_on_input_error(resumes=True)
def main():
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("results/demo"))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    # Tiny models: handing work to a second thread costs more than it saves.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder, data = arguments.folder, arguments.folder / "data"
    steps = Steps(folder)
    steps.run("corpus", "espeak_prepare.py", "--save_folder", data)
    steps.run("models", "demo_models.py", "--save_folder", data)
    stages = train(folder, data, arguments.seed)
    evaluate(stages, folder, data, held_out_sets("espeak", (*SEEN, *UNSEEN)))
    zero_shot = {"stage1": (*SEEN[1:], *UNSEEN), "stage2": UNSEEN}
    print(f"\n{summarize(folder, zero_shot)}")
    recognize_released(recognize_one(folder, data))


if __name__ == "__main__":
    main()
