"""Speech is cut into windows, and what they say smoothed by the stated rule."""

from itertools import pairwise

import numpy as np
import pytest

from speechbrain_mser.timeline import windows
from speechbrain_mser.timeline.speech import Span
from speechbrain_mser.timeline.windows import Cutter, End, Smoother


def cut(start, end, window, hop, pieces=1):
    """Windows and the end of one region, known piece by piece."""
    cutter, items = Cutter(window, hop), []
    for known in np.linspace(start, end, pieces + 1).astype(int)[1:-1]:
        items += cutter(Span(start, int(known), False))
    return items + cutter(Span(start, end, True))


def smooth(items, probabilities, window, hop):
    """Segments of windows with these probabilities."""
    smoother, found, rows = Smoother(window, hop), [], iter(probabilities)
    for item in items:
        if isinstance(item, End):
            found += smoother.end(item)
        else:
            found += smoother.add(item, next(rows))
    return found


def naively(items, probabilities, window, hop):
    """The same, of a region known as a whole, sample by sample."""
    parts = [item for item in items if not isinstance(item, End)]
    start, end = parts[0].start, items[-1].end
    starts = [start, *range(start + hop, end, hop)]
    if len(starts) > 1 and end - starts[-1] < hop / 2:
        starts.pop()
    cells = []
    for first, last in zip(starts, [*starts[1:], end], strict=True):
        rows = [
            row
            for sample in range(first, last)
            for part, row in zip(parts, probabilities, strict=True)
            if part.start <= sample < part.end
        ]
        cells.append((first, last, np.mean(rows, axis=0)))
    found = []
    for first, last, mean in cells:
        if found and found[-1][2][-1].argmax() == mean.argmax():
            found[-1][1] = last
            found[-1][2] += [mean] * (last - first)
        else:
            found.append([first, last, [mean] * (last - first)])
    return [(a, b, np.mean(rows, axis=0)) for a, b, rows in found]


def test_windows_cover_speech_and_no_more():
    rng = np.random.default_rng(0)
    for _ in range(200):
        window = int(rng.integers(1, 12))
        hop = int(rng.integers(1, window + 1))
        start = int(rng.integers(0, 30))
        end = start + int(rng.integers(1, 60))
        items = cut(start, end, window, hop)
        *parts, last = items
        assert last.end == end
        covered = {s for p in parts for s in range(p.start, p.end)}
        assert covered == set(range(start, end))
        assert {p.end - p.start for p in parts} == {min(window, end - start)}
        assert len({p.start for p in parts}) == len(parts)
        # Known bit by bit it is the same.
        assert cut(start, end, window, hop, pieces=7) == items
        # Those that are heard do not overlap.
        heard = [p for p in parts if p.heard]
        assert all(a.end <= b.start for a, b in pairwise(heard))
        assert heard[0].start == start


def test_segments_are_those_of_the_rule_applied_naively():
    rng = np.random.default_rng(1)
    n_segments = 0
    for _ in range(200):
        window = int(rng.integers(1, 12))
        hop = int(rng.integers(1, window + 1))
        items = cut(5, 5 + int(rng.integers(1, 60)), window, hop)
        rows = rng.dirichlet([0.5] * 3, len(items) - 1)
        found = smooth(items, rows, window, hop)
        expected = naively(items, rows, window, hop)
        assert [one[:2] for one in found] == [one[:2] for one in expected]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one[2], other[2])
        n_segments += len(found)
    assert n_segments > 400


def test_a_change_is_where_it_was():
    # Forty seconds; windows say how much of them lay before second 17.
    items = cut(0, 400, window=40, hop=10)
    before = [np.clip((170 - part.start) / 40, 0, 1) for part in items[:-1]]
    rows = [np.array([one, 1 - one]) for one in before]
    (first, second) = smooth(items, rows, window=40, hop=10)
    assert (first[0], first[1], second[1]) == (0, 170, 400)


def test_a_single_odd_window_is_outvoted():
    items = cut(0, 400, window=40, hop=10)
    rows = [np.array([0.8, 0.2])] * (len(items) - 1)
    rows[15] = np.array([0.1, 0.9])
    [(start, end, mean)] = smooth(items, rows, window=40, hop=10)
    assert (start, end) == (0, 400)
    assert 0.75 < mean[0] < 0.8


def test_where_nothing_was_heard_there_is_no_segment():
    items = cut(0, 60, window=10, hop=10)
    rows = [np.array([1.0]), None, None, *[np.array([1.0])] * 3]
    found = smooth(items, rows, window=10, hop=10)
    assert [one[:2] for one in found] == [(0, 10), (30, 60)]
    silent = smooth(items, [None] * 6, window=10, hop=10)
    assert silent == []


def test_after_a_minute_a_segment_is_given(monkeypatch):
    monkeypatch.setattr(windows, "LONGEST", 100)
    items = cut(0, 350, window=20, hop=10)
    rows = [np.array([1.0])] * (len(items) - 1)
    found = smooth(items, rows, window=20, hop=10)
    assert [one[:2] for one in found] == [
        (0, 100),
        (100, 200),
        (200, 300),
        (300, 350),
    ]


@pytest.mark.parametrize("hop", [10, 5])
def test_a_segment_is_given_a_window_and_a_hop_after_its_end(hop):
    items = cut(0, 400, window=20, hop=hop)
    smoother = Smoother(20, hop)
    for item in items[:-1]:
        surely = np.eye(2)[int(item.start >= 200)]
        for start, end, _ in smoother.add(item, surely):
            assert start == 0
            assert item.end - end <= 20 + hop
            return
    raise AssertionError("never sure")
