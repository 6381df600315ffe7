"""Devices: every way to name one gets an answer."""

import pytest
import torch

from speechbrain_mser.devices import available_devices, find_device, with_device
from speechbrain_mser.errors import InputError


@pytest.mark.parametrize(
    "asked", ["cpu", "cpu ", " CPU", "cpu:0", torch.device("cpu")]
)
def test_the_cpu_is_understood_however_it_is_written(asked):
    assert find_device(asked) == "cpu"


@pytest.mark.parametrize("asked", ["auto", "AUTO ", None])
def test_auto_takes_the_best_that_is_here(asked):
    best = available_devices()[0]
    assert torch.device(find_device(asked)).type == torch.device(best).type


@pytest.mark.parametrize(
    "asked",
    [
        *("cuda", "cuda:7", torch.device("cuda", 7), "mps", "xpu", "meta"),
        *("gpu", "cuda:x", "cuda:-1", "", "0", "cpu,cuda", 3),
    ],
)
def test_what_is_not_here_is_refused_with_what_is(asked, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(InputError, match="here there is cpu"):
        find_device(asked)


def test_a_second_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(
        "speechbrain_mser.devices.available_devices", lambda: ["cuda:0", "cpu"]
    )
    assert find_device("cuda") == "cuda"
    assert find_device(torch.device("cuda", 0)) == "cuda:0"
    with pytest.raises(InputError, match="here there is cuda:0, cpu"):
        find_device("cuda:1")


def test_run_options_keep_everything_but_an_unusable_device():
    assert with_device({"precision": "bf16"}) == {"precision": "bf16"}
    assert with_device(None) is None
    with pytest.raises(InputError, match="device is 'gpu'"):
        with_device({"device": "gpu"})
