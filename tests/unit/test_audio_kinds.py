"""Audio as people really have it: read whole, or refused for a true reason."""

import io
import struct

import av
import numpy as np
import pytest
import soundfile

from speechbrain_mser.dataio import decoding
from speechbrain_mser.dataio.audio import (
    AudioError,
    load_audio,
    load_samples,
    read_samples,
)
from speechbrain_mser.dataio.audio_blocks import read_blocks
from speechbrain_mser.dataio.downmix import downmix
from speechbrain_mser.preparation.audio_extraction import extract_audio
from speechbrain_mser.preparation.audio_listing import probe

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def tone(seconds=1.0, rate=16000, frequency=440, amplitude=0.5):
    time = np.arange(round(seconds * rate)) / rate
    return amplitude * np.sin(2 * np.pi * frequency * time)


def noise(seconds=1.0, rate=16000, seed=0):
    size = round(seconds * rate)
    return np.random.default_rng(seed).uniform(-0.5, 0.5, size)


def encode(path, codec, channels, rate, options=None):
    """Write ``[channel, time]`` into the container that the name asks for."""
    layout = LAYOUTS[len(channels)]
    samples = np.asarray(channels, dtype=np.float32)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        block = stream.codec_context
        fit = av.AudioResampler(block.format, layout, rate, block.frame_size)
        # Not planar: PyAV 18 takes no planes of eight channels
        packed = np.ascontiguousarray(samples.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, "flt", layout)
        frame.sample_rate = rate
        for piece in [*fit.resample(frame), *fit.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def mp3_of(samples, rate=44100, **settings):
    """The bytes of an MP3 file with a first frame that says its length."""
    file = io.BytesIO()
    settings = {"bitrate_mode": "VARIABLE", **settings}
    soundfile.write(file, samples, rate, format="MP3", **settings)
    return file.getvalue()


def untold(mp3):
    """An MP3 file whose first frame does not say how many follow."""
    return mp3.replace(b"Xing", bytes(4), 1).replace(b"Info", bytes(4), 1)


def ogg_of(samples, rate=44100, subtype="VORBIS"):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="OGG", subtype=subtype)
    return file.getvalue()


def peak_frequency(samples, rate=16000):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return spectrum.argmax() * rate / len(samples)


def reason_of(path, *times):
    with pytest.raises(AudioError) as caught:
        load_samples(path, *times)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def put(path, content):
    path.write_bytes(content)
    return path


# MP3: how many frames there are


@pytest.mark.parametrize("loud_first", [True, False])
def test_an_mp3_that_does_not_say_its_length_is_read_to_its_end(
    tmp_path, loud_first
):
    """Guessed from its first frames, its end would be lost, or "missing"."""
    parts = [noise(2.0, 44100), np.zeros(44100), tone(3.0, 44100, 1000, 0.01)]
    samples = np.concatenate(parts if loud_first else parts[::-1])
    path = put(tmp_path / "a.mp3", untold(mp3_of(samples)))
    with soundfile.SoundFile(path) as file:
        guessed = file.frames / 44100
    assert abs(guessed - 6) > 1  # else this tests nothing
    found = load_samples(path)
    assert len(found) / 16000 == pytest.approx(6.0, abs=0.1)
    assert probe(path) == (pytest.approx(len(found) / 16000, abs=0.01), "")
    quiet = found[-24000:] if loud_first else found[8000:32000]
    assert peak_frequency(quiet) == pytest.approx(1000, abs=2)


