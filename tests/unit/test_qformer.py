"""The Q-Former: what BERT gives it, what it hears, what it hands on."""

import pytest
import torch
from torch import nn
from transformers import BertModel

from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.qformer import EmotionQFormer

SHAPE = {
    "n_layers": 2,
    "hidden_size": 32,
    "n_heads": 2,
    "intermediate_size": 64,
}

# What BERT has for a layer of a Q-Former, in the order of computation.
LAYER = {
    "attention.attention.query": "attention.self.query",
    "attention.attention.key": "attention.self.key",
    "attention.attention.value": "attention.self.value",
    "attention.output.dense": "attention.output.dense",
    "attention.output.LayerNorm": "attention.output.LayerNorm",
    "intermediate_query.dense": "intermediate.dense",
    "output_query.dense": "output.dense",
    "output_query.LayerNorm": "output.LayerNorm",
}
# What it does not have.
CROSS_ATTENTION = [
    "crossattention.attention.query",
    "crossattention.attention.key",
    "crossattention.attention.value",
    "crossattention.output.dense",
    "crossattention.output.LayerNorm",
]


def parameters(names):
    return [f"{name}.{part}" for name in names for part in ("weight", "bias")]


@pytest.fixture(scope="module")
def bert(tiny_bert, tmp_path_factory):
    """A BERT without a parameter that is zero, one, or like another."""
    model = BertModel.from_pretrained(tiny_bert)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    folder = tmp_path_factory.mktemp("random_bert")
    model.save_pretrained(folder)
    return folder


def make(**settings):
    """A small Q-Former in evaluation mode, without standardisation."""
    shape = {} if settings.get("bert_source") else SHAPE
    return EmotionQFormer(
        **{
            "input_dim": 12,
            "output_dim": 20,
            "n_queries": 5,
            "query_dim": 8,
            "standardize": False,
            **shape,
            **settings,
        }
    ).eval()


@pytest.mark.parametrize("n_layers", [None, 3, 2, 1])
def test_every_parameter_that_bert_has_comes_from_bert(bert, n_layers):
    qformer = make(bert_source=bert, n_layers=n_layers)
    theirs = BertModel.from_pretrained(bert).state_dict()
    ours = qformer.model.state_dict()
    layers = range(n_layers or 3)
    expected = {
        "layernorm.weight": "embeddings.LayerNorm.weight",
        "layernorm.bias": "embeddings.LayerNorm.bias",
    }
    for n in layers:
        layer = f"encoder.layer.{n}."
        for name, source in zip(
            parameters(LAYER), parameters(LAYER.values()), strict=True
        ):
            expected[layer + name] = layer + source
    for name, source in expected.items():
        assert torch.equal(ours[name], theirs[source]), name
    new = {
        f"encoder.layer.{n}.{name}"
        for n in layers
        if n % 2 == 0  # cross-attention in every second layer
        for name in parameters(CROSS_ATTENTION)
    }
    assert qformer.bert_report == expected | dict.fromkeys(new)
    assert list(qformer.bert_report) == list(ours)


def test_without_its_cross_attention_it_computes_what_bert_does(tiny_bert):
    # This BERT's norms are those of a beginner (one, zero), hence the
    # cross-attention's norm of a normalised vector changes nothing.
    qformer = make(bert_source=tiny_bert, cross_attention_every=1, query_dim=32)
    for layer in qformer.model.encoder.layer:
        nn.init.zeros_(layer.crossattention.output.dense.weight)
    _, pooled, _ = qformer(torch.randn(2, 9, 12), torch.ones(2))
    bert = BertModel.from_pretrained(tiny_bert).eval()
    with torch.no_grad():
        states = bert.embeddings.LayerNorm(qformer.queries)
        expected = bert.encoder(states).last_hidden_state.mean(1)
    torch.testing.assert_close(pooled, expected.expand(2, -1))


def test_without_bert_all_is_new_and_random():
    first, second = make(), make()
    assert set(first.bert_report) == set(first.model.state_dict())
    assert set(first.bert_report.values()) == {None}
    name = "encoder.layer.0.output_query.dense.weight"
    weights = [q.model.state_dict()[name] for q in (first, second)]
    assert not torch.equal(*weights)


def test_the_shape_is_berts_base_unless_it_is_given():
    qformer = EmotionQFormer(8, 8, n_layers=1)
    assert qformer.shape == {
        "n_layers": 1,
        "hidden_size": 768,
        "n_heads": 12,
        "intermediate_size": 3072,
    }
    assert qformer.queries.shape == (1, 32, 256)


@pytest.mark.parametrize(
    "setting",
    [{"hidden_size": 64}, {"n_heads": 4}, {"intermediate_size": 32}],
)
def test_other_widths_than_berts_are_refused(tiny_bert, setting):
    with pytest.raises(InputError) as error:
        make(bert_source=tiny_bert, **setting)
    assert f"asked for {setting}" in str(error.value)
    assert "'hidden_size': 32, 'n_heads': 2" in str(error.value)


