"""mser timeline and mser find: every format, and the best places."""

import io
import json
import shutil
import sys

import jsonschema
import numpy as np
import pytest
import soundfile
from mser_output import IN_ROOMS, SCHEMAS, WORDS, lines

from speechbrain_mser.command.timeline import FORMATS
from speechbrain_mser.evaluation.calibration import FILE, Calibration
from speechbrain_mser.timeline import make_timeline

RATE = 16000
TURNS = """\
SPEAKER call 1 1.0 9.0 <NA> <NA> anna <NA> <NA>
SPEAKER call 1 12.5 20.0 <NA> <NA> ben <NA> <NA>
"""


@pytest.fixture
def call(tmp_path, tiny_corpus):
    """A recording of 33 seconds and its speakers' turns."""
    wavs = sorted((tiny_corpus / "corpora" / "tiny").glob("*.wav"))
    signals = [soundfile.read(wav)[0] for wav in wavs]
    signal = np.concatenate(signals * 3)[: 33 * RATE]
    soundfile.write(tmp_path / "call.wav", signal, RATE)
    (tmp_path / "call.rttm").write_text(TURNS)
    return tmp_path / "call.wav", tmp_path / "call.rttm"


@pytest.fixture
def made(recognizer, call):
    """What the library makes of it."""
    wav, rttm = call
    return make_timeline(recognizer, wav, speakers=rttm, progress=False)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_the_librarys(mser, call, made, tmp_path, form):
    wav, rttm = call
    asked = ("timeline", wav, "--rttm", rttm)
    code, out, _ = mser(*asked, "--format", form)
    assert code == 0 and out == made.to_text(form) and len(made.segments) > 1
    # By a file's name, where no format is named
    output = tmp_path / f"out.{form}"
    assert mser(*asked, "-o", output)[:2] == (0, "")
    assert output.read_text("utf-8") == out


def test_of_several_recordings_turns_those_of_this_one_are_taken(
    mser, call, made, tmp_path, caplog
):
    wav, _ = call
    several = tmp_path / "all.rttm"
    other = TURNS.replace("SPEAKER call", "SPEAKER other")
    several.write_text(other.replace("anna", "eve") + TURNS)
    code, out, _ = mser("timeline", wav, "--rttm", several)
    assert (code, out) == (0, made.to_text("json"))
    assert "turns" not in caplog.text
    several.write_text(other)
    code, out, _ = mser("timeline", wav, "--rttm", several)
    assert (code, out) == (0, made.to_text("json"))
    assert "its turns are of 'other', and are taken for those" in caplog.text


def test_json_is_as_its_schema_says_and_what_comes_by_default(mser, call):
    wav, rttm = call
    code, out, _ = mser("timeline", wav, "--rttm", rttm)
    said = json.loads(out)
    schema = json.loads((SCHEMAS / "timeline.json").read_text("utf-8"))
    jsonschema.validate(said, schema)
    assert code == 0 and said["duration"] == pytest.approx(33, abs=0.01)
    assert {one["speaker"] for one in said["segments"]} == {"anna", "ben"}


