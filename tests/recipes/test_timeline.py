"""A recording's timeline is its stream's, whoever holds it and in what blocks."""

import io
import os
import runpy
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from babble import babble, pause

from speechbrain_mser.dataio.audio import load_audio
from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.calibration import Calibration
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.timeline import EmotionStream, make_timeline

EXAMPLE = Path(__file__).parents[2] / "docs/examples/microphone.py"
RATE = 16000
# So that a few seconds have many windows
FINE = {"window": 1.0, "hop": 0.25}


@pytest.fixture(scope="module")
def loaded(folder):
    return EmotionRecognizer.from_hparams(folder)


@pytest.fixture
def recognizer(loaded):
    loaded.forget()
    return loaded


@pytest.fixture(scope="module")
def call():
    """Speech from 0.5 to 3.5 s and from 4.5 to 6.5 s."""
    parts = pause(0.5), babble(3, 1), pause(1), babble(2, 4), pause(0.9)
    return np.concatenate(parts)


@pytest.fixture
def rttm(tmp_path):
    """Writes speakers' turns, ``(name, start, end)``; gives the file."""

    def write(*turns):
        path = tmp_path / "call.rttm"
        path.write_text(
            "".join(
                f"SPEAKER call 1 {a} {b - a} <NA> <NA> {name} <NA> <NA>\n"
                for name, a, b in turns
            )
        )
        return path

    return write


def segments_of(recognizer, source, **settings):
    return make_timeline(
        recognizer, source, progress=False, **{**FINE, **settings}
    ).segments


def streamed(recognizer, blocks, **settings):
    stream = EmotionStream(recognizer, **{**FINE, **settings})
    found = [segment for block in blocks for segment in stream.push(block)]
    found += stream.close()
    return sorted(found, key=lambda one: (one.start, one.speaker or ""))


def rows_of(segments):
    return np.array([[*one.probabilities.values()] for one in segments])


def test_speech_is_covered_and_nothing_else(recognizer, call):
    timeline = recognizer.timeline(call, progress=False, **FINE)
    assert timeline.duration == pytest.approx(len(call) / RATE)
    assert timeline.labels == recognizer.labels()
    assert len(timeline.segments) >= 2
    for before, after in zip(
        timeline.segments[:-1], timeline.segments[1:], strict=True
    ):
        assert before.end <= after.start
    covered = sum(one.end - one.start for one in timeline.segments)
    assert covered == pytest.approx(5, abs=0.7)
    np.testing.assert_allclose(rows_of(timeline.segments).sum(1), 1)


@pytest.mark.parametrize("settings", [{}, {"delay": 0, "listen": 1.0}])
def test_it_does_not_matter_in_which_blocks_it_comes(
    recognizer, call, settings
):
    expected = segments_of(recognizer, call, **settings)
    rng = np.random.default_rng(0)
    for _ in range(10):  # times two
        n_cuts = int(rng.integers(0, 200))
        cuts = np.sort(rng.integers(0, len(call) + 1, n_cuts))
        blocks = np.split(call, cuts)
        assert streamed(recognizer, blocks, **settings) == expected


def test_it_does_not_matter_who_holds_it(recognizer, call, tmp_path):
    path = tmp_path / "call.wav"
    soundfile.write(path, call, RATE, subtype="FLOAT")
    expected = segments_of(recognizer, path)
    assert expected
    for source in (
        *(str(path), call, torch.from_numpy(call), path.read_bytes()),
        *(io.BytesIO(path.read_bytes()), iter(np.array_split(call, 9))),
        load_audio(path),
    ):
        assert segments_of(recognizer, source) == expected


def test_any_rate_and_number_of_channels_is_heard(recognizer, call, tmp_path):
    path = tmp_path / "call.wav"
    sound = np.repeat(np.stack([call, call], 1), 2, axis=0)
    soundfile.write(path, sound, 2 * RATE)
    found = segments_of(recognizer, path)
    expected = segments_of(recognizer, load_audio(path))
    assert found == expected
    assert segments_of(recognizer, sound, sample_rate=2 * RATE)[0].emotion


def test_what_comes_later_changes_nothing_before(recognizer, call):
    stream = EmotionStream(recognizer, **FINE, delay=0, listen=0)
    early = stream.push(call)
    assert early
    more = np.concatenate([call, babble(3, 5), pause(1)])
    assert (
        streamed(recognizer, [more], delay=0, listen=0)[: len(early)] == early
    )


