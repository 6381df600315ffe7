#!/usr/bin/env python3
"""Measures translations beside their sources, for whoever wants to filter.

    python m5ser_scores.py --data_folder /big/m5ser \
        --manifest manifests/iemocap.csv /corpora/IEMOCAP_full_release \
        --whisper openai/whisper-small --recognizer results/stage1/1234/recognizer
    python m5ser_prepare.py --data_folder /big/m5ser --save_folder manifests \
        --scores /big/m5ser/scores.csv --keep_if "cer<=0.5" "duration_ratio<=2"

Always: the duration's ratio and the share of clipped samples. With --whisper:
which language it hears, WER and CER against the translator's own text. With
--recognizer: whether it hears the same emotion in both. Nothing is a filter
unless m5ser_prepare.py is told so. Interrupted, it goes on where it was.
"""

from speechbrain_mser.dataio.manifest import read_manifests
from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.preparation.command_line import sources_parser
from speechbrain_mser.synthesis.scorers import (
    Clipping,
    DurationRatio,
    EmotionAgreement,
    WhisperScorer,
)
from speechbrain_mser.synthesis.scoring import score_folder


@exits_on_input_error(resumes=True)
def main():
    """Read the command line and score."""
    parser = sources_parser(__doc__)
    add = parser.add_argument
    add("--whisper", metavar="HUB", help="a multilingual Whisper")
    add("--recognizer", metavar="FOLDER", help="what a training left")
    add("--trusted", action="store_true", help="run the code that it names")
    add("--batch_size", type=int, default=16)
    add("--device", default="cpu")
    given = parser.parse_args()
    sources = read_manifests(dict(given.manifest))
    scorers = [DurationRatio(), Clipping()]
    if given.whisper:
        scorers.append(WhisperScorer(given.whisper, device=given.device))
    if given.recognizer:
        scorers.append(
            EmotionAgreement(given.recognizer, given.device, given.trusted)
        )
    print(score_folder(given.data_folder, sources, scorers, given.batch_size))


if __name__ == "__main__":
    main()
