"""Protocols of evaluation: which utterances, which labels, and whose results
stand beside ours."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas
from corpora import read_corpora
from speechbrain.utils.logger import get_logger

from speechbrain_mser.dataio.manifest import read_manifests
from speechbrain_mser.dataio.utterances import select_utterances
from speechbrain_mser.emotions import (
    candidate_labels,
    canonical,
    in_order,
)
from speechbrain_mser.errors import InputError

logger = get_logger(__name__)

KEYS = {
    "name",
    "corpus",
    "manifest",
    "data_root",
    "labels",
    "split",
    "languages",
    "merge",
    "ua_over",
    "note",
}


@dataclass
class EvaluationSet:
    """Utterances to evaluate on, and how.

    Arguments
    ---------
    table : pandas.DataFrame
        The utterances.
    audio : pandas.DataFrame
        Them and those of the same corpus, split and languages whose emotion
        is not among the labels: which ones they are is not to be known when
        nothing but audio is.
    labels : list of str
        The candidates.
    ua_over : str
        As for `speechbrain_mser.evaluation.metrics.emotion_metrics`.
    protocol : str or None
        The protocol's name, if it is one.
    note : str
        What a reader must know of it.
    """

    table: pandas.DataFrame
    audio: pandas.DataFrame
    labels: list
    ua_over: str
    protocol: str | None
    note: str


def read_sets(settings):
    """The sets to evaluate, all checked, and those that are not there.

    Arguments
    ---------
    settings : dict
        Of evaluate.yaml, as `read_settings` returns them.

    Returns
    -------
    sets : dict
        Name to `EvaluationSet`.
    absent : dict
        Name to why there is no such corpus.

    Raises
    ------
    InputError
        A set cannot be used, or all are absent.
    """
    if not settings["sets"]:
        raise InputError("no sets: there is nothing to evaluate")
    sets, absent, tables = {}, {}, {}
    wanted = [
        described
        for entry in settings["sets"]
        for described in _describe(entry, settings)
    ]
    for protocol, entry in wanted:
        name = _check_entry(entry, {*sets, *absent})
        if entry["labels"] is not None:
            candidate_labels(entry["labels"])  # before a corpus is read
        reason = _absence(entry, settings)
        if reason:
            logger.warning("%s is absent: %s", name, reason)
            absent[name] = reason
            continue
        # Several sets may be of one corpus.
        source = tuple(
            entry.get(key) for key in ("corpus", "manifest", "data_root")
        )
        if source not in tables:
            tables[source] = _read_source(entry, settings)
        table = _merge(tables[source], entry)
        if entry["labels"] is None:
            entry = {**entry, **_whole_corpus(table)}
        labels = list(candidate_labels(entry["labels"]))
        select = partial(
            select_utterances,
            table,
            entry.get("split"),
            entry.get("languages"),
        )
        sets[name] = EvaluationSet(
            select(labels),
            select(),
            labels,
            entry.get("ua_over", "present"),
            protocol,
            str(entry.get("note", "")),
        )
    if not sets:
        reasons = "; ".join(f"{name}: {why}" for name, why in absent.items())
        raise InputError(
            f"no set can be evaluated ({reasons}); --data_root takes the "
            "folder that holds the corpora, --corpus_folders says where one "
            "lies elsewhere"
        )
    return sets, absent


def _describe(entry, settings):
    """What an entry stands for: protocols' names or None, and descriptions."""
    protocols = settings["protocols"] or {}
    if not isinstance(entry, str):
        return [(None, entry)]
    if entry in protocols:
        return [(entry, {"name": entry, **protocols[entry]})]
    corpus = _corpus_named(entry, settings)
    of_corpus = [
        (name, {"name": name, **protocol})
        for name, protocol in protocols.items()
        if corpus is not None and protocol.get("corpus") == corpus
    ]
    if of_corpus:
        return of_corpus
    if corpus is not None:
        return [(None, {"name": entry, "corpus": corpus, "labels": None})]
    known = [*protocols, *settings["corpus_folders"]]
    raise InputError(
        f"set {entry!r}: no such protocol or corpus; there are "
        f"{', '.join(known) or 'none'}; a set is described as {{name: "
        "..., corpus: ..., labels: ...}"
    )


def _corpus_named(name, settings):
    """The corpus that is called so, whatever the case; None if there is none.

    By our name for it, by its folder's, or by its manifest's.
    """
    known = {}
    for path in sorted(Path(settings["manifest_folder"]).glob("*.csv")):
        known[path.stem.lower()] = path.stem
    for corpus, folder in settings["corpus_folders"].items():
        known[Path(str(folder)).name.lower()] = corpus
    for corpus in settings["corpus_folders"]:
        known[corpus.lower()] = corpus
    return known.get(name.lower())


def _whole_corpus(table):
    """A corpus without a protocol: its test split, if any; its emotions."""
    split = "test" if (table.split == "test").any() else None
    part = table if split is None else table[table.split == split]
    labels = in_order({*part.emotion} - {""})
    what = "the test split" if split else "all recordings"
    note = f"{what}, the labels are the emotions that occur"
    return {"labels": labels, "split": split, "note": note}


def _check_entry(entry, taken):
    """A set's name, if its description can be used."""
    required = {"name", "labels"}
    if not isinstance(entry, dict):
        raise InputError(
            f"set {entry!r}: a set is described as {{name: ..., corpus: ..., "
            "labels: ...}, or named as a protocol"
        )
    if not required <= set(entry) <= KEYS or ("corpus" in entry) == (
        "manifest" in entry
    ):
        raise InputError(
            f"set {dict(entry)}: needs name and labels, and either corpus or "
            f"manifest; and may have {', '.join(sorted(KEYS - required))}"
        )
    name = str(entry["name"])
    if name in taken:
        raise InputError(f"the set {name!r} is there twice")
    if Path(name).name != name or name == "..":
        raise InputError(
            f"the set's name {name!r} becomes a folder and cannot be a path"
        )
    return name


def _absence(entry, settings):
    """Why a set's corpus is absent; nothing if it is there.

    Only a corpus that corpora.yaml knows can be absent: any other is a
    mistake in its name.
    """
    corpus, root = entry.get("corpus"), Path(settings["data_root"])
    if corpus not in settings["corpus_folders"] or not root.is_dir():
        return ""
    folder = root / settings["corpus_folders"][corpus]
    options = (settings["corpus_options"] or {}).get(corpus) or {}
    manifest = f"{options.get('name', corpus)}.csv"
    # Prepared audio may lie beside its manifest, and the corpus be gone.
    manifest = Path(settings["manifest_folder"]) / manifest
    prepared = settings["skip_prep"] and manifest.is_file()
    if folder.is_dir() or prepared:
        return ""
    return f"no folder {folder}"


def _read_source(entry, settings):
    """The utterances of a set's corpus or manifest."""
    if "manifest" in entry:
        root = entry.get("data_root", settings["data_root"])
        return read_manifests({entry["manifest"]: root})
    return read_corpora([entry["corpus"]], settings)


def _merge(table, entry):
    """A table with some emotions counted as others."""
    merge = entry.get("merge") or {}
    if not isinstance(merge, dict):
        raise InputError(
            f"set {entry['name']}: merge is {merge!r}, expected {{emotion: "
            "emotion that it counts as}"
        )
    own = {*table.emotion}
    merge = {canonical(a, own): canonical(b, own) for a, b in merge.items()}
    return table.assign(emotion=table.emotion.replace(merge))
