"""How well emotions were recognised: WA, UA, WF1, precision.

All follow from one confusion matrix, whose rows are the
references and whose columns are the predictions.
"""

import numpy as np

from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.markdown import markdown_table

# What `emotion_metrics` says of a whole set.
FIGURES = ("WA", "UA", "WF1", "precision")


def emotion_metrics(references, predictions, labels, ua_over="present"):
    """The paper's metrics for one evaluation set, as fractions.

    With recall, precision and F1 of every class, and the share of each class
    among the references (its support):

    - WA, weighted accuracy: the accuracy
    - UA, unweighted accuracy: the mean recall
    - WF1, weighted F1: the mean F1, weighted by support
    - precision: the mean precision, weighted by support (Table II)

    Arguments
    ---------
    references : list of str
        The true emotion of every utterance.
    predictions : list of str
        The recognised emotion of every utterance.
    labels : str or list of str
        The candidates: a name in `emotions.LABEL_SETS`, or the words.
    ua_over : str
        Which classes the UA is the mean over: those that occur in the
        references (``"present"``), or ``"all"`` the labels, where one that
        never occurs counts as recall 0. The paper's WA and UA on RESD fit the
        second: its seven labels have a surprise that RESD does not.

    Returns
    -------
    dict
        ``n``, ``labels``, ``WA``, ``UA``, ``WF1``, ``precision``; ``chance``,
        the UA of always saying the same word; ``per_class``, word to ``n``,
        ``recall``, ``precision`` and ``f1`` (0 where undefined);
        ``predicted``, word to how often it was said. Ready for JSON.

    Raises
    ------
    InputError
        As `confusion_matrix`, or an unknown ``ua_over``.

    Example
    -------
    >>> metrics = emotion_metrics(
    ...     ["sad", "sad", "sad", "angry"],
    ...     ["sad", "sad", "angry", "angry"],
    ...     ["sad", "angry"],
    ... )
    >>> metrics["WA"], round(metrics["UA"], 3)
    (0.75, 0.833)
    """
    labels = candidate_labels(labels)
    matrix = confusion_matrix(references, predictions, labels)
    support, predicted, recall, precision, f1 = _class_rates(matrix)
    classes = ua_classes(support, ua_over)
    return {
        "n": int(support.sum()),
        "labels": list(labels),
        **{name: float(x) for name, x in rates(matrix, classes).items()},
        "chance": float(1 / classes.sum()),
        "per_class": {
            word: {
                "n": int(support[k]),
                "recall": float(recall[k]),
                "precision": float(precision[k]),
                "f1": float(f1[k]),
            }
            for k, word in enumerate(labels)
        },
        "predicted": dict(zip(labels, predicted.tolist(), strict=True)),
    }


def mean_metrics(several):
    """The mean of what several evaluations of the same utterances found.

    Arguments
    ---------
    several : list of dict
        What `emotion_metrics` returned, each of the same set.

    Returns
    -------
    dict
        The same: numbers are means, what all agree on is as it was.

    Example
    -------
    >>> several = [{"n": 2, "UA": 0.5}, {"n": 2, "UA": 1.0}]
    >>> mean_metrics(several)
    {'n': 2, 'UA': 0.75}
    """
    first = several[0]
    if isinstance(first, dict):
        return {k: mean_metrics([one[k] for one in several]) for k in first}
    if all(one == first for one in several):
        return first
    return np.mean(several, axis=0).tolist()


def ua_classes(support, ua_over):
    """The classes whose recalls the UA is the mean of.

    Arguments
    ---------
    support : numpy.ndarray
        ``[n_labels]``, how often each label is the true one.
    ua_over : str
        As for `emotion_metrics`.

    Returns
    -------
    numpy.ndarray
        ``[n_labels]``, bool.

    Example
    -------
    >>> ua_classes(np.array([3, 0]), "present")
    array([ True, False])
    """
    if ua_over not in ("present", "all"):
        raise InputError(f"ua_over is {ua_over!r}; give 'present' or 'all'")
    return (support > 0) | (ua_over == "all")


