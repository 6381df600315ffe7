#!/usr/bin/env python3
"""How much of a GPU do training and recognition use at the real size?

Whisper-large-v3, a Q-Former of BERT-base's shape with 32 queries and LLaMA-3
8B, with random weights, frozen models in bfloat16, training under bfloat16
autocast by `EmotionBrain` itself. Utilisation is the FLOPs that the answer
needs (`flops.py` says how they are counted) by the time it took, against what
the same GPU does in one large bfloat16 product. An utterance has 4 s unless
said otherwise; only its own frames count.

What fails (out of memory, say) is reported and the rest goes on; what no
longer fits into the time is left out and named. The JSON is written after
every section.

Usage: python benchmarks/gpu.py [--minutes 8] [--output gpu.json]
To try the script: python benchmarks/gpu.py --device cpu --shapes tiny
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from encode import flops as encoder_flops
from epoch import TimedBrain
from flops import layer_shapes, llama_flops, qformer_flops
from gpu_bench import WARM_UP, Bench
from material import sample_of
from random_models import SHAPES, random_llama, random_peer, random_whisper
from report import RESULTS
from score import prefill
from speechbrain.utils.epoch_loop import EpochCounter
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.dataio.batching import UtteranceBatch
from speechbrain_mser.dataio.cached_encoding import open_store
from speechbrain_mser.dataio.utterances import StoredUtterance, make_dataset
from speechbrain_mser.emotions import CANONICAL
from speechbrain_mser.features.store import FeatureStore, UtteranceKey
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.lobes.encoder import FRAMES_PER_PASS_ELSEWHERE
from speechbrain_mser.lobes.whisper import SAMPLES_PER_FRAME
from speechbrain_mser.losses import EmotionContrastiveLoss

SECONDS = 4
FRAMES = SECONDS * SAMPLE_RATE // SAMPLES_PER_FRAME
NEW_TOKENS = 10
TOP_KERNELS = 15
NAME_LENGTH = 100
# Rounding in bfloat16, through all layers.
TOLERANCE = 0.05
# What the rows should reach.
TRAINING_UTILISATION = 0.55
TRAINING_MEMORY = 24e9
ENCODING_UTILISATION = 0.45
SCORE_BY_PREFILL = 1.25
GENERATE_BY_SCORE = 2.0
PEER_BY_OURS = 6.0


# The machine


def machine(bench):
    """What the GPU does when asked for nothing else."""
    side = bench.shape.matrix
    bench.add(
        "machine",
        what=f"product of {side}³",
        tflops=bench.rate / 1e12,
        of_it=1.0,
    )
    config = bench.llama.model.config
    tokens = prefix_tokens(bench) + 1
    for batch in bench.shape.batches:
        # The forward products of one layer: what a batch of this size can
        # reach at best.
        rate = bench.product_rate(batch * tokens, layer_shapes(config))
        bench.add(
            "machine",
            what=f"products of an LLM's layer, {batch} x {tokens} tokens",
            tflops=rate / 1e12,
            of_it=rate / bench.rate,
        )
    source = torch.ones(
        bench.shape.copied, dtype=torch.uint8, device=bench.device
    )
    target = torch.empty_like(source)
    seconds = bench.seconds(partial(target.copy_, source))
    bench.add(
        "machine",
        what="copy in memory, read and written",
        gb_per_second=2 * bench.shape.copied / seconds / 1e9,
    )


def prefix_tokens(bench):
    """How long the LLM's input is before the emotion word."""
    with torch.no_grad():
        return bench.llama._prefix(bench.audio_tokens(1)).shape[1]


# Training


class StoredFeatures(torch.utils.data.Dataset):
    """Utterances as a feature store gives them, in memory."""

    def __init__(self, count, frames, dim):
        self.count = count
        features = torch.randn(min(count, 64), frames, dim)
        self.features = features.to(torch.bfloat16)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        name = str(index)
        return {
            "id": name,
            "sig": StoredUtterance(
                UtteranceKey(name.encode(), b"", b"", known=True),
                features=self.features[index % len(self.features)],
            ),
            "emotion": CANONICAL[index % len(CANONICAL)],
        }


class SteppedBrain(TimedBrain):
    """Notes what each step took, data loading left out."""

    def fit_batch(self, batch):
        """A step. Its loss comes back to the host, so the device is done."""
        start = time.perf_counter()
        loss = super().fit_batch(batch)
        self.hparams.steps.append(time.perf_counter() - start)
        return loss