def test_a_turn_is_a_segment_as_the_recogniser_hears_it(recognizer, call, rttm):
    # A turn that is one window: nothing is smoothed.
    turns = [("anna", 0.5, 1.5), ("bert", 1.25, 2.25), ("anna", 2.5, 3.5)]
    path = rttm(*turns)
    found = segments_of(recognizer, call, speakers=path, listen=False)
    assert [(s.speaker, s.start, s.end) for s in found] == turns
    wavs = torch.stack(
        [
            torch.from_numpy(call[int(a * RATE) : int(b * RATE)])
            for _, a, b in turns
        ]
    )
    expected = recognizer.recognize_batch(wavs)[1].exp()
    np.testing.assert_allclose(rows_of(found), expected, atol=1e-5)
    # Each as after listening to all windows of the same speaker
    found = segments_of(recognizer, call, speakers=path)
    for name in ("anna", "bert"):
        own = [n for n, (who, *_) in enumerate(turns) if who == name]
        recognizer.forget()
        heard = recognizer.listen(list(wavs[own]))
        expected = recognizer.recognize_batch(wavs[own])[1].exp()
        np.testing.assert_allclose(rows_of(found)[own], expected, atol=1e-5)
        recognizer.forget()
    stream = EmotionStream(recognizer, speakers=path, **FINE)
    stream.push(call)
    stream.close()
    torch.testing.assert_close(stream.heard["bert"].total, heard.total)


@pytest.mark.parametrize("kappas", [(), (0.5, 1.0)])
def test_what_was_listened_to_before_is_where_it_begins(
    recognizer, call, rttm, kappas
):
    path = rttm(("anna", 0.5, 1.5))
    window = torch.from_numpy(call[8000:24000])
    room = [0.1 * torch.randn(RATE) for _ in range(3)]
    recognizer.adapt(recognizer.listen(room), *kappas)
    plain = segments_of(recognizer, call, speakers=path, listen=False)
    expected = recognizer.recognize_batch(window[None])[1].exp()
    np.testing.assert_allclose(rows_of(plain), expected, atol=1e-5)
    found = segments_of(recognizer, call, speakers=path)
    assert recognizer.heard.utterances == 3  # a timeline leaves no trace
    recognizer.listen(window)
    expected = recognizer.recognize_batch(window[None])[1].exp()
    np.testing.assert_allclose(rows_of(found), expected, atol=1e-5)


def test_first_a_speaker_is_heard_then_recognised(recognizer, rttm):
    sound = babble(12, 1)
    path = rttm(("anna", 0, 12))
    given = {}
    for listen in (0, 4):
        stream = EmotionStream(
            recognizer, speakers=path, listen=listen, delay=0, **FINE
        )
        for second in range(12):
            block = sound[second * RATE : (second + 1) * RATE]
            # Of segments, runs, and what waits: where anything was decided
            stream.push(block)
            [anna] = stream._speakers
            if anna.smoother.begin is not None:
                given.setdefault(listen, second + 1)
    assert given[0] <= 2 and 4 <= given[4] <= 6


def test_channels_are_speakers(recognizer, call):
    other = np.concatenate([pause(3.6), babble(2, 2), pause(3)])[: len(call)]
    found = segments_of(
        recognizer, np.stack([call, other], 1), speakers="channels"
    )
    for number, one in enumerate((call, other), start=1):
        own = [s for s in found if s.speaker == f"channel {number}"]
        alone = segments_of(recognizer, one)
        assert [(s.start, s.end) for s in own] == [
            (s.start, s.end) for s in alone
        ]
        np.testing.assert_allclose(rows_of(own), rows_of(alone), atol=1e-5)


def test_labels_and_calibration_are_the_recognisers(recognizer, call):
    found = recognizer.timeline(
        call, ["bored", "excited"], progress=False, **FINE
    )
    assert found.labels == ["bored", "excited"]
    assert all([*s.probabilities] == found.labels for s in found.segments)
    with pytest.raises(InputError, match="no calibration"):
        recognizer.timeline(call, calibration="temperature")


def test_a_temperature_moves_no_segment(recognizer, call, monkeypatch):
    raw = segments_of(recognizer, call, labels=["sad", "angry", "happy"])
    fitted = Calibration(4.0, 4.0, {})
    monkeypatch.setattr(recognizer, "_calibration", fitted)
    found = segments_of(
        *(recognizer, call),
        **{"labels": ["sad", "angry", "happy"], "calibration": "temperature"},
    )
    assert [(s.start, s.end, s.emotion) for s in found] == [
        (s.start, s.end, s.emotion) for s in raw
    ]
    powers = rows_of(raw) ** 0.25
    expected = powers / powers.sum(1, keepdims=True)
    np.testing.assert_allclose(rows_of(found), expected, rtol=1e-9)


@pytest.mark.parametrize("seconds", [0.01, 0.3, 3])
def test_where_nobody_speaks_there_is_no_segment(recognizer, seconds):
    for sound in (pause(seconds), np.zeros(int(seconds * RATE), np.float32)):
        timeline = recognizer.timeline(sound, progress=False)
        assert timeline.segments == [] and timeline.speakers == []
        assert timeline.duration == pytest.approx(seconds)


