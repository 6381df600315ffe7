"""Every family of causal LMs, tiny and random, against transformers' own.

The reference is a model's plain forward: one utterance and one word at a time,
all logits, no mask and no positions given.
"""

import inspect
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.families import (
    AS_TREE,
    IN_TURN,
    require_family,
)
from speechbrain_mser.lobes.llama import EmotionLLaMA

ROOT = Path(__file__).resolve().parents[2]
# Those that the installed transformers has.
FAMILIES = sorted((AS_TREE | IN_TURN) & set(CONFIG_MAPPING.keys()))
BEFORE = "One word:"
PROMPT = "What is the emotion?"
# Two that begin alike ("sad", "sad or so"), of one token and of several
WORDS = ["sad", "fearful", "sad or so"]
VOCABULARY = 336

# What makes a family's model tiny, by the names that families use; and what
# makes its peculiarities show (scales that are not one, caps that cap).
SIZES = {
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
    "max_position_embeddings": 128,
    # widths
    "hidden_size": 32,
    "d_model": 32,
    "lru_width": 32,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "d_ff": 48,
    "head_dim": 8,
    "hidden_size_per_layer_input": 8,
    # depths and heads
    "num_hidden_layers": 2,
    "num_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    # latent attention
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "index_n_heads": 2,
    "index_head_dim": 8,
    "index_topk": 4,
    # experts
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    # recurrence
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_expand": 2,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "n_mamba_heads": 2,
    "ssm_state_size": 8,
    "n_groups": 1,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    # peculiarities
    "logits_scaling": 3.0,
    "embedding_multiplier": 2.5,
    "residual_multiplier": 0.5,
    "logit_scale": 0.25,
    "final_logit_softcapping": 2.0,
    "attn_logit_softcapping": 5.0,
    "use_sliding_window": True,
    "max_window_layers": 0,
}
# Latent attention has as many keys as queries.
LATENT = {"num_key_value_heads": 4}
LINEAR = {"layer_types": ["linear_attention", "full_attention"]}
# Where a family mixes layers, both kinds.
SPECIAL = {
    "minicpm3": LATENT,
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "bailing_hybrid": {"layer_group_size": 2},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "qwen3_next": LINEAR,
    "qwen3_5_text": LINEAR,
    "qwen3_5_moe_text": LINEAR,
}


def settings_of(family):
    """The names of all settings of a family's configuration."""
    kind = CONFIG_MAPPING[family]
    known = set(inspect.signature(kind.__init__).parameters)
    for parent in kind.__mro__:
        known |= set(getattr(parent, "__annotations__", {}))
    return known


def tiny_config(family, **settings):
    """A configuration of this family, as small as it goes."""
    kind, known = CONFIG_MAPPING[family], settings_of(family)
    sizes = {name: value for name, value in SIZES.items() if name in known}
    if "kv_lora_rank" in known:
        sizes |= LATENT
    sizes |= SPECIAL.get(family, {})
    return kind(**sizes | {k: v for k, v in settings.items() if k in known})


def save_tiny(family, tokenizers_folder, folder, **settings):
    """A random model of this family, whose answers depend on its input."""
    torch.manual_seed(0)
    config = tiny_config(family, **settings)
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(4)
    for path in tokenizers_folder.glob("tokenizer*"):
        shutil.copy(path, folder)
    model.save_pretrained(folder)


class Plain:
    """The model in transformers' hands, and nothing of ours."""

    def __init__(self, folder, before=""):
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.model.requires_grad_(False)
        self.before = before
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.embed = self.model.get_input_embeddings()

    def ids(self, text):
        """Token ids of a text."""
        found = self.tokenizer(text, add_special_tokens=False).input_ids
        return torch.tensor(found, dtype=torch.long)

    def word(self, word):
        """Token ids of a word after the prompt, and the end."""
        whole = self.ids(f"{PROMPT} {word}")[len(self.ids(PROMPT)) :]
        return torch.cat([whole, torch.tensor([self.tokenizer.eos_token_id])])

    def logits(self, audio, said):
        """Of all positions of ``[bos, before, audio, prompt, said]``."""
        bos = torch.tensor([self.tokenizer.bos_token_id])
        before = self.embed(torch.cat([bos, self.ids(self.before)]))
        text = self.embed(torch.cat([self.ids(PROMPT), said]))
        inputs = torch.cat([before, audio, text])[None]
        return self.model(inputs_embeds=inputs, use_cache=False).logits[0]

    def score(self, audio, word):
        """log p of a word and its end."""
        said = self.word(word)
        logits = self.logits(audio, said)[-len(said) - 1 : -1]
        return logits.log_softmax(-1)[range(len(said)), said].sum()

    @torch.no_grad()
    def greedy(self, audio, length):
        """What it says, the whole sequence anew for every token."""
        said = torch.zeros(0, dtype=torch.long)
        while len(said) < length:
            best = self.logits(audio, said)[-1].argmax()
            if best == self.tokenizer.eos_token_id:
                break
            said = torch.cat([said, best[None]])
        return self.tokenizer.decode(said, skip_special_tokens=True).strip()

    @torch.no_grad()
    def embedding_rms(self):
        """Of what its layers read in place of words."""
        rows = self.embed(torch.arange(len(self.embed.weight)))
        # What is looked up here is what the model looks up itself.
        text = self.word("happy")[None]
        torch.testing.assert_close(
            self.model(inputs_embeds=self.embed(text), use_cache=False).logits,
            self.model(input_ids=text, use_cache=False).logits,
        )
        return rows.square().mean().sqrt().item()


