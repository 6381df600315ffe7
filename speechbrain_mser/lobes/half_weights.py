"""Matrices in a file's 16 bits that are multiplied in float32.

Where a processor does not multiply 16 bits natively, the frozen LLM computes in
float32. Its matrices need not lie there in float32, too: an upcast is exact, and
reading half as much from the memory pays for it.
"""

from pathlib import Path

import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

from speechbrain_mser.lobes.weight_files import IN_FILES, weight_files

_HALVES = {IN_FILES[name]: name for name in ("float16", "bfloat16")}
# Rows that are upcast at a time: new memory for all of a head at once takes
# longer than the head.
_ROWS = 2048
# Of a LLaMA, in float32 whatever they are in the file
_NORMS = ["input_layernorm", "post_attention_layernorm", "norm"]


def stored_half(folder, config):
    """In which 16 bits all of a LLaMA's matrices lie in its files.

    Arguments
    ---------
    folder : path-like
        A model's.
    config : transformers.PretrainedConfig
        The model's.

    Returns
    -------
    str or None
        "float16" or "bfloat16"; None if they are something else, or mixed, or
        if the model is not a LLaMA (SmolLM2 is one) without biases: linear
        layers, embeddings and norms alone.

    Example
    -------
    >>> from transformers import Qwen2Config
    >>> stored_half("/no/such/folder", Qwen2Config()) is None
    True
    """
    if config.model_type != "llama" or config.attention_bias or config.mlp_bias:
        return None
    found = set()
    for path in weight_files(Path(folder)):
        with safe_open(path, framework="pt") as file:
            kept = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118
            found |= {k.get_dtype() for k in kept if len(k.get_shape()) > 1}
    return _HALVES.get(found.pop()) if len(found) == 1 else None


def with_float32_norms(model_class):
    """A class whose models have norms in float32 where all else has 16 bits.

    Arguments
    ---------
    model_class : type
        Of one that has a `stored_half`.

    Returns
    -------
    type
        Derived from it, of the same name.
    """
    own = {"_keep_in_fp32_modules_strict": _NORMS}
    return type(model_class.__name__, (model_class,), own)


def multiply_in_float32(model):
    """Have a model compute in float32 what it holds in 16 bits.

    Arguments
    ---------
    model : torch.nn.Module
        Frozen, with a `stored_half`; changed in place.

    Example
    -------
    >>> import torch
    >>> layer = nn.Linear(2, 3, bias=False, dtype=torch.float16)
    >>> model = nn.Sequential(layer.requires_grad_(False))
    >>> multiply_in_float32(model)
    >>> model(torch.ones(1, 2)).dtype, layer.weight.dtype
    (torch.float32, torch.float16)
    """
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = _Linear
        elif type(module) is nn.Embedding:
            module.__class__ = _Embedding


class _Linear(nn.Linear):
    def forward(self, x):
        if self.weight.dtype == x.dtype:
            return super().forward(x)
        product = x.new_empty(*x.shape[:-1], self.out_features)
        parts = product.split(_ROWS, -1), self.weight.split(_ROWS)
        for part, block in zip(*parts, strict=True):
            part.copy_(F.linear(x, block.to(x.dtype)))
        return product


class _Embedding(nn.Embedding):
    def forward(self, ids):
        return super().forward(ids).float()
