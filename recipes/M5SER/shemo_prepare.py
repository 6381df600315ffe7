"""ShEMO: Persian from radio plays, one manifest.

Semi-natural speech of 87 people in six emotions (no disgust): 3,000
utterances, 3.4 hours, WAV 44.1 kHz (121 files of men have 22.05 kHz).

Where: https://github.com/mansourehk/ShEMO, female.zip, male.zip and
transcript.zip, unpacked into one folder (they are behind git LFS)
Licence: free for academic purposes; cite Mohamad Nezami et al., LREV 53,
2019

    female/F03S02.wav     final text/F03S02.ort
           |  ||  index
           |  |emotion: A anger, F fear, H happiness, N neutral, S sadness,
           |  |         W surprise
           speaker: F01 to F31, M01 to M56

The release contradicts itself. Of the transcripts 162 have no recording of
their name, and as many recordings no transcript. A later study (Yazdani and
Shekofteh, arXiv 2211.09956) heard which text belongs to which recording and
takes the emotion from the text's name: 163 recordings get another label, 137
of them neutral. Its list also shows that 121 recordings have a transcript of
their name with the words of another one.

    --labels name       the recording's name (default, what most results are on)
    --labels modified   that list, with its transcripts; needs the file
                        modified_shemo.json of
                        https://github.com/aliyzd95/ShEMO-Modification
    --subset emobox     the 2,838 recordings that have a transcript of their
                        name, which is how EmoBox counts

A zero-shot corpus: everything is in the test split by default.

Usage: python shemo_prepare.py --data_folder ShEMO --save_folder manifests
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.fingerprints import sha256
from speechbrain_mser.preparation.audio_listing import (
    find_data_folder,
    find_files,
)
from speechbrain_mser.preparation.command_line import entry_point
from speechbrain_mser.preparation.corpus import Corpus, prepare_corpus
from speechbrain_mser.preparation.file_names import NameParser, by_name
from speechbrain_mser.preparation.splits import ALL

EMOTIONS = {
    "A": "anger",
    "N": "neutral",
    "S": "sadness",
    "W": "surprise",
    "H": "happiness",
    "F": "fear",
}
LABELS = ("name", "modified")
SUBSETS = ("all", "emobox")
# In the order of EMOTIONS, by labels and subset
COUNTS = {
    ("name", "all"): (1059, 1028, 449, 225, 201, 38),
    ("modified", "all"): (1042, 1160, 361, 202, 203, 32),
    ("name", "emobox"): (1034, 1018, 360, 199, 198, 29),
    ("modified", "emobox"): (1033, 1022, 359, 197, 198, 29),
}

SHEMO = Corpus(
    name="shemo",
    language="fas",
    script=__file__,
    # Whoever downloaded one of the two archives has one of the two folders
    layout="*male/[FM][0-9][0-9][AFHNSW][0-9][0-9].*",
    companions=("*.ort", "*.tra", "*.md", "LICENSE", "*.json"),
    test_speakers=(ALL,),
)

_parse_name = NameParser(
    r"(?P<speaker>(?P<gender>[FM])\d\d)(?P<label>[AFHNSW])\d\d",
    example="F03S02",
    label=EMOTIONS,
    gender={"F": "female", "M": "male"},
)


def prepare_shemo(
    data_folder,
    save_folder,
    labels="name",
    subset="all",
    modified_labels=None,
    valid_speakers=SHEMO.valid_speakers,
    test_speakers=SHEMO.test_speakers,
    decode=False,
):
    """Write ``shemo.csv`` and ``shemo_dropped.csv``.

    Arguments
    ---------
    data_folder : str or path-like
        The folder that holds ``female``, ``male`` and ``final text``.
    save_folder : str or path-like
        Where the manifest goes.
    labels : str
        ``name``, or ``modified`` for those of modified_shemo.json.
    subset : str
        ``all``, or ``emobox`` for recordings with a transcript of their name.
    modified_labels : str or path-like, optional
        Where modified_shemo.json is; default: in the data folder.
    valid_speakers, test_speakers : list of str
        As in the file names: F01, M01 ...; ``all`` for test_speakers means
        all others. To train on this corpus, give an empty list.
    decode : bool
        Decode every file, to find silent and broken-off ones too.

    Returns
    -------
    pathlib.Path
        The manifest.

    Raises
    ------
    InputError
        An unknown choice, modified_shemo.json is missing or another file,
        the subset without transcripts, or see `prepare_corpus`.
    """
    _check_choice("labels", labels, LABELS)
    _check_choice("subset", subset, SUBSETS)
    folder = find_data_folder(data_folder, SHEMO.layout)
    modified, digest = {}, ""
    if labels == "modified":
        default = folder / "modified_shemo.json"
        modified, digest = _read_modified(Path(modified_labels or default))
    elif modified_labels:
        raise InputError(
            f"{modified_labels} is read with labels modified only; labels is "
            f"{labels}"
        )
    counts = zip(EMOTIONS.values(), COUNTS[labels, subset], strict=True)

    def collect(folder, paths):
        return _collect(folder, paths, subset, modified)

    return prepare_corpus(
        replace(SHEMO, counts=dict(counts)),
        collect,
        folder,
        save_folder,
        valid_speakers,
        test_speakers,
        decode=decode,
        labels=labels,
        subset=subset,
        modified_labels=digest,
    )


def _check_choice(name, choice, choices):
    if choice not in choices:
        raise InputError(f"{name} is {choice!r}, not {' or '.join(choices)}")


def _collect(folder, paths, subset, modified):
    """Rows by name, with the transcripts and the labels asked for."""
    transcripts = {path.stem: path for path in find_files(folder, "*.ort")}
    if subset == "emobox" and not transcripts:
        raise InputError(
            f"{folder}: the subset emobox is the recordings with a transcript "
            "of their name, and there is no .ort file; unpack transcript.zip "
            "here"
        )
    rows, dropped = by_name(_parse_name)(folder, paths)
    kept = []
    for row in rows:
        item = row["ID"]
        if subset == "emobox" and item not in transcripts:
            dropped.append((row["wav"], f"no transcript: no {item}.ort"))
        elif modified and item not in modified:
            dropped.append((row["wav"], "no label: not in the modified list"))
        elif modified:
            label, text = modified[item]
            kept.append({**row, "label": label, "text": text})
        else:
            kept.append({**row, "text": _text(transcripts.get(item))})
    return kept, dropped


def _text(path):
    """What an .ort file says; nothing when there is none."""
    if path is None:
        return ""
    try:
        # 244 of the 3,000 begin with a byte order mark
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        print(f"warning: {path}: no transcript ({error})", file=sys.stderr)
        return ""


def _read_modified(path):
    """Recording to (label, transcript) of modified_shemo.json; its digest."""
    # {"F21N05.wav": {"emotion": "neutral", "transcript": "...", ...}, ...}
    try:
        content = path.expanduser().read_bytes()
        modified = {
            entry["speech_name"]: (
                str(entry["emotion"]),
                str(entry["transcript"]),
            )
            for entry in json.loads(content).values()
        }
    except OSError as error:
        raise InputError(
            f"{path}: labels modified needs modified_shemo.json of "
            "https://github.com/aliyzd95/ShEMO-Modification "
            f"({error.strerror}); put it into the data folder or say where it "
            "is (--modified_labels)"
        ) from None
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        modified = {}
    labels = {label for label, _ in modified.values()}
    if not labels or not labels <= set(EMOTIONS.values()):
        raise InputError(
            f"{path}: not the modified_shemo.json of ShEMO-Modification, which "
            "gives every recording speech_name, emotion and transcript"
        )
    return modified, sha256(content)


main = entry_point(
    SHEMO,
    prepare_shemo,
    __doc__,
    labels={"choices": LABELS, "help": "default: name"},
    subset={"choices": SUBSETS, "help": "default: all"},
    modified_labels={
        "metavar": "FILE",
        "help": "where modified_shemo.json is; default: in the data folder",
    },
)

if __name__ == "__main__":
    main()
