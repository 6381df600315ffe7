"""MEAD (the paper writes MAED), audio of Part 0: acted English, one manifest.

Sentences spoken by 48 actors in eight emotions, seven of them at three levels
of intensity: 31,729 utterances, 37 hours, m4a 48 kHz (a few 44.1 kHz).

Where: https://wywu.github.io/projects/MEAD/MEAD.html (Part 0), one folder per
       actor; unpack audio.tar in each, the video is not needed
Licence: non-commercial research; cite Wang et al., ECCV 2020

    M003/audio/angry/level_1/001.m4a
    |          |     |       sentence
    |          |     level: 1, 2, 3 (neutral has 1 only)
    |          emotion
    actor: M man, W woman

Contempt stays in the manifest; it is none of the paper's seven emotions. There
is no text: the release only numbers its sentences, and those of M003 are
shifted, because one clip was lost.

The audio is decoded once to FLAC, 16 kHz mono, under the save folder
(`mead_audio`, about 2 GB); an interrupted run goes on where it stopped.
WAV or FLAC in place of m4a is taken as it is.

Usage: python mead_prepare.py --data_folder MEAD --save_folder manifests
"""

import re
from functools import partial
from pathlib import Path, PurePosixPath

from speechbrain_mser.dataio.extraction import extract_audio
from speechbrain_mser.dataio.limits import CONTAINERS
from speechbrain_mser.dataio.manifest import MANIFEST_FOLDER
from speechbrain_mser.dataio.preparation import (
    Corpus,
    NotAnUtterance,
    argument_parser,
    prepare_corpus,
)
from speechbrain_mser.errors import exits_on_input_error

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
    layout="[MW][0-9][0-9][0-9]/audio",
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
    companions=("*/video/*", "*.tar", "*.txt", "*.pdf"),
)

# No split by speaker is published: two men and two women for either split.
# M003 is the identity that the authors test on themselves.
VALID_SPEAKERS = ("M041", "M042", "W038", "W040")
TEST_SPEAKERS = ("M003", "M005", "W009", "W011")

# ASCII: \d takes the digits of all scripts
NAME = re.compile(
    r"([MW]\d{3})/audio/"
    r"(neutral|angry|contempt|disgusted|fear|happy|sad|surprised)/"
    r"level_([123])/(\d{3})\.\w+",
    re.ASCII,
)


def prepare_mead(
    data_folder,
    save_folder,
    valid_speakers=VALID_SPEAKERS,
    test_speakers=TEST_SPEAKERS,
    decode=False,
):
    """Write ``mead.csv``, ``mead_dropped.csv`` and the folder ``mead_audio``.

    Arguments
    ---------
    data_folder : str or path-like
        The folder that holds ``M003`` to ``W040``.
    save_folder : str or path-like
        Where the manifest and the audio go.
    valid_speakers, test_speakers : list of str
        Actors: M003, W009 ...
    decode : bool
        Decode every file, to find silent and broken-off ones too.

    Returns
    -------
    pathlib.Path
        The manifest.

    Raises
    ------
    InputError
        See `prepare_corpus` and `extract_audio`.

    Example
    -------
    >>> prepare_mead("MEAD", "manifests")  # doctest: +SKIP
    PosixPath('manifests/mead.csv')
    """
    return prepare_corpus(
        MEAD,
        partial(_collect, save_folder=Path(save_folder).expanduser()),
        data_folder,
        save_folder,
        valid_speakers,
        test_speakers,
        decode=decode,
    )


def _collect(folder, paths, save_folder):
    """Rows by name; what is in m4a is extracted first."""
    rows, dropped = [], []
    for path in paths:
        try:
            rows.append({"wav": path, **_parse_path(path)})
        except NotAnUtterance as reason:
            dropped.append((path, str(reason)))
    targets = {
        path: f"{PurePosixPath(path).with_suffix('')}.flac"
        for path in (row["wav"] for row in rows)
        if path.lower().endswith(CONTAINERS)
    }
    audio = f"{MEAD.name}_audio"
    problems = {}
    if targets:
        _, problems = extract_audio(
            folder, [*targets.items()], save_folder / audio
        )
    for row in rows:
        path = row["wav"]
        if path in problems:
            row["problem"] = problems[path]
        elif path in targets:
            row["wav"] = f"{MANIFEST_FOLDER}{audio}/{targets[path]}"
    return rows, dropped


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


@exits_on_input_error
def main():
    """Read the command line and prepare."""
    parser = argument_parser(MEAD, __doc__, VALID_SPEAKERS, TEST_SPEAKERS)
    prepare_mead(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
