"""Training and evaluation say the same with stored features as without."""

import os
import shutil
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
from miniature import RECIPES
from ready import run_group

from speechbrain_mser.lobes.whisper import WhisperEncoder

ROOT = Path(__file__).resolve().parents[2]
HPARAMS = ROOT / "hparams"
# Of the tiny corpus's 40, English only: 3 speakers train, 1 validates
N_TRAINED = 12 + 4


@dataclass
class Run:
    """How a script ended."""

    code: int
    folder: Path
    encoded: int  # utterances that went through the encoder

    def read(self, name):
        return (self.folder / name).read_text()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run a recipe script in this process."""

    def run(script, yaml, flags):
        folder = tmp_path_factory.mktemp(script)
        argv = [script, str(HPARAMS / yaml), f"--output_folder={folder}"]
        argv += [f"--{name}={value}" for name, value in flags.items()]
        batches = []
        forward = WhisperEncoder.forward

        def counting(self, wavs, wav_lens=None):
            batches.append(len(wavs))
            return forward(self, wavs, wav_lens)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(WhisperEncoder, "forward", counting)
            patch.setattr(sys, "argv", argv)
            try:
                import_module(script).main()
                code = 0
            except SystemExit as ended:
                code = ended.code
        return Run(code, folder, sum(batches))

    return run


@pytest.fixture(scope="module")
def train(run, tiny_flags):
    """Train two epochs, an utterance at a time."""

    def train(**flags):
        fixed = {"number_of_epochs": 2, "lr": 1e-3, "batch_size": 1}
        return run("train", "stage1.yaml", {**tiny_flags, **fixed, **flags})

    return train


@pytest.fixture(scope="module")
def without(train):
    """A training that stores nothing."""
    trained = train(features="off")
    assert trained.code == 0
    return trained


@pytest.fixture(scope="module")
def to_store(tmp_path_factory):
    """Flags of a store that keeps what the encoder says."""
    return {
        "features": "write",
        "feature_folder": tmp_path_factory.mktemp("features"),
        "feature_dtype": "float32",
    }


@pytest.fixture(scope="module")
def storing(train, to_store):
    """A training that found nothing stored."""
    trained = train(**to_store)
    assert trained.code == 0
    return trained


def numbers(log):
    """Every number in a training log, by epoch and name."""
    found = {}
    for epoch, line in enumerate(log.splitlines()):
        for part in line.replace(" - ", ", ").split(", "):
            name, _, value = part.rpartition(": ")
            found[epoch, name] = float(value)
    return found


def test_float32_features_change_nothing(without, storing):
    assert storing.read("train_log.txt") == without.read("train_log.txt")


def test_each_utterance_is_encoded_once(without, storing):
    # For the statistics, which are over the training set, and in two epochs
    assert without.encoded == 12 + 2 * N_TRAINED
    assert storing.encoded == N_TRAINED


@pytest.mark.parametrize("mode", ["write", "read"])
def test_a_second_training_encodes_nothing(train, storing, to_store, mode):
    again = train(**{**to_store, "features": mode})
    assert (again.code, again.encoded) == (0, 0)
    assert again.read("train_log.txt") == storing.read("train_log.txt")


def test_workers_find_features_in_batches_of_any_size(train, storing, to_store):
    logs = []
    for n_workers in (0, 2):
        again = train(**to_store, batch_size=5, num_workers=n_workers)
        assert (again.code, again.encoded) == (0, 0)
        logs.append(again.read("train_log.txt"))
    assert logs[0] == logs[1]


def test_float16_features_change_next_to_nothing(train, without, tmp_path):
    trained = train(features="write", feature_folder=tmp_path)
    assert trained.code == 0
    assert trained.encoded == N_TRAINED
    expected = numbers(without.read("train_log.txt"))
    assert "valid contrastive" in {name for _, name in expected}
    found = numbers(trained.read("train_log.txt"))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_reading_where_nothing_is_stored_says_what_to_do(
    train, tmp_path, capsys
):
    assert train(features="read", feature_folder=tmp_path).code == 2
    said = capsys.readouterr().err
    assert str(tmp_path) in said
    assert "set features to write" in said


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("features", "nonsense", "off, read, write"),
        ("feature_dtype", "int4", "float32, float16, bfloat16, int8"),
    ],
)
def test_other_words_are_refused(
    train, tmp_path, capsys, flag, value, expected
):
    flags = {"features": "write", "feature_folder": tmp_path, flag: value}
    assert train(**flags).code == 2
    said = capsys.readouterr().err
    assert value in said
    assert expected in said


def test_what_is_damaged_is_encoded_again(train, storing, to_store, tmp_path):
    shutil.copytree(to_store["feature_folder"], tmp_path / "features")
    damaged, *_ = tmp_path.glob("features/*/utterances/*/*")
    os.truncate(damaged, damaged.stat().st_size // 2)
    flags = {**to_store, "feature_folder": tmp_path / "features"}
    for encoded in (1, 0):
        again = train(**flags)
        assert (again.code, again.encoded) == (0, encoded)
        assert again.read("train_log.txt") == storing.read("train_log.txt")


def test_what_two_processes_stored_at_once_one_reads(
    train, tiny_flags, tmp_path
):
    stored = {"features": "write", "feature_folder": tmp_path / "features"}
    flags = {
        **tiny_flags,
        **stored,
        "output_folder": tmp_path / "out",
        "distributed_backend": "gloo",
        "device": "cpu",
        "batch_size": 3,
    }
    words = [f"--{name}={value}" for name, value in flags.items()]
    for done in run_group(
        2, ["train.py", "hparams/stage1.yaml", *words], cwd=RECIPES
    ):
        assert done.returncode == 0, done.stderr
    stored_files = list(tmp_path.glob("features/*/utterances/*/*"))
    assert len(stored_files) == N_TRAINED
    again = train(**stored, number_of_epochs=1)
    assert (again.code, again.encoded) == (0, 0)


def test_a_bad_utterance_is_left_out_as_without_a_store(
    train, tiny_corpus, tmp_path
):
    shutil.copytree(tiny_corpus / "corpora", tmp_path / "corpora")
    (tmp_path / "corpora/tiny/tiny_eng_2_sad.wav").write_bytes(b"no audio" * 9)
    logs = []
    for features in ("off", "write", "write"):
        trained = train(
            features=features,
            feature_folder=tmp_path / "features",
            feature_dtype="float32",
            data_root=tmp_path / "corpora",
            number_of_epochs=1,
        )
        assert trained.code == 0
        logs.append(trained.read("train_log.txt"))
    assert "bad_utterances: 1" in logs[0]
    assert logs[1:] == [logs[0]] * 2


def test_evaluation_reads_what_training_stored(
    run, without, storing, to_store, tiny_corpus, tmp_path
):
    # A copy: the other tests count what is encoded.
    folder = tmp_path / "features"
    shutil.copytree(to_store["feature_folder"], folder)
    flags = {
        **to_store,
        "feature_folder": folder,
        "recognizer": without.folder / "recognizer",
        "data_root": tiny_corpus / "corpora",
        "manifest_folder": tiny_corpus / "manifests",
        "skip_prep": True,
        "num_workers": 0,
        "batch_size": 1,
        "sets": "[{name: all, corpus: tiny, labels: paper4}]",
    }
    runs = [
        run("evaluate", "evaluate.yaml", {**flags, "features": mode})
        for mode in ("off", "write", "read")
    ]
    assert [run.code for run in runs] == [0, 0, 0]
    assert [run.encoded for run in runs] == [40, 40 - N_TRAINED, 0]
    said = {run.read("all/predictions.csv") for run in runs}
    assert len(said) == 1
