"""Where frozen models come from, and what to say when they do not.

A model is a hub name or a folder. Without a network the libraries' errors
speak of connections; a user needs to know which file was wanted and which
setting takes a folder.
"""

from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from speechbrain_mser.errors import InputError

DTYPES = ("float32", "float16", "bfloat16")


def require_model(source, save_path, role, setting, files=("config.json",)):
    """Make sure that a model's small files can be had, before loading it.

    Arguments
    ---------
    source : str
        A hub name or a folder.
    save_path : str
        The folder in which the hub's files are kept.
    role : str
        What the model is, for the message ("the Whisper encoder").
    setting : str
        The hyperparameter that names the model ("whisper_hub").
    files : tuple of str
        The files that must be there.

    Raises
    ------
    InputError
        A file is missing in the folder, or neither on the hub nor kept; the
        folder has no weights, or broken ones.

    Example
    -------
    >>> require_model("/no/such/folder", "", "the LLM", "llama_hub")
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: the LLM (llama_hub): ...
    """
    folder = Path(source)
    if folder.is_dir():
        missing = [name for name in files if not (folder / name).is_file()]
        if missing:
            raise InputError(
                f"{role} ({setting}): the folder {source} has no "
                f"{', '.join(missing)}; it must hold a model saved with "
                "transformers' save_pretrained"
            )
        _check_weights(folder, f"{role} ({setting})")
        return
    if folder.is_absolute() or str(source).startswith("."):
        raise InputError(f"{role} ({setting}): there is no folder {source}")
    for name in files:
        try:
            cached_file(source, name, cache_dir=save_path or None)
        except (OSError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"{role} ({setting}): {name} of {source!r} is neither in "
                f"{save_path or 'the cache'} nor to be had from the hub; "
                f"without a network, point {setting} to a folder that holds "
                f"the model ({reason})"
            ) from None


def _check_weights(folder, what):
    """Refuse a folder without weights, or with a file that is cut short."""
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    if not weights:
        raise InputError(
            f"{what}: the folder {folder} has no weights (model.safetensors)"
        )
    for path in weights:
        if path.suffix == ".safetensors":
            try:
                # Reads the header, which knows how long the file must be.
                safe_open(path, framework="pt")
            except (OSError, SafetensorError) as error:
                raise InputError(
                    f"{what}: {path} is broken ({error}); fetch it again"
                ) from None


def require_dtype(name):
    """Make sure that a dtype is one that frozen models are loaded in.

    Arguments
    ---------
    name : str
        What the user asks for.

    Raises
    ------
    InputError
        It is none of `DTYPES`.

    Example
    -------
    >>> require_dtype("bfloat16")
    """
    if name not in DTYPES:
        raise InputError(
            f"frozen_dtype is {name!r}, expected one of {', '.join(DTYPES)}"
        )


@contextmanager
def quiet_loading():
    """Load a part of a model without transformers' report of the rest.

    Example
    -------
    >>> with quiet_loading():
    ...     transformers_logging.get_verbosity() == transformers_logging.ERROR
    True
    """
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
