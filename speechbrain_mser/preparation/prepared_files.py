"""What a preparation leaves behind: three files and a printed table.

The manifest, the list of what was dropped, and a small record of what they
were made from, by which a second run sees that there is nothing to do.
"""

import csv
import io
import json
import sys
import tempfile
from collections import Counter

from speechbrain_mser.dataio.manifest import MANIFEST_FOLDER, write_manifest
from speechbrain_mser.emotions import in_order
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.files.csv_files import write_csv
from speechbrain_mser.files.fingerprints import sha256
from speechbrain_mser.spelling import find_spelling

SPLITS = ("train", "valid", "test")


def check_writable(folder):
    """Fail on a read-only folder before the work rather than after it.

    Arguments
    ---------
    folder : pathlib.Path
        Made when missing.

    Raises
    ------
    InputError
        Nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unwritable(folder, error) from None


def write_outcome(outputs, rows, dropped, record):
    """Write the manifest, the dropped items and the record, each whole.

    Arguments
    ---------
    outputs : list of pathlib.Path
        The manifest, the dropped items, the record.
    rows : list of dict
        See `write_manifest`.
    dropped : list of (str, str)
        Item and reason.
    record : dict
        What the output depends on, for `is_done`.

    Raises
    ------
    InputError
        The folder cannot be written to, or is full.
    """
    manifest, dropped_path, record_path = outputs
    table = io.StringIO(newline="")
    write_csv(table, ("item", "reason"), sorted(dropped))
    try:
        # First, so that a failure on the way is not taken for complete
        record_path.unlink(missing_ok=True)
        write_manifest(manifest, rows)
        write_text(dropped_path, table.getvalue())
        full = {**record, "outputs": _digests(manifest, dropped_path)}
        write_text(record_path, json.dumps(full, indent=1) + "\n")
    except OSError as error:
        raise unwritable(manifest.parent, error) from None


def is_done(outputs, record):
    """Whether an earlier run with the same record left all of its output.

    Arguments
    ---------
    outputs, record
        As for `write_outcome`.

    Returns
    -------
    bool
        False also when the output was changed since, or the record is of
        other options or files.
    """
    *written, record_path = outputs
    try:
        recorded = json.loads(record_path.read_text(encoding="utf-8"))
        return recorded == {**record, "outputs": _digests(*written)}
    except (OSError, ValueError):
        return False


def audio_is_there(manifest):
    """Whether the audio that was made beside a manifest is still there.

    Arguments
    ---------
    manifest : pathlib.Path
        One that can be read.

    Returns
    -------
    bool
        True also when the manifest names audio in the corpus only.
    """
    with open(manifest, newline="", encoding="utf-8") as file:
        return all(
            find_spelling(
                manifest.parent / wav.removeprefix(MANIFEST_FOLDER)
            ).is_file()
            for wav in (row["wav"] for row in csv.DictReader(file))
            if wav.startswith(MANIFEST_FOLDER)
        )


def report(manifest, rows, dropped, ignored, counts, excluded):
    """Print what was found, what was dropped, and whether that is all.

    Arguments
    ---------
    manifest : pathlib.Path
        The manifest written.
    rows : list of dict
        Its rows.
    dropped : list of (str, str)
        Item and ``kind: detail``.
    ignored : dict
        Kind to number of files without a row of their own.
    counts : dict
        Label to number in the release; empty when not known.
    excluded : list of str
        The labels of the items on the exclusion list: the release has them.
    """
    print(f"{manifest}\n\n{split_table(rows)}\n")
    kinds = Counter(reason.split(":")[0] for _, reason in dropped)
    listed = f" (reasons in {manifest.stem}_dropped.csv)" if dropped else ""
    print(f"dropped: {_numbers(kinds)}{listed}")
    if ignored:
        print(f"ignored: {_numbers(ignored)}")
    counted = Counter(row["label"] for row in rows) + Counter(excluded)
    wrong = [
        f"{label} {counted[label]} instead of {counts.get(label, 0)}"
        for label in {**counts, **counted}
        if counted[label] != counts.get(label, 0)
    ]
    if counts and wrong:
        print(
            f"warning: {counted.total()} utterances, the release has "
            f"{sum(counts.values())}: {', '.join(wrong)}",
            file=sys.stderr,
        )
    elif counts:
        print(f"counts equal the release's: {counted.total()} utterances")


def split_table(rows):
    """Utterances, hours and speakers by split and emotion, as text.

    Arguments
    ---------
    rows : iterable of dict
        Rows of a manifest.

    Returns
    -------
    str
        One line per emotion (``(none)`` for labels without one).

    Example
    -------
    >>> print(split_table([
    ...     {"split": "train", "emotion": "happy", "speaker": "f1",
    ...      "duration": 5400.0},
    ...     {"split": "test", "emotion": "", "speaker": "m1",
    ...      "duration": 1800.0},
    ... ]))
                   train      test     total
    happy              1         0         1
    (none)             0         1         1
    utterances         1         1         2
    hours           1.50      0.50      2.00
    speakers           1         1         2
    """
    rows = list(rows)
    splits = [s for s in SPLITS if any(row["split"] == s for row in rows)]
    columns = [[row for row in rows if row["split"] == s] for s in splits]
    columns.append(rows)
    lines = [("", *splits, "total")]
    emotions = {row["emotion"] for row in rows} - {""}
    for emotion in (*in_order(emotions), ""):
        numbers = [
            sum(row["emotion"] == emotion for row in column)
            for column in columns
        ]
        if any(numbers):
            lines.append((emotion or "(none)", *numbers))
    lines.append(("utterances", *map(len, columns)))
    hours = [sum(row["duration"] for row in c) / 3600 for c in columns]
    lines.append(("hours", *(f"{value:.2f}" for value in hours)))
    speakers = [len({row["speaker"] for row in c} - {""}) for c in columns]
    lines.append(("speakers", *speakers))
    return "\n".join(
        f"{name:10}" + "".join(f"{value:>10}" for value in values)
        for name, *values in lines
    )


def unwritable(folder, error):
    """What to tell about an `OSError` met on writing into a folder.

    Arguments
    ---------
    folder : str or path-like
        Where something was to be written.
    error : OSError
        Why that failed.

    Returns
    -------
    InputError
        To be raised.

    Example
    -------
    >>> unwritable("manifests", OSError(28, "No space left on device"))
    InputError('manifests: cannot be written to (No space left on device);
    free some space or give another save folder')
    """
    return InputError(
        f"{folder}: cannot be written to ({error.strerror}); free some space "
        "or give another save folder"
    )


def _digests(*paths):
    return {path.name: sha256(path.read_bytes()) for path in paths}


def _numbers(counter):
    """``duplicate 3, empty 1``, or ``none``."""
    return ", ".join(f"{kind} {n}" for kind, n in counter.items()) or "none"
