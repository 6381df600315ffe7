"""The feature cache: whatever it keeps, nothing about the features changes."""

import pytest
import torch

from speechbrain_mser.dataio.features import FeatureCache
from speechbrain_mser.lobes.whisper import WhisperEncoder

# Samples of each utterance; 16,000 of them are 50 frames.
LENGTHS = {"a": 8000, "b": 16000, "c": 3333, "d": 12800}


@pytest.fixture(scope="module", params=[-1, [0, 2]], ids=["one", "several"])
def whisper(request, tiny_whisper):
    return WhisperEncoder(tiny_whisper, layers=request.param)


class Counted:
    """An encoder that remembers how many utterances it was given."""

    def __init__(self, encoder):
        self.encoder = encoder
        self.batches = []

    def __call__(self, wavs, wav_lens):
        self.batches.append(len(wavs))
        return self.encoder(wavs, wav_lens)


def batch_of(names):
    """A batch of the utterances of these names."""
    longest = max(LENGTHS[name] for name in names)
    wavs = torch.zeros(len(names), longest)
    for wav, name in zip(wavs, names, strict=True):
        generator = torch.Generator().manual_seed(ord(name))
        n = LENGTHS[name]
        wav[:n] = 0.1 * torch.randn(n, generator=generator)
    lens = torch.tensor([LENGTHS[name] / longest for name in names])
    return list(names), wavs, lens


def rows_of(features, lens):
    """Each utterance's own frames."""
    frames = (lens * features.shape[-2]).round().long().tolist()
    return [row[..., :n, :] for row, n in zip(features, frames, strict=True)]


def test_features_are_the_encoders_in_half_precision(whisper):
    names, wavs, lens = batch_of("abcd")
    expected, expected_lens = whisper(wavs, lens)
    cache = FeatureCache(max_gb=1)
    for _ in range(2):  # encoded, then from the cache
        features, found_lens = cache(names, wavs, lens, whisper)
        assert features.dtype == torch.float32
        assert torch.equal(features, expected.half().float())
        assert torch.equal(found_lens, expected_lens)


def test_what_was_cached_is_not_encoded_again_and_is_the_same(whisper):
    cache, encoder = FeatureCache(max_gb=1), Counted(whisper)
    first, first_lens = cache(*batch_of("abcd"), encoder)
    again, again_lens = cache(*batch_of("abcd"), encoder)
    assert encoder.batches == [4]
    assert len(cache) == 4
    assert torch.equal(again, first)
    assert torch.equal(again_lens, first_lens)


def test_other_batches_give_the_same_features(whisper):
    cache, encoder = FeatureCache(max_gb=1), Counted(whisper)
    together = dict(
        zip("abcd", rows_of(*cache(*batch_of("abcd"), encoder)), strict=True)
    )
    # without the longest, in another order, one alone
    for names in ("ca", "dac", "b"):
        features, lens = cache(*batch_of(names), encoder)
        longest = max(together[name].shape[-2] for name in names)
        assert features.shape[-2] == longest
        for name, row, length in zip(
            names, rows_of(features, lens), lens, strict=True
        ):
            assert torch.equal(row, together[name])
            frames = round(length.item() * longest)
            assert frames == -(-LENGTHS[name] // 320)
        for row, length in zip(features, lens, strict=True):
            assert (row[..., round(length.item() * longest) :, :] == 0).all()
    assert encoder.batches == [4]


def test_only_new_utterances_of_a_batch_are_encoded(whisper):
    cache, encoder = FeatureCache(max_gb=1), Counted(whisper)
    cache(*batch_of("bd"), encoder)
    features, lens = cache(*batch_of("abcd"), encoder)
    assert encoder.batches == [2, 2]
    expected, expected_lens = whisper(*batch_of("abcd")[1:])
    torch.testing.assert_close(
        features, expected.half().float(), atol=2e-3, rtol=0
    )
    assert torch.equal(lens, expected_lens)


@pytest.mark.parametrize("fits", [0, 1, 3])
def test_no_more_is_kept_than_was_allowed(whisper, fits):
    sizes = {
        name: row.nbytes // 2  # float16
        for name, row in zip(
            "abcd", rows_of(*whisper(*batch_of("abcd")[1:])), strict=True
        )
    }
    limit = sum(sizes[name] for name in "abcd"[:fits])
    cache, encoder = FeatureCache(max_gb=limit / 1e9), Counted(whisper)
    for _ in range(3):
        features, _ = cache(*batch_of("abcd"), encoder)
        expected, _ = whisper(*batch_of("abcd")[1:])
        torch.testing.assert_close(
            features, expected.half().float(), atol=2e-3, rtol=0
        )
    assert sorted(cache.kept) == list("abcd"[:fits])
    assert cache.bytes == limit
    assert encoder.batches == [4, 4 - fits, 4 - fits]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_utterance_is_kept_without_its_batch(whisper, dtype):
    def encode(wavs, wav_lens):
        features, lens = whisper(wavs, wav_lens)
        return features.to(dtype), lens

    cache = FeatureCache(max_gb=1)
    cache(*batch_of("abcd"), encode)
    for row in cache.kept.values():
        assert row.untyped_storage().nbytes() == row.nbytes
    assert cache.bytes == sum(row.nbytes for row in cache.kept.values())


def test_what_is_too_large_for_float16_stays_finite():
    def encode(wavs, wav_lens):
        features = torch.full((len(wavs), 3, 2), 1e5, dtype=torch.bfloat16)
        return features, wav_lens

    cache = FeatureCache(max_gb=1)
    for _ in range(2):
        features, _ = cache(["a"], torch.zeros(1, 960), torch.ones(1), encode)
        assert features.dtype == torch.float32
        torch.testing.assert_close(
            features, torch.full((1, 3, 2), 1e5), rtol=1e-2, atol=0
        )
    assert cache.bytes == 12
