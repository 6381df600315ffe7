"""The encoder's layers standardised and mixed into one, in one pass."""

import torch
from torch.autograd.function import once_differentiable


def mix_layers(features, weights, mean, std):
    """``sum_l weights[l] * (features[:, l] - mean[l]) / std[l]``.

    A batch's features of all layers are a hundred megabytes. Standardised and
    then mixed, they are copied several times over; here they are read once,
    in whatever dtype they come, and autograd keeps nothing but themselves.

    The mean is subtracted before anything is multiplied: where a dimension is
    large and nearly constant, ``features / std - mean / std`` is a small
    difference of two huge numbers.

    Arguments
    ---------
    features : torch.Tensor
        ``[batch, frames, dim]``, or ``[batch, layers, frames, dim]``, of any
        floating dtype.
    weights : torch.Tensor
        ``[layers]``; its dtype is that of the computation and the result.
    mean : torch.Tensor
        ``[layers, dim]``.
    std : torch.Tensor
        ``[layers, dim]``.

    Returns
    -------
    torch.Tensor
        ``[batch, frames, dim]``, differentiable in features and weights.

    Example
    -------
    >>> features = torch.tensor([[[[3.0]], [[10.0]]]])  # two layers, 3 and 10
    >>> mean, std = torch.tensor([[1.0], [6.0]]), torch.tensor([[1.0], [2.0]])
    >>> mix_layers(features, torch.tensor([0.25, 0.75]), mean, std)
    tensor([[[2.]]])
    """
    if features.ndim == 3:
        features = features[:, None]
    return _Mix.apply(features, weights, mean, std)


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, weights, mean, std):
        ctx.save_for_backward(features, weights, mean, std)
        scale = weights[:, None] / std
        # One layer's memory for all of them: new memory is the larger cost.
        centred = _like_a_layer(features, weights.dtype)
        mixed = torch.zeros_like(centred)
        for number in range(len(weights)):
            torch.sub(features[:, number], mean[number], out=centred)
            mixed.addcmul_(centred, scale[number])
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        features, weights, mean, std = ctx.saved_tensors
        grad_features = grad_weights = None
        if ctx.needs_input_grad[0]:
            grad_features = torch.empty_like(features)
            for number, scale in enumerate(weights[:, None] / std):
                grad_features[:, number] = grad * scale
        if ctx.needs_input_grad[1]:
            grad_weights = torch.empty_like(weights)
            centred = _like_a_layer(features, weights.dtype)
            for number in range(len(weights)):
                torch.sub(features[:, number], mean[number], out=centred)
                each = centred.mul_(grad).sum((0, 1))  # [dim]
                grad_weights[number] = (each / std[number]).sum()
        return grad_features, grad_weights, None, None


def _like_a_layer(features, dtype):
    """Room for ``[batch, frames, dim]``."""
    return torch.empty_like(
        features[:, 0], dtype=dtype, memory_format=torch.contiguous_format
    )
