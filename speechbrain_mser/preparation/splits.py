"""Splits by speaker: nobody is heard in training and in testing."""

import sys

from speechbrain_mser.errors import InputError

# In place of a list of test speakers: whoever is in no other split.
ALL = "all"


def assign_splits(rows, valid_speakers, test_speakers, known=()):
    """Give every row its split by its speaker.

    Arguments
    ---------
    rows : list of dict
        With ``speaker``; gets ``split``: train, valid or test.
    valid_speakers, test_speakers : list of str
        As for `prepare_corpus`.
    known : iterable of str
        Speakers who may be named although they have no utterance here, as
        when only a part of a corpus was downloaded.

    Raises
    ------
    InputError
        An unknown speaker, or one who is in both lists.

    Example
    -------
    >>> rows = [{"speaker": "f1"}, {"speaker": "m1"}, {"speaker": "m2"}]
    >>> assign_splits(rows, ["m1"], ["m2"])
    >>> [row["split"] for row in rows]
    ['train', 'valid', 'test']
    """
    here = {row["speaker"] for row in rows}
    valid = set(valid_speakers)
    test = here - valid if ALL in test_speakers else set(test_speakers)
    if valid & test:
        raise InputError(
            f"speaker {', '.join(sorted(valid & test))} is in both "
            "valid_speakers and test_speakers"
        )
    unknown = (valid | test) - here - set(known)
    if unknown:
        names = sorted(here | set(known))
        more = f" and {len(names) - 30} more" if len(names) > 30 else ""
        raise InputError(
            f"no speaker {', '.join(sorted(unknown))}; there are "
            f"{', '.join(names[:30])}{more}"
        )
    absent = (valid | test) - here
    if absent:
        print(
            f"warning: nothing here by speaker {', '.join(sorted(absent))}, "
            "who should be in the validation or test split",
            file=sys.stderr,
        )
    for row in rows:
        speaker = row["speaker"]
        held_out = "valid" if speaker in valid else "test"
        row["split"] = held_out if speaker in valid | test else "train"


def warn_of_shared_speakers(rows):
    """Say which speakers are in two of the splits that a corpus brings.

    Arguments
    ---------
    rows : iterable of dict
        With ``speaker`` (empty: not known) and ``split``.

    Example
    -------
    >>> import contextlib
    >>> with contextlib.redirect_stderr(sys.stdout):
    ...     warn_of_shared_speakers([
    ...         {"speaker": "Ross", "split": "train"},
    ...         {"speaker": "Ross", "split": "test"},
    ...         {"speaker": "Mona", "split": "test"},
    ...     ])
    warning: 1 of 2 speakers are in more than one split (Ross): a result is
    not one of unseen voices
    """
    splits = {}
    for row in rows:
        splits.setdefault(row["speaker"], set()).add(row["split"])
    splits.pop("", None)
    shared = sorted(name for name, heard in splits.items() if len(heard) > 1)
    if shared:
        more = f" and {len(shared) - 5} more" if len(shared) > 5 else ""
        print(
            f"warning: {len(shared)} of {len(splits)} speakers are in more "
            f"than one split ({', '.join(shared[:5])}{more}): a result is not "
            "one of unseen voices",
            file=sys.stderr,
        )


def check_speakers_disjoint(rows):
    """Assert that no speaker is in two splits.

    Arguments
    ---------
    rows : iterable of dict
        With ``corpus``, ``speaker`` and ``split``.

    Raises
    ------
    InputError
        A speaker is in two splits.

    Example
    -------
    >>> check_speakers_disjoint([
    ...     {"corpus": "emovo", "speaker": "f1", "split": "train"},
    ...     {"corpus": "emovo", "speaker": "f1", "split": "test"},
    ... ])
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: emovo: speaker f1 is in ...
    """
    splits = {}
    for row in rows:
        key = row["corpus"], row["speaker"]
        first = splits.setdefault(key, row["split"])
        if first != row["split"]:
            raise InputError(
                f"{key[0]}: speaker {key[1]} is in the splits {first} and "
                f"{row['split']}; a result would not be of unseen speakers"
            )
