"""How well emotions were recognised: WA, UA, WF1, precision, calibration.

All but the calibration follow from one confusion matrix, whose rows are the
references and whose columns are the predictions.
"""

import textwrap

import numpy as np

from speechbrain_mser.atomic import atomic_path
from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError


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
    if ua_over not in ("present", "all"):
        raise InputError(f"ua_over is {ua_over!r}; give 'present' or 'all'")
    labels = candidate_labels(labels)
    matrix = confusion_matrix(references, predictions, labels)
    hits = matrix.diagonal()
    support = matrix.sum(axis=1)
    predicted = matrix.sum(axis=0)
    recall = _ratio(hits, support)
    precision = _ratio(hits, predicted)
    # 2 hits / (2 hits + misses + false alarms), the harmonic mean of the two
    f1 = _ratio(2 * hits, support + predicted)
    share = support / support.sum()
    classes = (
        support > 0 if ua_over == "present" else np.full(len(labels), True)
    )
    return {
        "n": int(support.sum()),
        "labels": list(labels),
        "WA": float(hits.sum() / support.sum()),
        "UA": float(recall[classes].mean()),
        "WF1": float(share @ f1),
        "precision": float(share @ precision),
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
    references = _positions("reference", references, labels)
    predictions = _positions("prediction", predictions, labels)
    if len(references) != len(predictions):
        raise InputError(
            f"{len(references)} references but {len(predictions)} "
            "predictions: every utterance needs one of each"
        )
    matrix = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(matrix, (references, predictions), 1)
    return matrix


def _positions(what, words, labels):
    """The words as positions among the labels."""
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


def calibration(log_probs, references, labels, bins=10):
    """Whether the model is as sure as it is right.

    With p the probabilities of one utterance's labels:

    - ECE, expected calibration error: utterances are binned by their
      confidence max p, in bins of equal width; the mean over utterances of
      ``|accuracy of the bin - mean confidence of the bin|``
    - brier: the mean over utterances of ``sum over labels of (p - [true])^2``,
      between 0 and 2
    - NLL: the mean over utterances of ``-log p(true)``; infinite when a true
      label was given probability 0

    Arguments
    ---------
    log_probs : numpy.ndarray or torch.Tensor
        ``[n, n_labels]``. Every row is normalised to add up to probability 1:
        an LLM leaves some probability to words that are no candidates.
    references : list of str
        The true emotion of every utterance.
    labels : str or list of str
        The candidates, in the order of the columns.
    bins : int
        How many bins of confidence.

    Returns
    -------
    dict
        ``n``, ``bins``, ``ECE``, ``brier``, ``NLL``.

    Raises
    ------
    InputError
        A wrong shape, a row that is no distribution, a reference that is not
        among the labels, or no bins.

    Example
    -------
    >>> half = np.log([[0.5, 0.5], [0.5, 0.5]])
    >>> result = calibration(half, ["sad", "angry"], ["sad", "angry"])
    >>> round(result["ECE"], 3), round(result["NLL"], 3)
    (0.0, 0.693)
    """
    labels = candidate_labels(labels)
    truth = _positions("reference", references, labels)
    if bins < 1:
        raise InputError(f"{bins} bins of confidence: at least 1 is needed")
    log_probs = _normalised(log_probs, (len(truth), len(labels)))
    probs = np.exp(log_probs)
    confidence = probs.max(axis=1)
    correct = probs.argmax(axis=1) == truth
    # Bin k holds the confidences in (k / bins, (k + 1) / bins].
    bin_of = np.ceil(confidence * bins).astype(int) - 1
    bin_of = np.clip(bin_of, 0, bins - 1)
    # accuracy minus confidence, summed over the utterances of every bin
    gaps = np.bincount(bin_of, correct - confidence, minlength=bins)
    one_hot = np.eye(len(labels))[truth]
    true_log_probs = log_probs[np.arange(len(truth)), truth]
    return {
        "n": len(truth),
        "bins": bins,
        "ECE": float(np.abs(gaps).sum() / len(truth)),
        "brier": float(((probs - one_hot) ** 2).sum(axis=1).mean()),
        # + 0.0: not minus zero where every true label is certain
        "NLL": float(-true_log_probs.mean() + 0.0),
    }


def _normalised(log_probs, shape):
    """Log-probabilities in double precision, every row adding up to 1."""
    if hasattr(log_probs, "detach"):  # torch; numpy knows no bfloat16
        log_probs = log_probs.detach().double().cpu()
    log_probs = np.asarray(log_probs, dtype=np.float64)
    if log_probs.shape != shape:
        raise InputError(
            f"log-probabilities of shape {list(log_probs.shape)}; expected "
            f"{list(shape)}: a row per reference and a column per label"
        )
    best = log_probs.max(axis=1, keepdims=True)
    # NaN spreads to the maximum. -inf is probability 0, but not for all.
    bad = np.flatnonzero(~np.isfinite(best))
    if len(bad):
        raise InputError(
            f"log-probabilities of utterance {bad[0] + 1} are "
            f"{log_probs[bad[0]].tolist()}, which is no distribution"
        )
    total = np.exp(log_probs - best).sum(axis=1, keepdims=True)
    return log_probs - best - np.log(total)


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
    fractions = ("chance", "WA", "UA", "WF1", "precision")
    rows = [(*names, "n", "labels", *fractions)]
    for name, metrics in results.items():
        numbers = (f"{metrics[key]:.3f}" for key in fractions)
        cells = name if isinstance(name, tuple) else (name,)
        # A bar would begin a new cell.
        cells = (str(cell).replace("|", "\\|") for cell in cells)
        counts = (str(metrics["n"]), str(len(metrics["labels"])))
        rows.append((*cells, *counts, *numbers))
    # At least three: the rule under the heading has no fewer characters.
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    # Names to the left, numbers to the right.
    left = len(names)
    rule = [":" + "-" * (width - 1) for width in widths[:left]]
    rule += ["-" * (width - 1) + ":" for width in widths[left:]]
    lines = [
        [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(
                zip(row, widths, strict=True)
            )
        ]
        for row in rows
    ]
    lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot_confusion(matrix, labels, path, title):
    """Draw a confusion matrix to a PNG file, written atomically.

    Colours and percentages are shares of the row, so that the diagonal shows
    the recall and a rare class is seen as well as a frequent one.

    Arguments
    ---------
    matrix : numpy.ndarray
        What `confusion_matrix` returned.
    labels : list of str
        The words of the rows and columns.
    path : str or path-like
        The PNG file; its folder is made when missing.
    title : str
        What stands above.

    Raises
    ------
    InputError
        The matrix does not have a row and a column per label.

    Example
    -------
    >>> import tempfile
    >>> from pathlib import Path
    >>> labels = ["sad", "angry"]
    >>> matrix = confusion_matrix(["sad", "angry"], ["sad", "sad"], labels)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plot_confusion(matrix, labels, f"{folder}/resd.png", "RESD")
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['resd.png']
    """
    labels = candidate_labels(labels)
    matrix = np.asarray(matrix)
    if matrix.shape != (len(labels), len(labels)):
        raise InputError(
            f"a confusion matrix of shape {list(matrix.shape)} for "
            f"{len(labels)} labels; a row and a column per label are needed"
        )
    figure = _confusion_figure(matrix, labels, title)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=150)


