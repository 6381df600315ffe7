"""The frozen LLM: every shortcut against transformers' plain causal LM."""

import copy
import importlib.util
import os
import shutil
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes import candidates, half_weights
from speechbrain_mser.lobes.candidates import CandidateTree, log_normalizer
from speechbrain_mser.lobes.llama import EmotionLLaMA
from speechbrain_mser.lobes.prompt import Prompt

# One token and several, "fear" the beginning of "fearful" (also in tokens),
# and a phrase.
WORDS = ["neutral", "happy", "fear", "fearful", "boredom", "sad", "sad or so"]
PROMPT = "What is the emotion of the speaker? Answer with one word:"


@pytest.fixture(scope="module")
def folder(tiny_llama, tmp_path_factory):
    """The tiny LLaMA with larger weights, so that it hears what it reads.

    A new one's answers hardly depend on its input, and neither would a test.
    """
    folder = tmp_path_factory.mktemp("llama")
    shutil.copytree(tiny_llama, folder, dirs_exist_ok=True)
    model = LlamaForCausalLM.from_pretrained(tiny_llama)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(folder):
    return EmotionLLaMA(folder, prompt=PROMPT)


def with_halves(folder, new, half, others):
    """A model whose file has matrices and other weights in these dtypes."""
    shutil.copytree(folder, new, dirs_exist_ok=True)
    path = new / "model.safetensors"
    weights = {
        name: tensor.to(half if tensor.ndim == 2 else others)
        for name, tensor in load_file(path).items()
    }
    save_file(weights, path, {"format": "pt"})
    return weights


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_files_16_bits_are_multiplied_in_float32(
    folder, tmp_path, half, monkeypatch
):
    # In blocks of rows, the last one shorter
    monkeypatch.setattr(half_weights, "_ROWS", 60)
    others = {torch.float16: torch.bfloat16, torch.bfloat16: torch.float32}
    weights = with_halves(folder, tmp_path / "16", half, others[half])
    shutil.copytree(folder, tmp_path / "32")
    wide = {name: tensor.float() for name, tensor in weights.items()}
    save_file(wide, tmp_path / "32" / "model.safetensors", {"format": "pt"})
    narrow, plain = (
        EmotionLLaMA(tmp_path / name, prompt=PROMPT, dtype="float32")
        for name in ("16", "32")
    )

    def dtypes(llama):
        return {p.ndim: p.dtype for p in llama.model.parameters()}

    assert dtypes(narrow) == {2: half, 1: torch.float32}
    assert dtypes(plain) == {2: torch.float32, 1: torch.float32}
    torch.manual_seed(0)
    audio = torch.randn(3, 4, plain.hidden_size)
    words = ["happy", "sad", "happy"]
    scores = [llama.score(audio, words[:2]) for llama in (narrow, plain)]
    torch.testing.assert_close(*scores, rtol=0, atol=1e-5)
    said = [llama.generate(audio) for llama in (narrow, plain)]
    assert said[0] == said[1]
    assert dtypes(narrow)[2] == half
    # Trained through it is upcast for good.
    losses, gradients = [], []
    for llama in (narrow, plain):
        given = audio.clone().requires_grad_()
        losses.append(llama.loss(given, words))
        gradients += torch.autograd.grad(losses[-1], given)
    assert dtypes(narrow) == dtypes(plain)
    torch.testing.assert_close(*losses, rtol=0, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)


