"""The lobes at any size with random weights, made on the device itself.

Eight billion parameters are made in seconds on a GPU; made on the CPU, or
written to disk and read again, they would take longer than what is measured.
"""

from dataclasses import dataclass

import torch
from material import PROMPT, emotional_llama
from safetensors.torch import save_file
from speechbrain.integrations.huggingface.whisper import Whisper
from transformers import (
    AutoModel,
    LlamaConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
)

from speechbrain_mser.lobes.llama import EmotionLLaMA
from speechbrain_mser.lobes.whisper import WhisperEncoder


@dataclass(frozen=True)
class Shape:
    """The sizes of a system, and of the work that it is measured with.

    Arguments
    ---------
    whisper : dict
        Settings of `transformers.WhisperConfig`.
    connector : dict
        Arguments of `build_connector`.
    llama : dict
        Settings of `transformers.LlamaConfig`.
    batches : tuple of int
        Batch sizes.
    batch : int
        The one among them that the targets are for: the recipes' own.
    stored : int
        Utterances whose features are stored on disk.
    matrix : int
        Side of the matrices whose product says how fast the machine is.
    copied : int
        Bytes that are copied to see its memory's bandwidth.
    """

    whisper: dict
    connector: dict
    llama: dict
    batches: tuple
    batch: int
    stored: int
    matrix: int
    copied: int


SHAPES = {
    # openai/whisper-large-v3, bert-base-uncased, meta-llama/Meta-Llama-3-8B
    "real": Shape(
        whisper={
            "d_model": 1280,
            "encoder_layers": 32,
            "encoder_attention_heads": 20,
            "encoder_ffn_dim": 5120,
            "num_mel_bins": 128,
            "vocab_size": 51866,
        },
        connector={
            "n_queries": 32,
            "query_dim": 256,
            "n_layers": 12,
            "hidden_size": 768,
            "n_heads": 12,
            "intermediate_size": 3072,
        },
        llama={
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 14336,
            "vocab_size": 128256,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
        },
        batches=(8, 16, 32, 64),
        batch=16,
        stored=256,
        matrix=8192,
        copied=4 << 30,
    ),
    "tiny": Shape(
        whisper={
            "d_model": 32,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "num_mel_bins": 80,
            "vocab_size": 64,
        },
        connector={
            "n_queries": 4,
            "query_dim": 16,
            "n_layers": 2,
            "hidden_size": 32,
            "n_heads": 2,
            "intermediate_size": 64,
        },
        llama={
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 128,
            "vocab_size": 64,
        },
        batches=(2, 4),
        batch=4,
        stored=8,
        matrix=64,
        copied=1 << 20,
    ),
}


class _Random:
    """Weights at random, as transformers initialises them, in bfloat16."""

    def _from_pretrained(self, source, **kwargs):
        del source, kwargs
        self.model = self.auto_class.from_config(
            self.config, dtype=torch.bfloat16
        )
        self.digest = None  # of weights that are in no file


class _RandomWhisper(WhisperEncoder):
    def _load_model(self, folder, config):
        del folder
        model = AutoModel.from_config(config, dtype=torch.bfloat16)
        model.decoder = None
        return model, None  # no digest of weights that are in no file


class _RandomPeer(_Random, Whisper):
    pass


class _RandomLLaMA(_Random, EmotionLLaMA):
    pass


def random_whisper(shape, device, scratch, **kwargs):
    """Our encoder with random weights.

    Arguments
    ---------
    shape : Shape
        Its size.
    device : str
        Where it is made.
    scratch : pathlib.Path
        For its small files.
    **kwargs : dict
        Further arguments of `WhisperEncoder`.

    Returns
    -------
    WhisperEncoder
        Frozen, in bfloat16.
    """
    folder = _whisper_folder(shape, scratch)
    with torch.device(device):
        lobe = _RandomWhisper(folder, dtype="bfloat16", **kwargs)
    return lobe.to(device)


def random_peer(shape, device, scratch):
    """SpeechBrain's own Whisper with random weights, as `random_whisper`."""
    folder = _whisper_folder(shape, scratch)
    with torch.device(device):
        lobe = _RandomPeer(str(folder), "", encoder_only=True, freeze=True)
    return lobe.to(device)


def random_llama(shape, device, scratch, **kwargs):
    """Our LLM with random weights and a tokenizer of whole words.

    Arguments
    ---------
    shape : Shape
        Its size.
    device : str
        Where it is made.
    scratch : pathlib.Path
        For its small files.
    **kwargs : dict
        Further arguments of `EmotionLLaMA`.

    Returns
    -------
    EmotionLLaMA
        Frozen, in bfloat16.
    """
    # A small one with its weights; then another shape in its configuration.
    folder = emotional_llama(scratch, vocab_size=64)
    LlamaConfig(**shape.llama).save_pretrained(folder)
    with torch.device(device):
        lobe = _RandomLLaMA(folder, prompt=PROMPT, dtype="bfloat16", **kwargs)
    return lobe.to(device)


def _whisper_folder(shape, scratch):
    """All of a Whisper but its weights; of its decoder the least."""
    folder = scratch / "whisper"
    WhisperConfig(
        **shape.whisper,
        decoder_layers=1,
        decoder_attention_heads=shape.whisper["encoder_attention_heads"],
        decoder_ffn_dim=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    ).save_pretrained(folder)
    WhisperFeatureExtractor(
        feature_size=shape.whisper["num_mel_bins"]
    ).save_pretrained(folder)
    # A folder must hold weights; nobody reads these.
    save_file({}, folder / "model.safetensors")
    return folder
