"""EmoBox: any of its 32 corpora in 14 languages, one manifest each.

EmoBox (Ma et al., Interspeech 2024) says for each of its corpora which files
there are, what they are labelled and into which folds they fall. That is read
from a clone of its repository; the audio comes from where each corpus is given.

Where: https://github.com/emo-box/EmoBox (git clone)
Licence: of each corpus its own; of EmoBox's lists MIT, as its README says

    data/iemocap/iemocap.jsonl                      all utterances, one a line
        {"key": "iemocap-Ses01F_impro04_F000", "emo": "neu", "wav":
         "downloads/iemocap/Session1/sentences/wav/...", "length": 4.39, ...}
    data/iemocap/label_map.json                     {"exc": "Happy", ...}
    data/iemocap/fold_1/iemocap_test_fold_1.jsonl   and train, some have valid
    data/iemocap/data.seg.wrd.stm                   who speaks

`--data_folder` holds the corpus's own files or EmoBox's `downloads`: a file is
known by as much of the end of its path as tells it from the others, whatever
lies above it and whether it is WAV or FLAC. Films are extracted once, beside
the manifest. What is missing is dropped by name. A label is the corpus's own,
its emotion what label_map.json makes of it; a word that our vocabulary has not
(Sleepy, Worried, Other ...) leaves the emotion empty. The number of channels
that EmoBox gives is not used: all audio is mixed down as everywhere here.

A fold's test part is the test split. Most corpora have no valid part: as
EmoBox does, a fifth of the training part is held out, but the same in every
run; the voices are the training's. Many folds share speakers, which is said.

Usage: python emobox_prepare.py --emobox EmoBox --corpus iemocap \\
           --data_folder IEMOCAP_full_release --save_folder manifests
"""

import json
import re
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from speechbrain_mser.dataio.audio_limits import CONTAINERS
from speechbrain_mser.dataio.manifest import MANIFEST_FOLDER
from speechbrain_mser.dataio.own_emotions import read_own
from speechbrain_mser.emotions import canonical
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.fingerprints import sha256
from speechbrain_mser.files.tables import read_json, read_json_lines, read_text
from speechbrain_mser.preparation.audio_extraction import extract_audio
from speechbrain_mser.preparation.audio_listing import locate
from speechbrain_mser.preparation.command_line import entry_point
from speechbrain_mser.preparation.corpus import Corpus, prepare_corpus

# By language; a corpus that EmoBox may add is undetermined
SPOKEN_IN = (
    "eng cremad emns emovdb enterface iemocap jlcorpus mead meld msppodcast ravdess savee tess",
    "cmn casia m3ed mer2023, deu emodb pavoque, fra cafe oreau, ita emovo emozionalmente",
    "amh ased, ben subesco, ell aesdd, fas shemo, pol polish, rus resd, spa mesd, tur turevdb, urd urdu",
)
LANGUAGES = {
    name: names.split()[0]
    for names in ", ".join(SPOKEN_IN).split(", ")
    for name in names.split()[1:]
}
# ASVP-ESD has many, by the ninth part of a name
ASVPESD_LANGUAGES = {"01": "cmn", "02": "eng", "04": "fra"}

# Where EmoBox's speaker is none: for IEMOCAP it is who wears the markers, for
# RESD and MER2023 the file, for MESD woman, man or child.
SPEAKERS = {
    # Example: Ses01F_impro04_M000 -> 1M, who speaks
    "iemocap": r"^Ses0(\d).*_([FM])\d{3}$",
    # Example: 32_happiness_enthusiasm_h_120.wav -> 32h
    "resd": r"^(\d\d)_.*[ _]([a-z])_\d{3}",
    **{"mer2023": "^()()", "mesd": "^()()"},
}
# Example: <id=emodb-03a01Wa,lang=en,spk=male_03,emotion=anger>; some are a path
SPOKEN = re.compile(
    r"<id=(.*?),lang=.*?,spk=(?:downloads/.*/)?(.*),emotion=.*>"
)

# Of a line in a list
NEEDED = ("key", "wav", "emo")

EMOBOX = Corpus(
    "emobox",
    language="mul",
    script=__file__,
    layout="*",
    companions=(
        *("*.txt", "*.csv", "*.json", "*.jsonl", "*.md", "*.pdf"),
        *("*.stm", "*.audmap", "*.cfg", "*.freq"),
    ),
    official_splits=True,
    extracts_audio=True,
)


def prepare_emobox(
    data_folder,
    save_folder,
    emobox,
    corpus,
    fold=1,
    valid_share=0.2,
    decode=False,
):
    """Write ``emobox_<corpus>.csv`` and what was dropped.

    Arguments
    ---------
    data_folder : str or path-like
        The folder that holds the corpus's audio.
    save_folder : str or path-like
        Where the manifest and what is extracted from films go.
    emobox : str or path-like
        The clone of EmoBox, or its folder ``data``.
    corpus : str
        As EmoBox calls it: iemocap, esd ...
    fold : int
        From 1; 0 for none: all utterances are in the test split.
    valid_share : float
        Of the training part, held out where a fold has no valid part.
    decode : bool
        Decode every file, to find silent and broken-off ones too.

    Returns
    -------
    pathlib.Path
        The manifest.
    """
    if not 0 <= valid_share < 1:
        raise InputError(f"valid_share is {valid_share}, not from 0 to 1")
    lists = _find_lists(Path(emobox).expanduser(), corpus)
    own = read_own(save_folder)
    utterances = _read_utterances(lists, fold, valid_share, own)
    counts = Counter(row["label"] for row in utterances if not row["problem"])
    return prepare_corpus(
        replace(EMOBOX, name=f"emobox_{corpus}", counts=dict(counts)),
        partial(_collect, corpus=corpus, utterances=utterances),
        data_folder,
        save_folder,
        decode=decode,
        utterances=sha256(json.dumps(utterances).encode()),
    )


