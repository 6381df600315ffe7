"""MEAD (the paper writes MAED), audio of Part 0: acted English, one manifest.

Sentences spoken by 48 actors in eight emotions, seven of them at three levels
of intensity: 31,729 utterances, 37 hours, m4a 48 kHz (a few 44.1 kHz).

Where: https://wywu.github.io/projects/MEAD/MEAD.html (Part 0), one folder per
       actor; of what is in it audio.tar is needed, packed or unpacked
Licence: non-commercial research; cite Wang et al., ECCV 2020

    M003/audio/angry/level_1/001.m4a
    |          |     |       sentence
    |          |     level: 1, 2, 3 (neutral has 1 only)
    |          emotion
    actor: M man, W woman

An actor who has no folder `audio` is read out of `audio.tar`. Contempt stays in
the manifest; it is none of the paper's seven emotions. There is no text: the
release only numbers its sentences, and those of M003 are shifted, because one
clip was lost.

The audio is decoded once to FLAC, 16 kHz mono, under the save folder
(`mead_audio`, about 2 GB); an interrupted run goes on where it stopped.
WAV or FLAC in place of m4a is taken as it is.

Usage: python mead_prepare.py --data_folder MEAD --save_folder manifests
"""

import re
from pathlib import PurePosixPath

from speechbrain_mser.dataio.audio_limits import CONTAINERS
from speechbrain_mser.dataio.manifest import MANIFEST_FOLDER
from speechbrain_mser.preparation.audio_extraction import extract_each
from speechbrain_mser.preparation.command_line import entry_point
from speechbrain_mser.preparation.corpus import (
    Corpus,
    preparation,
)
from speechbrain_mser.preparation.file_names import NotAnUtterance
from speechbrain_mser.preparation.tarballs import read_tarball

GENDERS = {"M": "male", "W": "female"}
# fmt: off
ACTORS = (
    "M003", "M005", "M007", "M009", "M011", "M012", "M013", "M019", "M022",
    "M023", "M024", "M025", "M026", "M027", "M028", "M029", "M030", "M031",
    "M032", "M033", "M034", "M035", "M037", "M039", "M040", "M041", "M042",
    "W009", "W011", "W014", "W015", "W016", "W017", "W018", "W019", "W021",
    "W023", "W024", "W025", "W026", "W028", "W029", "W033", "W035", "W036",
    "W037", "W038", "W040",
)
# fmt: on

MEAD = Corpus(
    name="mead",
    language="eng",
    script=__file__,
    layout="[MW][0-9][0-9][0-9]/audio|[MW][0-9][0-9][0-9]/audio.tar",
    counts={
        "sad": 4306,
        "happy": 4294,
        "disgusted": 4284,
        "surprised": 4270,
        "fear": 4251,
        "contempt": 4215,
        "angry": 4193,
        "neutral": 1916,
    },
    speakers=ACTORS,
    companions=("*/video/*", "*/video.tar", "*/audio.tar", "*.txt", "*.pdf"),
    # No split by speaker is published: two men and two women for either split.
    # M003 is the identity that the authors test on themselves.
    valid_speakers=("M041", "M042", "W038", "W040"),
    test_speakers=("M003", "M005", "W009", "W011"),
    extracts_audio=True,
)

# ASCII: \d takes the digits of all scripts
NAME = re.compile(
    r"([MW]\d{3})/audio/"
    r"(neutral|angry|contempt|disgusted|fear|happy|sad|surprised)/"
    r"level_([123])/(\d{3})\.\w+",
    re.ASCII,
)


def _collect(folder, paths, audio_folder):
    """Rows by name; what is in m4a is extracted first."""
    rows, dropped = {}, []
    for path in paths:
        _add_row(rows, dropped, path, path)
    # The whole name is in the target's: 001.m4a may lie beside 001.mp4
    films = [
        (path, f"{path}.flac")
        for path in rows
        if path.lower().endswith(CONTAINERS)
    ]
    extracted = [*extract_each(folder, films, audio_folder)]
    packed = _find_packed(folder, paths)
    if packed:
        films = _read_packed(folder, packed, rows, dropped)
        extracted += extract_each(folder, films, audio_folder)
    for source, target, _, problem in extracted:
        rows[source]["problem"] = problem
        if not problem:
            wav = f"{MANIFEST_FOLDER}{audio_folder.name}/{target}"
            rows[source]["wav"] = wav
    return [*rows.values()], dropped


def _find_packed(folder, paths):
    """The tarballs of actors who have nothing unpacked."""
    unpacked = {path.split("/")[0] for path in paths if "/audio/" in path}
    return [
        f"{actor}/audio.tar"
        for actor in ACTORS
        if actor not in unpacked and (folder / actor / "audio.tar").is_file()
    ]


def _read_packed(folder, tarballs, rows, dropped):
    """Films and targets; adds to rows and to what is dropped."""
    for tarball in tarballs:
        actor = PurePosixPath(tarball).parent
        for packed in read_tarball(folder, tarball, dropped):
            # Example: ./audio/angry/level_1/001.m4a
            inside = PurePosixPath(packed.name).parts[-3:]
            path = str(actor.joinpath("audio", *inside))
            kind = PurePosixPath(path).suffix.lower()
            if kind not in CONTAINERS:
                dropped.append(
                    (packed.name, f"not audio: {kind or 'no extension'}")
                )
            elif _add_row(rows, dropped, packed.name, path):
                yield packed, f"{path}.flac"


def _add_row(rows, dropped, source, path):
    """Whether the path is an utterance's, as it would be unpacked."""
    try:
        rows[source] = {"wav": source, **_parse_path(path)}
    except NotAnUtterance as reason:
        dropped.append((source, str(reason)))
    return source in rows


def _parse_path(path):
    # Example: M003/audio/angry/level_1/001.m4a -> M003_angry_1_001
    name = NAME.fullmatch(path)
    if name is None or name[1] not in ACTORS:
        raise NotAnUtterance("misnamed: not like M003/audio/angry/level_1/001")
    actor, emotion, level, sentence = name.groups()
    return {
        "ID": f"{actor}_{emotion}_{level}_{sentence}",
        "label": emotion,
        "speaker": actor,
        "gender": GENDERS[actor[0]],
    }


prepare_mead = preparation(MEAD, _collect)

main = entry_point(MEAD, prepare_mead, __doc__)

if __name__ == "__main__":
    main()
