"""Whether a training goes on in a folder: as what it was, or not at all."""

import json
import math
from pathlib import Path

from speechbrain.utils.distributed import main_process_only
from speechbrain.utils.logger import get_logger

from speechbrain_mser.distributed import world_size
from speechbrain_mser.emotions import candidate_labels, check_emotion_words
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.files.fingerprints import sha256
from speechbrain_mser.lobes.word_meanings import refuse_adapters
from speechbrain_mser.training.checkpoints import AtomicCheckpointer
from speechbrain_mser.training.output_folder import read_settings_of

logger = get_logger(__name__)

# In a training's folder: what it was begun on.
DATA = "data.json"
# What is learnt does not depend on these. Of the data, the utterances count
# and not where they lie; of frozen models, what the checkpoint notes of them.
FREE = {
    "activation_checkpointing",
    "ckpt_interval_steps",
    "corpora",
    "corpus_folders",
    "corpus_options",
    "data_root",
    "feature_dtype",
    "feature_folder",
    "features",
    "frozen_models",
    "languages",
    "log_interval_steps",
    "manifest_folder",
    "num_workers",
    "on_bad_utterance",
    "output_folder",
    "pretrained_folder",
    "skip_prep",
    "terminate_within",
    "train_split",
    "valid_split",
}

# What a training was without settings that its version did not have yet.
WITHOUT = {
    "trim_silence": None,
    "speech_level": None,
    "microphone_shift": 0.0,
    "align_speakers": False,
    "rest_exchange": 0.0,
    "start_at_words": False,
    "alike_in_length": True,
    "token_mixture": False,
    "hear_meaning": False,
    "meaning_frames": ["The speaker feels"],
    "emotion_means": False,
    "microphones": [],
    "word_weight": 0.0,
    "epochs_before_llm": 0,
}
# Objects that decide it too.
OBJECTS = ("contrastive_loss", "brain_class", "opt_class")
# And those of the model, whose arguments may be an experiment's own; these are
# settings that are free, or are compared as such.
LOBES = ("encoder", "connector", "llm")
ARGUMENTS = {"source", "save_path", "bert_source", "meaning_frames", *FREE}
# Between an object and its argument.
ARGUMENT = ": "
# What the project called what it has now.
BEFORE = {
    "!new:speechbrain_mser.lobes.whisper.WhisperEncoder": (
        "!apply:speechbrain_mser.lobes.build_encoder"
    )
}


def check_settings(settings):
    """Refuse settings with which nothing would be trained, or another model.

    Arguments
    ---------
    settings : dict
        Of stage1.yaml or stage2.yaml, as `read_settings` returns them.

    Raises
    ------
    InputError
        A count below one, a shift below zero, microphones that are no list of
        objects, adapters where meaning is
        heard, words for labels that there are not, or an output folder whose
        training was one with other settings.
    """
    model, training = settings["model"], settings["training"]
    for name in ("batch_size", "number_of_epochs"):
        value = training[name]
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is {value!r}, expected 1 or more")
    for name, unit in (
        ("microphone_shift", "standard deviations"),
        ("rest_exchange", "how much of it"),
    ):
        value = training.get(name, 0.0)
        if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise InputError(f"{name} is {value!r}, expected {unit}: 0 or more")
    microphones = training.get("microphones", [])
    if not isinstance(microphones, list) or not all(map(_tag, microphones)):
        raise InputError(
            f"microphones is {microphones!r}, expected a list of objects "
            "(!new:speechbrain_mser.dataio.microphones.Noise {low: 10, high: 30})"
        )
    if model.get("hear_meaning"):
        refuse_adapters(model["lora_rank"])
    labels = candidate_labels(model["label_words"])
    check_emotion_words(model["emotion_words"] or {}, labels, whole=True)
    folder = Path(settings["output_folder"])
    if any(folder.glob("save/CKPT*")):
        before = read_settings_of(folder)
        if before is not None:
            refuse_other_settings(folder, before, settings)


