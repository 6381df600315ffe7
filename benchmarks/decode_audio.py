#!/usr/bin/env python3
"""How fast do 44.1 and 48 kHz files become 16 kHz mono?

16-bit WAV files with RAVDESS's durations, and its speech under a little noise
up to their own Nyquist frequency, on one thread as in a DataLoader's worker:
`load_audio` against what SpeechBrain's users do. SpeechBrain 1.1.2 reads with
soundfile (``read_audio``) and resamples with torchaudio, in recipes with a
``torchaudio.transforms.Resample`` that is built for each utterance (such as
CommonVoice's), in its pretrained interfaces with an `AudioNormalizer` that
keeps it. The signals must be close first.

The two filters are not alike. torchaudio's default looks 6 zero crossings far;
soxr's HQ, ours, is a studio's. Measured on the log-mel of such files, against
soxr's VHQ: HQ is 0.03 dB off, MQ 0.06 dB, torchaudio's default 0.6 dB, LQ
(which folds what is above 8 kHz back) 3 dB. MQ saves 5 % of HQ's time.

soxr takes two thirds of our time, so that no reader, however fast, makes mono
files four times faster than torchaudio's short filter where that is kept.

Without the data folder: noise of RAVDESS's durations.

Usage: python benchmarks/decode_audio.py [--data ../shared/data]
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
import torchaudio
from material import sample_of
from report import ROOT, Row, in_turns, median_ratio, report
from speechbrain.dataio import audio_io
from speechbrain.dataio.dataio import read_audio
from speechbrain.dataio.preprocess import AudioNormalizer

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.dataio.audio import load_audio

# Relative, root mean square; white noise has a part of this just below 8 kHz,
# where filters differ (speech is ten times closer).
CLOSE = 0.1


def write_files(wavs, rate, n_channels, folder):
    """Speech at another rate, its channels a little different."""
    rng = np.random.default_rng(0)
    paths = []
    for number, wav in enumerate(wavs):
        samples = soxr.resample(wav.numpy(), SAMPLE_RATE, rate, "VHQ")
        noise = rng.standard_normal((len(samples), n_channels))
        samples = samples[:, None] + 1e-3 * np.abs(samples).max() * noise
        paths.append(f"{folder}/{rate}_{n_channels}_{number}.wav")
        soundfile.write(paths[-1], samples, rate, "PCM_16")
    return paths


def as_recipes_do(path):
    """``[time]``: read, resample, average."""
    rate = audio_io.info(path).sample_rate
    signal = read_audio(path)  # [time] or [time, channel]
    resample = torchaudio.transforms.Resample(rate, SAMPLE_RATE)
    if signal.ndim == 1:
        return resample(signal)
    return resample(signal.T).mean(0)


def as_interfaces_do(normalizer, path):
    """``[time]``, with a resampler that is there already."""
    signal, rate = audio_io.load(path, channels_first=False)
    return normalizer(signal.squeeze(1), rate)


def check(ways, path):
    """Stop unless the signals are close."""
    ours, *others = (way(path) for way in ways.values())
    for name, theirs in zip(list(ways)[1:], others, strict=True):
        # soxr and torchaudio may differ by a sample in the end.
        n = min(len(ours), len(theirs))
        differ = ((ours[:n] - theirs[:n]).norm() / ours.norm()).item()
        if abs(len(ours) - len(theirs)) > 1 or not differ <= CLOSE:
            raise SystemExit(
                f"{name}: the signal of {path} is {differ:.2g} off"
            )


def main():
    """Check, time in turns, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--utterances", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    normalizer = AudioNormalizer(SAMPLE_RATE)
    ways = {
        "ours": load_audio,
        "SpeechBrain's recipes": as_recipes_do,
        "SpeechBrain's AudioNormalizer": lambda path: as_interfaces_do(
            normalizer, path
        ),
    }
    answers = []
    with tempfile.TemporaryDirectory() as scratch:
        rows = sample_of(
            arguments.data, ["RAVDESS"], arguments.utterances, Path(scratch)
        )
        wavs = [load_audio(row["wav"]) for row in rows]
        seconds = sum(map(len, wavs)) / SAMPLE_RATE
        for rate, n_channels in ((44100, 1), (48000, 1), (48000, 2)):
            paths = write_files(wavs, rate, n_channels, scratch)
            check(ways, paths[0])
            times = in_turns(
                {
                    name: lambda way=way, paths=paths: [*map(way, paths)]
                    for name, way in ways.items()
                },
                arguments.repeats,
            )
            median = {name: statistics.median(t) for name, t in times.items()}
            answers += [
                Row(
                    f"decode {rate / 1000:g} kHz, "
                    f"{'mono' if n_channels == 1 else 'stereo'}",
                    name,
                    median_ratio(times[name], times["ours"]),
                    4.0,
                    True,
                    f"{seconds / median['ours']:.3g} s of audio per second, "
                    f"{seconds / median[name]:.3g}",
                )
                for name in list(ways)[1:]
            ]
    report(
        "decode_audio",
        answers,
        {**vars(arguments), "data": str(arguments.data)},
    )


if __name__ == "__main__":
    main()
