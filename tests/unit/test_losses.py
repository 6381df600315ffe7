"""Eq. 1: on paper, against a double loop, and across processes."""

import math

import pytest
import torch
from torch import nn

from speechbrain_mser.errors import InputError
from speechbrain_mser.losses import REDUCTIONS, EmotionContrastiveLoss

# Five utterances in the plane, by their angle in degrees and their emotion:
#
#     0 A   20 A   40 B   60 B   80 A
#
# Pairs of the same emotion lie 20 (0-20), 80 (0-80), 60 (20-80) and 20
# (40-60) degrees apart; pairs of different ones 40 (0-40), 60 (0-60), 20
# (20-40), 40 (20-60), 40 (40-80) and 20 (60-80). The cosines are
#
#     20: 0.939693   40: 0.766044   60: 0.500000   80: 0.173648
#
#     same       2 (1 - 0.939693) + (1 - 0.5) + (1 - 0.173648)  =  1.446966
#     different  2 * 0.939693 + 3 * 0.766044 + 0.5              =  4.677518
#
# and the double sum of Eq. 1 meets every pair twice.
ANGLES = [0, 20, 40, 60, 80]
LABELS = [0, 0, 1, 1, 0]
SAME, DIFFERENT = 1.446966, 4.677518


def at_angles(degrees, norms=None):
    """Vectors in the plane, ``[n, 2]``."""
    radians = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    vectors = torch.stack([radians.cos(), radians.sin()], dim=-1)
    return vectors if norms is None else vectors * torch.tensor(norms)[:, None]


def double_loop(embeddings, labels, w1, w2, margin, reduction):
    """Eq. 1 as it is written, in plain Python floats."""
    rows = embeddings.double().tolist()
    pulls, pushes = [], []
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            dot = sum(x * y for x, y in zip(a, b, strict=True))
            similarity = dot / math.hypot(*a) / math.hypot(*b)
            if labels[i] == labels[j]:
                pulls.append((i, j, w1 * (1 - similarity)))
            else:
                pushes.append((i, j, w2 * max(0.0, similarity - margin)))
    if reduction == "balanced":
        pulls = [pair for pair in pulls if pair[0] != pair[1]]
        return sum(
            sum(cost for *_, cost in pairs) / len(pairs)
            for pairs in (pulls, pushes)
            if pairs
        )
    total = sum(cost for *_, cost in pulls + pushes)
    return total if reduction == "sum" else total / len(rows) ** 2


