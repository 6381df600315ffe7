"""Audio: whatever the file, the same sound at 16 kHz, or a reason."""

import struct
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_mser.dataio import audio_limits, decoding
from speechbrain_mser.dataio.audio import AudioError, check_signal, load_audio
from speechbrain_mser.errors import InputError

FREQUENCY = 440


def tone(seconds=1.0, rate=16000, frequency=FREQUENCY, amplitude=0.5):
    """A sine, ``[time]``."""
    time = np.arange(round(seconds * rate)) / rate
    return amplitude * np.sin(2 * np.pi * frequency * time)


def dominant_frequency(signal, rate=16000):
    """Of ``[time]``, in Hz."""
    spectrum = np.abs(np.fft.rfft(np.asarray(signal) * np.hanning(len(signal))))
    return spectrum.argmax() * rate / len(signal)


def encode(path, codec, channels, rate, options=None):
    """Write ``[channel, time]`` into the container that the name asks for."""
    av = pytest.importorskip("av")
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(channels)]
    samples = np.asarray(channels, dtype=np.float32)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        for begin in range(0, samples.shape[1], 1024):
            block = np.ascontiguousarray(samples[:, begin : begin + 1024])
            frame = av.AudioFrame.from_ndarray(block, "fltp", layout)
            frame.sample_rate, frame.pts = rate, begin
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def with_data_size(path, size):
    """Make a WAV file's header promise so many bytes of audio."""
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(content)
    return path


def reason_of(path, *times):
    """Why a file is refused; the message begins with its path."""
    with pytest.raises(AudioError) as caught:
        load_audio(path, *times)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.fixture
def wav(tmp_path):
    """One second of a sine, 16 kHz, 16 bit, mono."""
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(), 16000)
    return path


@pytest.mark.parametrize(
    "rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000]
)
def test_pitch_and_duration_survive_any_rate(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(2.0, rate), rate)
    signal = load_audio(tmp_path / "a.wav")
    assert (signal.dtype, signal.shape) == (torch.float32, (32000,))
    assert dominant_frequency(signal) == pytest.approx(FREQUENCY, abs=1)
    assert signal.abs().max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("name", "subtype", "error"),
    [
        ("a.wav", "PCM_U8", 1 / 127),
        ("a.wav", "PCM_16", 1 / 32767),
        ("a.wav", "PCM_24", 1e-6),
        ("a.wav", "PCM_32", 1e-6),
        ("a.wav", "FLOAT", 1e-6),
        ("a.wav", "DOUBLE", 1e-6),
        ("a.wav", "ULAW", 0.02),
        ("a.flac", "PCM_16", 1 / 32767),
        ("a.flac", "PCM_24", 1e-6),
        ("a.aiff", "PCM_16", 1 / 32767),
    ],
)
def test_samples_are_those_written_up_to_their_depth(
    tmp_path, name, subtype, error
):
    soundfile.write(tmp_path / name, tone(), 16000, subtype)
    signal = load_audio(tmp_path / name)
    np.testing.assert_allclose(signal, tone(), atol=error)


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3"])
def test_lossy_files_keep_pitch_and_duration(tmp_path, name):
    soundfile.write(tmp_path / name, tone(2.0, 44100), 44100)
    signal = load_audio(tmp_path / name)
    assert dominant_frequency(signal) == pytest.approx(FREQUENCY, abs=1)
    assert len(signal) / 16000 == pytest.approx(2.0, abs=0.06)


