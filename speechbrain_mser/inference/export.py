"""The folder that training leaves: written, whole or not at all.

`inference.folder` finds it again and builds the recogniser of it.
"""

import copy
import io
import os
import shutil
from pathlib import Path

from hyperpyyaml import resolve_references
from ruamel.yaml import YAML

from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation import calibration
from speechbrain_mser.files.atomic import PARTIAL, atomic_path, write_text
from speechbrain_mser.inference.folder import (
    BESIDE,
    NEXT,
    SETTINGS_FILE,
    WEIGHTS,
    hex_digest,
    interrupted,
    read_settings,
)
from speechbrain_mser.inference.old_folders import SHAPE, describes_ours
from speechbrain_mser.inference.settings import (
    FOUND,
    SETTINGS,
    check_settings,
    settings_text,
)
from speechbrain_mser.lobes.hub import resolve_dtype
from speechbrain_mser.settings.experiment_files import tag_of
from speechbrain_mser.settings.hparams import explained
from speechbrain_mser.training.record import FILE, write_record


def plain_settings(model, tree, where):
    """The settings of a training's model, before anything is trained.

    Arguments
    ---------
    model : dict
        As the model's YAML was loaded.
    tree : dict
        That YAML, as `section_tree` returns it.
    where : str or path-like
        Where it is from, for the message.

    Returns
    -------
    dict or None
        As `check_settings` returns them; None where the YAML describes other
        objects than ours, which plain settings cannot name.

    Raises
    ------
    InputError
        A value that no recogniser could be loaded with.
    """
    if not describes_ours(tree, model) or model["encoder_class"] is not None:
        with explained(where):
            resolve_references(
                _hyperpyyaml_text(tree, model, model["connector"])
            )
        return None
    settings = {
        name: _from_anywhere(name, model[name])
        for name in SETTINGS | FOUND
        if name in model
    }
    settings |= {
        SHAPE[name]: value
        for name, value in model["connector"].initialised().items()
        if name in SHAPE
    }
    return check_settings(settings, where)


def _from_anywhere(name, value):
    """A value that means the same in another folder, on another machine."""
    if name == "frozen_dtype":
        # The connector's statistics are those of this dtype's features.
        return resolve_dtype(value)
    if name.endswith("_hub") and value and Path(value).exists():
        # Links keep their names: the connector knows its models by them.
        return str(Path(value).absolute())
    return list(value) if isinstance(value, tuple) else value


def export_recognizer(folder, tree, model, connector, llm=None, record=None):
    """Write the folder that `EmotionRecognizer.from_hparams` loads.

    A kill at any moment leaves the recogniser that was there, or the new one.
    The settings say which weights they go with, and replacing them is what
    makes an export count: until then the new weights have a name of their
    own, under which they are found where a kill came before the renaming.

    Arguments
    ---------
    folder : str or path-like
        Where to; a recogniser that is there is replaced.
    tree : dict
        The YAML that says what the experiment's model is made of, as
        `section_tree` returns it.
    model : dict
        What it was loaded to.
    connector : Connector
        The trained connector.
    llm : EmotionLLaMA, optional
        Given when adapters were trained with it.
    record : dict, optional
        What the training was made of, see `speechbrain_mser.training.record`.
    """
    folder = Path(folder)
    settings = plain_settings(model, tree, folder)
    _make_room(folder)
    parts = {"connector": connector}
    if llm is not None:
        parts["llama"] = llm
    for part, module in parts.items():
        path = folder / f"{NEXT}{part}.safetensors"
        module.save(path)
        if settings is not None:
            settings[f"{part}_digest"] = hex_digest(path)
    if settings is None:
        text = _hyperpyyaml_text(tree, model, connector)
    else:
        text = settings_text(settings)
    if record is not None:
        noted = {
            **record,
            "frozen_models": connector.frozen_models,
            "connector": {
                "parameters": sum(p.numel() for p in connector.parameters())
            },
        }
        write_record(folder / f"{NEXT}{FILE}", noted)
    # A calibration was fitted with the connector before; a card is a user's.
    _take_place(folder, text, [calibration.FILE, FILE])