def test_mixed_16_bits_are_loaded_in_float32(folder, tmp_path):
    with_halves(folder, tmp_path, torch.float16, torch.float16)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(
        {**weights, name: weights[name].bfloat16()}, path, {"format": "pt"}
    )
    llama = EmotionLLaMA(tmp_path, prompt=PROMPT, dtype="float32")
    assert {p.dtype for p in llama.model.parameters()} == {torch.float32}


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="no /proc")
def test_a_file_of_two_dtypes_does_not_stay_in_memory(folder, tmp_path):
    # As a GGUF file's values are kept: matrices float16, norms bfloat16
    weights = with_halves(folder, tmp_path, torch.float16, torch.bfloat16)
    llama = EmotionLLaMA(tmp_path, prompt=PROMPT, dtype="bfloat16")
    with open("/proc/self/maps") as maps:
        assert str(tmp_path) not in maps.read()
    loaded = llama.model.state_dict()
    for name, tensor in weights.items():
        assert torch.equal(loaded[name], tensor.bfloat16())


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="no /proc")
def test_what_is_converted_is_not_in_memory_twice(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    config = LlamaConfig.from_pretrained(folder)
    config.hidden_size = config.intermediate_size = 1024
    config.num_attention_heads = config.num_key_value_heads = 8
    config.head_dim, config.num_hidden_layers = 128, 4
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.to_empty(device="cpu").save_pretrained(tmp_path)
    size = os.path.getsize(tmp_path / "model.safetensors")
    assert size > 100e6
    del model

    def resident(name):
        with open("/proc/self/status") as status:
            [line] = [line for line in status if line.startswith(name)]
        return int(line.split()[1]) * 1024

    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak is now
    before = resident("VmRSS")
    llama = EmotionLLaMA(tmp_path, prompt=PROMPT, dtype="bfloat16")
    assert next(llama.model.parameters()).dtype == torch.bfloat16
    # Half the file for the weights; with all of it at once it would be 1.5
    assert resident("VmHWM") - before < 0.9 * size


@pytest.fixture(scope="module")
def plain(folder):
    """The same model in transformers' hands."""
    return LlamaForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def audio():
    return torch.randn(3, 5, 48)


def tokens_of(tokenizer, word, prompt=PROMPT):
    """Tokens of a word after the prompt, and the end."""
    ids = tokenizer(f"{prompt} {word}", add_special_tokens=False).input_ids
    start = tokenizer(prompt, add_special_tokens=False).input_ids
    assert ids[: len(start)] == start
    return [*ids[len(start) :], tokenizer.eos_token_id]


def read(plain, tokenizer, audio, after=(), prompt=PROMPT):
    """Embeddings of ``[bos, audio, prompt, after]`` for one utterance."""
    start = tokenizer(prompt, add_special_tokens=False).input_ids
    embed = plain.get_input_embeddings()
    bos = embed(torch.tensor([tokenizer.bos_token_id]))
    rest = embed(torch.tensor([*start, *after], dtype=torch.long))
    return torch.cat([bos, audio, rest])[None]


def word_by_word(plain, tokenizer, audio, words, prompt=PROMPT):
    """log p of each word from the logits of every position, one at a time."""
    scores = torch.zeros(len(audio), len(words))
    for i, utterance in enumerate(audio):
        for j, word in enumerate(words):
            ids = tokens_of(tokenizer, word, prompt)
            inputs = read(plain, tokenizer, utterance, ids, prompt)
            with torch.no_grad():
                logits = plain(inputs_embeds=inputs).logits[0]
            for k, token in enumerate(ids):
                position = logits[len(logits) - len(ids) + k - 1]
                scores[i, j] += position.log_softmax(-1)[token]
    return scores


# Scores


def test_the_words_of_these_tests_are_of_many_kinds(tokenizer):
    ids = {word: tokens_of(tokenizer, word)[:-1] for word in WORDS}
    assert {len(tokens) for tokens in ids.values()} >= {1, 4}
    assert ids["fearful"][: len(ids["fear"])] == ids["fear"]


def test_scores_are_those_of_one_word_at_a_time(llama, plain, tokenizer, audio):
    found = llama.score(audio, WORDS)
    expected = word_by_word(plain, tokenizer, audio, WORDS)
    assert found.shape == (3, 7)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    # and they do depend on what is heard
    assert (expected[0] - expected[1]).abs().max() > 0.5


def test_a_single_candidate_is_scored_too(llama, plain, tokenizer, audio):
    for word in ("sad", "boredom"):
        torch.testing.assert_close(
            llama.score(audio, [word]),
            word_by_word(plain, tokenizer, audio, [word]),
            atol=2e-5,
            rtol=0,
        )


def test_scores_do_not_depend_on_the_other_candidates(llama, audio):
    scores = llama.score(audio, WORDS)
    order = [6, 2, 0, 5, 3, 1, 4]
    reordered = llama.score(audio, [WORDS[i] for i in order])
    torch.testing.assert_close(reordered, scores[:, order], atol=2e-5, rtol=0)
    few = llama.score(audio, ["fearful", "sad"])
    torch.testing.assert_close(few, scores[:, [3, 5]], atol=2e-5, rtol=0)


def test_scores_do_not_depend_on_batch_mates(llama, audio):
    alone = torch.cat([llama.score(a[None], WORDS) for a in audio])
    torch.testing.assert_close(
        llama.score(audio, WORDS), alone, atol=2e-5, rtol=0
    )


def test_scoring_takes_one_pass_over_one_prefix(llama, audio, tokenizer):
    lengths = []
    hook = llama.model.model.register_forward_hook(
        lambda module, args, kwargs, output: lengths.append(
            kwargs["inputs_embeds"].shape[1]
        ),
        with_kwargs=True,
    )
    llama.score(audio, WORDS)
    hook.remove()
    prefix = read(llama.model, tokenizer, audio[0]).shape[1]
    # The end of a word is asked for, not read; a beginning that words share
    # ("sad", "sad or so") is read once.
    words = [tokens_of(tokenizer, word) for word in WORDS]
    read_once = {tuple(w[:n]) for w in words for n in range(1, len(w))}
    assert len(read_once) < sum(len(w) - 1 for w in words)
    assert lengths == [prefix + len(read_once)]


@pytest.mark.parametrize("block", [40, 64, 200, 300])
def test_the_vocabulary_is_normalised_a_block_at_a_time(block, monkeypatch):
    monkeypatch.setattr(candidates, "VOCABULARY_BLOCK", block)
    logits = (9 * torch.randn(3, 4, 200)).bfloat16()
    with Largest() as largest:
        found = log_normalizer(logits)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, logits.float().logsumexp(-1))
    assert largest.elements == 12 * min(block, 200)  # positions x block


