"""What is finished in a folder of translations, shard by shard.

For whoever reads a corpus after it was made: neither the manifests nor the
translator that it was made with are needed.
"""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.tables import read_json, read_table
from speechbrain_mser.synthesis.receipts import (
    COLUMNS,
    FOLDER_FILE,
    SHARDS,
    digest,
    read_receipt,
    rows_path,
)


def was_synthesized(folder):
    """Whether a folder says what it holds, as `synthesize.py` makes it say.

    Arguments
    ---------
    folder : str or path-like
        Any.

    Returns
    -------
    bool
    """
    return Path(folder, FOLDER_FILE).is_file()


def finished_shards(folder):
    """The receipts of a folder's finished shards.

    Arguments
    ---------
    folder : str or path-like
        Of which `was_synthesized` is true.

    Returns
    -------
    dict
        Name to receipt, in the names' order.

    Raises
    ------
    InputError
        The folder's own file cannot be read.
    """
    told = _told(folder)
    names = sorted(path.stem for path in Path(folder, SHARDS).glob("*.json"))
    found = {}
    for name in names:
        receipt = read_receipt(
            folder, name, digest(told["plan"]), digest(told["settings"])
        )
        if receipt:
            found[name] = receipt
    return found


def read_rows(folder, name):
    """What became of each utterance of a shard.

    Arguments
    ---------
    folder : str or path-like
        The folder of translations.
    name : str
        The shard's.

    Returns
    -------
    list of dict
        With the keys of `receipts.COLUMNS`, as text.
    """
    return read_table(rows_path(folder, name), COLUMNS)


def damaged_shards(folder, names, check_audio=False):
    """Finished shards whose audio is not what their rows say.

    Arguments
    ---------
    folder : str or path-like
        The folder of translations.
    names : iterable of str
        Finished shards.
    check_audio : bool
        Compare with the checksums, which reads everything; otherwise a file
        is only looked for.

    Returns
    -------
    dict
        Name to what is wrong, in words.
    """
    found, listed = {}, {}
    for name in names:
        lacking = differing = 0
        for row in read_rows(folder, name):
            if not row["audio"]:
                continue
            # A look at each file by itself takes long on a network's disk
            key = row["language"], row["corpus"]
            if key not in listed:
                listed[key] = _files_in(folder, *key)
            if row["audio"] not in listed[key]:
                lacking += 1
            elif check_audio:
                data = Path(folder, row["audio"]).read_bytes()
                digested = hashlib.sha256(data).hexdigest()
                differing += digested != row["sha256"]
        if lacking or differing:
            found[name] = (
                f"{lacking} files are not there, {differing} differ from "
                "their checksums"
            )
    return found


def _files_in(folder, *parts):
    """The files below, relative to the folder."""
    return {
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, names in os.walk(Path(folder, *parts))
        for name in names
    }


def describe_shards(folder):
    """How a corpus was made, over all of its finished shards.

    Arguments
    ---------
    folder : str or path-like
        Of which `was_synthesized` is true.

    Returns
    -------
    dict
        ``backend``, ``settings``; ``shards``, ``planned``, ``made``,
        ``failed``, ``too_long``, ``seconds`` and ``bytes``, summed;
        ``errors``, kind to how many; and ``versions``, a list of
        ``(versions, shards)``, the most frequent first.
    """
    receipts = finished_shards(folder).values()
    versions = Counter(
        json.dumps(receipt["versions"], sort_keys=True) for receipt in receipts
    )
    errors = sum(
        (Counter(receipt["errors"]) for receipt in receipts), Counter()
    )
    summed = ("planned", "made", "failed", "too_long", "seconds", "bytes")
    return {
        "backend": next((r["backend"] for r in receipts), "nothing yet"),
        "settings": _told(folder)["settings"],
        "shards": len(receipts),
        **{name: sum(r[name] for r in receipts) for name in summed},
        "errors": dict(errors.most_common()),
        "versions": [
            (json.loads(text), n) for text, n in versions.most_common()
        ],
    }


def _told(folder):
    path = Path(folder, FOLDER_FILE)
    if not path.is_file():
        raise InputError(
            f"{folder}: there is no {FOLDER_FILE}; give the output folder of "
            "synthesize.py"
        )
    told = read_json(path)
    missing = [name for name in ("plan", "settings") if name not in told]
    if missing:
        raise InputError(
            f"{path}: says nothing of {' and '.join(missing)}; it was not "
            "written by synthesize.py"
        )
    return told
