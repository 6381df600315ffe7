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

import speechbrain as sb
from corpora import prepare_manifests
from speechbrain.utils.distributed import ddp_init_group

from speechbrain_mser.brain import EmotionBrain
from speechbrain_mser.checkpoints import export_recognizer
from speechbrain_mser.dataio.batching import make_dataset, select_utterances
from speechbrain_mser.dataio.manifest import read_manifests
from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.hparams import (
    included_files,
    load_hparams,
    place_overrides,
    read_settings,
)


def make_datasets(settings):
    """The training and the validation set."""
    manifests = prepare_manifests(
        settings["corpora"],
        settings["data_root"],
        settings["corpus_folders"],
        settings["manifest_folder"],
        settings["skip_prep"],
        settings["corpus_options"],
    )
    table = read_manifests(manifests)
    labels = candidate_labels(settings["model"]["label_words"])
    return [
        make_dataset(
            select_utterances(table, split, settings["languages"], labels)
        )
        for split in (settings["train_split"], settings["valid_split"])
    ]


def load_pretrained(pretrainer, source):
    """Take the connector's parameters from another training's recogniser."""
    # In every process: fetching takes care of who downloads.
    pretrainer.collect_files(default_source=source)
    pretrainer.load_collected()


@exits_on_input_error
def main():
    """Train one stage."""
    hparams_file, run_opts, flags = sb.parse_arguments(sys.argv[1:])
    overrides = place_overrides(hparams_file, flags)
    ddp_init_group(run_opts)
    # The data first: what is wrong with it shows before an LLM is loaded.
    train_set, valid_set = make_datasets(read_settings(hparams_file, overrides))
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
    brain = EmotionBrain(
        modules=model["modules"],
        opt_class=training["opt_class"],
        hparams={**hparams, **model, **training, "export": export},
        run_opts=run_opts,
        checkpointer=checkpointer,
    )
    brain.fit(
        training["epoch_counter"],
        train_set,
        valid_set,
        train_loader_kwargs=training["train_loader"],
        valid_loader_kwargs=training["valid_loader"],
    )


if __name__ == "__main__":
    main()
