"""From a command line to settings: text stays text.

SpeechBrain makes one YAML text of all flags, in which ``--output_folder "run
#2"`` is ``run``, ``2026-11-28`` a date and ``a=b`` two words. Here a setting
that is a name, a path or a sentence takes the flag's text as it stands, and
only numbers, switches and mappings are read as YAML.
"""

import os

import speechbrain
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from speechbrain.utils.run_opts import HELP_TEXTS

from speechbrain_mser.devices import with_device
from speechbrain_mser.errors import InputError
from speechbrain_mser.settings.experiment_files import nearest
from speechbrain_mser.settings.hparams import find_settings, place_overrides
from speechbrain_mser.settings.project_files import find_hparams_file
from speechbrain_mser.spelling import find_spelling

# A setting is a place or a model's source by the end of its name,
PLACES = ("_folder", "_folders", "_root")
SOURCES = ("_hub", "_python", "_models", "_tokenizers")
# or by its name. Where its default is a text it is one anyway.
NAMED_SOURCES = ("recognizer", "pretrained", "published", "manifest", "table")
NAMES = ("corpus", "corpora", "name", "language", "emotions", "split", "note")
# Texts of which several may be given: [a, b]
SEVERAL = ("recognizer", "labels", "corpora", "emotions")
# As YAML writes them
SWITCH = {word: True for word in ("true", "True", "TRUE")}
SWITCH |= {word: False for word in ("false", "False", "FALSE")}
# SpeechBrain's own options, and those of them that take several words.
SEVERAL_WORDS = ("jit_module_keys", "compile_module_keys")
RUN_OPTIONS = {*HELP_TEXTS, *SEVERAL_WORDS}


def read_command_line(arguments):
    """What a script is asked to do.

    Arguments
    ---------
    arguments : list of str
        A HyperPyYAML file (`find_hparams_file`), then ``--setting value`` or ``--setting=value``,
        and SpeechBrain's own options (``--device cuda:1``).

    Returns
    -------
    hparams_file : str
        The file.
    run_opts : speechbrain.utils.run_opts.RunOptions
        SpeechBrain's.
    overrides : dict
        As `place_overrides` returns: texts as they were given, the rest as
        YAML reads it; with those of SpeechBrain's options that the file has.

    Raises
    ------
    InputError
        No such file or setting, a flag without a value, or a value of
        another kind than the setting's.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.yaml"
    >>> _ = path.write_text("output_folder: results\\nlr: 0.1\\n")
    >>> flags = ["--output_folder", "run #2", "--lr=1e-4", "--device", "cpu"]
    >>> _, run_opts, overrides = read_command_line([str(path), *flags])
    >>> run_opts["device"], overrides
    ('cpu', {'output_folder': 'run #2', 'lr': 0.0001})
    """
    for_speechbrain, flags = _split(arguments)
    hparams_file, run_opts, _ = speechbrain.parse_arguments(for_speechbrain)
    hparams_file = find_hparams_file(hparams_file)
    defaults = find_settings(hparams_file)
    values = {}
    for name, text in flags.items():
        if name not in defaults:
            raise InputError(
                f"{hparams_file}: no setting {name!r}"
                f"{nearest(name, [*defaults, *RUN_OPTIONS])}"
            )
        values[name] = read_value(name, text, defaults[name])
    # Some of SpeechBrain's own are settings too (precision).
    values |= {
        name: run_opts[name]
        for name in run_opts.overridden_args
        if name in defaults
    }
    overrides = place_overrides(hparams_file, values)
    return hparams_file, with_device(run_opts), overrides


