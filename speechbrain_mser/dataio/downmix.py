"""One channel out of several: the rule for every file, however it is read."""

import numpy as np

# What a channel counts, by its place; as for `ffmpeg -ac 1`. In 5.1 the
# dialogue is in the centre: the plain mean of six would bury it.
_WEIGHT = {
    "FC": 1.0,
    **dict.fromkeys(("FL", "FR"), 0.5**0.5),
    **dict.fromkeys(("BL", "BR", "SL", "SR"), 0.5),
    "LFE": 0.0,
}
# Where the channels are, by how many there are. Files that say so say this,
# and of files that do not say FFmpeg assumes it. Other numbers have several
# arrangements, or none.
_PLACES = {
    6: "FL FR FC LFE BL BR",
    8: "FL FR FC LFE BL BR SL SR",
}
# Ogg has an order of its own, which libsndfile hands on.
_OGG_PLACES = {
    6: "FL FC FR BL BR LFE",
    8: "FL FC FR SL SR BL BR LFE",
}
# Channels cancel that together have less than this part of the power that
# unrelated ones would have: two in opposite phase have none.
_CANCELLED = 0.1


def downmix(samples, ogg=False):
    """Mix channels.

    - One channel stays as it is.
    - The channels of 5.1 and 7.1 are weighed by their places: centre 1, left
      and right 0.71, at the sides and behind 0.5, low frequencies 0; the
      weights add up to 1.
    - Any other number of channels is averaged.
    - Where that cancels the sound, as for a pair in opposite phase, one
      channel is taken instead, the first of the loud ones: it is what a mono
      recording would be.

    Arguments
    ---------
    samples : numpy.ndarray
        ``[time, channel]``, float32.
    ogg : bool
        Whether the channels are in Ogg's order.

    Returns
    -------
    numpy.ndarray
        ``[time]``, float32.

    Example
    -------
    >>> left = np.sin(np.arange(100, dtype=np.float32))
    >>> mixed = downmix(np.stack([left, left / 2], axis=1))
    >>> np.allclose(mixed, 0.75 * left)
    True
    >>> mixed = downmix(np.stack([left, -0.98 * left], axis=1))
    >>> np.allclose(mixed, left)
    True
    """
    n_channels = samples.shape[1]
    if n_channels == 1 or not len(samples):
        return samples[:, 0]
    weights = _weights(n_channels, ogg)
    # Whoever calls refuses what is not finite afterwards.
    with np.errstate(all="ignore"):
        mixed = samples @ weights
        if not _may_cancel(samples, weights, mixed):
            return mixed
        one = _instead(samples, weights)
    return mixed if one is None else samples[:, one]


def _weights(n_channels, ogg):
    """``[channel]``, summing to one."""
    places = (_OGG_PLACES if ogg else _PLACES).get(n_channels)
    weights = (
        [_WEIGHT[place] for place in places.split()]
        if places
        else [1.0] * n_channels
    )
    weights = np.asarray(weights, dtype=np.float32)
    return weights / weights.sum()


def _may_cancel(samples, weights, mixed):
    """Whether `_instead` is to look closer, which takes longer than mixing.

    The channels' powers with their means in them are more than without, and
    none weighs more than the heaviest; twice that, so that no rounding
    decides.
    """
    values = np.ascontiguousarray(samples).reshape(-1)
    at_most = weights.max() ** 2 * float(values @ values) / len(samples)
    power = float(mixed @ mixed) / len(mixed) - float(mixed.mean()) ** 2
    # Not the other way round: NaN is neither above nor below.
    return not power > 2 * _CANCELLED * at_most


def _instead(samples, weights):
    """The channel to take where the weighted sum cancels, else None."""
    # [channel, time]: sums along time are over neighbours in memory
    channels = np.ascontiguousarray(samples.T)
    mean = channels.mean(1, dtype=np.float64)
    covariance = channels @ channels.T / len(samples) - np.outer(mean, mean)
    # Of each channel in the sum, were it unrelated to the others
    powers = weights**2 * covariance.diagonal()
    if weights @ covariance @ weights < _CANCELLED * powers.sum():
        # Equal ones differ by their noise: that is no reason to choose
        return int(np.argmax(powers > powers.max() / 2))
    return None
