"""Worse microphones: what they do, and utterances heard through them as well."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from speechbrain_mser.dataio import microphones
from speechbrain_mser.dataio.audio import load_audio
from speechbrain_mser.dataio.batch_sampler import LengthBatchSampler
from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.dataio.utterances import (
    make_dataset,
    read_signal,
    with_copies,
)
from speechbrain_mser.errors import InputError
from speechbrain_mser.features.store import FeatureStore

RATE = 16000
NAN = float("nan")


def sine(hertz, seconds=1.0):
    return torch.sin(2 * torch.pi * hertz * torch.arange(seconds * RATE) / RATE)


def decibels(wav):
    return 10 * float(wav.square().mean().log10())


@pytest.mark.parametrize("under", [10.0, 30.0])
def test_noise_is_as_far_under_speech_as_asked(under):
    # Half a second of speech, as long a pause that does not count.
    wav = torch.cat([sine(1000, 0.5), torch.zeros(RATE // 2)])
    noise = microphones.Noise(under, under)(wav) - wav
    assert decibels(noise) == pytest.approx(-3.01 - under, abs=0.01)


def test_a_band_keeps_what_is_in_it():
    telephone = microphones.Band(300, 3400, 3400)
    for hertz, gain in ((100, -40), (1000, 0), (3000, 0), (5000, -40)):
        changed = decibels(telephone(sine(hertz))) - decibels(sine(hertz))
        assert changed == pytest.approx(gain, abs=0.1)


def test_a_room_dies_away_by_60_db():
    click = torch.zeros(RATE)
    click[0] = 1.0
    heard = microphones.Room(1.0, 1.0)(click)
    assert len(heard) >= RATE
    early, late = heard[1600:2400], heard[9600:10400]  # half a second apart
    assert decibels(early) - decibels(late) == pytest.approx(30, abs=1)


@pytest.mark.parametrize("speed", [0.8, 1.25])
def test_a_voice_is_higher_where_it_is_faster(speed):
    heard = microphones.Voice(speed, speed)(sine(1000))
    assert len(heard) == pytest.approx(RATE / speed, abs=1)
    expected = sine(1000 * speed, 2.0)[: len(heard)]
    # The ends are not whole.
    torch.testing.assert_close(
        heard[100:-100], expected[100:-100], atol=1e-2, rtol=0
    )


@pytest.mark.parametrize(
    "microphone",
    [
        *microphones.WORSE.values(),
        microphones.Noise(10, 30, seed=1),
        microphones.Room(0.2, 1.0),
        microphones.Band(0, 2500, 7000),
    ],
)
def test_what_is_drawn_is_the_same_each_time_and_always_a_number(microphone):
    wav = torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(microphone(wav), microphone(wav.clone()))
    for strange in (torch.zeros(RATE), torch.ones(1), 1e-30 * wav, wav[:100]):
        heard = microphone(strange)
        assert len(heard) >= len(strange) and heard.isfinite().all()


def test_a_voices_speed_is_drawn_between_two_and_the_same_each_time():
    voice = microphones.Voice(0.8, 1.25)
    wavs = torch.randn(40, RATE, generator=torch.Generator().manual_seed(0))
    speeds = [RATE / len(voice(wav)) for wav in wavs]
    assert speeds == [RATE / len(voice(wav.clone())) for wav in wavs]
    # Forty draws come near both ends.
    assert 0.79 < min(speeds) < 0.85 and 1.19 < max(speeds) < 1.26
    for strange in (torch.zeros(RATE), torch.ones(1), 1e-30 * wavs[0]):
        heard = voice(strange)
        assert len(heard) >= 1 and heard.isfinite().all()


def test_noise_is_each_utterances_own():
    one, other = torch.randn(
        2, RATE, generator=torch.Generator().manual_seed(0)
    )
    noise = microphones.Noise(10, 10)
    assert not torch.equal(noise(one) - one, noise(other) - other)


def test_another_name_is_refused():
    with pytest.raises(InputError, match="one of telephone, noise, room"):
        microphones.find_worse("studio")


# Copies


@pytest.fixture
def table(tiny_corpus):
    manifest = tiny_corpus / "manifests" / "tiny.csv"
    return read_manifest(manifest, tiny_corpus / "corpora" / "tiny")


def test_copies_are_the_utterances_through_microphones(table):
    hears = [None, microphones.Room(0.2, 0.2), microphones.Noise(9, 9)]
    dataset = make_dataset(with_copies(table, 2), microphones=hears)
    n = len(table)
    assert len(dataset) == 3 * n
    wav = load_audio(table.wav.iloc[1], NAN, NAN)
    as_it_is, room, noise = (dataset[1 + k * n] for k in range(3))
    assert torch.equal(as_it_is["sig"], wav)
    assert torch.equal(room["sig"], hears[1](wav))
    assert torch.equal(noise["sig"], hears[2](wav))
    assert {item["emotion"] for item in (as_it_is, room, noise)} == {
        table.emotion.iloc[1]
    }
    assert [item["id"] for item in make_dataset(table)] == table.ID.tolist()


def test_each_way_of_hearing_has_features_of_its_own(table, tmp_path):
    store = FeatureStore(tmp_path, {"layers": -1})
    wav = table.wav.iloc[0]
    ways = [
        None,
        microphones.Noise(10, 30),
        microphones.Noise(10, 20),
        microphones.Noise(10, 30, seed=1),
        microphones.Room(10, 30),
    ]
    keys = [store.key(wav, NAN, NAN, way) for way in ways]
    assert len({key.features for key in keys}) == len(ways)
    # What was stored before there were any is found.
    assert keys[0].features == store.key(wav).features
    store.put(keys[1], torch.ones(3, 2))
    dataset = make_dataset(with_copies(table, 1), store, ways[:2])
    assert torch.equal(dataset[len(table)]["sig"].features, torch.ones(3, 2))
    assert dataset[0]["sig"].features is None


def test_which_copy_comes_is_drawn_each_time_and_nothing_else_changes():
    rng = np.random.default_rng(0)
    durations = rng.uniform(1, 5, 600).tolist()
    emotions = rng.choice(["a", "b", "c"], 600).tolist()

    def batches(copies, epoch):
        sampler = LengthBatchSampler(
            durations, emotions, 16, balance=1.0, copies=copies, seed=3
        )
        sampler.set_epoch(epoch)
        return [*sampler]

    for epoch in (0, 1):
        without, drawn = batches(0, epoch), batches(3, epoch)
        assert [[i % 600 for i in batch] for batch in drawn] == without
        assert drawn == batches(3, epoch)
        shares = np.bincount(np.concatenate(drawn) // 600) / 600
        # Four deviations of 600 draws of a half
        expected = [1 / 2, 1 / 6, 1 / 6, 1 / 6]
        np.testing.assert_allclose(shares, expected, atol=0.082)
    which = [np.concatenate(batches(3, e)) // 600 for e in (0, 1)]
    assert (which[0] != which[1]).mean() > 0.5


def test_classes_of_one_name_are_told_apart():
    class Noise(microphones.Recorded):
        pass

    other = dataclass(Noise)()
    assert other.settings()["kind"].endswith("Noise")
    assert (
        other.settings()["kind"] != microphones.Noise(1, 2).settings()["kind"]
    )


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda wav: wav * torch.nan, "float32 of shape"),
        (lambda wav: wav[:0], r"of shape \[0\]"),
        (lambda wav: wav[None], r"of shape \[1, "),
        (lambda wav: wav.numpy(), "makes ndarray"),
        (lambda wav: None, "makes NoneType"),
    ],
)
def test_what_is_no_signal_is_the_microphones_fault(table, made, message):
    with pytest.raises(InputError, match=message):
        read_signal("a", table.wav.iloc[0], NAN, NAN, made)


def test_a_bad_file_is_one_however_often_it_is_heard(table, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    broken = table[:1].assign(wav=str(tmp_path / "broken.wav"))
    hears = [None, microphones.Noise(9, 9)]
    dataset = make_dataset(with_copies(broken, 1), microphones=hears)
    assert {item["sig"].utterance for item in dataset} == {table.ID.iloc[0]}


def test_names_that_would_be_taken_twice_are_refused(table):
    with pytest.raises(InputError, match="cannot be called heard_through"):
        make_dataset(table.assign(heard_through="phone"))
    named = table[:2].assign(ID=["a", "a (copy 1)"])
    with pytest.raises(InputError, match=r"two .* called 'a \(copy 1\)'"):
        with_copies(named, 1)
