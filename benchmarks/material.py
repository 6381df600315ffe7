"""What benchmarks work on: real speech and weights, or stand-ins."""

import random
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from speechbrain_mser.emotions import CANONICAL

PROMPT = "What is the emotion of the speaker ? Answer with one word :"


def whisper_base(data, scratch):
    """A folder with Whisper-base's encoder: the real one, or random weights.

    Arguments
    ---------
    data : pathlib.Path
        May hold ``whisper-base-encoder``.
    scratch : pathlib.Path
        Where a random one is written.

    Returns
    -------
    pathlib.Path
        The folder.
    """
    real = data / "whisper-base-encoder"
    if real.is_dir():
        return real
    print(f"{real} is not there: random weights")
    folder = scratch / "whisper"
    config = WhisperConfig(
        d_model=512,
        encoder_layers=6,
        encoder_attention_heads=8,
        encoder_ffn_dim=2048,
        decoder_layers=1,
        decoder_attention_heads=8,
        decoder_ffn_dim=64,
    )
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


def sample_of(data, corpora, count, scratch, seed=0):
    """Rows of a manifest: a sample of real corpora, or noise.

    Arguments
    ---------
    data : pathlib.Path
        May hold ``speech/<corpus>``, with WAV or FLAC files below.
    corpora : list of str
        Their folders' names.
    count : int
        How many utterances; 0 takes all.
    scratch : pathlib.Path
        Where noise is written.
    seed : int
        Of the sample.

    Returns
    -------
    list of dict
        ID, wav, start, stop, duration, corpus, emotion (assigned at random: a
        benchmark learns nothing).
    """
    chosen = random.Random(seed)
    folders = [data / "speech" / name for name in corpora]
    paths = sorted(
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix.lower() in (".wav", ".flac")
    )
    if paths:
        paths = chosen.sample(paths, count) if count else paths
    else:
        print(f"{data / 'speech'} has no {' or '.join(corpora)}: noise")
        paths = _noise(scratch, count or 64, seed)
    return [
        {
            "ID": f"{number}_{path.stem}",
            "wav": str(path),
            "start": float("nan"),
            "stop": float("nan"),
            "duration": soundfile.info(path).duration,
            "corpus": "any",
            "emotion": CANONICAL[chosen.randrange(len(CANONICAL))],
        }
        for number, path in enumerate(paths)
    ]


def _noise(scratch, count, seed):
    """As many files of 3 to 5 s at 48 kHz, as RAVDESS's are."""
    rng = np.random.default_rng(seed)
    paths = []
    for number in range(count):
        path = scratch / f"noise{number}.wav"
        samples = rng.normal(0, 0.1, int(rng.uniform(3, 5) * 48000))
        soundfile.write(path, samples, 48000)
        paths.append(path)
    return paths


def emotional_llama(scratch, words=CANONICAL, **shape):
    """A folder with a LLaMA of random weights that knows emotion words.

    Arguments
    ---------
    scratch : pathlib.Path
        Where it is written.
    words : list of str
        What its tokenizer knows beside the prompt, each as one token.
    **shape : int
        Settings of `transformers.LlamaConfig`; by default a small one.

    Returns
    -------
    pathlib.Path
        The folder.
    """
    words = ["<s>", "</s>", "<unk>", *PROMPT.split(), *words]
    vocabulary = {w: number for number, w in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = Path(tempfile.mkdtemp(dir=scratch))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    ).save_pretrained(folder)
    small = {
        "vocab_size": 32000,
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    LlamaForCausalLM(LlamaConfig(**(small | shape))).save_pretrained(folder)
    return folder