def test_more_layers_than_berts_are_refused_and_its_own_widths_are_not(
    tiny_bert,
):
    with pytest.raises(InputError, match=r"asked for .*'n_layers': 4"):
        make(bert_source=tiny_bert, n_layers=4)
    make(bert_source=tiny_bert, hidden_size=32, n_heads=2, n_layers=3)


def test_another_model_than_a_bert_is_refused(tiny_llama, tmp_path):
    with pytest.raises(InputError, match="is a llama"):
        make(bert_source=str(tiny_llama))
    with pytest.raises(InputError, match=r"bert_hub.*no folder"):
        make(bert_source=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"bert_hub.*no config\.json"):
        make(bert_source=str(tmp_path))


@pytest.mark.parametrize(("n_queries", "query_dim"), [(1, 8), (7, 32)])
def test_queries_and_widths_are_those_asked_for(n_queries, query_dim):
    qformer = make(n_queries=n_queries, query_dim=query_dim)
    tokens, pooled, _ = qformer(torch.randn(3, 9, 12), torch.ones(3))
    assert tokens.shape == (3, n_queries, 20)
    assert pooled.shape == (3, 32)
    assert qformer.queries.shape == (1, n_queries, query_dim)
    # only queries of another width are lifted
    assert isinstance(qformer.lift, nn.Identity) == (query_dim == 32)


def test_pooled_is_the_mean_over_the_queries():
    qformer = make()
    tokens, pooled, _ = qformer(torch.randn(3, 9, 12), torch.ones(3))
    # The projection is affine, so the mean can be taken on either side.
    torch.testing.assert_close(tokens.mean(1), qformer.output(pooled))


def test_queries_have_no_order_of_their_own():
    qformer = make()
    features, lens = torch.randn(2, 9, 12), torch.ones(2)
    tokens, pooled, _ = qformer(features, lens)
    order = [3, 0, 4, 1, 2]
    qformer.queries.data = qformer.queries.data[:, order]
    permuted, pooled_permuted, _ = qformer(features, lens)
    torch.testing.assert_close(permuted, tokens[:, order])
    torch.testing.assert_close(pooled_permuted, pooled)


def test_tokens_depend_on_the_speech_in_every_frame():
    qformer = make()
    features = torch.randn(1, 9, 12, requires_grad=True)
    tokens, *_ = qformer(features, torch.ones(1))
    tokens[0, :, 0].sum().backward()
    assert (features.grad.abs().sum(-1) > 0).all()


def test_padding_is_never_attended():
    qformer = make()
    features, lens = torch.randn(2, 10, 12), torch.tensor([1.0, 0.4])
    before = qformer(features, lens)[:2]
    features[1, 4:] = 1e4 * torch.randn(6, 12)
    after = qformer(features, lens)[:2]
    for a, b in zip(after, before, strict=True):
        assert torch.equal(a, b)


def test_a_longer_batch_mate_changes_nothing():
    qformer = make()
    features = torch.randn(1, 6, 12)
    alone = qformer(features, torch.ones(1))[:2]
    mates = torch.randn(3, 25, 12)
    mates[1, :6] = features[0]
    together = qformer(mates, torch.tensor([1.0, 6 / 25, 13 / 25]))[:2]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1], b[0], atol=1e-6, rtol=0)


def test_dropout_is_active_in_training_only():
    qformer = make(dropout=0.5)
    inputs = torch.randn(1, 6, 12), torch.ones(1)
    assert torch.equal(qformer(*inputs)[0], qformer(*inputs)[0])
    qformer.train()
    assert not torch.equal(qformer(*inputs)[0], qformer(*inputs)[0])


def test_every_parameter_is_trained():
    # DDP waits for a gradient of each.
    qformer = make(n_input_layers=3, output_rms=0.1, dropout=0.0)
    tokens, *_ = qformer(torch.randn(2, 3, 9, 12), torch.ones(2))
    (tokens * torch.randn_like(tokens)).sum().backward()
    for name, parameter in qformer.named_parameters():
        assert parameter.grad is not None, name
        # adding one number to all scores of a softmax changes nothing
        if not name.endswith("attention.key.bias"):
            assert parameter.grad.abs().sum() > 0, name


def test_initialised_builds_the_same_without_the_bert(tiny_bert):
    trained = make(bert_source=tiny_bert, n_layers=2)
    settings = trained.initialised()
    assert settings["bert_source"] is None
    again = make(**settings)
    again.load_state_dict(trained.state_dict())
    inputs = torch.randn(2, 6, 12), torch.ones(2)
    assert torch.equal(again(*inputs)[0], trained(*inputs)[0])