class Largest(TorchDispatchMode):
    """Notes the largest tensor that is computed, not merely looked at."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Run and look."""
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not result._is_view():
            self.elements = max(self.elements, result.numel())
        return result


def test_scores_in_half_precision_are_normalised_in_float32(monkeypatch):
    # Logits of some hundreds are 2 apart in bfloat16.
    monkeypatch.setattr(candidates, "VOCABULARY_BLOCK", 64)
    logits = torch.randint(-250, 250, (5, 4, 100)).bfloat16()
    logits[0, 0, 7] = 400  # all but certain
    tree = CandidateTree([[7, 3], [8, 2, 3]], 1, "cpu", torch.bfloat16)
    found = tree.scores(logits)
    log_probs = logits.float().log_softmax(-1)
    # Rows: the prefix's end, then after 7, and after 8.
    expected = torch.stack(
        [
            log_probs[:, 0, 7] + log_probs[:, 1, 3],
            log_probs[:, 0, 8] + log_probs[:, 2, 2] + log_probs[:, 3, 3],
        ],
        dim=1,
    )
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-6)


def test_a_head_with_a_bias_is_scored_with_it(folder, plain, tokenizer, audio):
    biased, expecting = (
        copy.deepcopy(model)
        for model in (EmotionLLaMA(folder, prompt=PROMPT), plain)
    )
    bias = torch.nn.Parameter(torch.randn(len(tokenizer)), False)
    biased.model.lm_head.bias = expecting.lm_head.bias = bias
    torch.testing.assert_close(
        biased.score(audio, WORDS),
        word_by_word(expecting, tokenizer, audio, WORDS),
        atol=2e-5,
        rtol=0,
    )


def test_prompt_and_words_are_tokenised_once(folder, audio):
    llama = EmotionLLaMA(folder, prompt=PROMPT)
    expected = llama.score(audio, WORDS)
    llama.tokenizer = None
    assert torch.equal(llama.score(audio, WORDS), expected)
    assert llama.loss(audio, ["sad", "happy", "sad or so"]).isfinite()


def test_what_is_kept_from_recognition_serves_training(folder, audio):
    first, second = (
        EmotionLLaMA(folder, prompt=PROMPT).requires_grad_() for _ in range(2)
    )
    with torch.inference_mode():
        first.score(audio, WORDS)
    first.loss(audio, ["sad"] * 3).backward()
    second.loss(audio, ["sad"] * 3).backward()
    for name, parameter in first.named_parameters():
        expected = second.get_parameter(name).grad
        assert torch.equal(parameter.grad, expected), name


def test_label_sets_have_names(llama, audio):
    named = llama.score(audio, "paper4")
    listed = llama.score(audio, ["neutral", "happy", "sad", "angry"])
    assert torch.equal(named, listed)


def test_the_prompt_can_be_changed(llama, plain, tokenizer, audio):
    before = llama.score(audio, ["sad", "happy"])
    llama.prompt = "Emotion?"
    try:
        found = llama.score(audio, ["sad", "happy"])
    finally:
        llama.prompt = PROMPT
    expected = word_by_word(
        plain, tokenizer, audio, ["sad", "happy"], prompt="Emotion?"
    )
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert not torch.allclose(found, before, atol=0.1)


# Text before the audio, and a chat around it

BEFORE = "Listen to the voice:"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def chatting(folder, tmp_path_factory):
    """The model with a tokenizer that knows chats, and nothing else changed."""
    chatting = tmp_path_factory.mktemp("chatting")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    controls = ["<|user|>", "<|assistant|>", "<|end|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": controls})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(chatting)
    model = LlamaForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    model.save_pretrained(chatting)
    return chatting


