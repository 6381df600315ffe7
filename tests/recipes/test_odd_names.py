"""A folder with a name that means something to YAML, through every script."""

import json
import shutil

import pytest
from ruamel.yaml import YAML

from speechbrain_mser.settings.hparams import read_settings
from speechbrain_mser.settings.project_files import HPARAMS

NAME = "[final] run #2: <seed> (1) 'é\" *x"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("place") / NAME


def test_all_scripts_work_in_folders_with_odd_names(
    run_script, tiny_flags, tiny_corpus, place, monkeypatch
):
    shutil.copytree(tiny_corpus, place / "data")
    monkeypatch.chdir(place)
    shared = {
        "data_root": f"{place}/data/corpora",
        "manifest_folder": "data/manifests",
        "skip_prep": True,
        "features": "write",
        "feature_folder": "2026-11-28",
        "num_workers": 0,
    }
    train = {**tiny_flags, **shared, "output_folder": "run #2"}
    extract = {k: v for k, v in train.items() if k != "features"}
    assert run_script("extract", HPARAMS / "stage1.yaml", flags=extract) == 0
    assert run_script("train", HPARAMS / "stage1.yaml", flags=train) == 0
    record = place / "run #2" / "hyperparams.yaml"
    recorded = YAML().load(record)
    assert recorded["output_folder"] == "run #2"
    assert recorded["training"]["feature_folder"] == "2026-11-28"
    assert recorded["data_root"] == shared["data_root"]
    again = read_settings(record, {})
    assert again["training"]["checkpointer"]["checkpoints_dir"] == "run #2/save"
    # The second stage, in a folder whose name is a number
    second = {**train, "pretrained": "run #2/recognizer", "output_folder": "7"}
    assert run_script("train", HPARAMS / "stage2.yaml", flags=second) == 0

    recognizer = {"recognizer": f"{place}/run #2/recognizer"}
    calibrate = {
        **shared,
        **recognizer,
        "corpora": "tiny",
        "output_folder": "null",
    }
    calibrate_yaml = HPARAMS / "calibrate.yaml"
    assert run_script("calibrate", calibrate_yaml, flags=calibrate) == 0
    evaluate = {
        **shared,
        **recognizer,
        "sets": "[{name: 007, corpus: tiny, labels: paper4}]",
        "output_folder": "1e5",
    }
    assert (
        run_script("evaluate", HPARAMS / "evaluate.yaml", flags=evaluate) == 0
    )
    label = {
        **shared,
        **recognizer,
        "corpus": "tiny",
        "labels": "paper4",
        "output_folder": "*a",
    }
    pseudo = HPARAMS / "pseudo_label.yaml"
    assert run_script("pseudo_label", pseudo, flags=label) == 0
    assert {path.name for path in place.iterdir()} == {
        *("data", "2026-11-28", "run #2", "7", "null", "1e5", "*a")
    }
    assert (place / "null" / "calibration.md").is_file()
    assert list(json.loads((place / "1e5/metrics.json").read_text())) == ["007"]
    assert (place / "*a" / "tiny.csv").is_file()