def read_value(name, text, default):
    """A flag's value, of the kind that its setting is.

    Arguments
    ---------
    name : str
        The setting's.
    text : str
        What was given.
    default : object
        Its value in the file, as ruamel.yaml reads it.

    Returns
    -------
    object
        The text itself, or what YAML makes of it.

    Raises
    ------
    InputError
        A switch that is neither True nor False, a number that is none, a
        place without a name, or brackets that do not close.

    Example
    -------
    >>> read_value("output_folder", "2026-11-28", "results")
    '2026-11-28'
    >>> read_value("label_words", "[yes, no]", ["happy", "sad"])
    ['yes', 'no']
    >>> read_value("skip_prep", "no", False)
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: skip_prep is 'no', expected True ...
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} is {text!r}, which is not UTF-8") from None
    place = name.endswith(PLACES)
    if not text.strip() and (place or name.endswith(SOURCES)):
        raise InputError(f"{name} is empty: a folder or a name is expected")
    # A folder may be called null, but a model or a split that is null is none.
    if text == "null" and (not place or default is None):
        return None
    # A switch is one, whatever it is called.
    if isinstance(default, bool):
        if text.strip() not in SWITCH:
            raise InputError(f"{name} is {text!r}, expected True or False")
        return SWITCH[text.strip()]
    if _holds_texts(name, default):
        return _read_texts(name, text, default)
    value = _read_yaml(name, text)
    numeric = isinstance(default, (int, float)) and name != "encoder_layers"
    if numeric and not isinstance(value, (int, float, list, type(None))):
        raise InputError(f"{name} is {text!r}, expected a number")
    return value


def _split(arguments):
    """SpeechBrain's arguments, and the other flags: name to text."""
    for_speechbrain, flags, name = [], {}, None
    for argument in arguments:
        if argument.startswith("--") or (argument == "-h" and not flags):
            _check_complete(name, flags)
            name, sign, text = argument.removeprefix("--").partition("=")
            if argument in ("-h", "--help") or name in RUN_OPTIONS:
                for_speechbrain.append(argument)
                name = None
            elif name in flags:
                raise InputError(f"--{name} is given twice")
            else:
                flags[name] = text if sign else None
        elif name is None:
            for_speechbrain.append(argument)
        else:
            # A list's words, if the shell was not kept from parting them
            before = flags[name]
            flags[name] = argument if before is None else f"{before} {argument}"
    _check_complete(name, flags)
    return for_speechbrain, flags


def _check_complete(name, flags):
    if name is not None and flags[name] is None:
        raise InputError(
            f"--{name} has no value; one that begins with -- is written "
            f"--{name}=--..., and null is none"
        )


def _holds_texts(name, default):
    """Whether a setting is a text, or a collection of nothing else."""
    if isinstance(default, (list, dict)) and default:
        items = default.values() if isinstance(default, dict) else default
        return all(isinstance(item, str) for item in items)
    return isinstance(default, str) or _is_text(name)


def _is_text(name):
    endings = (*PLACES, *SOURCES, "_speakers")
    return name.endswith(endings) or name in (*NAMED_SOURCES, *NAMES)


def _read_texts(name, text, default):
    """A text as it stands, or the texts of a list or of a mapping."""
    if isinstance(default, dict):
        value = _read_yaml(name, text, texts=True)
        if not isinstance(value, dict):
            raise InputError(f"{name} is {text!r}, expected {{...: ...}}")
        return value
    if isinstance(default, list) and text.lstrip()[:1] == "{":
        raise InputError(f"{name} is {text!r}: a list is expected, no mapping")
    several = isinstance(default, list) or name in SEVERAL
    # What is there is meant: a folder may be called [final].
    if several and text.lstrip()[:1] == "[" and not os.path.exists(text):
        return _read_yaml(name, text, texts=True)
    return _expand(name, text)


def _read_yaml(name, text, texts=False):
    """What YAML makes of a text; in it, what is a text as it was written."""
    try:
        value = YAML(typ="safe", pure=True).load(text)
        # The same unread: 007 and 1e5 are names too.
        words = YAML(typ="base", pure=True).load(text)
        return _restore(name, value, words, texts)
    except (YAMLError, ValueError, RecursionError) as error:
        problem = getattr(error, "problem", None) or error
        raise InputError(
            f"{name} is {text!r}, which is no YAML: {problem}"
        ) from None


def _restore(name, value, words, texts):
    """A value of YAML in which texts are the words that were written."""
    texts = texts or _is_text(name)
    if isinstance(value, dict):
        pairs = zip((words or {}).items(), value.values(), strict=True)
        inherits = name.endswith(PLACES)
        return {
            key: part and _restore(name if inherits else key, part, own, texts)
            for (key, own), part in pairs
        }
    if isinstance(value, list):
        pairs = zip(value, words or [], strict=True)
        return [_restore(name, part, own, texts) for part, own in pairs]
    return _expand(name, words) if texts else value


def _expand(name, text):
    """A path with the user's home for ~, which no shell saw after a =, and in
    the disk's spelling."""
    place = name.endswith((*PLACES, *SOURCES)) or name in NAMED_SOURCES
    if not place:
        return text
    if text == "~" or text.startswith("~/"):
        text = os.path.expanduser(text)
    # Path() would take more from it than its accents
    return text if text.isascii() else str(find_spelling(text))
