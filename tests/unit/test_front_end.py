"""What a waveform becomes before the encoder: hand-worked, and by numpy."""

import math

import numpy as np
import pytest
import torch

from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes import build_encoder
from speechbrain_mser.lobes.front_end import FrontEnd

RATE = 16000


def tone(seconds, amplitude=0.1, hertz=1000):
    """A sine with whole periods in each 20 ms: RMS is amplitude / sqrt(2)."""
    time = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    return (amplitude * torch.sin(2 * math.pi * hertz * time)).float()


def noise(seconds, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(round(seconds * RATE), generator=generator)


def naive(wav, trim_silence=None, speech_level=None):
    """The same, frame by frame in float64."""
    wav = wav.double().numpy()
    levels = [
        20 * np.log10(wav[i : i + 320].std() + 1e-300)
        for i in range(0, len(wav) - 319, 320)
    ]
    range_db = trim_silence or 35.0
    speech = [k for k, x in enumerate(levels) if x >= max(levels) - range_db]
    heard = wav
    if trim_silence is not None:
        start, end = speech[0] * 320 - 800, speech[-1] * 320 + 320 + 800
        heard = wav[max(start, 0) : end]
    if speech_level is not None:
        power = np.mean([10 ** (levels[k] / 10) for k in speech])
        heard = heard * 10 ** (speech_level / 20) / np.sqrt(power)
    return torch.from_numpy(heard).float()


def test_a_sine_is_brought_to_its_level():
    # -26 dB under full scale is an RMS of 0.0501, a sine of amplitude 0.0709.
    for amplitude in (1e-30, 1e-4, 0.1, 1.0, 1e30):
        heard = FrontEnd(speech_level=-26.0)(tone(1, amplitude))
        torch.testing.assert_close(
            heard, tone(1, 0.0708795), atol=1e-5, rtol=1e-4
        )


def test_nothing_is_clipped_at_full_scale():
    heard = FrontEnd(speech_level=0)(tone(1))
    assert float(heard.max()) == pytest.approx(math.sqrt(2), rel=1e-4)


def test_pauses_do_not_count_as_speech():
    speech = tone(1)
    paused = torch.cat([torch.zeros(RATE), speech, torch.zeros(2 * RATE)])
    heard = FrontEnd(speech_level=-26.0)(paused)
    assert len(heard) == 4 * RATE
    torch.testing.assert_close(
        heard[RATE : 2 * RATE], FrontEnd(speech_level=-26.0)(speech)
    )


@pytest.mark.parametrize(
    ("decibels_under", "seconds"), [(34, 1.4), (36, 1.1), (80, 1.1)]
)
def test_silence_is_cut_but_for_50_ms(decibels_under, seconds):
    quiet = tone(0.2, 0.1 * 10 ** (-decibels_under / 20))
    wav = torch.cat([quiet, tone(1), quiet])
    heard = FrontEnd(trim_silence=35.0)(wav)
    assert len(heard) == round(seconds * RATE)
    start = (len(wav) - len(heard)) // 2
    assert torch.equal(heard, wav[start : start + len(heard)])


def test_a_pause_within_speech_stays():
    wav = torch.cat([tone(0.5), torch.zeros(RATE), tone(0.5)])
    assert torch.equal(FrontEnd(trim_silence=35.0)(wav), wav)


def test_a_microphones_offset_is_no_sound():
    silent = torch.zeros(RATE)
    wav = torch.cat([silent, tone(1, 0.01), silent]) + 0.5
    heard = FrontEnd(35.0, -26.0)(wav)
    assert len(heard) == round(1.1 * RATE)
    assert float(heard[800:-800].std()) == pytest.approx(0.0501, rel=1e-3)


@pytest.mark.parametrize("trim_silence", [None, 20.0, 35.0])
@pytest.mark.parametrize("speech_level", [None, -26.0, -10])
def test_it_is_what_the_definition_says(trim_silence, speech_level):
    for seed, samples in enumerate((320, 321, 5000, 16000, 40001)):
        # Sound that comes and goes, some of it 60 dB down.
        swell = torch.linspace(-7, 7, samples).cos().abs().pow(8)
        wav = 0.05 * noise(samples / RATE, seed) * swell
        heard = FrontEnd(trim_silence, speech_level)(wav)
        expected = naive(wav, trim_silence, speech_level)
        torch.testing.assert_close(heard, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("trim_silence", [None, 1.0, 100.0])
@pytest.mark.parametrize("speech_level", [None, -26.0])
def test_what_has_no_sound_stays_as_it_is(trim_silence, speech_level):
    front_end = FrontEnd(trim_silence, speech_level)
    for wav in (
        *(torch.zeros(n) for n in (1, 319, 320, RATE)),
        *(torch.full((n,), 0.1) for n in (1, 2, 319, 320, RATE)),
        torch.tensor([1e-45]),
    ):
        assert torch.equal(front_end(wav), wav)
    # Whoever looks whether features are numbers sees it.
    for number in (math.nan, math.inf, -math.inf):
        wav = tone(1)
        wav[9000] = number
        assert torch.equal(
            front_end(wav).isfinite().logical_not(), wav != tone(1)
        )


def test_the_shortest_sounds_are_heard():
    for samples in (2, 3, 100, 319, 320, 321, 639):
        wav = noise(samples / RATE)
        for scale in (1e-42, 1e-20, 1.0, 1e37):
            heard = FrontEnd(35.0, -26.0)(wav * scale)
            assert len(heard) == samples
            assert heard.isfinite().all()
            assert heard.abs().amax() > 0.01


def test_a_click_alone_is_no_empty_utterance():
    for place in (0, 1, 8000, RATE - 1):
        wav = torch.zeros(RATE)
        wav[place] = 1.0
        heard = FrontEnd(35.0, -26.0)(wav)
        assert 1 <= len(heard) <= 320 + 2 * 800
        assert heard.isfinite().all()
        assert heard.amax() > 0


def test_heard_again_speech_changes_no_more():
    # A second time nothing is silence, and the level is there already; but
    # for frames that begin half a frame later.
    wav = torch.cat([noise(1) * 1e-4, noise(2), noise(1) * 1e-4])
    once = FrontEnd(35.0, -26.0)(wav)
    torch.testing.assert_close(
        FrontEnd(35.0, -26.0)(once), once, rtol=0.01, atol=0
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("trim_silence", value) for value in (0, -1, 101, math.nan)),
        *(("speech_level", value) for value in (0.1, -101, math.nan)),
    ],
)
def test_settings_that_mean_nothing_are_refused(name, value):
    with pytest.raises(InputError, match=f"{name} is {value}"):
        FrontEnd(**{name: value})