def around(tokenizer, before, after, word, end):
    """Token ids of texts that are given as they are to be read."""
    encode = partial(tokenizer.encode, add_special_tokens=False)
    spoken = encode(after + word)
    assert spoken[: len(encode(after))] == encode(after)
    return encode(before), spoken, len(encode(word)) + 1, encode(end)


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_what_surrounds_the_audio_is_read_as_transformers_reads_it(
    chatting, audio, chat
):
    if chat:
        texts = f"<s><|user|>{BEFORE}", f"{PROMPT}<|end|><|assistant|>"
        space, end = "", "<|end|>"
    else:
        texts, space, end = (f"<s>{BEFORE}", PROMPT), " ", "</s>"
    llama = EmotionLLaMA(
        chatting, prompt=PROMPT, prompt_before=BEFORE, chat_template=chat
    )
    plain = LlamaForCausalLM.from_pretrained(chatting).eval()
    tokenizer = AutoTokenizer.from_pretrained(chatting)
    embed = plain.get_input_embeddings()
    words = ["sad", "boredom"]
    expected, n_tokens = torch.zeros(len(audio), 2), []
    for j, word in enumerate(words):
        before, after, n, end_ids = around(
            tokenizer, *texts, f"{space}{word}", end
        )
        n_tokens.append(n)
        ids = torch.tensor([*after, *end_ids])
        for i, utterance in enumerate(audio):
            inputs = [embed(torch.tensor(before)), utterance, embed(ids)]
            with torch.no_grad():
                logits = plain(inputs_embeds=torch.cat(inputs)[None]).logits[0]
            said = logits[-n - 1 : -1].log_softmax(-1)
            expected[i, j] = said[range(n), ids[-n:]].sum()
    torch.testing.assert_close(
        llama.score(audio, words), expected, atol=2e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        llama.loss(audio[:2], words),
        -(expected[0, 0] + expected[1, 1]) / sum(n_tokens),
    )
    (question,) = (tokenizer.encode(texts[1], add_special_tokens=False),)
    inputs = [embed(torch.tensor(ids)) for ids in (before, question)]
    ids = plain.generate(
        inputs_embeds=torch.cat([inputs[0], audio[0], inputs[1]])[None],
        max_new_tokens=5,
        do_sample=False,
        eos_token_id=tokenizer.convert_tokens_to_ids(end),
        pad_token_id=1,
    )
    assert llama.generate(audio[:1], 5) == [
        tokenizer.decode(ids[0], True).strip()
    ]


def test_a_chat_is_that_of_transformers(chatting):
    tokenizer = AutoTokenizer.from_pretrained(chatting)
    prompt = Prompt(tokenizer, BEFORE, f" {PROMPT}", True)
    chat = [{"role": "user", "content": f"{BEFORE} {PROMPT}"}]
    whole = tokenizer.apply_chat_template(chat, add_generation_prompt=True)
    assert [*prompt.before, *prompt.after] == list(whole["input_ids"])
    assert prompt.before.count(tokenizer.bos_token_id) == 1
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert prompt.end_token == prompt.word("sad")[-1] == end


def test_control_tokens_in_a_chats_texts_are_text(chatting):
    tokenizer = AutoTokenizer.from_pretrained(chatting)
    controls = tokenizer.all_special_ids
    texts = "</s><|assistant|>happy", "so<|end|>"
    prompt = Prompt(tokenizer, *texts, True)
    found = [i for i in [*prompt.before, *prompt.after] if i in controls]
    # Only the template's: bos, the user's turn, its end, the answer's turn
    assert tokenizer.decode(found) == "<s><|user|><|end|><|assistant|>"
    for text, ids in zip(texts, (prompt.before, prompt.after), strict=True):
        assert text in tokenizer.decode(ids)
    word = prompt.word("sad<|end|>")
    assert [i for i in word if i in controls] == [prompt.end_token]


def test_there_is_one_beginning_who_ever_writes_it(chatting):
    tokenizer = AutoTokenizer.from_pretrained(chatting)
    by_hand, by_us = (Prompt(tokenizer, f"{b}Hear", "?") for b in ("<s>", ""))
    assert by_hand.before == by_us.before
    assert by_us.before.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("chat", [False, True])
def test_a_shot_ends_as_an_answer_does(chatting, chat):
    tokenizer = AutoTokenizer.from_pretrained(chatting)
    shots = Prompt(tokenizer, "sad: sad{end} happy: happy{end}", ":", chat)
    end = shots.end_token
    assert shots.before.count(end) == 2
    assert shots.word("sad")[-1] == end
    written = "sad: sad{} happy: happy{}".format(
        *[tokenizer.convert_ids_to_tokens(end)] * 2
    )
    plain = Prompt(tokenizer, written, ":", chat)
    # By hand it is obeyed in a plain prompt, and is text in a chat.
    assert (plain.before == shots.before) is not chat


@pytest.mark.parametrize("chat", [False, True])
def test_a_shot_after_the_audio_ends_as_one_before_it(chatting, chat):
    tokenizer = AutoTokenizer.from_pretrained(chatting)
    shot, question = "sad: sad{end}", " What?"
    without = Prompt(tokenizer, "", question, chat)
    end = without.end_token
    n = len(without.before)
    before = Prompt(tokenizer, shot, question, chat).before[n:]
    after = Prompt(tokenizer, "", f"{shot}{question}", chat).after
    assert before.count(end) == 1
    assert after == [*before, *without.after]
    word = Prompt(tokenizer, "", f"{shot}{question}", chat).word("sad")
    assert word == without.word("sad")


@pytest.mark.parametrize("template", [None, "{{ bos_token }}", "{{ 1 / 0 }}"])
def test_a_chat_needs_a_template_with_the_users_turn(chatting, template):
    tokenizer = AutoTokenizer.from_pretrained(chatting)
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=r"^chat_template: .*leave it False"):
        Prompt(tokenizer, BEFORE, PROMPT, True)


# The loss


