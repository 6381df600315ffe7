"""RAVDESS, the speech part: acted English, one manifest.

Two sentences spoken and re-spoken by 24 actors in eight emotions: 1,440
utterances, 1.5 hours, WAV 48 kHz 16 bit (a few files may be stereo).

Where: https://zenodo.org/records/1188976, Audio_Speech_Actors_01-24.zip
Licence: CC BY-NC-SA 4.0

    Actor_12/03-01-06-01-02-01-12.wav
             |  |  |  |  |  |  actor: odd are male, even are female
             |  |  |  |  |  repetition: 01, 02
             |  |  |  |  statement: 01 kids, 02 dogs
             |  |  |  intensity: 01 normal, 02 strong (neutral has none)
             |  |  emotion: 01 neutral ... 08 surprised
             |  channel: 01 speech, 02 song
             modality: 01 audio and video, 02 video, 03 audio

Songs and videos that lie in the same folders are dropped, and so is the second
copy in mirrors that hold the tree twice. The seven emotions of the paper are
these eight without calm: choose that at evaluation (label set `ravdess7`).

Usage: python ravdess_prepare.py --data_folder RAVDESS --save_folder manifests
"""

import re

from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.preparation.command_line import argument_parser
from speechbrain_mser.preparation.corpus import (
    Corpus,
    NotAnUtterance,
    by_name,
    prepare_corpus,
)
from speechbrain_mser.settings.project_files import MANIFESTS

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
STATEMENTS = {
    "01": "Kids are talking by the door.",
    "02": "Dogs are sitting by the door.",
}
ACTORS = tuple(f"{number:02d}" for number in range(1, 25))

# Not through the link beside this file: a checkout may be without links.

RAVDESS = Corpus(
    name="ravdess",
    language="eng",
    script=__file__,
    layout="Actor_[0-9][0-9]",
    counts={
        label: 96 if label == "neutral" else 192 for label in EMOTIONS.values()
    },
    speakers=ACTORS,
    exclusions=MANIFESTS / "exclusions/ravdess.csv",
    # Two men and two women; nothing is held out for testing, because the paper
    # evaluates on all of RAVDESS without training on it.
    valid_speakers=("21", "22", "23", "24"),
)

NAME = re.compile(r"(0[123])-(0[12])-(0[1-8])-0[12]-(0[12])-0[12]-(\d\d)")


def prepare_ravdess(
    data_folder,
    save_folder,
    valid_speakers=RAVDESS.valid_speakers,
    test_speakers=RAVDESS.test_speakers,
    drop_known_bad=False,
    decode=False,
):
    """Write ``ravdess.csv`` and ``ravdess_dropped.csv``.

    Arguments
    ---------
    data_folder : str or path-like
        The folder that holds ``Actor_01`` to ``Actor_24``.
    save_folder : str or path-like
        Where the manifest goes.
    valid_speakers, test_speakers : list of str
        Actors, 01 to 24.
    drop_known_bad : bool
        Drop one of the two names that a recording has in the release. Results
        of others are over all 1,440 (without calm: 1,248) files.
    decode : bool
        Decode every file, to find silent and broken-off ones too.

    Returns
    -------
    pathlib.Path
        The manifest.

    Raises
    ------
    InputError
        See `prepare_corpus`.

    Example
    -------
    >>> prepare_ravdess("RAVDESS", "manifests")  # doctest: +SKIP
    PosixPath('manifests/ravdess.csv')
    """
    return prepare_corpus(
        RAVDESS,
        by_name(_parse_name),
        data_folder,
        save_folder,
        valid_speakers,
        test_speakers,
        drop_known_bad,
        decode,
    )


def _parse_name(path):
    # Example: 03-01-06-01-02-01-12 -> actor 12, fearful, dogs
    name = NAME.fullmatch(path.stem)
    if name is None or name[5] not in ACTORS:
        raise NotAnUtterance("misnamed: not like 03-01-06-01-02-01-12")
    modality, channel, emotion, statement, actor = name.groups()
    if modality != "03":
        raise NotAnUtterance(f"video: modality {modality}")
    if channel != "01":
        raise NotAnUtterance(f"song: channel {channel}")
    return {
        "label": EMOTIONS[emotion],
        "speaker": actor,
        "gender": "male" if int(actor) % 2 else "female",
        "text": STATEMENTS[statement],
    }


@exits_on_input_error
def main():
    """Read the command line and prepare."""
    parser = argument_parser(RAVDESS, __doc__)
    prepare_ravdess(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
