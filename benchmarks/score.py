#!/usr/bin/env python3
"""How should candidate words be scored? One pass, shared cache, or in turn.

All ways give the same log-probabilities (checked first); timed in turns on
the same inputs: a random LLaMA of the given size, 7 candidates of one or two
tokens, 32 audio queries.

Usage: python benchmarks/score.py [--hidden 512 --layers 8 --batch 16]
"""

import argparse
import statistics
import tempfile
import time

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from speechbrain_mser.emotions import CANONICAL
from speechbrain_mser.lobes.llama import EmotionLLaMA

PROMPT = "What is the emotion of the speaker ? Answer with one word :"


def random_llama(hidden, layers):
    """A LLaMA with random weights and a tokenizer of whole words."""
    words = ["<s>", "</s>", "<unk>", *PROMPT.split(), *CANONICAL]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tempfile.mkdtemp()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 256),
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return EmotionLLaMA(folder, prompt=PROMPT)


@torch.no_grad()
def in_turn(llama, audio, words):
    """The whole prefix again for every candidate (as LAVIS does)."""
    prefix = llama._prefix(audio)
    scores = []
    for word in words:
        tokens = llama.word_tokens(word)
        ids = torch.tensor(tokens[:-1]).expand(len(audio), -1)
        inputs = torch.cat([prefix, llama._embed(ids)], dim=1)
        hidden = llama._hidden(inputs)[:, prefix.shape[1] - 1 :]
        log_probs = llama.model.lm_head(hidden).log_softmax(-1)
        scores.append(
            sum(log_probs[:, i, token] for i, token in enumerate(tokens))
        )
    return torch.stack(scores, dim=1)


@torch.no_grad()
def shared_cache(llama, audio, words):
    """One prefill, then every candidate against a copy of its cache."""
    prefix = llama._prefix(audio)
    cache = DynamicCache(config=llama.model.config)
    start = llama.model.model(
        inputs_embeds=prefix, past_key_values=cache, use_cache=True
    ).last_hidden_state[:, -1:]
    candidates = [llama.word_tokens(word) for word in words]
    longest = max(map(len, candidates))
    padded = torch.tensor([c + [1] * (longest - len(c)) for c in candidates])
    cache.batch_repeat_interleave(len(words))
    ids = padded[:, :-1].repeat(len(audio), 1)
    hidden = llama.model.model(
        inputs_embeds=llama._embed(ids), past_key_values=cache, use_cache=True
    ).last_hidden_state
    hidden = torch.cat([start.repeat_interleave(len(words), 0), hidden], dim=1)
    log_probs = llama.model.lm_head(hidden).log_softmax(-1)
    log_probs = log_probs.view(len(audio), len(words), longest, -1)
    return torch.stack(
        [
            sum(log_probs[:, k, i, token] for i, token in enumerate(tokens))
            for k, tokens in enumerate(candidates)
        ],
        dim=1,
    )


@torch.no_grad()
def prefill(llama, audio, words):
    """The floor: the shared prefix alone, without any candidate."""
    del words
    return llama.model.lm_head(llama._hidden(llama._prefix(audio))[:, -1])


def main():
    """Check, time in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    llama = random_llama(arguments.hidden, arguments.layers)
    audio = torch.randn(arguments.batch, arguments.queries, arguments.hidden)
    words = [*CANONICAL[:5], "happy sad", "angry fear"]
    ways = {
        "one pass (tree)": EmotionLLaMA.score,
        "one prefill, shared cache": shared_cache,
        "candidates in turn": in_turn,
        "prefill alone (floor)": prefill,
    }
    reference = in_turn(llama, audio, words)
    for way in (EmotionLLaMA.score, shared_cache):
        worst = (way(llama, audio, words) - reference).abs().max().item()
        if worst > 1e-3:
            raise SystemExit(f"{way.__name__} differs by {worst}")
    times = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way(llama, audio, words)
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(t) for name, t in times.items()}
    floor = medians["prefill alone (floor)"]
    print("| way | median ms | x floor |")
    print("|---|---:|---:|")
    for name, median in medians.items():
        print(f"| {name} | {1000 * median:.1f} | {median / floor:.2f} |")


if __name__ == "__main__":
    main()