def test_a_part_of_an_mp3_that_does_not_say_its_length_is_that_part(tmp_path):
    path = put(tmp_path / "a.mp3", untold(mp3_of(noise(3.0, 44100))))
    whole = load_samples(path)
    part = load_samples(path, 1.0, 2.0)
    # Resampled by itself: its edges differ
    np.testing.assert_allclose(part[200:-200], whole[16200:31800], atol=1e-3)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_mp3s_of_any_rate_are_as_long_as_they_were(tmp_path, rate, n_channels):
    samples = np.stack([tone(2.0, rate)] * n_channels, axis=1)
    for name, content in (
        ("said.mp3", mp3_of(samples, rate)),
        ("untold.mp3", untold(mp3_of(samples, rate))),
        (
            "constant.mp3",
            untold(mp3_of(samples, rate, bitrate_mode="CONSTANT")),
        ),
    ):
        path = put(tmp_path / name, content)
        found = load_samples(path)
        # Without the first frame's word on it, padding stays
        assert len(found) / 16000 == pytest.approx(2.0, abs=0.3)
        assert len(found) / 16000 >= 2.0
        assert probe(path) == (pytest.approx(len(found) / 16000, abs=0.01), "")
        assert peak_frequency(found) == pytest.approx(440, abs=1)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.95])
def test_a_cut_mp3_that_says_its_length_is_refused(tmp_path, part):
    content = mp3_of(noise(3.0, 44100))
    path = put(tmp_path / "a.mp3", content[: int(part * len(content))])
    assert reason_of(path).startswith("truncated: its header promises")
    assert probe(path)[1].startswith("unreadable: truncated")


@pytest.mark.parametrize("second", ["said", "untold", "tagged", "mpeg-2"])
@pytest.mark.parametrize("first", ["said", "untold"])
def test_joined_mp3s_are_read_to_the_last(tmp_path, first, second):
    rate = 16000 if second == "mpeg-2" else 44100
    made = {
        "said": mp3_of(tone(1.0, rate, 1000), rate),
        "mpeg-2": mp3_of(tone(1.0, rate, 1000), rate),
        "untold": untold(mp3_of(tone(1.0, rate, 1000), rate)),
        # As ffmpeg begins every file
        "tagged": b"ID3\x04\0\0\0\0\0\x23"
        + bytes(35)
        + mp3_of(tone(1.0, rate, 1000), rate),
    }[second]
    begin = mp3_of(tone(2.0, 44100))
    begin = begin if first == "said" else untold(begin)
    path = put(tmp_path / "a.mp3", begin + made)
    found = load_samples(path)
    assert len(found) / 16000 == pytest.approx(3.0, abs=0.2)
    assert peak_frequency(found[8000:24000]) == pytest.approx(440, abs=1)
    assert peak_frequency(found[-13000:-3000]) == pytest.approx(1000, abs=2)
    assert probe(path) == (pytest.approx(len(found) / 16000, abs=0.01), "")
    late = load_samples(path, 2.3, 2.8)
    assert len(late) == 8000
    assert peak_frequency(late) == pytest.approx(1000, abs=2)


def test_tags_at_the_end_of_an_mp3_are_no_audio(tmp_path):
    content = mp3_of(noise(1.0, 44100))
    before = load_samples(put(tmp_path / "a.mp3", content))
    tags = b"APETAGEX" + np.random.default_rng(0).bytes(5000)
    for tail in (b"TAG" + bytes(125), tags):
        path = put(tmp_path / "b.mp3", content + tail)
        np.testing.assert_array_equal(load_samples(path), before)
        assert probe(path)[0] == pytest.approx(len(before) / 16000, abs=0.01)


# Several recordings in one file


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_chained_ogg_is_read_to_the_last(tmp_path, subtype):
    first = ogg_of(tone(1.0, 48000), 48000, subtype)
    second = ogg_of(tone(2.0, 48000, 1000), 48000, subtype)
    path = put(tmp_path / "a.ogg", first + second)
    found = load_samples(path)
    assert len(found) / 16000 == pytest.approx(3.0, abs=0.01)
    assert peak_frequency(found[20000:44000]) == pytest.approx(1000, abs=2)
    assert probe(path) == (pytest.approx(3.0, abs=0.01), "")
    same = put(tmp_path / "b.ogg", first + first)
    assert probe(same) == (pytest.approx(2.0, abs=0.01), "")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff"])
