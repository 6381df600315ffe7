"""What words mean to an LLM, and what never trained words are worth by it."""

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from speechbrain_mser.errors import InputError
from speechbrain_mser.inference.settings import SETTINGS
from speechbrain_mser.lobes import build_connector
from speechbrain_mser.lobes.llama import EmotionLLaMA
from speechbrain_mser.lobes.word_meanings import (
    AXES,
    FRAMES,
    WordMeanings,
    give_untrained,
    meaning_odds,
)

WORDS = ["sad", "fear", "happy"]
MEANING = torch.tensor([[0.3, -0.2, 0.1], [-1.0, 0.5, 0.0], [0.0, 0.0, 2.0]])


@pytest.fixture(scope="module")
def loaded(tiny_llama):
    """The LLM and its tokenizer, as transformers loads them."""
    kinds = AutoModelForCausalLM, AutoTokenizer
    return [kind.from_pretrained(tiny_llama) for kind in kinds]


@torch.no_grad()
def read(loaded, text):
    """A text's last hidden state in the one layer that is asked."""
    model, tokenizer = loaded
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    ids = ids["input_ids"]
    ids = F.pad(ids, (1, 0), value=model.config.bos_token_id)
    found = model(input_ids=ids, output_hidden_states=True).hidden_states
    assert len(found) == 3  # before, between and after two layers
    return found[1][0, -1]


