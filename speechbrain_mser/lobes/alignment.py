"""What microphones and voices do to features: taken out where they are known,
and put in where a connector is to learn that it means nothing."""

import torch
import torch.nn.functional as F

from speechbrain_mser.lobes.standardize import frame_means

# In utterances, what no shift at all counts for beside a speaker's that were
# heard.
KAPPA_SPEAKER = 10.0


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


class SpeakerAlignment:
    """Take each training speaker's own out of the features, not the emotions.

    Arguments
    ---------
    common : FeatureStandardizer
        The statistics of all training corpora together.
    shifts : dict
        (corpus, speaker) to ``[layers, dim]``, in their standard deviations.

    Example
    -------
    >>> from speechbrain_mser.lobes.standardize import FeatureStandardizer
    >>> common = FeatureStandardizer(dim=1)
    >>> _ = common.std.fill_(2.0)
    >>> alignment = SpeakerAlignment(common, {("a", "x"): torch.tensor([[3.0]])})
    >>> features = torch.tensor([[[7.0]], [[7.0]]])
    >>> alignment(features, ["a", "b"], ["x", "x"]).flatten()
    tensor([1., 7.])
    """

    def __init__(self, common, shifts):
        self.common = common
        self.shifts = {who: own.to(common.std) for who, own in shifts.items()}

    def __call__(self, features, corpora, speakers):
        """Move a batch.

        Arguments
        ---------
        features : torch.Tensor
            ``[batch, frames, dim]``, or ``[batch, layers, frames, dim]``.
        corpora, speakers : list of str
            ``[batch]``; those that nothing is known of stay as they are.

        Returns
        -------
        torch.Tensor
            The same shape, float32.
        """
        none = torch.zeros_like(self.common.std)
        shifts = torch.stack(
            [
                self.shifts.get(known, none)
                for known in zip(corpora, speakers, strict=True)
            ]
        )
        return _move(features, -shifts * self.common.std)


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
    noise = torch.randn(len(features), *deviation.shape, device=features.device)
    return _move(features, amount * noise * deviation)


def exchange_rests(features, lens, emotions, amount):
    """Each utterance with what is another's own beside the emotion.

    What utterances of one emotion differ in, voices, sentences and languages,
    moves features more than an emotion does, and each training corpus has few
    of them. So what another utterance of the batch is off from the mean of its
    own emotion there is added to each: noise with the covariance within
    emotions, which speaker recognition whitens with (WCCN, Hatch et al. 2006),
    drawn anew each time. They are shuffled, so one in a batch, in the mean,
    gets its own; one that is alone with its emotion has nothing to give.

    Arguments
    ---------
    features : torch.Tensor
        ``[batch, frames, dim]``, or ``[batch, layers, frames, dim]``.
    lens : torch.Tensor
        ``[batch]``, relative lengths.
    emotions : list of str
        ``[batch]``.
    amount : float
        How much of it is added.

    Returns
    -------
    torch.Tensor
        The same shape, float32.

    Example
    -------
    >>> features = torch.tensor([1.0, 3.0, 20.0, 24.0])[:, None, None]
    >>> emotions = ["sad", "sad", "angry", "angry"]
    >>> moved = exchange_rests(features, torch.ones(4), emotions, 1.0)
    >>> (moved - features).flatten().sort().values
    tensor([-2., -1.,  1.,  2.])
    """
    means = frame_means(features, lens)
    words = sorted(set(emotions))
    which = torch.tensor([words.index(emotion) for emotion in emotions])
    member = F.one_hot(which, len(words)).T.to(means)
    member /= member.sum(1, keepdim=True)
    # In full precision: a feature's mean may be a hundred times its deviation.
    with torch.autocast(means.device.type, enabled=False):
        rests = means - torch.einsum("eb,bld->eld", member, means)[which]
    order = torch.randperm(len(rests), device=rests.device)
    return _move(features, amount * rests[order])


def _move(features, shifts):
    """Features with every frame moved by ``[batch, layers, dim]``."""
    moved = features.float()
    if features.ndim == 3:
        moved = moved[:, None]
    return (moved + shifts[:, :, None]).view(features.shape)