def train(bench, dataset, store, epochs=1, **loader):
    """Train a new connector as stage1.yaml does; the brain knows the times."""
    hparams = {
        "contrastive_loss": EmotionContrastiveLoss(),
        "ce_weight": 1.0,
        "label_words": list(CANONICAL),
        "lr": 1e-5,
        "warmup": 0.0,
        "cooldown": 0.0,
        "statistics_utterances": 8,
        "on_bad_utterance": "stop",
        "epoch_counter": EpochCounter(epochs),
        "feature_store": store,
        "seconds": [],
        "losses": [],
        "steps": [],
    }
    brain = SteppedBrain(
        {
            "encoder": bench.whisper,
            "connector": bench.connector(),
            "llm": bench.llama,
        },
        partial(torch.optim.AdamW, lr=1e-5, weight_decay=1e-6),
        hparams,
        run_opts={
            "device": bench.device,
            "precision": "bf16",
            "noprogressbar": True,
        },
    )
    brain.fit(hparams["epoch_counter"], dataset, train_loader_kwargs=loader)
    return brain


def train_cached(bench, batch):
    """Train on features that are in memory already."""
    bench.collect()
    steps = WARM_UP + bench.settings.repeats
    dataset = StoredFeatures(steps * batch, FRAMES, bench.whisper.hidden_size)
    # Never looked into: whoever has the features knows their names.
    store = FeatureStore(bench.scratch, {"made": "at random"}, dtype="bfloat16")
    return train(bench, dataset, store, batch_size=batch)


def step_flops(bench, brain, batch):
    """Of a training step, forward and backward."""
    tokens = prefix_tokens(bench) + 1
    llm = llama_flops(bench.llama.model.config, tokens, 2, backward=True)
    connector = qformer_flops(brain.raw("connector"), batch, FRAMES)
    return batch * llm + 3 * connector


def cached_training(bench, name, batch):
    """Speed, utilisation and memory of one batch size."""
    brain = train_cached(bench, batch)
    seconds = statistics.median(brain.hparams.steps[WARM_UP:])
    utilisation = bench.utilisation(step_flops(bench, brain, batch), seconds)
    peak = bench.peak()
    bench.add(
        name,
        batch=batch,
        ms=1e3 * seconds,
        utterances_per_second=batch / seconds,
        utilisation=utilisation,
        peak_gb=None if peak is None else peak / 1e9,
    )
    return seconds, utilisation, peak


def training(bench, batch):
    """Cached training as the recipes do it."""
    name = "cached training"
    seconds, utilisation, peak = cached_training(bench, name, batch)
    if batch != bench.shape.batch:
        return
    question = f"{name}, batch {batch}"
    bench.answer(
        question,
        "the GPU's bfloat16 rate",
        utilisation,
        TRAINING_UTILISATION,
        True,
        f"{1e3 * seconds:.3g} ms, {batch / seconds:.4g} utterances/s",
    )
    if peak is not None:
        bench.answer(
            f"{question}: peak memory",
            f"{TRAINING_MEMORY / 1e9:g} GB",
            peak / TRAINING_MEMORY,
            1.0,
            False,
            f"{peak / 1e9:.3g} GB",
        )


def checkpointing(bench):
    """The same with the LLM's layers computed again for the backward pass."""
    # Both at once would be in the peak of each.
    del bench.llama
    bench.collect()
    bench.llama = random_llama(
        bench.shape, bench.device, bench.scratch, activation_checkpointing=True
    )
    for batch in bench.shape.batches:
        bench.attempt(
            f"training with checkpointing, batch {batch}",
            partial(
                cached_training, bench, "training with checkpointing", batch
            ),
        )
    # Whoever comes next makes a plain one.
    del bench.llama


def stored_training(bench):
    """Whole epochs: the first fills the store on disk, the second reads it."""
    rows = sample_of(bench.scratch, ["real"], bench.shape.stored, bench.scratch)
    store = open_store(
        bench.whisper, "write", bench.scratch / "features", "bfloat16"
    )
    dataset = make_dataset(pd.DataFrame(rows), store)
    batch = bench.shape.batch
    brain = train(
        bench, dataset, store, epochs=2, batch_size=batch, num_workers=2
    )
    each = len(brain.hparams.steps) // 2
    for epoch, seconds in enumerate(brain.hparams.seconds):
        steps = brain.hparams.steps[epoch * each : (epoch + 1) * each]
        bench.add(
            "epochs of 3 to 5 s utterances with the store on disk",
            epoch=("store being filled", "from the store")[epoch],
            batch=batch,
            utterances_per_second=len(rows) / seconds,
            part_in_steps=sum(steps) / seconds,
        )


# Encoding


