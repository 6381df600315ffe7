"""A frozen model is proved to be the one: its weights, its identity."""

import json
import logging
import shutil

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaForCausalLM,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperModel,
)

from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes import hub
from speechbrain_mser.lobes.llama import EmotionLLaMA
from speechbrain_mser.lobes.qformer import EmotionQFormer
from speechbrain_mser.lobes.weight_files import model_digest
from speechbrain_mser.lobes.whisper import WhisperEncoder

WEIGHTS = "model.safetensors"


def changed(folder, destination, change):
    """A copy of a model whose tensors are others, by name or by value."""
    shutil.copytree(folder, destination, dirs_exist_ok=True)
    tensors = change(load_file(folder / WEIGHTS))
    save_file(tensors, destination / WEIGHTS, {"format": "pt"})
    return destination


def renamed(rename):
    return lambda tensors: {rename(k): v for k, v in tensors.items()}


def without(part):
    return lambda tensors: {k: v for k, v in tensors.items() if part not in k}


def cut(part):
    """One row less, where a name says so."""
    return lambda tensors: {
        k: v[1:].contiguous() if part in k else v for k, v in tensors.items()
    }


# What they are computed in


@pytest.mark.parametrize(
    ("flags", "native"),
    [
        ("flags\t: fpu avx512f avx512_bf16 amx_bf16", "bfloat16"),
        ("flags\t: fpu avx512f avx512_vnni", "float32"),
        (None, "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_cpu_multiplies_it(
    flags, native, tmp_path, monkeypatch
):
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    monkeypatch.setattr(hub, "_CPU", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert hub.native_dtype.__wrapped__() == native


@pytest.mark.parametrize("native", ["bfloat16", "float32"])
def test_auto_is_resolved_before_the_features_are_named(
    native, tiny_whisper, tiny_llama, monkeypatch
):
    monkeypatch.setattr(hub, "native_dtype", lambda: native)
    auto, plain = (
        WhisperEncoder(tiny_whisper, dtype=dtype) for dtype in ("auto", native)
    )
    assert auto.fingerprint() == plain.fingerprint()
    llama = EmotionLLaMA(tiny_llama, dtype="auto")
    for lobe in (auto, llama):
        kinds = {p.dtype for p in lobe.model.parameters()}
        assert kinds == {getattr(torch, native)}


# Every weight that is used comes from the folder


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (renamed(lambda k: f"module.{k}"), "lm_head.weight"),
        (renamed(lambda k: f"base_model.model.{k}"), "lm_head.weight"),
        (
            renamed(lambda k: k.replace("q_proj", "q_proj.base_layer")),
            "model.layers.0.self_attn.q_proj.weight",
        ),
        (without("lm_head"), "lm_head.weight"),
        (without("layers.1."), "model.layers.1.input_layernorm.weight"),
        (without("model.norm"), "model.norm.weight"),
        (cut("embed_tokens"), "model.embed_tokens.weight"),
        (cut("layers.1.mlp.up_proj"), "model.layers.1.mlp.up_proj.weight"),
    ],
)
def test_an_llm_whose_weights_are_not_the_models_is_refused(
    change, key, tiny_llama, tmp_path
):
    changed(tiny_llama, tmp_path, change)
    with pytest.raises(InputError, match="llama_hub") as error:
        EmotionLLaMA(tmp_path)
    assert f" {key} " in str(error.value)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (renamed(lambda k: f"module.{k}"), "encoder.conv1.bias"),
        (renamed(lambda k: f"whisper.{k}"), "encoder.conv1.bias"),
        (
            renamed(lambda k: k.replace("v_proj", "v_proj.base_layer")),
            "encoder.layers.0.self_attn.v_proj.bias",
        ),
        (without("encoder.layers.2."), "encoder.layers.2.fc1.bias"),
        (without("encoder.conv2"), "encoder.conv2.bias"),
        (cut("encoder.embed_positions"), "encoder.embed_positions.weight"),
    ],
)
def test_a_whisper_whose_weights_are_not_the_models_is_refused(
    change, key, tiny_whisper, tmp_path
):
    changed(tiny_whisper, tmp_path, change)
    with pytest.raises(InputError, match="whisper_hub") as error:
        WhisperEncoder(tmp_path)
    assert f" {key} " in str(error.value)


