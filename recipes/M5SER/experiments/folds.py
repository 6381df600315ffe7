"""Real corpora, one of them left out: what the experiments on them share.

Four corpora in four languages: EmoDB (German), EMOVO (Italian), RAVDESS
(English), URDU. The system is the open recipe (hparams/open/train.yaml) as it
stands; an experiment changes what it is about, and nothing else.
"""

import argparse
import json
import os
import shutil
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas
import recipe  # noqa: F401  finds the recipe's scripts
from corpora import read_corpora
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from steps import NOTE, Steps, as_flags, begin_with

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.files.fingerprints import file_digest
from speechbrain_mser.files.tables import read_json, read_table
from speechbrain_mser.settings.flags import read_command_line
from speechbrain_mser.settings.hparams import (
    load_object,
    place_overrides,
    read_settings,
)
from speechbrain_mser.settings.project_files import HPARAMS

OPEN = HPARAMS / "open" / "train.yaml"
# Each corpus is tested with the labels that occur in it.
LABELS = {
    "emodb": "emodb6",
    "emovo": "paper7",
    "ravdess": "ravdess7",
    "urdu": "urdu4",
}
# How often utterances to listen to are drawn; more of them vary less.
DRAWS, SEED = 3, 1234
# Of evaluations: short speech, and no gradient.
BATCH_SIZE = 64
# Where the recipe's settings are, beside its own.
SECTIONS = ("model", "training")


class Folds:
    """Where things are, and how a recogniser is trained and evaluated.

    Arguments
    ---------
    data, folder : pathlib.Path
        ``data/speech`` holds the corpora; the experiment lives in the folder.
    overrides : dict
        Settings of the open recipe that are others here.

    Raises
    ------
    InputError
        The recipe has no such setting, or a corpus is not there.
    """

    def __init__(self, data, folder, overrides):
        self.folder = folder.resolve()
        self.overrides = overrides
        self.corpora = {
            "data_root": str(data.resolve() / "speech"),
            "manifest_folder": str(self.folder / "manifests"),
        }
        flags = as_flags({**self.corpora, **overrides})
        _, _, placed = read_command_line([str(OPEN), *flags])
        self.settings = read_settings(OPEN, placed)
        # As it stands now: a recipe that was changed is trained anew.
        self.recipe = json.loads(json.dumps(self.settings, default=str))
        # Place to the connector's digest
        self.trained = {}
        self.store = {
            "features": "write",
            # Another experiment's, so that nothing is encoded twice
            "feature_folder": overrides.get(
                "feature_folder", str(self.folder / "features")
            ),
            "feature_dtype": self.settings["training"]["feature_dtype"],
            "num_workers": 0,
        }

    def prepare(self):
        """Manifests and features of all corpora, for all that follows."""
        # Small matrices: a second thread costs more than it does.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self.utterances()
        flags = {**self.shared, **self.overrides, "corpora": list(LABELS)}
        Steps(self.folder).run("features", "extract.py", OPEN, *as_flags(flags))

    def utterances(self):
        """All corpora's, as their manifests have them."""
        return read_corpora(list(LABELS), self.settings)

    def encoder(self, layers):
        """The recipe's, with its front end, and other layers of it."""
        own = {"encoder_layers": layers, "mean_over_time": False}
        placed = place_overrides(
            OPEN, {**self.corpora, **self.overrides, **own}
        )
        return load_object(OPEN, placed, "model", "encoder")

    @property
    def shared(self):
        """Flags of all scripts; the manifests have been made."""
        return {**self.corpora, **self.store, "skip_prep": True}

    def setting(self, name):
        """What the recipe, with the overrides, says."""
        for section in (self.settings, *map(self.settings.get, SECTIONS)):
            if name in section:
                return section[name]
        raise InputError(f"{OPEN}: no setting {name!r}")

    def train(self, place, corpora, settings, seed, manifests=None):
        """A recogniser's folder, trained unless that was done before.

        Settings are what differs from the recipe and the overrides;
        ``pretrained`` is another recogniser's folder. Manifests with
        pseudo-labels may be elsewhere.
        """
        flags = {
            **self.shared,
            **self.overrides,
            **settings,
            "corpora": corpora,
            "seed": seed,
        }
        note = {"recipe": self.recipe}
        if "pretrained" in settings:
            note["after"] = _trained(settings["pretrained"])
        if manifests is not None:
            flags["manifest_folder"] = str(manifests)
            note["manifests"] = _contents(manifests)
        folder = self._run(place, "train.py", OPEN, flags, note)
        self.trained[place] = self._digest(place)
        return f"{folder}/recognizer"

    def evaluate(
        self, place, recognizer, corpus, labels, adaptation, microphone=None
    ):
        """A recogniser's metrics on a whole corpus."""
        flags = {
            **self.shared,
            "recognizer": recognizer,
            "adaptation": adaptation,
            "draws": DRAWS,
            "seed": SEED,
            "batch_size": BATCH_SIZE,
            "sets": [{"name": corpus, "corpus": corpus, "labels": labels}],
        }
        # What was evaluated before there were any stays valid.
        if microphone is not None:
            flags["microphone"] = microphone
        note = {"trained": _trained(recognizer)}
        yaml = HPARAMS / "evaluate.yaml"
        folder = self._run(place, "evaluate.py", yaml, flags, note)
        return json.loads((folder / "metrics.json").read_text())[corpus]

    def label(self, place, recognizer, corpus, others):
        """Manifests of a corpus with pseudo-labels and of others with theirs."""
        flags = {
            **self.shared,
            "recognizer": recognizer,
            "corpus": corpus,
            "labels": LABELS[corpus],
            "batch_size": BATCH_SIZE,
        }
        note = {"trained": _trained(recognizer)}
        yaml = HPARAMS / "pseudo_label.yaml"
        folder = self._run(place, "pseudo_label.py", yaml, flags, note)
        for other in others:
            shutil.copy(self.folder / "manifests" / f"{other}.csv", folder)
        return folder

    def write_results(self, place, text, runs):
        """Leave the tables as table.md, all figures as results.json.

        With them, what they are of: the recipe, and all trainings so far.
        """
        # A copy: other threads go on training
        of = {"recipe": self.recipe, "trainings": dict(self.trained)}
        results = json.dumps({"of": of, "runs": runs}, indent=1)
        for name, content in (("table.md", text), ("results.json", results)):
            write_text(self.folder / place / name, content + "\n")

    def read_results(self, place, trainings=()):
        """Figures that `write_results` has left; None where it has not.

        Arguments
        ---------
        place : str
            As for it.
        trainings : iterable of str
            Places of those that they should be of, among others.

        Raises
        ------
        InputError
            They are of another recipe, or of trainings that are not there.
        """
        path = self.folder / place / "results.json"
        if not path.is_file():
            return None
        results = read_json(path)
        # Earlier versions did not note it.
        of = results.get("of", {"recipe": None})
        wrong = "another recipe" if of["recipe"] != self.recipe else None
        if wrong is None:
            absent = [one for one in trainings if one not in of["trainings"]]
            wrong = f"others than {absent[0]}" if absent else None
        for one, digest in of["trainings"].items() if wrong is None else ():
            if self._digest(one) != digest:
                wrong = f"another training than the one in {one}"
        if wrong is not None:
            raise InputError(
                f"{path} is of {wrong}: run its experiment again (what was "
                "trained and tested before is not again), or remove it"
            )
        return results["runs"]

    def _digest(self, place):
        """A trained connector's, "" where there is none."""
        path = self.folder / place / "recognizer" / "connector.safetensors"
        return file_digest(path).hex() if path.is_file() else ""

    def _run(self, place, script, yaml, flags, note):
        """Run a script into its folder, unless that was done before.

        What it depends on are its flags, and what they only name: the note.
        """
        folder = self.folder / place
        begin_with(folder, {**flags, **note})
        flags = as_flags({**flags, "output_folder": str(folder)})
        Steps(folder).run(place.replace("/", " "), script, yaml, *flags)
        return folder


