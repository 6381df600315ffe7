"""AESDD: acted Greek, one manifest.

Twenty sentences by six actors in five emotions (no neutral, no surprise): 604
utterances that can be read, 41 minutes, WAV 44.1 kHz.

Where: http://m3c.web.auth.gr/research/aesdd-speech-emotion-recognition/
Licence: none stated, given for research; cite Vryzas et al., JAES 66(6), 2018

    anger/a06 (5)b.wav
    |     ||   | an extra take: a, b
    |     ||   speaker, 1 to 6
    |     |sentence, 01 to 20
    |     emotion, the folder's initial
    emotion

Five files say ``(01)`` for speaker 1. The zip holds its folder twice, one in
the other: both, either and none may be given. Who of the speakers is a woman
is not published, so gender stays empty. A zero-shot corpus: everything is in
the test split by default, and results are over its five emotions (label set
`aesdd5`).

Usage: python aesdd_prepare.py --data_folder AESDD --save_folder manifests
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
from speechbrain_mser.settings.project_files import MANIFESTS

EMOTIONS = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "s": "sadness",
}
SPEAKERS = ("1", "2", "3", "4", "5", "6")

# Not through the link beside this file: a checkout may be without links.

FOLDER = "Acted Emotional Speech Dynamic Database/"
FILES = "anger/a[0-9][0-9] ([0-9]*"

AESDD = Corpus(
    name="aesdd",
    language="ell",
    script=__file__,
    layout="|".join(FOLDER * nested + FILES for nested in range(3)),
    counts={
        "anger": 121,
        "disgust": 122,
        "fear": 120,
        "happiness": 119,
        "sadness": 123,
    },
    speakers=SPEAKERS,
    companions=("*Tools and Documentation/*",),
    exclusions=MANIFESTS / "exclusions/aesdd.csv",
    test_speakers=(ALL,),
)

# ASCII: \d takes the digits of all scripts
NAME = re.compile(r"([adfhs])(\d\d) \((\d{1,2})\)[ab]?", re.ASCII)


def prepare_aesdd(
    data_folder,
    save_folder,
    valid_speakers=AESDD.valid_speakers,
    test_speakers=AESDD.test_speakers,
    drop_known_bad=False,
    decode=False,
):
    """Write ``aesdd.csv`` and ``aesdd_dropped.csv``.

    Arguments
    ---------
    data_folder : str or path-like
        The folder that holds ``anger`` to ``sadness``, or the one or two
        around it that come out of the zip.
    save_folder : str or path-like
        Where the manifest goes.
    valid_speakers, test_speakers : list of str
        Of 1 to 6; ``all`` for test_speakers means all others. To train on
        this corpus, give an empty list.
    drop_known_bad : bool
        Drop the item of the exclusion list also where it can be read.
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
    >>> prepare_aesdd("AESDD", "manifests")  # doctest: +SKIP
    PosixPath('manifests/aesdd.csv')
    """
    return prepare_corpus(
        AESDD,
        by_name(_parse_name),
        data_folder,
        save_folder,
        valid_speakers,
        test_speakers,
        drop_known_bad,
        decode,
    )


def _parse_name(path):
    # Example: anger/a06 (5)b -> anger, speaker 5, an extra take
    name = NAME.fullmatch(path.stem)
    # (01) is (1)
    speaker = name and str(int(name[3]))
    if speaker not in SPEAKERS:
        raise NotAnUtterance("misnamed: not like a03 (3)")
    label = EMOTIONS[name[1]]
    if path.parent.name != label:
        # One of the two is wrong, and nothing says which
        raise NotAnUtterance(
            f"misnamed: {label} by its name, "
            f"{path.parent.name or 'none'} by its folder"
        )
    return {"label": label, "speaker": speaker}


@exits_on_input_error
def main():
    """Read the command line and prepare."""
    parser = argument_parser(AESDD, __doc__)
    prepare_aesdd(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