def replace_recognizer(folder, target):
    """Put a finished folder's recogniser in place of another, or of none.

    As `export_recognizer`, and with all that goes with the weights: a kill at
    any moment leaves what was there, or the new.

    Arguments
    ---------
    folder, target : str or path-like
        Of recognisers with plain settings; all of `FILES` is replaced.
    """
    folder, target = Path(folder), Path(target)
    _make_room(target)
    # The connector last: where it is, so is the rest.
    for name in (*BESIDE, *reversed(WEIGHTS)):
        if (folder / name).is_file():
            with atomic_path(target / f"{NEXT}{name}") as partial:
                shutil.copyfile(folder / name, partial)
    text = (folder / SETTINGS_FILE).read_text(encoding="utf-8")
    _take_place(target, text, BESIDE)


def _take_place(folder, settings, names):
    """Have settings count, and rename the files that they go with."""
    write_text(folder / SETTINGS_FILE, settings)
    # The connector last, as `interrupted` expects.
    for name in (*names, *reversed(WEIGHTS)):
        following = folder / f"{NEXT}{name}"
        if following.is_file():
            os.replace(following, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


def export_in_half(source, target, connector, **changed):
    """Write a recogniser's folder again, its connector in half precision.

    What was fitted to the connector, a calibration, does not go with it.

    Arguments
    ---------
    source : str or path-like
        The recogniser's folder, of plain settings.
    target : str or path-like
        Another folder; made when missing.
    connector : Connector
        As it was loaded from there.
    **changed : dict
        Settings that are others there.
    """
    target = Path(target)
    settings = {**read_settings(Path(source) / SETTINGS_FILE), **changed}
    path = target / "connector.safetensors"
    connector.save(path, half=True)
    settings["connector_digest"] = hex_digest(path)
    write_text(target / SETTINGS_FILE, settings_text(settings))


def _make_room(folder):
    """Make a folder, or clear up in it after an export that was killed."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"{PARTIAL}*"):
        path.unlink(missing_ok=True)
    for name in (*BESIDE, *reversed(WEIGHTS)):
        following = folder / f"{NEXT}{name}"
        if not following.is_file():
            continue
        if _counts(folder, following):
            os.replace(following, folder / name)
        else:
            following.unlink()


def _counts(folder, following):
    """Whether a file that is to be renamed goes with the settings there."""
    if following.suffix != ".safetensors":
        return interrupted(folder)
    try:
        settings = read_settings(folder / SETTINGS_FILE)
    except InputError:
        return False
    part = following.stem.removeprefix(NEXT)
    return hex_digest(following) == settings[f"{part}_digest"]


def _hyperpyyaml_text(tree, model, connector):
    """The experiment's own YAML, with its values in it.

    For lobes of one's own, which plain settings cannot name; it is loaded
    with ``trusted=True``.
    """
    yaml = YAML()
    yaml.width = 1000  # one setting, one line
    tree = copy.deepcopy(tree)
    for name, value in model.items():
        plain = isinstance(value, (str, int, float, list, type(None)))
        if plain or name == "emotion_words":
            tree[name] = _from_anywhere(name, value)
    # HyperPyYAML would look for references in a text that is referred to.
    _write_out(tree, {k: v for k, v in tree.items() if _looks_like_one(v)})
    # A training's own modules stay with it.
    for name in tree["modules"].keys() - {"encoder", "connector", "llm"}:
        del tree["modules"][name]
    # All of the connector's parameters are in its file: nothing is taken
    # from BERT again, only its shape has to be said.
    arguments = connector.initialised()
    if arguments.keys() & tree["connector"].keys():
        tree["connector"].update(arguments)
    text = io.StringIO()
    yaml.dump(tree, text)
    return text.getvalue()


def _looks_like_one(value):
    return isinstance(value, str) and "<" in value


def _write_out(node, texts):
    """Put texts where they are referred to."""
    places = node.items() if isinstance(node, dict) else enumerate(node)
    for place, part in list(places):
        if isinstance(part, (dict, list)):
            _write_out(part, texts)
        elif tag_of(part) == "!ref":
            node[place] = texts.get(part.value[1:-1], part)
