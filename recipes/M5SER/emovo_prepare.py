"""EMOVO: acted Italian, one manifest.

Fourteen sentences, five of them nonsense, by six actors in seven emotions:
588 utterances, half an hour, WAV 48 kHz 16 bit stereo.

Where: http://voice.fub.it/activities/corpora/emovo/index.html (often down;
the paper, Costantini et al., LREC 2014, names the authors to write to)
Licence: free for research

    f1/dis-f1-b1.wav
       |   |  sentence: b short, l long, n nonsense, d question
       |   actor: f1 to f3 female, m1 to m3 male
       emotion, from the Italian word

Usage: python emovo_prepare.py --data_folder EMOVO --save_folder manifests
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
    "dis": "disgust",  # disgusto
    "gio": "joy",  # gioia
    "neu": "neutral",  # neutro
    "pau": "fear",  # paura
    "rab": "anger",  # rabbia
    "sor": "surprise",  # sorpresa
    "tri": "sadness",  # tristezza
}
SPEAKERS = {
    "f1": "female",
    "f2": "female",
    "f3": "female",
    "m1": "male",
    "m2": "male",
    "m3": "male",
}
TEXTS = {
    "b1": "Gli operai si alzano presto.",
    "b2": "I vigili sono muniti di pistola.",
    "b3": "La cascata fa molto rumore.",
    "l1": "L'autunno prossimo Tony partirà per la Spagna nella prima metà di "
    "ottobre.",
    "l2": "Ora prendo la felpa di là ed esco per fare una passeggiata.",
    "l3": "Un attimo dopo s'è incamminato ed è inciampato.",
    "l4": "Vorrei il numero telefonico del Signor Piatti.",
    "n1": "La casa forte vuole col pane.",
    "n2": "La forza trova il passo e l'aglio rosso.",
    "n3": "Il gatto sta scorrendo nella pera.",
    "n4": "Insalata pastasciutta coscia d'agnello limoncello.",
    "n5": "Uno quarantatré dieci mille cinquantasette venti.",
    "d1": "Sabato sera cosa farà?",
    "d2": "Porti con te quella cosa?",
}

EMOVO = Corpus(
    name="emovo",
    language="ita",
    script=__file__,
    layout="[fm][1-3]/*-[fm][1-3]-*",
    counts=dict.fromkeys(EMOTIONS.values(), 84),
    speakers=tuple(SPEAKERS),
    companions=("*.pdf",),
    # One woman, one man.
    valid_speakers=("f3", "m3"),
)

NAME = re.compile(r"([a-z]{3})-([fm]\d)-([a-z]\d)")


def prepare_emovo(
    data_folder,
    save_folder,
    valid_speakers=EMOVO.valid_speakers,
    test_speakers=EMOVO.test_speakers,
    decode=False,
):
    """Write ``emovo.csv`` and ``emovo_dropped.csv``.

    Arguments
    ---------
    data_folder : str or path-like
        The folder that holds ``f1`` to ``m3``.
    save_folder : str or path-like
        Where the manifest goes.
    valid_speakers, test_speakers : list of str
        Of f1, f2, f3, m1, m2, m3.
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
    >>> prepare_emovo("EMOVO", "manifests")  # doctest: +SKIP
    PosixPath('manifests/emovo.csv')
    """
    return prepare_corpus(
        EMOVO,
        by_name(_parse_name),
        data_folder,
        save_folder,
        valid_speakers,
        test_speakers,
        decode=decode,
    )


def _parse_name(path):
    # Example: gio-f1-b1 -> joy, actor f1, first short sentence
    name = NAME.fullmatch(path.stem)
    known = (EMOTIONS, SPEAKERS, TEXTS)
    if name is None or any(
        part not in words
        for part, words in zip(name.groups(), known, strict=True)
    ):
        raise NotAnUtterance("misnamed: not like gio-f1-b1")
    emotion, speaker, text = name.groups()
    return {
        "label": EMOTIONS[emotion],
        "speaker": speaker,
        "gender": SPEAKERS[speaker],
        "text": TEXTS[text],
    }


@exits_on_input_error
def main():
    """Read the command line and prepare."""
    parser = argument_parser(EMOVO, __doc__)
    prepare_emovo(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
