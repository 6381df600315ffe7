"""Whisper out of CTranslate2's files, into what transformers reads.

CTranslate2 keeps a model as ``model.bin`` (version 6), little-endian:

    uint32 version, name of the specification, uint32 its revision
    uint32 variables, each: name, uint8 rank, uint32 dimension (rank times),
        uint8 type, uint32 bytes, the values
    uint32 aliases, each: name, name of a variable

where a name is a uint16 length, the closing zero counted, and its bytes.
"""

import re
import struct

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import WhisperConfig, WhisperFeatureExtractor

from speechbrain_mser.errors import InputError

_TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
# Of a layer's parts, the last of CTranslate2's names to transformers'.
_PARTS = {
    "conv1": "conv1",
    "conv2": "conv2",
    "layer_norm": "layer_norm",
    "self_attention/layer_norm": "self_attn_layer_norm",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
    # One below the other in one matrix
    "self_attention/linear_0": (
        *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ),
    "self_attention/linear_1": "self_attn.out_proj",
    "attention/linear_0": "encoder_attn.q_proj",
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": "encoder_attn.out_proj",
    "embeddings": "embed_tokens",
    "position_encodings": "embed_positions",
}
_VALUES = {"weight": "weight", "bias": "bias", "encodings": "weight"}
_VALUES |= {"gamma": "weight", "beta": "bias"}
# Example: decoder/layer_0/self_attention/linear_0/weight
_WEIGHT = re.compile(
    r"(encoder|decoder)/(?:layer_(\d+)/)?(.+)/(" + "|".join(_VALUES) + ")"
)


def read_variables(file):
    """The variables of a CTranslate2 model.

    Arguments
    ---------
    file : file-like
        A ``model.bin``, binary.

    Yields
    ------
    name : str
        For example "encoder/conv1/weight".
    value : numpy.ndarray
        As it is stored.

    Raises
    ------
    InputError
        The file is cut short, or another kind of file.
    """
    (version,) = _unpack(file, "I")
    if version != 6:
        raise InputError(f"CTranslate2 model of version {version}, not 6")
    _name(file)
    _, count = _unpack(file, "II")
    for _ in range(count):
        name = _name(file)
        (rank,) = _unpack(file, "B")
        shape = _unpack(file, f"{rank}I")
        kind, size = _unpack(file, "BI")
        if kind not in _TYPES:
            raise InputError(f"CTranslate2 variable {name} of type {kind}")
        value = np.frombuffer(_read(file, size), _TYPES[kind])
        yield name, value.reshape(shape)


def convert_whisper(file, folder):
    """Write a Whisper where transformers finds it, encoder and decoder.

    The weights stay what they are, bit by bit, under the names of the hub's
    ``openai/whisper-*``.

    Arguments
    ---------
    file : file-like
        A ``model.bin``, binary.
    folder : pathlib.Path
        Gets configuration, feature extractor and weights.

    Raises
    ------
    InputError
        It is no Whisper, or damaged.
    """
    sizes, weights = {}, {}
    for name, value in read_variables(file):
        if found := _WEIGHT.fullmatch(name):
            weights |= _renamed(*found.groups(), value)
        else:
            sizes[name] = value
    try:
        config = _config(sizes, weights)
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"no Whisper of CTranslate2's: {error}") from None
    config.save_pretrained(folder)
    extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    extractor.save_pretrained(folder)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _renamed(stack, layer, part, kind, value):
    """A variable under transformers' names, of which there may be three."""
    if part not in _PARTS:
        raise InputError(f"no part of a Whisper: {stack}/{part}")
    names = _PARTS[part]
    names = (names,) if isinstance(names, str) else names
    place = (
        f"model.{stack}."
        if layer is None
        else (f"model.{stack}.layers.{layer}.")
    )
    parts = zip(names, np.split(value, len(names)), strict=True)
    return {
        # Whisper's keys have no bias; CTranslate2 writes zeros
        f"{place}{name}.{_VALUES[kind]}": torch.from_numpy(one.copy())
        for name, one in parts
        if not (name.endswith("k_proj") and kind == "bias" and not one.any())
    }


def _config(sizes, weights):
    """The configuration of a multilingual Whisper with such weights."""
    layers = {
        stack: 1
        + max(
            int(name.split(".")[3])
            for name in weights
            if name.startswith(f"model.{stack}.layers.")
        )
        for stack in ("encoder", "decoder")
    }
    words, width = weights["model.decoder.embed_tokens.weight"].shape
    encoder, decoder = "model.encoder", "model.decoder"
    return WhisperConfig(
        architectures=["WhisperForConditionalGeneration"],
        dtype=str(weights[f"{encoder}.conv1.weight"].dtype).split(".")[1],
        d_model=width,
        vocab_size=words,
        num_mel_bins=weights[f"{encoder}.conv1.weight"].shape[1],
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        encoder_attention_heads=int(sizes["encoder/num_heads"]),
        decoder_attention_heads=int(sizes["decoder/num_heads"]),
        encoder_ffn_dim=len(weights[f"{encoder}.layers.0.fc1.weight"]),
        decoder_ffn_dim=len(weights[f"{decoder}.layers.0.fc1.weight"]),
        max_source_positions=len(weights[f"{encoder}.embed_positions.weight"]),
        max_target_positions=len(weights[f"{decoder}.embed_positions.weight"]),
        bos_token_id=50257,
        eos_token_id=50257,
        pad_token_id=50257,
        decoder_start_token_id=50258,
        begin_suppress_tokens=[220, 50257],
    )


def _name(file):
    (length,) = _unpack(file, "H")
    return _read(file, length).rstrip(b"\0").decode()


def _unpack(file, form):
    size = struct.calcsize(f"<{form}")
    return struct.unpack(f"<{form}", _read(file, size))


def _read(file, size):
    data = file.read(size)
    if len(data) != size:
        raise InputError("the CTranslate2 model is cut short")
    return data
