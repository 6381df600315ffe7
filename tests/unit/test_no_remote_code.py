"""Frozen models bring no code: nothing of theirs runs, nobody is asked."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.llama import EmotionLLaMA
from speechbrain_mser.lobes.qformer import EmotionQFormer
from speechbrain_mser.lobes.whisper import WhisperEncoder

# What a stranger's module does when it is imported
CODE = "open('CODE_RAN', 'w').close()\n"
LOBES = {"llama": EmotionLLaMA, "whisper": WhisperEncoder}


@pytest.fixture
def models(tiny_llama, tiny_whisper, tiny_bert, tmp_path, monkeypatch):
    """Copies of the tiny models; a mark would be left in the same folder."""
    monkeypatch.chdir(tmp_path)
    for name, folder in (
        ("llama", tiny_llama),
        ("whisper", tiny_whisper),
        ("bert", tiny_bert),
    ):
        shutil.copytree(folder, tmp_path / name)
    return tmp_path


def change(path, **changes):
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**values, **changes}))


# Loads what each folder holds, and says y to every question.
SCRIPT = """
import json, sys, torch
from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.llama import EmotionLLaMA
from speechbrain_mser.lobes.whisper import WhisperEncoder

results = {}
for folder in sys.argv[1:]:
    kind = WhisperEncoder if folder.startswith("whisper") else EmotionLLaMA
    try:
        lobe = kind(folder)
        torch.manual_seed(0)
        results[folder] = "loaded"
        if kind is EmotionLLaMA:
            audio = torch.randn(1, 2, lobe.hidden_size)
            results[folder] = lobe.generate(audio)
    except InputError as error:
        results[folder] = f"refused: {error}"
with open("results.json", "w") as file:
    json.dump(results, file)
