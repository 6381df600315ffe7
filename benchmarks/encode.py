#!/usr/bin/env python3
"""How fast does the frozen encoder read RAVDESS and EmoDB?

Whisper-base over the same utterances in the same batches: our lobe at true
length, SpeechBrain's own lobe (which pads to 30 s), ours without passes of
similar length, and ours in bfloat16. First the float32 features must agree:
ours padded to 30 s with SpeechBrain's, for one utterance (in a batch
SpeechBrain's log-mel depends on the loudest one), and all of ours among
themselves.

The floor is the multiplications of the utterances' own frames at the speed of
a linear layer in float32.

`torch.compile` is not used: the six layers, compiled once for any length
(``dynamic=True``), took 61 s to compile on a CPU, and then ran at two thirds
of the speed of the plain ones.

Without the data folder: noise of RAVDESS's durations and random weights.

Usage: python benchmarks/encode.py [--data ../shared/data] [--utterances 32]
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from unittest.mock import patch

import torch
from material import sample_of, whisper_base
from report import ROOT, Row, in_turns, median_ratio, report
from speechbrain.integrations.huggingface.whisper import Whisper

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.dataio.audio import load_audio
from speechbrain_mser.lobes import encoder as frozen_encoder
from speechbrain_mser.lobes.whisper import SAMPLES_PER_FRAME, WhisperEncoder

# Relative, root mean square; a single value may be 1e-3 off, for some frames
# have activations of hundreds.
TOLERANCE = 1e-5


def batches_of(wavs, size):
    """Padded batches and relative lengths, in the order given."""
    batches = []
    for first in range(0, len(wavs), size):
        part = wavs[first : first + size]
        padded = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
        lens = torch.tensor([len(wav) / padded.shape[1] for wav in part])
        batches.append((padded, lens))
    return batches


def encode(encoder, batches):
    """Our features of every batch."""
    return [encoder(wavs, lens)[0] for wavs, lens in batches]


def encode_in_one_pass(encoder, batches):
    """The same, whatever the lengths in a batch."""
    with patch.object(frozen_encoder, "FRAMES_PER_PASS", {"cpu": float("inf")}):
        return encode(encoder, batches)


def check(encoder, padded, peer, wav, batches):
    """Stop unless all ways give the same features."""
    ours, theirs = padded(wav[None])[0][0], peer(wav[None])[0]
    pairs = {"SpeechBrain's": (ours, theirs[: len(ours)])}
    pairs |= {
        f"one pass, batch {k}": pair
        for k, pair in enumerate(
            zip(
                encode_in_one_pass(encoder, batches),
                encode(encoder, batches),
                strict=True,
            )
        )
    }
    for name, (a, b) in pairs.items():
        differ = ((a - b).norm() / b.norm()).item()
        if not differ <= TOLERANCE:
            raise SystemExit(f"features differ by {differ:.3g} ({name})")


def flops(config, frames):
    """Of an utterance with so many frames, in the encoder."""
    width = config.d_model
    convolutions = 2 * 3 * config.num_mel_bins * width + 3 * width**2
    layer = 4 * width**2 + 2 * width * config.encoder_ffn_dim
    attention = 2 * frames * width
    return (
        2
        * frames
        * (convolutions + config.encoder_layers * (layer + attention))
    )


@torch.no_grad()
def multiplication_speed(width, hidden, repeats=50):
    """FLOP per second of a linear layer of that shape, in float32."""
    rows = 1000
    x, layer = torch.randn(rows, width), torch.nn.Linear(width, hidden)
    times = in_turns({"linear": lambda: layer(x)}, repeats, warm_up=3)
    # A floor: not slowed down by what the machine does besides.
    return 2 * rows * width * hidden / min(times["linear"])


@torch.no_grad()
def main():
    """Check, time in turns, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--utterances", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        folder = str(whisper_base(arguments.data, scratch))
        rows = sample_of(
            arguments.data, ["RAVDESS", "EmoDB"], arguments.utterances, scratch
        )
        wavs = [load_audio(row["wav"]) for row in rows]
        encoder = WhisperEncoder(folder)
        halved = WhisperEncoder(folder, dtype="bfloat16")
        padded = WhisperEncoder(folder, pad_to_30s=True)
        peer = Whisper(folder, str(scratch), encoder_only=True, freeze=True)
    # The folder may hold float16, which the peer would try to run.
    peer.model.float()
    batches = batches_of(wavs, arguments.batch)
    check(encoder, padded, peer, wavs[0], batches)
    times = in_turns(
        {
            "ours": lambda: encode(encoder, batches),
            "peer": lambda: [peer(padded) for padded, _ in batches],
            "one pass": lambda: encode_in_one_pass(encoder, batches),
            "bfloat16": lambda: encode(halved, batches),
        },
        arguments.repeats,
    )
    seconds = sum(map(len, wavs)) / SAMPLE_RATE
    config = encoder.model.config
    speed = multiplication_speed(config.d_model, config.encoder_ffn_dim)
    frames = [-(-len(wav) // SAMPLES_PER_FRAME) for wav in wavs]
    floor = sum(flops(config, number) for number in frames) / speed
    median = {name: statistics.median(t) for name, t in times.items()}
    question = (
        f"encode {len(wavs)} utterances ({seconds:.0f} s), batches of "
        f"{arguments.batch}"
    )
    answers = [
        Row(
            question,
            against,
            median_ratio(times[theirs], times[ours]),
            target,
            True,
            f"{seconds / median[ours]:.3g} s of audio per second, "
            f"{seconds / median[theirs]:.3g}; the first takes "
            f"{median[ours] / floor:.2f} times the floor "
            f"({speed / 1e9:.0f} GFLOP/s)",
        )
        for ours, theirs, against, target in (
            ("ours", "peer", "SpeechBrain's lobe, 30 s each", 6.0),
            ("ours", "one pass", "without passes of similar length", 1.0),
            ("bfloat16", "ours", "bfloat16 against float32", 1.0),
        )
    ]
    report("encode", answers, {**vars(arguments), "data": str(arguments.data)})


if __name__ == "__main__":
    main()
