"""The terms of a training's loss, and their means over many batches."""

import math
from typing import NamedTuple

import torch

from speechbrain_mser.distributed import sum_over_ranks
from speechbrain_mser.errors import InputError


class Term(NamedTuple):
    """A term of the loss.

    Arguments
    ---------
    value : torch.Tensor
        A scalar, of a batch.
    weight : float
        What it is multiplied with in the loss, the same for every batch.
    count : int, optional
        Over how many things it is itself a mean, which is what it counts with
        in the means that are logged; by default the batch's utterances.
    """

    value: torch.Tensor
    weight: float = 1.0
    count: int | None = None


def check_term(name, term):
    """Refuse what cannot be a term of a loss.

    Arguments
    ---------
    name : str
        The term's.
    term : Term
        Or another tuple with the same in it.

    Returns
    -------
    Term
        The same.

    Raises
    ------
    InputError
        Its value is no scalar.

    Example
    -------
    >>> check_term("speaker", Term(torch.zeros(2)))
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: the loss's term speaker is a tensor ...
    """
    term = Term(*term)
    value = term.value
    if not isinstance(value, torch.Tensor) or value.ndim:
        found = (
            f"a tensor of shape {list(value.shape)}"
            if isinstance(value, torch.Tensor)
            else f"a {type(value).__name__}"
        )
        raise InputError(
            f"the loss's term {name} is {found}, expected a scalar tensor: "
            "reduce it over the batch"
        )
    return term


def add_terms(sums, terms, n_utterances):
    """Add a batch's terms to sums; on the device, without waiting for it.

    Arguments
    ---------
    sums : dict
        Name to sum, count and weight; changed in place.
    terms : dict
        Name to `Term`.
    n_utterances : int
        The batch's.
    """
    for name, (value, weight, count) in terms.items():
        count = n_utterances if count is None else count
        total, before, _ = sums.get(name, (0.0, 0, weight))
        total = total + value.detach() * count
        sums[name] = (total, before + count, weight)


def mean_terms(sums):
    """The means over the batches of all processes, and their loss.

    Arguments
    ---------
    sums : dict
        As `add_terms` fills them, with the same names in every process.

    Returns
    -------
    dict
        Name to float, "loss" the last; a term that nothing counted for is
        not among them.

    Raises
    ------
    InputError
        A mean is not finite.

    Example
    -------
    >>> sums = {}
    >>> add_terms(sums, {"a": Term(torch.tensor(2.0))}, 1)
    >>> add_terms(sums, {"a": Term(torch.tensor(5.0), 0.5)}, 2)
    >>> mean_terms(sums)
    {'a': 4.0, 'loss': 2.0}
    """
    means, loss = {}, 0.0
    for name, (total, count, weight) in sums.items():
        part = total.new_tensor([float(total), count], dtype=torch.float64)
        total, count = sum_over_ranks(part).tolist()
        if not count:
            continue
        means[name] = total / count
        if not math.isfinite(means[name]):
            raise InputError(
                f"the loss's term {name} is {means[name]} in the mean over "
                "utterances whose features are all finite"
            )
        loss += weight * means[name]
    return {**means, "loss": loss} if means else {}
