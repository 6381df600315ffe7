"""Linear layers by oneDNN: the same numbers and gradients as PyTorch's."""

import pytest
import torch
from torch import nn

from speechbrain_mser.lobes import onednn
from speechbrain_mser.lobes.onednn import OneDNNLinear, use_onednn

# Views as attention and convolutions make them: order in memory differs.
INPUTS = {
    "rows": lambda: torch.randn(7, 24),
    "batch": lambda: torch.randn(3, 5, 24),
    "one": lambda: torch.randn(24),
    "transposed": lambda: torch.randn(3, 24, 5).transpose(1, 2),
    "part": lambda: torch.randn(3, 9, 48)[:, 2:7, 12:36],
    "expanded": lambda: torch.randn(1, 5, 24).expand(3, -1, -1),
    "nothing": lambda: torch.randn(0, 24),
}


def in_float64(layer, x):
    """Output and gradients of the output's product with itself, exactly."""
    weight, x = layer.weight.detach().double(), x.detach().double()
    weight.requires_grad_()
    bias = None if layer.bias is None else layer.bias.detach().double()
    if bias is not None:
        bias.requires_grad_()
    x.requires_grad_()
    y = x @ weight.T + (0 if bias is None else bias)
    y.square().sum().backward()
    return y, x.grad, weight.grad, None if bias is None else bias.grad


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_float64(name, bias):
    layer = OneDNNLinear(24, 16, bias=bias)
    x = INPUTS[name]()
    expected = in_float64(layer, x)
    x = x.detach().requires_grad_()
    y = layer(x)
    y.square().sum().backward()
    found = y, x.grad, layer.weight.grad, layer.bias.grad if bias else None
    for a, b in zip(found, expected, strict=True):
        if b is not None:
            torch.testing.assert_close(a.double(), b, atol=1e-5, rtol=1e-5)


def test_a_gradient_that_is_one_number_repeated_is_right():
    # The gradient of a sum or a mean has no memory of its own.
    layer, x = OneDNNLinear(24, 16), torch.randn(3, 5, 24)
    layer(x).sum().backward()
    torch.testing.assert_close(
        layer.weight.grad, x.sum((0, 1)).expand(16, -1), atol=1e-5, rtol=1e-5
    )
    assert torch.equal(layer.bias.grad, torch.full((16,), 15.0))


def test_gradients_pass_a_frozen_layer_that_keeps_nothing():
    layer = OneDNNLinear(24, 16).requires_grad_(False)
    x = torch.randn(3, 24, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t) or t, lambda t: t
    ):
        y = layer(x)
    y.sum().backward()
    torch.testing.assert_close(
        x.grad, layer.weight.sum(0).expand(3, -1), atol=1e-5, rtol=1e-5
    )
    assert layer.weight.grad is None
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        assert [t.data_ptr() for t in kept] == [layer.weight.data_ptr()]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_the_plain_layers(dtype):
    layer, x = OneDNNLinear(24, 16, dtype=dtype), torch.randn(3, 24).to(dtype)
    plain = nn.functional.linear(x, layer.weight, layer.bias)
    assert torch.equal(layer(x), plain)


def test_autocast_is_the_plain_layers():
    layer, x = OneDNNLinear(24, 16), torch.randn(3, 24)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(
            layer(x), nn.functional.linear(x, layer.weight, layer.bias)
        )


# PyTorch sets a flag of Intel's GPUs with the others, and warns of it.
@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_switching_onednn_off_gives_the_plain_layer(monkeypatch):
    def multiply(*arguments):
        raise AssertionError("called")

    monkeypatch.setattr(onednn, "_multiply", multiply)
    layer, x = OneDNNLinear(24, 16), torch.randn(3, 24)
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(
            layer(x), nn.functional.linear(x, layer.weight, layer.bias)
        )


def test_on_a_cpu_with_avx_512_it_is_onednn_that_computes(monkeypatch):
    layer, x = OneDNNLinear(24, 16), torch.randn(3, 24)
    for capability, expected in (("AVX512", True), ("AVX2", False)):
        monkeypatch.setattr(
            torch.backends.cpu, "get_cpu_capability", lambda c=capability: c
        )
        assert onednn._suits(x) == (
            expected and torch.backends.mkldnn.is_available()
        )
        assert layer(x).shape == (3, 16)


def test_tied_weights_stay_tied():
    model = nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)})
    model["b"].weight = model["a"].weight
    use_onednn(model)
    assert model["b"].weight is model["a"].weight


def test_layers_are_replaced_and_parameters_are_not():
    class Own(nn.Linear):
        pass

    model = nn.Sequential(
        nn.Linear(24, 8), nn.Sequential(nn.Linear(8, 8, bias=False)), Own(8, 8)
    ).eval()
    before = dict(model.named_parameters())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(3, 24)
    expected = model(x)
    assert use_onednn(model) is model
    assert [type(m) for m in (model[0], model[1][0], model[2])] == [
        OneDNNLinear,
        OneDNNLinear,
        Own,
    ]
    assert not any(m.training for m in model.modules())
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    model.load_state_dict(state)
    torch.testing.assert_close(model(x), expected, atol=1e-6, rtol=1e-5)
