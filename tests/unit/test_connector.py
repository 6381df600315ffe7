"""What connectors share: standardisation, layer mix, scale, checkpoints."""

import json
import resource
import signal
import struct
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.fingerprints import weights_digest
from speechbrain_mser.lobes import build_connector
from speechbrain_mser.lobes.layer_mix import mix_layers
from speechbrain_mser.lobes.linear import LinearConnector
from speechbrain_mser.lobes.qformer import EmotionQFormer
from speechbrain_mser.lobes.standardize import FeatureStandardizer

MODELS = {
    "encoder": {
        "name": "openai/whisper-large-v3",
        "width": 12,
        "digest": "5feb",
    },
    "llm": {"name": "/models/llama-8B/", "width": 20, "digest": "6b86"},
}


def make(connector_type="qformer", **settings):
    """A small connector of either type, in evaluation mode."""
    return build_connector(
        connector_type,
        **{
            "input_dim": 12,
            "output_dim": 20,
            "n_queries": 4,
            "query_dim": 8,
            "n_layers": 2,
            "hidden_size": 32,
            "n_heads": 2,
            "intermediate_size": 64,
            **settings,
        },
    ).eval()


both_types = pytest.mark.parametrize("connector_type", ["qformer", "linear"])


# Standardisation


def utterances_of(layers=3, dim=6, seed=0):
    """Features of four batches, their lengths, and the frames that count."""
    rng = np.random.default_rng(seed)
    scale, offset = rng.lognormal(0, 2, dim), 50 * rng.standard_normal(dim)
    batches, kept = [], []
    for counts in ([7, 3], [1, 10, 4], [5], [2, 2, 2, 9]):
        longest = max(counts)
        shape = (len(counts), layers, longest, dim)
        features = offset + scale * rng.standard_normal(shape)
        for row, count in zip(features, counts, strict=True):
            kept.append(row[:, :count])
            row[:, count:] = 1e6  # must not be seen
        lens = torch.tensor([count / longest for count in counts])
        batches.append((torch.tensor(features, dtype=torch.float32), lens))
    return batches, np.concatenate(kept, axis=1)  # [layers, frames, dim]


def test_statistics_are_numpys_over_the_frames_that_are_speech():
    batches, kept = utterances_of()
    standardizer = FeatureStandardizer(dim=6, n_layers=3)
    for features, lens in batches:
        standardizer.update(features, lens)
    standardizer.finish()
    np.testing.assert_allclose(standardizer.mean, kept.mean(1), rtol=1e-5)
    np.testing.assert_allclose(standardizer.std, kept.std(1), rtol=1e-5)
    assert standardizer.frames == kept.shape[1] == 45
    features = torch.tensor(kept, dtype=torch.float32)[None]
    each = [standardizer(features, weights) for weights in torch.eye(3)]
    found = torch.cat(each).double()
    assert found.mean(1).abs().max() < 1e-4
    assert (found.std(1, correction=0) - 1).abs().max() < 1e-4


def test_one_layer_may_come_without_its_dimension():
    batches, kept = utterances_of(layers=1)
    standardizer = FeatureStandardizer(dim=6)
    for features, lens in batches:
        standardizer.update(features[:, 0], lens)
    standardizer.finish()
    np.testing.assert_allclose(standardizer.std[0], kept[0].std(0), rtol=1e-5)
    features = batches[0][0]
    alone = standardizer(features[:, 0])
    assert torch.equal(alone, standardizer(features)[:, 0])


def test_features_pass_unchanged_until_the_statistics_are_there():
    standardizer = FeatureStandardizer(dim=6)
    features, lens = utterances_of(layers=1)[0][0]
    features = features[:, 0]
    assert not standardizer.fitted
    standardizer.update(features, lens)
    assert not standardizer.fitted
    assert torch.equal(standardizer(features), features)
    standardizer.finish()
    assert standardizer.fitted
    assert not torch.equal(standardizer(features), features)


