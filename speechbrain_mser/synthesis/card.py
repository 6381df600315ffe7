"""A dataset card: what a translated corpus is, in numbers, as Markdown.

Its head is what dataset hubs read. All numbers are handed in; nothing is
measured here.
"""

from speechbrain_mser.emotions import in_order
from speechbrain_mser.files.markdown import markdown_table
from speechbrain_mser.synthesis.filters import toll_table
from speechbrain_mser.synthesis.progress import size_in_words

NONE = "(none)"


def dataset_card(
    table,
    source,
    made,
    filters,
    dropped,
    distributions,
    spectrograms,
    scores,
    licences,
):
    """The card.

    Arguments
    ---------
    table : pandas.DataFrame
        The translations in the manifest: ``emotion``, ``language``,
        ``corpus`` (the source's), ``split`` and ``duration`` in seconds.
    source : pandas.DataFrame
        The source utterances that they are of, with the same columns.
    made : dict or None
        As `speechbrain_mser.synthesis.shard_check.describe_shards` returns; None
        for a corpus that was made elsewhere.
    filters : dict
        The settings of `PaperFilters`, and ``toll`` as `filters_toll` returns.
    dropped : dict
        Kind of reason to how many the preparation dropped for it.
    distributions : dict or None
        Not None: there is ``distributions.png`` beside the card.
    spectrograms : dict or None
        What `draw_spectrograms` of the recipe's figures returned; there is
        ``spectrograms.png`` beside the card.
    scores : dict
        Column of the scorers to language to mean; may be empty.
    licences : list of tuple
        ``(what, name, terms, source)``.

    Returns
    -------
    str
        Markdown.
    """
    parts = [
        _head(table),
        "# A translated emotional speech corpus",
        _about(table, source, made),
        "## How much",
        *_counts(table, source, distributions),
        "## How it was made",
        *_making(made),
        "## What the filters dropped",
        *_dropped(filters, dropped),
        *_spectrograms(spectrograms),
        *_scores(scores),
        "## Licences",
        "A translation inherits the terms of its source and of what "
        "translated it; the strictest holds.",
        markdown_table([("", "name", "terms", "where"), *licences], names=4),
    ]
    return "\n\n".join(parts) + "\n"


def _head(table):
    languages = "\n".join(f"- {name}" for name in sorted(set(table.language)))
    size = next(
        (
            name
            for limit, name in (
                (10**3, "n<1K"),
                (10**4, "1K<n<10K"),
                (10**5, "10K<n<100K"),
                (10**6, "100K<n<1M"),
            )
            if len(table) < limit
        ),
        "1M<n<10M",
    )
    return (
        "---\npretty_name: M5SER\nlicense: other\ntask_categories:\n"
        f"- audio-classification\nlanguage:\n{languages}\nsize_categories:\n"
        f"- {size}\n---"
    )


def _about(table, source, made):
    by = f" by `{made['backend']}`" if made else ""
    return (
        f"{len(table):,} utterances, {_hours(table)} hours, translated{by} "
        f"from {len(source):,} utterances ({_hours(source)} hours) of "
        f"{_words(in_order(table.corpus))}. Label, speaker and split are the "
        "source's. No person has listened to it: that an emotion survives "
        "the translation is an assumption, and the numbers below are what "
        "there is for and against it. Machine-made voices: do not take them "
        "for their speakers'."
    )


def _counts(table, source, drawn):
    """Utterances by emotion and hours by corpus, of every language."""
    both = {"source": source}
    both |= {
        name: table[table.language == name] for name in in_order(table.language)
    }
    if drawn:
        yield "![Emotions and languages](distributions.png)"
    for column in ("emotion", "corpus", "split"):
        yield f"Utterances by {column}:"
        yield _pivot(both, column, lambda rows: f"{len(rows):,}")
    yield "Hours by corpus:"
    yield _pivot(both, "corpus", _hours)


def _pivot(tables, column, cell):
    """A row for each word of a column, a column for each table."""
    words = {word for rows in tables.values() for word in rows[column]}
    words = [*in_order(words - {""}), *sorted(words & {""})]
    lines = [(column, *tables)]
    for word in words:
        cells = (cell(rows[rows[column] == word]) for rows in tables.values())
        lines.append((word or NONE, *cells))
    lines.append(("all", *map(cell, tables.values())))
    return markdown_table(lines)


