#!/usr/bin/env python3
"""The paper's Table II, and rows for what is added here, over seeds.

    python ablation.py hparams/ablation.yaml
    python ablation.py hparams/ablation.yaml --seeds "[1, 2, 3, 4, 5]"

Every row is one training with train.py and one evaluation with evaluate.py.
What ended well is not run again, and what was interrupted goes on from its
last checkpoint. Writes into the output folder: table.md, table.csv,
metrics.json (all seeds; mean and standard deviation) and ablation.png and
ablation.pdf.
"""

import io
import json
import os
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Lock

from steps import Steps, as_flags, begin_with

from speechbrain_mser.errors import InputError, exits_on_input_error
from speechbrain_mser.evaluation.figures import plot_ablation
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.files.csv_files import write_csv
from speechbrain_mser.files.markdown import markdown_table
from speechbrain_mser.settings.flags import read_command_line
from speechbrain_mser.settings.hparams import read_settings
from speechbrain_mser.settings.project_files import HPARAMS

METRICS = ("WA", "UA", "WF1", "precision")
ROW_KEYS = {"name", "group", "stage", "after", "settings", "paper"}
# What decides which features a training reads: one extraction for each.
ENCODER = (
    *("whisper_hub", "frozen_dtype"),
    *("encoder_layers", "pad_to_30s", "mean_over_time"),
    *("trim_silence", "speech_level"),
)
UTTERANCES = (
    *("corpora", "languages", "label_words"),
    *("train_split", "valid_split"),
)


def check_rows(settings):
    """Refuse rows that cannot be run, before anything is.

    Raises
    ------
    InputError
        A key, stage or group that is not there, two rows of one name, a row
        that starts from one that is not above it, or no seeds.
    """
    rows, above, names = settings["rows"], [], []
    for key, row in rows.items():
        missing = {"name", "group", "stage"} - set(row)
        unknown = set(row) - ROW_KEYS
        if missing or unknown:
            raise InputError(
                f"row {key}: a row has name, group and stage, and may have "
                f"{', '.join(sorted(ROW_KEYS - {'name', 'group', 'stage'}))}; "
                f"missing: {', '.join(sorted(missing)) or 'none'}, unknown: "
                f"{', '.join(sorted(unknown)) or 'none'}"
            )
        for what in ("stage", "group"):
            known = settings[f"{what}s"]
            if row[what] not in known:
                raise InputError(
                    f"row {key}: no {what} {row[what]!r} among "
                    f"{', '.join(known)}"
                )
        if row["name"] in names:
            raise InputError(f"two rows are called {row['name']!r}")
        if row.get("after") is not None and row["after"] not in above:
            raise InputError(
                f"row {key} starts from {row['after']!r}, which is no row "
                f"above it; these are {', '.join(above) or 'none'}"
            )
        above.append(key)
        names.append(row["name"])
    for name in ("seeds", "jobs"):
        value = settings[name]
        numbers = value if isinstance(value, list) else [value]
        if not numbers or not all(type(n) is int and n > 0 for n in numbers):
            raise InputError(
                f"{name} is {value!r}, expected whole numbers above 0"
            )


