"""Frozen models are data: no code comes with them, and no pickle.

transformers can run a model repository's own Python (``auto_map``), fetch a
kernel that its configuration names, and unpickle its weights. Nothing of that
is wanted here, and nobody is asked at a prompt either.
"""

from contextlib import contextmanager

from safetensors import SafetensorError
from transformers import AutoConfig

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.tables import read_json
from speechbrain_mser.models.registry import how_to_mend

# Attention that transformers computes itself; others may be hub kernels.
_IMPLEMENTATIONS = (None, "eager", "sdpa")


class DataOnly:
    """Mixed into SpeechBrain's lobes: vocabularies without code of theirs."""

    def load_tokenizer(self, source, *args, **kwargs):
        """As the parent does, and never with code of the source's own."""
        with explained(source):
            super().load_tokenizer(
                source, *args, trust_remote_code=False, **kwargs
            )

    def load_feature_extractor(self, source, *args, **kwargs):
        """As the parent does, and never with code of the source's own."""
        with explained(source):
            super().load_feature_extractor(
                source, *args, trust_remote_code=False, **kwargs
            )


def refuse_code(folder, what):
    """Refuse a model that would bring code, a kernel or a pickle.

    Arguments
    ---------
    folder : pathlib.Path
        With a ``config.json``.
    what : str
        Which model, for the message.

    Raises
    ------
    InputError
        transformers does not know the model, or its files name code, a
        kernel or a pickle.
    """
    for path in folder.iterdir():
        # A pipe would wait for its writer.
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InputError(f"{what}: {path} is no regular file")
    config = read_json(folder / "config.json")
    for name, value in _implementations(config):
        if value not in _IMPLEMENTATIONS:
            raise InputError(
                f"{what}: its config.json asks for {name} {value!r}, code "
                "that is not transformers' own; remove the line"
            )
    if config.get("transformers_weights") is not None:
        raise InputError(
            f"{what}: its config.json names other weights "
            f"({config['transformers_weights']!r}) than model.safetensors"
        )
    with explained(folder, what):
        AutoConfig.from_pretrained(folder, trust_remote_code=False)


def _implementations(config):
    """Names and values of what a configuration asks for, nested or not."""
    for name, value in config.items():
        if "_implementation" in name:
            values = value.values() if isinstance(value, dict) else [value]
            yield from ((name, one) for one in values)
        elif isinstance(value, dict):
            yield from _implementations(value)


@contextmanager
def explained(source, what="the model"):
    """Whatever transformers makes of a stranger's files is an `InputError`.

    Its readers raise errors of all kinds; what they read was not written here.

    Arguments
    ---------
    source : str
        The hub name or folder that is read.
    what : str
        Which model it is, for the message.

    Example
    -------
    >>> with explained("folder", "the LLM"):
    ...     raise KeyError("hidden_size")
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: the LLM in folder cannot be loaded: ...
    """
    try:
        yield
    except InputError:
        raise
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        ImportError,
        SafetensorError,
    ) as error:
        if "trust_remote_code" in str(error):
            reason = (
                "it brings code of its own, which is never run here; save it "
                "as a model and a tokenizer that transformers has itself"
            )
        else:
            reason = str(error).strip().partition("\n")[0] or repr(error)
        raise InputError(
            f"{what} in {source} cannot be loaded: {reason}"
            f"{how_to_mend(source)}"
        ) from error