def test_a_large_mean_does_not_swamp_a_small_deviation():
    # float32 squares of 1e4 are exact to 10: the deviation would be lost
    features = 1e4 + torch.randn(1, 5000, 2)
    standardizer = FeatureStandardizer(dim=2)
    standardizer.update(features, torch.ones(1))
    standardizer.finish()
    torch.testing.assert_close(
        standardizer.std[0], features[0].std(0, correction=0), rtol=1e-4, atol=0
    )


def test_a_constant_dimension_becomes_zero():
    features = torch.randn(2, 30, 3)
    features[..., 1] = 0.3
    standardizer = FeatureStandardizer(dim=3)
    standardizer.update(features, torch.ones(2))
    standardizer.finish()
    found = standardizer(features)
    assert found.isfinite().all()
    assert found[..., 1].abs().max() < 1e-3


def test_statistics_of_nothing_are_refused():
    with pytest.raises(InputError, match="none of the training utterances"):
        FeatureStandardizer(dim=3).finish()


# Layers side by side


@both_types
def test_joined_layers_are_each_standardised_and_side_by_side(connector_type):
    connector = make(connector_type, n_input_layers=3, layer_join="concat")
    features, lens = torch.randn(2, 3, 7, 12), torch.tensor([1.0, 4 / 7])
    connector.standardizer.update(features, lens)
    connector.standardizer.finish()
    found, mask = connector.read_features(features, lens)
    assert mask.sum(1).tolist() == [7, 4]
    kept = torch.cat([features[0].mT, features[1, ..., :4, :].mT], -1).mT
    own = (features - kept.mean(1, keepdim=True)) / kept.std(
        1, keepdim=True, correction=0
    )
    expected = F.layer_norm(torch.cat(list(own.unbind(1)), -1), (36,))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    tokens, *_ = connector(features, lens)
    assert tokens.shape == (2, 4, 20)


def test_one_layer_is_the_same_joined_either_way():
    features, lens = torch.randn(2, 7, 12), torch.ones(2)
    either = []
    for join in ("mix", "concat"):
        torch.manual_seed(0)
        either.append(make("linear", layer_join=join)(features, lens)[0])
    assert torch.equal(*either)


def test_an_unknown_join_is_named():
    with pytest.raises(InputError, match="layer_join is 'sum', expected mix"):
        make(layer_join="sum")


# The mix of layers


def plain_mix(features, weights, mean, std):
    """The formula as it is written, in float64."""
    standardized = (features.double() - mean.double()[:, None]) / std.double()[
        :, None
    ]
    return torch.einsum("l,blfd->bfd", weights.double(), standardized)


def whisper_like(dtype=torch.float32):
    """Features of three layers with a few huge, nearly constant dimensions."""
    mean, std = torch.randn(3, 6), 0.1 + torch.rand(3, 6)
    mean[:, 4] = torch.tensor([300.0, -50.0, 120.0])
    features = mean[:, None] + std[:, None] * torch.randn(2, 3, 9, 6)
    return features.to(dtype), torch.tensor([0.2, 0.7, 0.1]), mean, std


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16]
)
def test_the_mix_is_the_formulas_in_float64(dtype):
    inputs = whisper_like(dtype)
    mixed = mix_layers(*inputs)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(
        mixed.double(), plain_mix(*inputs), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mixs_gradients_are_the_formulas_in_float64(dtype):
    features, weights, mean, std = whisper_like(dtype)
    found, expected = [], []
    for mix, gradients, precision in (
        (mix_layers, found, torch.float32),
        (plain_mix, expected, torch.float64),
    ):
        x = features.clone().requires_grad_()
        w = weights.clone().to(precision).requires_grad_()
        mix(x, w, mean, std).sin().sum().backward()
        gradients += [x.grad, w.grad]
    assert found[0].dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(
        found[0], expected[0], atol=tolerance, rtol=tolerance
    )
    torch.testing.assert_close(
        found[1].double(), expected[1], atol=1e-5, rtol=1e-5
    )


def test_a_dimension_with_almost_no_deviation_keeps_what_it_has():
    # A million deviations from zero, where float32 has steps of an eighth of
    # one: a mean that was scaled first would leave rounding only.
    mean, std = torch.tensor([[256.0]]), torch.tensor([[2.0**-12]])
    features = 256 + 2.0**-12 * torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
    mixed = mix_layers(features[None, :, None], torch.ones(1), mean, std)
    assert mixed.flatten().tolist() == [-2, -1, 0, 1, 2]


def test_the_mix_keeps_nothing_for_the_gradient_but_its_inputs():
    features, weights, mean, std = inputs = whisper_like(torch.bfloat16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.data_ptr()) or t, lambda t: t
    ):
        mix_layers(features, weights.requires_grad_(), mean, std)
    assert set(kept) == {tensor.data_ptr() for tensor in inputs}


