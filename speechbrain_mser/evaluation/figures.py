"""The paper's figures: distributions, maps of utterances, bars of an ablation."""

import numpy as np
from matplotlib.lines import Line2D

from speechbrain_mser.emotions import in_order
from speechbrain_mser.evaluation.drawing import (
    COLORS,
    new_figure,
    save_figure,
    styles,
)


def plot_distributions(table, stem, by="corpus"):
    """How many utterances of every emotion and language, and how long.

    The paper's Fig. 1.

    Arguments
    ---------
    table : pandas.DataFrame
        Utterances of any manifests.
    stem : str or path-like
        As for `save_figure`.
    by : str
        The column that the bars of emotions are divided by.
    """
    emotions = in_order(table.emotion[table.emotion != ""])
    languages = in_order(table.language)
    parts = in_order(table[by])
    figure = new_figure(9, 1.4 + 0.32 * max(len(emotions), len(languages)))
    left, right = figure.subplots(1, 2)
    look = styles(parts)
    for axes, column, words, of in (
        (left, "emotion", emotions, None),
        (right, "language", languages, "duration"),
    ):
        start = np.zeros(len(words))
        for part in parts:
            rows = table[table[by] == part]
            weight = 1 if of is None else rows[of] / 3600
            sizes = (
                rows.assign(weight=weight).groupby(column).weight.sum()
            ).reindex(words, fill_value=0)
            axes.barh(
                words,
                sizes,
                left=start,
                color=look[part][0],
                # Parts of one bar stay apart without colour.
                edgecolor="white",
                label=part,
            )
            start = start + sizes.to_numpy()
        share = start / max(start.sum(), 1e-9)
        for row, (size, part) in enumerate(zip(start, share, strict=True)):
            text = f"{size:,.0f}" if of is None else f"{size:.2f} h"
            axes.text(
                size, row, f" {text} ({part:.0%})", va="center", fontsize=8
            )
        axes.margins(x=0.28)
        axes.invert_yaxis()
        _plain(axes)
    left.set_title("(a) emotions: utterances", loc="left", fontsize=10)
    right.set_title("(b) languages: hours", loc="left", fontsize=10)
    if len(parts) > 1:
        figure.legend(
            *left.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=min(len(parts), 7),
            frameon=False,
            fontsize=9,
        )
    save_figure(figure, stem)


def scatter(axes, points, words, title):
    """Draw a map of utterances, a colour and a marker for each word.

    Arguments
    ---------
    axes : matplotlib.axes.Axes
        Where.
    points : numpy.ndarray
        ``[utterances, 2]``.
    words : numpy.ndarray
        ``[utterances]``, each one's emotion, language or corpus.
    title : str
        What stands above.
    """
    look = styles(in_order(words))
    colors = np.array([look[word][0] for word in words])
    # Drawn in the utterances' own order, mixed: a class drawn last would
    # hide all others.
    for first in range(0, len(words), 50):
        part = slice(first, first + 50)
        for word in in_order(words[part]):
            rows = np.flatnonzero(words[part] == word) + first
            axes.scatter(
                *points[rows].T,
                s=11,
                c=colors[rows],
                marker=look[word][1],
                linewidths=0,
                alpha=0.8,
            )
    handles = [
        Line2D([], [], color=color, marker=marker, ls="", label=word)
        for word, (color, marker) in look.items()
    ]
    axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.01),
        ncols=4,
        frameon=False,
        fontsize=9,
        handletextpad=0.1,
        columnspacing=1.0,
    )
    axes.set_title(title, loc="left", fontsize=10)
    # A map's axes mean nothing: only who is whose neighbour does.
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("0.8")


