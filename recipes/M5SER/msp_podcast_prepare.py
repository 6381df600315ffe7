"""MSP-Podcast: spontaneous English from podcasts, one manifest.

Short speaking turns from podcasts under open licences, each judged by at least
five listeners: from 73,042 turns (version 1.8, 114 hours) to 264,705 (version
2.0, 409 hours), WAV 16 kHz mono. Versions 1.6 and later are read.

Where: https://lab-msp.com/MSP/MSP-Podcast.html, after signing a licence
Licence: academic or commercial, from The University of Texas at Dallas

    Audios/MSP-PODCAST_0001_0008.wav
    Labels/labels_consensus.csv              (labels_concensus.csv up to 1.9)
    Transcripts/MSP-PODCAST_0001_0008.txt    (where the version has them)

    FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set
    MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,Test1

The same in JSON will do. Turns on which the listeners did not agree, and those
that they called something else, stay in the manifest without an emotion. The
splits are the corpus's own; Test3 has no public labels and is dropped. What
lies in `Previous_releases_information` is not read.

Usage: python msp_podcast_prepare.py --data_folder MSP-PODCAST-Publish-1.11
       --save_folder manifests
"""

import sys
from collections import Counter
from functools import partial
from pathlib import PurePosixPath

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.tables import read_json, read_table, read_text
from speechbrain_mser.preparation.audio_listing import find_files
from speechbrain_mser.preparation.command_line import entry_point
from speechbrain_mser.preparation.corpus import Corpus, prepare_corpus

EMOTIONS = {
    "A": "angry",
    "S": "sad",
    "H": "happy",
    "U": "surprise",
    "F": "fear",
    "D": "disgust",
    "C": "contempt",
    "N": "neutral",
    "O": "other",
    "X": "no agreement",
}
SPLITS = {
    "Train": "train",
    "Development": "valid",
    "Validation": "valid",  # up to 1.8
    "Test1": "test",
    "Test2": "test",
}
GENDERS = {"Male": "male", "Female": "female", "Unknown": ""}
COLUMNS = ("EmoClass", "SpkrID", "Gender", "Split_Set")

# Number of turns with Test3, and of what the labels then count
VERSIONS = {
    73042: ("1.8", {"valid": 7800, "Test1": 15326}),
    119421: ("Odyssey 2024", {"train": 84260, "valid": 31961}),
    151654: (
        "1.11",
        {"train": 84030, "valid": 19815, "Test1": 30647, "Test2": 14815},
    ),
    207136: ("1.12", {}),
    264705: ("2.0", {}),
}
# Of version 1.8
V18_EMOTIONS = {
    "neutral": 26009,
    "happy": 14285,
    "no agreement": 14199,
    "surprise": 4084,
    "contempt": 3644,
    "angry": 3218,
    "sad": 2649,
    "disgust": 2593,
    "fear": 1544,
    "other": 817,
}

LABELS = "[Ll]abel*/labels_con[cs]ensus"

MSP_PODCAST = Corpus(
    name="msp_podcast",
    language="eng",
    script=__file__,
    layout=f"{LABELS}.*",
    companions=(
        *("Label*/*", "label*/*", "Transcripts/*", "ForceAligned/*"),
        *("Previous_releases_information/*", "*.txt", "*.pdf"),
    ),
    without_emotion=("other", "no agreement"),
    official_splits=True,
)

# All that have public labels. Test1 has the same retrieved, emotional turns
# as training; Test2 was drawn at random from podcasts of its own.
TEST_SETS = ("Test1", "Test2")


def prepare_msp_podcast(
    data_folder, save_folder, test_sets=TEST_SETS, decode=False
):
    """Write ``msp_podcast.csv`` and ``msp_podcast_dropped.csv``.

    Arguments
    ---------
    data_folder : str or path-like
        The folder that holds ``Audios`` and ``Labels``.
    save_folder : str or path-like
        Where the manifest goes.
    test_sets : list of str
        Which of Test1 and Test2 make the test split; the other is dropped.
    decode : bool
        Decode every file, to find silent and broken-off ones too.

    Returns
    -------
    pathlib.Path
        The manifest.

    Raises
    ------
    InputError
        An unknown test set, a label file that cannot be read, or see
        `prepare_corpus`.
    """
    test_sets = [test_sets] if isinstance(test_sets, str) else [*test_sets]
    unknown = [name for name in test_sets if name not in TEST_SETS]
    if unknown:
        raise InputError(
            f"no test set {', '.join(unknown)}; there are "
            f"{', '.join(TEST_SETS)} (Test3 has no public labels)"
        )
    return prepare_corpus(
        MSP_PODCAST,
        partial(_collect, test_sets=test_sets),
        data_folder,
        save_folder,
        decode=decode,
        test_sets=test_sets,
    )


