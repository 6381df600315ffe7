"""What finished shards hold, for whoever reads a corpus after it was made.

Neither the manifests nor the translator that it was made with are needed.
"""

import json
import os
from collections import Counter

from speechbrain_mser.files.fingerprints import sha256
from speechbrain_mser.synthesis.progress import sum_receipts


def damaged_shards(folder, names, check_audio=False):
    """Finished shards whose audio is not what their rows say.

    Arguments
    ---------
    folder : SynthesisFolder
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
    damaged, listed = {}, {}
    for name in names:
        lacking = differing = 0
        for row in folder.rows(name):
            if not row["audio"]:
                continue
            # A look at each file by itself takes long on a network's disk
            key = row["language"], row["corpus"]
            if key not in listed:
                listed[key] = _files_in(folder.path, *key)
            if row["audio"] not in listed[key]:
                lacking += 1
            elif check_audio:
                data = (folder.path / row["audio"]).read_bytes()
                differing += sha256(data) != row["sha256"]
        if lacking or differing:
            damaged[name] = (
                f"{lacking} files are not there, {differing} differ from "
                "their checksums"
            )
    return damaged


def _files_in(folder, *parts):
    """The files below, relative to the folder."""
    return {
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, names in os.walk(folder.joinpath(*parts))
        for name in names
    }


def describe_shards(folder):
    """How a corpus was made, over all of its finished shards.

    Arguments
    ---------
    folder : SynthesisFolder
        The folder of translations.

    Returns
    -------
    dict
        ``backend``, ``settings``; ``shards``, and as `sum_receipts`; and
        ``versions``, a list of ``(versions, shards)``, the most frequent
        first.
    """
    receipts = folder.receipts().values()
    versions = Counter(
        json.dumps(receipt["versions"], sort_keys=True) for receipt in receipts
    )
    return {
        "backend": folder.settings["backend"],
        "settings": folder.settings,
        "shards": len(receipts),
        **sum_receipts(receipts),
        "versions": [
            (json.loads(text), n) for text, n in versions.most_common()
        ],
    }
