"""An evaluation as it is read: a table with others' results beside ours."""

from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.intervals import FEWEST_SPEAKERS
from speechbrain_mser.evaluation.metrics import FIGURES
from speechbrain_mser.files.markdown import markdown_table
from speechbrain_mser.files.tables import read_table

OURS = "this recogniser"


def read_published(path):
    """Others' results, by the protocol that they are of.

    Arguments
    ---------
    path : str or path-like
        A CSV file with the columns ``protocol``, ``system``, ``WA``, ``UA``,
        ``WF1``, ``precision`` (in percent, as they are printed; empty where
        they are not), ``source`` and ``note``.

    Returns
    -------
    dict
        Protocol to a list of dicts, in the file's order, with the metrics as
        fractions and None where there is none.

    Raises
    ------
    InputError
        The file cannot be read as such, a number is no percentage, or a
        result has no source.

    Example
    -------
    >>> import tempfile
    >>> path = f"{tempfile.mkdtemp()}/published.csv"
    >>> with open(path, "w") as file:
    ...     _ = file.write("protocol,system,WA,UA,WF1,precision,source,note\\n")
    ...     _ = file.write("MELD-7,Vesper,,26.8,48.0,,Chen et al. 2024,\\n")
    >>> read_published(path)["MELD-7"][0]["UA"]
    0.268
    """
    published = {}
    columns = ("protocol", "system", *FIGURES, "source", "note")
    for row in read_table(path, columns):
        if not row["source"]:
            raise InputError(
                f"{path}: {row['system']} on {row['protocol']} has no source: "
                "say where the numbers are from"
            )
        figures = {name: _fraction(path, row, name) for name in FIGURES}
        published.setdefault(row["protocol"], []).append(
            {"system": row["system"], **figures}
            | {name: row[name] for name in ("source", "note")}
        )
    return published


def _fraction(path, row, name):
    if not row[name]:
        return None
    try:
        percent = float(row[name])
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise InputError(
            f"{path}: {name} of {row['system']} on {row['protocol']} is "
            f"{row[name]!r}, expected percent, 0 to 100, or nothing"
        )
    return round(percent / 100, 6)  # 0.268, not 0.26799999999999996


def evaluation_report(results, absent=None):
    """All that an evaluation found, in Markdown.

    Arguments
    ---------
    results : dict
        Set to what `emotion_metrics` returned; it may have ``intervals`` as
        `bootstrap_intervals` returns, ``published`` as `read_published`
        returns for its protocol, ``note``, the protocol's in words, and
        ``calibrations`` as `compare_calibrations` returns, with
        ``calibrated_on_it`` where they were fitted on utterances of the set,
        and ``untrained``, the labels of which no training utterance was.
    absent : dict, optional
        Set to why it could not be evaluated.

    Returns
    -------
    str
        The table, one of each label's recall, another where sets have
        calibrations, and what a reader must know of protocols, intervals and
        sources.

    Example
    -------
    >>> from speechbrain_mser.evaluation.metrics import emotion_metrics
    >>> metrics = emotion_metrics(["sad"] * 3, ["sad"] * 3, ["sad", "angry"])
    >>> print(evaluation_report({"mine": metrics}, {"URDU": "no folder"}))
    | set  | system            |   n | labels | chance |    WA |    UA | ...
    | :--- | :---------------- | --: | -----: | -----: | ----: | ----: | ...
    | mine | this recogniser   |   3 |      2 |  1.000 | 1.000 | 1.000 | ...
    | URDU | absent: no folder |     |        |        |       |       | ...
    <BLANKLINE>
    | recall |   sad | angry |
    | :----- | ----: | ----: |
    | mine   | 1.000 |     - |
    """
    headings = ("set", "system", "n", "labels", "chance", *FIGURES)
    rows = [headings]
    for name, metrics in results.items():
        rows.append(
            (
                name,
                OURS,
                str(metrics["n"]),
                str(len(metrics["labels"])),
                f"{metrics['chance']:.3f}",
                *(_with_interval(metrics, figure) for figure in FIGURES),
            )
        )
        for other in metrics.get("published", ()):
            figures = (
                "" if other[figure] is None else f"{other[figure]:.3f}"
                for figure in FIGURES
            )
            rows.append((name, other["system"], "", "", "", *figures))
    for name, reason in (absent or {}).items():
        blank = [""] * (len(headings) - 2)
        rows.append((name, f"absent: {reason}", *blank))
    parts = [markdown_table(rows, names=2)]
    if results:
        parts.append(recall_table(results))
    compared = {
        name: metrics["calibrations"]
        for name, metrics in results.items()
        if "calibrations" in metrics
    }
    if compared:
        parts.append(calibration_table(compared))
    notes = [
        *_untrained(results),
        *_protocols(results),
        *_intervals(results),
        *_sources(results),
    ]
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)