def _collect(folder, paths, test_sets):
    """The rows of the label file, each with its audio and its transcript."""
    audio, dropped = {}, []
    for path in paths:
        name = PurePosixPath(path).stem
        if name in audio:
            problem = f"duplicate: has the name of {audio[name]}"
            dropped.append((path, problem))
        else:
            audio[name] = path
    labels = _read_labels(folder)
    _check_version(labels, audio)
    texts = _transcripts(folder)
    rows = []
    for item, judged in labels:
        problem = _problem(judged, test_sets)
        if item not in audio:
            dropped.append((item, "missing: labelled, but without audio"))
        elif problem:
            dropped.append((audio[item], problem))
        else:
            text = read_text(texts[item]) if item in texts else ""
            rows.append(_row(item, audio[item], judged, text))
    labelled = {item for item, _ in labels}
    for name in audio.keys() - labelled:
        test3 = "_test3_" in name.lower()
        why = "Test3 has no public labels" if test3 else "not in the label file"
        dropped.append((audio[name], f"unlabelled: {why}"))
    return rows, dropped


def _row(item, path, judged, text):
    speaker = judged["SpkrID"]
    return {
        "ID": item,
        "wav": path,
        "label": EMOTIONS[judged["EmoClass"]],
        "split": SPLITS[judged["Split_Set"]],
        "speaker": "" if speaker.lower() == "unknown" else speaker,
        "gender": GENDERS.get(judged["Gender"], ""),
        "text": text,
    }


def _problem(judged, test_sets):
    """Why a row of the label file is none of the manifest."""
    emotion, split = judged["EmoClass"], judged["Split_Set"]
    if split == "Test3" or not emotion:
        return f"unlabelled: {split} without an emotion"
    if emotion not in EMOTIONS:
        return f"mislabelled: EmoClass {emotion!r}"
    if split not in SPLITS:
        return f"mislabelled: Split_Set {split!r}"
    if SPLITS[split] == "test" and split not in test_sets:
        return f"other test set: {split}"
    return ""


def _read_labels(folder):
    """(item, its columns), from CSV or from JSON, in the file's order."""
    tables = sorted(folder.glob(f"{LABELS}.csv"))
    objects = sorted(folder.glob(f"{LABELS}.json"))
    if tables:
        table = read_table(tables[0], ("FileName", *COLUMNS))
        rows = [(row["FileName"], row) for row in table]
    elif objects:
        rows = [*read_json(objects[0]).items()]
        _check_json(objects[0], rows)
    else:
        raise InputError(
            f"{folder}: no {LABELS}.csv and none in JSON; unpack Labels"
        )
    return [
        (
            PurePosixPath(name).stem,
            {column: str(row[column]).strip() for column in COLUMNS},
        )
        for name, row in rows
    ]


def _check_json(path, rows):
    for name, row in rows:
        if not isinstance(row, dict) or not row.keys() >= set(COLUMNS):
            raise InputError(
                f"{path}: {name} has not all of {', '.join(COLUMNS)}"
            )


def _transcripts(folder):
    """Item to the file that says what is said."""
    return {
        path.stem: path for path in find_files(folder / "Transcripts", "*.txt")
    }


def _check_version(labels, audio):
    """Print which version it is and whether its labels are all there."""
    items = {item for item, _ in labels}
    turns = len(items | audio.keys())
    if turns not in VERSIONS:
        known = ", ".join(f"{name} {n}" for n, (name, _) in VERSIONS.items())
        print(
            f"warning: {turns} turns are of no known version ({known})",
            file=sys.stderr,
        )
        return
    version, expected = VERSIONS[turns]
    counted = Counter(row["Split_Set"] for _, row in labels)
    counted += Counter(SPLITS.get(row["Split_Set"]) for _, row in labels)
    if version == "1.8":
        expected = {**expected, **V18_EMOTIONS}
        counted += Counter(EMOTIONS.get(row["EmoClass"]) for _, row in labels)
    wrong = [
        f"{name} {counted[name]} instead of {number}"
        for name, number in expected.items()
        if counted[name] != number
    ]
    print(f"version {version}: {turns} turns, {len(items)} of them labelled")
    if wrong:
        print(f"warning: labelled are {', '.join(wrong)}", file=sys.stderr)


main = entry_point(
    MSP_PODCAST,
    prepare_msp_podcast,
    __doc__,
    test_sets={
        "nargs": "+",
        "metavar": "SET",
        "help": f"what makes the test split; default: {' '.join(TEST_SETS)}",
    },
)

if __name__ == "__main__":
    main()