def test_joined_files_that_cannot_be_told_apart_are_refused(tmp_path, name):
    soundfile.write(tmp_path / name, noise(), 16000, "PCM_16")
    content = (tmp_path / name).read_bytes()
    path = put(tmp_path / name, content * 2)
    assert reason_of(path).startswith("several recordings one after the other")


@pytest.mark.parametrize("movflags", ["faststart", "frag_keyframe+empty_moov"])
def test_joined_films_are_refused(tmp_path, movflags):
    """FFmpeg plays the first one."""
    path = tmp_path / "a.m4a"
    encode(path, "aac", [noise(1.0, 44100)], 44100, {"movflags": movflags})
    put(path, path.read_bytes() * 2)
    assert reason_of(path).startswith("several recordings one after the other")
    assert probe(path)[1].startswith("unreadable: several recordings")


def test_joined_webm_is_read_to_the_last(tmp_path):
    path = encode(tmp_path / "a.webm", "libopus", [tone(1.0, 48000)], 48000)
    put(path, path.read_bytes() * 2)
    found = load_samples(path)
    assert len(found) / 16000 == pytest.approx(2.0, abs=0.05)
    assert probe(path) == (pytest.approx(len(found) / 16000, abs=0.01), "")


# What only decoding tells


def test_raw_aac_is_as_long_as_what_is_decoded(tmp_path):
    """FFmpeg guesses it from the bit rate of the first frames."""
    samples = np.concatenate([np.zeros(6 * 44100), noise(3.0, 44100)])
    path = encode(tmp_path / "a.aac", "aac", [samples], 44100)
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        guessed = float(stream.duration * stream.time_base)
    assert abs(guessed - 9) > 1  # else this tests nothing
    found = load_samples(path)
    assert len(found) / 16000 == pytest.approx(9.0, abs=0.1)
    assert probe(path) == (pytest.approx(len(found) / 16000, abs=0.01), "")


def test_aac_that_changes_from_mono_to_stereo_and_rate_is_read_whole(tmp_path):
    content = b"".join(
        encode(tmp_path / "part.aac", "aac", channels, rate).read_bytes()
        for channels, rate in (
            ([tone(1.0, 44100)], 44100),
            ([tone(1.0, 44100, 1000)] * 2, 44100),
            ([tone(1.0, 22050, 2000)], 22050),
        )
    )
    found = load_samples(put(tmp_path / "a.aac", content))
    assert len(found) / 16000 == pytest.approx(3.0, abs=0.2)
    for second, frequency in enumerate((440, 1000, 2000)):
        part = found[16000 * second + 4000 : 16000 * second + 12000]
        assert peak_frequency(part) == pytest.approx(frequency, abs=2)
        assert np.abs(part).max() == pytest.approx(0.5, abs=0.06)


def test_what_a_browser_records_is_as_long_as_what_is_decoded(tmp_path):
    path = encode(
        tmp_path / "a.webm", "libopus", [tone(2.0, 48000)], 48000, {"live": "1"}
    )
    found = load_samples(path)
    assert len(found) / 16000 == pytest.approx(2.0, abs=0.05)
    assert probe(path) == (pytest.approx(len(found) / 16000, abs=0.01), "")


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("movflags", ["", "frag_keyframe+empty_moov"])
def test_an_m4a_is_as_long_as_what_is_decoded(tmp_path, rate, movflags):
    options = {"movflags": movflags} if movflags else {}
    path = encode(tmp_path / "a.m4a", "aac", [tone(2.0, rate)], rate, options)
    found = load_samples(path)
    assert probe(path) == (pytest.approx(len(found) / 16000, abs=0.01), "")


WRITABLE = [
    (format, subtype)
    for format in soundfile.available_formats()
    for subtype in soundfile.available_subtypes(format)
    # One says nothing at all, the other no rate
    if format not in ("RAW", "XI")
]


