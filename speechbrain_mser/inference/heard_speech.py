"""What was heard of a microphone: sums over unlabelled utterances' features."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import atomic_path
from speechbrain_mser.files.fingerprints import (
    new_digest,
    settings_digest,
    weights_digest,
)
from speechbrain_mser.lobes.standardize import frame_sums

# Under which a file says what it is.
FORMAT = "heard_speech"
# What a file names of the recogniser that heard it, by digests.
LISTENER = ("encoder", "connector")
# Far more than any encoder's layers and dimensions take, in bytes.
LARGEST_FILE = 1 << 26
# In a file: utterances, or frames.
MOST = 1 << 53


def _nothing():
    return torch.zeros((), dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class HeardSpeech:
    """Sums over the features of utterances, of which no label is known.

    Mean and deviation are over frames, as the training's are; how much is
    known of a microphone is counted in utterances, for the frames of one
    resemble each other. No utterance can be had back from it. It never
    changes: what is heard in addition makes another one, the sum.

    Arguments
    ---------
    utterances, frames : int
        How many.
    total, squares : torch.Tensor
        ``[layers, dim]``, float64 on the CPU: sums of the frames and of their
        squares.
    listener : dict
        Whose features they are, as `listener_of` says; empty where nobody
        else will use them.

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
    listener: dict = field(default_factory=dict)

    @classmethod
    def of(cls, features, lens, listener=None):
        """A batch of utterances.

        Arguments
        ---------
        features : torch.Tensor
            ``[batch, frames, dim]`` or ``[batch, layers, frames, dim]``.
        lens : torch.Tensor
            ``[batch]``, relative lengths; frames beyond them do not count.
        listener : dict, optional
            Whose features they are.

        Returns
        -------
        HeardSpeech
            Their sums.
        """
        frames, *sums = frame_sums(features, lens)
        sums = [one.cpu() for one in sums]
        return cls(len(features), int(frames), *sums, listener or {})

    def __add__(self, other):
        """Both together."""
        listener = self.listener or other.listener
        other.check_listener(listener)
        return HeardSpeech(
            self.utterances + other.utterances,
            self.frames + other.frames,
            self.total + other.total,
            self.squares + other.squares,
            listener,
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

    def check_listener(self, listener, what="what was heard"):
        """Refuse another's features: the same sounds are other numbers there.

        Arguments
        ---------
        listener : dict
            Who is going to use them.
        what : str
            Which they are, for the message.

        Raises
        ------
        InputError
            They are those of another encoder or connector.
        """
        for part in self.listener:
            if self.listener[part] != listener.get(part):
                raise InputError(
                    f"{what} is in the features of another {part} (weights or "
                    "settings) than this recogniser's: listen again with this "
                    "one"
                )

    def save(self, path):
        """Write it, whole or not at all.

        Arguments
        ---------
        path : str or path-like
            A safetensors file: sums and counts, no audio.

        Raises
        ------
        InputError
            Nothing was heard, or nobody knows by whom.
        """
        if not self.utterances or not self.listener:
            raise InputError(
                f"{path}: there is nothing to save that a recogniser has heard"
            )
        said = {
            "utterances": self.utterances,
            "frames": self.frames,
            "listener": self.listener,
            "digest": self.digest(),
        }
        tensors = {"total": self.total, "squares": self.squares}
        with atomic_path(path) as partial:
            save_file(tensors, partial, {FORMAT: json.dumps(said)})

    def digest(self):
        """Of all numbers: a damaged file has others, as plausible.

        Returns
        -------
        str
            Hexadecimal.
        """
        digest = new_digest(f"{self.utterances} {self.frames}".encode())
        for one in (self.total, self.squares):
            digest.update(one.numpy().tobytes())
        return digest.hexdigest()

    @classmethod
    def load(cls, path):
        """Read what `save` wrote.

        Arguments
        ---------
        path : str or path-like
            The file, whoever made it.

        Returns
        -------
        HeardSpeech
            For the recogniser that heard it: another one will refuse it.

        Raises
        ------
        InputError
            No such file, or another one.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: there is no such file")
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(
                f"{path}: more than {LARGEST_FILE >> 20} MB are not what was "
                "heard of a microphone"
            )
        try:
            with safe_open(path, framework="pt") as file:
                said = json.loads((file.metadata() or {})[FORMAT])
                sums = [file.get_tensor(name) for name in ("total", "squares")]
            heard = cls(
                _count(said["utterances"]),
                _count(said["frames"]),
                *sums,
                _digests(said["listener"]),
            )
            _check_sums(heard)
            if "digest" not in said:
                raise ValueError("of an earlier version: listen again")
            if said["digest"] != heard.digest():
                raise ValueError("it is damaged")
        # Whatever else a stranger's file is
        except (
            *(OSError, SafetensorError, ValueError, RecursionError),
            *(KeyError, TypeError),
        ) as error:
            raise InputError(
                f"{path}: not what a recogniser has heard ({error})"
            ) from None
        return heard


def listener_of(encoder, connector):
    """Whose features are heard, and whose statistics they are moved to.

    Arguments
    ---------
    encoder : FrozenEncoder
        With settings and weights.
    connector : Connector
        With the training's statistics.

    Returns
    -------
    dict
        A digest of each.
    """
    fingerprint = settings_digest(encoder.fingerprint())
    return dict(
        zip(LISTENER, (fingerprint, weights_digest(connector)), strict=True)
    )


def _count(number):
    if type(number) is not int or not 0 < number <= MOST:
        raise ValueError(f"{number!r} utterances or frames")
    return number


def _digests(listener):
    if not isinstance(listener, dict) or set(listener) != set(LISTENER):
        raise ValueError("it does not say who heard it")
    return listener


def _check_sums(heard):
    """Refuse what is no mean and deviation of features."""
    for name in ("total", "squares"):
        one = getattr(heard, name)
        if one.dtype != torch.float64 or one.ndim != 2:
            raise ValueError(
                f"{name} is {one.dtype} of shape {list(one.shape)}"
            )
    if heard.total.shape != heard.squares.shape:
        raise ValueError("the sums' shapes differ")
    for statistics in (heard.mean, heard.variance):
        if not statistics.float().isfinite().all():
            raise ValueError("numbers that are not finite")
