"""Low-rank adapters (LoRA) of a frozen LLM: put in, written and read."""

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import atomic_path
from speechbrain_mser.finite import refuse_not_finite

TARGETS = ("q_proj", "v_proj")


def add_adapters(model, rank):
    """Put trainable low-rank adapters into a frozen model, in place.

    Arguments
    ---------
    model : torch.nn.Module
        With projections called ``q_proj`` and ``v_proj``.
    rank : int
        Of the adapters.

    Raises
    ------
    InputError
        peft is not installed, or the model has no such projections.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise InputError(
            "lora_rank needs peft: pip install 'speechbrain-mser[lora]'"
        ) from None
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=list(TARGETS)
    )
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise InputError(
            f"lora_rank: adapters go into {' and '.join(TARGETS)}, which this "
            f"LLM has not ({error}); set lora_rank to 0, or choose another LLM"
        ) from None
    for parameter in model.parameters():
        if parameter.requires_grad:
            # In half precision, small steps would be rounded away.
            parameter.data = parameter.data.float()


def save_adapters(module, path):
    """Write what is trained in a module, and nothing else.

    Arguments
    ---------
    module : torch.nn.Module
        Frozen but for its adapters.
    path : path-like
        A safetensors file.
    """
    tensors = {n: p.detach().cpu() for n, p in _trained(module).items()}
    with atomic_path(path) as partial:
        save_file(tensors, partial)


def load_adapters(module, path, rank):
    """Read what `save_adapters` wrote.

    Arguments
    ---------
    module : torch.nn.Module
        As the one that was written.
    path : path-like
        The file.
    rank : int
        That of the module's adapters, for the message.

    Raises
    ------
    InputError
        The file holds no adapters, those of another LLM or rank, or values
        that are not finite.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not adapters ({error})") from None
    trained = _trained(module)
    # The shapes as well: copying would stretch rank 1 to any rank.
    found, expected = (
        {name: tuple(tensor.shape) for name, tensor in group.items()}
        for group in (tensors, trained)
    )
    if found != expected:
        raise InputError(
            f"{path}: adapters of another LLM or rank; it has "
            f"{_shapes(found)}, lora_rank {rank} here needs "
            f"{_shapes(expected)}"
        )
    refuse_not_finite(path, tensors)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[name])


def _trained(module):
    return {n: p for n, p in module.named_parameters() if p.requires_grad}


def _shapes(shapes):
    """How many tensors, and what the first one looks like."""
    first = next(iter(shapes.items()), "none")
    return f"{len(shapes)} tensors (first {first})"