@pytest.mark.parametrize(("format", "subtype"), WRITABLE)
def test_every_kind_that_libsndfile_writes_is_as_long_as_it_is_read(
    tmp_path, format, subtype
):
    path = tmp_path / "a.audio"
    try:
        soundfile.write(path, tone(1.1, 8000), 8000, subtype, format=format)
    except (soundfile.LibsndfileError, ValueError):
        pytest.skip("not at this rate, or not in mono")
    try:
        found = load_samples(path)
    except AudioError as error:
        # libsndfile does not read all that it writes; FFmpeg may not either
        assert "cannot be decoded" in str(error)
        return
    assert len(found) / 16000 == pytest.approx(1.1, abs=0.15)
    assert probe(path) == (pytest.approx(len(found) / 16000, abs=0.05), "")


# What the file holds decides, not its name


@pytest.mark.parametrize(
    ("made_as", "codec", "name"),
    [
        ("a.webm", "libopus", "chrome.wav"),
        ("a.m4a", "aac", "b.mp3"),
        ("a.aac", "aac", "b.wav"),
        ("a.aac", "aac", "c.mp3"),
        ("a.mp3", "libmp3lame", "b.m4a"),
        ("a.flac", "flac", "b.mp4"),
        ("a.wav", "pcm_s16le", "b.webm"),
        ("a.ogg", "libopus", "b.aac"),
        ("a.mkv", "pcm_s16le", "b.flac"),
    ],
)
def test_a_file_is_decoded_by_what_it_holds(tmp_path, made_as, codec, name):
    path = encode(tmp_path / made_as, codec, [tone(1.0, 48000)], 48000)
    before = load_samples(path)
    assert peak_frequency(before) == pytest.approx(440, abs=1)
    path = path.rename(tmp_path / name)
    np.testing.assert_array_equal(load_samples(path), before)
    assert probe(path) == (pytest.approx(len(before) / 16000, abs=0.01), "")


def test_a_cut_wav_is_truncated_under_any_name(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(), 16000, "PCM_16")
    content = (tmp_path / "a.wav").read_bytes()
    path = put(tmp_path / "a.m4a", content[:-1000])
    assert reason_of(path).startswith("truncated: its header promises")


def test_a_playlist_opens_no_other_file(tmp_path):
    encode(tmp_path / "a.aac", "aac", [tone(1.0, 44100)], 44100)
    text = (
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.aac\n#EXT-X-ENDLIST\n"
    )
    listed = f"ffconcat version 1.0\nfile {tmp_path / 'a.aac'}\n"
    for name, content in (("a.m3u8", text), ("b.mp3", text), ("c.mp4", listed)):
        (tmp_path / name).write_text(content)
        assert "cannot be decoded" in reason_of(tmp_path / name)


def test_a_telephones_codec_is_read_from_anywhere(tmp_path):
    path = tmp_path / "gsm.wav"
    soundfile.write(path, tone(3.36, 8000), 8000, "GSM610")
    whole = load_samples(path)
    assert len(whole) / 16000 == pytest.approx(3.36, abs=0.02)
    assert peak_frequency(whole) == pytest.approx(440, abs=2)
    part = load_samples(path, 1.0, 2.0)
    np.testing.assert_allclose(part[200:-200], whole[16200:31800], atol=1e-2)


def test_tags_need_not_be_utf_8(tmp_path):
    path = encode(tmp_path / "a.m4a", "aac", [tone(1.0, 48000)], 48000)
    before = load_samples(path)
    content = path.read_bytes()
    assert b"SoundHandler" in content
    put(path, content.replace(b"SoundHandler", b"Sound\xc8andler"))
    np.testing.assert_array_equal(load_samples(path), before)
    assert probe(path)[1] == ""


# From several channels, one


