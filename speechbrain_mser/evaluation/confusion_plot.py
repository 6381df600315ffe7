"""A confusion matrix as a figure."""

import textwrap

import numpy as np

from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import atomic_path


def plot_confusion(matrix, labels, path, title, untrained=()):
    """Draw a confusion matrix to a PNG file, written atomically.

    Colours and percentages are shares of the row, so that the diagonal shows
    the recall and a rare class is seen as well as a frequent one.

    Arguments
    ---------
    matrix : numpy.ndarray
        What `speechbrain_mser.evaluation.metrics.confusion_matrix` returned.
    labels : list of str
        The words of the rows and columns.
    path : str or path-like
        The PNG file; its folder is made when missing.
    title : str
        What stands above.
    untrained : list of str
        The labels of which no training utterance was: they get an asterisk,
        and the figure says what it means.

    Raises
    ------
    InputError
        The matrix does not have a row and a column per label.

    Example
    -------
    >>> import tempfile
    >>> from pathlib import Path
    >>> matrix, labels = [[1, 0], [1, 0]], ["sad", "angry"]
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
    figure = _confusion_figure(matrix, labels, title, untrained)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=150)


def _confusion_figure(matrix, labels, title, untrained):
    # Here: only drawing needs matplotlib, which is slow to load.
    from speechbrain_mser.evaluation.figures import new_figure

    support = matrix.sum(axis=1)
    # A class that never occurs has no shares; its row stays grey and empty.
    shares = matrix / np.where(support > 0, support, np.nan)[:, None]
    side = 2 + 0.9 * len(labels)  # inches
    figure = new_figure(side, side)
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
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
    marked = [f"{word}*" if word in untrained else word for word in labels]
    _label_axes(axes, marked, support)
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
    any_untrained = any(word.endswith("*") for word in labels)
    legend = "\n* zero-shot: not in training" if any_untrained else ""
    axes.set_xlabel("recognised" + legend, labelpad=8)
    axes.set_ylabel("true", labelpad=8)
    between = np.arange(1, len(labels)) - 0.5
    axes.set_xticks(between, minor=True)
    axes.set_yticks(between, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