def test_stereo_is_averaged_never_interleaved(tmp_path):
    left, right = tone(frequency=440), tone(frequency=1000, amplitude=0.2)
    stereo = np.stack([left, right], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 16000, "FLOAT")
    signal = load_audio(tmp_path / "a.wav")
    np.testing.assert_allclose(signal, (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("name", ["a.m4a", "a.mp4", "A.MP4", "a.mkv"])
@pytest.mark.parametrize(("rate", "n_channels"), [(44100, 1), (48000, 2)])
def test_containers_keep_pitch_and_duration(tmp_path, name, rate, n_channels):
    path = encode(tmp_path / name, "aac", [tone(2.0, rate)] * n_channels, rate)
    signal = load_audio(path)
    assert (signal.dtype, signal.ndim) == (torch.float32, 1)
    assert dominant_frequency(signal) == pytest.approx(FREQUENCY, abs=1)
    # AAC pads to whole frames, at most 1024 samples before and after
    assert len(signal) / 16000 == pytest.approx(2.0, abs=0.05)
    assert signal[4000:28000].abs().max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0.25, 0.75), (None, 0.5), (0.5, None), (0, 1), (0.123456, 0.654321)],
)
def test_start_and_stop_equal_slicing(tmp_path, wav, start, stop):
    """In a WAV, a FLAC, and a container, whose decoder cannot seek exactly."""
    flac = tmp_path / "a.flac"
    soundfile.write(flac, tone(), 16000)
    m4a = encode(tmp_path / "a.m4a", "aac", [tone()], 16000)
    first = None if start is None else round(start * 16000)
    last = None if stop is None else round(stop * 16000)
    for path in (wav, flac, m4a):
        whole = load_audio(path)
        assert torch.equal(load_audio(path, start, stop), whole[first:last])


def test_start_and_stop_are_seconds_at_any_rate(tmp_path):
    low_then_high = [tone(1.0, 44100, 440), tone(1.0, 44100, 1000)]
    soundfile.write(tmp_path / "a.wav", np.concatenate(low_then_high), 44100)
    signal = load_audio(tmp_path / "a.wav", 1.0, 1.5)
    assert signal.shape == (8000,)
    assert dominant_frequency(signal) == pytest.approx(1000, abs=2)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff"])
def test_16_bit_files_are_what_libsndfile_makes_of_them(tmp_path, name):
    """Bit for bit, the extremes too."""
    samples = np.arange(-(2**15), 2**15, dtype=np.int16)
    soundfile.write(tmp_path / name, samples, 16000, "PCM_16")
    expected, _ = soundfile.read(tmp_path / name, dtype="float32")
    signal = load_audio(tmp_path / name)
    np.testing.assert_array_equal(signal, expected)
    assert (signal.min(), signal.max()) == (-1, 1 - 2**-15)


@pytest.mark.parametrize("n_channels", [2, 3, 4, 5, 7, 9, 64])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_channels_without_places_are_averaged(tmp_path, n_channels, subtype):
    channels = np.random.default_rng(0).uniform(-1, 1, (16000, n_channels))
    soundfile.write(tmp_path / "a.wav", channels, 16000, subtype)
    written, _ = soundfile.read(tmp_path / "a.wav", dtype="float64")
    signal = load_audio(tmp_path / "a.wav")
    np.testing.assert_allclose(signal, written.mean(1), atol=1e-6)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_part_of_a_long_file_does_not_take_its_memory(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(60, rate), rate, "PCM_16")
    tracemalloc.start()
    signal = load_audio(tmp_path / "a.wav", 30, 31)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(signal) == 16000
    assert peak < 2e6  # one second in float64 and some more; a minute is 10 MB


@pytest.mark.parametrize("rate", [44100, 48000])
def test_what_16_khz_cannot_hold_is_gone_and_does_not_fold_back(tmp_path, rate):
    """A tone above 8 kHz is removed, one below keeps its level."""
    for frequency, level in ((9000, 0), (12000, 0), (15900, 0), (7000, 0.5)):
        soundfile.write(
            tmp_path / "a.wav",
            tone(1, rate, frequency) + 1e-3 * tone(1, rate, 100),
            rate,
            "FLOAT",
        )
        signal = load_audio(tmp_path / "a.wav")[2000:14000]
        assert signal.abs().max() == pytest.approx(level, abs=2e-3)


def test_a_stop_beyond_the_end_is_the_end(wav):
    assert torch.equal(load_audio(wav, 0.5, 99), load_audio(wav, 0.5))


def test_the_empty_times_of_a_manifest_mean_the_whole_file(tmp_path, wav):
    m4a = encode(tmp_path / "a.m4a", "aac", [tone()], 16000)
    nan = float("nan")
    for path in (wav, m4a):
        assert torch.equal(load_audio(path, nan, nan), load_audio(path))


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x80000000, 0x7FFFF000])
def test_a_streamed_wav_is_read(wav, size):
    """As ffmpeg and sox, or eSpeak NG, write to a pipe."""
    before = load_audio(wav)
    assert torch.equal(load_audio(with_data_size(wav, size)), before)