def _find_lists(emobox, corpus):
    """The folder of a corpus's lists."""
    data = emobox / "data" if (emobox / "data").is_dir() else emobox
    if not (data / corpus / f"{corpus}.jsonl").is_file():
        known = sorted(path.parent.name for path in data.glob("*/label_*.json"))
        raise InputError(
            f"{data}: no {corpus}/{corpus}.jsonl; there are lists of "
            f"{', '.join(known) or 'nothing'}; emobox is a clone of "
            "https://github.com/emo-box/EmoBox"
        )
    return data / corpus


def _read_utterances(lists, fold, valid_share, own):
    """A row per utterance, its ``wav`` as EmoBox has it."""
    corpus = lists.name
    splits = _read_splits(lists, fold, valid_share) if fold else {}
    emotions = _read_emotions(lists, own)
    speakers = dict(SPOKEN.findall(read_text(lists / "data.seg.wrd.stm")))
    rows = []
    for entry in read_json_lines(lists / f"{corpus}.jsonl", NEEDED):
        key, label = entry["key"], entry["emo"]
        item = key.removeprefix(f"{corpus}-")
        speaker = speakers.get(key, "")
        if corpus in SPEAKERS:
            name = re.match(SPEAKERS[corpus], item)
            speaker = "".join(name.groups()) if name else ""
        problem = ""
        if fold and key not in splits:
            problem = f"in no fold: no part of fold {fold} has it"
        elif label not in emotions:
            problem = f"unlabelled: the label map has no {label!r}"
        row = {
            **{"ID": item.replace(" ", "_"), "wav": entry["wav"]},
            **{"label": label, "emotion": emotions.get(label, "")},
            **{"split": splits.get(key, "test"), "speaker": speaker},
            **{"language": _language(corpus, item), "problem": problem},
        }
        # PAVOQUE has all of an emotion in one file
        if "start_time" in entry:
            row["start"], row["stop"] = entry["start_time"], entry["end_time"]
        rows.append(row)
    return rows


def _language(corpus, item):
    if corpus == "esd":
        # Example: 0011_000001; the first ten speakers speak Mandarin
        return "cmn" if item[:4] <= "0010" else "eng"
    if corpus == "asvpesd":
        return ASVPESD_LANGUAGES.get("".join(item.split("-")[8:9]), "und")
    return LANGUAGES.get(corpus, "und")


def _read_splits(lists, fold, valid_share):
    """Key to split."""
    folder = lists / f"fold_{fold}"
    if not folder.is_dir():
        folds = sorted(path.name for path in lists.glob("fold_*"))
        raise InputError(
            f"fold is {fold}; {lists.name} has {', '.join(folds) or 'none'}, "
            "and 0 puts everything into the test split"
        )
    splits = {}
    for split in ("train", "valid", "test"):
        path = folder / f"{lists.name}_{split}_fold_{fold}.jsonl"
        if split != "valid" or path.is_file():
            entries = read_json_lines(path, NEEDED)
            splits |= {entry["key"]: split for entry in entries}
    if "valid" not in splits.values():
        for key, split in splits.items():
            # From 0 to 1, for a key the same in every run
            drawn = int(sha256(key.encode())[:8], 16) / 16**8
            if split == "train" and drawn < valid_share:
                splits[key] = "valid"
    return splits


def _read_emotions(lists, own):
    """Label to emotion, or to an empty one."""
    # EMOVO's map has a name of its own
    path = next(iter(sorted(lists.glob("label_*.json"))), None)
    words = read_json(path or lists / "label_map.json")
    # EmoDB's neutral is Neutral in its map
    words = {label.lower(): word for label, word in words.items()} | words
    emotions = dict.fromkeys(words, "")
    for label, word in words.items():
        with suppress(InputError):
            emotions[label] = canonical(word, own)
    return emotions


def _collect(folder, paths, audio_folder, corpus, utterances):
    """The utterances, each with its file."""
    downloads = f"downloads/{corpus}/"
    if (folder / downloads).is_dir():
        paths = [path for path in paths if path.startswith(downloads)]
    located = locate([row["wav"] for row in utterances], paths)
    films = {
        path: f"{path}.flac"
        for path in located.values()
        if path.lower().endswith(CONTAINERS)
    }
    _, problems = extract_audio(folder, [*films.items()], audio_folder)
    rows = []
    for row in utterances:
        path = located.get(row["wav"])
        absent = "" if path else "missing: no such file"
        problem = row["problem"] or absent or problems.get(path, "")
        if path in films and not problem:
            path = f"{MANIFEST_FOLDER}{audio_folder.name}/{films[path]}"
        rows.append({**row, "wav": path or row["wav"], "problem": problem})
    unlisted = sorted({*paths} - {*located.values()})
    return rows, [(path, "unlisted: none of EmoBox's") for path in unlisted]


FLAGS = {
    "emobox": "the clone of EmoBox",
    "corpus": "which, as EmoBox calls it: iemocap, esd ...",
    "fold": "its test part is the test split; 0: everything is; default: 1",
    "valid_share": "of the training part, where a fold has no valid part; default: 0.2",
}
main = entry_point(
    *(EMOBOX, prepare_emobox, __doc__),
    **{name: {"help": text} for name, text in FLAGS.items()},
)

if __name__ == "__main__":
    main()
