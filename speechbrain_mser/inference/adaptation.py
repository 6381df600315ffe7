"""Other microphones moved to the training's: statistics of unlabelled speech.

Microphones and rooms shift an encoder's features more than emotions do. Which
ones were used shows in the audio, without any label. A few utterances say
little about a mean and less about a variance, so what was heard of them is
shrunk to what the training heard: with n utterances

    mean = (n mean_heard + kappa_mean mean_training) / (n + kappa_mean)
    variance = (n variance_heard + kappa_variance variance_training)
               / (n + kappa_variance)

The heard variance is about the heard mean: that a microphone is far from the
training's does not make its speech vary more. Without an utterance nothing is
moved; the more there are, the more the statistics are their own.
"""

import math

import torch

from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.alignment import move_statistics
from speechbrain_mser.lobes.standardize import LEAST_STD

# In utterances, what the training's statistics count for beside the heard.
KAPPA_MEAN, KAPPA_VARIANCE = 3.0, 6.0


def shrink(
    heard, training, kappa_mean=KAPPA_MEAN, kappa_variance=KAPPA_VARIANCE
):
    """A microphone's statistics, as far as they are known.

    Arguments
    ---------
    heard : HeardSpeech
        Utterances of it.
    training : FeatureStandardizer or None
        The connector's.
    kappa_mean, kappa_variance : float
        How many utterances the training's mean and variance count for; with 0
        they do not.

    Returns
    -------
    FeatureStandardizer
        That mean and deviation.

    Raises
    ------
    InputError
        The connector does not standardise, or other features than its own
        were heard.

    Example
    -------
    >>> from speechbrain_mser.inference.heard_speech import HeardSpeech
    >>> from speechbrain_mser.lobes.standardize import FeatureStandardizer
    >>> heard = HeardSpeech.of(torch.tensor([[[8.0], [8.0]]]), torch.ones(1))
    >>> own = shrink(heard, FeatureStandardizer(dim=1), 3, 3)
    >>> own.mean.item(), round(own.std.item() ** 2, 6)
    (2.0, 0.75)
    """
    if training is None:
        raise InputError(
            "adaptation moves features to the training's mean and "
            "deviation, and this recogniser has none (standardize: False)"
        )
    mean, std = training.mean.cpu().double(), training.std.cpu().double()
    if heard.utterances:
        if heard.total.shape != mean.shape:
            raise InputError(
                f"what was heard has {list(heard.total.shape)} layers and "
                f"dimensions, the training's statistics {list(mean.shape)}"
            )
        n = heard.utterances
        # Exact at both ends, unlike the sum of two products
        mean = torch.lerp(mean, heard.mean, n / (n + kappa_mean))
        variance = torch.lerp(
            std.square(), heard.variance, n / (n + kappa_variance)
        )
        std = variance.sqrt().clamp(min=LEAST_STD)
    own = training.anew()
    own.mean.copy_(mean)
    own.std.copy_(std)
    return own


def check_kappa(name, kappa):
    """Refuse what counts for no number of utterances.

    Arguments
    ---------
    name : str
        The setting's.
    kappa : float
        As for `shrink`.

    Raises
    ------
    InputError
        It is negative, or no number.

    Example
    -------
    >>> check_kappa("kappa_mean", 3)
    """
    if not isinstance(kappa, (int, float)) or not 0 <= kappa < math.inf:
        raise InputError(
            f"{name} is {kappa!r}, expected how many utterances the "
            "training's statistics count for: 0 or more"
        )


class Adaptation:
    """Moves features to the mean and deviation of the training.

    Arguments
    ---------
    training : FeatureStandardizer or None
        The connector's.
    heard : HeardSpeech
        Utterances of one microphone.
    kappa_mean, kappa_variance : float
        As for `shrink`.

    Raises
    ------
    InputError
        As `shrink`, or a kappa that counts for no number of utterances.

    Example
    -------
    >>> from speechbrain_mser.inference.heard_speech import HeardSpeech
    >>> from speechbrain_mser.lobes.standardize import FeatureStandardizer
    >>> training = FeatureStandardizer(dim=1)
    >>> _ = training.mean.fill_(10.0), training.std.fill_(2.0)
    >>> features = torch.tensor([[[46.0], [54.0]]])
    >>> heard = HeardSpeech.of(features, torch.ones(1))
    >>> Adaptation(training, heard, 0, 0)(features).flatten()
    tensor([ 8., 12.])
    """

    def __init__(
        self,
        training,
        heard,
        kappa_mean=KAPPA_MEAN,
        kappa_variance=KAPPA_VARIANCE,
    ):
        check_kappa("kappa_mean", kappa_mean)
        check_kappa("kappa_variance", kappa_variance)
        self.training = training
        self.own = shrink(heard, training, kappa_mean, kappa_variance)

    def __call__(self, features):
        """Move a batch.

        Arguments
        ---------
        features : torch.Tensor
            ``[batch, frames, dim]`` or ``[batch, layers, frames, dim]``.

        Returns
        -------
        torch.Tensor
            The same shape, float32.
        """
        return move_statistics(features, [self.own], self.training)