def is_finished(settings, data):
    """Whether there is nothing left to train, which is said.

    Arguments
    ---------
    settings : dict
        As `read_settings` returns them.
    data : dict
        As `describe_data` returns.

    Returns
    -------
    bool
        Whether all epochs are done.

    Raises
    ------
    InputError
        The output folder's training was on other data.
    """
    folder = settings["output_folder"]
    refuse_other_data(folder, data)
    done = finished_epochs(folder)
    if done < settings["training"]["number_of_epochs"]:
        return False
    logger.warning(
        "%s is already trained, for %s epochs; to train anew give another "
        "output_folder, to go on a higher number_of_epochs",
        folder,
        done,
    )
    return True


def refuse_other_settings(folder, before, now):
    """Refuse to go on with settings that decide what is learnt.

    Arguments
    ---------
    folder : str or path-like
        The training's.
    before : dict
        The settings that it was begun with, as `read_settings` returns them.
    now : dict
        Those of this run. ``number_of_epochs`` may have changed; what it does
        to the learning rate is logged.

    Raises
    ------
    InputError
        Some are others.

    Example
    -------
    >>> refuse_other_settings("out", {"lr": 0.1}, {"lr": 0.2})
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: out holds a training with lr 0.1, ...
    """
    before, now = WITHOUT | _flat(before), _flat(now)
    epochs = [each.pop("number_of_epochs", None) for each in (before, now)]
    # What else the training's version did not have cannot differ.
    names = [
        name for name in now if name in before and before[name] != now[name]
    ]
    if names:
        # An object's arguments are settings, as a rule.
        settings = [name for name in names if ARGUMENT not in name]
        changed = [
            f"{name} {before[name]!r}, here it is {now[name]!r}"
            for name in settings or names
        ]
        raise InputError(
            f"{folder} holds a training with {'; '.join(changed)}: give "
            "another output_folder, or the same settings to go on with it"
        )
    if epochs[0] != epochs[1]:
        logger.warning(
            "number_of_epochs was %s and is %s: the learning rate goes on as "
            "if it had been so from the start, its warm-up and cool-down are "
            "parts of all epochs together",
            *epochs,
        )


def _flat(settings):
    """The values that decide what is learnt, by name."""
    flat = _flat_objects(settings)
    for name, value in settings.items():
        if name in ("model", "training"):
            flat |= _flat(value)
        elif name == "emotion_words":
            flat[name] = dict(value or {})
        elif name == "microphones":
            flat[name] = [_described(one, {}) for one in value]
        elif name == "meaning_frames" and not settings["hear_meaning"]:
            continue  # nobody asks
        elif not (
            isinstance(value, dict)  # an object
            or _tag(value)  # one without arguments
            or name in flat
            or name in FREE
            or name.startswith("__")
            or name.endswith("_hub")
        ):
            flat[name] = value
    if flat.get("pretrained"):
        flat["pretrained"] = str(Path(flat["pretrained"]).absolute())
    return flat


def _flat_objects(settings):
    """The objects that decide it, by name."""
    flat = {
        name: _described(settings[name], settings)
        for name in OBJECTS
        if name in settings
    }
    lobes = {name: settings[name] for name in LOBES if name in settings}
    # Each lobe is a module, and is no other one.
    further = {
        f"modules.{name}": module
        for name, module in (settings.get("modules") or {}).items()
        if not any(module is lobe for lobe in lobes.values())
    }
    for name, node in {**lobes, **further}.items():
        flat |= _flat_object(name, node)
    return flat


def _flat_object(name, node):
    """What an object of the model is, and each of its arguments."""
    tag = _tag(node)
    flat = {name: BEFORE.get(tag, tag)}
    for key, value in node.items() if isinstance(node, dict) else ():
        if key == "emotion_words":
            flat[f"{name}{ARGUMENT}{key}"] = dict(value or {})
        elif key not in ARGUMENTS:
            flat[f"{name}{ARGUMENT}{key}"] = _plain(value)
    return flat