def test_features_may_lie_in_memory_in_any_order():
    features, *others = whisper_like()
    expected = mix_layers(features, *others)
    turned = features.transpose(0, 3).contiguous().transpose(0, 3)
    assert not turned.is_contiguous()
    assert torch.equal(mix_layers(turned, *others), expected)


# From features to tokens


@pytest.mark.parametrize("n_queries", [1, 4, 7, 30])
def test_the_linear_connector_is_adaptive_average_pooling(n_queries):
    connector = make("linear", n_queries=n_queries, standardize=False)
    counts = [20, 13, 7, 4, 1]
    features = torch.randn(5, 20, 12)
    tokens, pooled, _ = connector(features, torch.tensor(counts) / 20)
    for row, count, token, embedding in zip(
        features, counts, tokens, pooled, strict=True
    ):
        speech = F.layer_norm(row[:count], (12,))
        expected = F.adaptive_avg_pool1d(speech.T, n_queries).T
        torch.testing.assert_close(token, connector.output(expected))
        projected = connector.output(expected).mean(0)
        projected = projected - connector.output.bias
        torch.testing.assert_close(embedding, projected, atol=1e-5, rtol=1e-5)


@both_types
def test_layers_are_mixed_evenly_at_the_start(connector_type):
    several = make(connector_type, n_input_layers=3)
    features = 5 + 3 * torch.randn(2, 3, 9, 12)
    lens = torch.tensor([1.0, 7 / 9])
    several.standardizer.update(features, lens)
    several.standardizer.finish()
    mean, std = several.standardizer.mean, several.standardizer.std
    mixed = ((features - mean[:, None]) / std[:, None]).mean(1)
    one = make(connector_type, standardize=False)
    one.load_state_dict(several.state_dict(), strict=False)
    for a, b in zip(several(features, lens), one(mixed, lens), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@both_types
def test_the_mix_is_learned_and_can_choose_one_layer(connector_type):
    several = make(connector_type, n_input_layers=3, standardize=False)
    features, lens = torch.randn(2, 3, 9, 12), torch.ones(2)
    several(features, lens)[0].square().sum().backward()
    assert (several.layer_weights.grad.abs() > 0).all()
    with torch.no_grad():
        several.layer_weights.copy_(torch.tensor([-50.0, 50.0, -50.0]))
    one = make(connector_type, standardize=False)
    one.load_state_dict(several.state_dict(), strict=False)
    torch.testing.assert_close(
        several(features, lens)[0], one(features[:, 1], lens)[0]
    )


@both_types
def test_tokens_start_with_the_scale_that_is_asked_for(connector_type):
    connector = make(connector_type, output_rms=0.0123)
    features = 100 * torch.randn(3, 9, 12)
    tokens, pooled, _ = connector(features, torch.ones(3))
    rms = tokens.square().mean(-1).sqrt()
    torch.testing.assert_close(rms, torch.full((3, 4), 0.0123))
    assert isinstance(connector.output_scale, torch.nn.Parameter)
    # the embedding for the contrastive loss is not scaled
    connector.output_scale.data *= 2
    louder, same, _ = connector(features, torch.ones(3))
    torch.testing.assert_close(louder, 2 * tokens)
    assert torch.equal(same, pooled)
    assert make(connector_type).output_scale is None


@both_types
def test_tokens_start_around_an_embedding(connector_type):
    torch.manual_seed(0)
    connector = make(connector_type, output_rms=0.1)
    wanted = torch.randn(connector.output_dim)
    connector.start_at(wanted, spread=0.0)
    features, lens = 100 * torch.randn(3, 9, 12), torch.ones(3)
    tokens, *_ = connector(features, lens)
    expected = 0.1 * wanted / wanted.square().mean().sqrt()
    torch.testing.assert_close(tokens, expected.expand_as(tokens))
    # A spread for which hidden states of variance 1 add as much as it says
    connector = make(connector_type)
    connector.start_at(wanted, spread=0.5)
    hidden = torch.randn(20000, connector.output.in_features)
    added = connector.output(hidden) - connector.output.bias
    torch.testing.assert_close(
        added.square().mean().sqrt(), torch.tensor(0.5), atol=0.01, rtol=0
    )


@both_types
@pytest.mark.parametrize("n_input_layers", [1, 3])
@pytest.mark.parametrize("standardize", [True, False])
def test_half_precision_features_are_read_as_float32(
    connector_type, n_input_layers, standardize
):
    connector = make(
        connector_type, n_input_layers=n_input_layers, standardize=standardize
    )
    features = torch.randn(2, n_input_layers, 9, 12).bfloat16()
    if n_input_layers == 1:
        features = features[:, 0]
    lens = torch.ones(2)
    tokens, *_ = connector(features, lens)
    assert tokens.dtype == torch.float32
    assert torch.equal(tokens, connector(features.float(), lens)[0])


@both_types
@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((2, 9, 13), "1 layers of width 13"),
        ((2, 3, 9, 12), "3 layers of width 12"),
    ],
)
def test_features_of_another_encoder_are_refused(connector_type, shape, found):
    connector = make(connector_type)
    with pytest.raises(InputError) as error:
        connector(torch.randn(shape), torch.ones(2))
    assert f"the encoder gives {found}" in str(error.value)
    assert "built for 1 of width 12" in str(error.value)


