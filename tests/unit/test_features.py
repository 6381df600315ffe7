"""The feature store: nothing stale, nothing changed, nothing lost."""

import logging
import os
import random
import resource
import shutil
import signal
import struct
import time

import pytest
import torch
from processes import FORK, as_nobody, in_processes, start
from torch.utils.data import DataLoader

from speechbrain_mser.dataio.batching import UtteranceBatch
from speechbrain_mser.dataio.cached_encoding import encode_batch
from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.dataio.utterances import make_dataset
from speechbrain_mser.errors import InputError
from speechbrain_mser.features import store as store_module
from speechbrain_mser.features.records import DTYPES
from speechbrain_mser.features.store import FeatureStore

SETTINGS = {"encoder": "0123", "layers": [0, 2], "pad_to_30s": False}


def open_store(folder, mode="write", dtype="float32", **changes):
    return FeatureStore(folder, {**SETTINGS, **changes}, mode, dtype)


@pytest.fixture
def wav(tmp_path):
    """A file; the store does not ask whether it is audio."""
    path = tmp_path / "a.wav"
    path.write_bytes(b"some audio")
    return path


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "features"


def numbered(number):
    """The features of an utterance that begins at this second."""
    generator = torch.Generator().manual_seed(number)
    return torch.randn(7 + number % 5, 30, generator=generator)


def put_numbered(store, wav, numbers):
    for number in numbers:
        store.put(store.key(wav, number), numbered(number))


def utterances_in(folder):
    """The files of the utterances in a store's or in all stores' folder."""
    return sorted(folder.glob("**/utterances/*/*"))


def missing(store, wav, numbers):
    """Which of these utterances are not there, or are not what was put."""
    found = {n: store.get(store.key(wav, n)) for n in numbers}
    return [
        n
        for n, features in found.items()
        if features is None or not torch.equal(features, numbered(n))
    ]


# What is stored


