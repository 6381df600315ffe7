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

from speechbrain_mser.preparation.command_line import entry_point
from speechbrain_mser.preparation.corpus import Corpus, preparation
from speechbrain_mser.preparation.file_names import NameParser, by_name
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
ACTORS = tuple(f"{number:02d}" for number in range(1, 25))

RAVDESS = Corpus(
    "ravdess",
    language="eng",
    script=__file__,
    layout="Actor_[0-9][0-9]",
    counts={**dict.fromkeys(EMOTIONS.values(), 192), "neutral": 96},
    speakers=ACTORS,
    exclusions=MANIFESTS / "exclusions/ravdess.csv",
    # Two men and two women; nothing is held out for testing, because the paper
    # evaluates on all of RAVDESS without training on it.
    valid_speakers=("21", "22", "23", "24"),
)
_parse_name = NameParser(
    r"(?P<modality>0[123])-(?P<channel>0[12])-(?P<label>0[1-8])-0[12]-"
    r"(?P<text>0[12])-0[12]-(?P<speaker>\d\d)",
    example="03-01-06-01-02-01-12",
    refused={
        "modality": {"01": "video", "02": "video"},
        "channel": {"02": "song"},
    },
    label=EMOTIONS,
    gender={name: "male" if int(name) % 2 else "female" for name in ACTORS},
    text={
        "01": "Kids are talking by the door.",
        "02": "Dogs are sitting by the door.",
    },
)

prepare_ravdess = preparation(RAVDESS, by_name(_parse_name))

main = entry_point(RAVDESS, prepare_ravdess, __doc__)

if __name__ == "__main__":
    main()