def _hours(table):
    return f"{table.duration.sum() / 3600:,.2f}"


def _making(made):
    if made is None:
        yield (
            "Not by this project's `synthesize.py`: the folder has no "
            "receipts, so how is not known here."
        )
        return
    yield (
        f"Of {made['planned']:,} translations that were planned, in "
        f"{made['shards']:,} finished shards, {made['made']:,} were made, "
        f"{made['failed']:,} failed and {made['too_long']:,} were too long for "
        f"the translator: {made['seconds'] / 3600:,.2f} hours, "
        f"{size_in_words(made['bytes'])}."
    )
    yield "Settings that decide what is heard:"
    yield _mapping(made["settings"])
    versions = made["versions"]
    if len(versions) == 1:
        yield "Versions:"
    else:
        yield (
            f"Not all shards were made with the same versions, but with "
            f"{len(versions)} sets of them:"
        )
    for used, shards in versions:
        yield _mapping({**used, "shards": shards})
    if made["errors"]:
        yield "Not made, by reason (which, and why: `shards/*.csv`):"
        yield markdown_table(
            [
                ("reason", "translations"),
                *((name, f"{n:,}") for name, n in made["errors"].items()),
            ]
        )


def _mapping(values):
    """Names and values as a table; those within others are flattened."""
    rows = [("", "")]
    for name, value in values.items():
        if isinstance(value, dict):
            value = [f"{k} {v}" for k, v in value.items()]
        if isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value)) or "none"
        rows.append((f"`{name}`", str(value)))
    return markdown_table(rows, names=2)


def _dropped(filters, dropped):
    settings = {k: v for k, v in filters.items() if k != "toll"}
    yield _mapping(settings)
    yield (
        "Each rule alone, if it were the only one; both at once; and either, "
        "which is what is dropped:"
    )
    yield toll_table(filters["toll"])
    if dropped:
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in dropped.items())
        yield f"All that the preparation dropped, by reason: {kinds}."


def _spectrograms(numbers):
    """What mean spectrograms say of languages and emotions."""
    if numbers is None:
        return
    source = numbers["source"]
    yield "## Mean spectrograms"
    yield "![Map of mean spectrograms](spectrograms.png)"
    silhouettes = ", ".join(
        f"{value:.3f} by {name}"
        for name, value in numbers["silhouette"].items()
    )
    yield (
        f"Of {numbers['n']:,} utterances, equally many of each corpus, "
        "language and emotion where there are. Silhouettes (1: each class "
        f"apart, 0: all mixed): {silhouettes}."
    )
    yield (
        f"`MMD²` is how far a language's utterances are from {source}'s (0: "
        "not at all); `probe` the UA of a linear classifier that was trained "
        f"on {source} (for {source} itself: on its other speakers)."
    )
    languages = numbers["languages"]
    rows = [("language", "n", "MMD²", "probe", "chance")]
    for name, row in languages.items():
        cells = (_number(row[key]) for key in ("mmd", "probe", "chance"))
        rows.append((name, f"{row['n']:,}", *cells))
    yield markdown_table(rows)
    yield (
        f"How far an emotion is from the same emotion in {source}; 1 is as "
        f"far as two emotions of {source} are apart:"
    )
    others = {name: row for name, row in languages.items() if name != source}
    emotions = in_order(
        {word for row in others.values() for word in _centroids(row)}
    )
    rows = [("language", *emotions, "mean")]
    for name, row in others.items():
        ratios = _centroids(row)
        cells = (_number(ratios.get(word)) for word in emotions)
        rows.append((name, *cells, _number(row["centroids"])))
    yield markdown_table(rows)


def _centroids(row):
    return row["centroids_by_emotion"]


def _scores(scores):
    if not scores:
        return
    languages = in_order({name for by in scores.values() for name in by})
    rows = [("mean", *languages)]
    for column, by in scores.items():
        rows.append((column, *(_number(by.get(name)) for name in languages)))
    yield "## Scores"
    yield (
        "What scorers measured of every translation; none of it was used as "
        "a filter unless the reasons above say so."
    )
    yield markdown_table(rows)


def _number(value):
    return "–" if value is None else f"{value:.3f}"


def _words(names):
    return ", ".join(names)
