"""What mser prints, and a folder that it prints of."""

import json

import jsonschema

from speechbrain_mser.settings.project_files import PACKAGE

SCHEMAS = PACKAGE / "command" / "schema"
WORDS = ["neutral", "happy", "sad", "angry"]
# The fixture `rooms`, as it is walked.
IN_ROOMS = ["a $1.WAV", "b.wav", "deep/broken.wav", "deep/z.wav", "deep/Öl.wav"]


def lines(text, schema="recognize"):
    """JSON lines, each checked against the schema that ships."""
    read = [json.loads(line) for line in text.splitlines()]
    wanted = json.loads((SCHEMAS / f"{schema}.json").read_text("utf-8"))
    for record in read:
        jsonschema.validate(record, wanted)
    return read
