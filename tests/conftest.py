"""Tiny models and a tiny corpus, made once for all tests.

The models are real ones of transformers in miniature, saved and loaded as
the hub's are; nothing is mocked.
"""

import gc
import os
import signal
import sys
from functools import partial
from pathlib import Path

# Before anything imports a Hugging Face library: tests never ask the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Tiny models: handing work to a second thread costs more than it saves.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.utils.importutils import LazyModule
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

# A shell's background jobs ignore Ctrl-C, and so would what they start: the
# processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes" / "M5SER"
sys.path[:0] = [
    str(RECIPES),
    str(RECIPES / "experiments"),
    str(ROOT / "tests"),
]
from ready import run_group  # noqa: E402 (found there)

EMOTIONS = ("neutral", "happy", "sad", "angry")
RATE = 16000


def pytest_collection_finish():
    """What was imported and collected stays: no collection looks at it again.

    It is most of what there is, and some tests collect garbage often.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _lazy_modules_have_no_file():
    # Hypothesis asks every loaded module for its file, and SpeechBrain's
    # lazy ones would import their optional packages (k2) to answer.
    for module in list(sys.modules.values()):
        if isinstance(module, LazyModule):
            module.__dict__.setdefault("__file__", None)


@pytest.fixture(scope="session")
def tiny_whisper(tmp_path_factory):
    """A Whisper of width 32 with 3 encoder layers."""
    folder = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(1)
    config = WhisperConfig(
        d_model=32,
        encoder_layers=3,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=64,
        vocab_size=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """A BERT of width 32 with 3 layers."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(2)
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    """A LLaMA of width 48 whose tokenizer splits some emotion words."""
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(3)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = "What is the emotion of the speaker? Answer with one word: " * 3
    text += "neutral happy sad angry fear disgust surprise " * 9
    tokenizer.train_from_iterator(
        [text],
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def speak(emotion, seconds, seed):
    """A tone whose pitch and loudness are the emotion's, in some noise."""
    rng = np.random.default_rng(seed)
    number = EMOTIONS.index(emotion)
    t = np.arange(int(seconds * RATE)) / RATE
    tone = 0.05 * (1 + number) * np.sin(2 * np.pi * 150 * (1 + number) * t)
    return (tone + 0.005 * rng.standard_normal(len(t))).astype(np.float32)


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory):
    """Folder with ``corpora/tiny/*.wav`` and ``manifests/tiny.csv``.

    Four emotions in two languages; speakers 1-3 train, 4 validates, 5 tests.
    """
    from speechbrain_mser.dataio.manifest import write_manifest

    folder = tmp_path_factory.mktemp("data")
    audio = folder / "corpora" / "tiny"
    audio.mkdir(parents=True)
    rows = []
    for speaker in range(1, 6):
        split = {4: "valid", 5: "test"}.get(speaker, "train")
        for number, emotion in enumerate(EMOTIONS):
            for language in ("eng", "deu"):
                name = f"tiny_{language}_{speaker}_{emotion}"
                seconds = 0.4 + 0.1 * ((speaker + number) % 3)
                soundfile.write(
                    audio / f"{name}.wav",
                    speak(emotion, seconds, len(rows)),
                    RATE,
                )
                rows.append(
                    {
                        "ID": name,
                        "duration": round(seconds, 2),
                        "wav": f"$data_root/{name}.wav",
                        "corpus": "tiny",
                        "split": split,
                        "language": language,
                        "speaker": f"tiny_{speaker}",
                        "gender": "female" if speaker % 2 else "male",
                        "emotion": emotion,
                        "label": emotion,
                        "text": "no text",
                    }
                )
    write_manifest(folder / "manifests" / "tiny.csv", rows)
    return folder


@pytest.fixture(scope="session")
def tiny_flags(tiny_whisper, tiny_bert, tiny_llama, tiny_corpus):
    """Settings that turn stage1.yaml and stage2.yaml into a second's work."""
    return {
        "data_root": str(tiny_corpus / "corpora"),
        "corpora": "[tiny]",
        "manifest_folder": str(tiny_corpus / "manifests"),
        "skip_prep": "True",
        "whisper_hub": str(tiny_whisper),
        "llama_hub": str(tiny_llama),
        "bert_hub": str(tiny_bert),
        "frozen_dtype": "float32",
        "precision": "fp32",
        "eval_precision": "fp32",
        "n_queries": "4",
        "query_dim": "16",
        "label_words": "[neutral, happy, sad, angry]",
        "number_of_epochs": "1",
        "batch_size": "8",
        "num_workers": "0",
    }


@pytest.fixture(scope="session")
def in_processes(tmp_path_factory):
    """Runs a script in several gloo processes; gives what each has saved.

    The script finds ``rank``, ``folder`` and ``data``, and calls ``save``.
    """

    def run(world_size, script, data=None):
        folder = tmp_path_factory.mktemp("processes")
        torch.save(data, folder / "data.pt")
        (folder / "script.py").write_text(script, encoding="utf-8")
        for done in run_group(world_size, ["-c", PROCESS, folder]):
            assert done.returncode == 0, done.stderr
        return [torch.load(folder / f"{r}.pt") for r in range(world_size)]

    return run


@pytest.fixture(scope="session")
def in_two_processes(in_processes):
    """`in_processes` with two of them."""
    return partial(in_processes, 2)


PROCESS = """
import datetime, os, sys
import torch
from speechbrain_mser.distributed import ends_with_its_group, process_group
torch.set_num_threads(1)
rank, folder = int(os.environ["RANK"]), sys.argv[1]
# A file to meet at, so that no port can be taken.
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/meeting", rank=rank,
    world_size=int(os.environ["WORLD_SIZE"]),
    timeout=datetime.timedelta(minutes=5),
)
# The test's own; tables come along.
data = torch.load(f"{folder}/data.pt", weights_only=False)
def save(found):
    torch.save(found, f"{folder}/{rank}.pt")
@ends_with_its_group
def main():
    with process_group({}):
        with open(f"{folder}/script.py", encoding="utf-8") as file:
            exec(compile(file.read(), "script.py", "exec"), globals())
main()
"""


@pytest.fixture
def run_script(monkeypatch):
    """Run a recipe script's ``main`` in this process; return its exit code."""
    import importlib

    def run(script, *arguments, flags=None):
        argv = [script, *map(str, arguments)]
        for name, value in (flags or {}).items():
            argv += [f"--{name}", str(value)]
        monkeypatch.setattr(sys, "argv", argv)
        try:
            importlib.import_module(script).main()
        except SystemExit as ended:
            return ended.code
        return 0

    return run