# The windows: one that is not felt, and one shorter than what is read.
@pytest.mark.parametrize("window", [4096, 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_llms_numbers_are_transformers_own(
    family, window, tiny_llama, tmp_path
):
    windows = {"sliding_window": window, "attention_chunk_size": window}
    windows["attention_window_size"] = window
    if window != 4096 and not windows.keys() & settings_of(family):
        return  # the same as without
    save_tiny(family, tiny_llama, tmp_path, **windows)
    before = BEFORE if window == 4096 else ""
    llama = EmotionLLaMA(tmp_path, prompt=PROMPT, prompt_before=before)
    plain = Plain(tmp_path, before)
    audio = (0.5 * torch.randn(3, 4, 32)).requires_grad_()
    expected = torch.stack(
        [
            torch.stack([plain.score(utterance, word) for word in WORDS])
            for utterance in audio
        ]
    )
    if window == 4096:  # else the audio may be out of sight
        assert (expected[0] - expected[1]).abs().max() > 1e-2
    loss = llama.loss(audio, WORDS)
    mean = -expected.diagonal().sum() / sum(len(plain.word(w)) for w in WORDS)
    torch.testing.assert_close(loss, mean, atol=1e-4, rtol=1e-5)
    (found,) = torch.autograd.grad(loss, audio)
    (gradient,) = torch.autograd.grad(mean, audio, retain_graph=True)
    worst = (found - gradient).abs().max()
    assert worst <= 1e-4 * gradient.abs().max()
    audio, expected = audio.detach(), expected.detach()
    found, passes = counted(llama, lambda: llama.score(audio, WORDS))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    if window == 4096:
        assert passes == (1 if family in AS_TREE else len(WORDS))
    rms = plain.embedding_rms()
    assert llama.embedding_rms == pytest.approx(rms, rel=1e-5)
    assert llama.generate(audio[:1], 2) == [plain.greedy(audio[0], 2)]


def counted(llama, compute):
    """What a computation gives, and how often the LLM was asked."""
    calls = []
    hook = llama.model.register_forward_hook(lambda *_: calls.append(1))
    try:
        return compute(), len(calls)
    finally:
        hook.remove()


@pytest.mark.parametrize(("room", "passes"), [(0, 1), (-1, len(WORDS))])
def test_words_are_scored_in_one_pass_as_long_as_a_window_holds_all(
    room, passes, tiny_llama, tmp_path
):
    save_tiny("mistral", tiny_llama, tmp_path)
    plain = Plain(tmp_path)
    read_once = {
        tuple(plain.word(word)[:n].tolist())
        for word in WORDS
        for n in range(1, len(plain.word(word)))
    }
    length = 1 + 4 + len(plain.ids(PROMPT)) + len(read_once)
    save_tiny("mistral", tiny_llama, tmp_path, sliding_window=length + room)
    llama, plain = EmotionLLaMA(tmp_path, prompt=PROMPT), Plain(tmp_path)
    audio = torch.randn(1, 4, 32)
    found, asked = counted(llama, lambda: llama.score(audio, WORDS))
    expected = torch.stack([plain.score(audio[0], word) for word in WORDS])
    torch.testing.assert_close(found[0], expected, atol=1e-4, rtol=1e-5)
    assert asked == passes


@pytest.mark.parametrize(
    ("family", "setting", "message"),
    [
        ("opt", {"activation_checkpointing": True}, "activation_checkpointing"),
        ("phi3", {"lora_rank": 2}, "lora_rank"),
    ],
)
def test_what_a_family_cannot_do_is_refused(
    family, setting, message, tiny_llama, tmp_path
):
    if "lora_rank" in setting:
        pytest.importorskip("peft")
    save_tiny(family, tiny_llama, tmp_path)
    with pytest.raises(InputError, match=message):
        EmotionLLaMA(tmp_path, **setting)


def test_every_other_family_is_refused_by_name():
    others = set(CONFIG_MAPPING.keys()) - AS_TREE - IN_TURN
    assert {"gpt2", "mamba", "gemma3n_text", "bert"} < others
    for family in others:
        with pytest.raises(InputError, match=f" is a {family},.*llama_hub"):
            require_family(SimpleNamespace(model_type=family), "a/model")


def test_the_lists_name_families_of_causal_language_models():
    assert not AS_TREE & IN_TURN
    for family in FAMILIES:
        assert CONFIG_MAPPING[family] in MODEL_FOR_CAUSAL_LM_MAPPING


def test_the_docs_name_these_families():
    text = (ROOT / "docs" / "frozen_models.md").read_text(encoding="utf-8")
    for families in (AS_TREE, IN_TURN):
        assert " ".join(text.split()).count(", ".join(sorted(families))) == 1