class Ablation:
    """The rows' trainings and evaluations, each run once.

    Arguments
    ---------
    settings : dict
        Of ablation.yaml, checked.
    device : str, optional
        Where to train and evaluate, if not where SpeechBrain would.
    """

    def __init__(self, settings, device=None):
        self.settings = settings
        self.shared = dict(settings["shared"])
        if device is not None:
            self.shared["device"] = device
        self.folder = Path(settings["output_folder"])
        # Encoder to a lock, and those whose evaluation sets are stored.
        self.encoding = {}
        self.stored = set()

    def row_folder(self, key, seed):
        """Where a row's training with one seed lives."""
        return self.folder / key / f"seed{seed}"

    def training_flags(self, key, seed):
        """The flags of train.py for a row, but the output folder."""
        row = self.settings["rows"][key]
        before = row.get("after")
        return {
            "seed": seed,
            "pretrained": None
            if before is None
            else f"{self.row_folder(before, seed)}/training/recognizer",
            **self.shared,
            **self.settings["base"],
            **(self.settings["stages"][row["stage"]] or {}),
            **(row.get("settings") or {}),
        }

    def prepare(self):
        """The demo's corpus and models, and the training sets' features."""
        steps = Steps(self.folder)
        if self.settings["demo"]:
            data = self.settings["data_root"]
            steps.run("corpus", "espeak_prepare.py", "--save_folder", data)
            steps.run("models", "demo_models.py", "--save_folder", data)
        if self.shared["features"] != "write":
            return
        extractions = []
        for key, row in self.settings["rows"].items():
            flags = self.training_flags(key, self.settings["seeds"][0])
            decisive = {*self.shared, *ENCODER, *UTTERANCES}
            reads = {k: v for k, v in flags.items() if k in decisive}
            if (row["stage"], reads) not in extractions:
                extractions.append((row["stage"], reads))
        for number, (stage, reads) in enumerate(extractions, 1):
            steps.run(
                f"features_{number}",
                "extract.py",
                HPARAMS / f"{stage}.yaml",
                *as_flags(reads),
            )

    def run(self):
        """All rows with all seeds, several at a time.

        Raises
        ------
        SystemExit
            A script failed; what was running beside it is ended first.
        """
        pool = ThreadPoolExecutor(self.settings["jobs"])
        trained = {}
        # Seed by seed: every row has a result early. A row's start is above
        # it, hence is begun before it: waiting for it cannot lock up.
        for seed in self.settings["seeds"]:
            for key, row in self.settings["rows"].items():
                start = trained.get((row.get("after"), seed))
                trained[key, seed] = pool.submit(self.run_row, key, seed, start)
        try:
            for row in as_completed(trained.values()):
                row.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def run_row(self, key, seed, start=None):
        """Train and evaluate one row with one seed; ``start`` is done first."""
        if start is not None:
            start.result()
        folder, name = self.row_folder(key, seed), f"{key}_seed{seed}"
        stage = self.settings["rows"][key]["stage"]
        flags = self.training_flags(key, seed)
        begin_with(folder, self.identity(key, seed))
        steps = Steps(folder)
        steps.run(
            f"train_{name}",
            "train.py",
            HPARAMS / f"{stage}.yaml",
            # Bars of several trainings at once are not to be read.
            "--noprogressbar",
            *as_flags({**flags, "output_folder": str(folder / "training")}),
        )
        evaluation = {
            "recognizer": f"{folder}/training/recognizer",
            "output_folder": f"{folder}/evaluation",
            **self.shared,
            **self.settings["evaluation"],
        }
        # The first to evaluate with an encoder stores the sets' features for
        # all; two at once would encode them twice.
        encoder = json.dumps([flags.get(k) for k in ENCODER])
        lock = self.encoding.setdefault(encoder, Lock())
        yaml, script = HPARAMS / "evaluate.yaml", "evaluate.py"
        step = (f"evaluate_{name}", script, yaml, *as_flags(evaluation))
        with lock:
            alone = encoder not in self.stored
            if alone:
                steps.run(*step)
                self.stored.add(encoder)
        if not alone:
            steps.run(*step)

    def identity(self, key, seed):
        """All that a row's training depends on."""
        row = self.settings["rows"][key]
        start = row.get("after")
        return {
            "stage": row["stage"],
            "flags": self.training_flags(key, seed),
            "after": None if start is None else self.identity(start, seed),
        }


def mean_and_sd(values):
    """Mean and sample standard deviation over seeds; None for a single one.

    Example
    -------
    >>> mean_and_sd([0.5, 0.75])["mean"]
    0.625
    >>> mean_and_sd([0.5])["sd"] is None
    True
    """
    return {
        "values": values,
        "mean": statistics.mean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
    }


