"""Other microphones moved to the training's: statistics of unlabelled speech."""

from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.alignment import move_statistics


class Adaptation:
    """Moves features to the mean and deviation of the training.

    Microphones and rooms shift an encoder's features more than emotions do.
    Which ones were used shows in the audio, without any label; what is then
    said of that audio is transductive.

    Arguments
    ---------
    training : FeatureStandardizer or None
        The connector's.
    batches : iterable
        Of utterances of one microphone: ``(features, lens)``.

    Raises
    ------
    InputError
        The connector does not standardise, or there is no utterance.

    Example
    -------
    >>> import torch
    >>> from speechbrain_mser.lobes.standardize import FeatureStandardizer
    >>> training = FeatureStandardizer(dim=1)
    >>> _ = training.mean.fill_(10.0), training.std.fill_(2.0)
    >>> heard = torch.tensor([[[46.0], [54.0]]])
    >>> Adaptation(training, [(heard, torch.ones(1))])(heard).flatten()
    tensor([ 8., 12.])
    """

    def __init__(self, training, batches):
        if training is None:
            raise InputError(
                "adaptation moves features to the training's mean and "
                "deviation, and this recogniser has none (standardize: False)"
            )
        self.training, self.heard = training, training.anew()
        for features, lens in batches:
            self.heard.update(features, lens)
        self.heard.finish()

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
        return move_statistics(features, [self.heard], self.training)
