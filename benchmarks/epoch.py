#!/usr/bin/env python3
"""What does an epoch of stage 1 cost, with the feature store and without?

The training of `make real` (Whisper-base, all layers; a Q-Former of BERT's
shape, 6 layers of width 384; a small LLaMA) on a sample of RAVDESS: the
peer's way (audio padded to 30 s and encoded in every epoch, logits of every
position over the whole vocabulary), ours without the store, ours while the
store is filled, and ours from the store. The same batches in the same order;
the losses are compared first.

Without the data folder: noise of RAVDESS's durations and random weights.

Usage: python benchmarks/epoch.py [--data ../shared/data] [--utterances 64]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from material import emotional_llama, sample_of, whisper_base
from report import Row, report
from speechbrain import Stage
from speechbrain.utils.epoch_loop import EpochCounter

from speechbrain_mser.brain import EmotionBrain
from speechbrain_mser.dataio.cached_encoding import open_store
from speechbrain_mser.dataio.utterances import make_dataset
from speechbrain_mser.lobes.llama import EmotionLLaMA
from speechbrain_mser.lobes.qformer import EmotionQFormer
from speechbrain_mser.lobes.whisper import WhisperEncoder
from speechbrain_mser.losses import EmotionContrastiveLoss
from speechbrain_mser.training.terms import mean_terms


class FullLogitsLLaMA(EmotionLLaMA):
    """The peers' loss: logits of every position, ignored but for the words."""

    def loss(self, audio, words):
        """Cross entropy with transformers' own labels."""
        targets = [self.word_tokens(word) for word in words]
        longest = max(map(len, targets))
        padded = torch.tensor(
            [
                t + [self._around().end_token] * (longest - len(t))
                for t in targets
            ]
        )
        labels = torch.tensor(
            [t + [-100] * (longest - len(t)) for t in targets]
        )
        prefix = self._prefix(audio)
        inputs = torch.cat([prefix, self._embed(padded)], dim=1)
        unused = torch.full(prefix.shape[:2], -100)
        logits = self.model(inputs_embeds=inputs).logits.float()
        return F.cross_entropy(
            logits[:, :-1].flatten(0, 1),
            torch.cat([unused, labels], dim=1)[:, 1:].flatten(),
            ignore_index=-100,
        )


class TimedBrain(EmotionBrain):
    """Notes what each epoch took, and its losses."""

    def on_stage_start(self, stage, epoch=None):
        """Start the clock."""
        super().on_stage_start(stage, epoch)
        self.began = time.perf_counter()

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Stop it."""
        if stage == Stage.TRAIN:
            self.hparams.seconds.append(time.perf_counter() - self.began)
            self.hparams.losses.append(mean_terms(self.terms)["loss"])


def train(models, table, words, epochs, pad_to_30s=False, store=None):
    """Train from the same beginning; seconds and mean loss of each epoch."""
    whisper = WhisperEncoder(
        models["whisper"], layers="all", pad_to_30s=pad_to_30s
    )
    llama_class = FullLogitsLLaMA if pad_to_30s else EmotionLLaMA
    llama = llama_class(models["llama"])
    torch.manual_seed(0)
    connector = EmotionQFormer(
        whisper.hidden_size,
        llama.hidden_size,
        n_input_layers=whisper.n_output_layers,
        n_queries=8,
        dropout=0.0,
        n_layers=6,
        hidden_size=384,
        n_heads=12,
        intermediate_size=1536,
    )
    if store is not None:
        store = open_store(whisper, "write", store, "float16")
    hparams = {
        "contrastive_loss": EmotionContrastiveLoss(reduction="balanced"),
        "ce_weight": 1.0,
        "label_words": words,
        "lr": 1e-4,
        "warmup": 0.0,
        "cooldown": 0.0,
        "statistics_utterances": 8,
        "on_bad_utterance": "stop",
        "epoch_counter": EpochCounter(epochs),
        "feature_store": store,
        "seconds": [],
        "losses": [],
    }
    brain = TimedBrain(
        {"encoder": whisper, "connector": connector, "llm": llama},
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-4),
        hparams,
        run_opts={"noprogressbar": True},
    )
    brain.fit(
        hparams["epoch_counter"],
        make_dataset(table, store),
        train_loader_kwargs={"batch_size": 32},
    )
    return hparams["seconds"], hparams["losses"]


def check(losses):
    """Equal losses in the first epoch, or no benchmark."""
    ours = losses["ours, store off"]
    for way, theirs in losses.items():
        # Padding to 30 s gives other features, of much the same loss.
        limit = 0.1 if way == "padded to 30 s" else 2e-3
        if abs(theirs[0] - ours[0]) > limit * abs(ours[0]):
            raise SystemExit(f"{way}: loss {theirs[0]}, expected {ours[0]}")


def main():
    """Train in every way, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--utterances", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        rows = sample_of(
            arguments.data, ["RAVDESS"], arguments.utterances, scratch
        )
        table = pd.DataFrame(rows)
        words = sorted(set(table.emotion))
        models = {
            "whisper": whisper_base(arguments.data, scratch),
            "llama": emotional_llama(scratch),
        }
        ways = {"ours, store off": [], "filling": [], "stored": []}
        losses = {}
        for repeat in range(arguments.repeats):
            seconds, losses["ours, store off"] = train(models, table, words, 1)
            ways["ours, store off"] += seconds
            store = scratch / f"features{repeat}"
            seconds, losses["ours, stored"] = train(
                models, table, words, 3, store=store
            )
            ways["filling"].append(seconds[0])
            ways["stored"] += seconds[1:]
        padded, losses["padded to 30 s"] = train(
            models, table, words, 1, pad_to_30s=True
        )
        check(losses)
    median = {name: statistics.median(times) for name, times in ways.items()}
    speech = table.duration.sum()
    filling = statistics.median(
        a / b
        for a, b in zip(ways["filling"], ways["ours, store off"], strict=True)
    )
    report(
        "epoch",
        [
            Row(
                f"stage-1 epoch on {len(table)} utterances of RAVDESS, second "
                "epoch on",
                "30 s padding, no store, full logits",
                padded[0] / median["stored"],
                20,
                True,
                f"{median['stored']:.1f} s, {padded[0]:.1f} s "
                f"({speech:.0f} s of speech)",
            ),
            Row(
                "first epoch, store being filled",
                "store off",
                filling,
                1.1,
                False,
                f"{median['filling']:.1f} s, {median['ours, store off']:.1f} s",
            ),
        ],
        vars(arguments) | {"data": str(arguments.data)},
    )


if __name__ == "__main__":
    main()