def random_batch(n=9, dim=5, classes=3, seed=0):
    """Embeddings of any norm, and labels."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (n,), generator=generator)
    return 3 * embeddings, labels


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 2 * (SAME + DIFFERENT)),
        ({"w1": 2.0, "w2": 3.0}, 2 * (2 * SAME + 3 * DIFFERENT)),
        # above 0.8 are the two pairs at 20 degrees, each by 0.139693
        ({"margin": 0.8}, 2 * (SAME + 2 * 0.139693)),
        # all are above -0.5: each of the 6 costs half more
        ({"margin": -0.5}, 2 * (SAME + DIFFERENT + 6 * 0.5)),
        ({"margin": 0.95}, 2 * SAME),
        ({"reduction": "mean"}, 2 * (SAME + DIFFERENT) / 25),
        ({"reduction": "balanced"}, SAME / 4 + DIFFERENT / 6),
        (
            {"reduction": "balanced", "w1": 2.0, "w2": 3.0, "margin": 0.8},
            2 * SAME / 4 + 3 * 2 * 0.139693 / 6,
        ),
    ],
)
def test_the_loss_is_the_one_worked_out_by_hand(settings, expected):
    loss = EmotionContrastiveLoss(**settings)(
        at_angles(ANGLES, norms=[1.0, 0.1, 5.0, 2.0, 30.0]),
        torch.tensor(LABELS),
    )
    assert loss.item() == pytest.approx(expected, abs=2e-5)


def test_the_default_is_the_papers_sum_with_unit_weights():
    loss = EmotionContrastiveLoss()
    assert (loss.w1, loss.w2, loss.margin, loss.reduction) == (1, 1, 0, "sum")


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("margin", [-1.0, -0.3, 0.0, 0.5, 1.0])
@pytest.mark.parametrize(("w1", "w2"), [(1.0, 1.0), (0.3, 2.5), (0.0, 1.0)])
def test_the_loss_equals_a_double_loop(reduction, margin, w1, w2):
    loss = EmotionContrastiveLoss(w1, w2, margin, reduction)
    for seed, classes in enumerate((1, 2, 3, 9)):
        embeddings, labels = random_batch(classes=classes, seed=seed)
        expected = double_loop(
            embeddings, labels.tolist(), w1, w2, margin, reduction
        )
        found = loss(embeddings, labels)
        assert found.dtype == torch.float64
        assert found.item() == pytest.approx(expected, abs=1e-12, rel=1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients_are_those_of_finite_differences(reduction):
    embeddings, labels = random_batch(n=6, dim=3, classes=2, seed=4)
    loss = EmotionContrastiveLoss(0.7, 1.3, 0.2, reduction)
    directions = nn.functional.normalize(embeddings, dim=-1)
    similarity = directions @ directions.T
    # away from the kink, and on both sides of it
    different = labels[:, None] != labels[None, :]
    assert ((similarity - 0.2).abs()[different] > 1e-3).all()
    assert (similarity > 0.2)[different].any()
    assert (similarity < 0.2)[different].any()
    assert torch.autograd.gradcheck(
        lambda x: loss(x, labels), embeddings.requires_grad_()
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_single_precision_is_nearly_double(reduction):
    # Equal labels nearly alike, where 1 - S is small beside what it is the
    # difference of.
    embeddings, labels = random_batch(n=200, dim=8, classes=7, seed=5)
    embeddings = 0.01 * embeddings + torch.eye(8, dtype=torch.float64)[labels]
    loss = EmotionContrastiveLoss(reduction=reduction)
    expected = loss(embeddings, labels).item()
    found = loss(embeddings.float(), labels).item()
    assert found == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_norm_of_an_embedding_does_not_matter(reduction):
    embeddings, labels = random_batch()
    loss = EmotionContrastiveLoss(margin=0.1, reduction=reduction)
    norms = torch.logspace(-3, 3, len(embeddings), dtype=torch.float64)
    scaled = loss(embeddings * norms[:, None], labels)
    assert scaled.item() == pytest.approx(loss(embeddings, labels).item())


def test_different_labels_below_the_margin_cost_nothing():
    vectors = at_angles([0, 60]).requires_grad_()  # similarity 0.5
    labels = torch.tensor([0, 1])
    below = EmotionContrastiveLoss(margin=0.51)(vectors, labels)
    below.backward()
    assert below.item() == 0
    assert (vectors.grad == 0).all()
    above = EmotionContrastiveLoss(margin=0.4)(vectors, labels)
    assert above.item() == pytest.approx(2 * 0.1)


def test_a_higher_margin_never_costs_more():
    embeddings, labels = random_batch(classes=3)
    costs = [
        EmotionContrastiveLoss(margin=m / 10)(embeddings, labels).item()
        for m in range(-10, 11)
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > costs[10] > costs[20]


def test_a_step_downhill_gathers_an_emotion_and_parts_two():
    vectors = at_angles([0, 50, 90]).requires_grad_()
    labels = torch.tensor([0, 0, 1])
    EmotionContrastiveLoss()(vectors, labels).backward()
    moved = nn.functional.normalize(vectors - 0.01 * vectors.grad, dim=-1)
    assert moved[0] @ moved[1] > vectors[0] @ vectors[1]
    assert moved[1] @ moved[2] < vectors[1] @ vectors[2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_half_precision_input_is_computed_in_float32(dtype, reduction):
    embeddings, labels = random_batch()
    loss = EmotionContrastiveLoss(margin=0.1, reduction=reduction)
    half = embeddings.to(dtype)
    found = loss(half, labels)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(half.float(), labels))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(found, loss(half, labels))


def test_balanced_is_the_same_for_any_mix_of_labels():
    # All of A at 0, all of B at 60 degrees: equal pairs cost nothing,
    # different ones 0.5 each.
    def loss(n_a, n_b, reduction):
        return EmotionContrastiveLoss(reduction=reduction)(
            at_angles([0] * n_a + [60] * n_b),
            torch.tensor([0] * n_a + [1] * n_b),
        ).item()

    mixes = [(1, 1), (2, 2), (5, 3), (1, 9)]
    assert [loss(*mix, "balanced") for mix in mixes] == pytest.approx([0.5] * 4)
    assert loss(5, 3, "mean") != pytest.approx(loss(1, 9, "mean"), rel=0.1)


def test_balanced_does_not_count_an_emotion_twice_that_is_there_twice():
    embeddings, _ = random_batch(n=7, seed=1)
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    # Twins are equal pairs of no cost, so only different pairs can stay.
    twice = torch.cat([embeddings, embeddings[:3]])
    labels_twice = torch.cat([labels, labels[:3]])
    for reduction, unchanged in [("balanced", True), ("mean", False)]:
        loss = EmotionContrastiveLoss(w1=0, reduction=reduction)
        once = loss(embeddings, labels).item()
        found = loss(twice, labels_twice).item()
        assert (found == pytest.approx(once)) == unchanged


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("labels", [[0], [0, 0, 0], [0, 1], [0, 1, 2]])
def test_batches_without_one_kind_of_pair_are_finite(reduction, labels):
    embeddings = torch.randn(len(labels), 4, requires_grad=True)
    loss = EmotionContrastiveLoss(margin=-1.0, reduction=reduction)(
        embeddings, torch.tensor(labels)
    )
    expected = double_loop(
        embeddings.detach(), labels, 1.0, 1.0, -1.0, reduction
    )
    loss.backward()
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_an_embedding_of_zeros_is_finite(reduction):
    embeddings = torch.zeros(3, 4, requires_grad=True)
    loss = EmotionContrastiveLoss(reduction=reduction)
    loss(embeddings, torch.tensor([0, 0, 1])).backward()
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reduction": "total"}, "'total', expected one of sum, mean, bal"),
        ({"margin": 1.5}, r"1\.5.*\[-1, 1\]"),
        ({"margin": -2}, r"-2.*\[-1, 1\]"),
    ],
)
def test_a_bad_setting_says_what_is_expected(settings, message):
    with pytest.raises(InputError, match=message):
        EmotionContrastiveLoss(**settings)


DISTRIBUTED = """
from speechbrain_mser.distributed import gather_ranks
from speechbrain_mser.losses import EmotionContrastiveLoss
own = slice(0, 3) if rank == 0 else slice(3, 8)
found = {}
for reduction in ("sum", "mean", "balanced"):
    for dtype in (torch.int64, torch.int32):
        linear = torch.nn.Linear(6, 4)
        linear.load_state_dict(data["linear"])
        model = torch.nn.parallel.DistributedDataParallel(linear)
        batch = gather_ranks(
            model(data["features"][own]), data["labels"][own].to(dtype)
        )
        loss = EmotionContrastiveLoss(0.7, 1.3, 0.1, reduction)(*batch)
        loss.backward()
        found[f"{reduction} {dtype}"] = {
            "loss": loss.detach(),
            "weight": linear.weight.grad,
            "bias": linear.bias.grad,
        }
save(found)
"""


def test_two_processes_with_unequal_batches_equal_one(in_two_processes):
    linear = nn.Linear(6, 4)
    features, labels = torch.randn(8, 6), torch.arange(8) % 3
    results = in_two_processes(
        DISTRIBUTED,
        {
            "linear": linear.state_dict(),
            "features": features,
            "labels": labels,
        },
    )
    for reduction in REDUCTIONS:
        linear.zero_grad()
        loss = EmotionContrastiveLoss(0.7, 1.3, 0.1, reduction)(
            linear(features), labels
        )
        loss.backward()
        expected = {
            "loss": loss.detach(),
            "weight": linear.weight.grad,
            "bias": linear.bias.grad,
        }
        for result in results:
            for dtype in (torch.int64, torch.int32):
                torch.testing.assert_close(
                    result[f"{reduction} {dtype}"], expected
                )