def plot_spectrogram_map(points, table, numbers, stem):
    """A map of mean spectrograms, by emotion and by language, and its numbers.

    The paper's Fig. 2.

    Arguments
    ---------
    points : numpy.ndarray
        ``[utterances, 2]``.
    table : pandas.DataFrame
        The same utterances.
    numbers : dict
        ``silhouette``, column to value; ``source``; ``languages``, language
        to ``n``, ``mmd``, ``centroids``, ``probe`` and ``chance``.
    stem : str or path-like
        As for `save_figure`.
    """
    # Nine rows fit beside the maps, more need more height.
    more = max(0, len(numbers["languages"]) - 9)
    figure = new_figure(12, 4.6 + 0.25 * more)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 0.85))
    scatter(left, points, table.emotion.to_numpy(), "(a) by emotion")
    scatter(middle, points, table.language.to_numpy(), "(b) by language")
    right.axis("off")
    right.set_title("(c) in all 80 dimensions", loc="left", fontsize=10)
    rows = [
        [
            language,
            f"{row['n']}",
            *(
                "–" if row[name] is None else f"{row[name]:.2f}"
                for name in ("mmd", "centroids", "probe", "chance")
            ),
        ]
        for language, row in numbers["languages"].items()
    ]
    drawn = right.table(
        rows,
        colLabels=["", "n", "MMD²", "centroids", "probe", "chance"],
        colWidths=(0.13, 0.13, 0.17, 0.22, 0.17, 0.18),
        cellLoc="right",
        loc="upper center",
        edges="horizontal",
    )
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(9)
    drawn.scale(1, 1.3)
    silhouettes = "\n".join(
        f"  by {name}: {value:.3f}"
        for name, value in numbers["silhouette"].items()
    )
    right.text(
        0,
        0,
        f"silhouette\n{silhouettes}\n\n"
        f"MMD²: distance from {numbers['source']}'s utterances, 0 is none\n"
        f"centroids: how far an emotion is from the same in "
        f"{numbers['source']},\n  1 is as far as {numbers['source']}'s "
        "emotions are apart\n"
        f"probe: UA of a linear classifier trained on {numbers['source']}\n"
        f"  (for {numbers['source']}: on its other speakers)",
        transform=right.transAxes,
        fontsize=8.5,
        va="bottom",
    )
    save_figure(figure, stem)


def plot_embeddings(maps, stem):
    """Maps of the embeddings of several recognisers, side by side.

    The paper's Fig. 4.

    Arguments
    ---------
    maps : dict
        A recogniser's title to ``(points, emotions, silhouette)``.
    stem : str or path-like
        As for `save_figure`.
    """
    figure = new_figure(4.6 * len(maps), 4.9)
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    for letter, axes, (title, (points, emotions, silhouette)) in zip(
        "abcdefgh", panels, maps.items(), strict=False
    ):
        text = f"({letter}) {title}: silhouette {silhouette:.3f}"
        scatter(axes, points, emotions, text)
    save_figure(figure, stem)


def plot_ablation(rows, stem, metric="UA"):
    """Bars of an ablation's rows, a panel for each evaluation set.

    Arguments
    ---------
    rows : list of dict
        ``name``, ``group``, and ``sets``: set to ``chance`` and, of every
        metric, ``values``, ``mean`` and ``sd``.
    stem : str or path-like
        As for `save_figure`.
    metric : str
        What the bars and the numbers beside them show, as the mean over
        seeds. The line at a bar's end is the standard deviation to both
        sides, dots are single seeds, the dashed line is chance.
    """
    names = list(rows[0]["sets"])
    groups = list(dict.fromkeys(row["group"] for row in rows))
    # Groups stand apart by a gap of one bar's height.
    places = [
        number + groups.index(row["group"]) for number, row in enumerate(rows)
    ]
    figure = new_figure(2.2 + 2.5 * len(names), 1.2 + 0.3 * (places[-1] + 1))
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        of_set = [row["sets"][name] for row in rows]
        for place, row, metrics in zip(places, rows, of_set, strict=True):
            over_seeds = metrics[metric]
            axes.barh(
                place,
                over_seeds["mean"],
                xerr=over_seeds["sd"],
                color=COLORS[groups.index(row["group"]) % len(COLORS)],
                alpha=0.75,
                error_kw={"ecolor": "black", "capsize": 3, "zorder": 3},
            )
            values = over_seeds["values"]
            axes.scatter(
                values, [place] * len(values), s=8, c="black", zorder=4
            )
            end = max([over_seeds["mean"] + (over_seeds["sd"] or 0), *values])
            axes.text(
                end + 0.03,
                place,
                f"{over_seeds['mean']:.3f}",
                va="center",
                fontsize=8,
            )
        axes.axvline(of_set[0]["chance"], color="0.3", ls="--", lw=1)
        axes.set_title(f"{name}, n = {of_set[0]['n']}", loc="left", fontsize=10)
        # Room for a number beside a full bar
        axes.set_xlim(0, 1.2)
        axes.set_xticks((0, 0.25, 0.5, 0.75, 1))
        axes.tick_params(axis="x", labelsize=8)
        axes.set_xlabel(metric)
        _plain(axes)
        axes.xaxis.set_visible(True)
    panels[0].set_yticks(places, [row["name"] for row in rows])
    panels[0].invert_yaxis()
    handles = [
        Line2D([], [], color=COLORS[n], lw=6, alpha=0.75, label=group)
        for n, group in enumerate(groups)
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(groups),
        frameon=False,
        fontsize=9,
    )
    save_figure(figure, stem)


def _plain(axes):
    """Bars that carry their numbers need little around them."""
    axes.xaxis.set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
