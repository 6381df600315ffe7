"""Recordings that a user names or holds: heard one by one, bad ones left out."""

import os
from collections.abc import Iterable
from numbers import Number

import numpy as np
import torch
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from speechbrain_mser.dataio.audio import check_signal, load_audio
from speechbrain_mser.dataio.audio_limits import AudioError
from speechbrain_mser.errors import InputError
from speechbrain_mser.inference.heard_speech import HeardSpeech

logger = get_logger(__name__)

# How many reasons an error names.
_SHOWN = 5


def hear(recordings, encode, listener):
    """What an encoder makes of recordings, summed up.

    Arguments
    ---------
    recordings : path-like, torch.Tensor, numpy.ndarray, or list of them
        Files of any rate and number of channels, or signals ``[time]``,
        16 kHz mono, of floating point.
    encode : callable
        ``[1, time] -> (features, lens)``.
    listener : dict
        As for `HeardSpeech`.

    Returns
    -------
    HeardSpeech
        Of all that could be heard; the others are logged by name.

    Raises
    ------
    InputError
        There are none, or none that could be heard.

    Example
    -------
    >>> encode = lambda wavs: (wavs[:, ::320, None], torch.ones(1))
    >>> hear([torch.randn(16000), np.ones(16000)], encode, {}).utterances
    2
    """
    recordings = _each(recordings)
    heard, bad = HeardSpeech(), []
    for number, recording in enumerate(
        tqdm(recordings, "listening", disable=len(recordings) == 1), start=1
    ):
        try:
            features, lens = encode(_signal(recording)[None])
        # A file may lie where nobody may look
        except (InputError, OSError) as error:
            reason = str(error)
            if not isinstance(recording, (str, os.PathLike)):
                reason = f"recording {number} of {len(recordings)}: {reason}"
            elif os.fspath(recording) not in reason:
                reason = f"{os.fspath(recording)}: {reason}"
            logger.warning("left out: %s", reason)
            bad.append(reason)
        else:
            heard += HeardSpeech.of(features, lens, listener)
    if not heard.utterances:
        more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise InputError(
            f"none of {len(bad)} recordings could be heard: "
            f"{'; '.join(bad[:_SHOWN])}{more}"
        )
    return heard


def _each(recordings):
    """A list of what is to be heard."""
    if isinstance(recordings, (str, os.PathLike, torch.Tensor, np.ndarray)):
        return [recordings]
    if not isinstance(recordings, Iterable):
        raise InputError(
            f"{recordings!r} is no recording; expected files or signals"
        )
    recordings = list(recordings)
    # As soundfile and torchaudio return them
    if len(recordings) == 2 and isinstance(recordings[1], Number):
        raise InputError(
            "a signal and its rate are not two recordings: name the file, or "
            "give the signal alone, at 16 kHz"
        )
    if not recordings:
        raise InputError("there is no recording to listen to")
    return recordings


def _signal(recording):
    """``[time]``, float32, of a file, a tensor or an array."""
    if isinstance(recording, (str, os.PathLike)):
        return load_audio(recording)
    if isinstance(recording, torch.Tensor):
        signal, floats = recording.detach(), recording.is_floating_point()
    elif isinstance(recording, np.ndarray):
        signal, floats = recording, recording.dtype.kind == "f"
    else:
        raise AudioError(
            f"a {type(recording).__name__}; a file's path is expected, or a "
            "signal as a tensor or an array"
        )
    if not floats:
        raise AudioError(
            f"a signal of {recording.dtype}; floating point between -1 and 1 "
            "is expected"
        )
    if isinstance(signal, np.ndarray):
        # Whatever its strides and the order of its bytes
        signal = torch.from_numpy(signal.astype(np.float32))
    signal = signal.float()
    check_signal(signal.cpu())
    return signal
