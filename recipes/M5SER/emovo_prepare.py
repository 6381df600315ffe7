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

from speechbrain_mser.preparation.command_line import entry_point
from speechbrain_mser.preparation.corpus import Corpus, preparation
from speechbrain_mser.preparation.file_names import NameParser, by_name

EMOTIONS = {
    "dis": "disgust",  # disgusto
    "gio": "joy",  # gioia
    "neu": "neutral",  # neutro
    "pau": "fear",  # paura
    "rab": "anger",  # rabbia
    "sor": "surprise",  # sorpresa
    "tri": "sadness",  # tristezza
}
WOMEN, MEN = ("f1", "f2", "f3"), ("m1", "m2", "m3")
TEXTS = {
    "b1": "Gli operai si alzano presto.",
    "b2": "I vigili sono muniti di pistola.",
    "b3": "La cascata fa molto rumore.",
    "l1": "L'autunno prossimo Tony partirà per la Spagna nella prima metà di ottobre.",
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
    "emovo",
    language="ita",
    script=__file__,
    layout="[fm][1-3]/*-[fm][1-3]-*",
    counts=dict.fromkeys(EMOTIONS.values(), 84),
    speakers=(*WOMEN, *MEN),
    companions=("*.pdf",),
    # One woman, one man.
    valid_speakers=("f3", "m3"),
)
_parse_name = NameParser(
    r"(?P<label>[a-z]{3})-(?P<speaker>[fm]\d)-(?P<text>[a-z]\d)",
    example="gio-f1-b1",
    label=EMOTIONS,
    gender={**dict.fromkeys(WOMEN, "female"), **dict.fromkeys(MEN, "male")},
    text=TEXTS,
)

prepare_emovo = preparation(EMOVO, by_name(_parse_name))

main = entry_point(EMOVO, prepare_emovo, __doc__)

if __name__ == "__main__":
    main()
