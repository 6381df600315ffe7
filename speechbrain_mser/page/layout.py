"""The page: a recording and candidate words in, bars and a timeline out."""

import html
import os
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress

import gradio as gr
import numpy as np

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.errors import InputError
from speechbrain_mser.page.answers import MAX_CHARACTERS, MAX_MINUTES, Answers
from speechbrain_mser.page.picture import CSS, SCRIPT, timeline_html
from speechbrain_mser.timeline.stream import CHANNELS

HOST, PORT = "127.0.0.1", 7860
MAX_MB = 100.0
# Seconds. How often what was uploaded is looked through, and how old it gets:
# who looks at a timeline may want to hear it.
SWEPT, KEPT = 60, 1800
# Of audio: Gradio's others send it to a site of theirs
BUTTONS = ["download"]
# Who speaks, as the page sends it
ONE, BOTH = "one", CHANNELS
# Who waits while this many wait is asked to come again.
QUEUE = 20
INTRODUCTION = """\
# Which emotion is heard?
Upload or record speech. What is longer than a few sentences gets a timeline:
click on a part to hear it. What you send is recognised on the machine that
serves this page, and forgotten within half an hour.

What is said of how somebody sounds is often wrong, and it is not how they
feel: decide nothing about anyone by it.
"""
# Fonts of the machine on which it is looked at
THEME = gr.themes.Default(
    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
)


def build_page(recognizer, max_minutes=MAX_MINUTES, calibration=None):
    """The page, not yet served.

    Arguments
    ---------
    recognizer : EmotionRecognizer
        Who recognises, for all who come.
    max_minutes : float
        Of audio, at a time.
    calibration : str, optional
        As for `Answers`.

    Returns
    -------
    gradio.Blocks
        To be launched by `serve`, or to be put into another page.
    """
    answers = Answers(recognizer, max_minutes, calibration)
    with gr.Blocks(
        title="Which emotion is heard?",
        analytics_enabled=False,
        delete_cache=(SWEPT, KEPT),
    ) as page:
        gr.Markdown(INTRODUCTION)
        audio = gr.Audio(
            sources=["upload", "microphone"],
            type="filepath",
            label="Speech",
            elem_id="speech",
            buttons=BUTTONS,
        )
        words = gr.Textbox(
            label="Candidate words",
            info="any, with commas between them; none: those of the training",
            placeholder=", ".join(recognizer.labels()),
            max_length=MAX_CHARACTERS,
        )
        speakers = gr.Radio(
            [
                ("one, or they are not told apart", ONE),
                ("a channel each", BOTH),
            ],
            value=ONE,
            label="Speakers",
            info="of a stereo recording, such as a call, each channel can be "
            "a speaker",
        )
        button = gr.Button("Recognise", variant="primary")
        label = gr.Label(label="Emotion", elem_id="emotion")
        timeline = gr.HTML(
            css_template=CSS,
            js_on_load=SCRIPT,
            apply_default_css=False,
            elem_id="timeline",
        )
        heard = gr.Audio(
            label="A part of it",
            interactive=False,
            autoplay=True,
            visible=False,
            elem_id="part",
            buttons=BUTTONS,
        )

        def recognize(path, text, who, progress=gr.Progress()):  # noqa: B008
            if path is None:
                raise gr.Error("Upload or record speech first.")
            with _as_message():
                probabilities, made = answers(
                    path, text or "", BOTH if who == BOTH else None, progress
                )
            shown = "" if made is None else timeline_html(made)
            return probabilities, shown, gr.Audio(value=None, visible=False)

        def play(path, where: gr.EventData):
            if path is None:
                raise gr.Error("The recording was taken away.")
            with _as_message():
                samples = answers.cut(path, where.start, where.end)
            pcm = np.int16(np.clip(samples, -1, 1) * 32767)
            return gr.Audio(value=(SAMPLE_RATE, pcm), visible=True)

        def clear():
            return None, "", gr.Audio(value=None, visible=False)

        shown = [label, timeline, heard]
        private = {"api_visibility": "private"}
        button.click(
            recognize,
            [audio, words, speakers],
            shown,
            concurrency_limit=2,
            show_progress_on=label,
            api_name="recognize",
        )
        timeline.click(
            play,
            audio,
            heard,
            concurrency_limit=2,
            show_progress="minimal",
            **private,
        )
        # Nothing stands under a recording of which it does not speak
        audio.clear(clear, outputs=shown, queue=False, **private)
        audio.input(clear, outputs=shown, queue=False, **private)
    page.queue(max_size=QUEUE)
    return page


@contextmanager
def served(
    recognizer,
    host=HOST,
    port=PORT,
    max_mb=MAX_MB,
    max_minutes=MAX_MINUTES,
    calibration=None,
):
    """Serve the page for as long as a block runs.

    Arguments
    ---------
    recognizer, host, port, max_mb, max_minutes, calibration
        As for `serve`.

    Yields
    ------
    gradio.Blocks
        The page; its ``local_url`` says where.

    Raises
    ------
    InputError
        As `serve`.
    """
    if not max_mb > 0:
        raise InputError(f"max_mb is {max_mb}, expected more than 0")
    if port is not None and not 0 <= port < 1 << 16:
        raise InputError(f"port is {port}, expected 0 to 65535")
    with _forgotten():
        page = build_page(recognizer, max_minutes, calibration)
        try:
            page.launch(
                server_name=host,
                server_port=port,
                max_file_size=round(max_mb * 1e6),
                theme=THEME,
                share=False,
                ssr_mode=False,
                footer_links=[],
                quiet=True,
                prevent_thread_lock=True,
            )
        except OSError:
            raise InputError(
                f"{host}:{port} cannot be listened at: something else does, "
                "or it is no address of this machine; name another port"
            ) from None
        try:
            yield page
        finally:
            page.close(verbose=False)


def serve(recognizer, **settings):
    """Serve the page until interrupted.

    Arguments
    ---------
    recognizer : EmotionRecognizer
        Who recognises, for all who come.
    **settings : dict
        ``host``, the address to listen at: by default this machine's alone;
        "0.0.0.0" is for all who reach it. ``port``; None, the first that is
        free from 7860 on. ``max_mb``, what may be uploaded, and
        ``max_minutes`` of audio, at a time. ``calibration``, "none" for the
        model's own probabilities.

    Raises
    ------
    InputError
        The port is taken, a limit is none, or silero-vad is not installed.
    """
    with served(recognizer, **settings) as page:
        print(f"{page.local_url} (Ctrl-C ends it)", file=sys.stderr)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


@contextmanager
def _forgotten():
    """Whatever Gradio keeps goes at the end; a browser keeps no history."""
    with tempfile.TemporaryDirectory(
        prefix="mser-page-", ignore_cleanup_errors=True
    ) as folder:
        ours = {"GRADIO_TEMP_DIR": folder, "GRADIO_RUN_HISTORY": "False"}
        before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


@contextmanager
def _as_message():
    """What a user can do something about is said on the page."""
    try:
        yield
    except InputError as error:
        raise gr.Error(html.escape(str(error))) from None