def test_meanings_are_projections_on_the_way_from_pole_to_pole(llama, loaded):
    # The mean of what is read after each frame
    expected = [place_of_happy(loaded, before) for before in FRAMES]
    (found,) = llama.word_meanings(["happy"])
    expected = torch.stack(expected).mean(0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_an_older_recogniser_reads_words_as_it_did(tiny_llama, loaded):
    (default,) = {*SETTINGS["meaning_frames"].default}
    older = EmotionLLaMA(tiny_llama, meaning_frames=[default])
    expected = place_of_happy(loaded, "The speaker feels")
    (found,) = older.word_meanings(["happy"])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def place_of_happy(loaded, before):
    poles = {
        name: [
            torch.stack([read(loaded, f"{before} {w}") for w in p.split()])
            for p in pair
        ]
        for name, pair in AXES.items()
    }
    centre = torch.stack([torch.stack(p).mean((0, 1)) for p in poles.values()])
    centre = centre.mean(0)
    ways = [F.normalize((a - b).mean(0), dim=0) for a, b in poles.values()]
    halves = [
        (F.cosine_similarity(a - centre, w[None]).mean()
         - F.cosine_similarity(b - centre, w[None]).mean()) / 2
        for (a, b), w in zip(poles.values(), ways, strict=True)
    ]  # fmt: skip
    word = read(loaded, f"{before} happy") - centre
    places = [F.cosine_similarity(word, w, dim=0) for w in ways]
    return torch.stack(places) / torch.stack(halves).mean()


def test_poles_of_all_axes_are_two_apart(llama):
    apart = []
    for number, poles in enumerate(AXES.values()):
        here = [llama.word_meanings(p.split())[:, number].mean() for p in poles]
        apart.append(here[0] - here[1])
    assert torch.stack(apart).mean().item() == pytest.approx(2, abs=1e-4)


def test_a_word_means_the_same_beside_any_others(llama):
    alone = WordMeanings(llama.model, llama.tokenizer)(["fear"])
    assert torch.equal(
        llama.word_meanings(["sad", "fear", "happy"])[1:2], alone
    )


def test_untrained_words_weigh_what_they_mean_and_the_rest_is_shared(llama):
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    meant = torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
    untrained = [False, True, False, False, True]
    found = give_untrained(scores, meant, untrained).exp()
    torch.testing.assert_close(found.sum(-1), torch.ones(4))
    torch.testing.assert_close(found[:, [1, 4]], meant.softmax(-1)[:, [1, 4]])
    # Among the trained, all is as without the others.
    trained = found[:, [0, 2, 3]]
    torch.testing.assert_close(
        trained / trained.sum(-1, keepdim=True), scores.softmax(-1)
    )


def test_where_none_was_trained_meaning_alone_counts(llama, audio):
    far = -torch.cdist(MEANING, llama.word_meanings(WORDS)).square()
    for found in (
        llama.nearness(audio, WORDS, MEANING, trained={"bored"}),
        llama.score(audio, WORDS, MEANING, trained={"bored"}),
    ):
        torch.testing.assert_close(found, far.log_softmax(-1))


def test_where_all_were_trained_meaning_changes_nothing(llama, audio):
    for ask in (llama.score, llama.nearness):
        assert torch.equal(ask(audio, WORDS, MEANING, WORDS), ask(audio, WORDS))


def test_the_llm_weighs_trained_words_as_if_they_alone_were_asked(llama, audio):
    known = llama.score(audio, ["sad", "happy"]).softmax(-1)
    found = llama.score(audio, WORDS, MEANING, ["sad", "happy"]).exp()
    meant = llama.meaning_odds(MEANING, WORDS).softmax(-1)
    torch.testing.assert_close(found[:, 1], meant[:, 1])
    torch.testing.assert_close(
        found[:, [0, 2]], known * (1 - meant[:, 1:2]), atol=1e-5, rtol=1e-4
    )


def test_a_label_means_what_is_said_for_it(tiny_llama):
    other = EmotionLLaMA(tiny_llama, emotion_words={"fear": "happy"})
    odds = other.meaning_odds(MEANING, ["fear", "sad", "happy"])
    assert torch.equal(odds[:, 0], odds[:, 2])
    assert not torch.equal(odds[:, 0], odds[:, 1])


def test_adapters_would_change_what_words_mean(tiny_llama):
    adapted = EmotionLLaMA(tiny_llama, lora_rank=1)
    with pytest.raises(InputError, match=r"lora_rank is 1, expected 0"):
        adapted.meaning_odds(MEANING, WORDS)


@pytest.mark.parametrize("kind", ["linear", "qformer"])
def test_a_connector_learns_what_is_meant(kind):
    torch.manual_seed(0)
    shape = {"n_layers": 1, "hidden_size": 8, "n_heads": 2}
    shape |= {"intermediate_size": 8, "query_dim": 4}
    connector = build_connector(
        kind, 6, 10, 2, hear_meaning=True, standardize=False,
        **(shape if kind == "qformer" else {}),
    ).eval()  # fmt: skip
    # So that even an untrained Q-Former tells one from the other
    for name, weight in connector.named_parameters():
        if weight.ndim == 2 and not name.startswith("meaning"):
            torch.nn.init.orthogonal_(weight)
    features = torch.randn(3, 1, 6).expand(3, 4, 6)
    heard = connector(features, torch.ones(3))
    assert torch.equal(heard.meaning, torch.zeros(3, 3))  # says nothing yet
    words = torch.eye(3)
    optimizer = torch.optim.Adam(connector.meaning.parameters(), 0.1)
    for _ in range(100):
        meaning = connector(features, torch.ones(3)).meaning
        loss = F.cross_entropy(meaning_odds(meaning, words), torch.arange(3))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert meaning_odds(meaning, words).argmax(-1).tolist() == [0, 1, 2]
    # The rest of it is as without.
    torch.testing.assert_close(
        connector(features, torch.ones(3)).tokens, heard.tokens
    )


def test_a_connector_that_hears_no_meaning_has_nothing_for_it():
    connector = build_connector("linear", 6, 10, 1, standardize=False)
    assert connector(torch.randn(1, 2, 6), torch.ones(1)).meaning is None
    assert not any("meaning" in name for name in connector.state_dict())


@pytest.mark.parametrize("kind", ["linear", "qformer"])
def test_what_is_learned_of_meaning_changes_nothing_else(kind):
    shape = {"n_layers": 1, "hidden_size": 8, "n_heads": 2}
    shape |= {"intermediate_size": 8, "query_dim": 4}
    connectors = []
    for hear_meaning in (False, True):
        torch.manual_seed(0)
        connectors.append(
            build_connector(
                kind, 6, 10, 2, standardize=False, hear_meaning=hear_meaning,
                **(shape if kind == "qformer" else {}),
            )
        )  # fmt: skip
    without, with_it = connectors
    start = with_it.state_dict()
    assert all(torch.equal(start[n], v) for n, v in without.named_parameters())
    heard = with_it(torch.randn(3, 4, 6), torch.ones(3))
    F.cross_entropy(heard.meaning, torch.arange(3)).backward()
    moved = {n for n, p in with_it.named_parameters() if p.grad is not None}
    assert moved == {"meaning.weight", "meaning.bias"}


def test_a_trained_word_is_one_in_capitals_too(llama, audio):
    asked = ["Sad", "happy", "fear"]
    found = llama.score(audio, asked, MEANING, ["sad", "Happy"]).exp()
    known = llama.score(audio, ["Sad", "happy"]).softmax(-1)
    torch.testing.assert_close(
        found[:, :2] / found[:, :2].sum(-1, keepdim=True),
        known, atol=1e-5, rtol=1e-4,
    )  # fmt: skip


def test_half_precision_has_the_same_places(llama):
    with torch.autocast("cpu", torch.bfloat16):
        half = WordMeanings(llama.model, llama.tokenizer)(["fear"])
    assert torch.equal(half, llama.word_meanings(["fear"]))


def test_an_llm_that_knows_none_of_the_poles_is_refused(llama):
    def tokenize(texts, **_):
        return {"input_ids": [[5, 6] for _ in texts]}

    tokenize.bos_token_id = None
    with pytest.raises(InputError, match="opposite meaning alike"):
        WordMeanings(llama.model, tokenize)


def test_going_on_from_a_connector_that_hears_no_meaning_and_back(tmp_path):
    def make(hear_meaning):
        return build_connector(
            "linear", 6, 10, 1, standardize=False, hear_meaning=hear_meaning
        )

    without, with_it = make(False), make(True)
    torch.nn.init.ones_(with_it.meaning.weight)
    without.save(tmp_path / "without")
    with_it.save(tmp_path / "with")
    for path, other in (("without", make(True)), ("with", make(False))):
        with pytest.raises(InputError, match="meaning"):
            other.load(tmp_path / path)
        other.load(tmp_path / path, go_on=True)
        saved = without if path == "without" else with_it
        assert torch.equal(other.output.weight, saved.output.weight)
    anew = make(True)
    anew.load(tmp_path / "without", go_on=True)
    assert not anew.meaning.weight.any()
    same = make(True)
    same.load(tmp_path / "with", go_on=True)
    assert torch.equal(same.meaning.weight, with_it.meaning.weight)
