"""Speech is where silero-vad says it is, in whatever blocks it comes."""

from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from babble import babble, pause

from speechbrain_mser.errors import InputError
from speechbrain_mser.timeline import speech
from speechbrain_mser.timeline.speech import (
    FRAME,
    SpeechFinder,
    SpeechNetwork,
    SpeechRule,
)
from speechbrain_mser.timeline.turns import TurnFinder, read_turns

RATE = 16000


@pytest.fixture(scope="module")
def call():
    """Speech from second 0.5 to 3.5 and from 4.5 to 6.5."""
    parts = pause(0.5), babble(3, 1), pause(1), babble(2, 4), pause(1)
    sound = np.concatenate(parts)
    return sound[: len(sound) // FRAME * FRAME]


def random_parts(n, rng, at_most=20):
    """Where to cut so many frames."""
    cuts = np.cumsum(rng.integers(1, at_most + 1, n))
    return [0, *cuts[cuts < n].tolist(), n]


def test_it_is_the_packages_own_network(call):
    package = Path(find_spec("silero_vad").origin).parent
    theirs = torch.jit.load(package / "data" / "silero_vad.jit")
    with torch.no_grad():
        expected = [
            theirs(frame, RATE).item()
            for frame in torch.from_numpy(call).split(FRAME)
        ]
    heard = SpeechNetwork()(call)
    np.testing.assert_allclose(heard, expected, atol=1e-5)
    assert (heard > 0.5).mean() > 0.4


def test_it_does_not_touch_the_processs_threads(call):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        SpeechFinder()(call[: 10 * FRAME])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_the_rule_is_the_packages_own():
    from silero_vad.utils_vad import get_speech_timestamps_from_probs

    rng = np.random.default_rng(0)
    n_regions = 0
    for _ in range(50):
        # Stretches of speech and of none, with some dips and clicks
        lengths = rng.integers(1, 40, 20)
        level = np.repeat(rng.choice([0.05, 0.4, 0.9], 20), lengths)
        heard = np.clip(level + rng.normal(0, 0.1, len(level)), 0, 1)
        heard = np.concatenate([heard, np.zeros(40)])
        expected = get_speech_timestamps_from_probs(
            heard,
            min_speech_duration_ms=250,
            min_silence_duration_ms=500,
            speech_pad_ms=100,
        )
        rule, cuts = SpeechRule(), random_parts(len(heard), rng)
        spans = []
        for first, last in pairwise(cuts):
            spans += rule(heard[first:last])
        ended = [span for span in spans if span.ended]
        assert [(s.start, s.end) for s in ended] == [
            (one["start"], one["end"]) for one in expected
        ]
        # What was said to be speech stays speech
        for span in spans:
            whole = next(s for s in ended if s.start == span.start)
            assert span.end <= whole.end
        n_regions += len(ended)
    assert n_regions > 100


def test_regions_are_where_the_sound_is(call):
    finder = SpeechFinder()
    spans = [span for span in finder(call) if span.ended] + finder.close()
    ends = [second for s in spans for second in (s.start, s.end)]
    np.testing.assert_allclose(
        np.array(ends) / RATE, [0.5, 3.5, 4.5, 6.5], atol=0.35
    )


def test_the_end_cuts_speech_off():
    rule = SpeechRule()
    [going_on] = rule([0.9] * 20)
    [cut] = rule.close(20 * FRAME - 100)
    assert not going_on.ended and cut.ended
    assert (cut.start, cut.end) == (0, 20 * FRAME - 100)
    assert SpeechRule().close() == []


@pytest.mark.parametrize(
    ("name", "value"), [("threshold", 0), ("threshold", 1.5), ("pause", 0.1)]
)
def test_settings_that_are_none_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        SpeechRule(**{name: value})


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(speech, "find_spec", lambda name: None)
    speech._load_weights.cache_clear()
    with pytest.raises(InputError, match="the extra 'timeline'"):
        SpeechFinder()


@pytest.fixture
def rttm(tmp_path):
    """Writes lines to a file; gives its path."""

    def write(*lines):
        path = tmp_path / "call.rttm"
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


def test_turns_are_read_by_speaker_and_joined(rttm):
    path = rttm(
        ";; a comment",
        "SPKR-INFO call 1 <NA> <NA> <NA> unknown anna <NA> <NA>",
        "SPEAKER call 1 2.0 1.0 <NA> <NA> bert <NA> <NA>",
        "SPEAKER call 1 0.5 1.0 <NA> <NA> anna <NA> <NA>",
        "",
        "SPEAKER call 1 1.2 0.8 <NA> <NA> anna <NA> <NA>",
    )
    assert read_turns(path) == {
        "anna": [(8000, 32000)],
        "bert": [(32000, 48000)],
    }


GOOD = "SPEAKER call 1 0.5 1.0 <NA> <NA> anna <NA> <NA>"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "nobody's turn"),
        (["SPEAKER call 1 0.5"], "line 1: 4 columns"),
        ([GOOD, "0.5 1.0 anna"], "line 2: it begins with '0.5'"),
        ([GOOD.replace("0.5", "soon")], "'soon' and '1.0' are no start"),
        ([GOOD.replace("0.5", "nan")], "a turn at nan s"),
        ([GOOD.replace("0.5", "-1")], "a turn at -1 s"),
        ([GOOD.replace("1.0", "inf")], "of inf s"),
        ([GOOD.replace("1.0", "0")], "of 0 s"),
        ([GOOD.replace("1.0", "1e-9")], "of 1e-09 s"),
        ([GOOD.replace("0.5", "1e308").replace("1.0", "1e308")], "at 1e.308 s"),
        (
            [GOOD, GOOD.replace("call", "other")],
            r"turns of 2 recordings \(call, other\): give the lines of one",
        ),
    ],
)
def test_what_is_no_rttm_is_refused_by_the_line(rttm, lines, message):
    with pytest.raises(InputError, match=message):
        read_turns(rttm(*lines))


