"""Reliability: how often the model is right when it is that sure."""

import textwrap

import numpy as np

from speechbrain_mser.errors import InputError


def reliability_curve(confidence, correct, bins=10):
    """Accuracy and mean confidence of utterances of like confidence.

    Bin k of K holds the confidences in ``(k / K, (k + 1) / K]``.

    Arguments
    ---------
    confidence : numpy.ndarray
        ``[n]``, the probability of the predicted label.
    correct : numpy.ndarray
        ``[n]``, bool: whether that is the true one.
    bins : int
        How many, of equal width.

    Returns
    -------
    dict
        ``n``, ``confidence`` and ``accuracy``: lists with an item per bin,
        the latter two None where nobody is in it. Ready for JSON.

    Raises
    ------
    InputError
        No bins.

    Example
    -------
    >>> sure = np.array([0.6, 0.8, 0.9])
    >>> reliability_curve(sure, np.array([True, True, False]), bins=2)["n"]
    [0, 3]
    """
    if bins < 1:
        raise InputError(f"{bins} bins of confidence: at least 1 is needed")
    bin_of = np.ceil(confidence * bins).astype(int) - 1
    bin_of = np.clip(bin_of, 0, bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    sums = {
        "confidence": np.bincount(bin_of, confidence, minlength=bins),
        "accuracy": np.bincount(bin_of, correct, minlength=bins),
    }
    return {
        "n": counts.tolist(),
        **{
            name: [
                float(total / n) if n else None
                for total, n in zip(values, counts, strict=True)
            ]
            for name, values in sums.items()
        },
    }


def plot_reliability(calibrations, path, title):
    """Draw reliability diagrams side by side, as PNG and as PDF.

    Bars are the accuracy of each bin, hatched from there to its mean
    confidence; on the dashed line the two are equal. Below, how many
    utterances are how sure.

    Arguments
    ---------
    calibrations : dict
        Heading of the panel to what `speechbrain_mser.evaluation.metrics.calibration`
        returned, all with the same bins.
    path : str or path-like
        Where to, without a suffix; its folder is made when missing.
    title : str
        What stands above.

    Example
    -------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from speechbrain_mser.evaluation.metrics import calibration
    >>> half = calibration(np.zeros((2, 2)), ["sad", "sad"], ["sad", "angry"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plot_reliability({"none": half}, f"{folder}/urdu", "URDU")
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['urdu.pdf', 'urdu.png']
    """
    # Here: only drawing needs matplotlib, which is slow to load.
    from speechbrain_mser.evaluation.figures import (
        COLORS,
        new_figure,
        save_figure,
    )

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
    for (name, found), (above, below) in zip(
        calibrations.items(), panels.T, strict=True
    ):
        _draw_accuracy(above, found, *COLORS[:2])
        above.set_title(f"{name}\nECE {found['ECE']:.3f}", parse_math=False)
        _draw_shares(below, found)
    panels[0, 0].set_ylabel("accuracy")
    panels[1, 0].set_ylabel("utterances")
    # parse_math: a "$" in a name is a dollar sign
    figure.suptitle(textwrap.fill(title, int(9 * width)), parse_math=False)
    save_figure(figure, path)


def _draw_accuracy(axes, found, solid, hatched):
    curve, width = found["reliability"], 1 / found["bins"]
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


def _draw_shares(axes, found):
    counts = np.array(found["reliability"]["n"])
    width = 1 / found["bins"]
    left = np.arange(len(counts)) * width
    axes.bar(left, counts, width, color="0.6", align="edge", edgecolor="white")
    axes.set_xlabel("confidence")
    axes.spines[["top", "right"]].set_visible(False)
