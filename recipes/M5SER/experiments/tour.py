#!/usr/bin/env python3
"""All that a recogniser gives, of one call: what `mser` and the library do.

The call is spoken by eSpeak NG; the recognisers are the demo's, where `make
demo` was run, and the released one, where its frozen models are fetched.
docs/tour.ipynb is the same to read.

Usage: python recipes/M5SER/experiments/tour.py [--folder results/tour]
"""

import argparse
import importlib.util
import os
import shlex
from pathlib import Path

import soundfile
from demo import lacking_of_released
from spoken_call import speak_call

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.command.main import main as mser
from speechbrain_mser.command.timeline import FORMATS
from speechbrain_mser.errors import InputError, exits_on_input_error
from speechbrain_mser.timeline import EmotionStream, plot_timeline

DEMO = "results/demo/stage2/recognizer"
LABELS = "bored,excited,furious"


def command(*words):
    """Run a subcommand as from a shell, and show how it is called."""
    print(f"\n$ mser {shlex.join(map(str, words))}")
    try:
        code = mser([*map(str, words)])
    except SystemExit as ended:
        code = ended.code
    if code:
        print(f"(exit code {code})")


def cut_turns(timeline, signal, folder):
    """Each segment as a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(timeline.segments):
        first, last = (
            round(seconds * SAMPLE_RATE) for seconds in (one.start, one.end)
        )
        soundfile.write(
            folder / f"{number:02}.wav", signal[first:last], SAMPLE_RATE
        )


def follow(recognizer, signal):
    """Print a stream's segments with the time at which they were sure."""
    print("\na stream, a quarter of a second at a time:")
    stream = EmotionStream(recognizer, delay=0)
    step = SAMPLE_RATE // 4
    for first in range(0, len(signal), step):
        for one in stream.push(signal[first : first + step]):
            now = (first + step) / SAMPLE_RATE
            print(f"  {now:5.2f} s: {one.emotion} until {one.end:.2f} s")
    for one in stream.close():
        print(f"  at the end: {one.emotion} until {one.end:.2f} s")


def show_page(recognizer, call):
    """Ask the page, as somebody who has opened it would."""
    if importlib.util.find_spec("gradio") is None:
        print("\nno page: pip install 'speechbrain-mser[page]'")
        return
    from gradio_client import Client, handle_file

    from speechbrain_mser.page.layout import served

    with served(recognizer, port=None) as page:
        client = Client(page.local_url, download_files=False, verbose=False)
        label, *_ = client.predict(
            handle_file(os.fspath(call)), "", api_name="/recognize"
        )
    print(f"\nthe page (mser serve) says of the call: {label['label']}")


def tour(source, call, folder):
    """All of it with one recogniser.

    Arguments
    ---------
    source : str or path-like
        As for `EmotionRecognizer.from_hparams`.
    call : path-like
        A stereo recording.
    folder : path-like
        Gets what is made.
    """
    from speechbrain_mser.inference import EmotionRecognizer

    folder.mkdir(parents=True, exist_ok=True)
    recognizer = EmotionRecognizer.from_hparams(source)
    timeline = recognizer.timeline(call, speakers="channels", progress=False)
    for one in timeline.segments:
        print(
            f"{one.start:6.1f} {one.end:6.1f} s  {one.speaker}  {one.emotion}"
        )
    plot_timeline(timeline, folder / "call.png")
    for form in FORMATS:
        timeline.write(folder / f"call.{form}", form)
    signal = recognizer.load_audio(os.fspath(call)).numpy()
    turns = folder / "turns"
    cut_turns(timeline, signal, turns)
    follow(recognizer, signal)
    room, own = folder / "room.safetensors", ("--recognizer", source)
    command("listen", turns, "--output", room, *own)
    heard = ("--heard", room, *own)
    command("recognize", turns, "--labels", LABELS, *heard)
    command("find", "angry", turns, "--top", "3", *heard)
    command("card", *own)
    show_page(recognizer, call)


@exits_on_input_error
def main():
    """Take it with each recogniser that is here."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("results/tour"))
    parser.add_argument("--demo", type=Path, default=Path(DEMO))
    arguments = parser.parse_args()
    recognizers, folder = {}, arguments.folder
    if arguments.demo.is_dir():
        recognizers["demo"] = arguments.demo
    else:
        print(f"without the demo's recogniser, {arguments.demo}: make demo")
    if why := lacking_of_released():
        print(f"without the released recogniser: {why}")
    else:
        recognizers["released"] = "open"
    if not recognizers:
        raise InputError("no recogniser is here: make models, or make demo")
    folder.mkdir(parents=True, exist_ok=True)
    speak_call(folder / "call.wav")
    command("models", "list")
    for name, source in recognizers.items():
        print(f"\n== {name}: {source}")
        tour(source, folder / "call.wav", folder / name)
    print("\nwhat was made:")
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.parent.name != "turns":
            print(f"  {path}")


if __name__ == "__main__":
    main()
