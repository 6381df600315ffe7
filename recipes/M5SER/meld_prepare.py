"""MELD: dialogues of the series Friends, one manifest with official splits.

Multi-party scenes with seven emotions: 13,708 utterances, 12 hours, films with
AAC sound of two or six (5.1) channels. The sound is extracted once, to 16 kHz
mono FLAC in `meld_audio` beside the manifest (about 1 GB).

Where: https://huggingface.co/datasets/declare-lab/MELD, MELD.Raw.tar.gz
Licence: GPL-3.0, as its repository says; the films are of a TV series

    MELD.Raw/dev_sent_emo.csv, test_sent_emo.csv
    MELD.Raw/train.tar.gz, dev.tar.gz, test.tar.gz: read packed or unpacked
        train/train_sent_emo.csv
        train/train_splits/dia0_utt0.mp4
        dev/dev_splits_complete/dia0_utt0.mp4
        test/output_repeated_splits_test/dia0_utt0.mp4
        test/output_repeated_splits_test/final_videos_testdia0_utt0.mp4

Dialogue numbers restart in every split, so IDs hold the split. The `final_`
films are corrected cuts of the test film with the same number and take its
place. The splits share speakers: a result on MELD is not one of unseen voices.

Usage: python meld_prepare.py --data_folder MELD.Raw --save_folder manifests
"""

import re
import sys
from collections import defaultdict
from itertools import chain
from pathlib import PurePosixPath
from typing import NamedTuple

from speechbrain_mser.dataio.audio_limits import CONTAINERS
from speechbrain_mser.dataio.manifest import MANIFEST_FOLDER
from speechbrain_mser.emotions import canonical
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.csv_files import read_csv
from speechbrain_mser.preparation.audio_extraction import extract_each
from speechbrain_mser.preparation.audio_listing import find_files
from speechbrain_mser.preparation.command_line import entry_point
from speechbrain_mser.preparation.corpus import Corpus, preparation
from speechbrain_mser.preparation.tarballs import read_tarball
from speechbrain_mser.settings.project_files import MANIFESTS

# The folder of films to the split, as the release names both
FOLDERS = {
    "train_splits": "train",
    "dev_splits_complete": "dev",
    "output_repeated_splits_test": "test",
}
SPLITS = {"train": "train", "dev": "valid", "test": "test"}
COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")

# Not through the link beside this file: a checkout may be without links.

MELD = Corpus(
    name="meld",
    language="eng",
    script=__file__,
    layout="*_sent_emo.csv|train/train_splits|dev/dev_splits_complete|"
    "test/output_repeated_splits_test",
    counts={
        "neutral": 6436,
        "joy": 2308,
        "surprise": 1636,
        "anger": 1607,
        "sadness": 1002,
        "disgust": 361,
        "fear": 358,
    },
    companions=("*.csv", "*.txt", "*.tar.gz", "*.md"),
    exclusions=MANIFESTS / "exclusions/meld.csv",
    official_splits=True,
    extracts_audio=True,
)

# Example: final_videos_testdia93_utt6 -> a corrected cut
# Names in a tarball have any length, and int() takes no 4,301 digits
NAME = re.compile(r"(final_videos_test)?dia(\d{1,6})_utt(\d{1,6})", re.ASCII)


class Clip(NamedTuple):
    """A film, or audio that someone extracted before."""

    # As in the column `wav`
    wav: str
    # As the user knows it
    source: str
    corrected: bool
    problem: str


def _collect(folder, paths, audio_folder):
    """Extract every film, then join clips and annotations."""
    tables = _find_tables(folder)
    films, audio, dropped = _find_clips(paths)
    unpacked = {key[0] for key, *_ in [*films, *audio]}
    # Before the work of extracting
    _check_annotated(folder, unpacked, tables)
    tarballs = _find_tarballs(folder, unpacked)
    items = [(path, _target(key, path)) for key, path in films]
    if tarballs:
        packed = _read_tarballs(folder, tarballs, tables, dropped)
        items = chain(items, packed)
    clips = defaultdict(list)
    for source, target, _, problem in extract_each(folder, items, audio_folder):
        key, corrected = _key(source)
        wav = f"{MANIFEST_FOLDER}{audio_folder.name}/{target}"
        clips[key].append(Clip(wav, source, corrected, problem))
    for key, path in audio:
        clips[key].append(Clip(path, path, _key(path)[1], ""))
    rows = _join(folder, tables, clips, dropped)
    return rows, dropped


def _key(path):
    """(split, dialogue, utterance) of a clip, and whether it is corrected."""
    path = PurePosixPath(path)
    split, name = FOLDERS.get(path.parent.name), NAME.fullmatch(path.stem)
    if split is None or name is None or (name[1] and split != "test"):
        return None, False
    return (split, int(name[2]), int(name[3])), bool(name[1])


def _target(key, path):
    return f"{key[0]}/{PurePosixPath(path).stem}.flac"


