#!/usr/bin/env python3
"""The paper's figures 1, 2 and 4, from any manifests and recognisers.

    python figures.py distributions --manifest M.csv --output figures/fig1
    python figures.py spectrograms --manifest M.csv FOLDER --output figures/fig2
    python figures.py embeddings --manifest M.csv FOLDER \
        --without R1 --with R2 --feature_folder F --output figures/fig4

--manifest may be given several times, each with the folder of its corpus.
Writes <output>.png and .pdf, and the figure's numbers into <output>.json.
"""

import argparse
import json

import torch

from speechbrain_mser.dataio.bad_utterances import BadUtterances
from speechbrain_mser.dataio.cached_encoding import open_store
from speechbrain_mser.dataio.feature_reader import FeatureReader
from speechbrain_mser.dataio.manifest import read_manifests
from speechbrain_mser.dataio.utterances import select_utterances
from speechbrain_mser.errors import InputError, exits_on_input_error
from speechbrain_mser.evaluation.corpus_figures import (
    balanced_sample,
    draw_distributions,
    draw_spectrograms,
    to_map,
)
from speechbrain_mser.evaluation.figures import plot_embeddings
from speechbrain_mser.evaluation.separation import silhouette
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.inference import EmotionRecognizer


def read_sources(entries, audio):
    """What ``--manifest`` was given: manifests to their audio's folders, or None.

    Raises
    ------
    InputError
        More than that was given, or a folder lacks.
    """
    sources = {}
    for manifest, *roots in entries:
        if len(roots) > 1:
            raise InputError(
                f"--manifest {' '.join([manifest, *roots])}: expected a file, "
                "and the folder of its corpus"
            )
        if audio and not roots:
            raise InputError(
                f"--manifest {manifest}: where its audio lies must be given "
                f"too: --manifest {manifest} FOLDER"
            )
        sources[manifest] = roots[0] if roots else None
    return sources


def embeddings(recognizer, table, feature_folder=None):
    """What the contrastive loss compares: the connector's pooled embedding.

    Returns ``[utterances, hidden]``, of length 1, since the loss sees
    directions only, and the utterances that could be read.
    """
    encoder = recognizer.mods.encoder
    features = "off" if feature_folder is None else "write"
    reader = FeatureReader(
        encoder,
        open_store(encoder, features, feature_folder, "float16"),
        batch_size=32,
        bad_utterances=BadUtterances("skip"),
        device=recognizer.device,
    )

    def pooled(features, lens):
        vectors = recognizer.mods.connector(features, lens).pooled
        return torch.nn.functional.normalize(vectors.float(), dim=-1)

    table, vectors = reader.compute(pooled, table, "embeddings")
    return vectors.numpy(), table


def draw_embeddings(
    table,
    output,
    without,
    with_loss,
    most=2000,
    seed=1,
    feature_folder=None,
    device="cpu",
):
    """Fig. 4: embeddings of recognisers without and with the contrastive loss.

    Returns ``n``, and silhouettes of both.

    Raises
    ------
    InputError
        Too few can be read, all have one emotion, or a recogniser is none.
    """
    table = balanced_sample(table, most, seed)
    maps, numbers = {}, {}
    for name, folder in (
        ("without the contrastive loss", without),
        ("with it", with_loss),
    ):
        recognizer = EmotionRecognizer.from_hparams(
            folder, run_opts={"device": device}
        )
        features, read = embeddings(recognizer, table, feature_folder)
        numbers[name] = {
            f"silhouette by {column}": silhouette(
                features, read[column].to_numpy(), "cosine"
            )
            for column in ("emotion", "language", "corpus")
        }
        by_emotion = numbers[name]["silhouette by emotion"]
        if by_emotion is None:
            raise InputError(
                "the utterances have one emotion only: there is nothing to "
                "tell apart"
            )
        points = to_map(features, seed)
        maps[name] = (points, read.emotion.to_numpy(), by_emotion)
    plot_embeddings(maps, output)
    return {"n": len(read), **numbers}


def parse_arguments(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, draw in (
        ("distributions", draw_distributions),
        ("spectrograms", draw_spectrograms),
        ("embeddings", draw_embeddings),
    ):
        command = commands.add_parser(name, help=draw.__doc__.splitlines()[0])
        command.set_defaults(draw=draw)
        command.add_argument(
            "--manifest",
            nargs="+",
            action="append",
            required=True,
            metavar=("FILE", "FOLDER"),
            help="a manifest, and the folder of its corpus",
        )
        command.add_argument("--output", required=True)
        command.add_argument("--split")
        command.add_argument("--languages", nargs="+")
        command.add_argument("--emotions", nargs="+")
        if name == "distributions":
            continue
        command.add_argument(
            "--most", type=int, default=2000, help="utterances in the map"
        )
        command.add_argument("--seed", type=int, default=1)
        if name == "spectrograms":
            command.add_argument(
                "--source",
                default="eng",
                help="the language that the others are compared with",
            )
            command.add_argument(
                "--standardize_each",
                dest="each_corpus",
                action="store_true",
                help="every corpus by its own mean and deviation: without "
                "what comes of room, microphone and level",
            )
            continue
        for flag, dest in (("without", "without"), ("with", "with_loss")):
            command.add_argument(
                f"--{flag}",
                dest=dest,
                required=True,
                metavar="RECOGNIZER",
                help=f"trained {flag} the contrastive loss",
            )
        command.add_argument("--feature_folder")
        command.add_argument("--device", default="cpu")
    return parser.parse_args(arguments)


@exits_on_input_error
def main():
    """Draw one figure."""
    options = vars(parse_arguments())
    draw, audio = options.pop("draw"), options.pop("command") != "distributions"
    table = select_utterances(
        read_manifests(read_sources(options.pop("manifest"), audio)),
        *map(options.pop, ("split", "languages", "emotions")),
    )
    numbers = draw(table, **options)
    text = json.dumps(numbers, indent=2)
    write_text(f"{options['output']}.json", text + "\n")
    print(text)


if __name__ == "__main__":
    main()