def test_a_whisper_may_be_without_a_decoder(tiny_whisper, tmp_path):
    whole = WhisperEncoder(tiny_whisper)
    encoder = WhisperEncoder(
        changed(tiny_whisper, tmp_path, without("decoder."))
    )
    wavs = torch.randn(1, 8000)
    assert torch.equal(whole(wavs)[0], encoder(wavs)[0])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (
            renamed(lambda k: f"module.{k}"),
            "embeddings.LayerNorm.bias",
        ),
        (
            without("encoder.layer.1.output"),
            "encoder.layer.1.output.LayerNorm.bias",
        ),
        (cut("layer.0.intermediate"), "encoder.layer.0.intermediate"),
    ],
)
def test_a_bert_whose_weights_are_not_the_models_is_refused(
    change, key, tiny_bert, tmp_path
):
    changed(tiny_bert, tmp_path, change)
    with pytest.raises(InputError, match="bert_hub") as error:
        EmotionQFormer(8, 8, bert_source=str(tmp_path))
    assert f" {key}" in str(error.value)


def test_a_bert_may_be_without_what_the_qformer_takes_not(tiny_bert, tmp_path):
    changed(tiny_bert, tmp_path, without("word_embeddings"))
    found = EmotionQFormer(8, 8, bert_source=str(tmp_path), query_dim=8)
    expected = EmotionQFormer(8, 8, bert_source=str(tiny_bert), query_dim=8)
    for name, source in expected.bert_report.items():
        if source is not None:
            parameter = found.model.get_parameter(name)
            assert torch.equal(parameter, expected.model.get_parameter(name))


def test_adapters_are_no_model(tiny_llama, tmp_path):
    shutil.copytree(tiny_llama, tmp_path, dirs_exist_ok=True)
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "a/b"})
    )
    with pytest.raises(InputError, match=r"llama_hub.*merge_and_unload"):
        EmotionLLaMA(tmp_path)


def test_a_shard_that_is_not_there_is_named(tiny_llama, tmp_path):
    shards = sharded(tiny_llama, tmp_path)
    shards[1].unlink()
    with pytest.raises(InputError, match="llama_hub") as error:
        EmotionLLaMA(tmp_path)
    assert shards[1].name in str(error.value)


def test_a_tied_head_is_not_missed(tied, tmp_path):
    assert "lm_head.weight" not in load_file(tied / WEIGHTS)
    llama = EmotionLLaMA(tied)
    embeddings = llama.model.get_input_embeddings().weight
    assert llama.model.lm_head.weight is embeddings
    audio = torch.randn(2, 3, 48)
    # The same with the head in the file too, as some are saved
    both = EmotionLLaMA(
        changed(
            tied,
            tmp_path,
            lambda t: t | {"lm_head.weight": t[EMBEDDINGS].clone()},
        )
    )
    words = ["happy", "sad"]
    assert torch.equal(both.score(audio, words), llama.score(audio, words))
    assert both.describe()["digest"] == llama.describe()["digest"]


EMBEDDINGS = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def tied(tiny_llama, tmp_path_factory):
    """A LLaMA whose head is its embeddings."""
    folder = tmp_path_factory.mktemp("tied")
    shutil.copytree(tiny_llama, folder, dirs_exist_ok=True)
    model = LlamaForCausalLM.from_pretrained(tiny_llama)
    model.config.tie_word_embeddings = True
    tied = LlamaForCausalLM(model.config)
    tied.save_pretrained(folder)
    return folder


# Identity is content


def sharded(folder, destination):
    """The same model in several files."""
    shutil.copytree(folder, destination, dirs_exist_ok=True)
    (destination / WEIGHTS).unlink()
    LlamaForCausalLM.from_pretrained(folder).save_pretrained(
        destination, max_shard_size="40KB"
    )
    shards = sorted(destination.glob("*-of-*.safetensors"))
    assert len(shards) > 1
    return shards


def test_the_same_llm_is_the_same_wherever_and_however_it_lies(
    tiny_llama, tmp_path
):
    expected = EmotionLLaMA(tiny_llama).digest
    moved = tmp_path / "other" / "name"
    shutil.copytree(tiny_llama, moved)
    assert EmotionLLaMA(moved).digest == expected
    assert EmotionLLaMA(tiny_llama, dtype="bfloat16").digest == expected
    sharded(tiny_llama, tmp_path / "sharded")
    assert EmotionLLaMA(tmp_path / "sharded").digest == expected
    # with other names that transformers knows
    bare = changed(
        tiny_llama,
        tmp_path / "bare",
        renamed(lambda k: k.removeprefix("model.")),
    )
    llama = EmotionLLaMA(bare)
    assert llama.digest == expected
    norm = load_file(tiny_llama / WEIGHTS)["model.norm.weight"]
    assert torch.equal(llama.model.model.norm.weight, norm)


