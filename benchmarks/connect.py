#!/usr/bin/env python3
"""What does a training step of the connector cost, and what is it made of?

All layers of Whisper-base over utterances of RAVDESS and EmoDB, kept in
float16, into a Q-Former of MiniLM's shape (6 layers of width 384, as `make
real` uses) and of BERT-base's: forward, backward, AdamW, against the floor:
the step's multiplications at the speed of a linear layer. The input side
(standardise, mix) alone is timed in turns with the formula as it is written;
values and gradients must agree first.

What stands between a step and its floor: attention with dropout (which PyTorch computes in steps
on a CPU), random numbers, AdamW, and copies of the heads. About a sixth of
the frames is padding, hence a twentieth of the multiplications.

Without the data folder: noise of RAVDESS's durations and random weights.

Usage: python benchmarks/connect.py [--data ../shared/data] [--utterances 32]
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from encode import batches_of, multiplication_speed
from material import sample_of, whisper_base
from report import ROOT, Row, in_turns, median_ratio, report
from torch.utils.flop_counter import FlopCounterMode

from speechbrain_mser.dataio.audio import load_audio
from speechbrain_mser.lobes.layer_mix import mix_layers
from speechbrain_mser.lobes.qformer import EmotionQFormer
from speechbrain_mser.lobes.standardize import FeatureStandardizer
from speechbrain_mser.lobes.whisper import WhisperEncoder

SHAPES = {
    "MiniLM": {"n_layers": 6, "hidden_size": 384, "intermediate_size": 1536},
    "BERT-base": {},
}


def features_of(data, count, scratch):
    """``[batch, layers, frames, dim]`` float16, and relative lengths."""
    encoder = WhisperEncoder(str(whisper_base(data, scratch)), layers="all")
    rows = sample_of(data, ["RAVDESS", "EmoDB"], count, scratch)
    wavs = [load_audio(row["wav"]) for row in rows]
    features, lens = encoder(*batches_of(wavs, count)[0])
    return features.half(), lens


def plain_mix(features, weights, mean, std):
    """The formula as it is written."""
    standardized = (features.float() - mean[:, None]) / std[:, None]
    return torch.einsum("l,blfd->bfd", weights, standardized)


def mix_and_gradient(mix, features, weights, mean, std):
    """The mix and the gradient of a sum of it in the weights."""
    weights = weights.clone().requires_grad_()
    mixed = mix(features, weights, mean, std)
    mixed.sum().backward()
    return mixed.detach(), weights.grad


class Step:
    """Forward, backward and AdamW of a Q-Former; dropout as in training."""

    def __init__(self, features, lens, shape):
        torch.manual_seed(0)
        self.features, self.lens = features, lens
        self.qformer = EmotionQFormer(
            features.shape[-1],
            2048,
            n_input_layers=features.shape[1],
            **shape,
        )
        self.qformer.standardizer.update(features, lens)
        self.qformer.standardizer.finish()
        self.optimizer = torch.optim.AdamW(self.qformer.parameters(), 1e-5)

    def __call__(self):
        """One step."""
        tokens, pooled, _ = self.qformer(self.features, self.lens)
        (tokens.square().mean() + pooled.square().mean()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def flops(self):
        """Multiplications and additions of matrices in one step."""
        with FlopCounterMode(display=False) as counter:
            self()
        return counter.get_total_flops()


def _check_close(name, found, expected):
    worst = (found - expected).norm() / expected.norm().clamp(min=1e-6)
    if not worst <= 1e-3:
        raise SystemExit(f"{name} differs by {worst:.2g}")


def time_mix(features, lens, repeats):
    """The input side alone."""
    standardizer = FeatureStandardizer(features.shape[-1], features.shape[1])
    standardizer.update(features, lens)
    standardizer.finish()
    weights = torch.randn(features.shape[1]).softmax(0)
    inputs = features, weights, standardizer.mean, standardizer.std
    ways = {
        "ours": lambda: mix_and_gradient(mix_layers, *inputs),
        "plain": lambda: mix_and_gradient(plain_mix, *inputs),
    }
    for found, expected in zip(*(way() for way in ways.values()), strict=True):
        _check_close("the mix", found, expected)
    times = in_turns(ways, repeats)
    return Row(
        f"standardise and mix {features.shape[1]} layers, and back",
        "as the formula is written",
        median_ratio(times["plain"], times["ours"]),
        2.0,
        True,
        ", ".join(f"{statistics.median(t):.3g} s" for t in times.values()),
    )


def time_step(name, features, lens, repeats):
    """All of a training step that is the connector's."""
    step = Step(features, lens, SHAPES[name])
    seconds = statistics.median(in_turns({"ours": step}, repeats)["ours"])
    shape = step.qformer.shape
    speed = multiplication_speed(
        shape["hidden_size"], shape["intermediate_size"]
    )
    floor = step.flops() / speed
    return Row(
        f"training step of a {name} Q-Former, batch {len(features)}",
        "its multiplications alone",
        seconds / floor,
        2.5,
        False,
        f"{seconds:.3g} s, {floor:.3g} s ({speed / 1e9:.0f} GFLOP/s)",
    )


def main():
    """Check, time in turns, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--utterances", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        features, lens = features_of(
            arguments.data, arguments.utterances, Path(scratch)
        )
    answers = [
        time_mix(features, lens, arguments.repeats),
        *(
            time_step(name, features, lens, arguments.repeats)
            for name in SHAPES
        ),
    ]
    report("connect", answers, {**vars(arguments), "data": str(arguments.data)})


if __name__ == "__main__":
    main()