def test_settings_come_through(mser, call, recognizer, monkeypatch):
    wav, rttm = call
    wanted = make_timeline(
        *(recognizer, wav, ["bored", "proud"], rttm),
        **{"listen": False, "window": 2.0, "hop": 0.5, "progress": False},
    )
    arguments = ("--rttm", rttm, "--labels", "bored,proud", "--no-listen")
    arguments += ("--window", "2", "--hop", "0.5")
    assert mser("timeline", wav, *arguments)[1] == wanted.to_text("json")
    # From standard input, under no name
    stdin = io.TextIOWrapper(io.BytesIO(wav.read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    said = json.loads(mser("timeline", "-", *arguments)[1])
    assert said["segments"] == wanted.to_dict()["segments"]


def test_people_get_a_table_and_a_picture(mser, call, tmp_path, monkeypatch):
    wav, rttm = call
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    plot = tmp_path / "call.png"
    code, out, _ = mser("timeline", wav, "--rttm", rttm, "--plot", plot)
    first = out.splitlines()[0].split()
    assert code == 0 and first[0] == "1.0" and first[3] == "anna"
    assert first[4] in WORDS and plot.read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def calibrated(folder, recognizer, tmp_path):
    """The recogniser with a calibration of its own."""
    copy = tmp_path / "calibrated"
    shutil.copytree(folder, copy)
    Calibration(2.0, 2.0, {"sad": 1.0}, recognizer.describe()).save(copy / FILE)
    return copy


def test_probabilities_are_calibrated_where_the_recogniser_was(
    mser, call, calibrated, recognizer, tmp_path
):
    own = ("--recognizer", calibrated)
    raw = (*own, "--calibration", "none")
    short = tmp_path / "short.wav"
    soundfile.write(short, soundfile.read(call[0])[0][: 2 * RATE], RATE)
    wanted, found = (
        lines(mser("recognize", short, *how, own=False)[1])[0]
        for how in (raw, own)
    )
    assert (wanted["calibration"], found["calibration"]) == (
        *("none", "temperature"),
    )
    assert found["emotion"] == wanted["emotion"]
    roots = {w: p**0.5 for w, p in wanted["probabilities"].items()}
    calm = {word: root / sum(roots.values()) for word, root in roots.items()}
    assert found["probabilities"] == pytest.approx(calm, abs=1e-5)
    # Of a recording in one window all three say the same
    asked = ("timeline", short, "--no-listen", *own)
    said = json.loads(mser(*asked, own=False)[1])
    assert said["calibration"] == "temperature"
    place, *_ = lines(mser("find", "sad", short, *own, own=False)[1], "find")
    assert place["calibration"] == "temperature"
    assert place["probability"] == found["probabilities"]["sad"]
    # Another's calibration is none, and that is said
    (calibrated / FILE).unlink()
    Calibration(2.0, 2.0, {}, {"connector": "0"}).save(calibrated / FILE)
    uncalibrated = lines(mser("recognize", short, *own, own=False)[1])[0]
    assert uncalibrated == wanted


def test_what_cannot_be_is_refused_before_hours_of_work(mser, call, tmp_path):
    wav, rttm = call
    text = tmp_path / "text.wav"
    text.write_text("no audio")
    for arguments, said in (
        ((wav, "--rttm", text), "line 1"),
        ((wav, "--speakers", "channels"), "channel"),
        ((wav, "--rttm", rttm, "--plot", "call.gif"), "ends in one of .png"),
        ((wav, "--rttm", rttm, "-o", tmp_path), "a folder"),
        ((wav, "--rttm", rttm, "--window", "99"), "window"),
        ((wav, "--rttm", rttm, "--calibration", "prior"), "calibration"),
        ((text,), "cannot be decoded"),
    ):
        code, out, errors = mser("timeline", *arguments)
        assert (code, out) == (2, "") and said in errors, errors


def test_the_best_places_of_a_word_are_ranked(mser, rooms, recognizer):
    code, out, errors = mser("find", "proud", rooms, "--top", "3")
    *best, bad = lines(out, "find")
    assert code == 3 and bad["path"] in errors and "error" in bad
    words = [*WORDS, "proud"]
    wanted = []
    for name in IN_ROOMS:
        if "broken" not in name:
            path = f"{rooms}/{name}"
            _, log_probs = recognizer.recognize_file(path, labels=words)
            wanted.append((log_probs[0, -1].exp().item(), path))
    wanted = sorted(wanted, reverse=True)[:3]
    assert [one["path"] for one in best] == [path for _, path in wanted]
    for one, (probability, path) in zip(best, wanted, strict=True):
        assert one["probability"] == pytest.approx(probability, abs=1e-5)
        assert (one["start"], one["word"]) == (0, "proud")
        seconds = soundfile.info(path).duration
        assert one["end"] == pytest.approx(seconds, abs=1e-3)
    # A word of its own is no further candidate
    code, out, _ = mser("find", "sad", rooms / "b.wav")
    _, log_probs = recognizer.recognize_file(rooms / "b.wav")
    (one,) = lines(out, "find")
    assert one["probability"] == pytest.approx(
        log_probs[0, 2].exp().item(), abs=1e-5
    )


def test_people_get_places_and_files(mser, rooms, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    _, out, _ = mser("find", "sad", rooms / "b.wav")
    assert len(out.splitlines()) == 1 and out.endswith("b.wav\n")
    assert out.split()[3] == "s"


@pytest.fixture
def rttm_of_find(tmp_path, monkeypatch):
    """Turns for mser find, which asks silero-vad: tones are no speech to it."""
    from speechbrain_mser import timeline

    def take(turns):
        path = tmp_path / "find.rttm"
        path.write_text(
            "".join(
                f"SPEAKER a 1 {start} {seconds} <NA> <NA> b <NA> <NA>\n"
                for start, seconds in turns
            )
        )

        def with_turns(*given, **named):
            return make_timeline(*given, speakers=path, **named)

        monkeypatch.setattr(timeline, "make_timeline", with_turns)

    return take


def test_long_recordings_are_looked_through(mser, rooms, call, rttm_of_find):
    """In the segments of their timeline; those of a file's own places."""
    wav, _ = call
    rttm_of_find([(1, 9), (12.5, 20)])
    code, out, _ = mser("find", "proud", wav, rooms / "b.wav", "--top", "99")
    places = lines(out, "find")
    assert code == 0 and len(places) > 2
    said = [one["probability"] for one in places]
    assert said == sorted(said, reverse=True)
    (whole,) = [one for one in places if one["path"].endswith("b.wav")]
    assert whole["start"] == 0
    spans = {(o["start"], o["end"]) for o in places if o is not whole}
    assert min(spans)[0] == 1.0 and max(end for _, end in spans) == 32.5


def test_a_place_has_the_number_of_the_same_audio_as_a_file(
    mser, call, tmp_path, rttm_of_find
):
    """In a long recording, which could be listened to, and cut out of it."""
    wav, _ = call
    rttm_of_find([(2, 4), (8, 3.5), (20, 4)])  # a window each, or less
    _, out, _ = mser("find", "happy", wav)
    places = lines(out, "find")
    assert len(places) == 3
    for place in places:
        cut, rate = soundfile.read(
            wav,
            start=round(place["start"] * RATE),
            stop=round(place["end"] * RATE),
        )
        soundfile.write(tmp_path / "cut.wav", cut, rate)
        (alone,) = lines(mser("find", "happy", tmp_path / "cut.wav")[1], "find")
        assert place["probability"] == pytest.approx(
            alone["probability"], abs=2e-6
        )