def _contents(manifests):
    return {
        path.name: path.read_text(encoding="utf-8")
        for path in sorted(manifests.glob("*.csv"))
    }


def _trained(recognizer):
    return (Path(recognizer).parent / NOTE).read_text(encoding="utf-8")


def others_than(corpus):
    """The corpora that are trained on where one is left out."""
    return [name for name in LABELS if name != corpus]


def read_log_probs(path, labels):
    """What evaluate.py left of a set, by ID: log-probabilities and ``label``.

    Arguments
    ---------
    path : pathlib.Path
        A predictions.csv.
    labels : list of str
        Candidates that were scored.

    Returns
    -------
    pandas.DataFrame
        A column for each label, normalised over all that were scored.
    """
    rows = read_table(path, ["ID", "label", *labels])
    # No ID is a number, nor is one missing.
    table = pandas.DataFrame(rows).set_index("ID").sort_index()
    probs = table[labels].astype(float).clip(lower=np.finfo(np.float32).tiny)
    return np.log(probs).assign(label=table.label)


def side_by_side(jobs, function, tasks):
    """Results of a function of each task, in order, so many at a time.

    Raises
    ------
    SystemExit
        A script failed; what is running is waited for, nothing more is begun.
    """
    if jobs == 1:
        # In this thread: whoever ends it ends the script that it waits for.
        yield from (function(*task) for task in tasks)
        return
    pool = ThreadPoolExecutor(jobs)
    try:
        yield from pool.map(lambda task: function(*task), tasks)
    finally:
        pool.shutdown(cancel_futures=True)


def mean_and_sd(values):
    """Such as "0.812 ± 0.010"; a single one has no deviation.

    Example
    -------
    >>> mean_and_sd([0.5, 0.75]), mean_and_sd([0.5])
    ('0.625 ± 0.177', '0.500')
    """
    deviation = f" ± {statistics.stdev(values):.3f}" if values[1:] else ""
    return f"{statistics.mean(values):.3f}{deviation}"


def columns(results):
    """Over trainings, each corpus's figure and the mean of all, as cells.

    Example
    -------
    >>> columns([{"emodb": 0.5, "urdu": 1.0}])
    ['0.500', '1.000', '0.750']
    """
    values = [list(by_corpus.values()) for by_corpus in results]
    every = [*zip(*values, strict=True), [*map(statistics.mean, values)]]
    return [mean_and_sd(list(one)) for one in every]


def argument_parser(description, corpora=tuple(LABELS)):
    """The command line that the experiments share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="speech/ in it holds EmoDB, EMOVO, RAVDESS and URDU",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("results/loco"),
        help="where all that these experiments share is kept",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--corpora",
        nargs="+",
        choices=corpora,
        default=list(corpora),
        help="those to leave out",
    )
    parser.add_argument(
        "--overrides",
        type=read_overrides,
        default={},
        help='settings of the recipe that are others here: "{lr: 1.0e-3}"; '
        'in another folder "{feature_folder: results/loco/features}" reads '
        "what was encoded",
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="trainings at a time"
    )
    return parser


def read_overrides(text):
    """Settings by name, from YAML.

    Example
    -------
    >>> read_overrides("{lr: 1.0e-3}")
    {'lr': 0.001}
    """
    try:
        overrides = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise argparse.ArgumentTypeError(f"no YAML: {error}") from None
    if not isinstance(overrides, dict):
        raise argparse.ArgumentTypeError("expected {setting: value, ...}")
    return overrides
