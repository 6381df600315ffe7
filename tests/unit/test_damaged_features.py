"""Stored features after flipped bits and cuts: found, and made again."""

import os
import random

import pytest
import torch
from processes import as_nobody, in_processes

from speechbrain_mser.dataio.utterances import read_stored
from speechbrain_mser.errors import InputError
from speechbrain_mser.features.records import DTYPES, DamagedFeaturesError
from speechbrain_mser.features.store import FeatureStore

NAN = float("nan")
SHAPE = (40, 64)


def open_store(folder, mode="write", dtype="float32"):
    return FeatureStore(folder / "features", {"layers": [0]}, mode, dtype)


def numbered(number):
    generator = torch.Generator().manual_seed(number)
    return torch.randn(SHAPE, generator=generator)


@pytest.fixture
def wav(tmp_path):
    """A file; the store does not ask whether it is audio."""
    path = tmp_path / "a.wav"
    path.write_bytes(b"some audio")
    return path


def stored(folder, wav, count=20, dtype="float32"):
    """A store with so many utterances."""
    store = open_store(folder, dtype=dtype)
    for number in range(count):
        store.put(store.key(wav, number), numbered(number))
    return store


def path_of(store, wav, number):
    """The file of an utterance."""
    return store.folder / store.key(wav, number).features


def flip(path, place, bit=0):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_flipped_bit_of_a_record_is_found(tmp_path, wav, dtype):
    store = stored(tmp_path, wav, 1, dtype)
    path, key = path_of(store, wav, 0), store.key(wav, 0)
    whole = path.read_bytes()
    draw = random.Random(0)
    for place in [*range(17), *draw.sample(range(len(whole)), 300)]:
        flip(path, place, draw.randrange(8))
        with pytest.raises(DamagedFeaturesError, match="checksum"):
            store.get(key)
        path.write_bytes(whole)
    assert torch.equal(store.get(key), store.put(key, numbered(0)))


def test_a_record_in_anothers_place_is_found(tmp_path, wav):
    store = stored(tmp_path, wav, 2)
    os.replace(path_of(store, wav, 0), path_of(store, wav, 1))
    with pytest.raises(DamagedFeaturesError, match="checksum"):
        store.get(store.key(wav, 1))


def test_damaged_features_are_encoded_again_and_named(tmp_path, wav, caplog):
    store = stored(tmp_path, wav)
    path = path_of(store, wav, 7)
    flip(path, 1234)
    for number in range(20):
        key = store.key(wav, number)
        if number != 7:
            assert torch.equal(store.get(key), numbered(number))
            continue
        with pytest.raises(DamagedFeaturesError, match="checksum"):
            store.get(key)
        # No audio: what is said of it shows that it was asked for.
        found = read_stored("utt-7", str(wav), 7, NAN, store)
        assert "utt-7" in found.utterance
        assert "utterance utt-7: its stored features are damaged" in caplog.text
        assert str(path) in caplog.text
        store.put(key, numbered(7))
        assert torch.equal(store.get(key), numbered(7))


@pytest.mark.parametrize("seed", range(3))
def test_bits_flipped_anywhere_are_never_read_as_features(tmp_path, wav, seed):
    """In what is said of audio files too: that is read again."""
    store = stored(tmp_path, wav, 6)
    paths = [path for path in store.folder.glob("*/*/*") if path.is_file()]
    assert len(paths) == 7
    draw = random.Random(seed)
    n_damaged = 0
    for _ in range(60):
        path = draw.choice(paths)
        whole = path.read_bytes()
        flip(path, draw.randrange(len(whole)), draw.randrange(8))
        again = open_store(tmp_path, "read")
        for number in range(6):
            try:
                features = again.get(again.key(wav, number))
                assert torch.equal(features, numbered(number))
            except DamagedFeaturesError as error:
                assert str(path) in str(error)
                n_damaged += 1
        path.write_bytes(whole)
    assert 30 < n_damaged < 60


@pytest.mark.parametrize("left", [0, 3, 4, 10, 16, 17, 5000, -1])
def test_a_file_cut_short_is_named_and_ends_no_process(tmp_path, wav, left):
    store = stored(tmp_path, wav)
    key, path = store.key(wav, 1), path_of(store, wav, 1)
    os.truncate(path, left % os.path.getsize(path))
    with pytest.raises(DamagedFeaturesError) as error:
        open_store(tmp_path, "read").get(key)
    assert str(path) in str(error.value)
    store.put(key, numbered(1))
    assert torch.equal(store.get(key), numbered(1))


@pytest.mark.parametrize("size", [0, 5, 20])
def test_audio_files_are_told_apart_after_a_power_cut(tmp_path, wav, size):
    """It leaves files empty, short, or zeros."""
    other = tmp_path / "b.wav"
    other.write_bytes(b"other audio")
    store = stored(tmp_path, wav, 1)
    store.put(store.key(other, 0), numbered(1))
    for path in store.folder.glob("audio/*/*"):
        assert path.stat().st_size == 20
        path.write_bytes(bytes(size))
    for number, path in enumerate((wav, other)):
        assert torch.equal(store.get(store.key(path, 0)), numbered(number))
        # Known from now on
        assert store.key(path, 0).known


@pytest.mark.skipif(os.getuid() != 0, reason="only root has two users")
def test_a_file_without_permission_is_said(shared_folder):
    wav = shared_folder / "a.wav"
    wav.write_bytes(b"some audio")
    store = stored(shared_folder, wav)
    path = path_of(store, wav, 3)
    path.chmod(0o600)

    def use():
        as_nobody()
        store = open_store(shared_folder, "read")
        with pytest.raises(InputError) as error:
            store.get(store.key(wav, 3))
        return str(error.value)

    (said,) = in_processes(use)
    assert f"{path}: permission denied" in said
