"""What is no batch of signals, or no numbers, is refused by name."""

import os

import torch

from speechbrain_mser.dataio.audio import check_signal
from speechbrain_mser.dataio.audio_limits import AudioError
from speechbrain_mser.errors import InputError


def check_path(path, others):
    """Refuse what is no file's path.

    Arguments
    ---------
    path : object
        What was given.
    others : str
        What takes others, for the message.

    Raises
    ------
    InputError
        It is none.

    Example
    -------
    >>> check_path(None, "recognize_batch takes signals")
    Traceback (most recent call last):
    ...
    InputError: a NoneType; a file's path is expected, one at a time; ...
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(
            f"a {type(path).__name__}; a file's path is expected, one at a "
            f"time; {others}"
        )


def check_batch(wavs, wav_lens):
    """Refuse what is not a batch of signals and relative lengths.

    Arguments
    ---------
    wavs : torch.Tensor
        ``[batch, time]``, 16 kHz mono.
    wav_lens : torch.Tensor
        ``[batch]``.

    Raises
    ------
    InputError
        Another type or shape, lengths beyond 0 to 1, or a signal in which
        there is nothing to recognise.

    Example
    -------
    >>> check_batch(torch.zeros(16000), torch.ones(1))
    Traceback (most recent call last):
    ...
    InputError: wavs is torch.float32 of shape [16000]; a batch is ...
    """
    for name, value in (("wavs", wavs), ("wav_lens", wav_lens)):
        if not isinstance(value, torch.Tensor):
            raise InputError(
                f"{name} is a {type(value).__name__}, not a torch.Tensor"
            )
    if wavs.ndim != 2 or len(wavs) == 0 or not wavs.is_floating_point():
        raise InputError(
            f"wavs is {wavs.dtype} of shape {list(wavs.shape)}; a batch is "
            "[batch, time], of floating point, with one utterance at least "
            "(wav[None] for one)"
        )
    if wav_lens.shape != wavs.shape[:1]:
        raise InputError(
            f"wav_lens has shape {list(wav_lens.shape)}; {len(wavs)} "
            f"utterances need [{len(wavs)}]"
        )
    if not ((wav_lens > 0) & (wav_lens <= 1)).all():
        raise InputError(
            f"wav_lens are {wav_lens.tolist()}; they are relative to the "
            "longest utterance, above 0 and up to 1"
        )
    for row, (wav, length) in enumerate(zip(wavs, wav_lens, strict=True)):
        try:
            check_signal(wav[: round(float(length) * len(wav))].float().cpu())
        except AudioError as error:
            raise AudioError(
                f"{_which(row, wavs)}{error}", error.kind
            ) from None


def check_rows(good, reason):
    """Refuse a batch in which an utterance's numbers are not finite.

    Arguments
    ---------
    good : list of bool
        ``[batch]``, as from `speechbrain_mser.finite.finite_rows`.
    reason : str
        Why they may not be.

    Raises
    ------
    InputError
        One is not good.

    Example
    -------
    >>> check_rows([True, False], "not finite")
    Traceback (most recent call last):
    ...
    InputError: utterance 2 of 2: not finite
    """
    if not all(good):
        raise InputError(f"{_which(good.index(False), good)}{reason}")


def _which(row, batch):
    return "" if len(batch) == 1 else f"utterance {row + 1} of {len(batch)}: "
