#!/usr/bin/env python3
"""What does the contrastive loss of a large batch cost?

Against the same double sum as whole matrices (similarities, mask, costs),
whose gradient autograd finds: loss and gradient, on the same embeddings,
timed in turns; peak memory of one step, each in a process of its own. Loss
and gradient must be equal first.

At 4,096 utterances a matrix of all pairs is 64 MiB in float32, and the whole
matrices are several; a block of 256 rows is 4 MiB. A usual batch is smaller
than a block: there is nothing to save, and the calls themselves are what is
timed (0.2 ms at 32 utterances, an eighth more than the plain formula).

Usage: python benchmarks/contrastive.py [--batches 32 256 1024 4096]
"""

import argparse
import statistics
from functools import partial

import torch
import torch.nn.functional as F
from memory import MEBIBYTE, peak_memory
from report import Row, in_turns, median_ratio, report

from speechbrain_mser.losses import EmotionContrastiveLoss

MARGIN = 0.1
# Below this a matrix of all pairs is hardly larger than the embeddings are.
SMALLEST_FOR_MEMORY = 2048
# Enough for the libraries to set up what they keep, whatever the batch.
WARM_UP = 64


def whole_matrices(embeddings, emotions):
    """Eq. 1 written as it is read."""
    directions = F.normalize(embeddings, dim=-1)
    similarity = directions @ directions.T
    same = emotions[:, None] == emotions[None, :]
    pull = 1 - similarity
    push = F.relu(similarity - MARGIN)
    return torch.where(same, pull, push).sum()


WAYS = {"ours": EmotionContrastiveLoss(margin=MARGIN), "whole": whole_matrices}


def prepare(way, batch, dim):
    """A step of one way: its loss and its gradient."""
    torch.manual_seed(0)
    # Not around the origin, so that similarities lie on both sides of m.
    embeddings = (torch.randn(batch, dim) + 0.3).requires_grad_()
    emotions = torch.randint(7, (batch,))

    def step():
        loss = WAYS[way](embeddings, emotions)
        return loss.detach(), *torch.autograd.grad(loss, embeddings)

    return step


def repeat(step, times):
    """A step again and again."""
    for _ in range(times):
        step()


def prepare_warm(way, batch, dim):
    """The same, after a step with another batch."""
    prepare(way, WARM_UP, dim)()
    return prepare(way, batch, dim)


def check(steps, batch):
    """Equal losses and gradients, or no benchmark."""
    (loss, gradient), (expected, slope) = steps["ours"](), steps["whole"]()
    if not torch.allclose(loss, expected, rtol=1e-5):
        raise SystemExit(f"batch {batch}: loss {loss}, expected {expected}")
    worst = ((gradient - slope).abs().max() / slope.abs().max()).item()
    if worst > 1e-4:
        raise SystemExit(f"batch {batch}: gradients differ by {worst}")


def main():
    """Check, time in turns, measure memory, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[32, 256, 1024, 4096]
    )
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    against = "the double sum as whole matrices"
    rows = []
    for batch in arguments.batches:
        steps = {way: prepare(way, batch, arguments.dim) for way in WAYS}
        check(steps, batch)
        # A step of a small batch is too short to be timed alone.
        n_steps = max(1, 4096 // batch)
        times = in_turns(
            {
                way: partial(repeat, step, n_steps)
                for way, step in steps.items()
            },
            arguments.repeats,
        )
        ours, whole = (
            1000 * statistics.median(times[way]) / n_steps for way in WAYS
        )
        rows.append(
            Row(
                f"contrastive loss and gradient, batch {batch:,}: time",
                against,
                median_ratio(times["ours"], times["whole"]),
                1.0,
                False,
                f"{ours:.3g} ms, {whole:.3g} ms",
            )
        )
        if batch < SMALLEST_FOR_MEMORY:
            continue
        ours, whole = (
            peak_memory(prepare_warm, way, batch, arguments.dim) for way in WAYS
        )
        rows.append(
            Row(
                f"contrastive loss and gradient, batch {batch:,}: peak memory",
                against,
                ours / whole,
                1.0,
                False,
                f"{ours / MEBIBYTE:.0f} MiB, {whole / MEBIBYTE:.0f} MiB",
            )
        )
    report("contrastive", rows, vars(arguments))


if __name__ == "__main__":
    main()