def test_connectors_are_built_by_name():
    assert isinstance(make("qformer"), EmotionQFormer)
    assert isinstance(make("linear"), LinearConnector)
    with pytest.raises(InputError, match="'mlp', expected 'qformer' or 'lin"):
        make("mlp")


# Checkpoints


def trained(connector_type="qformer", **settings):
    """A connector unlike any new one, between known models."""
    connector = make(connector_type, n_input_layers=2, **settings)
    with torch.no_grad():
        for parameter in connector.parameters():
            parameter.add_(torch.randn_like(parameter))
    connector.standardizer.update(7 + torch.randn(2, 2, 9, 12), torch.ones(2))
    connector.standardizer.finish()
    connector.bind(MODELS)
    return connector


@both_types
def test_a_checkpoint_brings_back_all_that_was_saved(connector_type, tmp_path):
    saved = trained(connector_type, output_rms=0.1)
    saved.save(tmp_path / "connector.safetensors")
    loaded = make(connector_type, n_input_layers=2, output_rms=0.7)
    loaded.load(tmp_path / "connector.safetensors")
    for name, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert loaded.standardizer.fitted
    assert torch.equal(loaded.standardizer.mean, saved.standardizer.mean)
    assert loaded.frozen_models == MODELS
    features = torch.randn(2, 2, 9, 12), torch.ones(2)
    assert torch.equal(loaded(*features)[0], saved(*features)[0])


def test_a_checkpoint_is_a_safetensors_file_and_nothing_else(tmp_path):
    # The format: eight bytes with the header's length, the header in JSON,
    # the numbers. There is no room for code.
    connector = trained()
    path = tmp_path / "connector.safetensors"
    connector.save(path)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    described = json.loads(header.pop("__metadata__")["frozen_models"])
    assert described == MODELS
    numbers = content[8 + length :]
    assert len(numbers) == max(t["data_offsets"][1] for t in header.values())
    assert set(header) == set(connector.state_dict())
    first, last = header["queries"]["data_offsets"]
    queries = np.frombuffer(numbers[first:last], "<f4")
    np.testing.assert_array_equal(
        queries.reshape(header["queries"]["shape"]), connector.queries.detach()
    )


