"""What an evaluation looks like: confusion matrices, reliability diagrams."""

import textwrap

import numpy as np

from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.drawing import (
    COLORS,
    new_figure,
    save_figure,
)


def plot_confusion(matrix, labels, stem, title, untrained=()):
    """Draw a confusion matrix.

    Colours and percentages are shares of the row, so that the diagonal shows
    the recall and a rare class is seen as well as a frequent one.

    Arguments
    ---------
    matrix : numpy.ndarray
        What `speechbrain_mser.evaluation.metrics.confusion_matrix` returned.
    labels : list of str
        The words of the rows and columns.
    stem : str or path-like
        As for `speechbrain_mser.evaluation.drawing.save_figure`.
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
    ...     plot_confusion(matrix, labels, f"{folder}/resd", "RESD")
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['resd.pdf', 'resd.png']
    """
    labels = candidate_labels(labels)
    matrix = np.asarray(matrix)
    if matrix.shape != (len(labels), len(labels)):
        raise InputError(
            f"a confusion matrix of shape {list(matrix.shape)} for "
            f"{len(labels)} labels; a row and a column per label are needed"
        )
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
    save_figure(figure, stem)


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


def plot_reliability(calibrations, stem, title):
    """Draw reliability diagrams side by side.

    Bars are the accuracy of each bin, hatched from there to its mean
    confidence; on the dashed line the two are equal. Below, how many
    utterances are how sure.

    Arguments
    ---------
    calibrations : dict
        Heading of the panel to what `speechbrain_mser.evaluation.reliability.calibration`
        returned, all with the same bins.
    stem : str or path-like
        As for `speechbrain_mser.evaluation.drawing.save_figure`.
    title : str
        What stands above.

    Example
    -------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from speechbrain_mser.evaluation.reliability import calibration
    >>> half = calibration(np.zeros((2, 2)), ["sad", "sad"], ["sad", "angry"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plot_reliability({"none": half}, f"{folder}/urdu", "URDU")
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['urdu.pdf', 'urdu.png']
    """
    width = 3.2 * len(calibrations) + 0.6  # inches
    figure = new_figure(width, 4.6)
    panels = figure.subplots(
        2,
        len(calibrations),
        sharex=True,
        sharey="row",
        squeeze=False,
        height_ratios=(3, 1),
    )
    for (name, metrics), (above, below) in zip(
        calibrations.items(), panels.T, strict=True
    ):
        _draw_accuracy(above, metrics, *COLORS[:2])
        above.set_title(f"{name}\nECE {metrics['ECE']:.3f}", parse_math=False)
        _draw_shares(below, metrics)
    panels[0, 0].set_ylabel("accuracy")
    panels[1, 0].set_ylabel("utterances")
    # parse_math: a "$" in a name is a dollar sign
    figure.suptitle(textwrap.fill(title, int(9 * width)), parse_math=False)
    save_figure(figure, stem)


def _draw_accuracy(axes, metrics, solid, hatched):
    curve, width = metrics["reliability"], 1 / metrics["bins"]
    filled = [k for k, n in enumerate(curve["n"]) if n]
    left = [k * width for k in filled]
    accuracy = [curve["accuracy"][k] for k in filled]
    gaps = [curve["confidence"][k] - curve["accuracy"][k] for k in filled]
    bar = {"align": "edge", "edgecolor": "white"}
    axes.bar(left, accuracy, width, color=solid, label="accuracy", **bar)
    bar |= {"facecolor": "none", "edgecolor": hatched, "hatch": "///"}
    axes.bar(
        left, gaps, width, bottom=accuracy, label="gap to confidence", **bar
    )
    axes.plot([0, 1], [0, 1], "--", color="0.3", linewidth=1)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_shares(axes, metrics):
    counts = np.array(metrics["reliability"]["n"])
    width = 1 / metrics["bins"]
    left = np.arange(len(counts)) * width
    axes.bar(left, counts, width, color="0.6", align="edge", edgecolor="white")
    axes.set_xlabel("confidence")
    axes.spines[["top", "right"]].set_visible(False)
