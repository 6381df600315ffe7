"""Where the project's own files lie: in a checkout, or in what pip installed.

A wheel carries the folders ``hparams``, ``recipes`` and ``manifests`` inside
the package; in a checkout they lie beside it.
"""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
PROJECT = (
    PACKAGE.parent
    if (PACKAGE.parent / "hparams" / "model.yaml").is_file()
    else PACKAGE
)
HPARAMS = PROJECT / "hparams"
RECIPE = PROJECT / "recipes" / "M5SER"
MANIFESTS = PROJECT / "manifests"


def find_hparams_file(path):
    """A file of settings: as it is named, or else the project's own.

    Arguments
    ---------
    path : str
        Any file, or one of the project's: ``hparams/stage1.yaml``.

    Returns
    -------
    str
        Where it is; the path itself if there is no such file.

    Example
    -------
    >>> find_hparams_file("hparams/stage1.yaml").endswith("stage1.yaml")
    True
    >>> find_hparams_file("mine.yaml")
    'mine.yaml'
    """
    own = PROJECT / path
    if not Path(path).is_file() and own.is_relative_to(HPARAMS):
        return str(own) if own.is_file() else path
    return path
