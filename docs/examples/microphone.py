"""Say which emotion a microphone hears, until Ctrl-C; pip install sounddevice.

python microphone.py [LABEL ...]
"""

import sys

import sounddevice

from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.timeline import EmotionStream

RATE = 16000


def main(labels):
    """Print a line for each segment as soon as it is sure."""
    recognizer = EmotionRecognizer.from_hparams("open")
    # At once, and without hearing a speaker first
    stream = EmotionStream(recognizer, labels or None, delay=0, listen=0)
    with sounddevice.InputStream(RATE, channels=1) as microphone:
        try:
            while True:
                samples, lost = microphone.read(RATE // 4)
                if lost:
                    print("too slow: some audio was lost", file=sys.stderr)
                show(stream.push(samples[:, 0]))
        except KeyboardInterrupt:
            show(stream.close())


def show(segments):
    """Print segments."""
    for one in segments:
        print(
            f"{one.start:7.2f} {one.end:7.2f} {one.emotion} "
            f"({one.probability:.0%})",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
