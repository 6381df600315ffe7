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

from speechbrain_mser.preparation.command_line import entry_point
from speechbrain_mser.preparation.corpus import Corpus, preparation
from speechbrain_mser.preparation.file_names import NameParser, by_name
from speechbrain_mser.preparation.splits import ALL

EMOTIONS = {"A": "Angry", "H": "Happy", "N": "Neutral", "S": "Sad"}

URDU = Corpus(
    "urdu",
    language="urd",
    script=__file__,
    layout="Angry/S[MF]*",
    counts=dict.fromkeys(EMOTIONS.values(), 100),
    companions=("README.md",),
    test_speakers=(ALL,),
)
_parse_name = NameParser(
    r"(?P<speaker>S(?P<gender>[MF])\d+)_F\d+_(?P<label>[AHNS])\d+",
    example="SM1_F12_A012",
    label_is_folder=True,
    label=EMOTIONS,
    gender={"M": "male", "F": "female"},
)

prepare_urdu = preparation(URDU, by_name(_parse_name))

main = entry_point(URDU, prepare_urdu, __doc__)

if __name__ == "__main__":
    main()
