"""Labels that recognisers give to unlabelled speech, to train on.

Self-training: of what the recognisers take for an emotion the surer part is
believed. On another corpus a recogniser likes some emotions too well, and
would teach itself to like them better; so before anything is believed, its
liking is taken back until all emotions are equally probable on average. That
is an assumption about the corpus, and the only one.
"""

import numpy as np
from scipy.special import log_softmax, softmax

from speechbrain_mser.errors import InputError

# Far more than it takes: each round halves what is left or does better.
ROUNDS = 200


def even_out(log_probs):
    """Add a bias per label that makes all labels equally probable on average.

    Arguments
    ---------
    log_probs : numpy.ndarray
        ``[n, n_labels]``, of any normalisation.

    Returns
    -------
    numpy.ndarray
        ``[n, n_labels]``, log-probabilities whose probabilities have the mean
        1 / n_labels in every column.

    Example
    -------
    >>> log_probs = np.log([[0.9, 0.1], [0.7, 0.3]])
    >>> np.exp(even_out(log_probs)).mean(0).round(6).tolist()
    [0.5, 0.5]
    """
    log_probs = np.asarray(log_probs, dtype=np.float64)
    wanted = 1 / log_probs.shape[1]
    bias = np.zeros(log_probs.shape[1])
    for _ in range(ROUNDS):
        mean = softmax(log_probs + bias, axis=1).mean(0)
        bias -= np.log(mean / wanted)
        if np.abs(mean - wanted).max() < 1e-9:
            break
    return log_softmax(log_probs + bias, axis=1)


def surest(log_probs, keep):
    """What each utterance is taken for, and which ones to believe.

    Arguments
    ---------
    log_probs : numpy.ndarray
        ``[n, n_labels]``.
    keep : float
        Above 0, up to 1: the part of each label's utterances to believe, the
        most probable first; one at least.

    Returns
    -------
    labels : numpy.ndarray
        ``[n]``, the columns' numbers.
    believed : numpy.ndarray
        ``[n]``, bool.

    Raises
    ------
    InputError
        Another part than that.

    Example
    -------
    >>> log_probs = np.log([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
    >>> labels, believed = surest(log_probs, keep=0.5)
    >>> labels.tolist(), believed.tolist()
    ([0, 0, 1], [True, False, True])
    """
    check_keep(keep)
    log_probs = np.asarray(log_probs)
    labels, sureness = log_probs.argmax(1), log_probs.max(1)
    believed = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        (here,) = np.nonzero(labels == label)
        order = np.argsort(-sureness[here], kind="stable")
        believed[here[order[: max(1, int(keep * len(here)))]]] = True
    return labels, believed


def check_keep(keep):
    """Refuse what is no part, before anything is recognised.

    Arguments
    ---------
    keep : float
        As for `surest`.

    Raises
    ------
    InputError
        It is not above 0 and up to 1.
    """
    if not isinstance(keep, (int, float)) or not 0 < keep <= 1:
        raise InputError(f"keep is {keep!r}; expected above 0, up to 1")
