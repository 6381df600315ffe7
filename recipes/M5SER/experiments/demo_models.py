"""Builds the demo's three models: nothing is downloaded.

`whisper` and `bert` are random: a random convolutional transformer still
passes prosody on. `llama` is trained here for some seconds on the emotion
words of `demo_lexicon.yaml`, in the very format of the system's input (`[bos,
vectors, prompt, emotion word, eos]`) with the words of a description standing
where the audio will be: its space knows the emotion words and can be steered
from there. All three load with ``from_pretrained``.

Usage: python demo_models.py --save_folder data/demo
"""

import argparse
import json
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import torch
import yaml
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)
from tqdm import tqdm
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)
from transformers.utils import logging

from speechbrain_mser.emotions import CANONICAL
from speechbrain_mser.errors import exits_on_input_error

LEXICON = Path(__file__).with_name("demo_lexicon.yaml")
# Part of every model's stamp: raise it when a change below changes a model.
VERSION = 1

BOS, EOS = "<s>", "</s>"
VOCABULARY = 1000
LLAMA_STEPS = 150
LLAMA_BATCH = 32
LLAMA_LR = 3e-3
# How many words a description has; the audio may come in as many vectors.
DESCRIPTION = (3, 12)


def build_demo_models(save_folder, seed=1, llama_steps=LLAMA_STEPS):
    """Build ``whisper``, ``bert`` and ``llama``, where they are not there yet.

    Arguments
    ---------
    save_folder : str or path-like
        The folder in which the three folders go.
    seed : int
        Of the weights and the training.
    llama_steps : int
        How long the LLaMA is trained.

    Returns
    -------
    dict
        From the three names to the folders.

    Example
    -------
    >>> build_demo_models("data/demo")["llama"]  # doctest: +SKIP
    PosixPath('data/demo/llama')
    """
    lexicon = zlib.crc32(LEXICON.read_bytes())
    folders = {}
    for name, build, settings in (
        ("whisper", build_whisper, {"seed": seed}),
        ("bert", build_bert, {"seed": seed}),
        ("llama", build_llama, {"seed": seed, "steps": llama_steps}),
    ):
        folder = Path(save_folder) / name
        stamp = folder / "demo.json"
        wanted = json.dumps(
            {"version": VERSION, "lexicon": lexicon, **settings}
        )
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
            print(f"{folder}: already there")
        else:
            # Renamed when complete: a folder that is there can be used.
            for leftover in folder.parent.glob(f".{name}.*.partial"):
                shutil.rmtree(leftover, ignore_errors=True)
            partial = folder.with_name(f".{name}.{os.getpid()}.partial")
            partial.mkdir(parents=True)
            build(partial, **settings)
            (partial / "demo.json").write_text(wanted, encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(partial, folder)
            print(f"{folder}: built")
        folders[name] = folder
    return folders


def build_whisper(folder, seed):
    """A random Whisper whose encoder lets prosody through."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = WhisperModel(
            WhisperConfig(
                d_model=128,
                encoder_layers=2,
                encoder_attention_heads=4,
                encoder_ffn_dim=256,
                decoder_layers=1,
                decoder_attention_heads=4,
                decoder_ffn_dim=64,
                num_mel_bins=80,
                vocab_size=64,
                max_target_positions=16,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
                decoder_start_token_id=1,
            )
        )
        encoder = model.encoder
        # Whisper's own initialisation leaves the signal two orders of
        # magnitude below the sinusoids of the positions.
        for conv in (encoder.conv1, encoder.conv2):
            _scaled_normal(conv.weight, 3.0)
        for weight in encoder.layers.parameters():
            if weight.ndim == 2:
                _scaled_normal(weight, 1.0)
        with torch.no_grad():
            encoder.embed_positions.weight.mul_(0.3)
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)


def _scaled_normal(weight, gain):
    """Outputs have `gain` times the scale of the inputs."""
    torch.nn.init.normal_(weight, 0.0, gain * weight[0].numel() ** -0.5)


def build_bert(folder, seed):
    """A random BERT, to initialise the Q-Former from."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertModel(
            BertConfig(
                vocab_size=64,
                hidden_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=256,
                max_position_embeddings=64,
            ),
            add_pooling_layer=False,
        )
    model.save_pretrained(folder)


