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

from speechbrain_mser.preparation.command_line import entry_point
from speechbrain_mser.preparation.corpus import Corpus, preparation
from speechbrain_mser.preparation.file_names import NameParser, by_name
from speechbrain_mser.preparation.splits import ALL
from speechbrain_mser.settings.project_files import MANIFESTS

EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness")
SPEAKERS = ("1", "2", "3", "4", "5", "6")
FOLDER = "Acted Emotional Speech Dynamic Database/"
FILES = "anger/a[0-9][0-9] ([0-9]*"

AESDD = Corpus(
    "aesdd",
    language="ell",
    script=__file__,
    layout="|".join(FOLDER * nested + FILES for nested in range(3)),
    counts=dict(zip(EMOTIONS, (121, 122, 120, 119, 123), strict=True)),
    speakers=SPEAKERS,
    companions=("*Tools and Documentation/*",),
    exclusions=MANIFESTS / "exclusions/aesdd.csv",
    test_speakers=(ALL,),
)
_parse_name = NameParser(
    r"(?P<label>[adfhs])\d\d \((?P<speaker>\d\d?)\)[ab]?",
    example="a03 (3)",
    label_is_folder=True,
    label={emotion[0]: emotion for emotion in EMOTIONS},
    # (01) is (1)
    speaker={zero + name: name for name in SPEAKERS for zero in ("", "0")},
)

prepare_aesdd = preparation(AESDD, by_name(_parse_name))

main = entry_point(AESDD, prepare_aesdd, __doc__)

if __name__ == "__main__":
    main()