def test_emotions_means_go_with_it(tmp_path):
    path = tmp_path / "connector.safetensors"
    saved = trained()
    saved.emotion_means = {"sad": torch.randn(2, 12), "a.b": torch.ones(2, 12)}
    for half in (False, True):
        saved.save(path, half=half)
        loaded = make(n_input_layers=2)
        loaded.load(path)
        assert set(loaded.emotion_means) == {"sad", "a.b"}
        for word, mean in saved.emotion_means.items():
            expected = mean.half().float() if half else mean
            assert torch.equal(loaded.emotion_means[word], expected)
    # They decide nothing that the connector itself says.
    assert weights_digest(loaded) == weights_digest(half_of(saved))


def half_of(connector):
    """The same with parameters as float16 has them."""
    other = make(n_input_layers=2)
    other.load_state_dict(connector.state_dict())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(parameter.half())
    return other


@pytest.mark.parametrize(
    ("mean", "found"),
    [
        (torch.zeros(2, 13), r"\[2, 13\], expected \[2, 12\]"),
        (torch.zeros(2, 12, dtype=torch.long), "int64"),
        (torch.full((2, 12), float("nan")), "holds NaN"),
    ],
)
def test_what_is_no_emotions_mean_is_refused(mean, found, tmp_path):
    path = tmp_path / "connector.safetensors"
    connector = trained()
    connector.emotion_means = {"sad": mean}
    connector.save(path)
    with pytest.raises(InputError, match=found):
        make(n_input_layers=2).load(path)


@both_types
@pytest.mark.parametrize(
    ("setting", "there", "here"),
    [
        ({"input_dim": 16}, "(2, 12)", "(2, 16)"),
        ({"output_dim": 24}, "(20, ", "(24, "),
        ({"n_input_layers": 3}, "(2,)", "(3,)"),
        ({"output_rms": 0.1}, "absent", "()"),
        ({"standardize": False}, "only in the file", ""),
    ],
)
def test_another_connectors_checkpoint_names_both_shapes(
    connector_type, setting, there, here, tmp_path
):
    path = tmp_path / "connector.safetensors"
    trained(connector_type).save(path)
    other = make(connector_type, **{"n_input_layers": 2, **setting})
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(InputError) as error:
        other.load(path)
    for part in (path, there, here, "llama-8B", "(width 20)"):
        assert str(part) in str(error.value)
    for name, value in other.state_dict().items():
        assert torch.equal(value, before[name])
    assert other.frozen_models == {}


def test_a_checkpoint_knows_its_frozen_models(tmp_path):
    trained().save(tmp_path / "connector.safetensors")
    connector = make(n_input_layers=2)
    connector.load(tmp_path / "connector.safetensors")
    other = {**MODELS["llm"], "digest": "d473"}
    with pytest.raises(InputError) as error:
        connector.bind(MODELS | {"llm": other})
    expected = "its llm is /models/llama-8B/ (width 20, weights 6b86)"
    assert expected in str(error.value)
    moved = {role: m | {"name": "/disk/x"} for role, m in MODELS.items()}
    connector.bind(moved)


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint" * 9])
def test_what_is_no_checkpoint_is_refused(content, tmp_path):
    path = tmp_path / "connector.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"connector\.safetensors: not a con"):
        make().load(path)


def test_a_pickle_is_refused(tmp_path):
    path = tmp_path / "connector.safetensors"
    torch.save(make().state_dict(), path)
    with pytest.raises(InputError, match="not a connector checkpoint"):
        make().load(path)


@contextmanager
def full_disk(after):
    """Files end after so many bytes, as on a disk without space."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_half_written_file_is_never_left(tmp_path):
    path = tmp_path / "connector.safetensors"
    connector = trained()
    with full_disk(after=5000), pytest.raises(Exception, match="too large"):
        connector.save(path)
    assert list(tmp_path.iterdir()) == []
    connector.save(path)
    whole = path.read_bytes()
    assert len(whole) > 5000
    with torch.no_grad():
        connector.queries.add_(1)
    with full_disk(after=5000), pytest.raises(Exception, match="too large"):
        connector.save(path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == whole