def rates(matrices, classes):
    """`FIGURES` of confusion matrices, of one or of thousands at once.

    Arguments
    ---------
    matrices : numpy.ndarray
        ``[..., n_labels, n_labels]``, counts, none of them empty.
    classes : numpy.ndarray
        ``[..., n_labels]``, bool: those that the UA is over.

    Returns
    -------
    dict
        Name to ``[...]``, fractions.

    Example
    -------
    >>> rates(np.array([[3, 1], [0, 4]]), np.array([True, True]))["WA"]
    np.float64(0.875)
    """
    support, _, recall, precision, f1 = _class_rates(matrices)
    total = support.sum(axis=-1)
    hits = np.trace(matrices, axis1=-2, axis2=-1)
    return {
        "WA": hits / total,
        "UA": (recall * classes).sum(axis=-1) / classes.sum(axis=-1),
        "WF1": (support * f1).sum(axis=-1) / total,
        "precision": (support * precision).sum(axis=-1) / total,
    }


def _class_rates(matrices):
    """Support, how often predicted, recall, precision and F1 of each class."""
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    support = matrices.sum(axis=-1)
    predicted = matrices.sum(axis=-2)
    recall = _ratio(hits, support)
    precision = _ratio(hits, predicted)
    # 2 hits / (2 hits + misses + false alarms), the harmonic mean of the two
    return (
        support,
        predicted,
        recall,
        precision,
        _ratio(2 * hits, support + predicted),
    )


def _ratio(numerator, denominator):
    """Elementwise quotient, 0 where there is nothing to divide by."""
    return numerator / np.maximum(denominator, 1)


def confusion_matrix(references, predictions, labels):
    """How often each emotion was taken for each other.

    Arguments
    ---------
    references : list of str
        The true emotion of every utterance.
    predictions : list of str
        The recognised emotion of every utterance.
    labels : str or list of str
        The candidates: a name in `emotions.LABEL_SETS`, or the words.

    Returns
    -------
    numpy.ndarray
        ``[n_labels, n_labels]``, integers: a row per reference, a column per
        prediction, both in the order of the labels.

    Raises
    ------
    InputError
        No utterances, unequal numbers of them, or a word that is not among
        the labels.

    Example
    -------
    >>> confusion_matrix(["sad", "sad"], ["sad", "angry"], ["sad", "angry"])
    array([[1, 1],
           [0, 0]])
    """
    labels = candidate_labels(labels)
    references = label_positions("reference", references, labels)
    predictions = label_positions("prediction", predictions, labels)
    if len(references) != len(predictions):
        raise InputError(
            f"{len(references)} references but {len(predictions)} "
            "predictions: every utterance needs one of each"
        )
    matrix = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(matrix, (references, predictions), 1)
    return matrix


def label_positions(what, words, labels):
    """Words as positions among the labels.

    Arguments
    ---------
    what : str
        What the words are, for the message: "reference".
    words : list of str
        At least one.
    labels : tuple of str
        As `candidate_labels` returns.

    Returns
    -------
    numpy.ndarray
        ``[n]``, integers.

    Raises
    ------
    InputError
        No words, or one that is not among the labels.

    Example
    -------
    >>> label_positions("reference", ["sad"], ("angry", "sad"))
    array([1])
    """
    position_of = {word: position for position, word in enumerate(labels)}
    if len(words) == 0:
        raise InputError(f"no {what}s: there is nothing to evaluate")
    for index, word in enumerate(words):
        if word not in position_of:
            raise InputError(
                f"{what} {word!r} (utterance {index + 1} of {len(words)}) is "
                f"not among the labels {', '.join(labels)}"
            )
    return np.array([position_of[word] for word in words])


def metrics_table(results, names=("set",)):
    """Several evaluations as a Markdown table.

    Arguments
    ---------
    results : dict
        Name of the evaluation set to what `emotion_metrics` returned; a
        tuple where several columns name it.
    names : tuple of str
        Headings of the columns that name a set.

    Returns
    -------
    str
        A row per set, metrics with three decimals. ``labels`` is how many
        there are; ``chance`` is the UA of always saying the same word.

    Example
    -------
    >>> metrics = emotion_metrics(["sad"] * 3, ["sad"] * 3, ["sad", "angry"])
    >>> print(metrics_table({"RESD": metrics}))
    | set  |   n | labels | chance |    WA |    UA |   WF1 | precision |
    | :--- | --: | -----: | -----: | ----: | ----: | ----: | --------: |
    | RESD |   3 |      2 |  1.000 | 1.000 | 1.000 | 1.000 |     1.000 |
    """
    fractions = ("chance", *FIGURES)
    rows = [(*names, "n", "labels", *fractions)]
    for name, metrics in results.items():
        cells = name if isinstance(name, tuple) else (name,)
        counts = (str(metrics["n"]), str(len(metrics["labels"])))
        numbers = (f"{metrics[key]:.3f}" for key in fractions)
        rows.append((*cells, *counts, *numbers))
    return markdown_table(rows, len(names))