def test_digital_silence_in_a_turn_is_no_emotion(recognizer, rttm, caplog):
    sound = np.concatenate([babble(2, 1), np.zeros(2 * RATE, np.float32)])
    path = rttm(("anna", 0, 4))
    found = segments_of(recognizer, sound, speakers=path, window=1.0, hop=1.0)
    assert found[-1].end == 2
    assert "2.00 to 3.00 s of anna: all samples are zero" in caplog.text


def test_what_it_holds_does_not_grow(recognizer, rttm):
    stream = EmotionStream(
        recognizer, ["angry"], rttm(("anna", 0, 130)), listen=2, **FINE
    )
    sound, held, found = babble(10, 1), [], []
    for _ in range(13):
        for block in np.array_split(sound, 20):
            found += stream.push(block)
            [anna] = stream._speakers
            held.append((len(stream._audio), len(anna.queue)))
    audio, waiting = np.max(held, axis=0)
    assert audio <= (1.25 + 0.5) * RATE and waiting <= 17
    # A minute of one emotion is given, though it goes on.
    assert [(s.start, s.end) for s in found] == [(0, 60), (60, 120)]
    found = stream.close()
    assert [(s.start, s.end) for s in found] == [(120, 130)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"speakers": "nowhere.rttm"}, "nowhere.rttm: there is no such file"),
        ({"speakers": "channels"}, "1 channels; speakers by channels need"),
        ({"window": 0}, "window is 0, expected 0.5 to 30 seconds"),
        ({"hop": 5}, "hop is 5, expected 0.1 to 1 seconds"),
        ({"hop": True}, "hop is True"),
        ({"delay": -1}, "delay"),
        ({"listen": "yes"}, "listen is 'yes'"),
        ({"threshold": 2}, "threshold is 2"),
        ({"labels": []}, "label"),
        ({"source": np.full(RATE, np.nan)}, "NaN"),
        ({"source": b"RIFF"}, "cannot be decoded"),
        ({"source": "nowhere.wav"}, "nowhere.wav: no such file"),
    ],
)
def test_what_cannot_be_used_is_said(recognizer, call, settings, message):
    with pytest.raises(InputError, match=message):
        segments_of(recognizer, settings.pop("source", call), **settings)


def test_three_channels_are_no_call(recognizer, call):
    three = np.stack([call] * 3, 1)
    with pytest.raises(InputError, match="3 channels; speakers by channels"):
        segments_of(recognizer, three, speakers="channels")


def test_turns_of_another_recording_are_refused(
    recognizer, call, rttm, tmp_path, monkeypatch
):
    path = rttm(("anna", 0, 1), ("bert", 50, 60))
    with pytest.raises(InputError, match=r"a turn of bert from 50\.00"):
        segments_of(recognizer, call, speakers=path)
    # Of a file that says how long it is, before it is listened to
    soundfile.write(tmp_path / "call.wav", call, RATE)
    monkeypatch.delattr(EmotionStream, "push")
    with pytest.raises(InputError, match=r"a turn of bert from 50\.00"):
        segments_of(recognizer, tmp_path / "call.wav", speakers=path)


def test_a_file_is_looked_at_by_its_own_name_alone(
    recognizer, call, rttm, tmp_path, monkeypatch
):
    """No other that is called as an array is, and by a name that is no text."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("audio", call[:RATE], RATE, format="WAV")
    path = rttm(("anna", 2, 3))
    assert segments_of(recognizer, call, speakers=path)
    odd = os.fsdecode(b"caf\xe9.wav")
    with open(odd, "wb") as file:
        soundfile.write(file, call, RATE, format="WAV")
    found = recognizer.timeline(odd, speakers=path, progress=False, **FINE)
    assert found.source == odd and len(found.segments)


def test_a_block_that_is_refused_is_as_if_it_had_not_come(recognizer, call):
    expected = streamed(recognizer, [call])
    stream = EmotionStream(recognizer, **FINE)
    found = stream.push(call[:50000])
    for bad in (np.full(9, np.nan), np.zeros(9, int), np.zeros((9, 2))):
        with pytest.raises(InputError):
            stream.push(bad)
    found += stream.push(call[50000:]) + stream.close()
    assert found == expected
    assert stream.close() == []
    with pytest.raises(InputError, match="closed"):
        stream.push(call)


def test_the_microphones_example_says_what_it_hears(
    recognizer, call, monkeypatch, capsys
):
    """All but the microphone itself, which no test has."""
    blocks = np.array_split(call[:, None], 20)

    class Microphone:
        def __init__(self, rate, channels):
            assert (rate, channels) == (RATE, 1)

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *_: False  # noqa: E731

        def read(self, _):
            if not blocks:
                raise KeyboardInterrupt
            return blocks.pop(0), False

    device = ModuleType("sounddevice")
    device.InputStream = Microphone
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    monkeypatch.setattr(
        EmotionRecognizer, "from_hparams", lambda source: recognizer
    )
    runpy.run_path(str(EXAMPLE))["main"](["angry", "sad"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] in ("angry", "sad") for line in lines] == [True] * 2
