"""Any GGUF file as LLM: what it holds, bit by bit, or why not."""

import json
import struct
import sys

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from speechbrain_mser.errors import InputError
from speechbrain_mser.inference.export import _from_anywhere
from speechbrain_mser.lobes.llama import EmotionLLaMA
from speechbrain_mser.models.gguf import convert
from speechbrain_mser.models.gguf_header import GGUFHeader

WIDTH, HEADS, KEY_HEADS, LAYERS = 64, 4, 2, 2
MERGES = [("a", "n"), ("an", "g"), ("s", "a"), ("sa", "d"), ("Ġ", "sad")]
Q8_0, F32, F16 = (
    gguf.GGMLQuantizationType.Q8_0,
    gguf.GGMLQuantizationType.F32,
    gguf.GGMLQuantizationType.F16,
)


def vocabulary():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = ["".join(pair) for pair in MERGES]
    words = ["<unk>", "<start>", "<end>", *letters, *merged]
    return {word: number for number, word in enumerate(words)}


def tiny_llama():
    """A LLaMA whose every size is another, so that none is taken for one."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary()),
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=512,
        rope_theta=5000.0,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def ggml_tensors(model):
    """Names and values as llama.cpp has them: queries and keys interleaved."""
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    weights = model.state_dict()
    yield "token_embd.weight", weights["model.embed_tokens.weight"].numpy()
    yield "output_norm.weight", weights["model.norm.weight"].numpy()
    for layer in range(LAYERS):
        for ours, theirs in names.items():
            value = weights[f"model.layers.{layer}.{ours}.weight"].numpy()
            for name, heads in (("attn_q", HEADS), ("attn_k", KEY_HEADS)):
                if theirs == name:
                    rows = value.reshape(heads, 2, -1, WIDTH)
                    value = rows.swapaxes(1, 2).reshape(value.shape)
            yield f"blk.{layer}.{theirs}.weight", np.ascontiguousarray(value)


def write_gguf(path, model, kind=F32, architecture="llama", **more):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(96)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_freq_base(5000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(vocabulary()))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(list(vocabulary()))
    kinds = [gguf.TokenType.CONTROL] * 3
    kinds += [gguf.TokenType.NORMAL] * (len(vocabulary()) - 3)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    for key, value in more.items():
        writer.add_uint32(key.replace("_", "."), value)
    for name, value in ggml_tensors(model):
        if value.ndim == 2 and kind != F32:
            writer.add_tensor(name, quantize(value, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


@pytest.fixture(scope="module")
def llama_gguf(model, tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", model)


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("MSER_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def test_a_gguf_file_scores_as_the_model_that_it_was_written_from(
    llama_gguf, model, kept
):
    llama = EmotionLLaMA(llama_gguf, prompt="?")
    weights = llama.model.state_dict()
    for name, value in model.state_dict().items():
        assert weights[name].equal(value), name
    audio = torch.randn(2, 3, WIDTH)
    ids = torch.tensor([llama.tokenizer("?").input_ids])
    inputs = torch.cat(
        [
            model.get_input_embeddings()(torch.tensor([[1]])).expand(2, 1, -1),
            audio,
            model.get_input_embeddings()(ids[0]).expand(2, -1, -1),
        ],
        dim=1,
    )
    first = llama.word_tokens("sad")[0]
    model.set_attn_implementation(llama.model.config._attn_implementation)
    logits = model(inputs_embeds=inputs).logits[:, -1].log_softmax(-1)
    with torch.no_grad():
        ours = llama.model(inputs_embeds=inputs).logits[:, -1].log_softmax(-1)
    assert ours[:, first].equal(logits[:, first])
    assert llama.score(audio, ["sad", "ang"]).isfinite().all()


def test_its_tokenizer_is_the_one_that_it_describes(llama_gguf, kept):
    llama = EmotionLLaMA(llama_gguf, prompt="?")
    plain = Tokenizer(models.BPE(vocabulary(), MERGES))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in ("a sad man", "ang ä 我", "?"):
        ids = llama.tokenizer(text, add_special_tokens=False).input_ids
        assert ids == plain.encode(text).ids
    assert llama.tokenizer.bos_token == "<start>"
    assert llama.tokenizer.eos_token == "<end>"


def test_quantised_matrices_are_within_half_precision_of_their_values(
    model, tmp_path
):
    path = write_gguf(tmp_path / "q8.gguf", model, Q8_0)
    (tmp_path / "out").mkdir()
    convert(path, tmp_path / "out", "the LLM")
    weights = load_file(tmp_path / "out/model.safetensors")
    reader = gguf.GGUFReader(path)
    stored = {t.name: dequantize(t.data, t.tensor_type) for t in reader.tensors}
    for theirs, ours in (
        ("token_embd", "embed_tokens"),
        ("blk.1.attn_v", "layers.1.self_attn.v_proj"),
        ("blk.0.ffn_down", "layers.0.mlp.down_proj"),
    ):
        exact = torch.from_numpy(stored[f"{theirs}.weight"].copy())
        got = weights[f"model.{ours}.weight"]
        assert got.dtype == torch.float16
        # Below 2^-14 half precision has a fixed grid
        error = (got.float() - exact).abs()
        assert (error <= exact.abs() * 2**-11 + 2**-25).all()
    assert weights["model.norm.weight"].float().equal(model.model.norm.weight)


def test_what_is_stored_in_half_precision_stays_bit_by_bit(model, tmp_path):
    path = write_gguf(tmp_path / "f16.gguf", model, F16)
    (tmp_path / "out").mkdir()
    convert(path, tmp_path / "out", "the LLM")
    got = load_file(tmp_path / "out/model.safetensors")
    embeddings = model.get_input_embeddings().weight.half()
    assert got["model.embed_tokens.weight"].equal(embeddings)


def test_it_is_converted_once_whatever_it_is_called(llama_gguf, tmp_path, kept):
    digest = EmotionLLaMA(llama_gguf).describe()["digest"]
    (folder,) = (kept / "gguf").glob("[!.]*/")
    before = folder.stat().st_ino
    alone = tmp_path / "alone"
    alone.mkdir()
    # Nothing of what lies beside it counts
    (alone / "tokenizer_config.json").write_text('{"eos_token": "evil"}')
    (alone / "other.GGUF").write_bytes(llama_gguf.read_bytes())
    llama = EmotionLLaMA(alone / "other.GGUF")
    assert llama.describe()["digest"] == digest
    assert llama.tokenizer.eos_token == "<end>"
    (alone / "other.GGUF").rename(alone / "other.gguf")
    assert EmotionLLaMA(alone).describe()["digest"] == digest
    assert [p.stat().st_ino for p in (kept / "gguf").glob("[!.]*/")] == [before]


def test_without_its_suffix_it_is_told_by_how_it_begins(llama_gguf, tmp_path):
    """As ollama and the hub's cache keep it."""
    digest = EmotionLLaMA(llama_gguf).describe()["digest"]
    blob = tmp_path / "sha256-1f2e"
    blob.write_bytes(llama_gguf.read_bytes())
    assert EmotionLLaMA(blob).describe()["digest"] == digest
    blob.rename(tmp_path / "MODEL.GGUF")
    assert EmotionLLaMA(tmp_path).describe()["digest"] == digest
    refused(f"{tmp_path}/nosuch.gguf", r"there is no file .*nosuch\.gguf")


