"""Fingerprints change with what they stand for, and with nothing else."""

import hashlib
import os
import shutil

import pytest
import torch

from speechbrain_mser.files.fingerprints import (
    BLOCK,
    file_digest,
    file_identity,
    settings_digest,
    weights_digest,
)
from speechbrain_mser.lobes.whisper import WhisperEncoder

# Settings

SETTINGS = {
    "encoder": "0123",
    "layers": [0, 12],
    "pad_to_30s": False,
    "decoding": {"rate": 16000, "resampler": "soxr HQ"},
}


def test_the_order_of_settings_does_not_matter():
    turned = dict(reversed(SETTINGS.items()))
    turned["decoding"] = dict(reversed(SETTINGS["decoding"].items()))
    assert list(turned) != list(SETTINGS)
    assert settings_digest(turned) == settings_digest(SETTINGS)


def test_any_other_settings_are_another_digest():
    changes = [
        {"encoder": "0124"},
        {"encoder": None},
        {"layers": [12, 0]},
        {"layers": [0, 1, 2]},
        {"layers": [0]},
        {"layers": 0},
        {"layers": [[0, 12]]},
        {"pad_to_30s": True},
        {"pad_to_30s": 0},
        {"pad_to_30s": "False"},
        {"decoding": {"rate": 16000, "resampler": "soxr VHQ"}},
        {"decoding": {"rate": 16000}},
        {"decoding": {"resampler": 16000, "rate": "soxr HQ"}},
        {"version": 1},
    ]
    digests = {settings_digest({**SETTINGS, **change}) for change in changes}
    assert len(digests - {settings_digest(SETTINGS)}) == len(changes)


# Weights


def layer(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))


def test_equal_weights_have_equal_digests():
    assert weights_digest(layer()) == weights_digest(layer())
    assert weights_digest(layer()) == weights_digest(layer().requires_grad_())
    assert weights_digest(layer(0)) != weights_digest(layer(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_last_bit_of_any_weight_or_buffer_counts(dtype):
    module = layer().to(dtype)
    digests = [weights_digest(module)]
    for tensor in module.state_dict().values():
        last = tensor.view(-1)[-1:]
        last.view(torch.uint8)[0] ^= 1
        digests.append(weights_digest(module))
        last.view(torch.uint8)[0] ^= 1
        assert weights_digest(module) == digests[0]
    assert len(set(digests)) == len(digests) == 1 + 7


def test_the_same_numbers_elsewhere_are_other_weights():
    module = layer()
    digests = {weights_digest(module)}
    linear = module[0]
    for other in (
        torch.nn.ModuleDict({"a": linear}),
        torch.nn.ModuleDict({"b": linear}),
        torch.nn.ModuleDict({"a": linear, "b": linear}),
    ):
        digests.add(weights_digest(other))
    # The same bytes in another shape, and the same numbers in another dtype
    flat = torch.nn.Linear(3, 4)
    flat.weight = torch.nn.Parameter(linear.weight.detach().view(2, 6))
    flat.bias = linear.bias
    digests.add(weights_digest(flat))
    digests.add(weights_digest(linear))
    digests.add(weights_digest(layer().double()))
    assert len(digests) == 7


def test_views_are_read_in_their_own_order():
    module = torch.nn.Linear(4, 4, bias=False)
    other = torch.nn.Linear(4, 4, bias=False)
    other.weight = torch.nn.Parameter(module.weight.detach().T.contiguous().T)
    assert not other.weight.is_contiguous()
    assert weights_digest(module) == weights_digest(other)


# The encoder's


def test_the_same_encoder_elsewhere_has_the_same_fingerprint(
    tiny_whisper, tmp_path
):
    shutil.copytree(tiny_whisper, tmp_path / "copy")
    one, other = WhisperEncoder(tiny_whisper), WhisperEncoder(tmp_path / "copy")
    assert one.fingerprint() == other.fingerprint()


def test_all_that_changes_features_changes_the_fingerprint(
    tiny_whisper, tmp_path
):
    digests = []
    for settings in (
        {},
        {"layers": 1},
        # A list of one gives a tensor with an axis more.
        {"layers": [-1]},
        {"layers": [0, 2]},
        {"layers": [2, 0]},
        {"layers": "all"},
        {"pad_to_30s": True},
        {"dtype": "bfloat16"},
    ):
        whisper = WhisperEncoder(tiny_whisper, **settings)
        digests.append(settings_digest(whisper.fingerprint()))
    whisper = WhisperEncoder(tiny_whisper)
    with torch.no_grad():
        whisper.model.encoder.layers[1].fc1.weight[3, 5] += 1e-3
    digests.append(settings_digest(whisper.fingerprint()))
    # The same weights, used in another way
    shutil.copytree(tiny_whisper, tmp_path / "heads")
    config = tmp_path / "heads" / "config.json"
    text = config.read_text()
    assert '"encoder_attention_heads": 2' in text
    config.write_text(
        text.replace(
            '"encoder_attention_heads": 2', '"encoder_attention_heads": 4'
        )
    )
    whisper = WhisperEncoder(tmp_path / "heads")
    digests.append(settings_digest(whisper.fingerprint()))
    assert len(set(digests)) == len(digests)


def test_two_ways_of_naming_a_layer_are_one(tiny_whisper):
    assert (
        WhisperEncoder(tiny_whisper, layers=-1).fingerprint()
        == WhisperEncoder(tiny_whisper, layers=3).fingerprint()
    )


# Files


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 1])
def test_a_files_digest_is_of_all_its_bytes(size, tmp_path):
    path = tmp_path / "a"
    data = torch.arange(size, dtype=torch.uint8).numpy().tobytes()
    path.write_bytes(data)
    expected = hashlib.blake2b(data, digest_size=16).digest()
    assert file_digest(path) == expected
    # Not of its name or times
    os.utime(path, (1, 1))
    path.rename(tmp_path / "b")
    assert file_digest(tmp_path / "b") == expected


def test_a_file_that_was_not_touched_keeps_its_identity(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"some")
    before = file_identity(tmp_path / "a")
    (tmp_path / "a").read_bytes()
    assert file_identity(tmp_path / "a") == before
    monkeypatch.chdir(tmp_path)
    assert file_identity("a") == before


def test_any_change_of_a_file_is_another_identity(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"some")
    seen = [file_identity(path)]
    times = path.stat()

    def change(how):
        how()
        # Copying tools set this one back.
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert path.stat().st_mtime_ns == times.st_mtime_ns
        seen.append(file_identity(path))

    def in_place():
        with open(path, "r+b") as file:
            file.write(b"Some")

    def replaced():
        (tmp_path / "b").write_bytes(b"SOME")
        os.replace(tmp_path / "b", path)

    change(lambda: path.write_bytes(b"more bytes"))
    change(lambda: path.write_bytes(b"sOME"))
    change(in_place)
    change(replaced)
    os.rename(path, tmp_path / "c")
    seen.append(file_identity(tmp_path / "c"))
    assert len(set(seen)) == len(seen)


def test_there_is_no_identity_without_a_file(tmp_path):
    for ask in (file_identity, file_digest):
        with pytest.raises(FileNotFoundError):
            ask(tmp_path / "none")
