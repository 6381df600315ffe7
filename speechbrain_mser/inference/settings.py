"""The plain settings of a trained recogniser, and what each may be.

A recogniser's folder may come from a stranger. Its ``hyperparams.yaml`` is
therefore data: names, numbers and words, which a plain YAML loader reads and
this schema checks. Nothing in it can name code.
"""

import io
import os
import re
import stat
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
)

from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.connector import LAYER_JOINS, ON_MISMATCH
from speechbrain_mser.lobes.encoder import LONGEST_WINDOW
from speechbrain_mser.lobes.hub import DTYPES
from speechbrain_mser.lobes.word_meanings import refuse_adapters

# Ours take one or two kilobytes.
MOST_BYTES = 64 * 1024
MOST_VALUES = 5000
# A mapping, an object in it, its arguments, their values
MOST_LEVELS = 4
# Stands for the default of a setting that has none.
REQUIRED = object()


class Setting(NamedTuple):
    """What a setting may be.

    Arguments
    ---------
    expected : str
        In words.
    fits : callable
        Whether a value is that.
    default : object
        What it was before the setting was introduced, for older folders.
    """

    expected: str
    fits: Callable[[Any], bool]
    default: Any = REQUIRED


def _text(most, default=REQUIRED):
    return Setting(
        f"text of at most {most} characters",
        lambda value: isinstance(value, str) and len(value) <= most,
        default,
    )


def _one_of(words, default=REQUIRED):
    return Setting(" or ".join(words), lambda value: value in words, default)


def _yes_or_no(default=REQUIRED):
    return Setting(
        "true or false", lambda value: isinstance(value, bool), default
    )


def _is_whole(value, least, most):
    return (
        isinstance(value, int)
        and not isinstance(value, bool)
        and least <= value <= most
    )


def _whole(least, most, default=REQUIRED):
    return Setting(
        f"a whole number from {least} to {most}",
        lambda value: _is_whole(value, least, most),
        default,
    )


def _or_null(setting):
    return Setting(
        f"{setting.expected}, or null",
        lambda value: value is None or setting.fits(value),
        setting.default,
    )


def _number(least, most, default=REQUIRED):
    return Setting(
        f"a number from {least} to {most}",
        lambda value: (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and least <= value <= most  # nor NaN
        ),
        default,
    )


def _are_layers(value):
    if value == "all":
        return True
    numbers = value if isinstance(value, list) else [value]
    return 0 < len(numbers) <= 1000 and all(
        _is_whole(number, -1000, 1000) for number in numbers
    )


def _are_labels(value):
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or len(words) > 1000:
        return False
    if not all(isinstance(word, str) and len(word) <= 200 for word in words):
        return False
    candidate_labels(value)  # says itself what is wrong with them
    return True


def _are_words(value):
    return (
        isinstance(value, list)
        and len(value) <= 2000
        and all(isinstance(word, str) and len(word) <= 200 for word in value)
    )


def _are_said(value):
    return isinstance(value, dict) and _are_words([*value, *value.values()])