def test_a_note_that_is_no_digest_is_not_believed(llama_gguf, kept):
    digest = EmotionLLaMA(llama_gguf).describe()["digest"]
    (note,) = (
        path
        for path in (kept / "gguf").glob(".*")
        if path.is_file() and "lock" not in path.name
    )
    noted = note.read_bytes()
    for damaged in (b"\xff\xfe", b"../../../escape", b"", noted[:-1]):
        note.write_bytes(damaged)
        assert EmotionLLaMA(llama_gguf).describe()["digest"] == digest
        assert note.read_bytes() == noted
    assert len([*(kept / "gguf").glob("[!.]*/")]) == 1


def test_another_file_under_the_same_name_is_another_model(
    llama_gguf, tmp_path
):
    path = tmp_path / "a.gguf"
    path.write_bytes(llama_gguf.read_bytes())
    digest = EmotionLLaMA(path).describe()["digest"]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert EmotionLLaMA(path).describe()["digest"] != digest


def test_an_exported_recogniser_finds_it_from_anywhere(llama_gguf, monkeypatch):
    monkeypatch.chdir(llama_gguf.parent)
    named = _from_anywhere("llama_hub", llama_gguf.name)
    assert named == str(llama_gguf)
    assert _from_anywhere("llama_hub", "open:a") == "open:a"


