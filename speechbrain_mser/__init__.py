"""Zero-shot emotion recognition across languages, as a SpeechBrain plugin.

Frozen Whisper, trained Emotion Q-Former, frozen LLaMA that says the emotion
word: an implementation of "Large Language Models Meet Contrastive Learning:
Zero-Shot Emotion Recognition Across Languages" (arXiv 2503.21806).
"""

import os
import sys

from speechbrain_mser.torchaudio_extension import check_torchaudio

__version__ = "0.1.0"
# Of all audio that is heard or made, in Hz: what speech models are trained on.
SAMPLE_RATE = 16000

# While Python looks for what `-m` shall run, "-m" stands there. It and `mser`
# look by themselves: the one mends torchaudio, the other says so in a line.
if os.path.basename("".join(sys.argv[:1])) not in ("-m", "mser", "mser.exe"):
    check_torchaudio()
