#!/usr/bin/env python3
"""Section III of the paper on a corpus that speaks itself, in minutes, offline.

Speaks the English part of the demo corpus, trains stage 1 on it, translates it
into five languages with the same script that makes M5SER (`synthesize.py`),
its translator being eSpeak NG, by every executor that is there; filters,
writes manifest and card, trains stage 2 on source and translations, and
evaluates both on three languages that neither heard nor made.

What executors made must be the same, byte for byte. Interrupted, it goes on.
It proves the code, not the science: the translator knows text and emotion.

Usage: python recipes/M5SER/experiments/demo_m5ser.py [--executors local ray]
"""

import argparse
import importlib.util
import json
import os
from pathlib import Path

import recipe  # noqa: F401  finds the recipe's scripts
from demo import STAGES, UNSEEN, evaluate, held_out_sets, train
from m5ser_prepare import LANGUAGES
from steps import Steps, as_flags, summarize

from speechbrain_mser.errors import InputError, exits_on_input_error
from speechbrain_mser.settings.project_files import HPARAMS
from speechbrain_mser.synthesis.folder import PARTIAL, SHARDS

SOURCE = "eng"
EXECUTORS = ("local", "ray")
# Of a receipt: when, where and how fast
PASSING = ("host", "wall_seconds", "finished_at")


def synthesis_flags(data, folder, executor, workers):
    """How the demo translates its source, as settings of synthesize.yaml."""
    return {
        "data_root": str(data),
        "manifest_folder": str(data),
        "skip_prep": True,
        "corpora": ["espeak"],
        "source_languages": [SOURCE],
        "backend": "espeak",
        # Short ones: more than one for every worker
        "shard_minutes": 2,
        "executor": executor,
        "n_workers": workers,
        # eSpeak NG needs no more, and no GPU that may be there
        "ray_cpus": 0.5,
        "ray_gpus": 0,
        "output_folder": str(folder),
    }


def differences(one, other):
    """Files that two folders of translations do not have in common.

    Arguments
    ---------
    one, other : pathlib.Path
        The folders.

    Returns
    -------
    list of str
        Their relative paths; receipts are the same when they differ in
        nothing but when, where and how fast.
    """
    first, second = map(_contents, (one, other))
    return sorted(
        name
        for name in first.keys() | second.keys()
        if first.get(name) != second.get(name)
    )


def _contents(folder):
    """Relative path to what is in the file."""
    contents = {}
    for path in sorted(Path(folder).rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and name.parts[0] != PARTIAL:
            contents[str(name)] = path.read_bytes()
        if name.parts[0] == SHARDS and name.suffix == ".json":
            receipt = json.loads(path.read_bytes())
            contents[str(name)] = {
                k: v for k, v in receipt.items() if k not in PASSING
            }
    return contents


def compare(folders):
    """Refuse executors that made something else than the first one."""
    (first, one), *others = folders.items()
    for name, other in others:
        differing = differences(one, other)
        if differing:
            raise InputError(
                f"{first} and {name} made different translations, in "
                f"{len(differing)} files, such as {other / differing[0]}"
            )
        print(
            f"{first} and {name} made the same: {len(_contents(one))} files, "
            "byte for byte"
        )


@exits_on_input_error(resumes=True)
def main():
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--folder", type=Path, default=Path("results/demo_m5ser"))
    add("--seed", type=int, default=1)
    installed = EXECUTORS if importlib.util.find_spec("ray") else EXECUTORS[:1]
    add(
        "--executors",
        nargs="+",
        choices=EXECUTORS,
        default=installed,
        help=f"default: those that are installed, {' '.join(installed)}",
    )
    add("--workers", type=int, default=2)
    arguments = parser.parse_args()
    # Tiny models: handing work to a second thread costs more than it saves.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder, data = arguments.folder, arguments.folder / "data"
    steps = Steps(folder)
    spoken = (SOURCE, *UNSEEN)
    steps.run(
        *("corpus", "espeak_prepare.py", "--save_folder", data),
        *("--languages", *spoken),
    )
    steps.run("models", "demo_models.py", "--save_folder", data)
    # The first one's is what corpora.yaml calls m5ser's folder
    folders = {
        name: folder / f"M5SER_{name}" if number else data / "M5SER"
        for number, name in enumerate(arguments.executors)
    }
    for name, place in folders.items():
        flags = synthesis_flags(data, place, name, arguments.workers)
        yaml = HPARAMS / "synthesize.yaml"
        step = f"synthesize_{name}"
        steps.run(step, "synthesize.py", yaml, *as_flags(flags))
    compare(folders)
    stages = {
        **STAGES,
        "stage2": {**STAGES["stage2"], "corpora": ["espeak", "m5ser"]},
    }
    sets = [
        *held_out_sets("espeak", spoken),
        *held_out_sets("m5ser", LANGUAGES),
    ]
    trained = train(folder, data, arguments.seed, stages)
    evaluate(trained, folder, data, sets)
    zero_shot = {"stage1": (*LANGUAGES, *UNSEEN), "stage2": UNSEEN}
    print(f"\n{summarize(folder, zero_shot)}")
    print(f"\nthe corpus: {data / 'M5SER' / 'README.md'}")


if __name__ == "__main__":
    main()
