"""Rows of a manifest from the names of files, where names say everything."""

import re
from pathlib import PurePosixPath


class NotAnUtterance(Exception):
    """A file that is no utterance of the corpus: ``kind: detail``."""


class NameParser:
    """Parse names by a regular expression whose groups are columns.

    Arguments
    ---------
    pattern : str
        Of the name without its extension. A group such as ``(?P<speaker>..)``
        is a column of the manifest.
    example : str
        A good name, for the reason why another one is refused.
    label_is_folder : bool
        The folder has the label's name, and a file elsewhere is refused: one
        of the two is wrong, and nothing says which.
    refused : dict, optional
        Group that is no column, to a dict of what its values say of files
        that are no utterances: ``{"channel": {"02": "song"}}``.
    **words
        Column to a dict of what its group stands for; a name with anything
        else is refused. A column that has no group of its own is the
        speaker's, as ``gender`` mostly is.

    Raises
    ------
    NotAnUtterance
        On calling it.

    Example
    -------
    >>> parse = NameParser(
    ...     r"(?P<speaker>\\d\\d)(?P<label>[WF])[a-z]",
    ...     example="03Fa",
    ...     label={"W": "anger", "F": "happiness"},
    ...     gender={"03": "male", "08": "female"},
    ... )
    >>> parse(PurePosixPath("wav/08Wb.wav"))
    {'speaker': '08', 'label': 'anger', 'gender': 'female'}
    >>> parse(PurePosixPath("wav/09Wb.wav"))
    Traceback (most recent call last):
    ...
    NotAnUtterance: misnamed: not like 03Fa
    """

    def __init__(
        self, pattern, example, label_is_folder=False, refused=None, **words
    ):
        # ASCII: \d takes the digits of all scripts
        self.pattern = re.compile(pattern, re.ASCII)
        self.example = example
        self.label_is_folder = label_is_folder
        self.refused = refused or {}
        self.words = words

    def __call__(self, path):
        """The columns that a relative path (`PurePosixPath`) says."""
        name = self.pattern.fullmatch(path.stem)
        groups = name.groupdict() if name else {}
        row = dict(groups)
        for column, words in self.words.items():
            row[column] = words.get(groups.get(column, groups.get("speaker")))
        if name is None or None in row.values():
            raise NotAnUtterance(f"misnamed: not like {self.example}")
        for group, kinds in self.refused.items():
            value = row.pop(group)
            if value in kinds:
                raise NotAnUtterance(f"{kinds[value]}: {group} {value}")
        if self.label_is_folder and path.parent.name != row["label"]:
            raise NotAnUtterance(
                f"misnamed: {row['label']} by its name, "
                f"{path.parent.name or 'none'} by its folder"
            )
        return row


def by_name(parse_name):
    """Collect the rows of a corpus whose file names say everything.

    Arguments
    ---------
    parse_name : callable
        From the relative path (`PurePosixPath`) to a row: ``label``,
        ``speaker`` and whatever else of the manifest's columns is known, as
        `NameParser` does. Raises `NotAnUtterance`.

    Returns
    -------
    callable
        For `prepare_corpus`.
    """

    def collect(folder, paths):
        rows, dropped = [], []
        for path in paths:
            name = PurePosixPath(path)
            try:
                rows.append({"ID": name.stem, "wav": path, **parse_name(name)})
            except NotAnUtterance as reason:
                dropped.append((path, str(reason)))
        return rows, dropped

    return collect
