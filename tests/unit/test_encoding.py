"""A batch's features are the same, wherever they come from."""

import shutil
from itertools import combinations

import pandas
import pytest
import soundfile
import torch

from speechbrain_mser.dataio.audio import DECODING, load_audio
from speechbrain_mser.dataio.batching import UtteranceBatch
from speechbrain_mser.dataio.cached_encoding import encode_batch, open_store
from speechbrain_mser.dataio.utterances import make_dataset
from speechbrain_mser.errors import InputError
from speechbrain_mser.features.store import FeatureStore
from speechbrain_mser.lobes.whisper import WhisperEncoder

# Samples of each utterance; 16,000 of them are 50 frames.
LENGTHS = {"a": 8000, "b": 16000, "c": 3333, "d": 12800}


@pytest.fixture(scope="module", params=[-1, [0, 2]], ids=["one", "several"])
def whisper(request, tiny_whisper):
    return WhisperEncoder(tiny_whisper, layers=request.param)


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    """Folder of noise, a file for each of LENGTHS."""
    folder = tmp_path_factory.mktemp("audio")
    for name, n in LENGTHS.items():
        generator = torch.Generator().manual_seed(ord(name))
        noise = 0.1 * torch.randn(n, generator=generator)
        soundfile.write(folder / f"{name}.wav", noise.numpy(), 16000)
    return folder


class Counted:
    """An encoder that remembers how many utterances it was given."""

    def __init__(self, encoder):
        self.encoder = encoder
        self.batches = []

    def __call__(self, wavs, wav_lens):
        self.batches.append(len(wavs))
        return self.encoder(wavs, wav_lens)


def open_for(encoder, folder, features="write", dtype="float32"):
    return open_store(encoder, features, folder, dtype)


def batch_of(names, audio, store=None):
    """A batch as the loader makes it."""
    nan = float("nan")
    table = pandas.DataFrame(
        {
            "ID": list(names),
            "wav": [str(audio / f"{name}.wav") for name in names],
            "start": nan,
            "stop": nan,
            "emotion": "happy",
            "corpus": "any",
            "duration": 1.0,
        }
    )
    return UtteranceBatch(list(make_dataset(table, store)))


def alone(name, audio, whisper):
    """An utterance's features by the encoder itself."""
    return whisper(load_audio(audio / f"{name}.wav")[None])[0][0]


def rows_of(features, lens):
    """Each utterance's own frames."""
    frames = (lens * features.shape[-2]).round().long().tolist()
    return [row[..., :n, :] for row, n in zip(features, frames, strict=True)]


def test_a_float32_store_gives_what_the_encoder_gives(whisper, audio, tmp_path):
    store = open_for(whisper, tmp_path)
    for _ in range(2):  # encoded, then read
        for name in LENGTHS:
            batch = batch_of(name, audio, store)
            features, lens = encode_batch(batch, whisper, store)
            assert torch.equal(features[0], alone(name, audio, whisper))
            assert lens.tolist() == [1.0]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_order_is_kept_with_any_mix_of_stored_and_new(
    whisper, audio, tmp_path, dtype
):
    names = "dacb"
    _, expected_lens = encode_batch(batch_of(names, audio), whisper)
    mixes = [mix for n in range(5) for mix in combinations(names, n)]
    assert len(mixes) == 16
    for mix in mixes:
        store = open_for(whisper, tmp_path / "".join(("s", *mix)), dtype=dtype)
        counted = Counted(whisper)
        if mix:
            encode_batch(batch_of(mix, audio, store), counted, store)
        features, lens = encode_batch(
            batch_of(names, audio, store), counted, store
        )
        assert counted.batches == [n for n in (len(mix), 4 - len(mix)) if n]
        assert torch.equal(lens, expected_lens)
        for row, name in zip(rows_of(features, lens), names, strict=True):
            own = alone(name, audio, whisper)
            assert row.shape == own.shape
            # Other batch-mates change the last digits, int8 a step of 1/255.
            atol = {"float16": 5e-3, "int8": 0.03}[dtype]
            torch.testing.assert_close(row.float(), own, atol=atol, rtol=0)
        for padded, row in zip(features, rows_of(features, lens), strict=True):
            assert not padded[..., row.shape[-2] :, :].any()
        # Now all are stored, and nothing changes.
        again = encode_batch(batch_of(names, audio, store), counted, store)
        assert torch.equal(again[0], features)
        assert torch.equal(again[1], lens)
        assert features.dtype == again[0].dtype
        assert len(counted.batches) == 2 - (len(mix) in (0, 4))


