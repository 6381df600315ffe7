"""The files of an experiment: one, what it includes, and what it goes on from.

A file of one's own need not copy ours: ``extends: hparams/stage1.yaml`` and the
lines that differ, each of which stands in place of the line of that name, in
whichever of the files it is.
"""

import pickle
import re
import sys
from contextlib import contextmanager
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from ruamel.yaml import YAML, Tag
from ruamel.yaml.error import YAMLError

from speechbrain_mser.errors import InputError
from speechbrain_mser.settings.project_files import find_hparams_file

INCLUDE = "!include:"
# In the text of a reference.
_NAME = re.compile(r"<(\w+)")
EXTENDS = "extends"


def read_yaml(path):
    """The settings of a YAML file as a round trip reads them; one's own.

    Arguments
    ---------
    path : str or path-like
        The file.

    Returns
    -------
    ruamel.yaml.CommentedMap
        Its tree, to be changed.

    Raises
    ------
    InputError
        No such file, or it holds no settings.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.yaml"
    >>> _ = path.write_text("lr: 0.1\\nlr: 0.2\\n")
    >>> read_yaml(path)
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: a.yaml: no YAML: line 2: ...
    """
    text = _text(path)
    try:
        tree = pickle.loads(_parse(text))
    # A date may look like one and be none.
    except (YAMLError, ValueError) as error:
        problem = getattr(error, "problem", None) or str(error)
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = problem.partition("\n")[0]
        raise InputError(f"{path}: no YAML: {line}{problem}") from None
    if not isinstance(tree, dict):
        raise InputError(f'{path}: settings are expected, as in "lr: 0.1"')
    return tree


# ruamel.yaml takes longest of all that is read for a training, which asks for
# our files ten times. Pickled in memory: a deep copy loses merged keys.
@lru_cache(maxsize=64)
def _parse(text):
    return pickle.dumps(YAML().load(text))


def _text(path):
    """What a file says now."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        return Path(path).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no text in UTF-8: {error}") from None


def read_files(path):
    """A file's tree, and by section those of the files that it includes."""
    own = read_yaml(path)
    base = _extended_file(path, own)
    if base is None:
        files = included_files(path)
        return own, {name: read_yaml(file) for name, file in files.items()}
    tree, included = read_files(base)
    for name, value in own.items():
        if name == EXTENDS:
            continue
        sections = sections_of(name, path, tree, included)
        for section in sections:
            _put(included[section], name, value)
            # Where the file gives it to what it includes.
            if isinstance(tree[section], dict):
                tree[section].pop(name, None)
        if not sections:
            _put(tree, name, value)
    return tree, included


def put_lines(tree, lines):
    """Take lines for those of their names.

    Arguments
    ---------
    tree : dict
        Is changed.
    lines : dict or other
        What has lines; what is no mapping has none.
    """
    for name, value in lines.items() if isinstance(lines, dict) else ():
        _put(tree, name, value)


def _put(tree, name, value):
    """Take a line for the one of its name; plain mappings become one."""
    there = tree.get(name)
    if (
        isinstance(there, dict)
        and isinstance(value, dict)
        and not tag_of(value)
    ):
        put_lines(there, value)
    else:
        tree[name] = value


def _extended_file(path, tree):
    """The file that another goes on from; beside it, or the project's own."""
    if EXTENDS not in tree:
        return None
    beside = Path(path).resolve().parent / tree[EXTENDS]
    return beside if beside.is_file() else find_hparams_file(tree[EXTENDS])


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
    tree = read_yaml(path)
    base = _extended_file(path, tree)
    if base is not None:
        return included_files(base)
    # As HyperPyYAML does: beside the file itself, not beside a link to it.
    folder = Path(path).resolve().parent
    return {
        section: folder / tag_of(node).removeprefix(INCLUDE)
        for section, node in tree.items()
        if tag_of(node).startswith(INCLUDE)
    }


def without_effect(path, overrides):
    """What is given, and was taken by objects alone that others stand in for.

    Arguments
    ---------
    path : str or path-like
        The experiment's file.
    overrides : dict
        As `place_overrides` returns.

    Returns
    -------
    list of str
        Settings of the file's own lines and of the overrides to which nothing
        refers, but to which the project's file does.
    """
    tree, included = read_files(path)
    before = [read_yaml(file) for file in included_files(path).values()]
    # The file's own lines stand in for those of what it includes.
    for section, part in included.items():
        put_lines(part, tree[section])
    lost = _references(before) - _references([tree, *included.values()])
    given = {*read_yaml(path), *overrides}
    for section in included:
        given.update(overrides.get(section, {}))
    return sorted(given & lost)


def _references(node):
    """The names that ``!ref <name.attribute>`` is about, anywhere in a tree."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list):
        return set().union(*map(_references, node))
    return {*_NAME.findall(node.value)} if tag_of(node) == "!ref" else set()


def tag_of(node):
    """A node's own tag, such as ``!new:torch.nn.Linear``; "" if it has none.

    Arguments
    ---------
    node : object
        As a round trip reads it.

    Returns
    -------
    str
        The tag.
    """
    return getattr(getattr(node, "tag", None), "value", None) or ""


@contextmanager
def open_hparams(path):
    """A file for HyperPyYAML, which knows no ``extends``.

    It would also take an object's arguments for others' where one object is
    given in place of another: the one before is taken out.
    """
    tree, included = read_files(path)
    replaced = [
        (section, name)
        for section in included
        if isinstance(tree[section], dict)
        for name, value in tree[section].items()
        if isinstance(value, dict) and tag_of(value)
    ]
    if not replaced and _extended_file(path, read_yaml(path)) is None:
        with open(path, encoding="utf-8") as file:
            yield file
        return
    for section, name in replaced:
        included[section].pop(name, None)
    with TemporaryDirectory() as folder:
        for section, part in included.items():
            YAML().dump(part, Path(folder, f"{section}.yaml"))
            tag = Tag(suffix=f"{INCLUDE}{section}.yaml")
            tree[section].yaml_set_ctag(tag)
        whole = Path(folder, "__whole__.yaml")
        YAML().dump(tree, whole)
        with open(whole, encoding="utf-8") as file:
            yield file


def find_own_code(path):
    """Let a file name classes of a module that lies beside it."""
    folder = str(Path(path).resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)


def sections_of(name, path, tree, included):
    """The included files that have a setting; none if it is the main file's.

    Raises
    ------
    InputError
        No file has it.
    """
    if name in tree:
        return []
    sections = [key for key, keys in included.items() if name in keys]
    if not sections:
        known = all_settings(tree, included)
        raise InputError(f"{path}: no setting {name!r}{nearest(name, known)}")
    return sections


def all_settings(tree, included):
    own = {**tree, **included}
    theirs = {k: v for part in included.values() for k, v in part.items()}
    return {
        name: value
        for name, value in {**theirs, **own}.items()
        if not name.startswith("__")
    }


def nearest(name, known):
    """A hint for a mistyped name.

    Arguments
    ---------
    name : str
        What was given.
    known : iterable of str
        What there is.

    Returns
    -------
    str
        To be put behind a message; says where to look when nothing is near.

    Example
    -------
    >>> nearest("batchsize", ["batch_size", "lr"])
    '; did you mean batch_size?'
    >>> nearest("x", ["batch_size"])
    '; the file, and those that it includes, hold all that there are'
    """
    found = get_close_matches(name, sorted(set(known)), n=3, cutoff=0.6)
    if found:
        return f"; did you mean {' or '.join(found)}?"
    return "; the file, and those that it includes, hold all that there are"
