"""A timeline's picture shows every segment, and says what it shows."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from PIL import Image

from speechbrain_mser.emotions import CANONICAL, FURTHER
from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.drawing import emotion_colors, styles
from speechbrain_mser.timeline import Segment, Timeline, plot_timeline

LABELS = ["angry", "proud", "sad"]


def segment(start, end, who=None, **probabilities):
    return Segment(start, end, who, probabilities or {"sad": 0.5})


@pytest.fixture
def call():
    """Two speakers, of whom one is interrupted; nobody is proud."""
    segments = [
        segment(0.5, 2.25, "anna", angry=0.75, proud=0.25, sad=0.0),
        segment(2.0, 3.0, "bert", angry=0.125, proud=0.25, sad=0.625),
        segment(2.25, 4.0, "anna", angry=0.0, proud=0.25, sad=0.75),
    ]
    return Timeline(segments, LABELS, 5.0, "call.wav")


def bars(axes):
    """``(left, right, height, colour)`` of what is drawn, from below."""
    (drawn,) = (c for c in axes.collections if isinstance(c, PolyCollection))
    boxes = [path.get_extents() for path in drawn.get_paths()]
    colors = map(to_hex, drawn.get_facecolors())
    assert not np.any(drawn.get_linewidths())
    return [
        (box.x0, box.x1, box.y1, color.upper())
        for box, color in zip(boxes, colors, strict=True)
    ]


def times(axes):
    """The marks that are seen."""
    axes.figure.draw_without_rendering()
    first, last = axes.get_xlim()
    return [
        label.get_text()
        for place, label in zip(
            axes.get_xticks(), axes.get_xticklabels(), strict=True
        )
        if first <= place <= last
    ]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_bar_is_where_its_segment_is_and_as_high_as_it_is_probable(call):
    colors = emotion_colors(LABELS)
    anna, bert = plot_timeline(call).axes
    assert sorted(bars(anna)) == [
        (0.5, 2.25, 0.75, colors["angry"]),
        (2.25, 4.0, 0.75, colors["sad"]),
    ]
    assert bars(bert) == [(2.0, 3.0, 0.625, colors["sad"])]
    names = [axes.get_title(loc="left") for axes in (anna, bert)]
    assert names == ["anna", "bert"]
    assert anna.get_xlim() == bert.get_xlim() == (0, 5)


def test_the_legend_has_the_words_that_occur_in_the_labels_order(call):
    assert legend(plot_timeline(call)) == ["angry", "sad"]
    assert legend(plot_timeline(call, speaker="bert")) == ["sad"]
    assert not plot_timeline(Timeline([], LABELS, 5.0)).legends


def test_chance_is_drawn_and_named(call):
    first, second = plot_timeline(call).axes
    for axes in (first, second):
        assert [*axes.lines[0].get_ydata()] == pytest.approx([1 / 3, 1 / 3])
    (text,) = first.texts
    assert text.get_text() == "chance\n1/3"
    assert text.get_position()[1] == pytest.approx(1 / 3)
    assert not second.texts


@pytest.mark.parametrize(
    ("seconds", "some", "most"),
    [
        (4, ["0:00.0", "0:00.5", "0:04.0"], 10),
        (600, ["0:00", "1:00", "10:00"], 11),
        (1800, ["0:00", "5:00", "30:00"], 11),
    ],
)
def test_times_are_minutes_and_seconds(seconds, some, most):
    (axes,) = plot_timeline(Timeline([], LABELS, float(seconds))).axes
    found = times(axes)
    assert [found[0], found[1], found[-1]] == some and len(found) <= most


def test_hours_go_on_below_and_nothing_is_hidden():
    """Three hours of segments, of 50 ms some, have each a pixel of their own."""
    rng = np.random.default_rng(0)
    borders = np.cumsum(rng.choice([0.05, 2, 5, 12], 2200))
    borders = borders[borders < 10790]
    segments = [
        segment(a, b, None, **{"angry": 0.6, "sad": 0.4})
        for a, b in pairwise(borders)
    ]
    figure = plot_timeline(Timeline(segments, LABELS, 10790.0))
    assert len(figure.axes) == 6
    assert times(figure.axes[2])[0] == "1:00:00"
    figure.draw_without_rendering()
    for axes in figure.axes:
        first, last = axes.get_xlim()
        pixel = (last - first) / axes.bbox.width
        drawn = bars(axes)
        widths = [right - left for left, right, _, _ in drawn]
        # Short ones are drawn over the long beside them
        assert np.diff(widths).max() <= 1e-6
        for left, right, _, _ in drawn:
            assert first <= left and right <= last
            assert right - left >= 0.99 * pixel
        assert len(drawn) == sum(
            one.start < last and one.end > first for one in segments
        )


def test_a_hundred_hours_are_a_picture_of_a_usable_size():
    figure = plot_timeline(Timeline([], LABELS, 360_000.0))
    assert len(figure.axes) <= 24 and len(times(figure.axes[-1])) <= 11


def test_words_of_strangers_are_no_formulas_and_may_be_long(tmp_path):
    words = ["$\\nosuch$", "_x", "w" * 9999, "a\nb"]
    names = ["$\\bad$", *"abc"]
    segments = [
        segment(n, n + 1, name, **{word: 1.0})
        for n, (word, name) in enumerate(zip(words, names, strict=True))
    ]
    timeline = Timeline(segments, words, 4.0)
    figure = plot_timeline(timeline, tmp_path / "a.png")
    assert [*map(len, legend(figure))] == [9, 2, 41, 3]
    assert Image.open(tmp_path / "a.png").size[0] == 1300


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_it_is_drawn(call, kind, tmp_path):
    plot_timeline(call, tmp_path / f"a.{kind}")
    plot_timeline(call, tmp_path / f"b.{kind}", speaker="anna")
    plot_timeline(Timeline(), tmp_path / f"c.{kind}")
    assert len(list(tmp_path.iterdir())) == 3
    if kind == "png":
        two, one = (Image.open(tmp_path / f"{n}.png").size for n in "ab")
        assert two[0] == one[0] and two[1] > one[1]


def test_what_cannot_be_drawn_is_said(call, tmp_path):
    with pytest.raises(InputError, match=r"ends in one of \.png"):
        plot_timeline(call, tmp_path / "a.docx")
    with pytest.raises(InputError, match="'carl' is not in the timeline"):
        plot_timeline(call, tmp_path / "a.png", speaker="carl")


# How eyes without one kind of cone see, in linear RGB (Machado, Oliveira and
# Fernandes 2009, severity 1).
EYES = {
    "all": np.eye(3),
    "no long": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no middle": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no short": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def oklab(colors):
    """``[n, 3]`` in linear RGB as Ottosson's (2020) even colour space."""
    cones = np.clip(colors, 0, 1) @ np.transpose(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    return np.cbrt(cones) @ np.transpose(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )


@pytest.mark.parametrize("eye", EYES)
def test_no_two_words_look_alike_to_any_eye(eye):
    words = [*CANONICAL, *FURTHER, "proud", "relieved"]
    colors = [*emotion_colors(words).values()]
    assert len({*colors}) == len(words)
    rgb = np.array([[int(c[n : n + 2], 16) for n in (1, 3, 5)] for c in colors])
    linear = ((rgb / 255 + 0.055) / 1.055) ** 2.4  # all are light enough
    seen = oklab(linear @ np.transpose(EYES[eye]))
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    apart[np.diag_indices(len(seen))] = np.inf
    assert apart.min() > 0.05  # 0.02 is just seen


def test_a_word_keeps_its_colour():
    known = emotion_colors([*CANONICAL, "bored", "guilty"])
    assert emotion_colors(["guilty"])["guilty"] == known["guilty"]
    assert emotion_colors(["Boredom "])["Boredom "] == known["bored"]
    assert known["guilty"] not in [known[word] for word in CANONICAL]
    looks = styles(["guilty", "sad", "proud"])
    assert looks["sad"] == styles(["sad"])["sad"]
    assert len({marker for _, marker in looks.values()}) == 3
    many = [f"w{n}" for n in range(30)]
    colors = emotion_colors(many)
    assert [*colors] == many and len({*colors.values()}) == 15
    # Of one emotion in two spellings one alone has the emotion's
    assert len({*emotion_colors(["bored", "boredom"]).values()}) == 2
