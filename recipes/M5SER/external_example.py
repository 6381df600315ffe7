#!/usr/bin/env python3
"""A worker in 40 lines: "translates" by saying the source again, quieter.

See docs/synthesis_protocol.md. To make a corpus with it:
python synthesize.py hparams/synthesize.yaml --backend external ...
"""

import json
import os
import sys

import soundfile

# stdout is the protocol's. Whatever prints from now on, prints to stderr.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
sys.stdout = sys.stderr


def say(message):
    """Write a line and do not keep it."""
    print(json.dumps(message), file=answers, flush=True)


def translate(utterance, language, folder):
    """Of one utterance: this is where a TTS cascade would go."""
    samples, rate = soundfile.read(utterance["audio"])
    path = os.path.join(folder, os.path.basename(utterance["audio"]))
    soundfile.write(path, 0.5 * samples, rate)
    text = f"[{language}] {utterance['text']}"
    return {"id": utterance["id"], "audio": path, "text": text}


languages = ["fra", "deu", "ita", "cmn", "spa"]
say({"ready": True, "protocol": 1, "languages": languages})
for line in sys.stdin:  # it ends when it is closed
    request = json.loads(line)
    about = request["language"], request["folder"]
    results = [translate(one, *about) for one in request["utterances"]]
    say({"id": request["id"], "results": results})