def test_a_folder_with_several_asks_which(llama_gguf, tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"2 GGUF files; .*a\.gguf"):
        EmotionLLaMA(tmp_path)


def refused(path, match):
    with pytest.raises(InputError, match=match):
        EmotionLLaMA(path)


def test_what_transformers_cannot_convert_says_so(model, tmp_path, kept):
    path = write_gguf(tmp_path / "a.gguf", model, architecture="whisper")
    refused(path, "whisper is not supported")
    assert not list((kept / "gguf").glob("[!.]*/"))


def test_a_part_of_a_model_says_how_to_join_it(model, tmp_path):
    path = write_gguf(tmp_path / "a.gguf", model, split_count=3)
    refused(path, "one of 3 parts .* --merge")


def test_a_file_of_keys_alone_is_refused(tmp_path):
    path = tmp_path / "a.gguf"
    key = struct.pack("<Q11sIQ3s", 11, b"split.count", 8, 3, b"two")
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key)
    refused(path, "cut short: 58 of 64 bytes")
    with path.open("ab") as file:
        file.write(bytes(6))
    refused(path, "one of two parts")


def test_a_missing_weight_is_no_random_one(model, tmp_path, monkeypatch):
    kept = [t for t in ggml_tensors(model) if "blk.1.ffn_up" not in t[0]]
    monkeypatch.setattr(sys.modules[__name__], "ggml_tensors", lambda _: kept)
    path = write_gguf(tmp_path / "a.gguf", model)
    refused(path, r"missing_keys: .*layers\.1\.mlp\.up_proj")


def test_without_the_package_it_says_what_to_install(llama_gguf, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf.constants", None)
    refused(llama_gguf, "pip install gguf")


def test_wherever_it_is_cut_it_is_refused(llama_gguf, tmp_path):
    whole, path = llama_gguf.read_bytes(), tmp_path / "cut.gguf"
    ends = [*range(0, 200), *range(200, len(whole), 997), len(whole) - 1]
    for end in ends:
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match="cannot be read as GGUF"):
            GGUFHeader(path)


def test_flipped_bits_end_in_a_model_or_a_reason(llama_gguf, tmp_path):
    """In the keys, where a wrong length could be waited for for ever."""
    whole, path = llama_gguf.read_bytes(), tmp_path / "flipped.gguf"
    beginning = whole.index(b"tokenizer.ggml.tokens")
    generator, refusals = np.random.default_rng(0), 0
    for place in generator.integers(4, beginning, 300):
        data = bytearray(whole)
        data[place] ^= 1 << generator.integers(8)
        path.write_bytes(data)
        try:
            GGUFHeader(path)
        except InputError:
            refusals += 1
    assert 0 < refusals < 300


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.block_count", 10**6),
        ("llama.block_count", 3),
        ("llama.embedding_length", 10**6),
        ("llama.feed_forward_length", 97),
    ],
)
def test_sizes_that_are_not_those_of_the_tensors_are_refused(
    llama_gguf, tmp_path, key, value
):
    data = bytearray(llama_gguf.read_bytes())
    place = data.index(key.encode()) + len(key) + 4
    data[place : place + 4] = struct.pack("<I", value)
    path = tmp_path / "a.gguf"
    path.write_bytes(data)
    refused(path, "layers, in|missing_keys|its width|mismatched_keys")


def test_lengths_that_cannot_be_are_refused_at_once(llama_gguf, tmp_path):
    data = bytearray(llama_gguf.read_bytes())
    place = data.index(b"tokenizer.ggml.token_type") + 25 + 8
    data[place : place + 8] = struct.pack("<Q", 1 << 60)
    path = tmp_path / "a.gguf"
    path.write_bytes(data)
    refused(path, "cut short, or damaged")


def test_what_is_kept_says_what_it_was_made_of(llama_gguf, kept):
    EmotionLLaMA(llama_gguf)
    (folder,) = (kept / "gguf").glob("[!.]*/")
    card = json.loads((folder / "made_of.json").read_text())
    assert card["gguf"] == "tiny.gguf"
    assert AutoTokenizer.from_pretrained(folder).bos_token == "<start>"