def collect(ablation):
    """Every row's metrics over the seeds, all of them run.

    A dict each: ``name``, ``group``, ``paper`` (or None), and ``sets``, set
    to ``n``, ``chance`` and, of every metric, `mean_and_sd`.
    """
    settings, rows = ablation.settings, []
    for key, row in settings["rows"].items():
        evaluations = [
            json.loads(
                (
                    ablation.row_folder(key, seed) / "evaluation/metrics.json"
                ).read_text(encoding="utf-8")
            )
            for seed in settings["seeds"]
        ]
        sets = {
            name: {
                "n": first["n"],
                "chance": first["chance"],
                **{
                    metric: mean_and_sd([e[name][metric] for e in evaluations])
                    for metric in METRICS
                },
            }
            for name, first in evaluations[0].items()
        }
        rows.append(
            {
                "name": row["name"],
                "group": settings["groups"][row["group"]],
                "paper": row.get("paper"),
                "sets": sets,
            }
        )
    return rows


def markdown(rows, seeds):
    """What `collect` returns, a table for each set and one of the paper's."""
    over = (
        f"mean ± sd over {len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    )
    parts = []
    for name, first in rows[0]["sets"].items():
        cells = [
            tuple(_cell(row["sets"][name][metric]) for metric in METRICS)
            for row in rows
        ]
        parts += [
            f"### {name}: n = {first['n']}, chance {first['chance']:.3f}, "
            f"{over}",
            _table(rows, cells),
        ]
    of_paper = [row for row in rows if row["paper"]]
    if of_paper:
        cells = [
            tuple(f"{row['paper'][metric]:.3f}" for metric in METRICS)
            for row in of_paper
        ]
        parts += ["### The paper's, on IEMOCAP", _table(of_paper, cells)]
    return "\n\n".join(parts) + "\n"


def _cell(over_seeds):
    """Such as "0.812 ± 0.010"; a single seed has no deviation."""
    if over_seeds["sd"] is None:
        return f"{over_seeds['mean']:.3f}"
    return f"{over_seeds['mean']:.3f} ± {over_seeds['sd']:.3f}"


def _table(rows, cells):
    """A Markdown table, the groups one below the other."""
    lines, group = [("row", *METRICS)], None
    for row, numbers in zip(rows, cells, strict=True):
        if row["group"] != group:
            group = row["group"]
            lines.append((f"*{group}*", *("" for _ in METRICS)))
        lines.append((row["name"], *numbers))
    return markdown_table(lines)


def table_csv(rows, seeds):
    """What `collect` returns as CSV: a line per row, set, metric and seed."""
    text = io.StringIO()
    cells = (
        (row["group"], row["name"], name, metric, seed, value)
        for row in rows
        for name, metrics in row["sets"].items()
        for metric in METRICS
        for seed, value in zip(seeds, metrics[metric]["values"], strict=True)
    )
    write_csv(
        text, ("group", "row", "set", "metric", "seed", "value"), cells, "\n"
    )
    return text.getvalue()


@exits_on_input_error(resumes=True)
def main():
    """Run the ablation."""
    hparams_file, run_opts, overrides = read_command_line(sys.argv[1:])
    # Plain values: what YAML's parser made of them keeps its comments.
    settings = json.loads(json.dumps(read_settings(hparams_file, overrides)))
    check_rows(settings)
    # What runs side by side shares the cores.
    threads = max(1, (os.cpu_count() or 1) // settings["jobs"])
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    ablation = Ablation(settings, run_opts.get("device"))
    ablation.prepare()
    ablation.run()
    rows, seeds = collect(ablation), settings["seeds"]
    table = markdown(rows, seeds)
    for name, text in (
        ("table.md", table),
        ("table.csv", table_csv(rows, seeds)),
        ("metrics.json", json.dumps({"seeds": seeds, "rows": rows}, indent=2)),
    ):
        write_text(ablation.folder / name, text)
    plot_ablation(rows, ablation.folder / "ablation")
    print(f"\n{table}")


if __name__ == "__main__":
    main()