# The sizes are far above any model's, and low enough for a stranger's numbers
# to end with a message.
SETTINGS = {
    "whisper_hub": _text(1000),
    "llama_hub": _text(1000),
    "frozen_dtype": _one_of(DTYPES),
    "load_in_4bit": _yes_or_no(),
    "lora_rank": _whole(0, 4096),
    "activation_checkpointing": _yes_or_no(default=False),
    "encoder_layers": Setting(
        'a layer\'s number, a list of them, or "all"', _are_layers
    ),
    "encoder_window": _whole(1, LONGEST_WINDOW, default=30),
    "layer_join": _one_of(LAYER_JOINS, default="mix"),
    "mean_over_time": _yes_or_no(default=False),
    "trim_silence": _or_null(_number(1, 100, default=None)),
    "speech_level": _or_null(_number(-100, 0, default=None)),
    "pad_to_30s": _yes_or_no(),
    "prompt": _text(20_000),
    "prompt_before": _text(20_000, default=""),
    "chat_template": _yes_or_no(default=False),
    "token_mixture": _yes_or_no(default=False),
    "hear_meaning": _yes_or_no(default=False),
    "meaning_frames": Setting(
        "a list of 1 to 100 different texts",
        lambda value: (
            _are_words(value)
            and all(value)
            and 0 < len(value) == len(set(value)) <= 100
        ),
        ["The speaker feels"],
    ),
    "label_words": Setting("a list of words, or a set's name", _are_labels),
    "emotion_words": Setting(
        "a mapping of labels to the words that are said for them",
        _are_said,
        {},
    ),
    "connector_type": _one_of(("qformer", "linear")),
    "n_queries": _whole(1, 65_536),
    "query_dim": _whole(1, 65_536),
    # Where the Q-Former's layers came from; nothing is taken from there again.
    "bert_hub": _or_null(_text(1000)),
    "qformer_layers": _or_null(_whole(1, 1000)),
    "qformer_hidden": _or_null(_whole(1, 65_536)),
    "qformer_heads": _or_null(_whole(1, 4096)),
    "qformer_ffn": _or_null(_whole(1, 1_000_000)),
    "cross_attention_every": _whole(1, 1000),
    "dropout": _number(0, 1),
    "standardize": _yes_or_no(),
}
# Settings of the user and the machine, which no folder can make: where the
# frozen models' files from the hub are kept, and what becomes of other models
# than the connector was trained with.
OWN = {
    "pretrained_folder": _text(4000, default="pretrained_models"),
    "frozen_models": _one_of(ON_MISMATCH, default="strict"),
}
# What training found out.
FOUND = {
    # Of the label words, those that no utterance had.
    "untrained_words": Setting("a list of words", _are_words, []),
    "trained_corpora": Setting("a list of names", _are_words, []),
}
# Digests of the files beside; older folders have none.
_DIGEST = _or_null(
    Setting(
        "32 hexadecimal digits",
        lambda value: (
            isinstance(value, str)
            and re.fullmatch("[0-9a-f]{32}", value) is not None
        ),
        None,
    )
)
DIGESTS = {"connector_digest": _DIGEST, "llama_digest": _DIGEST}


def check_settings(settings, where):
    """Refuse what is no setting, or none of its values.

    Arguments
    ---------
    settings : dict
        Name to value.
    where : str
        Where they come from, for the message.

    Returns
    -------
    dict
        The same, with what older folders do not have.

    Raises
    ------
    InputError
        An unknown or missing setting, a value that does not fit, or adapters
        where meaning is heard.

    Example
    -------
    >>> check_settings({"device": "cuda"}, "hyperparams.yaml")
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: hyperparams.yaml: no setting 'device' ...
    """
    checked = _check(settings, SETTINGS | FOUND | DIGESTS, where)
    if checked["hear_meaning"]:
        with _located(where):
            refuse_adapters(checked["lora_rank"])
    return checked


