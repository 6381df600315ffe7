"""A training's output folder: the settings it was begun with."""

from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from speechbrain.utils.distributed import main_process_only
from speechbrain.utils.logger import get_logger

from speechbrain_mser.hparams import record_settings

SETTINGS = "hyperparams.yaml"

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