def full_loss(plain, tokenizer, audio, words):
    """transformers' own loss over padded sequences, -100 but for the words."""
    targets = [tokens_of(tokenizer, word) for word in words]
    rows = [
        read(plain, tokenizer, utterance, target)[0]
        for utterance, target in zip(audio, targets, strict=True)
    ]
    longest = max(map(len, rows))
    inputs = torch.stack([F.pad(r, (0, 0, 0, longest - len(r))) for r in rows])
    labels = torch.full((len(rows), longest), -100)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for i, (row, target) in enumerate(zip(rows, targets, strict=True)):
        labels[i, len(row) - len(target) : len(row)] = torch.tensor(target)
        mask[i, : len(row)] = 1
    return plain(inputs_embeds=inputs, attention_mask=mask, labels=labels).loss


@pytest.mark.parametrize(
    "words",
    [
        ["sad", "happy", "sad"],
        ["fearful", "fear", "boredom"],
        ["sad or so", "neutral", "fearful"],
    ],
)
def test_the_loss_and_its_gradient_are_those_of_all_logits(
    words, llama, plain, tokenizer, audio
):
    audio.requires_grad_()
    loss = llama.loss(audio, words)
    (found,) = torch.autograd.grad(loss, audio)
    reference = full_loss(plain, tokenizer, audio, words)
    (expected,) = torch.autograd.grad(reference, audio)
    torch.testing.assert_close(loss, reference, atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    assert (expected.abs().sum(-1) > 0).all()


def test_the_loss_is_the_mean_score_per_token(llama, tokenizer, audio):
    words = ["fearful", "sad", "boredom"]
    scores = llama.score(audio, words).diagonal()
    n_tokens = sum(len(tokens_of(tokenizer, word)) for word in words)
    torch.testing.assert_close(
        llama.loss(audio, words), -scores.sum() / n_tokens
    )


def test_forward_is_the_loss(llama, audio):
    words = ["sad", "fearful", "happy"]
    assert torch.equal(llama(audio, words), llama.loss(audio, words))


def test_logits_are_computed_at_label_positions_only(llama, audio, tokenizer):
    shapes = []
    hook = llama.model.lm_head.register_forward_hook(
        lambda module, args, output: shapes.append(tuple(output.shape))
    )
    words = ["sad", "fearful", "happy"]
    llama.loss(audio, words)
    hook.remove()
    longest = max(len(tokens_of(tokenizer, word)) for word in words)
    assert shapes == [(len(words), longest, len(tokenizer))]


def saved_bytes(compute, model):
    """Bytes that autograd keeps for the backward pass, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        result = compute()
    assert result.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def test_a_frozen_llm_keeps_less_for_the_backward_pass(folder, llama):
    audio = torch.randn(8, 32, 48, requires_grad=True)
    words = ["sad", "happy"] * 4
    trained = EmotionLLaMA(folder, prompt=PROMPT).requires_grad_()
    frozen_bytes, trained_bytes = (
        saved_bytes(lambda model=model: model.loss(audio, words), model)
        for model in (llama, trained)
    )
    assert frozen_bytes < 0.7 * trained_bytes


# Activation checkpointing


@pytest.fixture(scope="module")
def checkpointed(folder):
    return EmotionLLaMA(folder, prompt=PROMPT, activation_checkpointing=True)


def test_checkpointing_changes_no_loss_and_no_gradient(
    checkpointed, llama, audio
):
    audio.requires_grad_()
    words = ["sad or so", "neutral", "fearful"]
    checkpointed.train()  # as Brain does
    assert not any(module.training for module in checkpointed.modules())
    expected = llama.loss(audio, words)
    found = checkpointed.loss(audio, words)
    assert torch.equal(found, expected)
    assert torch.equal(
        *(torch.autograd.grad(loss, audio)[0] for loss in (found, expected))
    )


def test_checkpointing_changes_no_answer(checkpointed, llama, audio):
    scores = checkpointed.score(audio, WORDS)
    assert torch.equal(scores, llama.score(audio, WORDS))
    assert checkpointed.generate(audio, 5) == llama.generate(audio, 5)


def test_checkpointing_works_in_mixed_precision(checkpointed, llama, audio):
    audio.requires_grad_()
    gradients = []
    for model in (llama, checkpointed):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(audio, ["sad", "fearful", "happy"])
        gradients.append(torch.autograd.grad(loss, audio)[0])
    assert torch.equal(*gradients)


def test_checkpointing_keeps_little_more_than_the_layers_inputs(
    checkpointed, llama, tokenizer
):
    audio = torch.randn(8, 32, 48, requires_grad=True)
    words = ["sad", "happy"] * 4
    plain_bytes, found = (
        saved_bytes(lambda model=model: model.loss(audio, words), model)
        for model in (llama, checkpointed)
    )
    # What goes into each of the two layers and out of the last one, in
    # float32, once more for the final norm's own needs; and the logits.
    length = read(llama.model, tokenizer, audio[0]).shape[1] + 1
    hidden = 4 * 8 * length * 48
    label_tokens = sum(len(tokens_of(tokenizer, word)) for word in words)
    logits = 4 * label_tokens * len(tokenizer)
    assert found < 5 * hidden + 2 * logits < 0.5 * plain_bytes


# What is frozen


def test_the_llm_stays_the_hubs_own(llama, folder, tokenizer):
    stored = load_file(folder / "model.safetensors")
    state = llama.model.state_dict()
    for name, value in stored.items():
        assert torch.equal(state[name], value), name
    embeddings = llama.model.get_input_embeddings().weight
    assert torch.equal(embeddings, stored["model.embed_tokens.weight"])
    assert llama.model.config.vocab_size == len(embeddings) == len(tokenizer)
    assert len(llama.tokenizer) == len(tokenizer)
    assert llama.hidden_size == 48
    described = llama.describe()
    assert len(described.pop("digest")) == 32
    assert described == {"name": str(folder), "width": 48}
    square = stored["model.embed_tokens.weight"].double().square()
    assert llama.embedding_rms == pytest.approx(square.mean().sqrt().item())


def test_nothing_is_trained_and_nothing_gets_a_gradient(llama, audio):
    torch.nn.ModuleDict({"llama": llama}).train()  # as Brain does
    assert not any(module.training for module in llama.modules())
    llama.loss(audio.requires_grad_(), ["sad"] * 3).backward()
    assert audio.grad.abs().sum() > 0
    for parameter in llama.parameters():
        assert not parameter.requires_grad
        assert parameter.grad is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_weights_give_nearly_the_same(
    dtype, folder, llama, audio
):
    half = EmotionLLaMA(folder, prompt=PROMPT, dtype=dtype)
    kinds = {p.dtype for p in half.parameters()}
    assert kinds == {getattr(torch, dtype)}
    expected = llama.score(audio, WORDS)
    found = half.score(audio, WORDS)
    assert found.dtype == torch.float32
    assert ((found - expected).abs() / expected.abs()).max() < 0.1
    loss = half.loss(audio.requires_grad_(), ["sad", "fearful", "happy"])
    loss.backward()
    assert loss.dtype == audio.grad.dtype == torch.float32


def test_scoring_works_in_mixed_precision(llama, audio):
    expected = llama.score(audio, WORDS)
    with torch.autocast("cpu", torch.bfloat16):
        found = llama.score(audio, WORDS)
    assert ((found - expected).abs() / expected.abs()).max() < 0.1


# Free decoding


def greedy(plain, tokenizer, audio, max_new_tokens):
    """Tokens by the largest logit, the whole sequence anew at each step."""
    ids = []
    while len(ids) < max_new_tokens:
        inputs = read(plain, tokenizer, audio, ids)
        with torch.no_grad():
            best = plain(inputs_embeds=inputs).logits[0, -1].argmax().item()
        if best == tokenizer.eos_token_id:
            break
        ids.append(best)
    return ids


def test_generation_is_greedy_and_ends_at_the_end_token(
    folder, plain, tokenizer, tmp_path, audio
):
    # The end token is made to win where another was third to be said.
    third = greedy(plain, tokenizer, audio[0], 3)[2]
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        head = model.lm_head.weight
        head[tokenizer.eos_token_id] = 1.1 * head[third]
    model.save_pretrained(tmp_path)
    expected = [greedy(model, tokenizer, a, 6) for a in audio]
    assert len(expected[0]) < 6
    assert max(map(len, expected)) == 6
    llama = EmotionLLaMA(tmp_path, prompt=PROMPT)
    assert llama.generate(audio, max_new_tokens=6) == [
        tokenizer.decode(ids).strip() for ids in expected
    ]


def test_generation_is_transformers_own(llama, plain, tokenizer, audio):
    for row, text in zip(audio, llama.generate(audio, 5), strict=True):
        ids = plain.generate(
            inputs_embeds=read(plain, tokenizer, row),
            max_new_tokens=5,
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )
        assert text == tokenizer.decode(ids[0], True).strip()


# What cannot be used


def with_tokenizer(folder, destination, tokenizer, **special):
    """The model with another tokenizer."""
    shutil.copytree(folder, destination, dirs_exist_ok=True)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **special
    ).save_pretrained(destination)
    return destination


@pytest.mark.parametrize("word", ["", "  "])
def test_an_empty_word_is_refused(llama, audio, word):
    with pytest.raises(InputError, match="has no token"):
        llama.loss(audio, ["sad", word, "sad"])
    with pytest.raises(InputError, match="is empty"):
        llama.score(audio, ["sad", word])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sad", "happy", "sad"], "'sad' is given twice"),
        (["sad", " sad "], "'sad' is given twice"),
        ([], "no labels"),
        ("paper5", "unknown label set 'paper5'"),
    ],
)
def test_bad_candidates_are_refused(llama, audio, words, message):
    with pytest.raises(InputError, match=message):
        llama.score(audio, words)


def test_a_word_without_a_known_token_is_refused(folder, tmp_path, audio):
    vocabulary = {"<s>": 0, "</s>": 1, "?": 2, "Emotion": 3, "sad": 4}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    llama = EmotionLLaMA(
        with_tokenizer(
            folder,
            tmp_path / "unknown",
            words,
            bos_token="<s>",
            eos_token="</s>",
            unk_token="?",
        ),
        prompt="Emotion",
    )
    assert llama.word_tokens("sad") == [4, 1]
    with pytest.raises(InputError, match="'jealous' is unknown to this LLM"):
        llama.score(audio, ["sad", "jealous"])
    # without a token for what is unknown, nothing is left of it
    letters = Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "a": 2}, []))
    llama = EmotionLLaMA(
        with_tokenizer(
            folder,
            tmp_path / "nothing",
            letters,
            bos_token="<s>",
            eos_token="</s>",
        ),
        prompt="a",
    )
    with pytest.raises(InputError, match="'日' has no token in this LLM"):
        llama.score(audio, ["a", "日"])


def test_a_tokenizer_needs_an_end_but_no_beginning(
    folder, plain, tokenizer, tmp_path, audio
):
    backend = tokenizer.backend_tokenizer
    with pytest.raises(InputError, match=r"no end-of-text token.*llama_hub"):
        EmotionLLaMA(
            with_tokenizer(
                folder, tmp_path / "no_end", backend, bos_token="<s>"
            )
        )
    llama = EmotionLLaMA(
        with_tokenizer(
            folder, tmp_path / "no_beginning", backend, eos_token="</s>"
        ),
        prompt=PROMPT,
    )
    ids = tokens_of(tokenizer, "fearful")
    inputs = read(plain, tokenizer, audio[0], ids)[:, 1:]
    with torch.no_grad():
        logits = plain(inputs_embeds=inputs).logits[0, -len(ids) - 1 : -1]
    expected = logits.log_softmax(-1)[range(len(ids)), ids].sum()
    torch.testing.assert_close(
        llama.score(audio, ["fearful"])[0, 0], expected, atol=2e-5, rtol=0
    )


def test_a_word_is_taken_by_itself_where_its_space_joins_the_prompt(
    folder, tmp_path
):
    pieces = ["</s>", "a", "b", "c", " ", "a ", " b"]
    tokenizer = Tokenizer(
        models.BPE(
            {piece: number for number, piece in enumerate(pieces)},
            [("a", " "), (" ", "b")],
        )
    )
    with_tokenizer(folder, tmp_path, tokenizer, eos_token="</s>")
    for prompt in ("c", "a"):  # "c| b" and "a |b"
        llama = EmotionLLaMA(tmp_path, prompt=prompt)
        assert llama.word_tokens("b") == [pieces.index(" b"), 0]


@pytest.mark.parametrize("method", ["score", "loss", "generate"])
def test_audio_of_another_width_is_refused(llama, method):
    arguments = {"score": [WORDS], "loss": [["sad"] * 3], "generate": []}
    with pytest.raises(InputError, match="width 40 for an LLM of width 48"):
        getattr(llama, method)(torch.randn(3, 5, 40), *arguments[method])


@pytest.mark.parametrize(
    "missing", ["config.json", "tokenizer_config.json", "model.safetensors"]
)
def test_a_missing_file_is_named_with_its_setting(missing, folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / missing).unlink()
    with pytest.raises(InputError, match="llama_hub") as error:
        EmotionLLaMA(tmp_path)
    assert missing in str(error.value)


def test_a_hub_name_without_network_says_what_to_do(tmp_path):
    name = "meta-llama/Meta-Llama-3-8B-Instruct"
    with pytest.raises(InputError) as error:
        EmotionLLaMA(name, save_path=str(tmp_path))
    for part in (name, "config.json", "point llama_hub to a folder"):
        assert part in str(error.value)


def test_a_model_without_llamas_interface_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1)
    ).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"is a gpt2.*llama_hub"):
        EmotionLLaMA(tmp_path)


@pytest.mark.parametrize("utterances", [1, 2])
def test_the_head_is_multiplied_once_for_a_batch(llama, audio, utterances):
    # A view of some positions would make PyTorch copy the head for each row,
    # of a single one too, whose view calls itself contiguous.
    whole = []
    hook = llama.model.get_output_embeddings().register_forward_pre_hook(
        lambda head, inputs: whole.append(
            inputs[0].stride() == torch.empty(inputs[0].shape).stride()
        )
    )
    audio = audio[:utterances]
    llama.loss(audio, ["happy"] * len(audio))
    llama.score(audio, ["happy", "sad"])
    hook.remove()
    assert len(whole) >= 2
    assert all(whole)


def test_an_unknown_dtype_is_named(folder):
    with pytest.raises(InputError, match="frozen_dtype is 'int4', expected"):
        EmotionLLaMA(folder, dtype="int4")


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is not None,
    reason="bitsandbytes is installed",
)
def test_four_bits_without_bitsandbytes_say_what_to_install(folder):
    with pytest.raises(InputError) as error:
        EmotionLLaMA(folder, load_in_4bit=True)
    assert "pip install 'speechbrain-mser[quantized]'" in str(error.value)


# Adapters


def with_adapters(folder, rank=2, dtype="float32"):
    pytest.importorskip("peft")
    return EmotionLLaMA(folder, prompt=PROMPT, lora_rank=rank, dtype=dtype)


def train(llama, audio):
    """A few steps on one batch."""
    trained = [p for p in llama.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        llama(audio, ["sad", "fearful", "happy"]).backward()
        optimizer.step()
    return llama


def test_adapters_alone_are_trained_and_start_without_effect(
    folder, llama, audio
):
    adapted = with_adapters(folder).train()
    before = {n: p.detach().clone() for n, p in adapted.named_parameters()}
    trained = {n for n, p in adapted.named_parameters() if p.requires_grad}
    # two projections in each of two layers, two factors each
    assert len(trained) == 8
    assert all("lora_" in name for name in trained)
    assert not any(module.training for module in adapted.modules())
    scores = llama.score(audio, WORDS)
    torch.testing.assert_close(adapted.score(audio, WORDS), scores)
    train(adapted, audio)
    for name, parameter in adapted.named_parameters():
        unchanged = torch.equal(parameter, before[name])
        assert unchanged == (name not in trained), name
    assert (adapted.score(audio, WORDS) - scores).abs().max() > 1e-3


def test_checkpointing_gives_adapters_the_same_gradients(folder, audio):
    pytest.importorskip("peft")
    audio.requires_grad_()
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)  # adapters start at random
        adapted = EmotionLLaMA(
            folder,
            prompt=PROMPT,
            lora_rank=2,
            activation_checkpointing=checkpointing,
        )
        train(adapted, audio)  # the first step's half of them are zero
        trained = [p for p in adapted.parameters() if p.requires_grad]
        loss = adapted.loss(audio, ["sad", "fearful", "happy"])
        gradients.append(torch.autograd.grad(loss, [audio, *trained]))
    assert len(gradients[0]) == 9
    for expected, found in zip(*gradients, strict=True):
        assert expected.abs().sum() > 0
        assert torch.equal(found, expected)


def test_adapters_of_a_half_precision_llm_are_trained_in_float32(folder, audio):
    # A step of 1e-5 on a weight of 0.1 is nothing in bfloat16.
    adapted = with_adapters(folder, dtype="bfloat16")
    for name, parameter in adapted.named_parameters():
        is_adapter = "lora_" in name
        assert (parameter.dtype == torch.float32) == is_adapter
    train(adapted, audio)
    assert adapted.score(audio, WORDS).isfinite().all()


def test_adapters_are_saved_and_loaded_and_nothing_else(
    folder, audio, tmp_path
):
    path = tmp_path / "llama.safetensors"
    saved = train(with_adapters(folder), audio)
    saved.save(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert len(load_file(path)) == 8
    loaded = with_adapters(folder)
    expected = saved.score(audio, WORDS)
    assert not torch.allclose(loaded.score(audio, WORDS), expected)
    loaded.load(path)
    assert torch.equal(loaded.score(audio, WORDS), expected)


@pytest.mark.parametrize(("there", "here"), [(1, 3), (3, 1), (2, 0)])
def test_adapters_of_another_rank_are_refused(folder, there, here, tmp_path):
    path = tmp_path / "llama.safetensors"
    with_adapters(folder, there).save(path)
    other = with_adapters(folder, here)
    with pytest.raises(InputError, match="adapters of another LLM or rank"):
        other.load(path)


def test_what_are_no_adapters_is_refused(folder, tmp_path):
    path = tmp_path / "llama.safetensors"
    adapted = with_adapters(folder)
    for content in (None, b"half a file"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match="not adapters"):
            adapted.load(path)


def test_a_label_may_be_said_with_another_word(tiny_llama):
    plain = EmotionLLaMA(tiny_llama)
    words = {"fear": "scared", "happy": "fröhlich"}
    other = EmotionLLaMA(tiny_llama, emotion_words=words)
    audio = torch.randn(3, 4, plain.hidden_size)
    labels, said = ["fear", "sad", "happy"], ["scared", "sad", "fröhlich"]
    assert plain.word_tokens("fear") != plain.word_tokens("scared")
    assert torch.equal(other.loss(audio, labels), plain.loss(audio, said))
    assert torch.equal(other.score(audio, labels), plain.score(audio, said))
    assert other.count_tokens(labels) == plain.count_tokens(said)
    # what is no label is itself
    assert torch.equal(
        other.score(audio, ["jealous"]), plain.score(audio, ["jealous"])
    )
    with pytest.raises(InputError, match="'fear' and 'scared' are both said"):
        other.score(audio, ["fear", "sad", "scared"])
