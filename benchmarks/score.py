#!/usr/bin/env python3
"""What does it cost to score candidate words, beyond reading the prefix?

The same LLM and the same audio tokens, timed in turns: `EmotionLLaMA.score`,
one prefill of the prefix (the floor: nothing can be scored without it),
candidates one after another, the prefix read anew for each (LAVIS; even so
with logits at the words' positions alone), one prefill whose cache every
candidate gets a copy of, and free decoding of ten tokens (transformers'
``generate``, sampling off). All ways to score must agree first.

The LLM has LLaMA 3 8B's shape, an eighth as wide (and an eighth of the
vocabulary), with random weights; two of the seven words have two tokens. The
prefix has 46 tokens here (bos, 32 queries, 13 of the prompt), the candidates
9, and the head, a thirteenth of the layers, is needed at 10 positions and not
at 1: counted in multiplications the ratio to the floor cannot be below 1.21.
A model with a larger head pays more: with SmolLM2-135M's shape (--hidden 576
--intermediate 1536 --layers 30 --heads 9 --kv_heads 3 --vocabulary 49152) the
count is 1.25.

Usage: python benchmarks/score.py [--batch 16 --queries 32 --repeats 9]
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from material import PROMPT, emotional_llama
from report import Row, in_turns, median_ratio, report
from transformers import (
    DynamicCache,
)

from speechbrain_mser.lobes.llama import EmotionLLaMA

# "surprise" and "disgust" in two tokens each.
WORDS = ["neutral", "happy", "sad", "angry", "fear", "sur prise", "dis gust"]
NEW_TOKENS = 10


def random_llama(
    hidden,
    intermediate,
    layers,
    heads,
    kv_heads,
    vocabulary,
    dtype="float32",
):
    """A LLaMA with random weights and a tokenizer of whole words."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = emotional_llama(
            Path(scratch),
            " ".join(WORDS).split(),
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
        )
        return EmotionLLaMA(folder, prompt=PROMPT, dtype=dtype)


@torch.no_grad()
def in_turn(llama, audio, words):
    """The whole prefix again for every candidate (as LAVIS does)."""
    prefix = llama._prefix(audio)
    scores = []
    for word in words:
        tokens = llama.word_tokens(word)
        ids = torch.tensor(tokens[:-1]).expand(len(audio), -1)
        inputs = torch.cat([prefix, llama._embed(ids)], dim=1)
        log_probs = llama._logits(inputs, len(tokens)).log_softmax(-1)
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
def prefill(llama, audio):
    """The floor: the shared prefix alone, without any candidate."""
    return llama._logits(llama._prefix(audio), 1)


def decode(llama, audio):
    """Free decoding, to the last token: nobody ends early."""
    prefix = llama._prefix(audio)
    return llama.model.generate(
        inputs_embeds=prefix,
        attention_mask=torch.ones(prefix.shape[:2], dtype=torch.long),
        min_new_tokens=NEW_TOKENS,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=llama._around().end_token,
    )


def check(llama, audio):
    """Equal scores whichever way, or no benchmark."""
    expected = in_turn(llama, audio, WORDS)
    for way in (EmotionLLaMA.score, shared_cache):
        worst = (way(llama, audio, WORDS) - expected).abs().max().item()
        if worst > 1e-3:
            raise SystemExit(f"{way.__name__}: scores differ by {worst}")
    found = tuple(decode(llama, audio).shape)
    if found != (len(audio), NEW_TOKENS):
        raise SystemExit(f"decoded {found}, expected {NEW_TOKENS} tokens each")


def main():
    """Check, time in turns, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {
        "batch": 16,
        "queries": 32,
        "hidden": 512,
        "intermediate": 1792,
        "layers": 32,
        "heads": 4,
        "kv_heads": 1,
        "vocabulary": 16032,
        "repeats": 9,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    llama = random_llama(
        arguments.hidden,
        arguments.intermediate,
        arguments.layers,
        arguments.heads,
        arguments.kv_heads,
        arguments.vocabulary,
    )
    audio = torch.randn(arguments.batch, arguments.queries, arguments.hidden)
    check(llama, audio)
    times = time_ways(llama, audio, arguments.repeats)
    alone = time_ways(llama, audio[:1], arguments.repeats)
    question = f"score {len(WORDS)} words, {arguments.queries} queries, batch "
    batch, one = f"{question}{arguments.batch}", f"{question}1"
    decoding = f"free decoding of {NEW_TOKENS} tokens"
    rows = [
        Row(
            batch,
            "one prefill of the prefix",
            median_ratio(times["score"], times["prefill"]),
            1.25,
            False,
            _seconds(times, "score", "prefill"),
        ),
        speed_up(batch, "candidates in turn (LAVIS)", times, "in turn", 5.0),
        speed_up(batch, "one prefill, its cache copied", times, "cache", 1.0),
        speed_up(batch, decoding, times, "decode", 2.0),
        speed_up(one, decoding, alone, "decode", 2.0),
    ]
    report("score", rows, vars(arguments))


def time_ways(llama, audio, repeats):
    """Seconds of every round of every way."""
    return in_turns(
        {
            "score": lambda: llama.score(audio, WORDS),
            "prefill": lambda: prefill(llama, audio),
            "in turn": lambda: in_turn(llama, audio, WORDS),
            "cache": lambda: shared_cache(llama, audio, WORDS),
            "decode": lambda: decode(llama, audio),
        },
        repeats,
    )


def speed_up(question, against, times, theirs, target):
    """The row of a way that `score` should beat."""
    return Row(
        question,
        against,
        median_ratio(times[theirs], times["score"]),
        target,
        True,
        _seconds(times, theirs, "score"),
    )


def _seconds(times, *ways):
    return ", ".join(f"{statistics.median(times[way]):.3g} s" for way in ways)


if __name__ == "__main__":
    main()