def _confusion_figure(matrix, labels, title):
    # Here: only drawing needs matplotlib, which is slow to load. No pyplot: it
    # keeps every figure alive and looks for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    support = matrix.sum(axis=1)
    # A class that never occurs has no shares; its row stays grey and empty.
    shares = matrix / np.where(support > 0, support, np.nan)[:, None]
    side = 2 + 0.9 * len(labels)  # inches
    figure = Figure(figsize=(side, side), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor="0.93")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(~np.isnan(shares)):
        # readable on both ends of the colours
        color = "white" if shares[row, column] > 0.5 else "0.2"
        cell = {"ha": "center", "va": "center", "color": color}
        percent = f"{shares[row, column]:.0%}"
        axes.text(column, row - 0.08, percent, fontsize=12, **cell)
        count = f"{matrix[row, column]:,}"
        axes.text(column, row + 0.14, count, fontsize=8, **cell)
    _label_axes(axes, labels, support)
    # parse_math: a "$" in a name is a dollar sign
    title = textwrap.fill(title, width=int(8 * side))
    axes.set_title(title, pad=12, parse_math=False)
    return figure


def _label_axes(axes, labels, support):
    rows = [
        f"{word}\nn = {n:,}" for word, n in zip(labels, support, strict=True)
    ]
    slanted = max(map(len, labels)) > 10
    axes.set_xticks(
        range(len(labels)),
        labels,
        parse_math=False,
        rotation=40 if slanted else 0,
        ha="right" if slanted else "center",
    )
    axes.set_yticks(range(len(labels)), rows, parse_math=False)
    axes.set_xlabel("recognised", labelpad=8)
    axes.set_ylabel("true", labelpad=8)
    between = np.arange(1, len(labels)) - 0.5
    axes.set_xticks(between, minor=True)
    axes.set_yticks(between, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
