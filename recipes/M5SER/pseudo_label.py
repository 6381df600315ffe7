#!/usr/bin/env python3
"""Let trained recognisers label a corpus, for a training that includes it.

    python pseudo_label.py hparams/pseudo_label.yaml --data_root /corpora \
        --recognizer "[results/1/recognizer, results/2/recognizer]" \
        --corpus emovo --labels paper7 --output_folder results/pseudo

Writes <output_folder>/<corpus>.csv: the corpus's manifest with the emotions
that the recognisers hear, of the surer half of what they take for each. With
the other corpora's manifests beside it, train.py (--manifest_folder
results/pseudo --skip_prep True) trains on all of them. The corpus's own
labels are not looked at, and are not in the result.
"""

import sys
from pathlib import Path

import numpy as np
from corpora import prepare_manifests
from recognition import load_recognizers, read_adaptation

from speechbrain_mser.dataio.manifest import (
    read_manifest,
    read_manifests,
    write_manifest,
)
from speechbrain_mser.dataio.own_emotions import carry_own
from speechbrain_mser.emotions import candidate_labels, canonical
from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.files.atomic import check_output
from speechbrain_mser.inference.ensemble import recognize_sets
from speechbrain_mser.inference.pseudo_labels import (
    check_keep,
    even_out,
    surest,
)
from speechbrain_mser.settings.flags import read_command_line
from speechbrain_mser.settings.hparams import read_settings


@exits_on_input_error
def main():
    """Label a corpus."""
    hparams_file, run_opts, overrides = read_command_line(sys.argv[1:])
    settings = read_settings(hparams_file, overrides)
    listening = read_adaptation(settings)
    check_keep(settings["keep"])
    corpus = settings["corpus"]
    labels = list(candidate_labels(settings["labels"]))
    manifests = prepare_manifests(
        corpus,
        settings["data_root"],
        settings["corpus_folders"],
        settings["manifest_folder"],
        settings["skip_prep"],
        settings["corpus_options"],
    )
    (manifest,) = manifests
    output = Path(settings["output_folder"]) / Path(manifest).name
    check_output(output)
    # What could not be written is known before anything is heard.
    own = carry_own(Path(manifest).parent, output.parent)
    labels = [canonical(label, own) for label in labels]
    table = read_manifests(manifests)
    recognizers, count = load_recognizers(settings, run_opts)
    sets = {corpus: (table, labels, table)}
    ((_, table, log_probs, _),) = recognize_sets(
        recognizers, count, sets, listening
    )
    said, believed = surest(even_out(log_probs[0]), settings["keep"])
    emotions = dict(zip(table.ID, np.array(labels)[said], strict=True))
    chosen = set(table.ID[believed])
    rows = [
        {**row, "emotion": emotions[row["ID"]], "label": "pseudo", "text": ""}
        for row in read_manifest(manifest).to_dict("records")
        if row["ID"] in chosen
    ]
    write_manifest(output, rows)
    counts = {
        label: sum(r["emotion"] == label for r in rows) for label in labels
    }
    print(
        f"{output}: {len(rows)} of {len(table)} utterances, "
        + ", ".join(f"{n} {label}" for label, n in counts.items())
    )


if __name__ == "__main__":
    main()
