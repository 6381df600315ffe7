"""A batch's features: read where they are stored, else encoded."""

import shutil

import torch
from speechbrain.utils.logger import get_logger

from speechbrain_mser.dataio.audio import DECODING
from speechbrain_mser.dataio.bad_utterances import BadUtterances
from speechbrain_mser.dataio.batching import pad_together
from speechbrain_mser.errors import InputError
from speechbrain_mser.features.store import FeatureStore
from speechbrain_mser.finite import NOT_FINITE, finite_rows

logger = get_logger(__name__)

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
REFUSE = BadUtterances("stop")


def open_store(encoder, features, feature_folder, feature_dtype=None):
    """The store of an encoder's features, if one is wanted.

    Arguments
    ---------
    encoder : FrozenEncoder
        The one that makes them.
    features : str
        "off", "read" or "write".
    feature_folder : str
        Where stores live.
    feature_dtype : str, optional
        As for `FeatureStore`. By default float16, but float32 of means over
        time: they are small, and float16 is coarser than what tells them
        apart.

    Returns
    -------
    FeatureStore or None
        None if ``features`` is "off".

    Raises
    ------
    InputError
        Another word, or nothing to read.
    """
    # YAML 1.1 reads a bare off as False.
    if features in ("off", False):
        return None
    if feature_dtype is None:
        feature_dtype = "float32" if encoder.mean_over_time else "float16"
    settings = {**encoder.fingerprint(), "decoding": DECODING}
    return FeatureStore(feature_folder, settings, features, feature_dtype)


def log_size(store, encoder, durations):
    """Say how much disk a corpus's features take, before they are made.

    Arguments
    ---------
    store : FeatureStore or None
        Where they go.
    encoder : FrozenEncoder
        Whose they are.
    durations : pandas.Series
        Of the utterances, in seconds.
    """
    if store is None:
        return
    each = BYTES[store.dtype] * encoder.hidden_size * encoder.n_output_layers
    seconds = durations.sum()
    size = each * (
        len(durations)
        if encoder.mean_over_time
        else seconds * encoder.frame_rate
    )
    free = shutil.disk_usage(store.folder).free
    logger.info(
        "features of %.1f hours take %.1f GB in %s; %.1f GB are free, what "
        "was stored before not counted",
        seconds / 3600,
        size / 1e9,
        store.folder,
        free / 1e9,
    )


def encode_batch(batch, encoder, store=None, on_bad=REFUSE):
    """Features of a batch of utterances by a frozen encoder.

    With a store all features have been rounded to its dtype, so that it makes
    no difference which ones were stored before.

    Arguments
    ---------
    batch : UtteranceBatch
        Not empty, on the encoder's device.
    encoder : callable
        ``(wavs, wav_lens) -> (features, lens)``.
    store : FeatureStore, optional
        The one that the batch's dataset was made with; receives what it did
        not have.
    on_bad : callable, optional
        Called with the `BadUtterance` of each whose features are not finite;
        they are set aside in the batch. By default the first is refused.

    Returns
    -------
    features : torch.Tensor
        ``[batch, frames, dim]`` or ``[batch, layers, frames, dim]``, finite,
        zero beyond an utterance's length. Of what is left of the batch, which
        may be nothing.
    lens : torch.Tensor
        ``[batch]``, relative lengths in frames.

    Raises
    ------
    InputError
        Features that cannot be stored, because they are too large for
        float16; or ``on_bad``'s.

    Example
    -------
    >>> from speechbrain_mser.dataio.batching import UtteranceBatch
    >>> encoder = lambda wavs, lens: (wavs[:, ::320, None], lens)
    >>> batch = UtteranceBatch([{"id": "a", "sig": torch.ones(640)}])
    >>> features, lens = encode_batch(batch, encoder)
    >>> features.shape
    torch.Size([1, 2, 1])
    """
    if store is None:
        return _finite(batch, *encoder(*batch.sig), on_bad)
    if batch.sig is None:
        return batch.stored
    encoded = _finite(batch, *encoder(*batch.sig), on_bad)
    own_frames = {}
    for row, features in zip(batch.rows["sig"], _unpad(*encoded), strict=True):
        try:
            own_frames[row] = store.put(batch.keys[row], features)
        except InputError as error:
            raise InputError(f"utterance {batch.id[row]}: {error}") from None
    if batch.stored is not None:
        own_frames |= zip(
            batch.rows["stored"], _unpad(*batch.stored), strict=True
        )
    if not own_frames:
        return encoded
    device = encoded[0].device
    ordered = [own_frames[row].to(device) for row in range(len(batch))]
    features, lens = pad_together(ordered, -2)
    return features, lens.to(device)


def _finite(batch, features, lens, on_bad):
    """The rows of encoded utterances that are numbers; the rest set aside."""
    good = finite_rows(features)
    if all(good):
        return features, lens
    rows = [
        row
        for row, is_good in zip(batch.rows["sig"], good, strict=True)
        if not is_good
    ]
    batch.set_aside(dict.fromkeys(rows, NOT_FINITE))
    for bad in batch.bad[-len(rows) :]:
        on_bad(bad)
    good = torch.tensor(good, device=features.device)
    return features[good], lens[good]


def _unpad(features, lens):
    """Each utterance's own frames."""
    frames = (lens * features.shape[-2]).round().long().tolist()
    return [row[..., :n, :] for row, n in zip(features, frames, strict=True)]
