#!/usr/bin/env python3
"""The demo's translator: says a demo corpus's sentence in another language.

Answers requests as docs/synthesis_protocol.md has it. It does not listen: the
demo's sentences exist in all of its languages, so the text says what to say,
the speaker in which of eSpeak NG's voices, and the emotion by which rules of
`espeak_corpus.yaml`. What remains of an utterance's own, the deviations of its
prosody, is drawn anew from its ID and the language.

eSpeak NG keeps state, and only the same sequence in a new process sounds the
same. Here every utterance is a process of its own: what it sounds like depends
neither on the others of its request nor on what was killed before.

Started by `synthesize.py --backend espeak`, not by hand.
"""

import importlib.metadata
import importlib.util
import multiprocessing
import sys
import zlib
from pathlib import Path

import numpy as np
import soundfile
from espeak_engine import Engine
from espeak_prepare import (
    CORPUS,
    LANGUAGES,
    VERSION,
    draw_deviations,
    prosody_of,
)

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.synthesis.backends.protocol import CannotStart, serve

SOURCE = "eng"
NUMBERS = {
    text: number
    for number, text in enumerate(CORPUS["languages"][SOURCE]["sentences"])
}
VOICES = {
    voice
    for genders in CORPUS["voices"].values()
    for voices in genders.values()
    for voice in voices
}


class NotOfTheDemo(Exception):
    """An utterance that this translator cannot know."""


def plan_translation(utterance, language):
    """What is said in another language, and how.

    Arguments
    ---------
    utterance : dict
        ``id``, ``text``, ``emotion`` and ``speaker`` of the demo corpus.
    language : str
        Out of `LANGUAGES`.

    Returns
    -------
    dict
        As `Engine.speak` takes it.

    Raises
    ------
    NotOfTheDemo
        A text, voice or emotion that the demo corpus does not have.

    Example
    -------
    >>> item = plan_translation(
    ...     {"id": "espeak_eng_m1_happy_01", "speaker": "espeak_eng_m1",
    ...      "text": "The train leaves at noon.", "emotion": "happy"}, "fra"
    ... )
    >>> item["text"], item["voice"]
    ('Le train part à midi.', 'm1')
    """
    text, emotion = utterance.get("text"), utterance.get("emotion")
    voice = utterance.get("speaker", "").removeprefix(f"espeak_{SOURCE}_")
    for what, value, known in (
        ("sentence", text, NUMBERS),
        ("emotion", emotion, CORPUS["emotions"]),
        ("voice", voice, VOICES),
    ):
        if value not in known:
            raise NotOfTheDemo(
                f"the demo corpus has no {what} {value!r}: this translator "
                "knows that corpus only"
            )
    # A voice goes its own way in a language, and an utterance in its voice.
    speaker, own = (
        np.random.default_rng(zlib.crc32(f"{language} {key}".encode()))
        for key in (voice, utterance["id"])
    )
    jitter = draw_deviations(speaker, "speaker")
    jitter += draw_deviations(own, "utterance")
    return {
        "text": CORPUS["languages"][language]["sentences"][NUMBERS[text]],
        "voice": voice,
        "seed": int(own.integers(2**31)),
        **prosody_of(emotion, jitter),
    }


def translate(request):
    """The results of a request."""
    language, folder = request["language"], Path(request["folder"])
    results = []
    for number, utterance in enumerate(request["utterances"]):
        path = folder / f"{number}.wav"
        try:
            item = plan_translation(utterance, language)
            _speak_in_new_process(path, language, item)
        except NotOfTheDemo as reason:
            results.append({"id": utterance["id"], "error": str(reason)})
        else:
            results.append(
                {
                    "id": utterance["id"],
                    "audio": str(path),
                    "text": item["text"],
                }
            )
    return results


def _speak_in_new_process(path, language, item):
    """Speak where nothing was spoken before."""
    # A fork: nothing is imported anew, and nothing of eSpeak was loaded here.
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=_speak, args=(path, language, item))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"eSpeak NG ended with code {process.exitcode}")


def _speak(path, language, item):
    code = CORPUS["languages"][language]["espeak"]
    samples = Engine(item["seed"]).speak(code, item)
    soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")


def load():
    """What this translator is, and how it translates."""
    if importlib.util.find_spec("espeakng_loader") is None:
        raise CannotStart(
            "the demo's translator speaks with eSpeak NG, which is not "
            "installed: pip install speechbrain-mser[demo]"
        )
    about = {
        "languages": [name for name in LANGUAGES if name != SOURCE],
        "versions": {
            "espeakng-loader": importlib.metadata.version("espeakng-loader"),
            "espeak_corpus": VERSION,
        },
    }
    return about, translate


if __name__ == "__main__":
    sys.exit(serve(load))
