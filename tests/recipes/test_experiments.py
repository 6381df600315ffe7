"""Demo and real speech: what was trained otherwise is trained anew."""

import shutil
from pathlib import Path

import demo
import pytest
import real_speech
import torch
import yaml
from safetensors.torch import load_file

STAGES = {
    "stage1": {"languages": ["eng"], "number_of_epochs": 1, "lr": 1e-3},
    "stage2": {"languages": ["eng", "deu"], "number_of_epochs": 1, "lr": 1e-3},
}


@pytest.fixture
def tiny(tiny_flags, monkeypatch):
    """The experiments' settings, on tiny models and the tiny corpus."""
    flags = {name: yaml.safe_load(v) for name, v in tiny_flags.items()}
    of_experiment = ("data_root", "manifest_folder", "number_of_epochs")
    small = {
        name: value
        for name, value in flags.items()
        if not name.endswith("_hub") and name not in of_experiment
    }
    monkeypatch.setattr(demo, "SMALL", {**small, "features": "write"})
    monkeypatch.setattr(real_speech, "MODEL", small)
    for experiment in (demo, real_speech):
        monkeypatch.setattr(experiment, "STAGES", STAGES)


@pytest.fixture
def experiments(
    tiny, tiny_whisper, tiny_bert, tiny_llama, tiny_corpus, monkeypatch
):
    """Both experiments, each as a function of the folder."""
    root = tiny_corpus / "corpora" / "tiny"
    manifest = tiny_corpus / "manifests" / "tiny.csv"

    def place(sources):
        for path, source in sources.items():
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, path)

    def run_demo(folder):
        data = folder / "data"
        place(
            {
                data / "whisper": tiny_whisper,
                data / "bert": tiny_bert,
                data / "llama": tiny_llama,
                data / "tiny": root,
                data / "tiny.csv": manifest,
            }
        )
        demo.train(folder, data, 1)

    def run_real(folder):
        data, models = folder / "data", folder / "models"
        place(
            {
                data / "whisper-base-encoder": tiny_whisper,
                data / "speech" / "tiny": root,
                models / "llama": tiny_llama,
                folder / "manifests" / "tiny.csv": manifest,
            }
        )
        one = {"name": "test", "manifest": str(manifest), "split": "test"}
        one |= {"data_root": str(root), "labels": "paper4"}
        monkeypatch.setattr(real_speech, "SETS", [one])
        monkeypatch.setattr(real_speech, "bert_folder", lambda: tiny_bert)
        real_speech.run_seed(folder, data, models, 1)

    return {"demo": run_demo, "real": run_real}


@pytest.mark.parametrize("name", ["demo", "real"])
def test_a_changed_setting_trains_anew_in_the_old_folder(
    experiments, name, in_this_process, tmp_path, monkeypatch
):
    def run():
        in_this_process.ran.clear()
        experiments[name](tmp_path)
        return [
            Path(arguments[arguments.index("--output_folder") + 1]).name
            for script, arguments in in_this_process.ran
            if script == "train"
        ]

    def connectors():
        return [
            load_file(tmp_path / stage / "recognizer/connector.safetensors")
            for stage in STAGES
        ]

    assert run() == ["stage1", "stage2"]
    before = connectors()
    assert run() == []
    assert in_this_process.ran == []
    # The first stage's: what starts from it is trained anew with it.
    changed = {**STAGES, "stage1": {**STAGES["stage1"], "lr": 1e-2}}
    for experiment in (demo, real_speech):
        monkeypatch.setattr(experiment, "STAGES", changed)
    assert run() == ["stage1", "stage2"]
    for old, new in zip(before, connectors(), strict=True):
        assert not torch.equal(old["output.weight"], new["output.weight"])
