"""What was heard of a microphone: sums over unlabelled utterances' features."""

from dataclasses import dataclass, field

import torch

from speechbrain_mser.lobes.standardize import frame_sums


def _nothing():
    return torch.zeros((), dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class HeardSpeech:
    """Sums over the features of utterances, of which no label is known.

    Mean and deviation are over frames, as the training's are; how much is
    known of a microphone is counted in utterances, for the frames of one
    resemble each other. Never changed: what is heard in addition is another
    one, the sum.

    Arguments
    ---------
    utterances, frames : int
        How many.
    total, squares : torch.Tensor
        ``[layers, dim]``, float64 on the CPU: sums of the frames and of their
        squares.

    Example
    -------
    >>> heard = HeardSpeech.of(torch.tensor([[[1.0], [3.0]]]), torch.ones(1))
    >>> heard += HeardSpeech.of(torch.tensor([[[5.0]]]), torch.ones(1))
    >>> heard.utterances, heard.frames, heard.mean.item()
    (2, 3, 3.0)
    """

    utterances: int = 0
    frames: int = 0
    total: torch.Tensor = field(default_factory=_nothing)
    squares: torch.Tensor = field(default_factory=_nothing)

    @classmethod
    def of(cls, features, lens):
        """A batch of utterances.

        Arguments
        ---------
        features : torch.Tensor
            ``[batch, frames, dim]`` or ``[batch, layers, frames, dim]``.
        lens : torch.Tensor
            ``[batch]``, relative lengths; frames beyond them do not count.

        Returns
        -------
        HeardSpeech
            Their sums.
        """
        frames, *sums = frame_sums(features, lens)
        return cls(len(features), int(frames), *(one.cpu() for one in sums))

    def __add__(self, other):
        """Both together."""
        return HeardSpeech(
            self.utterances + other.utterances,
            self.frames + other.frames,
            self.total + other.total,
            self.squares + other.squares,
        )

    @property
    def mean(self):
        """``[layers, dim]``, over all frames."""
        return self.total / max(self.frames, 1)

    @property
    def variance(self):
        """``[layers, dim]``, about that mean."""
        mean_square = self.squares / max(self.frames, 1)
        return (mean_square - self.mean.square()).clamp(min=0)
