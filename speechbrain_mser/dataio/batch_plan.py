"""How an epoch's utterances are dealt to its batches, emotion by emotion."""

import numpy as np


def share_out(counts, balance, batch_size):
    """How many utterances of each emotion an epoch has.

    In all, as many as the corpus, give or take the rounding to pairs.

    Arguments
    ---------
    counts : np.ndarray
        ``[emotions]``, utterances in the corpus.
    balance : float
        From 0, as in the corpus, to 1, equally many: in proportion to
        ``counts ** (1 - balance)``.
    batch_size : int
        The most utterances in a batch; of an emotion a batch has at most all
        that make pairs.

    Returns
    -------
    np.ndarray
        ``[emotions]``.

    Example
    -------
    >>> share_out(np.array([900, 100]), 0.5, 10).tolist()
    [750, 250]
    """
    total = counts.sum()
    most = np.maximum(-(-total // batch_size) * (counts - counts % 2), counts)
    weights = counts ** (1.0 - balance)
    slots = np.zeros(len(counts))
    # What one emotion cannot take goes to those that are below their most.
    below = np.ones(len(counts), dtype=bool)
    while True:
        left = total - slots[~below].sum()
        slots[below] = left * weights[below] / weights[below].sum()
        above = below & (slots > most + 1e-6)
        if not above.any():
            break
        slots[above] = most[above]
        below &= ~above
    slots = np.rint(slots).astype(np.int64)
    # An odd one is a nuisance: only where every utterance has to come.
    slots -= np.where(slots == counts, 0, slots % 2)
    return np.maximum(slots, np.minimum(counts, 2))


def deal(slots, counts, batch_size, spread):
    """How many utterances of each emotion each batch takes.

    Arguments
    ---------
    slots : np.ndarray
        ``[emotions]``, utterances to deal.
    counts : np.ndarray
        ``[emotions]``, utterances in the corpus.
    batch_size : int
        The most utterances in a batch.
    spread : np.ndarray
        ``[batches]``; of equally full batches the lower one is next.

    Returns
    -------
    np.ndarray
        ``[batches, emotions]``.

    Example
    -------
    >>> deal(np.array([5, 4]), np.array([5, 4]), 6, np.array([0.0, 0.5]))
    array([[3, 2],
           [2, 2]])
    """
    unit = min(2, batch_size)
    n_batches = len(spread)
    taken = np.zeros((n_batches, len(slots)), dtype=np.int64)
    for emotion in np.argsort(slots, kind="stable"):
        everywhere, rest = divmod(slots[emotion] // unit, n_batches)
        emptiest = np.lexsort((spread, taken.sum(axis=1)))
        taken[:, emotion] = unit * everywhere
        taken[emptiest[:rest], emotion] += unit
    for emotion in np.flatnonzero(slots % unit):
        _add_odd_one(taken, emotion, counts, batch_size, spread)
    return taken


def _add_odd_one(taken, emotion, counts, batch_size, spread):
    """Add the last of an odd number to a batch where it has company."""
    size = taken.sum(axis=1)
    emptiest = np.lexsort((spread, size))
    company = emptiest[taken[emptiest, emotion] >= 2]
    if len(company) and size[company[0]] < batch_size:
        taken[company[0], emotion] += 1
        return
    # All full: a pair of another emotion makes room, and moves to the
    # emptiest batch.
    there = emptiest[0]
    movable = (taken[company] >= 2) & (taken[company] % 2 == 0)
    movable &= taken[there] + 2 <= counts
    movable[:, emotion] = False
    if not movable.any():
        taken[there, emotion] += 1
        return
    here, other = np.argwhere(movable)[0]
    taken[company[here], other] -= 2
    taken[company[here], emotion] += 1
    taken[there, other] += 2


def take_turns(emotion, copies, most):
    """Order copies so that an utterance's do not meet in a batch.

    Neighbours, as many as a batch takes, come once each, then once more, and
    so on.

    Arguments
    ---------
    emotion : np.ndarray
        ``[utterances]``, sorted.
    copies : np.ndarray
        ``[utterances]``; within an emotion these differ by one at most.
    most : np.ndarray
        ``[emotions]``, the most of an emotion in a batch.

    Returns
    -------
    np.ndarray
        ``[sum of copies]``, indices of utterances.

    Example
    -------
    >>> emotion, copies = np.zeros(4, dtype=int), np.array([2, 3, 2, 2])
    >>> take_turns(emotion, copies, most=np.array([2])).tolist()
    [1, 0, 1, 0, 1, 2, 3, 2, 3]
    """
    groups = np.maximum(np.bincount(emotion) // most, 1)
    group = count_up(emotion) // most[emotion]
    group = np.minimum(group, groups[emotion] - 1)
    again = np.repeat(np.arange(len(copies)), copies)
    # Who comes once more than the others is first each time, and so is not
    # followed by itself the last time.
    order = np.lexsort(
        (-copies[again], count_up(again), group[again], emotion[again])
    )
    return again[order]


def order_by_process(taken, world_size):
    """Order each batch by process, dealing out its pairs in turn.

    Arguments
    ---------
    taken : np.ndarray
        ``[batches, emotions]``, how many utterances.
    world_size : int
        Number of processes.

    Returns
    -------
    np.ndarray
        ``[utterances]``, the new order of utterances that are sorted by batch
        and emotion.

    Example
    -------
    >>> order_by_process(np.array([[2, 5]]), world_size=2).tolist()
    [0, 1, 4, 5, 6, 2, 3]
    """
    size = np.repeat(taken.ravel(), taken.ravel())
    batch = np.repeat(np.arange(len(taken)), taken.sum(axis=1))
    chunk = np.repeat(np.arange(taken.size), taken.ravel())
    place = count_up(chunk)
    # The odd one of an emotion stays with its last pair.
    begins = (place % 2 == 0) & ((place == 0) | (place < size - 1))
    pair = begins.cumsum() - 1
    first = pair[np.flatnonzero(np.diff(batch, prepend=-1))]
    return np.lexsort(((pair - first[batch]) % world_size, batch))


def count_up(groups):
    """0, 1, 2 ... within each run of equal values.

    Arguments
    ---------
    groups : np.ndarray
        ``[n]``, not negative.

    Returns
    -------
    np.ndarray
        ``[n]``.

    Example
    -------
    >>> count_up(np.array([3, 3, 3, 0, 0, 3])).tolist()
    [0, 1, 2, 0, 1, 0]
    """
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    lengths = np.diff(starts, append=len(groups))
    return np.arange(len(groups)) - np.repeat(starts, lengths)
