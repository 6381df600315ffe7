"""What a translator gives, as a FLAC file.

FLAC holds 16 bits: what is beyond full scale is cut off there and counted,
since turning a whole utterance down would change its loudness, which says
something about the emotion.
"""

import io

import numpy as np
import soundfile


def encode_flac(samples, sample_rate):
    """A signal as FLAC of 16 bits.

    Arguments
    ---------
    samples : numpy.ndarray
        ``[samples]``, float, full scale is 1.
    sample_rate : int
        Hz.

    Returns
    -------
    flac : bytes
        The file's content; in memory, since libsndfile does not say when a
        disk is full.
    clipped : int
        How many samples were beyond full scale.

    Example
    -------
    >>> flac, clipped = encode_flac(np.float32([0.0, 0.5, -0.5, 1.5]), 16000)
    >>> clipped, soundfile.read(io.BytesIO(flac))[0].tolist()
    (1, [0.0, 0.5, -0.5, 0.999969482421875])
    """
    clipped = int((np.abs(samples) > 1).sum())
    # Not left to libsndfile, which wraps what does not fit
    samples = np.clip(np.rint(samples * 32768.0), -32768, 32767)
    file = io.BytesIO()
    soundfile.write(
        file, samples.astype(np.int16), sample_rate, "PCM_16", format="FLAC"
    )
    return file.getvalue(), clipped


def why_unusable(translation):
    """What is wrong with a translation.

    Arguments
    ---------
    translation : Translation
        One without an error.

    Returns
    -------
    str
        Empty when nothing is.

    Example
    -------
    >>> from speechbrain_mser.synthesis.backend import Translation
    >>> why_unusable(Translation(np.zeros(0, dtype=np.float32), 16000))
    'no audio'
    """
    samples = translation.samples
    if samples is None or np.ndim(samples) != 1 or len(samples) == 0:
        return "no audio"
    if not np.isfinite(samples).all():
        return "samples are NaN or infinite"
    if translation.sample_rate < 1:
        return f"a sample rate of {translation.sample_rate} Hz"
    return ""
