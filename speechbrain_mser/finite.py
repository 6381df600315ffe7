"""Numbers that are none, found before they become an answer."""

import torch

from speechbrain_mser.errors import InputError

# Of an utterance that could be read and not be encoded,
NOT_FINITE = (
    "the encoder's features are not finite; an encoder in float16 may need "
    "frozen_dtype bfloat16 or float32"
)
# and of one that could be encoded and not be recognised.
NO_SCORE = (
    "the model's numbers are not finite: its weights are damaged, or an LLM in "
    "float16 needs frozen_dtype bfloat16 or float32"
)


def finite_rows(tensor):
    """Which rows of a tensor hold neither NaN nor infinity.

    Arguments
    ---------
    tensor : torch.Tensor
        ``[n, ...]``, of floating point, not empty.

    Returns
    -------
    list of bool
        ``[n]``.

    Example
    -------
    >>> finite_rows(torch.tensor([[0.0, 1.0], [torch.nan, 1.0]]))
    [True, False]
    """
    # A NaN is both extremes; isfinite() takes ten times as long.
    extremes = torch.stack(tensor.flatten(1).aminmax(dim=1))
    return extremes.isfinite().all(0).tolist()


def refuse_not_finite(path, tensors):
    """Refuse trained weights that would answer everything with NaN.

    Arguments
    ---------
    path : str or path-like
        Their file, for the message.
    tensors : dict
        Name to tensor.

    Raises
    ------
    InputError
        One holds NaN or infinity.

    Example
    -------
    >>> refuse_not_finite("a.safetensors", {"bias": torch.tensor([torch.inf])})
    Traceback (most recent call last):
    ...
    InputError: a.safetensors: bias holds NaN or infinity: ...
    """
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise InputError(
                f"{path}: {name} holds NaN or infinity: damaged, or of a "
                "training that diverged; take an earlier checkpoint, or train "
                "anew"
            )