def build_llama(folder, seed, steps):
    """A LLaMA and its tokenizer, trained on the lexicon.

    150 steps take a quarter of a minute.
    """
    lexicon = yaml.safe_load(LEXICON.read_text(encoding="utf-8"))
    tokenizer = build_tokenizer(lexicon)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=128,
                intermediate_size=256,
                num_hidden_layers=4,
                num_attention_heads=4,
                max_position_embeddings=512,
                # Wider than LLaMA's 0.02: a narrow model learns faster.
                initializer_range=0.05,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=None,
            )
        )
        train_llama(model, tokenizer, lexicon, seed, steps)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def build_tokenizer(lexicon):
    """A byte-level BPE tokenizer on the lexicon, like LLaMA 3's.

    It adds ``<s>`` when special tokens are asked for, and only then.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [*lexicon["prompts"], *lexicon["statements"], *lexicon["fillers"]]
    for entry in lexicon["emotions"].values():
        words = (*entry["synonyms"], *entry["voice"])
        texts += [f" {word}" for word in words] + entry["situations"]
    # One token each; the further emotions' words take several.
    texts += [f" {word}" for word in CANONICAL] * 100
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS
    )


def _statement(rng, lexicon):
    """Such as "The speaker sounds mournful. Emotion: sad"."""
    emotion = rng.choice(list(lexicon["emotions"]))
    entry = lexicon["emotions"][emotion]
    text = str(rng.choice(lexicon["statements"]))
    for slot, words in (
        ("{synonym}", entry["synonyms"]),
        ("{voice}", entry["voice"]),
        ("{situation}", entry["situations"]),
    ):
        while slot in text:
            text = text.replace(slot, str(rng.choice(words)), 1)
    return text.replace("{emotion}", str(emotion))


def _description(rng, lexicon):
    """Words that describe a voice, a prompt, and the emotion to answer.

    Some of the words may belong to a second emotion, which is then now and
    then the answer: between two descriptions the answer changes smoothly, so
    that a connector's gradients find the way.
    """
    emotions = [*CANONICAL, *CANONICAL, *lexicon["emotions"]]
    main, other = (str(rng.choice(emotions)) for _ in range(2))
    share = rng.choice([0.0, 0.0, rng.uniform(0, 1)])
    words, votes = [], []
    for _ in range(rng.integers(*DESCRIPTION)):
        emotion = other if rng.random() < share else main
        entry = lexicon["emotions"][emotion]
        kind = rng.choice(["voice", "synonyms", "fillers"], p=(0.6, 0.25, 0.15))
        words.append(str(rng.choice(entry.get(kind) or lexicon[kind])))
        if kind != "fillers":
            votes.append(emotion)
    answer = str(rng.choice(votes)) if votes else "neutral"
    prompt = str(rng.choice(lexicon["prompts"], p=(0.6, 0.2, 0.2)))
    return words, prompt, answer


def train_llama(model, tokenizer, lexicon, seed, steps):
    """Train a LLaMA, in place, to continue what the lexicon describes."""
    rng = np.random.default_rng(seed)
    # So small a model gains little from a second thread, loses a lot where
    # cores are shared, and comes out the same on any number of them.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), LLAMA_LR, weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LLAMA_LR, total_steps=max(steps, 2), pct_start=0.1
    )
    for _ in (bar := tqdm(range(steps), desc="llama", unit="step")):
        batch = [_example(rng, tokenizer, lexicon) for _ in range(LLAMA_BATCH)]
        ids, labels, described, mask = _collate(batch)
        inputs = model.get_input_embeddings()(ids)
        inputs = torch.where(described[..., None], _blur(inputs), inputs)
        loss = model(
            inputs_embeds=inputs, attention_mask=mask, labels=labels
        ).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.2f}")
    model.eval()
    torch.set_num_threads(threads)


def _example(rng, tokenizer, lexicon):
    """Token ids, and how many of them after bos are a description."""

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False)

    if rng.random() < 0.25:
        head, tail = [], encode(_statement(rng, lexicon))
    else:
        words, prompt, answer = _description(rng, lexicon)
        head = [token for word in words for token in encode(f" {word}")]
        tail = encode(prompt) + encode(f" {answer}")
    ids = [tokenizer.bos_token_id, *head, *tail, tokenizer.eos_token_id]
    return ids, len(head)


def _collate(batch):
    """Padded ids, labels, where a description is, and where anything is."""
    length = max(len(ids) for ids, _ in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    mask = torch.zeros(len(batch), length, dtype=torch.bool)
    described = torch.zeros(len(batch), length, dtype=torch.bool)
    for row, (tokens, head) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = True
        described[row, 1 : 1 + head] = True
    # What will be audio is never predicted.
    labels = ids.masked_fill(~mask | described, -100)
    return ids, labels, described, mask.long()


def _blur(vectors):
    """Between a vector and the one before it, and noise on top.

    Audio will not come as words: what lies between and around them must mean
    something too.
    """
    batch, length, _ = vectors.shape
    weight = 0.5 * torch.rand(batch, length, 1)
    blurred = vectors.lerp(vectors.roll(1, dims=1), weight)
    scale = vectors.detach().square().mean().sqrt()
    strength = torch.rand(batch, 1, 1)
    return blurred + strength * scale * torch.randn_like(vectors)


@exits_on_input_error
def main():
    """The command line."""
    parser = argparse.ArgumentParser(description="Build the demo's models.")
    parser.add_argument("--save_folder", required=True)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable_progress_bar()
    build_demo_models(options.save_folder, options.seed)


if __name__ == "__main__":
    main()
