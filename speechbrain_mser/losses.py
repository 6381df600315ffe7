"""The emotion-aware contrastive loss (the paper's Eq. 1)."""

import torch
import torch.nn.functional as F
from torch import nn

from speechbrain_mser.errors import InputError

REDUCTIONS = ("sum", "mean", "balanced")


class EmotionContrastiveLoss(nn.Module):
    """Pull utterances of one emotion together, push the others apart.

    Eq. 1 of the paper, over all pairs of a batch, with S the cosine
    similarity and y_ij = 1 where two utterances share their emotion::

        L = sum_i sum_j  w1 y_ij (1 - S_ij) + w2 (1 - y_ij) max(0, S_ij - m)

    Mind the sign of the margin: under a similarity (not a distance),
    different emotions cost nothing while S stays *below* m.

    When training is distributed the batch is that of all ranks together: the
    loss is the one that a single process would see, and so are its gradients
    after DDP has averaged them.

    Arguments
    ---------
    w1 : float
        Weight of the pairs that share an emotion.
    w2 : float
        Weight of the pairs that do not.
    margin : float
        m, the similarity up to which different emotions cost nothing; from
        -1 to 1.
    reduction : str
        "sum" is the paper's and grows with the square of the batch; "mean"
        divides by the number of pairs, b² with i = j; "balanced" averages
        equal pairs (i = j left out) and different pairs apart and adds the
        two, so that the mix of emotions in a batch does not set the weights.

    Example
    -------
    >>> loss = EmotionContrastiveLoss(reduction="sum")
    >>> apart = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> loss(apart, torch.tensor([0, 0])).item()  # same, 90 degrees: 2 (1 - 0)
    2.0
    >>> loss(apart, torch.tensor([0, 1])).item()  # different, 90 degrees
    0.0
    """

    def __init__(self, w1=1.0, w2=1.0, margin=0.0, reduction="sum"):
        super().__init__()
        if reduction not in REDUCTIONS:
            raise InputError(
                f"reduction is {reduction!r}, expected one of "
                f"{', '.join(REDUCTIONS)}"
            )
        if not -1 <= margin <= 1:
            raise InputError(
                f"margin is {margin}; a cosine similarity lies in [-1, 1]"
            )
        self.w1 = w1
        self.w2 = w2
        self.margin = margin
        self.reduction = reduction

    def forward(self, embeddings, emotions, across_ranks=True):
        """Compute the loss of a batch.

        Arguments
        ---------
        embeddings : torch.Tensor
            ``[batch, dim]``, one per utterance, of any norm.
        emotions : torch.Tensor
            ``[batch]``, integers: equal means the same emotion.
        across_ranks : bool
            Whether the batches of a distributed run's processes are one; no
            where all of them see the same utterances, as in validation.

        Returns
        -------
        torch.Tensor
            A scalar, in float32 (float64 for float64 input).
        """
        # Half precision cannot resolve 1 - S near S = 1.
        with torch.autocast(embeddings.device.type, enabled=False):
            if embeddings.dtype != torch.float64:
                embeddings = embeddings.float()
            directions = F.normalize(embeddings, dim=-1)
            if across_ranks:
                directions, emotions = _gather_ranks(directions, emotions)
            similarity = directions @ directions.T  # [batch, batch]
            same = emotions[:, None] == emotions[None, :]
            pull = self.w1 * (1 - similarity)
            push = self.w2 * F.relu(similarity - self.margin)
            if self.reduction == "balanced":
                return _balanced(pull, push, same)
            cost = torch.where(same, pull, push)
            return cost.sum() if self.reduction == "sum" else cost.mean()


def _balanced(pull, push, same):
    """Mean over equal pairs without the diagonal, plus mean over different."""
    pairs = same.sum()
    # 1 - S_ii is zero, so leaving the diagonal out only changes the count.
    equal = (pairs - len(same)).clamp(min=1)
    different = (same.numel() - pairs).clamp(min=1)
    return (
        torch.where(same, pull, 0).sum() / equal
        + torch.where(same, 0, push).sum() / different
    )


def _gather_ranks(directions, emotions):
    """The batch of all ranks, with gradients; ranks may differ in size."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return directions, emotions
    world = distributed.get_world_size()
    if world == 1:
        return directions, emotions
    size = torch.tensor(len(emotions), device=emotions.device)
    sizes = [torch.zeros_like(size) for _ in range(world)]
    distributed.all_gather(sizes, size)
    sizes = [int(size) for size in sizes]
    return _Gather.apply(directions, sizes), _gather(emotions, sizes)


def _gather(rows, sizes):
    """Rows of all ranks; all_gather needs equal shapes, so pad and cut."""
    padding = rows.new_zeros(max(sizes) - len(rows), *rows.shape[1:])
    padded = torch.cat([rows, padding])
    parts = [torch.empty_like(padded) for _ in sizes]
    torch.distributed.all_gather(parts, padded)
    return torch.cat([x[:n] for x, n in zip(parts, sizes, strict=True)])


class _Gather(torch.autograd.Function):
    """`_gather` with a gradient.

    All ranks compute the same loss, so the gradient of a rank's own rows is
    there without communication. DDP will divide by the number of ranks what
    is a sum over them, hence the factor.
    """

    @staticmethod
    def forward(ctx, rows, sizes):
        """Gather."""
        rank = torch.distributed.get_rank()
        ctx.own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        ctx.world = len(sizes)
        return _gather(rows, sizes)

    @staticmethod
    def backward(ctx, gradient):
        """Take the own rows' part."""
        return ctx.world * gradient[ctx.own], None
