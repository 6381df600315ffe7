"""What microphones do to features: taken out where they are known, and put in
where a connector is to learn that it means nothing."""

import torch


class CorpusAlignment:
    """Take out of the features what tells corpora apart, not emotions.

    Microphones and rooms shift Whisper's features more than emotions do. Each
    corpus's mean is moved to that of all training corpora together, and its
    deviation stretched to theirs, in every layer and dimension; the connector
    that follows then standardises as it always does. In training this makes
    it blind to the corpus. A corpus that it never met may be taken as it is,
    or be moved likewise: that needs its audio, but no label.

    Arguments
    ---------
    common : FeatureStandardizer
        The statistics of all training corpora together.

    Example
    -------
    >>> from speechbrain_mser.lobes.standardize import FeatureStandardizer
    >>> def statistics(mean, std):
    ...     found = FeatureStandardizer(dim=1)
    ...     found.mean.fill_(mean), found.std.fill_(std)
    ...     return found
    >>> alignment = CorpusAlignment(statistics(mean=10.0, std=2.0))
    >>> alignment.add("loud", statistics(mean=50.0, std=4.0))
    >>> features = torch.tensor([[[54.0]], [[12.0]]])
    >>> alignment(features, ["loud", "unknown"]).flatten()
    tensor([12., 12.])
    """

    def __init__(self, common):
        self.common = common
        self.own = {}

    def add(self, corpus, statistics):
        """Say which mean and deviation a corpus has.

        Arguments
        ---------
        corpus : str
            Its name.
        statistics : FeatureStandardizer
            Of its features, `finish`\\ ed.
        """
        self.own[corpus] = statistics

    def __call__(self, features, corpora):
        """Move a batch.

        Arguments
        ---------
        features : torch.Tensor
            ``[batch, frames, dim]``, or ``[batch, layers, frames, dim]``.
        corpora : list of str
            ``[batch]``; those that nothing is known of stay as they are.

        Returns
        -------
        torch.Tensor
            The same shape, float32.
        """
        own = [self.own.get(corpus, self.common) for corpus in corpora]
        return move_statistics(features, own, self.common)


def move_statistics(features, own, common):
    """Features with one mean and deviation as they were with another.

    Arguments
    ---------
    features : torch.Tensor
        ``[batch, frames, dim]``, or ``[batch, layers, frames, dim]``.
    own : list of FeatureStandardizer
        Their mean and deviation: each utterance's, or one for all.
    common : FeatureStandardizer
        Those to have.

    Returns
    -------
    torch.Tensor
        The same shape, float32.
    """
    mean, std = (
        torch.stack([getattr(one, name) for one in own])[:, :, None]
        for name in ("mean", "std")
    )  # [batch or 1, layers, 1, dim]
    moved = features.float()
    if features.ndim == 3:
        moved = moved[:, None]
    # The mean first: it may be a hundred times the deviation.
    moved = (moved - mean) * (common.std[:, None] / std)
    return (moved + common.mean[:, None]).view(features.shape)


def shift_features(features, deviation, amount):
    """Each utterance as another microphone might have heard it.

    A microphone, its distance and its room move the mean of an encoder's
    features more than an emotion does, and every training corpus has few of
    them. A random shift, the same for all frames of an utterance and drawn
    anew each time, makes of every utterance one from elsewhere.

    Arguments
    ---------
    features : torch.Tensor
        ``[batch, frames, dim]``, or ``[batch, layers, frames, dim]``.
    deviation : torch.Tensor
        ``[layers, dim]``, the training features' own.
    amount : float
        The shifts' deviation, where the features' is 1.

    Returns
    -------
    torch.Tensor
        The same shape, float32.

    Example
    -------
    >>> features, deviation = torch.zeros(2, 5, 3), torch.ones(1, 3)
    >>> shifted = shift_features(features, deviation, amount=1.0)
    >>> torch.equal(shifted[:, 0], shifted[:, 4])  # of one utterance
    True
    >>> torch.equal(shifted[0], shifted[1])  # of two
    False
    """
    moved = features.float()
    if features.ndim == 3:
        moved = moved[:, None]
    batch, layers, _, dim = moved.shape
    noise = torch.randn(batch, layers, 1, dim, device=moved.device)
    return (moved + amount * noise * deviation[:, None]).view(features.shape)
