"""Standardisation of the encoder's features, estimated once."""

import torch
from speechbrain.dataio.dataio import length_to_mask
from speechbrain.utils.distributed import is_distributed_initialized
from torch import nn

from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.layer_mix import mix_layers

# A constant dimension says nothing: it becomes zero, not infinite.
LEAST_STD = 1e-4


class FeatureStandardizer(nn.Module):
    """Subtract each feature's mean and divide by its standard deviation.

    The statistics are estimated once on training data, per encoder layer and
    dimension, and travel with the checkpoint. A few of Whisper's dimensions
    are a hundred times larger than the rest and nearly constant; without
    this, attention sees them and little else.

    Before `finish` the module passes features through unchanged.

    Arguments
    ---------
    dim : int
        Width of the features.
    n_layers : int
        Number of encoder layers that come in.

    Example
    -------
    >>> standardizer = FeatureStandardizer(dim=3)
    >>> features = 5 + 2 * torch.randn(4, 50, 3)
    >>> lens = torch.ones(4)
    >>> standardizer.update(features, lens)
    >>> standardizer.finish()
    >>> round(standardizer(features).std().item(), 2)
    1.0
    """

    def __init__(self, dim, n_layers=1):
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_layers, dim))
        self.register_buffer("std", torch.ones(n_layers, dim))
        self.register_buffer("frames", torch.zeros((), dtype=torch.long))
        self._sums = None

    def anew(self):
        """One for features of the same kind, that nothing was added to.

        Returns
        -------
        FeatureStandardizer
            On the same device.
        """
        n_layers, dim = self.mean.shape
        return FeatureStandardizer(dim, n_layers).to(self.mean.device)

    @property
    def fitted(self):
        """Whether the statistics are those of data."""
        return bool(self.frames > 0)

    def forward(self, features, weights=None):
        """Standardise a batch, and mix its layers if asked to.

        Arguments
        ---------
        features : torch.Tensor
            ``[batch, frames, dim]``, or ``[batch, layers, frames, dim]``.
        weights : torch.Tensor, optional
            ``[layers]``, how much each layer counts.

        Returns
        -------
        torch.Tensor
            ``[batch, frames, dim]``, float32; without weights of the shape
            that came in.
        """
        if weights is None:
            return (features - self.mean[:, None]) / self.std[:, None]
        return mix_layers(features, weights, self.mean, self.std)

    @torch.no_grad()
    def update(self, features, lens):
        """Add a batch to the statistics.

        Arguments
        ---------
        features : torch.Tensor
            As for `forward`; the layers are not mixed.
        lens : torch.Tensor
            ``[batch]``, relative lengths; frames beyond them do not count.
        """
        sums = frame_sums(features, lens)
        if self._sums is not None:
            sums = tuple(a + b for a, b in zip(self._sums, sums, strict=True))
        self._sums = sums

    @torch.no_grad()
    def finish(self):
        """Turn what was added, in all processes, into the statistics.

        Raises
        ------
        InputError
            Nothing was added.
        """
        nothing = torch.zeros_like(self.mean, dtype=torch.float64)
        count, total, squares = self._sums or (
            torch.zeros_like(self.frames),
            nothing,
            nothing.clone(),
        )
        if is_distributed_initialized():
            for part in (count, total, squares):
                torch.distributed.all_reduce(part)
        if count == 0:
            raise InputError(
                "no features to take the mean and deviation of: none of the "
                "training utterances asked for could be read"
            )
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        self.mean.copy_(mean)
        self.std.copy_(variance.sqrt().clamp(min=LEAST_STD))
        self.frames.copy_(count)
        self._sums = None


def frame_sums(features, lens):
    """What means and deviations over frames are made of.

    Arguments
    ---------
    features : torch.Tensor
        ``[batch, frames, dim]``, or ``[batch, layers, frames, dim]``.
    lens : torch.Tensor
        ``[batch]``, relative lengths; frames beyond them do not count.

    Returns
    -------
    count : torch.Tensor
        How many frames there are.
    total, squares : torch.Tensor
        ``[layers, dim]``, float64: sums of the frames and of their squares.

    Example
    -------
    >>> features = torch.tensor([[[1.0], [3.0]], [[2.0], [9.0]]])
    >>> count, total, squares = frame_sums(features, torch.tensor([1.0, 0.5]))
    >>> count.item(), total.item(), squares.item()
    (3, 6.0, 14.0)
    """
    if features.ndim == 3:
        features = features[:, None]
    mask = _frame_mask(features, lens)
    # [layers, n, dim]; float64, since squares of large values are summed
    kept = features.transpose(0, 1)[:, mask].double()
    return mask.sum(), kept.sum(1), kept.square().sum(1)


def frame_means(features, lens):
    """Each utterance's mean over its frames.

    Arguments
    ---------
    features : torch.Tensor
        ``[batch, frames, dim]``, or ``[batch, layers, frames, dim]``.
    lens : torch.Tensor
        ``[batch]``, relative lengths; frames beyond them do not count.

    Returns
    -------
    torch.Tensor
        ``[batch, layers, dim]``, float32.

    Example
    -------
    >>> features = torch.tensor([[[1.0], [3.0]], [[2.0], [9.0]]])
    >>> frame_means(features, torch.tensor([1.0, 0.5])).flatten()
    tensor([2., 2.])
    """
    if features.ndim == 3:
        features = features[:, None]
    mask = _frame_mask(features, lens)[:, None, :, None]
    kept = features.float().masked_fill(~mask, 0.0)
    return kept.sum(2) / mask.sum(2)


def _frame_mask(features, lens):
    frames = features.shape[2]
    return length_to_mask((lens * frames).round(), max_len=frames).bool()
