"""What stands before the audio is read once, and changes no number by it.

That the numbers are transformers' own, for every family and with a text before
the audio, is ``test_families.py``'s.
"""

import copy

import pytest
import torch

from speechbrain_mser.lobes.llama import EmotionLLaMA

BEFORE = "The emotion of the speaker: happy happy, sad sad."
PROMPT = "What is the emotion?"
WORDS = ["sad", "fear", "sad or so"]


def load(folder, **settings):
    """A new one, which has read nothing yet."""
    settings = {"prompt": PROMPT, "prompt_before": BEFORE, **settings}
    return EmotionLLaMA(folder, **settings)


@pytest.fixture
def llama(tiny_llama):
    """One that has read nothing yet."""
    return load(tiny_llama)


@pytest.fixture(scope="module")
def audio():
    """Three utterances of four tokens."""
    return torch.randn(3, 4, 48, generator=torch.Generator().manual_seed(0))


def answers(llama, audio):
    """Loss, its gradient, scores."""
    audio = audio.clone().requires_grad_()
    loss = llama.loss(audio, WORDS)
    (gradient,) = torch.autograd.grad(loss, audio)
    return loss.detach(), gradient, llama.score(audio.detach(), WORDS)


def whole(llama, audio):
    """The same in plain forwards: one utterance, one word, all tokens."""
    model = llama.model
    embed, around = model.get_input_embeddings(), llama._around()

    def score(utterance, word):
        tokens = torch.tensor(llama.word_tokens(word))
        before, after = (
            embed(torch.tensor(ids)) for ids in (around.before, around.after)
        )
        parts = [before, utterance.to(before.dtype), after, embed(tokens[:-1])]
        logits = model(inputs_embeds=torch.cat(parts)[None], use_cache=False)
        said = logits.logits[0, -len(tokens) :].float().log_softmax(-1)
        return said[range(len(tokens)), tokens].sum()

    audio = audio.clone().requires_grad_()
    scores = torch.stack(
        [torch.stack([score(a, word) for word in WORDS]) for a in audio]
    )
    loss = -scores.diagonal().sum() / llama.count_tokens(WORDS)
    (gradient,) = torch.autograd.grad(loss, audio)
    return loss.detach(), gradient, scores.detach()


def assert_same(found, expected):
    for some, others in zip(found, expected, strict=True):
        torch.testing.assert_close(some, others, atol=1e-5, rtol=1e-5)


def lengths_read(llama, compute):
    """Batch and tokens of every pass that a computation takes."""
    read = []
    hook = llama.model.register_forward_pre_hook(
        lambda _, __, kwargs: read.append(kwargs["inputs_embeds"].shape[:2]),
        with_kwargs=True,
    )
    compute()
    hook.remove()
    return [tuple(shape) for shape in read]


def test_what_stands_before_the_audio_is_read_once(llama, audio):
    before, after = len(llama._around().before), len(llama._around().after)
    longest = max(len(llama.word_tokens(word)) for word in WORDS)
    rest = 4 + after + longest - 1
    train = lambda: llama.loss(audio, WORDS)  # noqa: E731
    assert lengths_read(llama, train) == [(1, before), (3, rest)]
    assert lengths_read(llama, train) == [(3, rest)]
    (score,) = lengths_read(llama, lambda: llama.score(audio, WORDS))
    assert 4 + after < score[1] < 4 + after + 3 * longest
    (say,) = lengths_read(llama, lambda: llama.generate(audio, 1))
    assert say == (3, 4 + after)


def test_a_beginning_of_one_token_is_read_with_the_rest(tiny_llama, audio):
    llama = load(tiny_llama, prompt_before="")
    passes = lengths_read(llama, lambda: llama.loss(audio, WORDS))
    assert len(passes) == 1


def test_what_is_kept_is_never_written(llama, audio):
    first = answers(llama, audio)
    llama.generate(audio[:1], 3)
    kept = copy.deepcopy(llama._known[1]._layers)
    llama.generate(audio, 3)
    again = answers(llama, audio)
    for layer, copied in zip(llama._known[1]._layers, kept, strict=True):
        assert torch.equal(layer.keys, copied.keys)
        assert torch.equal(layer.values, copied.values)
        assert not layer.keys.requires_grad
    assert all(map(torch.equal, first, again))
    assert_same(again, whole(llama, audio))


def test_what_is_kept_from_recognition_serves_training(llama, audio):
    with torch.inference_mode():
        llama.score(audio, WORDS)
    assert_same(answers(llama, audio), whole(llama, audio))


def test_another_text_is_another_beginning(llama, tiny_llama, audio):
    answers(llama, audio)
    llama.prompt_before = "Of the speaker:"
    other = load(tiny_llama, prompt_before="Of the speaker:")
    expected = answers(other, audio)
    assert all(map(torch.equal, answers(llama, audio), expected))
    assert llama.generate(audio, 3) == other.generate(audio, 3)


def test_a_model_that_moved_reads_it_again(llama, tiny_llama, audio):
    answers(llama, audio)
    expected = answers(load(tiny_llama, dtype="bfloat16"), audio)
    found = answers(llama.to(torch.bfloat16), audio)
    for some, others in zip(found, expected, strict=True):
        torch.testing.assert_close(some, others, atol=0.02, rtol=0.02)
    assert llama._known[1]._layers[0].keys.dtype == torch.bfloat16


def test_half_precision_is_as_near_as_without(llama, tiny_llama, audio):
    exact = whole(llama, audio)
    half = load(tiny_llama, dtype="bfloat16")
    for known, plain, truth in zip(
        answers(half, audio), whole(half, audio), exact, strict=True
    ):
        error = (plain - truth).abs().max()
        assert (known - truth).abs().max() <= 2 * error + 1e-3


def test_mixed_precision_reads_its_own(llama, audio):
    expected = answers(llama, audio)
    exact = llama._known[1]
    with torch.autocast("cpu", torch.bfloat16):
        found = answers(llama, audio)
        assert llama._known[1] is not exact
    for some, others in zip(found, expected, strict=True):
        torch.testing.assert_close(some, others, atol=0.05, rtol=0.05)
    assert all(map(torch.equal, answers(llama, audio), expected))


def test_layers_may_be_computed_twice(tiny_llama, llama, audio):
    twice = load(tiny_llama, activation_checkpointing=True)
    assert_same(answers(twice, audio), answers(llama, audio))


def test_trained_adapters_read_it_at_every_step(tiny_llama, audio):
    pytest.importorskip("peft")
    llama = load(tiny_llama, lora_rank=2)
    before, after = len(llama._around().before), len(llama._around().after)
    for _ in range(2):
        ((_, read),) = lengths_read(llama, lambda: llama.loss(audio, WORDS))
        assert read >= before + 4 + after
    llama.loss(audio, WORDS).backward()
    assert all(
        p.grad is not None for p in llama.parameters() if p.requires_grad
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_cpus_attention_is_the_plain_one(llama):
    assert llama.model.config._attn_implementation == "eager"
