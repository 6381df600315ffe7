"""LLMs out of GGUF files, into what transformers reads.

transformers takes the numbers out of their quantisation; a model that knows
nothing of it takes them over and is saved like any other.
"""

import os
import re
import shutil
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import torch
from speechbrain.utils.logger import get_logger
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.files.fingerprints import file_identity, file_sha256
from speechbrain_mser.models.fetch import OF_THE_DISK
from speechbrain_mser.models.gguf_header import GGUFHeader
from speechbrain_mser.models.kept import GGUF, make_once, models_folder

logger = get_logger(__name__)

SUFFIX = ".gguf"
# Raised when the same file becomes other numbers.
VERSION = 1
# What GGML calls float32, float16, float64 and bfloat16.
_NOT_QUANTISED = {0, 1, 28, 30}
# What a tokenizer has, by GGUF's names.
_TOKENS = {
    "bos_token": "bos",
    "eos_token": "eos",
    "unk_token": "unknown",
    "pad_token": "padding",
}
_PROBE = "What is the emotion of the speaker?"


def convert_kept(path, what):
    """The folder of a GGUF file's model, converted once.

    Known by its content, wherever the file lies and whatever it is called.

    Arguments
    ---------
    path : path-like
        The file.
    what : str
        The model and its setting, for messages.

    Returns
    -------
    pathlib.Path
        In `models_folder`.

    Raises
    ------
    InputError
        The file cannot be read or converted, or its model not be kept.
    """
    try:
        digest = _digest(path)
    except OSError as error:
        raise InputError(f"{what}: {path}: {error.strerror}") from None
    return make_once(
        f"{GGUF}/{digest[:32]}-{VERSION}",
        lambda folder, fetched: convert(path, folder, what),
        {"gguf": os.fsdecode(os.path.basename(path)), "sha256": digest},
        what,
    )


def is_gguf(path):
    """Whether a file begins as GGUF does, whatever it is called.

    Arguments
    ---------
    path : path-like
        A file.

    Returns
    -------
    bool
        It does; False where it cannot be read.

    Example
    -------
    >>> path = getfixture("tmp_path") / "sha256-1f2e"
    >>> _ = path.write_bytes(b"GGUF" + bytes(20))
    >>> is_gguf(path)
    True
    """
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def _digest(path):
    """SHA-256 of a file, read again only when the file has changed."""
    identity = file_identity(path).hex()
    note = models_folder() / GGUF / f".{identity}"
    if note.is_file():
        # Whatever was written there, a digest is all that it may say
        noted = note.read_text(encoding="ascii", errors="replace")
        if re.fullmatch("[0-9a-f]{64}", noted):
            return noted
    digest = file_sha256(path)
    # Where nothing may be written it is read again
    with suppress(OSError):
        write_text(note, digest)
    return digest


def convert(path, folder, what):
    """Write a GGUF file's LLM where transformers finds it.

    What is stored in floating point keeps its values. Matrices that were
    quantised become float16 where that does not hold them: it is off by 1/2048
    of a value at most, as a rule a hundredth of a step of 4 bits (bfloat16
    would be off by eight times that).

    Arguments
    ---------
    path : path-like
        The file.
    folder : pathlib.Path
        Gets configuration, tokenizer and weights.
    what : str
        The model, for messages.

    Raises
    ------
    InputError
        The file is damaged, holds something else, or transformers cannot
        take its numbers out; the package gguf is missing.
    """
    header = _read_header(path, what)
    logger.info("%s: %s is converted, once; it takes a minute", what, path)
    try:
        config, tokenizer, model = _load(path)
        _save_tokenizer(tokenizer, header.values, folder)
    # A stranger's file, and the readers of three libraries.
    except Exception as error:
        if getattr(error, "errno", None) in OF_THE_DISK:
            raise
        reason = str(error).strip().partition("\n")[0] or repr(error)
        raise InputError(
            f"{what}: {path} cannot be converted: {reason}"
        ) from error
    rounded = not header.types <= _NOT_QUANTISED
    weights = {
        name: _as_small_as_can_be(weight, rounded)
        for name, weight in model.state_dict().items()
    }
    with torch.device("meta"):
        fresh = AutoModelForCausalLM.from_config(config)
    fresh.load_state_dict(weights, assign=True)
    fresh.tie_weights()
    fresh.save_pretrained(folder)