def _find_clips(paths):
    """Films and audio as (key, path); what is neither."""
    films, audio, dropped, targets = [], [], [], {}
    for path in paths:
        key, _ = _key(path)
        if key is None:
            problem = "misnamed: not like train_splits/dia0_utt0"
            dropped.append((path, problem))
        elif not path.lower().endswith(CONTAINERS):
            audio.append((key, path))
        elif _target(key, path) in targets:
            first = targets[_target(key, path)]
            dropped.append((path, f"duplicate: has the name of {first}"))
        else:
            targets[_target(key, path)] = path
            films.append((key, path))
    return films, audio, dropped


def _find_tables(folder):
    """Split to the rows of its annotation file, where it is unpacked."""
    tables = {}
    for split in SPLITS:
        for path in find_files(folder, f"{split}_sent_emo.csv")[:1]:
            tables[split] = _read_table(path, path.read_bytes())
    return tables


def _find_tarballs(folder, unpacked):
    """Split to its tarball, unless it is unpacked."""
    return {
        split: path.relative_to(folder).as_posix()
        for split in SPLITS
        if split not in unpacked
        for path in find_files(folder, f"{split}.tar.gz")[:1]
    }


def _read_tarballs(folder, tarballs, tables, dropped):
    """Films and targets, one after the other; nothing is unpacked to disk."""
    for split, path in tarballs.items():
        for packed in read_tarball(folder, path, dropped):
            name = PurePosixPath(packed.name)
            key, _ = _key(name)
            if name.name == f"{split}_sent_emo.csv":
                if split not in tables:
                    tables[split] = _read_table(name, packed.data)
            elif name.suffix.lower() not in CONTAINERS:
                kind = name.suffix.lower() or "no extension"
                dropped.append((packed.name, f"not audio: {kind}"))
            elif key is None or key[0] != split:
                problem = "misnamed: not like train_splits/dia0_utt0"
                dropped.append((packed.name, problem))
            else:
                yield packed, _target(key, name)


def _join(folder, tables, clips, dropped):
    """A row per annotation; adds clips without one to what is dropped."""
    here = {split for split, *_ in clips}
    _check_annotated(folder, here, tables)
    rows = []
    for split, table in tables.items():
        if split not in here:
            name = f"{split}_sent_emo.csv"
            print(f"warning: {name} is here, no clip is", file=sys.stderr)
            dropped.append((name, "missing: none of its clips is here"))
            continue
        for row in table:
            dialogue, utterance = row.pop("dialogue"), row.pop("utterance")
            key = split, dialogue, utterance
            rows.append(row | _choose(key, clips.pop(key, []), dropped))
    for key, left in clips.items():
        problem = f"unlabelled: no row in {key[0]}_sent_emo.csv"
        dropped += [(clip.source, clip.problem or problem) for clip in left]
    return rows


def _check_annotated(folder, here, tables):
    absent = sorted(here - set(tables))
    if absent:
        raise InputError(
            f"{folder}: no {absent[0]}_sent_emo.csv for the clips of "
            f"{absent[0]}; it comes in MELD.Raw.tar.gz, for the training "
            "split in train.tar.gz"
        )


def _choose(key, clips, dropped):
    """The clip of an annotation: corrected if there is one, and readable."""
    name = f"dia{key[1]}_utt{key[2]}"
    item = {"ID": f"{key[0]}_{name}", "split": SPLITS[key[0]]}
    if not clips:
        folder = {split: folder for folder, split in FOLDERS.items()}[key[0]]
        problem = "missing: an annotation without a clip"
        return {**item, "wav": f"{folder}/{name}.mp4", "problem": problem}
    clips = sorted(
        clips, key=lambda clip: (not clip.corrected, clip.problem != "")
    )
    best, *others = clips
    for other in others:
        kind = "duplicate" if best.corrected == other.corrected else "replaced"
        problem = f"{kind}: {best.source} is taken"
        dropped.append((other.source, problem))
    wav = best.source if best.problem else best.wav
    return {**item, "wav": wav, "problem": best.problem}


def _read_table(path, content):
    """The rows of an annotation file."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", "replace")
    header, lines, rows = read_csv(path, _mend(text))
    if not {*COLUMNS} <= {*header}:
        raise InputError(f"{path}: the columns {', '.join(COLUMNS)} are needed")
    return [
        _utterance(f"{path}, line {line}", header, row)
        for line, row in zip(lines, rows, strict=True)
    ]


def _utterance(where, header, cells):
    """What a line of an annotation file says."""
    if len(cells) < len(header):
        raise InputError(
            f"{where}: {len(cells)} fields for {len(header)} columns; is the "
            "file cut off?"
        )
    row = dict(zip(header, cells, strict=False))
    try:
        canonical(row["Emotion"])
        return {
            "dialogue": int(row["Dialogue_ID"]),
            "utterance": int(row["Utterance_ID"]),
            "label": row["Emotion"].strip(),
            "speaker": row["Speaker"].strip(),
            "gender": "",
            "text": row["Utterance"],
        }
    except ValueError as error:
        raise InputError(f"{where}: cannot be read ({error})") from None


def _mend(text):
    """Windows' quotes, which the release holds as control characters."""
    return re.sub(
        "[\x80-\x9f]",
        lambda found: found[0].encode("latin-1").decode("cp1252", "replace"),
        text,
    )


prepare_meld = preparation(MELD, _collect)

main = entry_point(MELD, prepare_meld, __doc__)

if __name__ == "__main__":
    main()
