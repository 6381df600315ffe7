"""Less time and memory for a frozen LLM, of which no number knows."""

from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from speechbrain_mser.errors import InputError


def fastest_attention():
    """Settings for ``from_pretrained``: the attention that suits the machine.

    On a CPU alone it is the plain one: the backward pass of the fused one is
    made for sequences much longer than a prompt, some audio tokens and a word.
    Else transformers chooses.

    Returns
    -------
    dict
        With ``attn_implementation``, or empty.

    Example
    -------
    >>> set(fastest_attention().values()) <= {"eager"}
    True
    """
    if torch.cuda.is_available():
        return {}
    return {"attn_implementation": "eager"}


def four_bits(dtype):
    """The quantisation of 4-bit loading (NF4); needs bitsandbytes.

    Arguments
    ---------
    dtype : str
        In which is computed.

    Returns
    -------
    transformers.BitsAndBytesConfig
        For ``from_pretrained``.

    Raises
    ------
    InputError
        bitsandbytes is not installed.
    """
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise InputError(
            "load_in_4bit needs bitsandbytes: "
            "pip install 'speechbrain-mser[quantized]'"
        ) from None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def multiply_head_at_once(head):
    """Have a head read the last positions' states of a batch as one matrix.

    They are a view of all positions' states; of such a view PyTorch makes a
    batch of small products with a frozen matrix, and copies the matrix for
    each of them.

    Arguments
    ---------
    head : torch.nn.Module
        The LLM's, changed in place.

    Example
    -------
    >>> head = torch.nn.Linear(2, 3)
    >>> multiply_head_at_once(head)
    >>> head(torch.ones(4, 5, 2)[:, -2:]).shape
    torch.Size([4, 2, 3])
    """
    # Of a single utterance a view calls itself contiguous, whose strides are not.
    own = partial(torch.clone, memory_format=torch.contiguous_format)
    head.register_forward_pre_hook(lambda _, inputs: tuple(map(own, inputs)))


def checkpoint_layers(model):
    """Have every layer computed again in the backward pass, in place.

    transformers' own checkpointing works in training mode alone, in which a
    frozen LLM never is. In evaluation mode nothing is drawn at random, so no
    random state needs keeping.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        A causal LM.

    Raises
    ------
    InputError
        Its layers are not where LLaMA has them.
    """
    if not hasattr(model.model, "layers"):
        raise InputError(
            f"activation_checkpointing: a {model.config.model_type} does not "
            "have its layers where LLaMA has them; leave it False"
        )
    for layer in model.model.layers:
        layer.forward = partial(
            checkpoint,
            layer.forward,
            use_reentrant=False,
            preserve_rng_state=False,
        )