@pytest.mark.parametrize("gain", [1.0, 0.98, 0.8])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.m4a"])
def test_channels_in_opposite_phase_are_the_mono_recording(
    tmp_path, name, gain
):
    speech = tone(1.0, 48000) * np.linspace(0.1, 1, 48000)
    hiss = 0.01 * noise(1.0, 48000, seed=1)
    channels = [speech, -gain * speech + hiss]
    path, alone = tmp_path / name, tmp_path / f"mono_{name}"
    if name == "a.m4a":
        encode(path, "aac", channels, 48000)
        encode(alone, "aac", [speech], 48000)
    else:
        soundfile.write(path, np.stack(channels, axis=1), 48000)
        soundfile.write(alone, speech, 48000)
    found, mono = load_samples(path), load_samples(alone)
    exact = 2e-4 if name != "a.m4a" else 0.05
    np.testing.assert_allclose(found[1000:15000], mono[1000:15000], atol=exact)


def test_channels_that_differ_without_cancelling_are_averaged(tmp_path):
    for right in (noise(seed=1), 0.2 * noise(), -0.4 * noise(), 0 * noise()):
        samples = np.stack([noise(), right], axis=1)
        soundfile.write(tmp_path / "a.wav", samples, 16000, "FLOAT")
        found = load_samples(tmp_path / "a.wav")
        np.testing.assert_allclose(found, samples.mean(1), atol=1e-6)


def test_a_common_hum_does_not_hide_that_channels_cancel(tmp_path):
    samples = 0.2 + np.stack([0.1 * noise(), -0.1 * noise()], axis=1)
    soundfile.write(tmp_path / "a.wav", samples, 16000, "FLOAT")
    found = load_samples(tmp_path / "a.wav")
    np.testing.assert_allclose(found, samples[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    "weights",
    [[1, 1], [1, 1, 1], [0.5**0.5, 0.5**0.5, 1, 0, 0.5, 0.5]],
    ids=len,
)
def test_whether_channels_cancel_their_whole_covariance_decides(weights):
    weights = np.array(weights) / sum(weights)
    rng = np.random.default_rng(len(weights))
    n_cancelled = 0
    for _ in range(200):
        common = rng.standard_normal((500, 1))
        gains = rng.choice([-1, -0.6, 0.3, 1], len(weights))
        hum, hiss = rng.choice([0, 0.1, 3], 2)
        samples = hum + common * gains
        samples = samples + hiss * rng.standard_normal(samples.shape)
        covariance = np.cov(samples.T, bias=True)
        powers = weights**2 * covariance.diagonal()
        cancels = weights @ covariance @ weights < 0.1 * powers.sum()
        n_cancelled += cancels
        mixed = downmix(samples.astype(np.float32))
        is_sum = np.allclose(mixed, samples @ weights, atol=1e-4)
        assert is_sum != cancels
    assert 5 < n_cancelled < 195


@pytest.mark.parametrize("n_channels", [6, 8])
def test_surround_is_one_mix_in_every_format_and_in_extraction(
    tmp_path, n_channels
):
    """The weights of `ffmpeg -ac 1`: each channel has its own pitch."""
    weights = np.array([0.5**0.5, 0.5**0.5, 1, 0, *[0.5] * (n_channels - 4)])
    weights = weights / weights.sum()
    pitches = [300 + 200 * k for k in range(n_channels)]
    channels = [tone(1.0, 48000, pitch) for pitch in pitches]
    samples = np.stack(channels, axis=1)
    for name in ("a.wav", "a.flac", "a.mkv", "a.m4a", "a.ogg"):
        path = tmp_path / name
        codec = {"a.mkv": "pcm_s16le", "a.m4a": "aac", "a.ogg": "libopus"}
        if name in codec:
            encode(path, codec[name], channels, 48000)
        else:
            soundfile.write(path, samples, 48000)
        target = f"{path.suffix[1:]}.flac"
        _, problems = extract_audio(tmp_path, [(name, target)], tmp_path / "x")
        assert problems == {}
        extracted, _ = soundfile.read(tmp_path / "x" / target)
        for found in (load_samples(path), extracted):
            found = found[2000:14000]
            time = np.arange(len(found)) / 16000
            for k, pitch in enumerate(pitches):
                wave = np.exp(-2j * np.pi * pitch * time)
                level = 2 * abs(np.mean(found * wave))
                lossy = name in ("a.m4a", "a.ogg")
                assert level == pytest.approx(
                    0.5 * weights[k], abs=0.02 if lossy else 2e-3
                )


# Numbers that are no sound


def test_a_finite_but_absurd_sample_is_refused(tmp_path):
    samples = noise()
    samples[5] = 1e25
    soundfile.write(tmp_path / "a.wav", samples, 16000, "FLOAT")
    reason = reason_of(tmp_path / "a.wav")
    assert reason.startswith("samples up to 1e+25, where full scale is 1")


@pytest.mark.parametrize("other", [0, 1e25, -1e25, np.nan, np.inf])
def test_an_absurd_channel_is_refused_beside_any_other(tmp_path, other):
    samples = np.stack([noise(), noise(seed=1)], axis=1)
    samples[5] = 1e25, other
    soundfile.write(tmp_path / "a.wav", samples, 16000, "FLOAT")
    assert "samples" in reason_of(tmp_path / "a.wav")


def test_a_range_is_refused_from_eight_times_full_scale_on(tmp_path):
    path = tmp_path / "a.wav"
    for peak in (1.2, -3.0, 7.9):
        soundfile.write(path, noise() * peak * 2, 16000, "FLOAT")
        found = load_samples(path)
        assert np.abs(found).max() == pytest.approx(abs(peak), rel=0.01)
    for peak in (8.2, -8.2, 300, 32767):
        soundfile.write(path, noise() * peak * 2, 16000, "FLOAT")
        assert "integers that were not scaled" in reason_of(path)


# Headers that promise what no recording has


def with_header(path, offset, kind, value):
    content = bytearray(path.read_bytes())
    struct.pack_into(kind, content, offset, value)
    return put(path, content)


@pytest.mark.parametrize(
    "rate", [0, 1, 999, 400_001, 655_350, 2**31 - 1, 2**31]
)
def test_an_absurd_rate_is_refused(tmp_path, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(), 16000, "PCM_16")
    reason = reason_of(with_header(path, 24, "<I", rate))
    assert "sample rate" in reason or "cannot be decoded" in reason
    assert probe(path)[1].startswith("unreadable: ")


@pytest.mark.parametrize("n_channels", [0, 65, 1000, 65535])
def test_an_absurd_number_of_channels_is_refused(tmp_path, n_channels):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(), 16000, "PCM_16")
    with_header(path, 22, "<H", n_channels)
    reason = reason_of(with_header(path, 32, "<H", 2 * n_channels % 2**16))
    assert "channels" in reason or "cannot be decoded" in reason
    assert probe(path)[1].startswith("unreadable: ")


