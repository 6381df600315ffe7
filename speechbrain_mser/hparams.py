"""Hyperparameter files and flags, with the user's mistakes explained."""

import io
from contextlib import contextmanager
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from speechbrain_mser.errors import InputError

INCLUDE = "!include:"


def load_hparams(path, overrides):
    """Load a HyperPyYAML file: build everything that it describes.

    Arguments
    ---------
    path : str or path-like
        The file.
    overrides : dict
        As `place_overrides` returns.

    Returns
    -------
    dict
        The objects by name.

    Raises
    ------
    InputError
        A setting that must be given is not.
    """
    with _explained(path), open(path, encoding="utf-8") as file:
        return load_hyperpyyaml(file, overrides, False)


def read_settings(path, overrides):
    """The plain values of a HyperPyYAML file, without building anything.

    What can be wrong with the data is known before an LLM is loaded.

    Arguments
    ---------
    path : str or path-like
        The file.
    overrides : dict
        As `place_overrides` returns.

    Returns
    -------
    dict
        Values by name, nested as in the file; objects are left as YAML nodes.

    Raises
    ------
    InputError
        A setting that must be given is not.
    """
    with _explained(path), open(path, encoding="utf-8") as file:
        return YAML().load(resolve_references(file, overrides))


def load_object(path, overrides, section, name):
    """Build one object of an included file, and nothing else.

    Arguments
    ---------
    path : str or path-like
        The HyperPyYAML file.
    overrides : dict
        As `place_overrides` returns.
    section : str
        Under which name the file is included.
    name : str
        The object's name in it.

    Returns
    -------
    object
        What the YAML describes; another training's LLM is not loaded for it.
    """
    resolved = read_settings(path, overrides)[section][name]
    text = io.StringIO()
    YAML().dump({name: resolved}, text)
    return load_hyperpyyaml(text.getvalue())[name]


def place_overrides(path, overrides):
    """Nest each override into the section whose included file has it.

    Files are made of included ones, and HyperPyYAML's overrides stop at the
    main file's own keys; with this a flag finds its setting in whichever
    included file has it (``--n_queries 8``).

    Arguments
    ---------
    path : str or path-like
        The HyperPyYAML file.
    overrides : str or dict
        Settings by name, as `speechbrain.parse_arguments` returns them.

    Returns
    -------
    dict
        The same, nested where their settings are.

    Raises
    ------
    InputError
        No such file, a setting that no file has, or flags that are no YAML.

    Example
    -------
    >>> place_overrides("no/such.yaml", "")
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: no/such.yaml: no such file
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    if isinstance(overrides, str):
        try:
            overrides = YAML(typ="safe").load(overrides) or {}
        except YAMLError as error:
            problem = getattr(error, "problem", error)
            raise InputError(f"the flags are not valid: {problem}") from None
    tree = YAML().load(Path(path))
    included = {
        section: YAML().load(file)
        for section, file in included_files(path).items()
    }
    placed = {}
    for name, value in overrides.items():
        sections = [key for key, keys in included.items() if name in keys]
        if name in tree:
            placed[name] = value
        elif sections:
            for section in sections:
                placed.setdefault(section, {})[name] = value
        else:
            known = {
                *tree,
                *(key for keys in included.values() for key in keys),
            }
            raise InputError(
                f"{path}: no setting {name!r}; settings are "
                f"{', '.join(sorted(k for k in known if k[:2] != '__'))}"
            )
    return placed


def included_files(path):
    """The files that a HyperPyYAML file includes.

    Arguments
    ---------
    path : str or path-like
        The file.

    Returns
    -------
    dict
        Section to the included file's path.
    """
    # As HyperPyYAML does: beside the file itself, not beside a link to it.
    folder = Path(path).resolve().parent
    files = {}
    for section, node in YAML().load(Path(path)).items():
        tag = getattr(getattr(node, "tag", None), "value", None) or ""
        if tag.startswith(INCLUDE):
            files[section] = folder / tag.removeprefix(INCLUDE)
    return files


@contextmanager
def _explained(path):
    """Turn HyperPyYAML's complaints about what is given into advice."""
    try:
        yield
    except ValueError as error:
        if "structure of the overrides" in str(error):
            raise InputError(
                f"{path}: a setting that is a mapping there is none in the "
                "flags, or the other way round"
            ) from None
        if "!PLACEHOLDER" not in str(error):
            raise
        name = str(error).split("'")[1]
        raise InputError(
            f"{path}: {name} must be given: --{name} ..."
        ) from None