def _plain(node):
    """A value, or an object in words; of another object what is taken of it."""
    tag = _tag(node) or ""
    if isinstance(node, dict):
        inner = {key: _plain(part) for key, part in node.items()}
    elif isinstance(node, list):
        # What another one has: !apply:getattr [it, name]
        parts = node[1:] if tag.endswith(":getattr") else node
        inner = [*map(_plain, parts)]
    else:
        inner = getattr(node, "value", node)
    return f"{tag} {inner}" if tag.startswith("!") else inner


def _described(node, settings):
    """An object in words; of its arguments those that no setting says."""
    arguments = node if isinstance(node, dict) else {}
    own = {
        key: value
        for key, value in arguments.items()
        if key not in settings or settings[key] != value
    }
    return f"{_tag(node)}{own or ''}"


def _tag(node):
    """What YAML calls an object, such as ``!new:torch.nn.Linear``."""
    return getattr(getattr(node, "tag", None), "value", None)


def refuse_other_data(folder, data):
    """Refuse to go on with other utterances.

    Arguments
    ---------
    folder : str or path-like
        The training's.
    data : dict
        As `describe_data` returns.

    Raises
    ------
    InputError
        Utterances, their order, emotions, languages or durations are others
        than those that a checkpoint in the folder was trained on.
    """
    note = Path(folder, DATA)
    if not (any(Path(folder).glob("save/CKPT*")) and note.is_file()):
        return
    try:
        before = json.loads(note.read_text(encoding="utf-8"))
        before = {name: before[name] for name in data}
    except (ValueError, KeyError, TypeError):
        logger.warning(
            "%s cannot be read: whether the data are those that the training "
            "was begun on is not known",
            note,
        )
        return
    for name in ("train", "valid"):
        if before[name] != data[name]:
            counts = [each[name]["utterances"] for each in (before, data)]
            raise InputError(
                f"{folder} holds a training on other data: its {name} set had "
                f"{counts[0]} utterances, here are {counts[1]}, or their "
                "emotions, languages or durations have changed; give another "
                f"output_folder, or delete {note} to go on with these"
            )
    if before["processes"] != data["processes"]:
        logger.warning(
            "%s processes train where %s have begun: a step's batch is that "
            "of all of them",
            data["processes"],
            before["processes"],
        )


@main_process_only
def write_data(folder, data):
    """Note on what a training is begun.

    Arguments
    ---------
    folder : str or path-like
        The training's.
    data : dict
        As `describe_data` returns.
    """
    write_text(Path(folder, DATA), json.dumps(data, indent=2))


def describe_data(train, valid, speakers=False):
    """What a training is begun on.

    Arguments
    ---------
    train : pandas.DataFrame
        The utterances.
    valid : pandas.DataFrame or None
        Those of validation.
    speakers : bool
        Whether it matters who they are (``align_speakers``).

    Returns
    -------
    dict
        How many utterances, a digest of what a training sees of them, and
        the number of processes.

    Example
    -------
    >>> import pandas
    >>> row = {"ID": "a", "emotion": "sad", "language": "eng", "corpus": "c"}
    >>> one = pandas.DataFrame([{**row, "duration": 1.0, "speaker": "x"}])
    >>> other = one.assign(speaker="y")
    >>> describe_data(one, None) == describe_data(other, None)
    True
    >>> describe_data(one, None, True) == describe_data(other, None, True)
    False
    """
    columns = ["ID", "emotion", "language", "corpus", "duration"]
    columns += ["speaker"] * speakers
    sets = {
        "train": _describe(train, columns),
        "valid": _describe(valid, columns),
    }
    return {**sets, "processes": world_size()}


def _describe(table, columns):
    if table is None:
        return {"utterances": 0}
    text = table[columns].to_csv(index=False)
    return {"utterances": len(table), "digest": sha256(text.encode())}


def finished_epochs(folder):
    """How many epochs a training has done.

    Arguments
    ---------
    folder : str or path-like
        The training's.

    Returns
    -------
    int
        By its checkpoints; 0 if there are none.
    """
    save = Path(folder, "save")
    if not any(save.glob("CKPT*")):
        return 0
    checkpoints = AtomicCheckpointer(save).list_checkpoints()
    return max([ckpt.meta.get("epoch", 0) for ckpt in checkpoints], default=0)
