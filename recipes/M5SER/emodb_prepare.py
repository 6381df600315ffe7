"""EmoDB, the Berlin database of emotional speech: acted German, one manifest.

Ten sentences that say nothing about an emotion, by ten actors in seven
emotions; kept are the recordings that listeners recognised: 535 utterances,
25 minutes, WAV 16 kHz mono.

Where: http://emodb.bilderbar.info/download/ (download.zip)
Licence: free for research; cite Burkhardt et al., Interspeech 2005

    wav/03a01Fa.wav
        | |  ||  version: a, b, c ...
        | |  |  emotion, the initial of the German word
        | |  text: a01 ... b10
        speaker

The release also holds labels of phones and syllables (lablaut, labsilb, silb)
and the listeners' verdicts (erkennung.txt); they are not read.

Usage: python emodb_prepare.py --data_folder EmoDB --save_folder manifests
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

EMOTIONS = {
    "W": "anger",  # Wut
    "L": "boredom",  # Langeweile
    "E": "disgust",  # Ekel
    "A": "fear",  # Angst
    "F": "happiness",  # Freude
    "T": "sadness",  # Trauer
    "N": "neutral",
}
SPEAKERS = {
    "03": "male",
    "08": "female",
    "09": "female",
    "10": "male",
    "11": "male",
    "12": "male",
    "13": "female",
    "14": "female",
    "15": "male",
    "16": "female",
}
TEXTS = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem "
    "Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder "
    "runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und "
    "habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}

EMODB = Corpus(
    name="emodb",
    language="deu",
    script=__file__,
    layout="wav/[0-9][0-9][ab]*",
    counts={
        "anger": 127,
        "boredom": 81,
        "disgust": 46,
        "fear": 69,
        "happiness": 71,
        "sadness": 62,
        "neutral": 79,
    },
    speakers=tuple(SPEAKERS),
    companions=("*.txt", "lablaut/*", "labsilb/*", "silb/*"),
    # A woman and a man who have all seven emotions (08 has no disgust).
    valid_speakers=("09", "10"),
)

NAME = re.compile(r"(\d\d)([ab]\d\d)([WLEAFTN])[a-z]")


def prepare_emodb(
    data_folder,
    save_folder,
    valid_speakers=EMODB.valid_speakers,
    test_speakers=EMODB.test_speakers,
    decode=False,
):
    """Write ``emodb.csv`` and ``emodb_dropped.csv``.

    Arguments
    ---------
    data_folder : str or path-like
        The folder that holds ``wav``.
    save_folder : str or path-like
        Where the manifest goes.
    valid_speakers, test_speakers : list of str
        Of 03, 08 to 16.
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
    >>> prepare_emodb("EmoDB", "manifests")  # doctest: +SKIP
    PosixPath('manifests/emodb.csv')
    """
    return prepare_corpus(
        EMODB,
        by_name(_parse_name),
        data_folder,
        save_folder,
        valid_speakers,
        test_speakers,
        decode=decode,
    )


def _parse_name(path):
    # Example: 03a01Fa -> speaker 03, text a01, happiness
    name = NAME.fullmatch(path.stem)
    if name is None or name[1] not in SPEAKERS or name[2] not in TEXTS:
        raise NotAnUtterance("misnamed: not like 03a01Fa")
    speaker, text, emotion = name.groups()
    return {
        "label": EMOTIONS[emotion],
        "speaker": speaker,
        "gender": SPEAKERS[speaker],
        "text": TEXTS[text],
    }


@exits_on_input_error
def main():
    """Read the command line and prepare."""
    parser = argument_parser(EMODB, __doc__)
    prepare_emodb(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
