#!/usr/bin/env python3
"""Leave one corpus out: zero-shot on real speech, beside simple methods.

Four corpora in four languages (EmoDB German, EMOVO Italian, RAVDESS English
without calm, URDU), the real Whisper-base encoder, the open recipe
(hparams/open/train.yaml) with a linear connector, whose training takes
seconds; loco_qformer.py does the same with the Q-Former. For each corpus the
system is trained on the other three and tested on all of it, with the labels
that occur in it. No label of the test corpus is used anywhere:

- which encoder layers, and whether with the contrastive loss, is chosen for
  each test corpus by leaving each of the other three out in turn;
- inductive takes the test utterances one by one;
- transductive has the test corpus's audio: moved to the training's mean and
  deviation, it is labelled by the recognisers themselves, and a second
  training has the surer half of it, with these labels, beside the others.

A run is three connectors whose log-probabilities are averaged; each one alone
is reported too. Beside it, on the same utterances, loco_baselines.py.

Usage: python loco.py --data FOLDER [--folder results/loco] [--runs 1 2 3]
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
from pathlib import Path

import recipe  # noqa: F401  finds the recipe's scripts
from baseline import FOLDERS
from corpora import prepare_manifests
from loco_baselines import INDUCTIVE, LABELS, TRANSDUCTIVE
from real_speech import require_data
from steps import Steps, as_flags, begin_with

from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.files.markdown import markdown_table
from speechbrain_mser.settings.project_files import HPARAMS

# Connectors in a run.
TOGETHER = 3
LINEAR = {
    "connector_type": "linear",
    "mean_over_time": True,
    "n_queries": 1,
    "lr": 3.0e-3,
}
CONFIGURATIONS = {
    "layers 2-4": {**LINEAR, "encoder_layers": [2, 3, 4]},
    "layers 2-4 without contrastive loss": {
        **LINEAR,
        "encoder_layers": [2, 3, 4],
        "w1": 0.0,
        "w2": 0.0,
    },
    "layer 3": {**LINEAR, "encoder_layers": [3]},
    "last layer": {**LINEAR, "encoder_layers": [-1]},
}
# Adaptation before the second training, shown beside the two.
MOVED = "transductive, without the second training"
# Where a run's evaluations are, in the run's folder.
PLACES = {
    INDUCTIVE: "inductive",
    MOVED: "transductive",
    TRANSDUCTIVE: "self-trained",
}


class Protocol:
    """Where things are, and how a recogniser is trained and evaluated.

    Arguments
    ---------
    data, folder : pathlib.Path
        Corpora and the real encoder; where the experiment lives.
    feature_dtype : str
        Of the stored features; means over time are small, and float16 would
        be coarser than what tells utterances apart.
    """

    def __init__(self, data, folder, feature_dtype="float32"):
        self.folder = folder
        self.corpora = {
            "data_root": str(data / "speech"),
            "manifest_folder": str(folder / "manifests"),
        }
        self.store = {
            "features": "write",
            "feature_folder": str(folder / "features"),
            "feature_dtype": feature_dtype,
            "num_workers": 0,
        }
        self.models = {
            "whisper_hub": str(data / "whisper-base-encoder"),
            "llama_hub": str(folder / "models" / "llama"),
            "frozen_dtype": "float32",
        }

    def train(self, place, corpora, settings, seed, manifests=None):
        """A recogniser's folder, trained unless that was done before.

        Its settings are what differs from the open recipe, as in
        `CONFIGURATIONS`; manifests with pseudo-labels may be elsewhere.
        """
        flags = {
            **self.models,
            **settings,
            "corpora": corpora,
            "seed": seed,
        }
        note = {}
        if manifests is not None:
            flags |= {"manifest_folder": str(manifests), "skip_prep": True}
            note = {"manifests": _contents(manifests)}
        folder = self._run(place, "train.py", "open/train.yaml", flags, note)
        return f"{folder}/recognizer"

    def evaluate(self, place, recognizers, corpora, adaptation):
        """Corpus to metrics of one or several recognisers, on whole corpora."""
        flags = {
            "recognizer": recognizers,
            "adaptation": adaptation,
            "batch_size": 64,
            "sets": [
                {"name": name, "corpus": name, "labels": LABELS[name]}
                for name in corpora
            ],
        }
        note = {"trained": list(map(_trained, recognizers))}
        folder = self._run(place, "evaluate.py", "evaluate.yaml", flags, note)
        return json.loads((folder / "metrics.json").read_text())

    def label(self, place, recognizers, corpus, others):
        """Manifests of a corpus with pseudo-labels and of others with theirs."""
        flags = {
            "recognizer": recognizers,
            "corpus": corpus,
            "labels": LABELS[corpus],
            "batch_size": 64,
        }
        note = {"trained": list(map(_trained, recognizers))}
        folder = self._run(
            place, "pseudo_label.py", "pseudo_label.yaml", flags, note
        )
        for other in others:
            shutil.copy(self.folder / "manifests" / f"{other}.csv", folder)
        return folder

    def _run(self, place, script, yaml, flags, note):
        """Run a script into its folder, unless that was done before.

        What it depends on are its flags, and what they only name: the note.
        """
        folder = self.folder / place
        flags = {**self.corpora, **self.store, **flags}
        begin_with(folder, {**flags, **note})
        Steps(folder).run(
            place.replace("/", " "),
            script,
            HPARAMS / yaml,
            *as_flags({**flags, "output_folder": str(folder)}),
        )
        return folder


def _contents(manifests):
    return {
        path.name: path.read_text(encoding="utf-8")
        for path in sorted(manifests.glob("*.csv"))
    }


def _trained(recognizer):
    note = Path(recognizer).parent / "begun_with.json"
    return note.read_text(encoding="utf-8")


def choose(protocol):
    """The best configuration for each test corpus, not looking at it.

    Corpus to configuration to mean UA over the other three, each left out of
    the training in turn.
    """
    uas_of = {}
    for name, settings in CONFIGURATIONS.items():
        for pair in itertools.combinations(LABELS, 2):
            place = f"choice/{name.replace(' ', '_')}/{'+'.join(pair)}"
            recognizer = protocol.train(
                f"{place}/training", list(pair), settings, seed=1
            )
            rest = [corpus for corpus in LABELS if corpus not in pair]
            metrics = protocol.evaluate(
                f"{place}/evaluation", [recognizer], rest, "none"
            )
            uas_of[name, pair] = {c: metrics[c]["UA"] for c in rest}
    return {
        test: {
            name: statistics.mean(
                uas[left_out]
                for (other, pair), uas in uas_of.items()
                if other == name and test not in pair
                for left_out in uas
                if left_out != test
            )
            for name in CONFIGURATIONS
        }
        for test in LABELS
    }


def run_fold(protocol, corpus, settings, run):
    """Train, evaluate and adapt the connectors of a run on one fold."""
    others = [name for name in LABELS if name != corpus]
    seeds = [TOGETHER * (run - 1) + k for k in range(1, TOGETHER + 1)]
    place = f"{corpus}/run{run}"
    first = [
        protocol.train(f"{corpus}/seed{seed}", others, settings, seed)
        for seed in seeds
    ]
    results = {
        kind: protocol.evaluate(
            f"{place}/{PLACES[kind]}", first, [corpus], adaptation
        )
        for kind, adaptation in ((INDUCTIVE, "none"), (MOVED, "set"))
    }
    manifests = protocol.label(f"{place}/labels", first, corpus, others)
    second = [
        protocol.train(
            f"{place}/seed{seed}", [*others, corpus], settings, seed, manifests
        )
        for seed in seeds
    ]
    results[TRANSDUCTIVE] = protocol.evaluate(
        f"{place}/{PLACES[TRANSDUCTIVE]}", second, [corpus], "set"
    )
    return {kind: metrics[corpus] for kind, metrics in results.items()}


def report(simple, runs):
    """All methods in one table; the system as mean and deviation over runs.

    ``simple`` is method to corpus to UA, ``runs`` run to corpus to kind to
    metrics.
    """
    rows = [[method, *columns([uas])] for method, uas in simple.items()]
    for kind in PLACES:
        metrics = [
            {corpus: of_kind[kind] for corpus, of_kind in folds.items()}
            for folds in runs.values()
        ]
        single = [
            {corpus: m["each"][k]["UA"] for corpus, m in each.items()}
            for each in metrics
            for k in range(TOGETHER)
        ]
        together = [{c: m["UA"] for c, m in each.items()} for each in metrics]
        rows += [
            [f"system, {kind}: one connector", *columns(single)],
            [f"system, {kind}: three together", *columns(together)],
        ]
    return markdown_table([["UA", *LABELS, "mean"], *rows])


def columns(results):
    """Mean and deviation over trainings of each corpus's UA, and of their mean."""
    uas = [[by_corpus[corpus] for corpus in LABELS] for by_corpus in results]
    cells = [*zip(*uas, strict=True), [*map(statistics.mean, uas)]]
    return [
        f"{statistics.mean(each):.3f}"
        + (f" ± {statistics.stdev(each):.3f}" if len(each) > 1 else "")
        for each in cells
    ]


