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

from speechbrain_mser.preparation.command_line import entry_point
from speechbrain_mser.preparation.corpus import Corpus, preparation
from speechbrain_mser.preparation.file_names import NameParser, by_name

EMOTIONS = {
    "W": "anger",  # Wut
    "L": "boredom",  # Langeweile
    "E": "disgust",  # Ekel
    "A": "fear",  # Angst
    "F": "happiness",  # Freude
    "T": "sadness",  # Trauer
    "N": "neutral",
}
MEN, WOMEN = ("03", "10", "11", "12", "15"), ("08", "09", "13", "14", "16")
TEXTS = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}

EMODB = Corpus(
    "emodb",
    language="deu",
    script=__file__,
    layout="wav/[0-9][0-9][ab]*",
    counts=dict(
        zip(EMOTIONS.values(), (127, 81, 46, 69, 71, 62, 79), strict=True)
    ),
    speakers=(*MEN, *WOMEN),
    companions=("*.txt", "lablaut/*", "labsilb/*", "silb/*"),
    # A woman and a man who have all seven emotions (08 has no disgust).
    valid_speakers=("09", "10"),
)
_parse_name = NameParser(
    r"(?P<speaker>\d\d)(?P<text>[ab]\d\d)(?P<label>[WLEAFTN])[a-z]",
    example="03a01Fa",
    label=EMOTIONS,
    gender={**dict.fromkeys(MEN, "male"), **dict.fromkeys(WOMEN, "female")},
    text=TEXTS,
)

prepare_emodb = preparation(EMODB, by_name(_parse_name))

main = entry_point(EMODB, prepare_emodb, __doc__)

if __name__ == "__main__":
    main()
