"""How far a metric could be off: bootstrap intervals.

A result on a few hundred utterances is an estimate. The percentile bootstrap
draws as many utterances (or speakers) as there are, with replacement, again
and again, and reads the interval off the metrics of the draws.
"""

import numpy as np

from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.metrics import (
    confusion_matrix,
    label_positions,
    rates,
    ua_classes,
)

# Of fewer speakers too few different draws can be made: with two there are
# three. The interval would be an accident of who they are.
FEWEST_SPEAKERS = 10


def bootstrap_intervals(
    references,
    predictions,
    labels,
    ua_over="present",
    speakers=None,
    resamples=2000,
    level=0.95,
    seed=0,
):
    """Percentile bootstrap intervals of the metrics of one evaluation set.

    What is drawn are utterances or, where they are given, speakers with all
    that they say: utterances of one voice are right or wrong together, and
    drawn one by one they would seem to say more than they do.

    A draw may miss a rare class. Its recall is then left out of the UA of
    that draw, for it has none.

    Arguments
    ---------
    references : list of str
        The true emotion of every utterance.
    predictions : list of str
        The recognised emotion of every utterance.
    labels : str or list of str
        The candidates: a name in `emotions.LABEL_SETS`, or the words.
    ua_over : str
        As for `speechbrain_mser.evaluation.metrics.emotion_metrics`.
    speakers : list of str, optional
        Who says every utterance; by default utterances are drawn.
    resamples : int
        How many draws.
    level : float
        How often an interval should hold the true value.
    seed : int
        Of the draws.

    Returns
    -------
    dict
        ``level``, ``resamples``, ``drawn`` ("utterances" or "speakers"),
        ``units`` (how many there are of them), and for each of "WA", "UA",
        "WF1" and "precision" ``[low, high]``. Ready for JSON.

    Raises
    ------
    InputError
        As `confusion_matrix`; no resamples, a level that is no fraction, or
        another number of speakers than of utterances.

    Example
    -------
    >>> intervals = bootstrap_intervals(
    ...     ["sad", "angry"] * 50, ["sad"] * 100, ["sad", "angry"]
    ... )
    >>> intervals["WA"], intervals["UA"]
    ([0.4, 0.6], [0.5, 0.5])
    """
    if resamples < 1 or not 0 < level < 1:
        raise InputError(
            f"{resamples} resamples at level {level}: at least 1 resample and "
            "a level between 0 and 1 are needed"
        )
    labels = candidate_labels(labels)
    matrix = confusion_matrix(references, predictions, labels)
    rng = np.random.default_rng(seed)
    if speakers is None:
        units = len(references)
        # Which utterance is drawn matters for nothing but its cell.
        draws = rng.multinomial(
            units, matrix.ravel() / units, size=resamples
        ).reshape(resamples, *matrix.shape)
    else:
        matrices = _matrix_of_each(speakers, references, predictions, labels)
        units = len(matrices)
        times = rng.multinomial(units, np.full(units, 1 / units), resamples)
        draws = np.tensordot(times, matrices, axes=1)
    absent = matrix.sum(axis=1) == 0
    classes = ua_classes(matrix.sum(axis=1), ua_over)
    drawn = draws.sum(axis=-1) > 0
    values = rates(draws, classes & (drawn | absent))
    tails = [(1 - level) / 2, (1 + level) / 2]
    return {
        "level": level,
        "resamples": resamples,
        "drawn": "utterances" if speakers is None else "speakers",
        "units": units,
        **{
            name: np.quantile(resampled, tails).tolist()
            for name, resampled in values.items()
        },
    }


def _matrix_of_each(speakers, references, predictions, labels):
    """``[n_speakers, n_labels, n_labels]``, a confusion matrix of each."""
    if len(speakers) != len(references):
        raise InputError(
            f"{len(speakers)} speakers for {len(references)} utterances: "
            "every utterance needs one"
        )
    names, who = np.unique(np.asarray(speakers), return_inverse=True)
    matrices = np.zeros((len(names), len(labels), len(labels)), dtype=np.int64)
    places = [
        label_positions(what, words, labels)
        for what, words in (
            ("reference", references),
            ("prediction", predictions),
        )
    ]
    np.add.at(matrices, (who, *places), 1)
    return matrices


def speakers_to_draw(table):
    """The speakers of a set's utterances, if intervals can be over them.

    They can be where every utterance has one and there are at least
    `FEWEST_SPEAKERS`; otherwise intervals are over utterances, and rather too
    narrow than right.

    Arguments
    ---------
    table : pandas.DataFrame
        With the manifest's columns ``corpus`` and ``speaker``.

    Returns
    -------
    list of str or None
        One per row, unique over corpora.

    Example
    -------
    >>> import pandas
    >>> table = pandas.DataFrame({"corpus": "urdu", "speaker": ["1", "2"]})
    >>> speakers_to_draw(table) is None
    True
    """
    if (table.speaker == "").any():
        return None
    # A manifest's speakers are unique within their corpus only.
    names = (table.corpus + "/" + table.speaker).tolist()
    return names if len(set(names)) >= FEWEST_SPEAKERS else None
