"""A telephone call of two speakers, spoken by eSpeak NG: something to try on.

Nobody feels anything in it: the emotions are prosody rules
(`espeak_corpus.yaml`). It shows what comes out, not how good that is.
"""

import os

import numpy as np
import soundfile
from espeak_engine import Engine
from espeak_prepare import CORPUS, PARAMETERS, check_installed, prosody_of

from speechbrain_mser import SAMPLE_RATE

# Two voices that the demo's recogniser has not heard in training, taking turns
VOICES = ("m7", "f2")
EMOTIONS = ("neutral", "neutral", "angry", "sad", "angry", "sad", "happy")
EMOTIONS += ("happy", "angry", "neutral", "angry", "fear")
LINE_BREAK = 0.7  # seconds between two turns


def speak_call(path, seed=1):
    """Speak it, a speaker on each channel.

    Arguments
    ---------
    path : str or path-like
        A stereo file to make or replace.
    seed : int
        Of the synthesiser's noise.

    Raises
    ------
    InputError
        eSpeak NG is not installed.
    """
    check_installed()
    engine, sentences = Engine(seed), CORPUS["languages"]["eng"]["sentences"]
    turns, end = [], 0.5
    for number, emotion in enumerate(EMOTIONS):
        item = {
            "voice": VOICES[number % 2],
            "text": " ".join(sentences[number : number + 2]),
            "seed": seed + number,
            **prosody_of(emotion, np.zeros(len(PARAMETERS))),
        }
        turns.append((end, engine.speak("en-us", item)))
        end += len(turns[-1][1]) / SAMPLE_RATE + LINE_BREAK
    # A line is not silent where nobody speaks
    rng = np.random.default_rng(seed)
    call = 1e-4 * rng.standard_normal((round(end * SAMPLE_RATE), 2))
    for number, (begin, samples) in enumerate(turns):
        first = round(begin * SAMPLE_RATE)
        call[first : first + len(samples), number % 2] += samples
    soundfile.write(os.fspath(path), call, SAMPLE_RATE)
