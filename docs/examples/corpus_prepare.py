"""Murmurs: what a script for one's own corpus looks like.

Where: on your disk
Licence: yours

    anna/anna_joy_01.wav
    |    |    |   take
    |    |    emotion
    |    speaker
    speaker

Usage: python corpus_prepare.py --data_folder murmurs --save_folder manifests
"""

from speechbrain_mser.preparation.command_line import entry_point
from speechbrain_mser.preparation.corpus import Corpus, preparation
from speechbrain_mser.preparation.file_names import NameParser, by_name

MURMURS = Corpus(
    "murmurs",
    # ISO 639-3
    language="eng",
    script=__file__,
    # By which its folder is known, and a wrong one told
    layout="*/*_*_[0-9][0-9].*",
    # Files that are no audio and no surprise
    companions=("*.txt",),
    # Where nobody says otherwise; whoever is in no other split is in training
    valid_speakers=("bert",),
)
# A group is a column of the manifest: label, speaker, gender, text. What it
# stands for may be another word; the vocabulary must know a label's (it knows
# joy), or `Corpus.without_emotion` name it.
parse_name = NameParser(
    r"(?P<speaker>[a-z]+)_(?P<label>[a-z]+)_\d\d",
    example="anna_joy_01",
    label={"joy": "joy", "ire": "anger", "calm": "calm"},
    gender={"anna": "female", "bert": "male", "carl": "male"},
)

# Labels in a table? `preparation` takes any function of (folder, paths) that
# returns rows and what was dropped: see msp_podcast_prepare.py.
prepare_murmurs = preparation(MURMURS, by_name(parse_name))
main = entry_point(MURMURS, prepare_murmurs, __doc__)

if __name__ == "__main__":
    main()