def test_of_several_recordings_turns_those_of_the_one_are_taken(rttm, caplog):
    others = [
        GOOD.replace("call", name).replace("0.5", "9")
        for name in ("a", "b", "calls", "other_call")
    ]
    path = rttm(others[0], GOOD, *others[1:])
    assert read_turns(path, "/some/where/call.wav") == {"anna": [(8000, 24000)]}
    assert read_turns(path, "other call.mp3") == {"anna": [(144000, 160000)]}
    assert not caplog.text
    message = r"5 recordings \(a, b, call, \.\.\.\), none of them 'Call'"
    with pytest.raises(InputError, match=message):
        read_turns(path, "Call.wav")


def test_turns_of_one_other_name_are_taken_and_said(rttm, caplog):
    path = rttm(GOOD)
    assert read_turns(path, "second.wav") == read_turns(path)
    (record,) = caplog.records
    assert record.message == (
        f"{path}: its turns are of 'call', and are taken for those of 'second'"
    )


def test_an_rttm_that_is_no_text_or_not_there_is_refused(tmp_path):
    (tmp_path / "a.rttm").write_bytes(b"\xff\xfe\x00")
    for name in ("a.rttm", "b.rttm"):
        with pytest.raises(InputError, match=name):
            read_turns(tmp_path / name)


def test_turns_beyond_the_end_are_cut_or_refused():
    finder = TurnFinder([(0, RATE), (2 * RATE, 3 * RATE)], "anna")
    finder(np.zeros(2 * RATE))
    [cut] = finder.close(int(2.6 * RATE))
    assert (cut.end, cut.ended) == (int(2.6 * RATE), True)
    finder = TurnFinder([(5 * RATE, 6 * RATE)], "anna")
    with pytest.raises(InputError, match=r"from 5\.00 to 6\.00 s"):
        finder.close(2 * RATE)
