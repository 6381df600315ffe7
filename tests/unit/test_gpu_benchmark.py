"""The GPU benchmark, tried on the CPU with a system in miniature."""

import argparse
import json
import sys

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig

from speechbrain_mser.lobes import build_connector


@pytest.fixture
def run(script, monkeypatch, tmp_path):
    """The script's JSON."""

    def main(*arguments):
        output = tmp_path / "gpu.json"
        argv = ["gpu.py", "--output", str(output), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", argv)
        script("gpu").main()
        return json.loads(output.read_text()) if output.exists() else None

    return main


def counted(work):
    """FLOPs that torch counts while something is done."""
    # By plain kernels: of oneDNN's, and of attention fused for the CPU, it
    # knows no count.
    with (
        torch.backends.mkldnn.flags(enabled=False),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        work()
    return counter.get_total_flops()


@pytest.fixture
def models(script, tmp_path):
    """Small lobes with random weights: encoder, connector, LLM."""
    made = script("random_models")
    shape = made.SHAPES["tiny"]
    whisper = made.random_whisper(shape, "cpu", tmp_path)
    llama = made.random_llama(shape, "cpu", tmp_path)
    connector = build_connector(
        "qformer",
        input_dim=whisper.hidden_size,
        output_dim=llama.hidden_size,
        **shape.connector,
    )
    return whisper, connector, llama.float()


def test_the_encoders_flops_are_those_that_torch_counts(script, models):
    whisper = models[0].float()
    wavs = torch.randn(2, 16000)
    # The log-mel, before the encoder, is not of the model.
    mel = 2 * 2 * 80 * 201 * 100
    expected = 2 * script("encode").flops(whisper.model.config, 50)
    assert counted(lambda: whisper(wavs)) == expected + mel


def test_a_qformers_training_takes_thrice_its_flops(script, models):
    connector = models[1]
    features = torch.randn(3, 20, connector.input_dim)

    def step():
        tokens, *_ = connector(features, torch.ones(3))
        tokens.sum().backward()

    expected = 3 * script("flops").qformer_flops(connector, 3, 20)
    assert counted(step) == expected


@pytest.mark.parametrize("backward", [False, True])
def test_an_llms_flops_are_those_that_torch_counts(script, models, backward):
    llama = models[2]
    config = llama.model.config
    audio = torch.randn(3, 4, llama.hidden_size, requires_grad=backward)

    def loss():
        with torch.set_grad_enabled(backward):
            found = llama.loss(audio, ["happy", "sad", "fear"])
        if backward:
            found.backward()

    tokens = 4 + 1 + 13 + 1
    expected = 3 * script("flops").llama_flops(config, tokens, 2, backward)
    # Torch counts the pairs that the causal mask forbids, too.
    width = config.num_attention_heads * config.head_dim
    hidden = tokens * (tokens - 1) // 2
    products = 6 if backward else 2
    masked = 3 * config.num_hidden_layers * 2 * products * hidden * width
    # The rotary angles are a small product as well.
    assert counted(loss) == pytest.approx(expected + masked, rel=1e-3)


def test_the_real_shape_has_llama_3s_parameters(script):
    shape = script("random_models").SHAPES["real"]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**shape.llama))
    assert sum(p.numel() for p in model.parameters()) == 8_030_261_248


def test_an_llms_weights_are_made_on_the_device(script, tmp_path):
    made = script("random_models")
    llama = made.random_llama(made.SHAPES["real"], "meta", tmp_path)
    tensors = [*llama.parameters(), *llama.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert {p.dtype for p in llama.parameters()} == {torch.bfloat16}


def test_all_sections_run_on_a_system_in_miniature(run, capsys):
    found = run("--device", "cpu", "--shapes", "tiny", "--repeats", 1)
    assert found["failed"] == {}
    assert found["left_out"] == []
    assert list(found["tables"]) == [
        "machine",
        "cached training",
        "encoding",
        "a further pass through the encoder",
        "recognition, 7 labels",
        "where the time goes",
        "kernels: a training step, batch 4",
        "kernels: encoding, batch 4",
        "training with checkpointing",
        "epochs of 3 to 5 s utterances with the store on disk",
    ]
    assert len(found["rows"]) == 7
    printed = capsys.readouterr().out
    assert all(row["question"] in printed for row in found["rows"])


def test_what_no_longer_fits_is_named(run, capsys):
    found = run("--device", "cpu", "--shapes", "tiny", "--minutes", 0)
    assert found is None
    assert "left out for want of time: the machine's" in capsys.readouterr().out


def test_a_failure_is_reported_and_the_rest_goes_on(script, tmp_path, capsys):
    settings = argparse.Namespace(
        device="cpu",
        shapes="tiny",
        minutes=1,
        repeats=1,
        output=tmp_path / "gpu.json",
    )
    bench = script("gpu_bench").Bench(settings, tmp_path)
    bench.attempt("too much", lambda: torch.empty(1 << 60))
    bench.attempt("enough", lambda: bench.add("table", found=1))
    found = json.loads(settings.output.read_text())
    assert found["failed"]["too much"].startswith("RuntimeError: ")
    assert found["tables"] == {"table": [{"found": 1}]}
    bench.print()
    assert "failed: too much (RuntimeError" in capsys.readouterr().out


def test_without_a_gpu_nothing_is_measured(run, capsys):
    assert run() is None
    assert capsys.readouterr().out == "no GPU: nothing measured\n"
