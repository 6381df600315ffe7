#!/usr/bin/env python3
"""Train the Emotion Q-Former, stage 1 or stage 2.

    python train.py hparams/stage1.yaml --data_root /corpora
    python train.py hparams/stage2.yaml --data_root /corpora

Prepares the corpora's manifests where that is not done. Run again after an
interruption, it goes on from the last checkpoint. For several GPUs:
torchrun --nproc_per_node=N train.py hparams/stage1.yaml ...
"""

import sys
from functools import partial
from pathlib import Path

import pandas as pd
import speechbrain as sb
from corpora import read_tables
from ruamel.yaml import YAML

from speechbrain_mser.brain import EmotionBrain
from speechbrain_mser.checkpoints import export_recognizer
from speechbrain_mser.dataio.batching import make_dataset
from speechbrain_mser.dataio.encoding import log_size, open_store
from speechbrain_mser.distributed import process_group
from speechbrain_mser.errors import InputError, exits_on_input_error
from speechbrain_mser.hparams import (
    included_files,
    load_hparams,
    place_overrides,
    read_settings,
)


def load_pretrained(pretrainer, source):
    """Take the connector's parameters from another training's recogniser."""
    # In every process: fetching takes care of who downloads.
    pretrainer.collect_files(default_source=source)
    pretrainer.load_collected()


def check_settings(settings):
    """Refuse settings with which nothing would be trained, or another model.

    Raises
    ------
    InputError
        A count below one, or an output folder whose training was of a model
        with other settings.
    """
    training = settings["training"]
    for name in ("batch_size", "number_of_epochs"):
        value = training[name]
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is {value!r}, expected 1 or more")
    folder = Path(settings["output_folder"])
    if not any(folder.glob("save/CKPT*")):
        return
    before = YAML().load(folder / "hyperparams.yaml")["model"]
    for name, value in settings["model"].items():
        # Where the frozen models lie may change; which they are is checked
        # with the checkpoint.
        if name.endswith(("_hub", "_folder")) or isinstance(value, dict):
            continue
        if before.get(name) != value:
            raise InputError(
                f"{folder} holds a training with {name} {before.get(name)!r}, "
                f"here it is {value!r}: give another --output_folder, or the "
                "same settings to go on with it"
            )


@exits_on_input_error
def main():
    """Train one stage."""
    hparams_file, run_opts, flags = sb.parse_arguments(sys.argv[1:])
    overrides = place_overrides(hparams_file, flags)
    with process_group(run_opts):
        train(hparams_file, overrides, run_opts)


def train(hparams_file, overrides, run_opts):
    """Train one stage, in one process or in each of several.

    Arguments
    ---------
    hparams_file : str
        The experiment.
    overrides : dict
        As `place_overrides` returns.
    run_opts : dict
        SpeechBrain's: device, precision, processes.
    """
    # The data first: what is wrong with it shows before an LLM is loaded.
    settings = read_settings(hparams_file, overrides)
    check_settings(settings)
    tables = read_tables(settings)
    hparams = load_hparams(hparams_file, overrides)
    model, training = hparams["model"], hparams["training"]
    if hparams["pretrained"] is not None:
        load_pretrained(model["pretrainer"], hparams["pretrained"])

    output_folder = hparams["output_folder"]
    sb.create_experiment_directory(output_folder, hparams_file, overrides)
    checkpointer = training["checkpointer"]
    checkpointer.add_recoverable("connector", model["connector"])
    if model["lora_rank"] > 0:
        checkpointer.add_recoverable("llama", model["llama"])
    export = partial(
        export_recognizer,
        f"{output_folder}/recognizer",
        included_files(hparams_file)["model"],
        model,
    )
    store = open_store(
        model["whisper"],
        training["features"],
        training["feature_folder"],
        training["feature_dtype"],
    )
    log_size(store, model["whisper"], pd.concat(tables).duration)
    train_set, valid_set = (
        None if table is None else make_dataset(table, store)
        for table in tables
    )
    brain = EmotionBrain(
        modules=model["modules"],
        opt_class=training["opt_class"],
        hparams={
            **hparams,
            **model,
            **training,
            "export": export,
            "feature_store": store,
        },
        run_opts=run_opts,
        checkpointer=checkpointer,
    )
    table = tables[0]
    batches = training["batch_sampler"](
        table.duration.tolist(),
        table.emotion.tolist(),
        table.language.tolist(),
        seed=hparams["seed"],
    )
    brain.fit(
        training["epoch_counter"],
        train_set,
        valid_set,
        train_loader_kwargs={
            **training["train_loader"],
            "batch_sampler": batches,
        },
        valid_loader_kwargs=training["valid_loader"],
    )


if __name__ == "__main__":
    main()