@pytest.mark.parametrize("shape", [(5, 3), (1, 5, 3), (4, 5, 3), (1, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_read_is_what_put_returned(folder, wav, dtype, shape):
    features = torch.randn(shape) * torch.logspace(-3, 3, shape[-1])
    store = open_store(folder, dtype=dtype)
    put = store.put(store.key(wav), features)
    again = open_store(folder, "read", dtype)
    read = again.get(again.key(wav))
    assert read.shape == features.shape
    assert read.dtype == put.dtype
    assert torch.equal(read, put)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_floats_are_rounded_as_torch_does(folder, wav, dtype, given):
    features = (torch.randn(3, 50, 8) * 1000).to(given)
    store = open_store(folder, dtype=dtype)
    put = store.put(store.key(wav), features)
    expected = features.to(getattr(torch, dtype))
    assert torch.equal(put, expected)
    assert torch.equal(store.get(store.key(wav)), expected)


def test_float32_is_kept_bit_for_bit(folder, wav):
    bits = torch.tensor([0, 1, 0x80000000, 0x7F7FFFFF, 0x80000001, 0x3DCCCCCD])
    features = bits.to(torch.uint32).view(torch.float32).view(3, 2)
    store = open_store(folder)
    store.put(store.key(wav), features)
    read = store.get(store.key(wav))
    assert torch.equal(read.view(torch.int32), features.view(torch.int32))


def test_views_are_stored_in_their_own_order(folder, wav):
    features = torch.randn(6, 5, 4)[::2].transpose(1, 2)[..., 1:4]
    store = open_store(folder)
    store.put(store.key(wav), features)
    assert torch.equal(store.get(store.key(wav)), features)


def test_int8_by_hand(folder, wav):
    # Dimension 0 spans 0 to 255: steps of 1. Dimension 1 spans -10 to 41, in
    # steps of 0.2. Dimension 2 is constant.
    features = torch.tensor(
        [[0.0, -10.0, 7.7], [255.0, 41.0, 7.7], [100.4, 1.07, 7.7]]
    )
    expected = torch.tensor(
        [[0.0, -10.0, 7.7], [255.0, 41.0, 7.7], [100.0, 1.0, 7.7]]
    )
    store = open_store(folder, dtype="int8")
    found = store.put(store.key(wav), features)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(found[:, 2], features[:, 2])


@pytest.mark.parametrize("seed", range(20))
def test_int8_is_off_by_half_a_step_at_most(folder, wav, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (1 + seed % 3, 2 + 7 * seed, 6)
    # Each layer and dimension around another value, spread over another range
    centre = torch.randn(shape[0], 1, 6, generator=generator) * 10
    spread = 10 ** (4 * torch.rand(shape[0], 1, 6, generator=generator) - 2)
    features = centre + spread * torch.randn(shape, generator=generator)
    store = open_store(folder, dtype="int8")
    error = store.put(store.key(wav), features).double() - features.double()
    step = (features.amax(1) - features.amin(1)).double() / 255
    # and the rounding of float32
    slack = 4 * torch.finfo(torch.float32).eps * features.abs().amax(1)
    assert (error.abs().amax(1) <= step / 2 + slack).all()


def test_int8_takes_a_quarter_of_float32(folder, wav):
    sizes = {}
    for dtype in ("int8", "float16", "float32"):
        store = open_store(folder, dtype=dtype)
        store.put(store.key(wav), torch.randn(2000, 64))
        (path,) = utterances_in(store.folder)
        sizes[dtype] = path.stat().st_size
    assert sizes["int8"] < 0.3 * sizes["float32"]
    assert sizes["float16"] < 0.55 * sizes["float32"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_features_that_are_not_finite_are_refused(folder, wav, dtype, value):
    features = torch.randn(5, 3)
    features[2, 1] = value
    store = open_store(folder, dtype=dtype)
    with pytest.raises(InputError, match="not finite"):
        store.put(store.key(wav), features)
    assert store.get(store.key(wav)) is None


def test_what_is_too_large_for_float16_is_refused(folder, wav):
    features = torch.full((3, 2), 65504.0)
    store = open_store(folder, dtype="float16")
    assert torch.equal(store.put(store.key(wav), features).float(), features)
    with pytest.raises(InputError, match="bfloat16 or float32"):
        store.put(store.key(wav, 1.0), 2 * features)
    assert store.get(store.key(wav, 1.0)) is None


# Under which name


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": "0124"},
        {"layers": [2, 0]},
        {"layers": [0]},
        {"layers": 0},
        {"pad_to_30s": True},
        {"decoding": {"resampler": "soxr VHQ"}},
        {"dtype": "float16"},
        {"dtype": "int8"},
    ],
    ids=str,
)
def test_other_settings_find_nothing(folder, wav, change):
    store = open_store(folder)
    store.put(store.key(wav), torch.randn(5, 3))
    other = open_store(folder, **change)
    assert other.get(other.key(wav)) is None
    with pytest.raises(InputError, match="set features to write"):
        open_store(folder, "read", **{**change, "encoder": "4567"})


def test_what_is_there_in_another_dtype_is_said(folder, wav, caplog):
    for dtype in ("float32", "int8"):
        store = open_store(folder, dtype=dtype)
        store.put(store.key(wav), torch.randn(5, 3))
        # Itself it is no other, and one before it is said.
        assert ("such in float32" in caplog.text) == (dtype == "int8")
        open_store(folder, dtype=dtype)
    assert caplog.text.count("WARNING") == 1
    said = "here bfloat16; there are such in float32 and int8"
    with pytest.raises(InputError, match=said):
        open_store(folder, "read", "bfloat16")
    caplog.clear()
    open_store(folder, dtype="float16", layers=[0])
    assert not caplog.text


def test_records_of_another_version_are_not_misread(folder, wav, monkeypatch):
    store = open_store(folder)
    store.put(store.key(wav), torch.randn(5, 3))
    monkeypatch.setattr(
        store_module, "RECORD_VERSION", store_module.RECORD_VERSION + 1
    )
    other = open_store(folder)
    assert other.get(other.key(wav)) is None


def test_rewritten_audio_is_not_found(folder, wav):
    times = wav.stat()
    store = open_store(folder)
    store.put(store.key(wav), torch.randn(5, 3))
    # Another content of the same size, in the same file, its time set back
    with open(wav, "r+b") as file:
        file.write(b"Some")
    os.utime(wav, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert wav.stat().st_size == times.st_size
    assert wav.stat().st_mtime_ns == times.st_mtime_ns
    for each in (store, open_store(folder)):
        assert each.get(each.key(wav)) is None
    # and the first content again
    wav.write_bytes(b"some audio")
    assert store.get(store.key(wav)) is not None


def test_each_part_of_a_file_is_an_utterance(folder, wav):
    nan = float("nan")
    parts = [(nan, nan), (1.5, nan), (nan, 1.5), (1.5, 2.5), (1.5, 2.5000001)]
    store = open_store(folder)
    for number, part in enumerate(parts):
        assert store.get(store.key(wav, *part)) is None
        store.put(store.key(wav, *part), numbered(number))
    for number, part in enumerate(parts):
        found = store.get(store.key(wav, *part))
        assert torch.equal(found, numbered(number))


@pytest.fixture
def digested(monkeypatch):
    """The files that were read for their digest."""
    paths = []
    file_digest = store_module.file_digest

    def counting(path):
        paths.append(path)
        return file_digest(path)

    monkeypatch.setattr(store_module, "file_digest", counting)
    return paths


def test_copied_or_renamed_audio_is_found_and_remembered(
    folder, wav, tmp_path, digested
):
    store = open_store(folder)
    store.put(store.key(wav), numbered(3))
    copy, renamed = tmp_path / "copy.wav", tmp_path / "renamed.wav"
    shutil.copyfile(wav, copy)
    wav.rename(renamed)
    for path in (copy, renamed):
        key = store.key(path)
        assert not key.known
        assert torch.equal(store.get(key), numbered(3))
    assert digested == [wav, copy, renamed]
    # From now on neither is read again.
    for again in (store, open_store(folder), open_store(folder, "read")):
        for path in (copy, renamed):
            assert again.key(path).known
            assert torch.equal(again.get(again.key(path)), numbered(3))
    assert digested == [wav, copy, renamed]


def test_a_long_recording_is_digested_once(folder, wav, digested):
    reader = open_store(folder)
    keys = [reader.key(wav, float(n)) for n in range(5)]
    assert digested == [wav]
    assert not any(key.known for key in keys)
    writer = open_store(folder)
    writer.put(keys[0], numbered(0))
    assert all(reader.key(wav, float(n)).known for n in range(5))
    assert digested == [wav]


def test_without_a_file_there_is_no_key(folder, tmp_path):
    with pytest.raises(FileNotFoundError):
        open_store(folder).key(tmp_path / "none.wav")


def test_a_moved_store_is_still_one(folder, wav, tmp_path):
    put_numbered(open_store(folder), wav, range(3))
    folder.rename(tmp_path / "moved")
    moved = open_store(tmp_path / "moved", "read")
    assert missing(moved, wav, range(3)) == []


# Several processes


@pytest.mark.parametrize("n_writers", [2, 4])
def test_writers_at_once_lose_nothing(folder, wav, n_writers):
    """Each in an order of its own, so that some write the same at once."""
    begun = FORK.Barrier(n_writers)

    def write(seed):
        numbers = random.Random(seed).sample(range(60), 60)
        store = open_store(folder)
        begun.wait(60)
        put_numbered(store, wav, numbers)
        return missing(store, wav, range(60))

    writers = [lambda seed=seed: write(seed) for seed in range(n_writers)]
    assert in_processes(*writers) == [[]] * n_writers
    assert missing(open_store(folder), wav, range(60)) == []
    assert len(utterances_in(folder)) == 60
    assert list(folder.glob("*/partial/*")) == []


def test_all_that_was_announced_survives_a_kill(folder, wav):
    rng = random.Random(0)
    announced = 0
    for _ in range(10):
        reads, writes = os.pipe()

        def write(first=announced, pipe=writes):
            store = open_store(folder)
            for number in range(first, first + 10_000):
                put_numbered(store, wav, [number])
                os.write(pipe, struct.pack("<I", number))

        process = FORK.Process(target=write)
        process.start()
        os.close(writes)
        said = os.read(reads, 4)
        # Anywhere in one of the next writes
        time.sleep(rng.uniform(0, 0.01))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        while more := os.read(reads, 4):
            said = more
        os.close(reads)
        (last,) = struct.unpack("<I", said)
        assert last >= announced
        announced = last + 1
        reader = open_store(folder, "read")
        assert missing(reader, wav, range(announced)) == []
        # At most the one that was not announced yet
        assert announced <= len(utterances_in(folder)) <= announced + 1
    store = open_store(folder)
    put_numbered(store, wav, range(announced, announced + 3))
    assert missing(store, wav, range(announced + 3)) == []


def test_what_a_kill_left_behind_is_removed_a_day_later(folder):
    partial = open_store(folder).folder / "partial"
    for name, hours in (("old", 25), ("new", 23)):
        (partial / name).write_bytes(b"half")
        os.utime(partial / name, (time.time() - 3600 * hours,) * 2)
    open_store(folder)
    assert [path.name for path in partial.iterdir()] == ["new"]


def test_readers_in_other_processes_see_what_is_written(folder, wav):
    put_numbered(open_store(folder), wav, [0])
    steps = [FORK.Semaphore(0), FORK.Semaphore(0)]

    def read(step):
        store = open_store(folder, "read")
        found = []
        for number in range(20):
            step.acquire(timeout=600)
            found.append(missing(store, wav, range(number + 1)))
        return found

    readers = [start(lambda step=step: read(step)) for step in steps]
    writers = [open_store(folder), open_store(folder)]
    for number in range(20):
        put_numbered(writers[number % 2], wav, [number])
        for step in steps:
            step.release()
    for process, answer in readers:
        assert answer.recv() == [[]] * 20
        process.join(60)
        assert process.exitcode == 0


@pytest.mark.parametrize(
    ("context", "n_workers"), [("fork", 2), ("spawn", 1)], ids=str
)
def test_workers_see_what_was_written_since(
    tiny_corpus, folder, context, n_workers
):
    table = read_manifest(
        tiny_corpus / "manifests" / "tiny.csv",
        tiny_corpus / "corpora" / "tiny",
    ).head(12)
    store = open_store(folder)
    loader = DataLoader(
        make_dataset(table, store),
        batch_size=3,
        num_workers=n_workers,
        collate_fn=UtteranceBatch,
        multiprocessing_context=context,
        persistent_workers=True,
    )

    def encode(wavs, lens):
        return wavs.unfold(1, 320, 320), lens

    epochs = []
    for _ in range(3):
        n_encoded, features = 0, []
        for batch in loader:
            n_encoded += len(batch.rows["sig"])
            features.append(encode_batch(batch, encode, store)[0])
        epochs.append((n_encoded, features))
    assert [n for n, _ in epochs] == [12, 0, 0]
    for first, second, third in zip(*(f for _, f in epochs), strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, third)


# What goes wrong


def test_a_store_may_be_removed_and_made_again(folder, wav, caplog):
    store = open_store(folder)
    put_numbered(store, wav, range(3))
    shutil.rmtree(folder)
    put_numbered(store, wav, [3])
    assert "can no longer be stored (No such file or directory)" in caplog.text
    assert not folder.exists()
    again = open_store(folder)
    put_numbered(again, wav, range(3))
    assert missing(again, wav, range(3)) == []


def test_reading_nothing_says_what_to_do(folder):
    for _ in range(2):
        with pytest.raises(InputError, match="set features to write to make"):
            open_store(folder, "read")
        # A writer that was killed before it had encoded anything
        open_store(folder)


def test_stores_of_earlier_versions_are_said_and_made_anew(folder, wav, caplog):
    store = open_store(folder)
    (store.folder / "host-0.lmdb").write_bytes(b"a database")
    caplog.clear()
    store = open_store(folder)
    assert f"{folder}: features of an earlier version" in caplog.text
    assert store.get(store.key(wav)) is None
    put_numbered(store, wav, [0])
    assert missing(open_store(folder, "read"), wav, [0]) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mode": "append"}, "off, read, write"),
        ({"dtype": "int4"}, "float32, float16, bfloat16, int8"),
    ],
)
def test_other_words_are_refused(folder, changes, expected):
    with pytest.raises(InputError, match=expected):
        open_store(folder, **changes)
    assert not folder.exists()


def test_read_mode_writes_nothing(folder, wav):
    put_numbered(open_store(folder), wav, range(3))

    def snapshot():
        return {
            path: (path.stat().st_mtime_ns, path.is_dir() or path.read_bytes())
            for path in folder.glob("**/*")
        }

    before = snapshot()
    store = open_store(folder, "read")
    assert missing(store, wav, range(3)) == []
    put = store.put(store.key(wav, 7), numbered(7))
    assert torch.equal(put, numbered(7))
    assert store.get(store.key(wav, 7)) is None
    copy = shutil.copyfile(wav, wav.with_name("copy.wav"))
    assert missing(store, copy, range(3)) == []
    assert snapshot() == before


def test_a_folder_that_cannot_be_written_is_read(shared_folder):
    wav = shared_folder / "a.wav"
    wav.write_bytes(b"some audio")
    store = open_store(shared_folder)
    put_numbered(store, wav, range(3))
    store.folder.chmod(0o555)

    def read():
        as_nobody()
        store = open_store(shared_folder, "read")
        found = missing(store, wav, range(3))
        try:
            open_store(shared_folder)
        except InputError as error:
            return found, str(error)
        return found, None

    ((found, said),) = in_processes(read)
    assert found == []
    assert "Permission denied" in said
    assert "features to read" in said


@pytest.mark.skipif(os.getuid() != 0, reason="only root has two users")
def test_two_users_write_into_a_folder_that_both_may_write(shared_folder):
    wav = shared_folder / "a.wav"
    wav.write_bytes(b"some audio")

    def write(first):
        os.umask(0)
        if first:
            as_nobody()
        store = open_store(shared_folder)
        put_numbered(store, wav, range(first, first + 60))
        return missing(store, wav, range(first + 60))

    for first in (0, 60):
        assert in_processes(lambda first=first: write(first)) == [[]]
    assert missing(open_store(shared_folder), wav, range(120)) == []


@pytest.mark.parametrize("n_stored", [0, 5])
def test_a_disk_that_fills_up_ends_nothing(folder, wav, n_stored, caplog):
    def fill():
        store = open_store(folder)
        put_numbered(store, wav, range(n_stored))
        # Half of an utterance's features
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
        with caplog.at_level(logging.WARNING):
            for number in range(n_stored, 20):
                put = store.put(store.key(wav, number), numbered(number))
                assert torch.equal(put, numbered(number))
        said = caplog.text.count("can no longer be stored (File too large)")
        return missing(store, wav, range(20)), said

    assert in_processes(fill) == [([*range(n_stored, 20)], 1)]
    assert list(folder.glob("*/partial/*")) == []
    # With room again, it goes on.
    store = open_store(folder)
    put_numbered(store, wav, range(n_stored, 20))
    assert missing(store, wav, range(20)) == []