def promising_flac(path, seconds, rate=96000, n_channels=8):
    soundfile.write(path, np.zeros((4096, n_channels)), rate)
    content = bytearray(path.read_bytes())
    # The 36 bits of STREAMINFO that count the samples
    total = seconds * rate
    content[21] = content[21] & 0xF0 | total >> 32
    content[22:26] = (total & 0xFFFFFFFF).to_bytes(4, "big")
    return put(path, content)


def test_a_small_file_that_promises_much_is_refused_before_it_is_decoded(
    tmp_path, monkeypatch
):
    path = promising_flac(tmp_path / "a.flac", 3590)

    def read(*arguments, **settings):
        raise AssertionError("read")

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    assert reason_of(path).startswith(
        "3590 s at 96000 Hz in 8 channels would decode to 11.0 GB; 4.3 GB"
    )
    assert probe(path)[1].startswith("too large: 3590 s at 96000 Hz")


def test_what_is_promised_and_not_there_is_refused(tmp_path):
    path = promising_flac(tmp_path / "a.flac", 60, 48000, 2)
    reason = reason_of(path)
    assert "truncated" in reason or "cannot be decoded" in reason


# Whatever reading raises


ERRORS = [
    ValueError("frames must be specified"),
    UnicodeDecodeError("utf-8", b"\xc8", 0, 1, "invalid continuation byte"),
    MemoryError(),
    RuntimeError("seek"),
    OverflowError("too large"),
    struct.error("unpack requires a buffer of 4 bytes"),
    OSError(5, "Input/output error"),
    KeyError("s24p"),
    av.error.InvalidDataError(1, "Invalid data"),
]


