"""Where frozen models come from, and what to say when they do not.

A model is a hub name or a folder. Without a network the libraries' errors
speak of connections; a user needs to know which file was wanted and which
setting takes a folder.
"""

from contextlib import contextmanager
from pathlib import Path

from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from speechbrain_mser.errors import InputError


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
        A file is missing in the folder, or neither on the hub nor kept.

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
        return
    if folder.is_absolute() or str(source).startswith("."):
        raise InputError(f"{role} ({setting}): there is no folder {source}")
    for name in files:
        try:
            cached_file(source, name, cache_dir=save_path or None)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"{role} ({setting}): {name} of {source!r} is neither in "
                f"{save_path or 'the cache'} nor to be had from the hub; "
                f"without a network, point {setting} to a folder that holds "
                f"the model ({reason})"
            ) from None


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