def test_a_whisper_is_its_encoder(tiny_whisper, tmp_path):
    expected = WhisperEncoder(tiny_whisper).digest
    alone = changed(tiny_whisper, tmp_path / "alone", without("decoder."))
    assert WhisperEncoder(alone).digest == expected
    whole = tmp_path / "whole"
    shutil.copytree(tiny_whisper, whole)
    config = WhisperConfig.from_pretrained(tiny_whisper)
    model = WhisperForConditionalGeneration(config)
    model.model.load_state_dict(
        WhisperModel.from_pretrained(tiny_whisper).state_dict()
    )
    model.save_pretrained(whole)
    assert WhisperEncoder(whole, dtype="float16").digest == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t | {EMBEDDINGS: t[EMBEDDINGS] * 1.001},
        lambda t: t | {"model.norm.weight": t["model.norm.weight"] + 1e-6},
        lambda t: {k: v.bfloat16() for k, v in t.items()},
        # the same numbers for other tensors
        lambda t: (
            t
            | {
                "model.layers.0.input_layernorm.weight": t[
                    "model.layers.0.post_attention_layernorm.weight"
                ]
                * 2,
            }
        ),
    ],
)
def test_other_weights_under_the_same_name_are_others(
    change, tiny_llama, tmp_path
):
    other = changed(tiny_llama, tmp_path / tiny_llama.name, change)
    assert EmotionLLaMA(other).digest != EmotionLLaMA(tiny_llama).digest


def large(**changes):
    """A tensor of a megabyte, far more than is read of one."""
    tensor = torch.arange(2**18, dtype=torch.float32)
    for place, value in changes.items():
        tensor[int(place.removeprefix("at_"))] = value
    return tensor


def digest_of(tensors, folder):
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / WEIGHTS)
    return model_digest(folder)


def test_a_large_tensor_is_known_by_its_ends_and_by_blocks_between(tmp_path):
    expected = digest_of({"a": large()}, tmp_path)
    assert digest_of({"a": large()}, tmp_path) == expected
    others = [
        {"a": large(at_0=-1)},
        {"a": large(at_262143=-1)},
        # a twentieth of it, in the middle
        {"a": large().index_fill(0, torch.arange(130000, 143107), 0)},
        {"a": large() * 1.001},
        {"a": large().half().float()},
        {"a": large().reshape(2, -1)},
        {"a": large().view(torch.int32)},
        {"b": large()},
        {"a": large(), "b": large()},
    ]
    for other in others:
        assert digest_of(other, tmp_path) != expected


def test_a_digest_reads_few_bytes_of_a_large_file(tmp_path, monkeypatch):
    from speechbrain_mser.lobes import weight_files

    read = []
    monkeypatch.setattr(
        weight_files,
        "_read",
        lambda file, base, start, size: read.append(size) or b"",
    )
    digest_of({name: large() for name in "abc"}, tmp_path)
    assert sum(read) == 3 * 32 * 4096


# A connector knows its models


def bound_to(models):
    """A connector that was trained between these."""
    connector = EmotionQFormer(8, 8, n_layers=1, hidden_size=8, n_heads=1)
    connector.bind(models)
    return connector


def model(name="meta/llama", width=8, digest="6b86"):
    found = {"name": name, "width": width, "digest": digest}
    return {k: v for k, v in found.items() if v is not None}


@pytest.mark.parametrize(
    "name",
    [
        "meta/llama",
        "/home/a/.cache/huggingface/hub/models--meta--llama/snapshots/1a2b3c",
        r"C:\models\llama",
    ],
)
def test_the_same_weights_are_the_same_model_under_any_name(name, caplog):
    bound_to({"llm": model()}).bind({"llm": model(name)})
    assert not caplog.records


def test_other_weights_are_refused_under_the_same_name():
    connector = bound_to({"llm": model()})
    with pytest.raises(InputError) as error:
        connector.bind({"llm": model(digest="d473")})
    for part in ("6b86", "d473", "frozen_models: warn"):
        assert part in str(error.value)
    assert connector.frozen_models == {"llm": model()}


