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
from licences import with_terms
from speechbrain.utils.logger import get_logger

from speechbrain_mser.dataio.cached_encoding import log_size, open_store
from speechbrain_mser.dataio.emotion_counts import log_counts
from speechbrain_mser.dataio.utterances import make_dataset, with_copies
from speechbrain_mser.distributed import ends_with_its_group, process_group
from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.files.folder_lock import hold_folder
from speechbrain_mser.inference.export import export_recognizer, plain_settings
from speechbrain_mser.inference.folder import OUTPUT, load_pretrained
from speechbrain_mser.settings.experiment_files import without_effect
from speechbrain_mser.settings.flags import read_command_line
from speechbrain_mser.settings.hparams import (
    load_hparams,
    read_settings,
    section_tree,
)
from speechbrain_mser.training.output_folder import (
    write_environment,
    write_settings,
)
from speechbrain_mser.training.record import (
    TOLD,
    describe_corpus,
    package_versions,
)
from speechbrain_mser.training.resuming import (
    check_settings,
    describe_data,
    is_finished,
    write_data,
)

logger = get_logger(__name__)


@ends_with_its_group
@exits_on_input_error(resumes=True)
def main():
    """Train one stage."""
    hparams_file, run_opts, overrides = read_command_line(sys.argv[1:])
    with process_group(run_opts):
        train(hparams_file, overrides, run_opts)


def train(hparams_file, overrides, run_opts):
    """Train one stage, in one process or in each of several."""
    # The data first: what is wrong with it shows before an LLM is loaded.
    settings = read_settings(hparams_file, overrides)
    check_settings(settings)
    for name in without_effect(hparams_file, overrides):
        logger.warning(
            "%s has no effect: what took it is another object in %s",
            name,
            hparams_file,
        )
    tables = read_tables(settings)
    speakers = settings["training"].get("align_speakers", False)
    data = describe_data(*tables, speakers)
    if is_finished(settings, data):
        return
    with hold_folder(settings["output_folder"]):
        train_on(tables, data, settings, hparams_file, overrides, run_opts)


def train_on(tables, data, settings, hparams_file, overrides, run_opts):
    """Train in an output folder that no other training uses."""
    hparams = load_hparams(hparams_file, overrides)
    model, training = hparams["model"], hparams["training"]
    # The corpora that it has heard already, and the words that it can say
    before, said = {}, set()
    if hparams["pretrained"] is not None:
        before, said = load_pretrained(hparams["pretrained"], model)
    model_tree = section_tree(hparams_file, "model", overrides, settings)
    # What could not be exported is known before it is trained.
    plain_settings(model, model_tree, hparams_file)

    output_folder = hparams["output_folder"]
    # Its own way of writing settings leaves half a file when it is killed.
    sb.create_experiment_directory(output_folder, save_env_desc=False)
    write_environment(output_folder)
    write_settings(output_folder, hparams_file, overrides)
    write_data(output_folder, data)
    export = partial(
        export_recognizer,
        f"{output_folder}/{OUTPUT}",
        model_tree,
        model,
        record=describe(tables[0], before, hparams_file, hparams),
    )
    store = open_store(
        model["encoder"],
        training["features"],
        training["feature_folder"],
        training["feature_dtype"],
    )
    labels = candidate_labels(model["label_words"])
    # Exported too: evaluation marks them.
    absent = log_counts(tables[0], labels)
    model["untrained_words"] = [word for word in absent if word not in said]
    model["trained_corpora"] = sorted({*before, *tables[0].corpus})
    microphones = training["microphones"]
    copied = [with_copies(tables[0], len(microphones)), tables[1]]
    log_size(store, model["encoder"], pd.concat(copied).duration)
    train_set, valid_set = (
        None
        if table is None
        else make_dataset(table, store, [None, *microphones])
        for table in copied
    )
    brain = training["brain_class"](
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
        checkpointer=training["checkpointer"],
    )
    table = tables[0]
    batches = training["batch_sampler"](
        table.duration.tolist(),
        # Balanced within each corpus: each has its own microphones.
        (table.corpus + "/" + table.emotion).tolist(),
        seed=hparams["seed"],
        **({"copies": len(microphones)} if microphones else {}),
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


def describe(table, before, hparams_file, hparams):
    """What a training is made of, for its recogniser's card."""
    training = hparams["training"]
    corpora = {
        name: describe_corpus(rows) for name, rows in table.groupby("corpus")
    }
    return {
        "labels": list(candidate_labels(hparams["model"]["label_words"])),
        "training": {
            "recipe": Path(hparams_file).name,
            "seed": hparams["seed"],
            **{name: training[name] for name in TOLD if name in training},
            "copies": len(training["microphones"]),
        },
        "corpora": with_terms({**before, **corpora}),
        "versions": package_versions(),
    }


if __name__ == "__main__":
    main()
