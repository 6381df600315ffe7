#!/usr/bin/env python3
"""The last step of M5SER: a card of what was made, kept and dropped.

`synthesize.py` calls it when all shards are finished. By hand it writes the
card anew, of what `m5ser_prepare.py` has left, for example after other filters
or after `m5ser_scores.py`:

    python m5ser_card.py --data_folder /big/m5ser --save_folder manifests \
        --manifest manifests/iemocap.csv /corpora/IEMOCAP_full_release \
        --manifest manifests/meld.csv /corpora/MELD.Raw

Writes into the data folder README.md, distributions.png (the paper's Fig. 1),
spectrograms.png (Fig. 2) and card.json, which holds all numbers.
"""

import json
import tempfile
from collections import Counter
from pathlib import Path

import pandas
from licences import inherited
from m5ser_prepare import SCORES

from speechbrain_mser.dataio.manifest import read_manifest, read_manifests
from speechbrain_mser.errors import InputError, exits_on_input_error
from speechbrain_mser.evaluation.corpus_figures import (
    draw_distributions,
    draw_spectrograms,
)
from speechbrain_mser.files.atomic import atomic_path
from speechbrain_mser.files.tables import read_json, read_table
from speechbrain_mser.preparation.command_line import sources_parser
from speechbrain_mser.synthesis.card import dataset_card
from speechbrain_mser.synthesis.folder import SynthesisFolder, was_synthesized
from speechbrain_mser.synthesis.shard_check import describe_shards

# A map of fewer shows nothing.
FEWEST = 10


def write_card(output_folder, manifest_folder, sources, most=2000, seed=1):
    """Describe what `prepare_m5ser` left.

    Arguments
    ---------
    output_folder : str or path-like
        Where `synthesize.py` wrote.
    manifest_folder : str or path-like
        Where ``m5ser.csv`` is; the sources' manifests lie there.
    sources : dict
        Manifest to its data root, as `corpora.prepare_manifests` returns.
    most : int
        Utterances in the map of spectrograms.
    seed : int
        Of the map's choice of utterances.

    Returns
    -------
    pathlib.Path
        The card.

    Raises
    ------
    InputError
        There is no manifest, or it is not of these sources.
    """
    folder = Path(output_folder)
    manifest = Path(manifest_folder) / "m5ser.csv"
    table = _read_translations(manifest, folder)
    source = _read_sources(sources, table)
    filters = read_json(manifest.with_name("m5ser_filters.json"))
    dropped = read_table(
        manifest.with_name("m5ser_dropped.csv"), ["item", "reason"]
    )
    made = None
    if was_synthesized(folder):
        made = describe_shards(SynthesisFolder.of(folder))
    facts = {
        "made": made,
        "filters": filters,
        "dropped": dict(
            Counter(
                row["reason"].split(":")[0] for row in dropped
            ).most_common()
        ),
        "scores": _mean_scores(folder / SCORES),
    }
    both = pandas.concat([source, table], ignore_index=True)
    with tempfile.TemporaryDirectory() as drawn:
        facts["distributions"] = draw_distributions(
            both, f"{drawn}/distributions"
        )
        facts["spectrograms"] = _draw_map(both, source, drawn, most, seed)
        for path in sorted(Path(drawn).glob("*.png")):
            _write(folder / path.name, path.read_bytes())
    _write(folder / "card.json", _as_json(facts))
    licences = inherited(
        set(table.corpus),
        made["backend"] if made else "unknown",
    )
    card = dataset_card(table, source, licences=licences, **facts)
    _write(folder / "README.md", card.encode())
    print(f"{folder / 'README.md'}: the card of {len(table):,} translations")
    return folder / "README.md"


def _read_translations(manifest, folder):
    """The translations; their corpus is the source's, their source its ID."""
    table = read_manifest(manifest, folder)
    places = [Path(wav).relative_to(folder).parts for wav in table.wav]
    return table.assign(
        corpus=[corpus for _, corpus, *_ in places],
        source=[
            name.removeprefix(f"m5ser_{language}_")
            for name, language in zip(table.ID, table.language, strict=True)
        ],
    )


def _read_sources(sources, table):
    """The source utterances that have a translation."""
    source = read_manifests(sources)
    unknown = set(table.source) - set(source.ID)
    if unknown:
        raise InputError(
            f"{len(unknown)} sources are in none of the manifests given, for "
            f"example {min(unknown)}: give those of "
            f"{', '.join(sorted(set(table.corpus)))}"
        )
    return source[source.ID.isin(set(table.source))]


def _draw_map(both, source, folder, most, seed):
    """Fig. 2 and its numbers; None where there is nothing to compare."""
    known = both[both.emotion != ""]
    language = source.language.mode()[0]
    if len(known) < FEWEST or language not in set(known.language):
        return None
    return draw_spectrograms(
        known, f"{folder}/spectrograms", language, most, seed
    )


def _mean_scores(path):
    """Column to language to mean, of the scores that are numbers."""
    if not path.is_file():
        return {}
    scores = pandas.read_csv(path)
    numbers = scores.select_dtypes("number").columns
    means = scores.groupby("language")[list(numbers)].mean()
    return {
        name: means[name].dropna().to_dict()
        for name in numbers
        if means[name].notna().any()
    }


def _as_json(facts):
    return (json.dumps(facts, indent=1) + "\n").encode()


def _write(path, data):
    """Write what is not there yet: the manifest knows files by their dates."""
    if path.is_file() and path.read_bytes() == data:
        return
    with atomic_path(path) as partial:
        partial.write_bytes(data)


@exits_on_input_error
def main():
    """Read the command line and write the card."""
    parser = sources_parser(__doc__)
    add = parser.add_argument
    add("--save_folder", required=True, help="where m5ser.csv is")
    add("--most", type=int, default=2000, help="utterances in the map")
    given = parser.parse_args()
    write_card(
        given.data_folder, given.save_folder, dict(given.manifest), given.most
    )


if __name__ == "__main__":
    main()
