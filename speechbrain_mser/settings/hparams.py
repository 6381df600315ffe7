"""Hyperparameter files and flags, with the user's mistakes explained.

HyperPyYAML looks into texts: ``<...>`` is a reference, what looks like a sum is
computed, ``(...)`` is a tuple. What a user gives is none of that, so it is kept
out of its sight: a placeholder stands for each text until all is resolved.
"""

import io
import json
import re
import secrets
from contextlib import contextmanager
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML, Loader
from ruamel.yaml.scalarstring import (
    DoubleQuotedScalarString,
    LiteralScalarString,
)

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.settings.experiment_files import (
    all_settings,
    find_own_code,
    open_hparams,
    put_lines,
    read_files,
    sections_of,
    tag_of,
)

# Begins what stands for a text: a word, so that it is neither a number nor part
# of a sum, and one that nobody has written.
_TEXT = f"text_{secrets.token_hex(8)}_"


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
    texts = []
    hidden = _hide(overrides, texts)
    find_own_code(path)
    with explained(path), open_hparams(path) as file:
        return load_hyperpyyaml(file, hidden, False, _loader(texts))


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
    texts = []
    return _show(_resolve(path, overrides, texts), texts)


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
    texts = []
    find_own_code(path)
    resolved = _resolve(path, overrides, texts)[section][name]
    text = io.StringIO()
    YAML().dump({name: resolved}, text)
    return load_hyperpyyaml(text.getvalue(), loader=_loader(texts))[name]


def record_settings(record, path, overrides):
    """Write what a HyperPyYAML file and flags come to, references resolved.

    Arguments
    ---------
    record : str or path-like
        The file to write. Loaded again, it says the same, the user's texts
        included.
    path : str or path-like
        The HyperPyYAML file.
    overrides : dict
        As `place_overrides` returns.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "a.yaml").write_text("a: x\\nb: !ref <a>/y\\n")
    >>> record_settings(folder / "b.yaml", folder / "a.yaml", {"a": "1 #2"})
    >>> read_settings(folder / "b.yaml", {})["b"]
    '1 #2/y'
    """
    texts = []
    tree = _show(_resolve(path, overrides, texts), texts, _quoted)
    text = io.StringIO()
    YAML().dump(tree, text)
    source = json.dumps(str(Path(path).absolute()))
    head = f"# From {source}\n# yamllint disable\n"
    write_text(record, head + text.getvalue())


def place_overrides(path, overrides):
    """Nest each override into the section whose included file has it.

    Files are made of included ones, and HyperPyYAML's overrides stop at the
    main file's own keys; with this a flag finds its setting in whichever
    included file has it (``--n_queries 8``).

    Arguments
    ---------
    path : str or path-like
        The HyperPyYAML file.
    overrides : dict
        Settings by name.

    Returns
    -------
    dict
        The same, nested where their settings are.

    Raises
    ------
    InputError
        No such file, or a setting that no file has.

    Example
    -------
    >>> place_overrides("no/such.yaml", {})
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: no/such.yaml: no such file
    """
    tree, included = read_files(path)
    placed = {}
    for name, value in overrides.items():
        sections = sections_of(name, path, tree, included)
        if not sections:
            placed[name] = value
        for section in sections:
            placed.setdefault(section, {})[name] = value
    return placed


def find_settings(path):
    """All settings of a HyperPyYAML file and of those that it includes.

    Arguments
    ---------
    path : str or path-like
        The file.

    Returns
    -------
    dict
        Name to its value as it is written; an included file's own, and for a
        section all that it includes.

    Raises
    ------
    InputError
        No such file.
    """
    return all_settings(*read_files(path))


