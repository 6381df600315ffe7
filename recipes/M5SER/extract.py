#!/usr/bin/env python3
"""Fill the feature store before training, on one machine or on many.

    python extract.py hparams/stage1.yaml --data_root /corpora
    python extract.py hparams/stage1.yaml --data_root /corpora --part 3/16

Encodes the utterances that the stage will train and validate on, with its
Whisper and its settings, those of training through its microphones as well;
the training then finds them with --features write or read. Loads neither the
LLM nor the Q-Former. A part is one of a job array's; the parts need not know
of one another. Interrupted, it goes on where it was.
"""

import argparse
import sys

import pandas as pd
from corpora import read_tables

from speechbrain_mser.dataio.bad_utterances import BadUtterances
from speechbrain_mser.dataio.cached_encoding import log_size, open_store
from speechbrain_mser.dataio.feature_reader import FeatureReader
from speechbrain_mser.dataio.utterances import THROUGH, with_copies
from speechbrain_mser.devices import find_device
from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.job_array import take_part
from speechbrain_mser.settings.flags import read_command_line
from speechbrain_mser.settings.hparams import load_object, read_settings


def find_part(arguments):
    """Which part, all by default, and the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--part", default="1/1", nargs="?", const="")
    given, others = parser.parse_known_args(arguments)
    return given.part, others


def extract(reader, table):
    """Encode what the store lacks; count that, the rest and the unreadable."""
    counts = dict.fromkeys(("encoded", "stored before"), 0)
    for batch, *_ in reader(table, "features"):
        counts["encoded"] += len(batch.rows["sig"])
        counts["stored before"] += len(batch.rows["stored"])
    return {**counts, "unreadable": len(reader.bad_utterances.reasons)}


@exits_on_input_error(resumes=True)
def main():
    """Fill the store."""
    part, arguments = find_part(sys.argv[1:])
    # Refused before anything is read
    take_part([], part, "--part")
    hparams_file, run_opts, overrides = read_command_line(arguments)
    settings = read_settings(hparams_file, overrides)
    microphones = load_object(
        hparams_file, overrides, "training", "microphones"
    )
    train_table, valid_table = read_tables(settings)
    # None where nothing is held out
    table = pd.concat([with_copies(train_table, len(microphones)), valid_table])
    table = table.fillna({THROUGH: 0}).astype({THROUGH: int})
    # Neighbours of like length, and every part as long as the others.
    table = take_part(table.sort_values(["duration", "ID"]), part, "--part")
    device = find_device(run_opts.get("device"))
    encoder = load_object(hparams_file, overrides, "model", "encoder")
    encoder = encoder.to(device)
    training = settings["training"]
    store = open_store(
        encoder, "write", training["feature_folder"], training["feature_dtype"]
    )
    log_size(store, encoder, table.duration)
    reader = FeatureReader(
        encoder,
        store,
        training["batch_size"],
        training["num_workers"],
        BadUtterances("skip"),
        device,
        [None, *microphones],
    )
    counts = extract(reader, table)
    print(", ".join(f"{n} {what}" for what, n in counts.items()))


if __name__ == "__main__":
    main()
