"""An experiment as a list of commands, each run once."""

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from recipe import RECIPE

from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.metrics import metrics_table
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.settings.project_files import HPARAMS

# In a training's folder: what it depends on.
NOTE = "begun_with.json"


class Steps:
    """Runs the recipe's scripts in order, and not what is done already.

    A step is done when it ended well with the very same command; a changed
    command runs it again, and with it all later ones.

    Arguments
    ---------
    folder : str or path-like
        Where the experiment lives; markers go into ``<folder>/steps``.
    """

    def __init__(self, folder):
        self.markers = Path(folder) / "steps"
        self.rerun = False

    def run(self, name, script, *flags):
        """Run a script of this recipe, unless that was done before.

        Arguments
        ---------
        name : str
            The step's, for messages and its marker.
        script : str
            A file of the recipe or of its experiments.
        *flags : str
            Its command line.

        Raises
        ------
        SystemExit
            With the script's exit code, if that is not 0.
        """
        command = [script, *map(str, flags)]
        marker = self.markers / f"{name}.json"
        if not self.rerun and marker.is_file():
            done = json.loads(marker.read_text(encoding="utf-8"))
            if done["command"] == command:
                print(f"[{name}] done before, in {done['seconds']:.0f} s")
                return
        self.rerun = True
        marker.unlink(missing_ok=True)
        print(f"[{name}] python {shlex.join(command)}", flush=True)
        start = time.time()
        own = RECIPE / "experiments" / script
        path = own if own.is_file() else RECIPE / script
        code = subprocess.call([sys.executable, path, *command[1:]])
        if code != 0:
            print(f"[{name}] ended with exit code {code}", file=sys.stderr)
            sys.exit(code)
        seconds = time.time() - start
        done = json.dumps({"command": command, "seconds": seconds})
        write_text(marker, done)
        print(f"[{name}] took {seconds:.0f} s", flush=True)


def begin_with(folder, identity):
    """Empty a training's folder if it was begun with other settings.

    Its checkpoints would be taken for those of the new training; with the
    same settings they are what an interrupted one goes on from. The steps of
    training and evaluation belong into the same folder, `Steps(folder)`: else
    they are taken for done when what they left is gone.

    Arguments
    ---------
    folder : str or path-like
        The training's.
    identity : dict
        All that it depends on: its settings, and if it starts from another
        training, that one's identity.

    Raises
    ------
    InputError
        There is something in the folder that no such training left.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "stage1"
    >>> begin_with(folder, {"lr": 0.1})
    >>> (folder / "checkpoint").touch()
    >>> begin_with(folder, {"lr": 0.1})
    >>> (folder / "checkpoint").exists()
    True
    >>> begin_with(folder, {"lr": 0.2})
    >>> (folder / "checkpoint").exists()
    False
    """
    note = Path(folder) / NOTE
    wanted = json.dumps(identity, indent=2, sort_keys=True)
    if note.is_file():
        if note.read_text(encoding="utf-8") == wanted:
            return
        # Of no training: if this ends half-way, it is emptied again.
        write_text(note, "")
        for path in note.parent.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != note:
                path.unlink()
    elif note.parent.is_dir() and any(note.parent.iterdir()):
        raise InputError(
            f"{folder} is not empty and has no {NOTE}, so it is not known "
            "what it was trained with: give the experiment another folder, or "
            "delete this one"
        )
    write_text(note, wanted)


def as_flags(settings):
    """A dict of settings as command line flags.

    Arguments
    ---------
    settings : dict
        Setting to value; lists and dicts become YAML.

    Returns
    -------
    list of str
        ``["--lr", "0.1", ...]``.

    Example
    -------
    >>> as_flags({"lr": 0.1, "languages": ["eng"]})
    ['--lr', '0.1', '--languages', '["eng"]']
    """
    flags = []
    for name, value in settings.items():
        text = value if isinstance(value, str) else json.dumps(value)
        flags += [f"--{name}", text]
    return flags


def train_stages(folder, stages, shared):
    """Train stage after stage, the second from the first, each once.

    Each has its own settings and those shared, and in the folder one of its
    name. Returns the stages' `Steps`, for their evaluation to go on with.
    """
    steps, identity, pretrained = {}, None, None
    for stage, settings in stages.items():
        output = folder / stage
        flags = {**shared, "pretrained": pretrained, **settings}
        identity = {"stage": stage, "flags": flags, "after": identity}
        begin_with(output, identity)
        steps[stage] = Steps(output)
        yaml = HPARAMS / f"{stage}.yaml"
        flags = as_flags({**flags, "output_folder": str(output)})
        steps[stage].run(stage, "train.py", yaml, *flags)
        pretrained = f"{output}/recognizer"
    return steps


def evaluate_stages(folder, steps, shared):
    """Evaluate what `train_stages` trained, with the same settings."""
    for stage, own in steps.items():
        flags = {
            "recognizer": f"{folder}/{stage}/recognizer",
            "output_folder": f"{folder}/{stage}/evaluation",
            **shared,
        }
        yaml = HPARAMS / "evaluate.yaml"
        own.run(f"evaluate_{stage}", "evaluate.py", yaml, *as_flags(flags))


def summarize(folder, zero_shot):
    """One table and one metrics.json over all stages' evaluations.

    Arguments
    ---------
    folder : pathlib.Path
        Holds ``<stage>/evaluation/metrics.json``; receives both.
    zero_shot : dict
        Stage, in the table's order, to the sets of whose corpus or language
        its training (and that of the stage before) saw nothing.
    """
    results, rows, means = {}, {}, []
    for stage, unseen in zero_shot.items():
        path = folder / stage / "evaluation" / "metrics.json"
        groups = {"seen": [], "zero-shot": []}
        for name, metrics in json.loads(path.read_text()).items():
            kind = "zero-shot" if name in unseen else "seen"
            results[f"{stage}/{name}"] = metrics
            languages = " ".join(metrics["languages"])
            rows[stage, name, languages, kind] = metrics
            groups[kind].append(metrics["UA"])
        means += [
            f"{stage}: mean UA of {len(uas)} {kind} sets "
            f"{sum(uas) / len(uas):.3f}"
            for kind, uas in groups.items()
            if uas
        ]
    table = metrics_table(rows, ("stage", "set", "language", "corpus"))
    table = "\n".join([table, "", *means])
    for name, text in (
        ("metrics.json", json.dumps(results, indent=2)),
        ("table.md", table),
    ):
        write_text(folder / name, text + "\n")
    return table
