"""Stored features after flipped bits and cuts: found, and made again."""

import os
import random

import lmdb
import pytest
import torch
from processes import as_nobody, in_processes

from speechbrain_mser.dataio.batching import read_stored
from speechbrain_mser.errors import InputError
from speechbrain_mser.features import records, store, store_files
from speechbrain_mser.features.records import (
    CHECKSUM,
    DTYPES,
    DamagedFeaturesError,
)
from speechbrain_mser.features.store import FeatureStore

NAN = float("nan")
# Larger than a page of LMDB's, as features are.
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


def stored(folder, wav, count=20):
    """A store's file with so many utterances, closed."""
    store = open_store(folder)
    for number in range(count):
        store.put(store.key(wav, number), numbered(number))
    (path,) = store.folder.glob("*.lmdb")
    store_files.close_file(str(path))
    return path


def flip(path, place, bit=0):
    with open(path, "r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


def place_of(path, number):
    """Where an utterance's numbers are in a file."""
    content = path.read_bytes()
    numbers = numbered(number).numpy().tobytes()
    assert content.count(numbers) == 1
    return content.index(numbers)


def without_checksum(monkeypatch):
    """Records as earlier versions wrote them."""
    encode = records.encode_record
    monkeypatch.setattr(
        store, "encode_record", lambda *given: encode(*given)[:-4]
    )


# Flipped bits


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_flipped_bit_of_a_record_is_found(dtype):
    record = records.encode_record(b"u1", numbered(0), dtype)
    records.decode_record(b"u1", record, dtype)
    draw = random.Random(0)
    for place in [*range(13), *draw.sample(range(len(record)), 300)]:
        flipped = bytearray(record)
        flipped[place] ^= 1 << draw.randrange(8)
        with pytest.raises(DamagedFeaturesError):
            records.decode_record(b"u1", bytes(flipped), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_record_of_another_length_or_name_is_found(dtype):
    record = records.encode_record(b"u1", numbered(0), dtype)
    for size in (0, 1, 11, 12, 13, 100, len(record) - 1, len(record) - 5):
        with pytest.raises(DamagedFeaturesError):
            records.decode_record(b"u1", record[:size], dtype)
    with pytest.raises(DamagedFeaturesError):
        records.decode_record(b"u1", record + b"0", dtype)
    with pytest.raises(DamagedFeaturesError, match="checksum"):
        records.decode_record(b"u2", record, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_records_of_earlier_versions_are_read(
    tmp_path, wav, dtype, monkeypatch
):
    with monkeypatch.context() as patch:
        without_checksum(patch)
        store = open_store(tmp_path, dtype=dtype)
        put = store.put(store.key(wav), numbered(0))
    got = open_store(tmp_path, "read", dtype).get(store.key(wav))
    assert torch.equal(got, put)
    assert torch.equal(store.put(store.key(wav), numbered(0)), put)
    assert torch.equal(store.get(store.key(wav)), put)


def test_damaged_features_are_encoded_again_and_named(tmp_path, wav, caplog):
    path = stored(tmp_path, wav)
    flip(path, place_of(path, 7) + 1234)
    store = open_store(tmp_path)
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


def test_what_another_writer_made_again_is_read(tmp_path, wav):
    path = stored(tmp_path, wav)
    flip(path, place_of(path, 3))
    path.rename(path.with_name("a-0.lmdb"))
    store = open_store(tmp_path)
    key = store.key(wav, 3)
    with pytest.raises(DamagedFeaturesError):
        store.get(key)
    store.put(key, numbered(3))
    assert len(list(store.folder.glob("*.lmdb"))) == 2
    for mode in ("write", "read"):
        assert torch.equal(open_store(tmp_path, mode).get(key), numbered(3))


@pytest.mark.parametrize("seed", range(3))
def test_bits_flipped_anywhere_in_a_file_never_end_a_process(
    tmp_path, wav, seed
):
    path = stored(tmp_path, wav, 6)
    whole = path.read_bytes()
    draw = random.Random(seed)
    # The pages that say where features are
    names = whole.rfind(open_store(tmp_path).key(wav, 3).features)
    store_files.close_file(str(path))

    def use():
        found = {"right": 0, "damaged": 0, "absent": 0, "refused": 0}
        for _ in range(60):
            place = draw.choice(
                (
                    draw.randrange(160),
                    4096 + draw.randrange(160),
                    names // 4096 * 4096 + draw.randrange(4096),
                    draw.randrange(len(whole)),
                )
            )
            path.write_bytes(whole)
            flip(path, place, draw.randrange(8))
            try:
                store = open_store(tmp_path, "read")
                for number in range(6):
                    try:
                        got = store.get(store.key(wav, number))
                    except DamagedFeaturesError:
                        found["damaged"] += 1
                        continue
                    if got is None:
                        found["absent"] += 1
                        continue
                    assert torch.equal(got, numbered(number))
                    found["right"] += 1
            except InputError as error:
                assert str(path) in str(error)
                found["refused"] += 1
            store_files.close_file(str(path))
        return found

    (found,) = in_processes(use)
    assert found["right"] > 100
    assert found["damaged"] > 3
    assert found["refused"] > 3


# Cut files


@pytest.mark.parametrize("few", [0, 10_000], ids=["large", "small"])
@pytest.mark.parametrize("mode", ["read", "write"])
@pytest.mark.parametrize("lost", [1, 100, 4096, 16, 32, 64, 128, None])
def test_a_file_cut_short_is_named_and_ends_no_process(
    tmp_path, wav, mode, lost, few, monkeypatch
):
    path = stored(tmp_path, wav)
    size = os.path.getsize(path)
    # 16 to 128 kB; None leaves a single byte
    lost = size - 1 if lost is None else lost * (1024 if lost < 100 else 1)
    lost = 128 * 1024 if lost == 128 else lost
    os.truncate(path, size - lost)
    monkeypatch.setattr(store_files, "FEW", few)

    def use():
        with pytest.raises(InputError) as error:
            store = open_store(tmp_path, mode)
            for number in range(20):
                store.get(store.key(wav, number))
        return str(error.value)

    (said,) = in_processes(use)
    assert str(path) in said
    assert "remove it" in said


def test_a_file_cut_to_nothing_is_begun_again(tmp_path, wav):
    path = stored(tmp_path, wav)
    os.truncate(path, 0)

    def use():
        store = open_store(tmp_path)
        assert store.get(store.key(wav, 1)) is None
        store.put(store.key(wav, 1), numbered(1))
        return torch.equal(store.get(store.key(wav, 1)), numbered(1))

    assert in_processes(use) == [True]


def test_a_file_that_ends_with_unused_pages_is_read(tmp_path, wav):
    path = stored(tmp_path, wav)
    with lmdb.open(str(path), subdir=False, map_size=1 << 30) as file:
        # Pages at the end become free, and need not be there.
        with file.begin(write=True) as change:
            change.put(b"w", bytes(100_000))
        last = file.info()["last_pgno"]
        with file.begin(write=True) as change:
            change.delete(b"w")
        assert file.info()["last_pgno"] >= last
    content = path.read_bytes()
    unused = 4096 * 20
    assert len(content) >= (last + 1) * 4096
    os.truncate(path, (last + 1) * 4096 - unused)

    def use():
        store = open_store(tmp_path, "read")
        return all(
            torch.equal(store.get(store.key(wav, number)), numbered(number))
            for number in range(20)
        )

    assert in_processes(use) == [True]


@pytest.mark.skipif(os.getuid() != 0, reason="only root has two users")
def test_a_file_without_permission_is_said(wav):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        path = stored(folder, wav)
        for place in (folder, *folder.glob("**/")):
            place.chmod(0o755)
        path.chmod(0o600)

        def use():
            as_nobody()
            with pytest.raises(InputError) as error:
                open_store(folder, "read")
            return str(error.value)

        (said,) = in_processes(use)
    assert f"{path}: permission denied" in said


def test_the_checksum_takes_four_bytes(tmp_path, wav, monkeypatch):
    store = open_store(tmp_path)
    record = records.encode_record(b"u", numbered(0), "float32")
    assert CHECKSUM.size == 4
    assert len(record) == 12 + 4 * SHAPE[0] * SHAPE[1] + 4
    assert store.mode == "write"