def test_a_container_that_claims_too_much_is_damaged(tmp_path):
    """FFmpeg's want of memory is of the header, not of this machine."""
    path = encode(tmp_path / "a.m4a", "aac", [noise()], 16000)
    content = bytearray(path.read_bytes())
    place = content.index(b"stts") + 8  # how many entries follow
    content[place : place + 4] = b"\xff" * 4
    path.write_bytes(content)
    assert "cannot be decoded as audio (Cannot allocate" in reason_of(path)
    for read in (decoding.duration, lambda path: [*read_blocks(path)]):
        with pytest.raises(AudioError, match="Cannot allocate"):
            read(path)


@pytest.mark.parametrize(
    "error", ERRORS, ids=lambda error: type(error).__name__
)
@pytest.mark.parametrize("name", ["a.wav", "a.m4a"])
def test_whatever_reading_raises_belongs_to_that_file(
    tmp_path, monkeypatch, error, name
):
    if name == "a.wav":
        path = tmp_path / name
        soundfile.write(path, noise(), 16000)
    else:
        path = encode(tmp_path / name, "aac", [noise()], 16000)

    def fail(*arguments, **settings):
        raise error

    owner = (soundfile.SoundFile, "read") if name == "a.wav" else (av, "open")
    monkeypatch.setattr(*owner, fail)
    said = "cannot be decoded as audio ("
    if isinstance(error, MemoryError):
        said = "it does not fit into this machine's memory"
    assert said in reason_of(path)


def test_a_mistake_of_this_project_keeps_its_traceback(tmp_path, monkeypatch):
    def mistaken(*arguments, **settings):
        raise ValueError("of ours")

    soundfile.write(tmp_path / "a.wav", noise(), 16000)
    monkeypatch.setattr(decoding, "downmix", mistaken)
    with pytest.raises(ValueError, match="of ours") as caught:
        load_audio(tmp_path / "a.wav")
    assert not isinstance(caught.value, AudioError)


def test_a_files_content_is_read_as_the_file_is(tmp_path):
    for path in (
        put(tmp_path / "a.mp3", untold(mp3_of(noise(1.0, 44100)))),
        encode(tmp_path / "a.m4a", "aac", [noise(1.0, 44100)], 44100),
    ):
        content = io.BytesIO(path.read_bytes())
        content.seek(7)
        np.testing.assert_array_equal(read_samples(content), load_samples(path))
    with pytest.raises(AudioError, match="empty"):
        read_samples(io.BytesIO())


def test_damage_is_refused_or_read_and_never_anything_else(tmp_path):
    """Bits flipped and ends cut, in every format; seeded."""
    rng = np.random.default_rng(0)
    samples = noise(0.5, 16000)
    seeds = [mp3_of(samples, 16000), ogg_of(samples, 16000)]
    for name in ("a.wav", "a.flac"):
        soundfile.write(tmp_path / name, samples, 16000)
        seeds.append((tmp_path / name).read_bytes())
    for name, codec in (("a.m4a", "aac"), ("a.webm", "libopus")):
        made = encode(tmp_path / name, codec, [noise(0.5, 48000)], 48000)
        seeds.append(made.read_bytes())
    for seed in seeds:
        for _ in range(15):
            damaged = np.frombuffer(seed, np.uint8).copy()
            where = rng.integers(0, len(damaged), 3)
            damaged[where] ^= rng.integers(1, 256, 3, dtype=np.uint8)
            cut = damaged[: rng.integers(1, len(damaged) + 1)].tobytes()
            for content in (damaged.tobytes(), cut):
                try:
                    found = read_samples(io.BytesIO(content))
                except AudioError:
                    continue
                assert np.isfinite(found).all()
