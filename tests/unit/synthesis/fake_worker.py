"""A worker that misbehaves as its command line and its utterances tell it.

Usage: python fake_worker.py STARTS_FILE [HOW_IT_STARTS]

Every start adds a line with the process's ID to the file. The text of an
utterance says what to do over it; any other text is said in capitals. It
needs the standard library alone, so that it starts at once.
"""

import array
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

LANGUAGES = ["fra", "deu"]


def say(message):
    print(json.dumps(message), flush=True)


def hang():
    print("hanging", file=sys.stderr, flush=True)
    time.sleep(3600)


def read(path):
    """The samples of a mono WAV file of 32 bit floats."""
    content = path.read_bytes()
    return array.array("f", content[content.index(b"data") + 8 :])


def write(path, samples, channels=1, rate=16000):
    """Write such a file; interleaved where there are several channels."""
    data, frame = samples.tobytes(), 4 * channels
    form = struct.pack("<HHIIHH", 3, channels, rate, rate * frame, frame, 32)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(
        b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
    )


def first_message(how):
    """What it says first, if it comes to that."""
    ready = {"ready": True, "protocol": 1, "languages": LANGUAGES}
    if how == "dies":
        sys.exit("out of luck")
    if how == "hangs":
        hang()
    if how == "prints":
        print("Loading weights...", flush=True)
    return {
        "is old": {**ready, "protocol": 0},
        "cannot": {"error": "no weights: get some"},
        "knows no languages": {**ready, "languages": []},
        "is short": {**ready, "max_seconds": 5},
    }.get(how, ready)


def die():
    print("that was too much", file=sys.stderr)
    os._exit(3)


def say_without_end():
    sys.stdout.write("x" * 1000)
    sys.stdout.flush()
    hang()


def close():
    os.close(1)
    hang()


# What costs the worker its life, sooner or later
FATAL = {
    "die": die,
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "hang": hang,
    "garbage": lambda: print("segmentation of utterance done", flush=True),
    "endless": say_without_end,
    "close": close,
    "deep": lambda: print("[" * 100_000, flush=True),
}

# What is said about an utterance in place of the truth, by its true result
LIES = {
    "other request": lambda result: [result],
    "not asked": lambda result: [result, {**result, "id": "nobody"}],
    "twice": lambda result: [result, result],
    "no path": lambda result: [{**result, "audio": None}],
    "leave out": lambda result: [],
    "refuse": lambda result: [{"id": result["id"], "error": "no speech in it"}],
    "outside": lambda result: [{**result, "audio": os.environ["OUTSIDE"]}],
    "climb": lambda result: [
        {**result, "audio": "../" * 20 + os.environ["OUTSIDE"][1:]}
    ],
    "odd letters": lambda result: [
        {**result, "text": "half \ud83d\ncharacter"}
    ],
    "odd path": lambda result: [{**result, "audio": "\ud83d\0.wav"}],
    "relative": lambda result: [
        {**result, "audio": Path(result["audio"]).name}
    ],
    "process": lambda result: [{**result, "text": str(os.getpid())}],
    "where": lambda result: [
        {**result, "text": json.dumps([os.getcwd(), dict(os.environ)])}
    ],
    "link for folder": lambda result: [
        take_the_place(Path(result["audio"]).parent)
        or {**result, "audio": Path(os.environ["OUTSIDE"]).name}
    ],
    "link for all": lambda result: [
        take_the_place(Path(result["audio"]).parents[2])
        or {**result, "audio": Path(os.environ["OUTSIDE"]).name}
    ],
    "next request": lambda result: [
        take_the_next(Path(result["audio"]).parents[1]) or result
    ],
    "long name": lambda result: [{**result, "audio": "x" * 5000 + ".wav"}],
    "deep name": lambda result: [{**result, "audio": "x/" * 5000 + ".wav"}],
    "long error": lambda result: [{"id": result["id"], "error": "e" * 10**6}],
    "long text": lambda result: [{**result, "text": "t" * 10**6}],
    "have a daemon": lambda result: [{**result, "text": daemonise()}],
    "have children": lambda result: [
        {**result, "text": str(subprocess.Popen(["sleep", "3600"]).pid)}
    ],
}


def take_the_place(folder):
    """Put a link to where the secret is in the place of a folder."""
    shutil.rmtree(folder)
    folder.symlink_to(Path(os.environ["OUTSIDE"]).parent)


def take_the_next(folder):
    """Put a link in the place of the next request's folder."""
    (folder.parent / str(int(folder.name) + 1)).symlink_to("/tmp")


def daemonise():
    """A grandchild in a session of its own, whose parent is gone."""
    script = (
        "import os, subprocess; "
        "print(subprocess.Popen(['sleep', '3600'], stdout=-3, stderr=-3, "
        "start_new_session=True).pid)"
    )
    command = [sys.executable, "-I", "-S", "-c", script]
    made = subprocess.run(
        command, capture_output=True, text=True, start_new_session=True
    )
    return made.stdout.strip()


def make_sparse(path, samples, size=2**32):
    """A file that says that it is large, and takes no space."""
    write(path, samples)
    os.truncate(path, size)


def promise(path, samples):
    """A gigabyte on the disk, of samples of one byte: four when decoded."""
    form = struct.pack("<HHIIHH", 1, 1, 16000, 16000, 1, 8)
    size = 2**30 - 44
    path.write_bytes(
        b"RIFF"
        + struct.pack("<I", 36 + size)
        + b"WAVEfmt \x10\0\0\0"
        + form
        + b"data"
        + struct.pack("<I", size)
    )
    os.truncate(path, 2**30)


# What is written in place of half the source
FILES = {
    "link": lambda path, samples: path.symlink_to(os.environ["OUTSIDE"]),
    "pipe": lambda path, samples: os.mkfifo(path),
    "no file": lambda path, samples: None,
    "no audio": lambda path, samples: path.write_text("sorry"),
    "stereo": lambda path, samples: write(path, samples, channels=2),
    "sparse": make_sparse,
    "promise": promise,
}


def results_of(utterance, folder):
    text, path = utterance["text"], folder / Path(utterance["audio"]).name
    FATAL.get(text, lambda: None)()
    half = array.array("f", [x / 2 for x in read(Path(utterance["audio"]))])
    FILES.get(text, write)(path, half)
    result = {"id": utterance["id"], "audio": str(path), "text": text.upper()}
    return LIES.get(text, lambda result: [result])(result)


def main():
    how = " ".join(sys.argv[2:])
    with open(sys.argv[1], "a") as file:
        print(os.getpid(), file=file)
    say(first_message(how))
    if how == "is deaf":
        hang()
    for line in sys.stdin:
        request, results = json.loads(line), []
        for utterance in request["utterances"]:
            results += results_of(utterance, Path(request["folder"]))
            request["id"] += utterance["text"] == "other request"
        say({"id": request["id"], "results": results})


if __name__ == "__main__":
    main()
