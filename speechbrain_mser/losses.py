"""The emotion-aware contrastive loss (the paper's Eq. 1)."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from speechbrain_mser.distributed import gather_ranks
from speechbrain_mser.errors import InputError

REDUCTIONS = ("sum", "mean", "balanced")
# Rows of S at a time. Few enough that a block of a large batch stays in a
# processor's cache, many enough that a usual batch is one block.
BLOCK = 256


class EmotionContrastiveLoss(nn.Module):
    """Pull utterances of one emotion together, push the others apart.

    Eq. 1 of the paper, over all pairs of a batch, with S the cosine
    similarity and y_ij = 1 where two utterances share their emotion::

        L = sum_i sum_j  w1 y_ij (1 - S_ij) + w2 (1 - y_ij) max(0, S_ij - m)

    Mind the sign of the margin: under a similarity (not a distance),
    different emotions cost nothing while S stays *below* m.

    S is computed a block of rows at a time, loss and gradient together, and
    never kept: memory grows with the batch, not with its square.

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
                directions, emotions = gather_ranks(directions, emotions)
            w1, w2 = self._pair_weights(emotions, directions.dtype)
            return _PairCosts.apply(directions, emotions, w1, w2, self.margin)

    def _pair_weights(self, emotions, dtype):
        """What an equal pair weighs, and a different one: w1, w2, reduced."""
        pairs = len(emotions) ** 2
        if self.reduction == "sum":
            return self.w1, self.w2
        if self.reduction == "mean":
            return self.w1 / pairs, self.w2 / pairs
        ordered = emotions.sort().values
        first = torch.searchsorted(ordered, emotions)
        last = torch.searchsorted(ordered, emotions, right=True)
        equal = (last - first).sum()
        different = pairs - equal
        # 1 - S_ii is zero, so leaving the diagonal out only changes the count.
        equal = equal - len(emotions)
        return tuple(
            weight / count.clamp(min=1).to(dtype)
            for weight, count in ((self.w1, equal), (self.w2, different))
        )


class _PairCosts(torch.autograd.Function):
    """The double sum of Eq. 1 over given directions.

    A pair's cost is linear in S_ij but for the kink at m, so the slopes G of
    a block of rows are known as soon as its S is. G is symmetric as S is,
    hence the gradient is 2 G times the directions: two matrix products where
    autograd needs three, and nothing kept for the backward pass but the
    gradient itself.
    """

    @staticmethod
    def forward(ctx, directions, emotions, w1, w2, margin):
        """Sum the costs; with a gradient if one is asked for."""
        total = directions.new_zeros(())
        gradient = None
        if ctx.needs_input_grad[0]:
            gradient = torch.empty_like(directions)
            ctx.save_for_backward(gradient)
        for start in range(0, len(directions), BLOCK):
            rows = slice(start, start + BLOCK)
            similarity = directions[rows] @ directions.T  # [block, batch]
            same = emotions[rows, None] == emotions
            # A cost is a slope times how far S is beyond where it is zero.
            beyond = torch.where(same, similarity - 1, similarity - margin)
            above = (beyond > 0).to(beyond.dtype)
            slope = torch.where(same, -w1, w2 * above)
            total += (slope * beyond).sum()
            if gradient is not None:
                torch.mm(slope, directions, out=gradient[rows])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """Scale what `forward` has found."""
        return 2 * gradient * ctx.saved_tensors[0], None, None, None, None
