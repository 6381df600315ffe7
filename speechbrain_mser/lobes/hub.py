"""Where frozen models come from, and the proof that they were loaded.

A model is a hub name, a folder, a GGUF file, or an open model's name
(`speechbrain_mser.models.registry`). Without a network the libraries' errors
speak of connections; a user needs to know which file was wanted and which
setting takes a folder. And where a folder's weights have other names than the
model's, transformers fills the model with random numbers and says so in a
table among other tables; here that is an error.
"""

import os
import stat
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from huggingface_hub import constants, snapshot_download, try_to_load_from_cache

# The HTTP library's own, whichever one the hub's client stands on.
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import validate_repo_id
from safetensors import safe_open
from speechbrain.utils.logger import get_logger
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.no_remote_code import explained, refuse_code
from speechbrain_mser.lobes.weight_files import (
    IN_FILES,
    check_weights,
    weight_files,
)
from speechbrain_mser.models.gguf import SUFFIX, convert_kept, is_gguf
from speechbrain_mser.models.registry import PREFIX, find_open_model

logger = get_logger(__name__)

DTYPES = ("auto", "float32", "float16", "bfloat16")
_CPU = Path("/proc/cpuinfo")
# What is fetched of a model: not its copies for other libraries, nor pickles.
_WEIGHTS = "model.safetensors"
_FETCHED = ["*.json", "*.txt", "*.model", "*.jinja", _WEIGHTS]
_FETCHED += ["model-*.safetensors"]
# A folder of peft's: the difference to a model, which may be anybody's.
_ADAPTERS = "adapter_config.json"


def find_model(source, save_path, role, setting, files=("config.json",)):
    """The folder that holds a model; from the hub if nothing else has it.

    A hub's name is looked for in ``save_path``, then in the user's own hub
    cache (``HF_HOME``, ``HF_HUB_CACHE``), and the network is asked only for
    what neither holds.

    Arguments
    ---------
    source : str
        A hub name, a folder, a GGUF file (or a folder with one), or the name
        of an open model.
    save_path : str
        The folder in which the hub's files are kept.
    role : str
        What the model is, for the message ("the Whisper encoder").
    setting : str
        The hyperparameter that names the model ("whisper_hub").
    files : tuple of str
        The files that must be there, besides the weights.

    Returns
    -------
    pathlib.Path
        With configuration, weights and all of ``files``.

    Raises
    ------
    InputError
        A file is missing in the folder, or neither on the hub nor kept; the
        folder has no weights, broken ones, or a model's adapters alone.

    Example
    -------
    >>> find_model("/no/such/folder", "", "the LLM", "llama_hub")
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: the LLM (llama_hub): ...
    """
    what = f"{role} ({setting})"
    folder = Path(source)
    if str(source).startswith(PREFIX):
        folder = find_open_model(source, what)
    elif path := _find_gguf(source, what):
        folder = convert_kept(path, what)
    elif not is_folder(source):
        if folder.is_absolute() or str(source).startswith("."):
            raise InputError(f"{what}: there is no folder {source}")
        caches = (save_path or constants.HF_HUB_CACHE, constants.HF_HUB_CACHE)
        kept = (_kept(source, cache, files) for cache in caches)
        folder = next(filter(None, kept), None) or _download(
            source, caches[0], what, setting, files
        )
    _refuse_adapters(folder, what)
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{what}: the folder {source} has no {', '.join(missing)}; it "
            "must hold a model saved with transformers' save_pretrained"
        )
    check_weights(folder, what)
    refuse_code(folder, what)
    return folder


def is_folder(name):
    """Whether a name from a user or a stranger is that of a folder.

    Arguments
    ---------
    name : str or path-like
        Any, also one that is too long for a file's.

    Returns
    -------
    bool
        It is there.

    Raises
    ------
    InputError
        Whether it is there, this user may not know.

    Example
    -------
    >>> is_folder("openai/whisper-base"), is_folder("/")
    (False, True)
    """
    try:
        return stat.S_ISDIR(os.stat(name).st_mode)
    except PermissionError as error:
        raise InputError(f"{name}: {error.strerror}") from None
    except (OSError, ValueError):
        return False


def is_public(name):
    """Whether others, on other machines, may mean the same model by a name.

    Arguments
    ---------
    name : str
        A frozen model's.

    Returns
    -------
    bool
        It is an open model's, or can be one on the hub, and no path of here.

    Example
    -------
    >>> is_public("openai/whisper-base"), is_public("/models/whisper-base")
    (True, False)
    """
    if name.startswith(PREFIX):
        return True
    try:
        validate_repo_id(name)
    except ValueError:
        return False
    return not Path(name).exists()


def _find_gguf(source, what):
    """The GGUF file that a name means, itself or its folder; or None."""
    path = Path(source)
    if not is_folder(source):
        if os.path.isfile(path) and (_is_named_gguf(path) or is_gguf(path)):
            return path
        if _is_named_gguf(path):
            raise InputError(f"{what}: there is no file {source}")
        return None
    paths = sorted(filter(_is_named_gguf, path.iterdir()))
    if not paths or weight_files(path):
        return None
    if len(paths) > 1:
        raise InputError(
            f"{what}: the folder {source} holds {len(paths)} GGUF files; name "
            f"one of them, for example {paths[0]}"
        )
    return paths[0]


def _is_named_gguf(path):
    return path.suffix.lower() == SUFFIX


def _kept(source, cache, files):
    """A cache's folder of a model, if it is whole."""
    try:
        found = try_to_load_from_cache(source, files[0], cache_dir=cache)
    except ValueError:  # not a hub's name
        return None
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    wanted = [*(folder / name for name in files), *weight_files(folder)]
    whole = len(wanted) > len(files) and all(p.is_file() for p in wanted)
    return folder if whole else None