"""


def stranger(models, name, copy):
    """A copy of a model, with Python of its own."""
    folder = models / f"{name}-{copy}"
    shutil.copytree(models / name, folder)
    (folder / "code.py").write_text(CODE)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(
        CODE + "def generate(**kwargs): pass\n"
    )
    return folder


def test_nothing_runs_even_when_stdin_says_yes(models):
    unheard = "code.Unheard"
    auto = dict.fromkeys(
        ("AutoConfig", "AutoModel", "AutoModelForCausalLM"), unheard
    )
    refused, loaded = [], ["llama", "whisper"]
    change(
        stranger(models, "llama", "tokenizer") / "tokenizer_config.json",
        tokenizer_class="Unheard",
        auto_map={"AutoTokenizer": [unheard, unheard]},
    )
    refused.append("llama-tokenizer")
    change(
        stranger(models, "whisper", "extractor") / "preprocessor_config.json",
        feature_extractor_type="Unheard",
        auto_map={"AutoFeatureExtractor": unheard},
    )
    refused.append("whisper-extractor")
    for name in ("llama", "whisper"):
        change(stranger(models, name, "known") / "config.json", auto_map=auto)
        loaded.append(f"{name}-known")
        change(
            stranger(models, name, "unheard") / "config.json",
            auto_map=auto,
            model_type="unheard",
        )
        refused.append(f"{name}-unheard")
    # Decoding that transformers has moved to the hub
    for number, asked in enumerate(
        (
            {"penalty_alpha": 0.6, "top_k": 4},
            {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
            {"dola_layers": "high"},
            {"custom_generate": "llama", "trust_remote_code": True},
        )
    ):
        folder = stranger(models, "llama", f"generation{number}")
        change(folder / "generation_config.json", **asked)
        loaded.append(folder.name)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *loaded, *refused],
        cwd=models,
        input="y\n" * 99,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert not (models / "CODE_RAN").exists()
    assert "Do you wish to run" not in done.stdout + done.stderr
    results = json.loads((models / "results.json").read_text())
    for name in refused:
        assert "cannot be loaded" in results[name]
    # What transformers has itself is loaded without theirs, and decodes
    # greedily whatever they ask for.
    for name in loaded:
        assert results[name] == results[name.partition("-")[0]], name


@pytest.mark.parametrize(
    "changes",
    [
        {"attn_implementation": "owner/kernel"},
        {"_attn_implementation": "owner/kernel@main:forward"},
        {"_attn_implementation_internal": "owner/kernel"},
        {"attn_implementation": {"": "owner/kernel"}},
        {"attn_implementation": "flash_attention_2"},
        {"experts_implementation": "owner/kernel"},
        {"text_config": {"attn_implementation": "owner/kernel"}},
    ],
)
@pytest.mark.parametrize("name", LOBES)
def test_a_kernel_that_a_config_names_is_refused(models, name, changes):
    change(models / name / "config.json", **changes)
    with pytest.raises(InputError, match=r"config\.json asks for"):
        LOBES[name](str(models / name))


def test_transformers_own_attention_may_be_named(models):
    change(models / "llama" / "config.json", _attn_implementation="eager")
    EmotionLLaMA(str(models / "llama"))


class Mark:
    def __reduce__(self):
        return open, ("CODE_RAN", "w")


@pytest.mark.parametrize("name", ["llama", "whisper", "bert"])
@pytest.mark.parametrize(
    "file", ["pytorch_model.bin", "model.ckpt", "model.pt"]
)
def test_a_pickle_is_never_loaded(models, name, file):
    folder = models / name
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / file)
    build = LOBES.get(name, bert_qformer)
    with pytest.raises(InputError, match="pickles"):
        build(str(folder))
    # with other safetensors beside it
    shutil.copy(models / "bert" / "config.json", folder / "x.json")
    (folder / "other.safetensors").write_bytes(
        b"\x02\0\0\0\0\0\0\0{}",
    )
    torch.save(Mark(), folder / file)
    with pytest.raises(InputError):
        build(str(folder))
    assert not (models / "CODE_RAN").exists()


def bert_qformer(folder):
    return EmotionQFormer(32, 48, bert_source=folder)


@pytest.mark.parametrize(
    "index",
    [
        {"weight_map": {"a": "pytorch_model.bin"}},
        {"weight_map": {"a": "../other/model.safetensors"}},
        {"weight_map": {"a": 1}},
        {"weight_map": ["model.bin"]},
        {"weight_map": "model.bin"},
    ],
)
def test_an_index_of_anything_but_safetensors_is_refused(models, index):
    (models / "llama" / "model.safetensors").unlink()
    change(models / "llama" / "model.safetensors.index.json", **index)
    with pytest.raises(InputError, match="index"):
        EmotionLLaMA(str(models / "llama"))


@pytest.mark.parametrize("file", ["adapter_model.bin", "x.safetensors"])
def test_weights_that_a_config_names_are_refused(models, file):
    torch.save(Mark(), models / "llama" / file)
    change(models / "llama" / "config.json", transformers_weights=file)
    with pytest.raises(InputError):
        EmotionLLaMA(str(models / "llama"))
    assert not (models / "CODE_RAN").exists()


def test_adapters_that_name_another_model_are_refused(models):
    change(
        models / "llama" / "adapter_config.json",
        base_model_name_or_path="someone/else",
        peft_type="LORA",
        auto_mapping={"parent_library": "code", "base_model_class": "X"},
    )
    with pytest.raises(InputError, match="merge"):
        EmotionLLaMA(str(models / "llama"))


@pytest.mark.parametrize("name", LOBES)
@pytest.mark.parametrize(
    "text", ["", "[]", "{" * 5000, '{"model_type": []}', '{"model_type": "t5"}']
)
def test_a_config_that_is_none_is_refused(models, name, text):
    (models / name / "config.json").write_text(text)
    with pytest.raises(InputError):
        LOBES[name](str(models / name))


def test_a_pipe_among_a_models_files_is_refused(models):
    (models / "llama" / "tokenizer.json").unlink()
    os.mkfifo(models / "llama" / "tokenizer.json")
    with pytest.raises(InputError, match="regular file"):
        EmotionLLaMA(str(models / "llama"))
