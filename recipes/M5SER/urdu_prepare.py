"""URDU-Dataset: spontaneous Urdu from talk shows, one manifest.

Clips of Urdu talk shows in four emotions: 400 utterances, 17 minutes, WAV
44.1 kHz. No script: what is said may give the emotion away.

Where: https://github.com/siddiquelatif/URDU-Dataset (git clone)
Licence: research only; cite Latif et al., arXiv 1812.10411

    Angry/SM1_F12_A012.wav
    |     |   |   |  number within the emotion
    |     |   |   emotion, the same as the folder's
    |     |   number within the speaker's clips of this emotion
    |     speaker: SM male, SF female
    emotion

The README counts 38 speakers; the file names hold 29 (SM8 to SM16 do not
occur). A zero-shot corpus: everything is in the test split by default.

Usage: python urdu_prepare.py --data_folder URDU-Dataset --save_folder manifests
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
from speechbrain_mser.preparation.splits import ALL

EMOTIONS = {"A": "Angry", "H": "Happy", "N": "Neutral", "S": "Sad"}
GENDERS = {"M": "male", "F": "female"}

URDU = Corpus(
    name="urdu",
    language="urd",
    script=__file__,
    layout="Angry/S[MF]*",
    counts=dict.fromkeys(EMOTIONS.values(), 100),
    companions=("README.md",),
    test_speakers=(ALL,),
)

# ASCII: \d takes the digits of all scripts
NAME = re.compile(r"(S([MF])\d+)_F\d+_([AHNS])\d+", re.ASCII)


def prepare_urdu(
    data_folder,
    save_folder,
    valid_speakers=URDU.valid_speakers,
    test_speakers=URDU.test_speakers,
    decode=False,
):
    """Write ``urdu.csv`` and ``urdu_dropped.csv``.

    Arguments
    ---------
    data_folder : str or path-like
        The folder that holds ``Angry``, ``Happy``, ``Neutral`` and ``Sad``.
    save_folder : str or path-like
        Where the manifest goes.
    valid_speakers, test_speakers : list of str
        As in the file names: SM1, SF1 ...; ``all`` for test_speakers means
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
        See `prepare_corpus`.

    Example
    -------
    >>> prepare_urdu("URDU-Dataset", "manifests")  # doctest: +SKIP
    PosixPath('manifests/urdu.csv')
    """
    return prepare_corpus(
        URDU,
        by_name(_parse_name),
        data_folder,
        save_folder,
        valid_speakers,
        test_speakers,
        decode=decode,
    )


def _parse_name(path):
    # Example: Angry/SM1_F12_A012 -> a man, Angry
    name = NAME.fullmatch(path.stem)
    if name is None:
        raise NotAnUtterance("misnamed: not like SM1_F12_A012")
    speaker, gender, emotion = name.groups()
    label = EMOTIONS[emotion]
    if path.parent.name != label:
        # One of the two is wrong, and nothing says which
        raise NotAnUtterance(
            f"misnamed: {label} by its name, {path.parent.name} by its folder"
        )
    return {"label": label, "speaker": speaker, "gender": GENDERS[gender]}


@exits_on_input_error
def main():
    """Read the command line and prepare."""
    parser = argument_parser(URDU, __doc__)
    prepare_urdu(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
