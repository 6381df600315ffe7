"""Tables in Markdown that read well as plain text too."""


def markdown_table(rows, names=1):
    """Rows of cells as an aligned Markdown table.

    Arguments
    ---------
    rows : list of tuple
        Cells as text; the headings first. All rows have as many.
    names : int
        How many columns, from the left, hold names: they are aligned to the
        left, all others, which hold numbers, to the right.

    Returns
    -------
    str
        The table, without a newline at its end.

    Example
    -------
    >>> print(markdown_table([("set", "n"), ("a|b", "12")]))
    | set  |   n |
    | :--- | --: |
    | a\\|b |  12 |
    """
    # A bar would begin a new cell.
    rows = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    # At least three: the rule under the heading has no fewer characters.
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rule = [":" + "-" * (width - 1) for width in widths[:names]]
    rule += ["-" * (width - 1) + ":" for width in widths[names:]]
    lines = [
        [
            cell.ljust(width) if column < names else cell.rjust(width)
            for column, (cell, width) in enumerate(
                zip(row, widths, strict=True)
            )
        ]
        for row in rows
    ]
    lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
