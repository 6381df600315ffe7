"""Sources to translate, and translators that other processes can import."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas
import pytest
import soundfile

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parents[2] / "benchmarks"))

from echo_backend import EchoBackend  # noqa: E402

SETTINGS = {"backend": "echo"}


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """Twelve utterances of 0.3 to 1.4 s, as `read_sources` returns them."""
    folder = tmp_path_factory.mktemp("sources")
    draw = np.random.default_rng(0)
    rows = []
    for number in range(12):
        path = folder / f"{number}.wav"
        samples = draw.normal(0, 0.1, 4800 + 1600 * number)
        soundfile.write(path, samples, 16000)
        rows.append(
            {
                "ID": f"toy_{number:02d}",
                "corpus": "toy",
                "wav": str(path),
                "place": f"$data_root/{path.name}",
                "start": float("nan"),
                "stop": float("nan"),
                "duration": len(samples) / 16000,
                "language": "eng",
                "speaker": f"s{number % 2}",
                "emotion": "happy",
                "text": f"sentence {number}",
            }
        )
    return pandas.DataFrame(rows)


@pytest.fixture
def begin(sources, tmp_path):
    """A plan in shards of some 4 s, and work on it."""
    from speechbrain_mser.synthesis.folder import SynthesisFolder
    from speechbrain_mser.synthesis.plan import Plan
    from speechbrain_mser.synthesis.shard import ShardWork

    def make(make_backend=EchoBackend, table=sources, folder="out", **options):
        plan = Plan(table, ["fra"], 0.065)
        place = SynthesisFolder(tmp_path / folder, plan.description, SETTINGS)
        return plan, ShardWork(
            make_backend, place, **{"batch_size": 3, **options}
        )

    return make


@pytest.fixture
def mischief(tmp_path):
    """A translator of `mischief_backends`, that notes its calls in a file."""
    import mischief_backends

    def make(name, **options):
        kind = getattr(mischief_backends, name)
        return partial(kind, notes=str(tmp_path / "notes"), **options)

    return make


@pytest.fixture
def notes(tmp_path):
    """What the translators of `mischief` noted."""

    def read():
        path = tmp_path / "notes"
        return path.read_text().split() if path.exists() else []

    return read