def _download(source, cache, what, setting, files):
    """Fetch what is used of a model into a cache."""
    name = files[0]
    try:
        for name in files:
            cached_file(source, name, cache_dir=cache)
        name = _WEIGHTS
        folder = Path(
            snapshot_download(source, cache_dir=cache, allow_patterns=_FETCHED)
        )
        if weight_files(folder):
            return folder
        # Without a network, the client gives what it has of a folder.
        raise FileNotFoundError("not on the hub, or there is no network")
    except (OSError, ValueError, HTTPError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{what}: {name} of {source!r} is neither in {cache}, nor in "
            f"{constants.HF_HUB_CACHE}, nor to be had from the hub; without a "
            f"network, point {setting} to a folder that holds the model "
            f"({reason})"
        ) from None


def _refuse_adapters(folder, what):
    """Refuse a folder whose weights change those of another model."""
    if (folder / _ADAPTERS).is_file():
        raise InputError(
            f"{what}: {folder} holds adapters ({_ADAPTERS}) that are not "
            "merged into their model; load it with peft, merge_and_unload() "
            "and save_pretrained() the whole"
        )


def load_model(model_class, folder, what, used=None, config=None, **settings):
    """Load a model whose every used weight comes from the folder.

    Arguments
    ---------
    model_class : type
        One of transformers' classes with ``from_pretrained``.
    folder : path-like
        From `find_model`.
    what : str
        The model and its setting, for the message ("the LLM (llama_hub)").
    used : callable, optional
        Whether a weight of this name is used; by default all are.
    config : transformers.PretrainedConfig, optional
        In place of the folder's. No other file of the folder's is looked at
        then but the weights; those of another dtype are read one by one.
    **settings : dict
        For ``from_pretrained``.

    Returns
    -------
    model : transformers.PreTrainedModel
        In evaluation mode.
    unused : set of str
        The weights in the files that the model has no place for.

    Raises
    ------
    InputError
        A used weight is missing in the files, or has another shape there.
    """
    with quiet_loading(), explained(folder, what):
        if config is not None:
            tensors = _kept_tensors(folder, settings.get("dtype"))
            settings |= {"config": config, "state_dict": tensors}
        model, report = model_class.from_pretrained(
            folder if config is None else None,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            # Reported like what is missing, and refused with it.
            ignore_mismatched_sizes=True,
            **settings,
        )
    used = used or (lambda name: True)
    unused = set(report["unexpected_keys"])
    missing = sorted(filter(used, report["missing_keys"]))
    if missing:
        others = f"; it has for example {min(unused)}" if unused else ""
        raise InputError(
            f"{what}: {folder} has no weight {missing[0]} (nor "
            f"{len(missing) - 1} others of this {type(model).__name__})"
            f"{others}; without them the model would be random numbers. Save "
            "the whole model with save_pretrained, adapters merged and "
            "wrappers taken off"
        )
    mismatched = sorted(k for k in report["mismatched_keys"] if used(k[0]))
    if mismatched:
        name, found, expected = mismatched[0]
        raise InputError(
            f"{what}: in {folder} the weight {name} has the shape "
            f"{tuple(found)}, its config.json says {tuple(expected)} "
            f"({len(mismatched)} such weights); these are files of two models"
        )
    if report["error_msgs"]:
        raise InputError(f"{what}: {folder}: {report['error_msgs'][0]}")
    _own_vectors(model)
    return model, unused


class _Converted:
    """A tensor of a file that is read when it is asked for, and then let go.

    What is read of a file that is open lies in the memory beside the weights
    that are made of it. transformers asks for each of them once: here only
    one is there twice.
    """

    def __init__(self, path, name):
        self.path, self.name = path, name

    def __getitem__(self, index):
        with safe_open(self.path, framework="pt") as file:
            return file.get_tensor(self.name)[index]


def _kept_tensors(folder, dtype):
    """As transformers opens them, where nothing is converted."""
    tensors = {}
    for path in weight_files(Path(folder)):
        file = safe_open(path, framework="pt")
        for name in file.keys():  # noqa: SIM118
            kept = file.get_slice(name)
            same = kept.get_dtype() == IN_FILES.get(dtype)
            tensors[name] = kept if same else _Converted(path, name)
    return tensors


def _own_vectors(model):
    """Copy what may be a view of the weights' file, where that is small.

    A tensor that is asked for in the file's own dtype is a view of the file,
    all of which then stays in the memory, also what was converted: of a model
    whose matrices are float16 and whose norms bfloat16, twice its weights.
    """
    for parameter in model.parameters():
        if parameter.ndim < 2:
            parameter.data = parameter.data.clone()


def resolve_dtype(name):
    """The dtype that frozen models are loaded in.

    Arguments
    ---------
    name : str
        What the user asks for; "auto" is bfloat16 where this machine
        multiplies it natively (a GPU that does, if there is a GPU; else a CPU
        with AVX512-BF16, which those with AMX have too), and float32
        elsewhere.

    Returns
    -------
    str
        "float32", "float16" or "bfloat16".

    Raises
    ------
    InputError
        It is none of `DTYPES`.

    Example
    -------
    >>> resolve_dtype("bfloat16")
    'bfloat16'
    """
    if name not in DTYPES:
        raise InputError(
            f"frozen_dtype is {name!r}, expected one of {', '.join(DTYPES)}"
        )
    return native_dtype() if name == "auto" else name


@cache
def native_dtype():
    """What "auto" is on this machine, said once in the log."""
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Windows and macOS have no such file.
        native = _CPU.is_file() and "avx512_bf16" in _CPU.read_text().split()
    dtype = "bfloat16" if native else "float32"
    logger.info("frozen_dtype auto: %s on this machine", dtype)
    return dtype


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
