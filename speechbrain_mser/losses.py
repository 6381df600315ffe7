"""The emotion-aware contrastive loss (the paper's Eq. 1)."""

import torch
import torch.nn.functional as F
from torch import nn

from speechbrain_mser.errors import InputError

REDUCTIONS = ("sum", "mean", "balanced")


class EmotionContrastiveLoss(nn.Module):
    """Pull utterances of one emotion together, push the others apart.

    Eq. 1 of the paper, over all pairs of a batch, with S the cosine
    similarity and y_ij = 1 where two utterances share their label::

        L = sum_i sum_j  w1 y_ij (1 - S_ij) + w2 (1 - y_ij) max(0, S_ij - m)

    Mind the sign of the margin: under a similarity (not a distance),
    different labels cost nothing while S stays *below* m.

    Arguments
    ---------
    w1 : float
        Weight of the pairs that share a label.
    w2 : float
        Weight of the pairs that do not.
    margin : float
        m, the similarity up to which different labels cost nothing; from
        -1 to 1.
    reduction : str
        "sum" is the paper's and grows with the square of the batch; "mean"
        divides by the number of pairs, b² with i = j; "balanced" averages
        equal pairs (i = j left out) and different pairs apart and adds the
        two, so that the mix of labels in a batch does not set the weights.

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

    def forward(self, embeddings, labels):
        """Compute the loss of a batch.

        Arguments
        ---------
        embeddings : torch.Tensor
            ``[batch, dim]``, one per utterance, of any norm.
        labels : torch.Tensor
            ``[batch]``, integers.

        Returns
        -------
        torch.Tensor
            A scalar, in float32 (float64 for float64 input).
        """
        similarity = cosine_similarities(embeddings)  # S, [batch, batch]
        same = labels[:, None] == labels  # y
        pull = self.w1 * (1 - similarity)
        push = self.w2 * F.relu(similarity - self.margin)
        if self.reduction == "balanced":
            # A pair i = i costs nothing: leaving it out changes the count.
            n_same = (same.sum() - len(labels)).clamp(min=1)
            n_different = (~same).sum().clamp(min=1)
            pull, push = pull / n_same, push / n_different
        costs = torch.where(same, pull, push)
        return costs.mean() if self.reduction == "mean" else costs.sum()


def cosine_similarities(embeddings):
    """The cosine of every pair, in float32 at least.

    Arguments
    ---------
    embeddings : torch.Tensor
        ``[batch, dim]``, of any norm; zeros are at right angles to all.

    Returns
    -------
    torch.Tensor
        ``[batch, batch]``.

    Example
    -------
    >>> cosine_similarities(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
    tensor([[1., 0.],
            [0., 1.]])
    """
    # Half precision cannot resolve 1 - S near S = 1.
    with torch.autocast(embeddings.device.type, enabled=False):
        if embeddings.dtype != torch.float64:
            embeddings = embeddings.float()
        directions = F.normalize(embeddings, dim=-1)
        return directions @ directions.T