def speech(bench, durations):
    """Noise of so many seconds each, padded, and relative lengths."""
    lengths = torch.tensor(durations) * SAMPLE_RATE
    wavs = 0.1 * torch.randn(len(durations), int(lengths.max()))
    return wavs.to(bench.device), (lengths / lengths.max()).to(bench.device)


def durations_of(kind, batch):
    """Seconds of each utterance: all alike, or from 2 to 10 in steps."""
    if kind == "4 s":
        return [float(SECONDS)] * batch
    return [2.0 + 8.0 * i / max(batch - 1, 1) for i in range(batch)]


def encoding(bench, kind, batch):
    """Speed and utilisation of one batch."""
    durations = durations_of(kind, batch)
    wavs, lens = speech(bench, durations)
    seconds = bench.seconds(partial(bench.whisper, wavs, lens))
    config = bench.whisper.model.config
    lengths = (lens * wavs.shape[1]).round().long().tolist()
    flops = sum(
        encoder_flops(config, -(-length // SAMPLES_PER_FRAME))
        for length in lengths
    )
    utilisation = bench.utilisation(flops, seconds)
    bench.add(
        "encoding",
        utterances=kind,
        batch=batch,
        ms=1e3 * seconds,
        utterances_per_second=batch / seconds,
        audio_seconds_per_second=sum(durations) / seconds,
        utilisation=utilisation,
    )
    if kind == "4 s" and batch == bench.shape.batch:
        bench.answer(
            f"encoding {kind} utterances, batch {batch}",
            "the GPU's bfloat16 rate",
            utilisation,
            ENCODING_UTILISATION,
            True,
            f"{1e3 * seconds:.3g} ms, {batch / seconds:.4g} utterances/s",
        )


def pass_cost(bench):
    """What a further pass costs: the lobe splits batches by an estimate."""
    took = {
        row["batch"]: row["ms"]
        for row in bench.tables["encoding"]
        if row["utterances"] == "4 s"
    }
    largest = max(took)
    frames_per_ms = largest * FRAMES / took[largest]
    bench.add(
        "a further pass through the encoder",
        frames_meanwhile=took[1] * frames_per_ms - FRAMES,
        assumed=FRAMES_PER_PASS_ELSEWHERE,
    )


@torch.no_grad()
def peer(bench):
    """SpeechBrain's lobe, which pads to 30 s, with the same weights."""
    theirs = random_peer(bench.shape, bench.device, bench.scratch)
    padded = random_whisper(
        bench.shape, bench.device, bench.scratch, pad_to_30s=True
    )
    padded.model = theirs.model = bench.whisper.model

    def encode(wavs):
        # The lobe would hand float32 to weights in bfloat16.
        return theirs.forward_encoder(theirs._get_mel(wavs).bfloat16())

    batch = bench.shape.batch
    wavs, lens = speech(bench, [float(SECONDS)] * batch)
    # One utterance: theirs depend on the loudest of a batch.
    ours = padded(wavs[:1])[0].float()
    difference = ours - encode(wavs[:1])[:, : ours.shape[1]].float()
    worst = (difference.norm() / ours.norm()).item()
    if not worst <= TOLERANCE:
        raise ValueError(f"features differ by {worst:.3g} of their norm")
    times = bench.times(
        {
            "ours": partial(bench.whisper, wavs, lens),
            "theirs": partial(encode, wavs),
        }
    )
    bench.compare(
        f"encoding 4 s utterances, batch {batch}",
        "SpeechBrain's lobe, 30 s each",
        times,
        ("theirs", "ours"),
        PEER_BY_OURS,
        True,
    )


# Recognition


def recognition(bench, batch):
    """From audio in the host's memory to words."""
    bench.collect()
    system = EmotionRecognizer(
        modules={
            "encoder": bench.whisper,
            "connector": bench.connector(),
            "llm": bench.llama,
        },
        hparams={"label_words": list(CANONICAL)},
        run_opts={"device": bench.device, "precision": "bf16"},
    )
    wavs, _ = speech(bench, [float(SECONDS)] * batch)
    seconds = bench.seconds(partial(system.recognize_batch, wavs.cpu()))
    words = len(CANONICAL)
    llm = llama_flops(
        bench.llama.model.config, prefix_tokens(bench) + words, words + 1
    )
    flops = batch * (encoder_flops(bench.whisper.model.config, FRAMES) + llm)
    flops += qformer_flops(system.mods.connector, batch, FRAMES)
    bench.add(
        "recognition, 7 labels",
        batch=batch,
        ms=1e3 * seconds,
        utterances_per_second=batch / seconds,
        utilisation=bench.utilisation(flops, seconds),
    )


def scoring(bench, batch):
    """Seven words' scores against reading the prefix, and free decoding."""
    audio = bench.audio_tokens(batch)
    llama = bench.llama
    times = bench.times(
        {
            "score": lambda: llama.score(audio, CANONICAL),
            "prefill": lambda: prefill(llama, audio),
            "generate": lambda: llama.generate(audio, NEW_TOKENS),
        }
    )
    question = f"score {len(CANONICAL)} words, batch {batch}"
    bench.compare(
        question,
        "one prefill of the prefix",
        times,
        ("score", "prefill"),
        SCORE_BY_PREFILL,
        False,
    )
    bench.compare(
        question,
        f"free decoding of up to {NEW_TOKENS} tokens",
        times,
        ("generate", "score"),
        GENERATE_BY_SCORE,
        True,
    )


# Where the time goes


def kernels(bench, name, way):
    """The kernels of one call that take most of the device's time."""
    seconds = bench.seconds(way)
    activities = [ProfilerActivity.CPU]
    kind, spent = DeviceType.CPU, "self_cpu_time_total"
    if bench.on_gpu:
        activities.append(ProfilerActivity.CUDA)
        kind, spent = DeviceType.CUDA, "self_device_time_total"
    with profile(activities=activities) as profiler:
        way()
        bench.finish()
    # An operator's row counts its kernels again, and so do spans that the
    # optimizer marks.
    events = [
        event
        for event in profiler.key_averages()
        if event.device_type == kind
        and not getattr(event, "is_user_annotation", False)
    ]
    busy = sum(getattr(event, spent) for event in events)  # microseconds
    bench.add(
        "where the time goes",
        what=name,
        ms=1e3 * seconds,
        busy_ms=busy / 1e3,
        busy_part=busy / 1e6 / seconds,
        launched=sum(event.count for event in events),
    )
    events.sort(key=lambda event: -getattr(event, spent))
    for event in events[:TOP_KERNELS]:
        bench.add(
            f"kernels: {name}",
            kernel=event.key[:NAME_LENGTH].replace("|", "/"),
            calls=event.count,
            percent=100 * getattr(event, spent) / max(busy, 1e-9),
        )


def profile_training(bench):
    """A training step's kernels."""
    batch = bench.shape.batch
    brain = train_cached(bench, batch)
    dataset = StoredFeatures(batch, FRAMES, bench.whisper.hidden_size)
    examples = [dataset[i] for i in range(batch)]
    kernels(
        bench,
        f"a training step, batch {batch}",
        lambda: brain.fit_batch(UtteranceBatch(examples)),
    )


def profile_encoding(bench):
    """An encoding pass's kernels."""
    batch = bench.shape.batch
    wavs, lens = speech(bench, [float(SECONDS)] * batch)
    kernels(
        bench,
        f"encoding, batch {batch}",
        partial(bench.whisper, wavs, lens),
    )


def sections(bench):
    """Names, work and about how many seconds, the most important first."""
    batches, usual = bench.shape.batches, bench.shape.batch
    work = [("the machine's own rates", partial(machine, bench), 30)]
    work += [
        (f"cached training, batch {batch}", partial(training, bench, batch), 20)
        for batch in sorted(batches, key=lambda batch: batch != usual)
    ]
    work += [
        (
            f"encoding {kind}, batch {batch}",
            partial(encoding, bench, kind, batch),
            5,
        )
        for kind in ("4 s", "2 to 10 s")
        for batch in (1, *batches)
    ]
    work += [("the cost of a pass", partial(pass_cost, bench), 1)]
    work += [
        (f"recognition, batch {batch}", partial(recognition, bench, batch), 10)
        for batch in (1, *batches[:-1])
    ]
    work += [
        (f"scoring, batch {batch}", partial(scoring, bench, batch), 20)
        for batch in (1, usual)
    ]
    # After what it might slow down: the profiler stays with the process.
    return [
        *work,
        ("profile of a training step", partial(profile_training, bench), 30),
        ("profile of encoding", partial(profile_encoding, bench), 20),
        ("training with checkpointing", partial(checkpointing, bench), 40),
        ("SpeechBrain's lobe", partial(peer, bench), 20),
        ("epochs with the store", partial(stored_training, bench), 60),
    ]


def main():
    """All sections that fit into the time; the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", choices=sorted(SHAPES), default="real")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu.json")
    settings = parser.parse_args()
    if settings.device == "cuda" and not torch.cuda.is_available():
        print("no GPU: nothing measured")
        return
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(settings, Path(scratch))
        for name, work, seconds in sections(bench):
            bench.attempt(name, work, seconds)
    bench.print()


if __name__ == "__main__":
    main()
