"""A training's output folder: what it was begun with."""

import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import torch
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from speechbrain.utils.distributed import main_process_only
from speechbrain.utils.logger import get_logger

from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.settings.hparams import record_settings

SETTINGS = "hyperparams.yaml"
ENVIRONMENT = "env.log"

logger = get_logger(__name__)


@main_process_only
def write_settings(folder, hparams_file, overrides):
    """Write ``hyperparams.yaml``, whole or not at all.

    Arguments
    ---------
    folder : str or path-like
        The output folder.
    hparams_file : str or path-like
        The experiment.
    overrides : dict
        What was given on the command line.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "a.yaml").write_text("model:\\n  width: 1\\n")
    >>> write_settings(folder, folder / "a.yaml", {"model": {"width": 2}})
    >>> read_settings_of(folder)["model"]["width"]
    2
    """
    record_settings(Path(folder, SETTINGS), hparams_file, overrides)


@main_process_only
def write_environment(folder):
    """Write ``env.log``: Python, packages, revision and CUDA.

    SpeechBrain's asks the first ``pip`` of the path, which is another
    Python's where an environment is used without being activated.

    Arguments
    ---------
    folder : str or path-like
        The output folder.

    Example
    -------
    >>> write_environment(getfixture("tmp_path"))
    >>> text = (getfixture("tmp_path") / "env.log").read_text()
    >>> f"torch=={torch.__version__.partition('+')[0]}" in text
    True
    """
    # Read once each: `name` and `version` read it anew.
    packages = {
        f"{each['Name']}=={each['Version']}"
        for each in (package.metadata for package in distributions())
    }
    parts = {
        "Python": sys.version,
        "Packages": "\n".join(sorted(packages, key=str.lower)),
        "Revision": _revision(),
        "CUDA": str(torch.version.cuda or torch.version.hip),
    }
    text = "\n\n".join(f"{name}:\n{said}" for name, said in parts.items())
    write_text(Path(folder, ENVIRONMENT), text + "\n")


def _revision():
    """The commit of this code, where it is a checkout and git is there."""
    try:
        said = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parent,
        ).stdout.strip()
    except OSError:
        said = ""
    return said or "not known"


def read_settings_of(folder):
    """The settings that a training was begun with.

    Arguments
    ---------
    folder : str or path-like
        The output folder.

    Returns
    -------
    dict or None
        Settings to values, "model" and "training" among them; None, with a
        warning, if they cannot be read.
    """
    path = Path(folder, SETTINGS)
    try:
        settings = YAML().load(path)
    except (FileNotFoundError, YAMLError, ValueError, RecursionError) as error:
        reason = str(error).strip().partition("\n")[0]
    else:
        if isinstance(settings, dict) and all(
            isinstance(value, dict)
            for name, value in settings.items()
            if name in ("model", "training")
        ):
            return settings
        reason = "it does not hold settings"
    logger.warning(
        "%s cannot be read (%s): whether the settings are those that the "
        "training was begun with is not known",
        path,
        reason,
    )
    return None
