"""How everything is drawn: figures without a window, files, colours.

Colours are Okabe and Ito's and more that the colour-blind tell apart; every
emotion has a marker of its own besides, for print without colour. Every
figure is written as PNG, to look at, and as PDF, to print.
"""

import io
from zlib import crc32

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from speechbrain_mser.emotions import ALIASES, CANONICAL, FURTHER
from speechbrain_mser.files.atomic import atomic_path

GREY = "#8C8C8C"
# Okabe and Ito, "Color universal design"; yellow last, faint on white.
COLORS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#56B4E9",
    "#CC79A7",
    "#000000",
    GREY,
    "#F0E442",
)
MARKERS = "osvXPD^<>ph*d"
EMOTION_COLORS = {
    # Light: a grey of their own lightness is green or pink to the colour-blind
    "neutral": "#BBBBBB",
    "happy": "#E69F00",
    "sad": "#0072B2",
    "angry": "#D55E00",
    "surprise": "#CC79A7",
    "disgust": "#009E73",
    "fear": "#56B4E9",
    "calm": "#DDCC77",
    "boredom": "#785EF0",
    "contempt": "#552200",
    "enthusiasm": "#F0E442",
    "excited": "#882255",
    "frustrated": "#3B0F70",
}
# Of words beyond the vocabulary: none of the seven basic emotions'.
_OTHER_COLORS = (
    "#000000",
    "#5D3A9B",
    *(EMOTION_COLORS[word] for word in FURTHER),
)
DPI = 130


def new_figure(width, height):
    """An empty figure that no window knows.

    Arguments
    ---------
    width : float
        Inches.
    height : float
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
        With its own canvas: pyplot would keep it alive and look for a
        display.
    """
    figure = Figure((width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure, stem):
    """Write a figure as PNG and PDF, each whole or not at all.

    Arguments
    ---------
    figure : matplotlib.figure.Figure
        What is drawn.
    stem : str or path-like
        The files' path without ``.png`` and ``.pdf``; its folder is made
        when missing.

    Example
    -------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_figure(new_figure(2, 1), f"{folder}/empty")
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['empty.pdf', 'empty.png']
    """
    # Laid out once: each savefig would draw all of it to do so, again.
    if figure.axes:
        figure.get_layout_engine().execute(figure)
    figure.set_layout_engine(None)
    pixels = io.BytesIO()
    figure.savefig(pixels, format="png")
    with atomic_path(f"{stem}.png") as partial:
        # Flat colours: a palette takes half as much and looks the same.
        Image.open(pixels).convert("RGB").quantize(256).save(
            partial, optimize=True
        )
    with atomic_path(f"{stem}.pdf") as partial:
        # No date: the same figure is the same file.
        stamp = {"CreationDate": None}
        figure.savefig(partial, format="pdf", metadata=stamp)


def styles(words):
    """A colour and a marker for each word; an emotion's are always the same.

    Arguments
    ---------
    words : list of str
        As `in_order` returns.

    Returns
    -------
    dict
        Word to ``(colour, marker)``.

    Example
    -------
    >>> styles(["neutral", "sad"])["sad"] == styles(["sad"])["sad"]
    True
    """
    if not any(map(_emotion, words)):
        return {
            word: (COLORS[n % len(COLORS)], MARKERS[n % len(MARKERS)])
            for n, word in enumerate(words)
        }
    own = dict(zip((*CANONICAL, *FURTHER), MARKERS, strict=True))
    known = {_emotion(word) for word in words}
    free = [own[word] for word in own if word not in known] or list(MARKERS)
    others = [word for word in words if not _emotion(word)]
    markers = {word: free[n % len(free)] for n, word in enumerate(others)}
    return {
        word: (color, markers.get(word) or own[_emotion(word)])
        for word, color in emotion_colors(words).items()
    }


def emotion_colors(words):
    """A colour for each of the words that a recogniser may answer with.

    Those of an emotion are always the same, whatever its spelling. Any other
    word has one of its own choice, as far as no word before it has taken it:
    the same in all pictures, but for few. From the sixteenth word on, colours
    come again.

    Arguments
    ---------
    words : iterable of str
        The labels.

    Returns
    -------
    dict
        Word to colour, in their order.

    Example
    -------
    >>> emotion_colors(["bored", "angry"])
    {'bored': '#785EF0', 'angry': '#D55E00'}
    """
    words = list(dict.fromkeys(words))
    colors = {}
    for word in words:
        color = EMOTION_COLORS.get(_emotion(word))
        if color and color not in colors.values():
            colors[word] = color
    for word in words:
        if word not in colors:
            colors[word] = _other_color(word, colors.values())
    return {word: colors[word] for word in words}


def _other_color(word, taken):
    first = crc32(word.encode("utf-8", "surrogatepass")) % len(_OTHER_COLORS)
    order = (
        *_OTHER_COLORS[first:],
        *_OTHER_COLORS[:first],
        *EMOTION_COLORS.values(),
    )
    return next((one for one in order if one not in taken), order[0])


def _emotion(word):
    """The vocabulary's word for a label, None for one beyond it."""
    word = str(word).strip().lower()
    word = ALIASES.get(word, word)
    return word if word in EMOTION_COLORS else None
