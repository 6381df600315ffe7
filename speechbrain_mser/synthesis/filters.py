"""The paper's two rules for what a translation must be, and their toll.

It drops what is under 0.5 s, and files under 20 KB (of IEMOCAP and MELD) or
50 KB (of the others), without saying of which encoding. Sizes are therefore
computed from the duration in one encoding, a setting, whatever the files
have: how a corpus is stored must not change what is in it.

Beyond the paper, and never by default, conditions on what scorers measured.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.markdown import markdown_table
from speechbrain_mser.files.tables import read_table
from speechbrain_mser.spelling import compose

# Kinds of reasons
SHORT, SMALL, SCORE = "too short", "too small", "score"
TOTAL = "all"


@dataclass(frozen=True)
class PaperFilters:
    """What is too short or too small.

    Arguments
    ---------
    min_seconds : float
        Shorter ones are dropped; 0: none.
    min_kilobytes : float
        Smaller ones are dropped; 0: none for its size.
    min_kilobytes_of : dict
        The same for single corpora.
    reference_rate, reference_bytes : int
        The encoding in which sizes are meant: samples per second and bytes
        per sample (4: float32, 2: 16 bit), mono, without the header. The
        default is what SeamlessExpressive's own command line writes.
    kilobyte : int
        1000 or 1024 bytes.

    Raises
    ------
    InputError
        A number is below 0, or nothing that sizes can be computed with.

    Example
    -------
    >>> rules = PaperFilters(min_kilobytes_of={"meld": 20})
    >>> rules.refuse("meld", 0.51), rules.refuse("mead", 0.51)
    ('', 'too small: 49.0 KB of 50 KB')
    """

    min_seconds: float = 0.5
    min_kilobytes: float = 50.0
    min_kilobytes_of: dict = field(default_factory=dict)
    reference_rate: int = 24000
    reference_bytes: int = 4
    kilobyte: int = 1000

    def __post_init__(self):
        numbers = {**vars(self)}
        for corpus, size in numbers.pop("min_kilobytes_of").items():
            numbers[f"min_kilobytes_of {corpus}"] = size
        for name, value in numbers.items():
            zero = name.startswith("min_")
            # Written so that NaN fails too
            if not (value > 0 or (zero and value == 0)) or value == float(
                "inf"
            ):
                raise InputError(
                    f"{name} is {value:g}; it must be {'0 or ' * zero}above 0"
                )

    def refuse(self, corpus, seconds):
        """Why a translation is dropped.

        Arguments
        ---------
        corpus : str
            Its source's.
        seconds : float
            Its own.

        Returns
        -------
        str
            ``kind: detail`` with both kinds where both apply; empty when it
            is kept.
        """
        size = seconds * self.reference_rate * self.reference_bytes
        size /= self.kilobyte
        least = self.min_kilobytes_of.get(corpus, self.min_kilobytes)
        reasons = {}
        if seconds < self.min_seconds:
            reasons[SHORT] = f"{seconds:.3f} s of {self.min_seconds:g} s"
        if size < least:
            reasons[SMALL] = f"{size:.1f} KB of {least:g} KB"
        if not reasons:
            return ""
        return f"{' and '.join(reasons)}: {', '.join(reasons.values())}"


def filters_toll(kept, refused):
    """What each rule drops by itself, and both together.

    Arguments
    ---------
    kept : iterable of (str, str)
        Corpus and language of every translation that passed.
    refused : iterable of (str, str, str)
        Corpus, language and reason (as `PaperFilters.refuse` gives it) of
        those that did not.

    Returns
    -------
    list of dict
        ``corpus``, ``language``, ``translations`` (how many there were), and
        how many are dropped: by the rule ``too short`` if it were the only
        one, by ``too small`` if it were, by ``both`` at once, and by
        ``either``, which is what is dropped. Sorted; the last one is over
        all.

    Example
    -------
    >>> toll = filters_toll(
    ...     [("meld", "fra")],
    ...     [("meld", "fra", "too short: 0.4 s of 0.5 s"),
    ...      ("meld", "deu", "too short and too small: 0.1 s of 0.5 s, ...")],
    ... )
    >>> toll[-1]["too short"], toll[-1]["too small"], toll[-1]["either"]
    (2, 1, 2)
    """
    counts = {}
    for corpus, language in kept:
        counts.setdefault((corpus, language), Counter())["translations"] += 1
    for corpus, language, reason in refused:
        kinds = reason.split(":")[0].split(" and ")
        count = counts.setdefault((corpus, language), Counter())
        count.update(("translations", "either", *kinds))
        if len(kinds) > 1:
            count["both"] += 1
    total = sum(counts.values(), Counter())
    columns = ("translations", SHORT, SMALL, "both", "either")
    return [
        {"corpus": corpus, "language": language}
        | {name: count[name] for name in columns}
        for (corpus, language), count in [
            *sorted(counts.items()),
            ((TOTAL, ""), total),
        ]
    ]


def toll_table(toll):
    """The same in Markdown.

    Arguments
    ---------
    toll : list of dict
        As `filters_toll` returns.

    Returns
    -------
    str
        A row for every corpus and language, and one over all.

    Example
    -------
    >>> print(toll_table(filters_toll([("meld", "fra")], [])))
    | corpus | language | translations | too short | too small | both | ...
    | :----- | :------- | -----------: | --------: | --------: | ---: | ...
    | meld   | fra      |            1 |         0 |         0 |    0 | ...
    | all    |          |            1 |         0 |         0 |    0 | ...
    """
    rows = [tuple(row.values()) for row in toll]
    return markdown_table([tuple(toll[0]), *rows], names=2)


_CONDITION = re.compile(r"(\w+)\s*(<=|>=)\s*([-+.\deE]+)")
_WORDS = {"<=": "at most", ">=": "at least"}


class ScoreFilter:
    """Conditions on the columns that scorers wrote.

    Arguments
    ---------
    path : str or path-like
        Their table: ``audio`` (the translation's relative path) and one
        column or more of numbers.
    conditions : list of str
        Such as ``cer<=0.5``; all must hold.

    Raises
    ------
    InputError
        The table cannot be read as such, a condition is not of that form, or
        of a column that is not there.

    Example
    -------
    >>> import tempfile
    >>> path = f"{tempfile.mkdtemp()}/scores.csv"
    >>> with open(path, "w") as file:
    ...     _ = file.write("audio,cer\\nfra/meld/a.flac,0.8\\n")
    >>> ScoreFilter(path, ["cer<=0.5"]).refuse("fra/meld/a.flac")
    'score: cer is 0.8, at most 0.5 is asked for'
    """

    def __init__(self, path, conditions):
        self._conditions = [_read_condition(text) for text in conditions]
        columns = [name for name, _, _ in self._conditions]
        self._scores = {
            row["audio"]: {name: _number(path, row, name) for name in columns}
            for row in read_table(path, ["audio", *columns])
        }

    def refuse(self, audio):
        """Why a translation is dropped.

        Arguments
        ---------
        audio : str
            Its relative path.

        Returns
        -------
        str
            ``kind: detail``, empty when it is kept. One without a score is
            not: nobody knows whether the condition holds.
        """
        scores = self._scores.get(compose(audio), {})
        for name, sign, limit in self._conditions:
            value = scores.get(name)
            if value is None:
                return f"{SCORE}: no {name}"
            if not (value <= limit if sign == "<=" else value >= limit):
                return (
                    f"{SCORE}: {name} is {value:g}, {_WORDS[sign]} {limit:g} "
                    "is asked for"
                )
        return ""


def _read_condition(text):
    """``cer<=0.5`` to ``("cer", "<=", 0.5)``."""
    match = _CONDITION.fullmatch(text.strip())
    try:
        name, sign, limit = match.groups()
        return name, sign, float(limit)
    except (AttributeError, ValueError):
        raise InputError(
            f"keep_if: {text!r} is not of the form cer<=0.5 or "
            "duration_ratio>=0.5"
        ) from None


def _number(path, row, name):
    try:
        return float(row[name]) if row[name] else None
    except ValueError:
        raise InputError(
            f"{path}: {name} of {row['audio']} is {row[name]!r}, which is no "
            "number"
        ) from None
