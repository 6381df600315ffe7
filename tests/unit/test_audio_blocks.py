"""Audio read in blocks has the samples that it has as a whole."""

import io
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_mser.dataio import audio_blocks
from speechbrain_mser.dataio.audio import load_samples
from speechbrain_mser.dataio.audio_blocks import read_blocks
from speechbrain_mser.errors import InputError

RATE = 16000


def whole(source, *arguments, **settings):
    return np.concatenate([*read_blocks(source, *arguments, **settings)])


def noise(seconds, rate, channels=1, seed=0):
    """``[time, channel]``."""
    rng = np.random.default_rng(seed)
    size = int(seconds * rate) + 5, channels
    return 0.1 * rng.standard_normal(size).astype(np.float32)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Several blocks in two seconds."""
    monkeypatch.setattr(audio_blocks, "MIXED", 12345)


@pytest.mark.parametrize(
    ("kind", "rate", "channels"),
    [
        *(("wav", 16000, 1), ("wav", 44100, 2), ("flac", 48000, 6)),
        *(("ogg", 22050, 6), ("wav", 8000, 1), ("mp3", 44100, 1)),
    ],
)
def test_a_file_has_the_samples_of_load_audio(tmp_path, kind, rate, channels):
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, noise(2, rate, channels), rate)
    # Sums over six channels, and MP3's decoder, round otherwise in pieces.
    np.testing.assert_allclose(whole(path), load_samples(path), atol=2e-7)


def test_a_container_has_them_too(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="stereo")
        sound = noise(2, 44100, 2).T.copy()
        for first in range(0, sound.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(
                sound[:, first : first + 1024].copy(), "fltp", "stereo"
            )
            frame.sample_rate, frame.pts = 44100, first
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    np.testing.assert_array_equal(whole(path), load_samples(path))


def test_joined_recordings_follow_on_each_other(tmp_path):
    path = tmp_path / "a.ogg"
    for seed in range(2):
        part = io.BytesIO()
        soundfile.write(part, noise(1, RATE, seed=seed), RATE, format="OGG")
        with path.open("ab") as file:
            file.write(part.getvalue())
    np.testing.assert_allclose(whole(path), load_samples(path), atol=1e-6)


def test_channels_that_cancel_are_one_channel(tmp_path):
    path, sound = tmp_path / "a.wav", noise(2, RATE)
    soundfile.write(path, np.hstack([sound, -sound]), RATE, subtype="FLOAT")
    np.testing.assert_array_equal(whole(path), load_samples(path))
    assert np.abs(whole(path)).max() > 0.1


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("channels", [1, 2])
def test_it_does_not_matter_who_holds_the_samples(tmp_path, rate, channels):
    path, sound = tmp_path / "a.wav", noise(2, rate, channels)
    soundfile.write(path, sound, rate, subtype="FLOAT")
    expected = whole(path)
    with path.open("rb") as file:
        np.testing.assert_array_equal(whole(file), expected)
    np.testing.assert_array_equal(whole(path.read_bytes()), expected)
    cuts = np.unique(np.random.default_rng(1).integers(1, len(sound), 30))
    blocks = [sound[a:b] for a, b in pairwise([0, *cuts, len(sound)])]
    backwards = sound[::-1][::-1].astype(">f4")
    for held in (sound, torch.from_numpy(sound), backwards, iter(blocks)):
        np.testing.assert_array_equal(whole(held, rate), expected)


def test_channels_are_kept_where_they_are_speakers(tmp_path):
    path, sound = tmp_path / "a.wav", noise(2, RATE, 2)
    soundfile.write(path, sound, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(whole(path, mono=False), sound)


def test_a_block_at_a_time_is_held():
    def endless():
        while True:
            yield noise(0.1, 44100)[:, 0]

    blocks = read_blocks(endless(), 44100)
    assert max(len(next(blocks)) for _ in range(20)) <= 12345


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "the file is empty"),
        (b"no audio at all" * 9, "cannot be decoded as audio"),
        (io.StringIO("text"), "open it for bytes"),
        (np.zeros(0, np.float32), "not one sample"),
        ([], "not one sample"),
        (np.zeros((2, 16000), np.float32), "transpose"),
        (np.zeros((5, 2, 2), np.float32), "of shape"),
        (np.zeros(5, np.int16), "of int16; signals are"),
        ([[0.1, 0.2]], "a block is a list"),
        (5, "a int; a path, bytes"),
        (np.full(9, np.nan), "9 of 9 samples are NaN"),
        (np.full(9, 3e4), "where full scale is 1"),
        ("nowhere.wav", "nowhere.wav: no such file"),
    ],
)
def test_what_is_no_audio_is_refused(source, message):
    with pytest.raises(InputError, match=message):
        whole(source)


@pytest.mark.parametrize("rate", [0, 16000.0, "16000", True, 10**9])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(InputError, match=r"sample.rate"):
        whole(np.zeros(9), rate)


def test_a_change_of_channels_is_refused_where_they_are_speakers():
    blocks = [noise(1, RATE, n) for n in (2, 3)]
    assert len(whole(blocks)) == 2 * (RATE + 5)
    with pytest.raises(InputError, match="2 channels, then 3"):
        whole(blocks, mono=False)


def test_a_truncated_file_is_no_shorter_recording(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(3, RATE), RATE)
    path.write_bytes(path.read_bytes()[:-20000])
    with pytest.raises(InputError, match=r"a\.flac: .*(truncated|decoded)"):
        whole(path)