def intervals(runs):
    """The first run's UA with bootstrap intervals."""
    run, folds = next(iter(runs.items()))
    rows = [[f"run {run}", *LABELS]]
    for kind in PLACES:
        cells = []
        for corpus in LABELS:
            low, high = folds[corpus][kind]["intervals"]["UA"]
            ua = folds[corpus][kind]["UA"]
            cells.append(f"{ua:.3f} ({low:.3f} to {high:.3f})")
        rows.append([kind, *cells])
    return markdown_table(rows)


def choices(chosen):
    """What was chosen for each corpus, and by what."""
    return markdown_table(
        [
            ["left out inside the other three", *LABELS],
            *(
                [name, *(f"{chosen[test][name]:.3f}" for test in LABELS)]
                for name in CONFIGURATIONS
            ),
        ]
    )


def begin(data, folder, feature_dtype="float32"):
    """Make what every fold needs, unless it is there: the protocol, the steps."""
    data, folder = data.resolve(), folder.resolve()
    require_data(data)
    # Small matrices: a second thread costs more than it does.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    steps = Steps(folder)
    steps.run("models", "demo_models.py", "--save_folder", folder / "models")
    prepare_manifests(
        list(FOLDERS), data / "speech", FOLDERS, folder / "manifests"
    )
    return Protocol(data, folder, feature_dtype), steps


def write_results(folder, text, results):
    """Leave the tables as table.md, all figures as results.json."""
    for name, content in (
        ("table.md", text),
        ("results.json", json.dumps(results, indent=1)),
    ):
        write_text(folder / name, content + "\n")


@exits_on_input_error
def main():
    """Run the simple methods, the choice, and every fold of every run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("results/loco"))
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    data, folder = arguments.data.resolve(), arguments.folder.resolve()
    protocol, steps = begin(data, folder)
    simple = folder / "simple.json"
    steps.run(
        "simple methods",
        "loco_baselines.py",
        *("--data", data, "--folder", folder, "--output", simple),
    )
    chosen = choose(protocol)
    runs = {}
    for run in arguments.runs:
        runs[run] = {
            corpus: run_fold(
                protocol,
                corpus,
                CONFIGURATIONS[max(uas, key=uas.get)],
                run,
            )
            for corpus, uas in chosen.items()
        }
        texts = [report(json.loads(simple.read_text()), runs)]
        texts += [intervals(runs), choices(chosen)]
        text = "\n\n".join(texts)
        write_results(folder, text, {"choice": chosen, "system": runs})
        print(f"\nruns {[*runs]}\n{text}")


if __name__ == "__main__":
    main()