@contextmanager
def _located(where):
    """Have an error's message begin with where the settings come from."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _check(settings, known, where):
    for name in settings:
        if name not in known:
            raise _unknown(name, where)
    checked = {}
    for name, setting in known.items():
        value = settings.get(name, setting.default)
        if value is REQUIRED:
            raise InputError(
                f"{where}: {name} is missing, expected {setting.expected}"
            )
        with _located(f"{where}: {name}"):
            fits = setting.fits(value)
        if not fits:
            raise InputError(
                f"{where}: {name} is {_shown(value)}, expected "
                f"{setting.expected}"
            )
        checked[name] = _plain(value)
    return checked


def override_settings(settings, overrides):
    """Put the user's settings in place of a folder's.

    Arguments
    ---------
    settings : dict
        As `check_settings` returns them.
    overrides : dict or str, optional
        Name to value, or YAML that says so.

    Returns
    -------
    settings : dict
        Checked.
    own : dict
        Those of `OWN`.

    Raises
    ------
    InputError
        An override is no setting, or none of its values.

    Example
    -------
    >>> override_settings({}, {"frozen_models": "warn", "x": 1})
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: overrides: no setting 'x'; ...
    """
    if isinstance(overrides, str):
        try:
            overrides = YAML(typ="safe", pure=True).load(overrides)
        except (YAMLError, ValueError) as error:
            raise _invalid(error, "overrides") from None
    if not isinstance(overrides or {}, dict):
        raise InputError(
            f"overrides is {_shown(overrides)}, expected settings by name"
        )
    changed = {
        name: str(value) if isinstance(value, os.PathLike) else value
        for name, value in (overrides or {}).items()
    }
    for name in changed:
        if name not in SETTINGS | OWN:
            raise _unknown(name, "overrides")
    own = {name: changed.pop(name) for name in OWN if name in changed}
    return (
        check_settings({**settings, **changed}, "overrides"),
        _check(own, OWN, "overrides"),
    )


def read_text(path):
    """The text of a settings file, if it is a small one.

    Arguments
    ---------
    path : str or path-like
        The file.

    Returns
    -------
    str
        Read once: what is checked is what is used.

    Raises
    ------
    InputError
        No such file, no regular one, above 64 KiB, or no UTF-8.
    """
    try:
        # A pipe would wait for its writer; Windows would end lines anew.
        flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        number = os.open(path, os.O_RDONLY | flags)
        try:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise InputError(f"{path} is not a regular file")
            data = b""
            while len(data) <= MOST_BYTES and (block := os.read(number, 8192)):
                data += block
        finally:
            os.close(number)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise InputError(
            f"{path} is larger than {MOST_BYTES // 1024} KiB; a recogniser's "
            "settings are a page of names, numbers and words"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason})") from None


def has_tags(text, where):
    """Whether a YAML text is more than plain values: HyperPyYAML's tags.

    Goes through the text without building anything of it.

    Arguments
    ---------
    text : str
        As `read_text` returns it.
    where : str
        The file, for the message.

    Returns
    -------
    bool
        Some node has a tag of its own.

    Raises
    ------
    InputError
        No valid YAML, one with aliases, or deeper than any settings are.
    """
    levels, tags = 0, False
    try:
        events = YAML(typ="safe", pure=True).parse(io.StringIO(text))
        for number, event in enumerate(events):
            if number > MOST_VALUES:
                raise InputError(f"{where}: more than {MOST_VALUES} values")
            if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
                raise InputError(
                    f"{where}: anchors and aliases (& and *) are not allowed"
                )
            if isinstance(event, CollectionStartEvent):
                levels += 1
                if levels > MOST_LEVELS:
                    raise InputError(
                        f"{where} is nested deeper than {MOST_LEVELS} levels"
                    )
            if isinstance(event, CollectionEndEvent):
                levels -= 1
            tags |= getattr(event, "tag", None) is not None
    except YAMLError as error:
        raise _invalid(error, where) from None
    return tags


def parse_settings(text, where):
    """The settings that a plain YAML text holds, checked.

    Arguments
    ---------
    text : str
        Without tags, as `has_tags` says.
    where : str
        The file, for the message.

    Returns
    -------
    dict
        Name to value, all of `SETTINGS`, `FOUND` and `DIGESTS`.

    Raises
    ------
    InputError
        It is not a mapping of settings to their values.
    """
    try:
        settings = YAML(typ="safe", pure=True).load(text)
    # A date or a number may look like one and be none.
    except (YAMLError, ValueError) as error:
        raise _invalid(error, where) from None
    if not isinstance(settings, dict):
        raise InputError(
            f"{where}: the hyperparameters are not a mapping of settings to "
            "values"
        )
    return check_settings(settings, where)


def settings_text(settings):
    """Settings as the YAML text that `parse_settings` reads.

    Arguments
    ---------
    settings : dict
        As `check_settings` returns them.

    Returns
    -------
    str
        One setting after the other.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 1000
    # Escaped, some line breaks and blanks are lost otherwise.
    yaml.allow_unicode = False
    text = io.StringIO()
    text.write("# A trained recogniser: EmotionRecognizer.from_hparams reads\n")
    text.write("# these plain values, and the files beside them.\n")
    yaml.dump(
        {
            name: value
            for name, value in settings.items()
            if value is not None or name not in DIGESTS
        },
        text,
    )
    return text.getvalue()


def _plain(value):
    """Python's own types: some parsers' numbers remember how they looked."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {_plain(name): _plain(part) for name, part in value.items()}
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _unknown(name, where):
    return InputError(
        f"{where}: no setting {_shown(name)}; a recogniser's are "
        f"{', '.join(SETTINGS)}"
    )


def _invalid(error, where):
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    return InputError(f"{where}: the hyperparameters are no YAML: {problem}")


def _shown(value):
    """A value for a message, cut where a stranger made it long."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # a number of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:80]} ..."
