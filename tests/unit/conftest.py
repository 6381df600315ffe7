"""What the tests of this folder share: helpers beside it, and fixtures."""

import importlib
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """A module of the benchmarks, by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture(scope="session")
def llama(tiny_llama):
    """An LLM that reads mixtures of the candidates' embeddings."""
    from speechbrain_mser.lobes.llama import EmotionLLaMA

    return EmotionLLaMA(tiny_llama, prompt="Emotion?", token_mixture=True)


@pytest.fixture
def audio():
    """What a connector writes for the LLM: three utterances of two tokens."""
    return torch.randn(3, 2, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def shared_folder():
    """A folder that other users may enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    for path in folder.glob("**/"):
        path.chmod(0o777)
    shutil.rmtree(folder)