# In the encoder


def test_the_encoder_hears_what_the_front_end_leaves(tiny_whisper):
    silent = torch.zeros(RATE // 2)
    wavs = torch.stack(
        [
            torch.cat([silent, noise(0.5) * 0.01, silent]),
            torch.cat([noise(0.9, seed=1), torch.zeros(9600)]),
        ]
    )
    plain = build_encoder(tiny_whisper)
    encoder = build_encoder(tiny_whisper, trim_silence=35.0, speech_level=-26.0)
    features, lens = encoder(wavs, torch.tensor([1.0, 0.6]))
    # 0.5 s and 0.05 s on either side, at 50 frames a second; 0.9 s.
    assert (lens * features.shape[1]).round().tolist() == [30, 45]
    for row, wav, frames in (
        (0, naive(wavs[0], 35.0, -26.0), 30),
        (1, naive(wavs[1, :14400], 35.0, -26.0), 45),
    ):
        expected, _ = plain(wav[None])
        torch.testing.assert_close(
            features[row, :frames], expected[0], rtol=0, atol=1e-4
        )


def test_front_ended_features_do_not_depend_on_batch_mates(tiny_whisper):
    encoder = build_encoder(tiny_whisper, trim_silence=35.0, speech_level=-26.0)
    wavs = noise(3).view(3, RATE) * torch.logspace(-3, 0, RATE)
    wav_lens = torch.tensor([1.0, 0.3, 0.7])
    together, lens = encoder(wavs, wav_lens)
    for row, samples in enumerate((16000, 4800, 11200)):
        alone, _ = encoder(wavs[row : row + 1, :samples])
        frames = round(float(lens[row]) * together.shape[1])
        assert alone.shape[1] == frames
        torch.testing.assert_close(
            together[row, :frames], alone[0], rtol=0, atol=1e-5
        )


def test_only_a_front_end_has_a_fingerprint_of_its_own(tiny_whisper):
    # What was stored without one stays valid.
    plain = build_encoder(tiny_whisper).fingerprint()
    assert "front_end" not in plain
    seen = [plain]
    for front_end in (
        {"trim_silence": 35.0},
        {"trim_silence": 30.0},
        {"speech_level": -26.0},
        {"trim_silence": 35.0, "speech_level": -26.0},
    ):
        described = build_encoder(tiny_whisper, **front_end).fingerprint()
        assert described.items() > plain.items()
        assert described not in seen
        seen.append(described)