def test_with_a_warning_other_weights_are_gone_on_with(caplog):
    other = {"llm": model("meta/llama-4bit", digest="d473")}
    connector = bound_to({"llm": model()})
    with caplog.at_level(logging.WARNING):
        connector.bind(other, "warn")
    (record,) = caplog.records
    for part in ("6b86", "d473", "meta/llama-4bit"):
        assert part in record.getMessage()
    assert connector.frozen_models == other


def test_no_setting_makes_another_width_the_same():
    with pytest.raises(InputError, match=r"width 8, weights.*width 9"):
        bound_to({"llm": model()}).bind({"llm": model(width=9)}, "warn")
    with pytest.raises(InputError, match="other frozen models"):
        bound_to({"llm": model()}).bind({}, "warn")


@pytest.mark.parametrize("name", ["meta/llama", "another/name"])
def test_before_weights_were_noted_the_width_decides(name, caplog):
    old = {"llm": model(digest=None)}
    connector = bound_to(old)
    with caplog.at_level(logging.WARNING):
        connector.bind({"llm": model(name)})
    (record,) = caplog.records
    assert "does not say which weights" in record.getMessage()
    assert connector.frozen_models == {"llm": model(name)}
    with pytest.raises(InputError, match="other frozen models"):
        bound_to(old).bind({"llm": model(width=9)})


def test_two_unknown_weights_are_not_the_same(caplog):
    old = {"llm": model(digest=None)}
    with caplog.at_level(logging.WARNING):
        bound_to(old).bind(old)
    assert "does not say which weights" in caplog.text


def test_a_mistyped_choice_is_named():
    with pytest.raises(InputError, match="frozen_models is 'warm', expected"):
        bound_to({}).bind({}, "warm")


# The user's own hub cache


def in_hub_cache(folder, cache, name="someone/some-model"):
    """Lay a model out as the hub's client does."""
    kept = cache / f"models--{name.replace('/', '--')}"
    snapshot = kept / "snapshots" / ("0123456789" * 4)
    shutil.copytree(folder, snapshot)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(snapshot.name)
    return snapshot


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    cache = tmp_path / "home" / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return cache


def test_models_in_the_users_hub_cache_are_found(
    hub_cache, tiny_llama, tiny_whisper, tiny_bert, tmp_path, capfd
):
    for name, folder in (
        ("a/llama", tiny_llama),
        ("a/whisper", tiny_whisper),
        ("a/bert", tiny_bert),
    ):
        in_hub_cache(folder, hub_cache, name)
    kept = {"save_path": str(tmp_path / "pretrained_models")}
    llama = EmotionLLaMA("a/llama", **kept)
    assert llama.describe() == {
        **EmotionLLaMA(tiny_llama).describe(),
        "name": "a/llama",
    }
    whisper = WhisperEncoder("a/whisper", **kept)
    assert whisper.describe() == {
        **WhisperEncoder(tiny_whisper).describe(),
        "name": "a/whisper",
    }
    EmotionQFormer(8, 8, bert_source="a/bert", **kept)
    assert "offline" not in capfd.readouterr().err.lower()
    assert not (tmp_path / "pretrained_models").exists()


def test_the_folder_of_settings_is_looked_at_first(
    hub_cache, tiny_llama, tmp_path
):
    in_hub_cache(tiny_llama, hub_cache)
    other = changed(
        tiny_llama,
        tmp_path / "other",
        lambda t: {k: 2 * v for k, v in t.items()},
    )
    here = tmp_path / "pretrained_models"
    in_hub_cache(other, here)
    found = EmotionLLaMA("someone/some-model", save_path=str(here))
    assert found.digest == EmotionLLaMA(other).digest


@pytest.mark.parametrize("missing", [WEIGHTS, "tokenizer_config.json"])
def test_half_a_model_in_a_cache_is_none(
    missing, hub_cache, tiny_llama, tmp_path
):
    kept = tmp_path / "pretrained_models"
    for cache in (hub_cache, kept):
        (in_hub_cache(tiny_llama, cache) / missing).unlink()
    with pytest.raises(InputError, match="llama_hub") as error:
        EmotionLLaMA("someone/some-model", save_path=str(kept))
    assert missing in str(error.value)
    assert str(hub_cache) in str(error.value)
