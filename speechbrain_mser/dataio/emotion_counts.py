"""How many utterances of each emotion a training has, and of which it has none."""

import pandas
from speechbrain.utils.logger import get_logger

from speechbrain_mser.files.markdown import markdown_table

logger = get_logger(__name__)


def untrained_labels(table, labels):
    """The labels that no utterance has.

    Arguments
    ---------
    table : pandas.DataFrame
        The training set.
    labels : list of str
        The label words.

    Returns
    -------
    list of str
        In the order given.

    Example
    -------
    >>> table = pandas.DataFrame({"emotion": ["sad", "angry", "sad"]})
    >>> untrained_labels(table, ["fear", "sad", "angry"])
    ['fear']
    """
    emotions = set(table.emotion)
    return [label for label in labels if label not in emotions]


def log_counts(table, labels):
    """Say what there is to learn from, and what of nothing can be learnt.

    Arguments
    ---------
    table : pandas.DataFrame
        The training set.
    labels : list of str
        The label words.

    Returns
    -------
    list of str
        `untrained_labels`.
    """
    logger.info("training utterances:\n%s", count_table(table, labels))
    untrained = untrained_labels(table, labels)
    if untrained:
        logger.warning(
            "no training utterance is %s: the model may answer so, but has "
            "not learnt it from any voice; leave it out of label_words, or "
            "train on a corpus that has it",
            " or ".join(untrained),
        )
    return untrained


def count_table(table, labels):
    """Utterances by emotion and language.

    Arguments
    ---------
    table : pandas.DataFrame
        The training set.
    labels : list of str
        The label words.

    Returns
    -------
    str
        In Markdown.

    Example
    -------
    >>> table = pandas.DataFrame({"emotion": ["sad", "angry", "sad"],
    ...     "language": ["eng", "deu", "deu"]})
    >>> print(count_table(table, ["fear", "sad", "angry"]))
    | emotion | deu | eng | all |
    | :------ | --: | --: | --: |
    | fear    |   0 |   0 |   0 |
    | sad     |   1 |   1 |   2 |
    | angry   |   1 |   0 |   1 |
    | all     |   2 |   1 |   3 |
    """
    counts = pandas.crosstab(table.emotion, table.language)
    counts = counts.reindex(labels, fill_value=0)
    counts["all"] = counts.sum(axis=1)
    counts.loc["all"] = counts.sum()
    rows = [("emotion", *(name or "(none)" for name in counts.columns))]
    rows += [
        (name, *(f"{n:,}" for n in row)) for name, *row in counts.itertuples()
    ]
    return markdown_table(rows)