def test_other_batches_read_the_same_features(whisper, audio, tmp_path):
    store = open_for(whisper, tmp_path, dtype="float16")
    counted = Counted(whisper)
    batch = batch_of("abcd", audio, store)
    together = dict(
        zip("abcd", rows_of(*encode_batch(batch, counted, store)), strict=True)
    )
    # without the longest, in another order, one alone
    for names in ("ca", "dac", "b"):
        batch = batch_of(names, audio, store)
        features, lens = encode_batch(batch, counted, store)
        assert features.dtype == torch.float16
        longest = max(together[name].shape[-2] for name in names)
        assert features.shape[-2] == longest
        for name, row in zip(names, rows_of(features, lens), strict=True):
            assert torch.equal(row, together[name])
    assert counted.batches == [4]


def test_without_a_store_it_is_the_encoder(whisper, audio):
    batch = batch_of("abcd", audio)
    assert batch.keys is None
    features, lens = encode_batch(batch, whisper)
    expected, expected_lens = whisper(*batch.sig)
    assert torch.equal(features, expected)
    assert torch.equal(lens, expected_lens)


def test_means_over_time_are_stored_as_they_are_and_frames_in_half(
    tiny_whisper, whisper, tmp_path
):
    means = WhisperEncoder(tiny_whisper, mean_over_time=True)
    dtypes = [
        open_store(encoder, "write", tmp_path).dtype
        for encoder in (whisper, means)
    ]
    assert dtypes == ["float16", "float32"]


@pytest.mark.parametrize("word", ["off", False])
def test_off_is_no_store(whisper, tmp_path, word):
    assert open_for(whisper, tmp_path / "features", word) is None
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize("word", ["nonsense", True, None, "Write"])
def test_other_words_are_refused(whisper, tmp_path, word):
    with pytest.raises(InputError, match="off, read, write"):
        open_for(whisper, tmp_path, word)


def test_all_that_changes_features_makes_them_anew(
    tiny_whisper, audio, tmp_path, monkeypatch
):
    stored = WhisperEncoder(tiny_whisper)
    store = open_for(stored, tmp_path)
    encode_batch(batch_of("abcd", audio, store), stored, store)

    def n_stored(encoder, dtype="float32"):
        store = open_for(encoder, tmp_path, dtype=dtype)
        return len(batch_of("abcd", audio, store).rows["stored"])

    assert n_stored(stored) == 4
    assert n_stored(WhisperEncoder(tiny_whisper, layers=3)) == 4
    for settings in (
        {"layers": 1},
        # One layer, but with an axis for it
        {"layers": [-1]},
        {"layers": "all"},
        {"pad_to_30s": True},
        {"dtype": "bfloat16"},
    ):
        other = WhisperEncoder(tiny_whisper, **settings)
        assert n_stored(other) == 0, settings
    assert n_stored(stored, "float16") == n_stored(stored, "int8") == 0
    monkeypatch.setitem(DECODING, "resampler", "soxr VHQ")
    assert n_stored(stored) == 0
    monkeypatch.undo()
    assert n_stored(stored) == 4
    with torch.no_grad():
        stored.model.encoder.layers[0].fc1.weight[0, 0] += 1e-3
    assert n_stored(stored) == 0


def test_the_order_of_layers_is_the_features_order(
    tiny_whisper, audio, tmp_path
):
    found = []
    for layers in ([0, 2], [2, 0]):
        whisper = WhisperEncoder(tiny_whisper, layers=layers)
        store = open_for(whisper, tmp_path)
        for _ in range(2):
            batch = batch_of("a", audio, store)
            features, _ = encode_batch(batch, whisper, store)
        found.append(features)
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[1].flip(1))