def recall_table(results):
    """How well each label is heard, set by set, in Markdown.

    Arguments
    ---------
    results : dict
        As for `evaluation_report`.

    Returns
    -------
    str
        Blank where a label is no candidate, "-" where it does not occur, an
        asterisk where it was not trained.

    Example
    -------
    >>> per_class = {"sad": {"n": 2, "recall": 0.5}, "fear": {"n": 0}}
    >>> per_class["fear"]["recall"] = 0.0
    >>> metrics = {"per_class": per_class, "untrained": ["fear"]}
    >>> print(recall_table({"mine": metrics}))
    | recall |   sad | fear |
    | :----- | ----: | ---: |
    | mine   | 0.500 |   -* |
    """
    words = dict.fromkeys(
        word for metrics in results.values() for word in metrics["per_class"]
    )
    rows = [("recall", *words)]
    for name, metrics in results.items():
        cells = {
            word: f"{rates['recall']:.3f}" if rates["n"] else "-"
            for word, rates in metrics["per_class"].items()
        }
        for word in metrics.get("untrained", ()):
            cells[word] += "*"
        rows.append((name, *(cells.get(word, "") for word in words)))
    return markdown_table(rows)


def calibration_table(compared):
    """Sets before and after calibration, in Markdown.

    Arguments
    ---------
    compared : dict
        Set to what `speechbrain_mser.evaluation.calibration.compare_calibrations`
        returned.

    Returns
    -------
    str
        A row per set and mode.

    Example
    -------
    >>> metrics = {"WA": 0.5, "UA": 0.5, "ECE": 0.1, "brier": 0.6, "NLL": 1.0}
    >>> print(calibration_table({"URDU": {"none": metrics}}))
    | set  | calibration |    WA |    UA |   ECE | Brier |   NLL |
    | :--- | :---------- | ----: | ----: | ----: | ----: | ----: |
    | URDU | none        | 0.500 | 0.500 | 0.100 | 0.600 | 1.000 |
    """
    figures = ("WA", "UA", "ECE", "brier", "NLL")
    rows = [("set", "calibration", "WA", "UA", "ECE", "Brier", "NLL")]
    for name, modes in compared.items():
        for mode, metrics in modes.items():
            rows.append((name, mode, *(f"{metrics[f]:.3f}" for f in figures)))
    return markdown_table(rows, names=2)


def _with_interval(metrics, figure):
    text = f"{metrics[figure]:.3f}"
    if "intervals" in metrics:
        low, high = metrics["intervals"][figure]
        text += f" [{low:.3f}, {high:.3f}]"
    return text


def _untrained(results):
    """What the asterisk says."""
    if any(metrics.get("untrained") for metrics in results.values()):
        yield (
            "*: zero-shot, no utterance with this label was trained on (of "
            "several recognisers: by none)."
        )


def _protocols(results):
    """What the sets are, and which were seen by their calibration."""
    for name, metrics in results.items():
        if metrics.get("note"):
            yield f"{name}: {metrics['note']}."
        if metrics.get("calibrated_on_it"):
            yield (
                f"{name}: the calibration was fitted on utterances of this "
                "set; what it does to others shows on others only."
            )


def _intervals(results):
    """How the intervals came about, sets of one kind together."""
    groups = {}
    for name, metrics in results.items():
        if "intervals" in metrics:
            intervals = metrics["intervals"]
            method = (
                intervals["level"],
                intervals["drawn"],
                intervals["resamples"],
            )
            groups.setdefault(method, []).append(
                f"{name} ({intervals['units']})"
            )
    for (level, drawn, resamples), names in groups.items():
        note = (
            f"Intervals: {100 * level:g} %, percentile bootstrap, "
            f"{resamples:,} resamples of {drawn}: {', '.join(names)}."
        )
        if drawn == "utterances":
            note += (
                f" Fewer than {FEWEST_SPEAKERS} speakers are known there: for "
                "other voices these are too narrow."
            )
        yield note


def _sources(results):
    """Where others' numbers are from."""
    for name, metrics in results.items():
        for other in metrics.get("published", ()):
            note = f" ({other['note']})" if other["note"] else ""
            yield f"{name}, {other['system']}: {other['source']}{note}."