def test_a_streamed_flac_is_read(tmp_path):
    pytest.importorskip("av")
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(), 16000)
    before = load_audio(path)
    content = bytearray(path.read_bytes())
    # The 36 bits of STREAMINFO that count the samples: 0 is "unknown".
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert torch.equal(load_audio(path), before)
    assert torch.equal(load_audio(path, 0.5, 0.75), before[8000:12000])


def test_a_missing_file_is_refused(tmp_path):
    assert reason_of(tmp_path / "a.wav") == "no such file"


@pytest.mark.parametrize("name", ["folder.wav", "folder.mp4"])
def test_a_folder_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    assert "folder" in reason_of(tmp_path / name)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp4"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    assert reason_of(tmp_path / name) == "the file is empty (0 bytes)"


@pytest.mark.parametrize(
    "name", ["a.wav", "a.flac", "a.mp3", "a.txt", "a.raw", "a.mp4", "a.m4a"]
)
def test_text_is_refused_under_any_name(tmp_path, name):
    (tmp_path / name).write_text(
        "not audio at all, whatever it is called\n" * 9
    )
    assert "cannot be decoded as audio" in reason_of(tmp_path / name)


@pytest.mark.parametrize("lost", [2, 1000, 20000])
def test_a_truncated_wav_is_refused(wav, lost):
    wav.write_bytes(wav.read_bytes()[:-lost])
    assert reason_of(wav) == (
        "truncated: its header promises 32000 bytes of audio, the file holds "
        f"{32000 - lost}"
    )
    # also when the part asked for is there
    assert "truncated" in reason_of(wav, 0, 0.2)


@pytest.mark.parametrize("format", ["AIFF", "AU", "RF64", "W64"])
def test_other_truncated_pcm_files_are_refused(tmp_path, format):
    path = tmp_path / "a.audio"
    soundfile.write(path, tone(), 16000, "PCM_16", format=format)
    assert len(load_audio(path)) == 16000
    path.write_bytes(path.read_bytes()[:-8000])
    assert "truncated" in reason_of(path)


