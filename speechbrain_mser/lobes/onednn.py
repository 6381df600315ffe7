"""Linear layers by oneDNN, where PyTorch's own are slow.

PyTorch multiplies float32 matrices on the CPU with MKL, and MKL keeps its
AVX-512 kernels for Intel's processors. PyTorch brings oneDNN too, which has
them for all: on one core of an AMD EPYC (Zen 5), at the sizes of Whisper-base
and BERT-base, 190 to 230 GFLOP/s instead of 80 to 100.
"""

import torch
from torch import nn
from torch.autograd.function import once_differentiable


class OneDNNLinear(nn.Linear):
    """`torch.nn.Linear`, computed by oneDNN in float32 on AVX-512 CPUs.

    Elsewhere (a GPU, another dtype, autocast, a CPU without AVX-512, oneDNN
    switched off with `torch.backends.mkldnn.flags`) it is the plain layer.
    Results differ by rounding.

    Example
    -------
    >>> layer = OneDNNLinear(8, 4)
    >>> x = torch.randn(2, 5, 8)
    >>> plain = torch.nn.functional.linear(x, layer.weight, layer.bias)
    >>> torch.allclose(layer(x), plain, atol=1e-6)
    True
    """

    def forward(self, x):
        """Multiply and add.

        Arguments
        ---------
        x : torch.Tensor
            ``[..., in_features]``.

        Returns
        -------
        torch.Tensor
            ``[..., out_features]``.
        """
        if _suits(x) and self.weight.dtype == x.dtype:
            return _Linear.apply(x, self.weight, self.bias)
        return super().forward(x)


def use_onednn(module):
    """Replace the linear layers in a module; parameters stay the same ones.

    Layers of other classes (quantised ones, subclasses) are left alone.

    Arguments
    ---------
    module : torch.nn.Module
        Changed in place.

    Returns
    -------
    torch.nn.Module
        The same.

    Example
    -------
    >>> model = use_onednn(nn.Sequential(nn.Linear(8, 4), nn.Tanh()))
    >>> model
    Sequential(
      (0): OneDNNLinear(in_features=8, out_features=4, bias=True)
      (1): Tanh()
    )
    """
    for name, layer in list(module.named_modules()):
        if type(layer) is nn.Linear and name:
            fast = OneDNNLinear(
                layer.in_features,
                layer.out_features,
                bias=layer.bias is not None,
                device="meta",
            ).train(layer.training)
            fast.weight, fast.bias = layer.weight, layer.bias
            module.set_submodule(name, fast)
    return module


def _suits(x):
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() > 0
        and torch.backends.mkldnn.enabled
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and not torch.is_autocast_enabled("cpu")
    )


def _multiply(x, weight, bias=None):
    # What PyTorch's compiler calls for a linear layer.
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """The operation has no gradient of its own."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        # A frozen layer's input is not needed again.
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return _multiply(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])  # [n, out_features]
        grad_x = grad_weight = grad_bias = None
        if for_x:
            grad_x = _multiply(rows, weight.t()).view(*grad.shape[:-1], -1)
        if for_weight:
            grad_weight = _multiply(rows.t(), x.reshape(-1, x.shape[-1]).t())
        if for_bias:
            grad_bias = rows.sum(0)
        return grad_x, grad_weight, grad_bias