def test_copied_audio_is_not_encoded_again(whisper, audio, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(audio, copy)
    store = open_for(whisper, tmp_path / "features")
    expected, _ = encode_batch(batch_of("abcd", audio, store), whisper, store)
    batch = batch_of("abcd", copy, store)
    assert [key.known for key in batch.keys] == [False] * 4
    counted = Counted(whisper)
    features, _ = encode_batch(batch, counted, store)
    assert counted.batches == []
    assert torch.equal(features, expected)
    batch = batch_of("abcd", copy, store)
    assert [key.known for key in batch.keys] == [True] * 4


def test_only_reading_encodes_the_rest_and_stores_nothing(
    whisper, audio, tmp_path
):
    store = open_for(whisper, tmp_path)
    encode_batch(batch_of("bd", audio, store), whisper, store)
    reader = open_for(whisper, tmp_path, "read")
    counted = Counted(whisper)
    for _ in range(2):
        batch = batch_of("abcd", audio, reader)
        features, lens = encode_batch(batch, counted, reader)
        for row, name in zip(rows_of(features, lens), "abcd", strict=True):
            torch.testing.assert_close(
                row, alone(name, audio, whisper), atol=1e-5, rtol=0
            )
    assert counted.batches == [2, 2]
    assert len(list(tmp_path.glob("*/utterances/*/*"))) == 2


def test_bad_utterances_are_left_out(whisper, audio, tmp_path):
    own = tmp_path / "audio"
    shutil.copytree(audio, own)
    (own / "c.wav").write_bytes(b"no audio" * 99)
    (own / "a.wav").unlink()
    store = open_for(whisper, tmp_path / "features")
    for n_stored in (0, 2):
        batch = batch_of("abcd", own, store)
        assert [bad.utterance for bad in batch.bad] == ["a", "c"]
        assert batch.id == ["b", "d"]
        assert len(batch.rows["stored"]) == n_stored
        features, lens = encode_batch(batch, whisper, store)
        for row, name in zip(rows_of(features, lens), "bd", strict=True):
            torch.testing.assert_close(
                row, alone(name, audio, whisper), atol=1e-5, rtol=0
            )
    # What is said of them is what is said without a store.
    assert batch.bad == batch_of("abcd", own).bad
    nothing = batch_of("ac", own, store)
    assert len(nothing) == 0
    assert nothing.bad == batch.bad
    assert nothing.to("cpu") is nothing


def test_audio_that_was_removed_is_bad_though_it_was_stored(
    whisper, audio, tmp_path
):
    own = tmp_path / "audio"
    shutil.copytree(audio, own)
    store = open_for(whisper, tmp_path / "features")
    encode_batch(batch_of("ab", own, store), whisper, store)
    (own / "a.wav").unlink()
    batch = batch_of("ab", own, store)
    assert batch.id == ["b"]
    assert batch.bad == batch_of("ab", own).bad


def test_features_that_are_not_finite_name_their_utterance(audio, tmp_path):
    def encode(wavs, lens):
        features = wavs.unfold(1, 320, 320)
        features[1, 2, 3] = float("nan")
        return features, lens

    store = FeatureStore(tmp_path, {}, dtype="float32")
    batch = batch_of("bd", audio, store)
    with pytest.raises(InputError, match=r"utterance d: .* not finite"):
        encode_batch(batch, encode, store)


@pytest.mark.parametrize("stored", ["none", "a", "ad", "abcd"])
def test_what_is_not_finite_is_set_aside_and_changes_no_other(
    audio, tmp_path, stored
):
    """Beside any that were stored before, and stored with them or not."""

    def encode(wavs, lens):
        return wavs.unfold(1, 320, 320), lens

    def overflow(wavs, lens):
        features, lens = encode(wavs, lens)
        frames = (lens * wavs.shape[1]).round()
        features[frames == LENGTHS["b"], 2, 3] = torch.nan
        features[frames == LENGTHS["c"], 1, 0] = -torch.inf
        return features, lens

    expected = rows_of(*encode_batch(batch_of("ad", audio), encode))
    store = None
    if stored != "none":
        store = FeatureStore(tmp_path, {}, dtype="float32")
        encode_batch(
            batch_of(set(stored) - {"b", "c"}, audio, store), encode, store
        )
    batch, bad = batch_of("abcd", audio, store), []
    found = encode_batch(batch, overflow, store, bad.append)
    assert (batch.id, len(batch), list(batch.emotion)) == (
        ["a", "d"],
        2,
        ["happy"] * 2,
    )
    assert len(batch.duration) == 2
    assert [one.utterance for one in bad] == ["b", "c"]
    assert batch.bad == bad
    assert "not finite" in bad[0].reason
    for one, other in zip(rows_of(*found), expected, strict=True):
        torch.testing.assert_close(one, other)
    if store is not None:
        again = batch_of("abcd", audio, store)
        assert len(again.rows["stored"]) == 2  # and nothing of the others


def test_a_batch_of_which_nothing_is_finite_is_empty(audio, tmp_path):
    def overflow(wavs, lens):
        return torch.full((len(wavs), 4, 8), torch.nan), lens

    store = FeatureStore(tmp_path, {}, dtype="float32")
    for where in (None, store):
        batch, bad = batch_of("ab", audio, where), []
        features, lens = encode_batch(batch, overflow, where, bad.append)
        assert (len(batch), len(features), len(lens)) == (0, 0, 0)
        assert [one.utterance for one in bad] == ["a", "b"]
        with pytest.raises(InputError, match=r"utterance a: .*not finite"):
            encode_batch(batch_of("ab", audio, where), overflow, where)
