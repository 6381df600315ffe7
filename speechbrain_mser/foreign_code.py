"""Hyperparameters from strangers: which of them may be loaded."""

import io

import yaml
from hyperpyyaml import resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from speechbrain_mser.errors import InputError

# What a recogniser's hyperparameters may build. HyperPyYAML can call anything
# that Python can import, so a file from a stranger is code; the files that
# training writes need no more than this. Whole names: with a prefix alone,
# "speechbrain_mser.atomic.os.system" would be a part of this package.
_ALLOWED_TAGS = {
    "!ref",
    "!new:speechbrain_mser.lobes.whisper.WhisperEncoder",
    "!new:speechbrain_mser.lobes.llama.EmotionLLaMA",
    "!apply:speechbrain_mser.lobes.build_connector",
    "!new:speechbrain_mser.checkpoints.SafetensorsPretrainer",
}
# What HyperPyYAML makes of "!ref <whisper.hidden_size>".
_RESOLVED_TAGS = _ALLOWED_TAGS | {"!apply:getattr"}


def refuse_foreign_code(text, overrides=None):
    """Refuse hyperparameters that call anything but this package's lobes.

    The parsers that will load the file are asked for its tags: first
    ruamel.yaml for the file as written, since resolving it can include other
    files and call functions, then PyYAML for what comes of that.

    Arguments
    ---------
    text : str
        A recogniser's hyperparameters.
    overrides : dict, optional
        What they are loaded with.

    Raises
    ------
    InputError
        They are no valid YAML, or name other code.

    Example
    -------
    >>> refuse_foreign_code("a: 1")
    >>> refuse_foreign_code("a: !apply:os.getcwd []")
    Traceback (most recent call last):
    ...
    InputError: the hyperparameters use !apply:os.getcwd, which can run ...
    """
    try:
        _check_events(YAML(pure=True).parse(io.StringIO(text)), _ALLOWED_TAGS)
        if not isinstance(YAML(pure=True).load(text), dict):
            raise InputError("the hyperparameters are not a YAML mapping")
        resolved = resolve_references(text, overrides, False)
        resolved = getattr(resolved, "getvalue", lambda: resolved)()
        _check_events(yaml.parse(resolved), _RESOLVED_TAGS)
    except (YAMLError, yaml.YAMLError) as error:
        problem = getattr(error, "problem", None) or error
        raise InputError(
            f"the hyperparameters are not valid YAML: {problem}"
        ) from None


def _check_events(events, allowed):
    """Refuse the first node of a YAML file that may run foreign code."""
    for event in events:
        tag = getattr(event, "tag", None)
        value = getattr(event, "value", None) or ""
        # HyperPyYAML reads a plain "(...)" as a tuple, with a loader that
        # obeys every tag inside.
        if (
            tag is None
            and not getattr(event, "style", None)
            and value[:1] == "("
        ):
            tag = value
        if tag is not None and str(tag) not in allowed:
            raise InputError(
                f"the hyperparameters use {tag}, which can run code from "
                "outside this package; read the file, and pass trusted=True "
                "if you wrote it"
            )