def section_tree(path, section, overrides, settings):
    """What an included file comes to in an experiment.

    Arguments
    ---------
    path : str or path-like
        The experiment's file.
    section : str
        Under which name the file is included.
    overrides : dict
        As `place_overrides` returns.
    settings : dict
        As `read_settings` returns of these two.

    Returns
    -------
    ruamel.yaml.CommentedMap
        The included file's tree, with the lines of the experiment's file, and
        those of the files that it goes on from, in place of its own; what
        those refer to in the experiment's file is in its place.
    """
    tree, included = read_files(path)
    plain = {
        name: value
        for name, value in settings.items()
        if isinstance(value, (str, int, float, list, type(None)))
    }
    part = included[section]
    for lines in (tree[section], overrides.get(section)):
        put_lines(part, _with_values(lines, plain))
    return part


def _with_values(node, values):
    """The same with plain values where a reference is to one of these."""
    if isinstance(node, dict):
        for key, part in node.items():
            node[key] = _with_values(part, values)
    elif isinstance(node, list):
        for place, part in enumerate(node):
            node[place] = _with_values(part, values)
    elif tag_of(node) == "!ref":
        names = re.findall(r"<([^<>]*)>", node.value)
        if all(name in values for name in names):
            # Computed, where that is a sum
            texts, text = [], io.StringIO()
            own = _hide({name: values[name] for name in names}, texts)
            YAML().dump({**own, "computed from these": node}, text)
            resolved = YAML().load(resolve_references(text.getvalue()))
            return _show(resolved["computed from these"], texts)
    return node


@contextmanager
def explained(path):
    """Turn HyperPyYAML's complaints about what is given into advice.

    Arguments
    ---------
    path : str or path-like
        The file that it reads, for the messages.

    Raises
    ------
    InputError
        In place of its own errors about the file; others pass.
    """
    try:
        yield
    except ValueError as error:
        if "structure of the overrides" in str(error):
            raise InputError(
                f"{path}: a setting that is a mapping there is none in the "
                "flags, or the other way round"
            ) from None
        if match := re.fullmatch(
            r'The reference "(.*)" is not valid', str(error)
        ):
            raise InputError(
                f"{path}: !ref <{match[1]}> names nothing in the same file, or "
                "in what it includes there"
            ) from None
        if "!PLACEHOLDER" not in str(error):
            raise
        name = str(error).split("'")[1]
        raise InputError(f"{path}: {name} must be given") from None
    except ImportError as error:
        # HyperPyYAML's own, not one of a module that was found
        if not re.match(r"There is no such \w+ as ", str(error)):
            raise
        raise InputError(
            f"{path}: {error}, among what Python finds (beside the file, on "
            "PYTHONPATH, installed)"
        ) from None


def _resolve(path, overrides, texts):
    """A file's tree, references resolved; texts of the overrides hidden."""
    hidden = _hide(overrides, texts)
    with explained(path), open_hparams(path) as file:
        return YAML().load(resolve_references(file, hidden))


def _hide(value, texts):
    """The same with a placeholder for each text, which goes to the list."""
    if isinstance(value, dict):
        return {key: _hide(part, texts) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hide(part, texts) for part in value]
    if isinstance(value, str):
        texts.append(value)
        return f"{_TEXT}{len(texts) - 1}_"
    return value


def _show(value, texts, style=str):
    """Put the texts back, everywhere in a tree."""
    if isinstance(value, dict):
        for key, part in value.items():
            value[key] = _show(part, texts, style)
    elif isinstance(value, list):
        for place, part in enumerate(value):
            value[place] = _show(part, texts, style)
    elif isinstance(value, str):
        shown, count = re.subn(
            rf"{_TEXT}(\d+)_", lambda m: texts[int(m[1])], value
        )
        return style(shown) if count else value
    return value


def _quoted(text):
    """A text that every YAML loader takes for one."""
    # HyperPyYAML forgets quotes, and would see a tuple.
    literal = text.startswith("(") and text.endswith(")") and "\n" not in text
    return (LiteralScalarString if literal else DoubleQuotedScalarString)(text)


def _loader(texts):
    """A loader that puts the texts back where objects are built."""

    class TextLoader(Loader):
        def construct_scalar(self, node):
            return _show(super().construct_scalar(node), texts)

    return TextLoader
