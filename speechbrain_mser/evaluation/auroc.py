"""How well a score tells utterances of an emotion from others: the AUROC.

The area under the receiver operating characteristic is the probability that an
utterance of the emotion has a higher score than one of the others; a tie counts
for half. No threshold and no prior is in it: of a word that was never trained it
says whether the LLM hears what the word means, even where it never says it first.
"""

import numpy as np

from speechbrain_mser.errors import InputError


def auroc(scores, positive, weights=None):
    """Area under the receiver operating characteristic.

    Arguments
    ---------
    scores : array of float
        ``[n]``, infinite ones included.
    positive : array of bool
        ``[n]``, who should have the higher scores.
    weights : array of float, optional
        ``[..., n]``, how often each counts; by default once.

    Returns
    -------
    float or numpy.ndarray
        0.5 by chance; with weights ``[...]``, NaN where positive or other ones
        have no weight.

    Raises
    ------
    InputError
        Only positive ones or none, another number of scores, or one that is
        no number.

    Example
    -------
    >>> auroc([0.9, 0.5, 0.5, 0.1], [True, True, False, False])
    0.875
    """
    scores = np.asarray(scores, dtype=np.float64)
    positive = np.asarray(positive, dtype=bool)
    if scores.shape != positive.shape or scores.ndim != 1:
        raise InputError(
            f"{scores.shape} scores for {positive.shape} utterances: every "
            "utterance needs one"
        )
    if np.isnan(scores).any():
        raise InputError(f"{np.isnan(scores).sum()} scores are no numbers")
    if positive.all() or not positive.any():
        raise InputError(
            f"{positive.sum()} of {len(positive)} utterances are of the "
            "emotion: there is nothing to tell it from, or nothing to tell"
        )
    order = np.argsort(scores)
    rising = scores[order]
    edges = np.flatnonzero(np.r_[True, rising[1:] != rising[:-1]])
    each = np.ones(len(scores)) if weights is None else np.asarray(weights)
    # [..., different scores], in rising order
    hits, others = (
        np.add.reduceat(each[..., order] * who[order], edges, axis=-1)
        for who in (positive, ~positive)
    )
    below = np.cumsum(others, axis=-1) - others / 2
    pairs = hits.sum(-1) * others.sum(-1)
    wins = (hits * below).sum(-1)
    area = np.divide(
        wins, pairs, out=np.full(np.shape(wins), np.nan), where=pairs > 0
    )
    return float(area) if weights is None else area


def auroc_interval(
    scores, positive, speakers=None, resamples=2000, level=0.95, seed=0
):
    """Percentile bootstrap interval of an AUROC.

    Arguments
    ---------
    scores, positive
        As for `auroc`.
    speakers : list of str, optional
        Who says every utterance: speakers are drawn, with all that they say,
        instead of utterances (`intervals.speakers_to_draw`).
    resamples : int
        How many draws. Those without a positive or without another utterance
        have no AUROC, and are left out.
    level : float
        How often the interval should hold the true value.
    seed : int
        Of the draws.

    Returns
    -------
    list of float
        ``[low, high]``.

    Raises
    ------
    InputError
        As `auroc`, or no draw has an AUROC.

    Example
    -------
    >>> auroc_interval([3, 2, 1, 0], [True, True, False, False])
    [1.0, 1.0]
    """
    names = np.arange(len(scores)) if speakers is None else speakers
    units, who = np.unique(np.asarray(names), return_inverse=True)
    rng = np.random.default_rng(seed)
    n = len(units)
    times = rng.multinomial(n, np.full(n, 1 / n), resamples)
    areas = auroc(scores, positive, times[:, who])
    areas = areas[~np.isnan(areas)]
    if not len(areas):
        raise InputError(
            f"none of {resamples} draws of {n} has both an utterance of the "
            "emotion and another one"
        )
    tails = [(1 - level) / 2, (1 + level) / 2]
    return np.quantile(areas, tails).tolist()