def test_a_truncated_flac_is_refused(tmp_path):
    path = tmp_path / "a.flac"
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(path, noise, 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reason = reason_of(path)
    assert "truncated" in reason or "cannot be decoded" in reason


@pytest.mark.parametrize("moov", ["at the end", "at the beginning"])
def test_a_truncated_mp4_is_refused(tmp_path, moov):
    options = {"movflags": "faststart"} if moov == "at the beginning" else {}
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 96000))
    path = encode(tmp_path / "a.mp4", "aac", noise, 48000, options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    assert "cannot be decoded" in reason_of(path)


@pytest.mark.parametrize(
    ("name", "depth"), [("a.wav", "PCM_16"), ("a.flac", None)]
)
def test_all_zero_audio_is_refused(tmp_path, name, depth):
    soundfile.write(tmp_path / name, np.zeros(16000), 16000, depth)
    assert reason_of(tmp_path / name).startswith("all 16000 samples are zero")


def test_a_muted_recording_is_refused_and_a_whisper_is_not(tmp_path):
    """Dither is a step of 16 bits; two are something that was said."""
    path = tmp_path / "a.wav"
    steps = np.random.default_rng(0).integers(-1, 2, 16000)
    soundfile.write(path, steps.astype(np.int16), 16000)
    assert reason_of(path).startswith("all 16000 samples are within 3.1e-05")
    soundfile.write(path, (2 * steps).astype(np.int16), 16000)
    assert len(load_audio(path)) == 16000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_audio_that_is_not_finite_is_refused(tmp_path, value):
    signal = tone()
    signal[[5, 100]] = value
    soundfile.write(tmp_path / "a.wav", signal, 16000, "FLOAT")
    reason = reason_of(tmp_path / "a.wav")
    assert reason == "2 of 16000 samples are NaN or infinite"


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_audio_of_50_ms_is_refused_and_of_100_ms_is_read(tmp_path, rate):
    soundfile.write(tmp_path / "short.wav", tone(0.05, rate), rate)
    reason = reason_of(tmp_path / "short.wav")
    assert reason == "0.050 s of audio; at least 0.1 s are needed"
    soundfile.write(tmp_path / "long.wav", tone(0.1, rate), rate)
    assert load_audio(tmp_path / "long.wav").shape == (1600,)


def test_a_wav_without_samples_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 16000)
    assert "the file has 0.00 s" in reason_of(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.m4a"])
@pytest.mark.parametrize(
    ("start", "stop", "reason"),
    [
        (5, None, r"no audio between 5 s and the end: the file has 1\.0\d s"),
        (5, 6, r"no audio between 5 s and 6 s: the file has 1\.0\d s"),
        (0.5, 0.5, "no audio between 0.5 s and 0.5 s"),
        (0.8, 0.2, "no audio between 0.8 s and 0.2 s"),
        (None, 0, "no audio between 0 s and 0 s"),
        (-0.5, None, "start is -0.5 s, which is no time"),
        (0, -0.5, "stop is -0.5 s, which is no time"),
        (0, float("inf"), "stop is inf s, which is no time"),
        (0.5, 0.55, "0.050 s of audio; at least 0.1 s"),
    ],
)
def test_times_that_enclose_nothing_are_refused(
    tmp_path, name, start, stop, reason
):
    path = tmp_path / name
    if name == "a.wav":
        soundfile.write(path, tone(), 16000)
    else:
        encode(path, "aac", [tone()], 16000)
    with pytest.raises(AudioError, match=reason):
        load_audio(path, start, stop)


def test_more_than_an_hour_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.1, 8000), 8000, "PCM_U8")
    with_data_size(path, 3601 * 8000)
    with open(path, "r+b") as file:
        file.truncate(path.read_bytes().index(b"data") + 8 + 3601 * 8000)
    assert len(load_audio(path, 0, 0.1)) == 1600  # a part may be read

    def read(*arguments, **settings):
        raise AssertionError("read")

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    reason = reason_of(path)
    assert reason == (
        "more than 3600 s of audio: cut the recording into utterances"
    )


def test_a_container_over_the_limit_is_refused(tmp_path, monkeypatch):
    path = encode(tmp_path / "a.m4a", "aac", [tone(2.0)], 16000)
    monkeypatch.setattr(audio_limits, "MAX_SECONDS", 1.0)
    assert "more than 1 s of audio" in reason_of(path)
    assert len(load_audio(path, 1.0, 1.5)) == 8000


def test_a_container_is_decoded_up_to_the_stop_or_the_limit_only(monkeypatch):
    monkeypatch.setattr(audio_limits, "MAX_SECONDS", 1.0)
    decoded = []

    def blocks(file, why):
        for k in range(100):
            decoded.append(k)
            yield np.full((1600, 1), k, np.float32), 16000  # 0.1 s

    monkeypatch.setattr(decoding, "_blocks", blocks)
    part, rate = decoding._read_container("", 0.25, 0.5, "")
    assert rate == 16000
    assert part.tolist() == [2] * 800 + [3] * 1600 + [4] * 1600
    assert decoded == [0, 1, 2, 3, 4]
    with pytest.raises(AudioError, match="more than 1 s of audio"):
        decoding._read_container("", 0.0, None, "")
    assert len(decoded) < 20


def test_a_signal_over_an_hour_is_refused_and_of_an_hour_is_not():
    with pytest.raises(AudioError, match="more than 3600 s of audio"):
        check_signal(np.broadcast_to(np.float32(0.1), 3601 * 16000))
    check_signal(np.broadcast_to(np.float32(0.1), 3600 * 100), sample_rate=100)


def test_a_batch_is_no_signal():
    with pytest.raises(AudioError, match=r"shape \[1, 16000\]"):
        check_signal(torch.ones(1, 16000))


def test_a_video_without_sound_is_refused(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(5):
            frame = av.VideoFrame(32, 32, "yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert reason_of(path) == "the file has no audio stream"


def test_without_pyav_the_message_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install av" in reason_of(path)


def test_audio_errors_are_the_users():
    assert issubclass(AudioError, InputError)