def _read_header(path, what):
    try:
        header = GGUFHeader(path)
    except ImportError:
        raise InputError(
            f"{what}: {path} is a GGUF file, which needs the package gguf: "
            "pip install gguf"
        ) from None
    parts = header.values.get("split.count", 1)
    if parts not in (0, 1):
        raise InputError(
            f"{what}: {path} is one of {parts} parts "
            "of a model; join them with llama-gguf-split --merge"
        )
    # Without them transformers would build a model of its own sizes
    architecture = header.values.get("general.architecture")
    layers = header.values.get(f"{architecture}.block_count")
    width = header.values.get(f"{architecture}.embedding_length")
    (found,) = header.shapes.get("token_embd.weight", ())[:1] or (None,)
    if not isinstance(layers, int) or layers > len(header.shapes):
        raise InputError(
            f"{what}: {path} says that it has {layers} layers, in "
            f"{len(header.shapes)} tensors"
        )
    if width is None or width != found:
        raise InputError(
            f"{what}: {path} is damaged, or no LLM: its width is {width}, "
            f"that of its embeddings {found}"
        )
    return header


def _load(path):
    """Configuration, tokenizer and model, in float32."""
    _tell_version()
    path = Path(path).absolute()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with tempfile.TemporaryDirectory() as alone:
            # Nothing that lies beside it is read.
            _link(path, Path(alone) / "model.gguf")
            given = {"gguf_file": "model.gguf", "trust_remote_code": False}
            config = AutoConfig.from_pretrained(alone, **given)
            # Else each would read it again
            given["config"] = config
            tokenizer = AutoTokenizer.from_pretrained(alone, **given)
            model, report = AutoModelForCausalLM.from_pretrained(
                alone,
                dtype=torch.float32,
                output_loading_info=True,
                # Reported like what is missing, and refused with it
                ignore_mismatched_sizes=True,
                **given,
            )
    finally:
        transformers_logging.set_verbosity(verbosity)
    for kind in ("missing_keys", "mismatched_keys", "error_msgs"):
        if report[kind]:
            raise ValueError(f"{kind}: {min(report[kind], key=str)}")
    return config, tokenizer, model


def _tell_version():
    """Of the package gguf, where transformers finds it on Python 3.10 too.

    The oldest that are admitted look for its distribution, and Python 3.10
    knows those alone that list their packages, as this one does not.
    """
    import gguf

    if not hasattr(gguf, "__version__"):
        gguf.__version__ = version("gguf")


def _save_tokenizer(tokenizer, values, folder):
    """With the tokens that the file names; refused if words are not read.

    A reader that takes a vocabulary for one of another kind (as transformers
    5.5 does SmolLM2's) is not heard of otherwise.
    """
    for name, key in _TOKENS.items():
        number = values.get(f"tokenizer.ggml.{key}_token_id")
        if number is not None:
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(number))
    tokenizer.save_pretrained(folder)
    again = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    ids = again(_PROBE, add_special_tokens=False).input_ids
    read = again.decode(ids)
    if read.strip() != _PROBE:
        raise ValueError(f"its tokenizer reads {_PROBE!r} as {read!r}")


def _link(path, link):
    try:
        link.symlink_to(path)
    except OSError:  # Windows asks for a right
        shutil.copyfile(path, link)


def _as_small_as_can_be(weight, rounded):
    """The values in the smallest dtype that holds them."""
    for dtype in (torch.bfloat16, torch.float16):
        if weight.to(dtype).to(weight.dtype).equal(weight):
            return weight.to(dtype)
    half = weight.to(torch.float16)
    return half if rounded and half.isfinite().all() else weight
