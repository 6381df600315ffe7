"""Audio out of films: what is mixed, what is kept, what is dropped."""

import os
import subprocess
import sys

import av
import numpy as np
import pytest
import soundfile

from speechbrain_mser.dataio.decoding import decode
from speechbrain_mser.errors import InputError
from speechbrain_mser.preparation.audio_extraction import (
    Packed,
    extract_audio,
    extract_each,
)

SURROUND = ["FL", "FR", "FC", "LFE", "BL", "BR"]


def tone(frequency, seconds=0.5, rate=48000):
    time = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * frequency * time)


def write_film(path, channels, layout, rate=48000):
    """AAC in the container of the extension; ``channels`` as in layout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=rate, layout=layout)
        stream.bit_rate = 64000 * len(channels)
        samples = np.asarray(channels, dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(samples, "fltp", layout)
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path


def amplitude(samples, frequency, rate):
    """Of one frequency in a signal, by projection."""
    time = np.arange(len(samples)) / rate
    wave = np.exp(-2j * np.pi * frequency * time)
    return 2 * abs(np.mean(samples * wave))


@pytest.fixture
def films(tmp_path):
    return tmp_path / "films"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_the_target_is_16_khz_mono_flac_of_the_same_length(films, out):
    write_film(films / "a.mp4", [tone(440), tone(440)], "stereo")
    write_film(films / "b.m4a", [tone(440, rate=44100)], "mono", 44100)
    items = [("a.mp4", "x/a.flac"), ("b.m4a", "x/b.flac")]
    seconds, problems = extract_audio(films, items, out)
    assert problems == {}
    assert seconds == pytest.approx({"x/a.flac": 0.5, "x/b.flac": 0.5}, abs=0.1)
    for target in seconds:
        info = soundfile.info(out / target)
        assert (info.samplerate, info.channels) == (16000, 1)
        assert info.subtype == "PCM_16"
        assert info.frames / 16000 == pytest.approx(seconds[target], abs=1e-5)
        samples, rate = soundfile.read(out / target)
        assert amplitude(samples, 440, rate) == pytest.approx(0.5, rel=0.15)


def test_surround_is_mixed_as_ffmpeg_mixes_it(films):
    # A tone for each channel, so that each one's weight can be read off
    tones = dict(zip(SURROUND, (300, 500, 700, 60, 900, 1100), strict=True))
    film = write_film(
        films / "a.mp4", [tone(f, 2.0) for f in tones.values()], "5.1"
    )
    samples, rate = decode(film)
    heard = {
        name: amplitude(samples, frequency, rate)
        for name, frequency in tones.items()
    }
    # Of a sum of 1 + 2 x 0.707 + 2 x 0.5; each tone has amplitude 0.5
    assert heard["FC"] == pytest.approx(0.5 / 3.414, rel=0.1)
    assert heard["FL"] == pytest.approx(0.5 * 0.707 / 3.414, rel=0.1)
    assert heard["BR"] == pytest.approx(0.5 * 0.5 / 3.414, rel=0.1)
    assert heard["LFE"] < 0.005
    # FFmpeg's own mix, which for 16 bit is scaled in the same way
    resampler = av.AudioResampler("s16p", "mono", rate)
    with av.open(film) as container:
        blocks = [
            block.to_ndarray()[0]
            for frame in container.decode(audio=0)
            for block in resampler.resample(frame)
        ]
    theirs = np.concatenate(blocks) / 2**15
    np.testing.assert_allclose(samples, theirs, atol=2e-3)


def test_channels_and_rate_may_change_midway(films):
    parts = [
        write_film(films / "a.aac", [tone(440, 1.0)] * 2, "stereo"),
        write_film(films / "b.aac", [tone(440, 1.0)], "mono"),
        write_film(films / "c.aac", [tone(440, 1.0, 44100)], "mono", 44100),
    ]
    film = films / "all.aac"
    film.write_bytes(b"".join(part.read_bytes() for part in parts))
    samples, rate = decode(film)
    assert rate == 48000
    assert len(samples) / rate == pytest.approx(3.0, abs=0.15)
    for second in range(3):
        middle = samples[second * rate + 12000 : second * rate + 36000]
        assert amplitude(middle, 440, rate) == pytest.approx(0.5, rel=0.15)


def test_what_is_there_is_not_done_again_unless_its_source_changed(films, out):
    for name in "ab":
        write_film(films / f"{name}.mp4", [tone(440)], "mono")
    items = [("a.mp4", "a.flac"), ("b.mp4", "b.flac")]
    first = extract_audio(films, items, out)
    before = {path: path.stat() for path in out.iterdir()}
    write_film(films / "b.mp4", [tone(440, 0.8)], "mono")
    os.utime(films / "b.mp4", (2e9, 2e9))
    second = extract_audio(films, items, out)
    after = {path: path.stat() for path in out.iterdir()}
    same = {
        path.name: after[path].st_ino == before[path].st_ino for path in after
    }
    assert same == {"a.flac": True, "b.flac": False}
    assert second[0]["a.flac"] == first[0]["a.flac"]
    assert second[0]["b.flac"] == pytest.approx(0.8, abs=0.1)


def test_a_target_that_was_cut_off_is_made_again(films, out):
    write_film(films / "a.mp4", [tone(440)], "mono")
    items = [("a.mp4", "a.flac")]
    extract_audio(films, items, out)
    whole = (out / "a.flac").read_bytes()
    time = (films / "a.mp4").stat().st_mtime
    (out / "a.flac").write_bytes(b"")
    os.utime(out / "a.flac", (time, time))
    extract_audio(films, items, out)
    assert (out / "a.flac").read_bytes() == whole


def test_what_cannot_be_used_has_a_reason_and_leaves_nothing(films, out):
    write_film(films / "short.mp4", [tone(440, 0.03)], "mono")
    write_film(films / "silent.mp4", [0 * tone(440)], "mono")
    write_film(films / "whole.mp4", [tone(440, 3.0)], "mono")
    # The index of an mp4 is at its end: what breaks off cannot be opened
    content = (films / "whole.mp4").read_bytes()
    (films / "half.mp4").write_bytes(content[: len(content) // 2])
    (films / "page.mp4").write_text("<html>404</html>")
    (films / "empty.mp4").touch()
    with av.open(films / "mute.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 16
        frame = av.VideoFrame(16, 16, "yuv420p")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    names = ("short", "silent", "half", "page", "empty", "mute", "gone")
    items = [(f"{name}.mp4", f"{name}.flac") for name in names]
    seconds, problems = extract_audio(films, items, out)
    assert seconds == {}
    assert {name: text.split(":")[0] for name, text in problems.items()} == {
        "short.mp4": "too short",
        "silent.mp4": "silent",
        "half.mp4": "unreadable",
        "page.mp4": "unreadable",
        "empty.mp4": "empty",
        "mute.mp4": "unreadable",
        "gone.mp4": "unreadable",
    }
    assert problems["mute.mp4"] == "unreadable: the file has no audio stream"
    assert problems["gone.mp4"] == "unreadable: No such file or directory"
    assert not out.exists()


def test_packed_films_are_read_as_they_are_needed(films, out):
    film = write_film(films / "a.mp4", [tone(440)], "mono").read_bytes()
    taken = []

    def items():
        for number in range(40):
            taken.append(number)
            packed = Packed(f"a.tar.gz/{number}", film, 1e9)
            yield packed, f"{number:02d}.flac"

    found = extract_each("", items(), out, workers=2)
    assert next(found).source == "a.tar.gz/0"
    assert len(taken) <= 10
    assert [item.problem for item in found] == [""] * 39
    assert len([*out.iterdir()]) == 40
    assert {path.stat().st_mtime for path in out.iterdir()} == {1e9}


def test_results_come_in_order_whatever_the_number_of_processes(films, out):
    for number in range(6):
        seconds = 0.2 + 0.3 * (number % 3)
        write_film(films / f"{number}.mp4", [tone(440, seconds)], "mono")
    items = [(f"{number}.mp4", f"{number}.flac") for number in range(6)]
    one = [*extract_each(films, items, out / "one", workers=1)]
    three = [*extract_each(films, items, out / "three", workers=3)]
    assert one == three
    assert [item.source for item in one] == [source for source, _ in items]


@pytest.mark.parametrize(
    "target", ["../a.flac", "/a.flac", "a/../../a.flac", "a.wav", "a//b.flac"]
)
def test_a_target_stays_inside_its_folder(films, out, target):
    write_film(films / "a.mp4", [tone(440)], "mono")
    with pytest.raises(InputError, match="stay inside its folder"):
        extract_audio(films, [("a.mp4", target)], out)


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_film(films, out):
    write_film(films / "a.mp4", [tone(440)], "mono")
    out.write_text("a file in the place of the folder")
    with pytest.raises(InputError, match=f"{out}/x: a file is there or above"):
        extract_audio(films, [("a.mp4", "x/a.flac")], out)


def test_without_pyav_the_message_says_what_to_install(films):
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from speechbrain_mser.preparation.audio_extraction import extract_audio\n"
        "assert extract_audio('', [], '') == ({}, {})\n"
        "extract_audio('', [('a.mp4', 'a.flac')], '')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert "pip install av" in result.stderr.splitlines()[-1]


def test_torch_is_not_imported():
    code = (
        "import sys, speechbrain_mser.preparation.audio_extraction\n"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
