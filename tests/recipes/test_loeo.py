"""Leave-one-emotion-out: what is measured, on paper and in miniature."""

import json

import loeo
import numpy as np
import pandas as pd
import pytest
import yaml
from miniature import cells

SEEN, UNSEEN = ["sad", "angry"], ["fear"]


@pytest.fixture
def table():
    """Six utterances; fear's word is never the most probable one."""
    words = [*SEEN, "fear", "scared", "afraid"]
    probs = [
        # Of fear: its word beside the trained ones' sum is 0.2 and 0.05
        ("fear", 0.40, 0.10, 0.10, 0.20, 0.20),
        ("fear", 0.20, 0.20, 0.02, 0.38, 0.20),
        # 0.1, 0.075, 0.075 and hardly anything
        ("sad", 0.40, 0.10, 0.05, 0.25, 0.20),
        ("sad", 0.10, 0.30, 0.03, 0.37, 0.20),
        ("angry", 0.10, 0.30, 0.03, 0.37, 0.20),
        ("angry", 0.10, 0.30, 1e-30, 0.40, 0.20),
    ]
    rows = pd.DataFrame([row[1:] for row in probs], columns=words)
    rows = np.log(rows).assign(label=[row[0] for row in probs])
    return rows.assign(corpus="emodb", speaker=[*"abcabc"])


def test_figures_on_paper(table):
    found = loeo.measure(table, SEEN, UNSEEN)
    # All candidates but the synonyms: sad 1 of 2, angry 2 of 2, fear 0
    assert found["UA"] == pytest.approx(0.5)
    assert found["unseen"] == 0
    assert found["seen"] == pytest.approx(0.75)
    assert found["chance"] == pytest.approx(1 / 3)
    of_fear = found["words"]["fear"]
    assert of_fear["n"] == 2
    # One fear beats all four, the other one the last
    assert of_fear["AUROC"] == pytest.approx((4 + 1) / 8)
    low, high = of_fear["interval"]
    assert 0 <= low < 0.625 < high <= 1
    # "scared" beside the sum: 0.4, 0.95; 0.5, 0.925, 0.925, 1
    assert of_fear["synonyms"]["scared"] == pytest.approx((0 + 3) / 8)


def test_every_label_is_trained_or_never_is():
    assert loeo.split_labels("emodb") == (
        ["neutral", "happy", "sad", "angry"],
        ["disgust", "fear", "boredom"],
    )
    seen, unseen = loeo.split_labels("ravdess")
    assert unseen == ["disgust", "fear", "calm"]
    assert "surprise" in seen


def test_tables_have_means_over_words_and_seeds(table):
    one = {**loeo.measure(table, SEEN, UNSEEN), "UA": 0.4}
    other = json.loads(json.dumps(one))
    other["words"]["fear"]["AUROC"] = 0.5
    runs = {
        seed: {"emodb": {"none": found, "set": found}}
        for seed, found in ((1, one), (2, other))
    }
    rows = cells(loeo.auroc_table(runs, "none"))
    low, high = one["words"]["fear"]["interval"]
    assert rows[2] == [
        "emodb, fear",
        "2",
        "0.562 ± 0.088",
        f"{low:.3f} to {high:.3f}",
        "scared: 0.375 ± 0.000",
        rows[2][5],
    ]
    assert rows[3][2:] == ["0.562 ± 0.088", "", "0.375 ± 0.000", ""]
    assert cells(loeo.recall_table(runs))[2] == [
        "UA, all candidates, inductive",
        *["0.400 ± 0.000"] * 2,
    ]


def test_a_held_out_emotion_is_not_trained(
    real_corpora, run_script, in_this_process, monkeypatch, caplog
):
    data, folder, overrides = real_corpora
    monkeypatch.setattr(loeo, "HELD_OUT", ("angry",))
    monkeypatch.setattr(loeo, "FURTHER", {"emodb": []})
    monkeypatch.setattr(loeo, "SYNONYMS", {"angry": ("furious",)})
    flags = {"data": data, "folder": folder, "overrides": overrides}
    assert run_script("loeo", "--seeds", "1", flags=flags) == 0
    scripts = [name for name, _ in in_this_process.ran]
    assert scripts == ["extract", "train", "evaluate", "evaluate"]
    place = folder / "loeo" / "emodb" / "seed1"
    # Eight utterances of each of three corpora, two of them angry
    assert "left out, emotion not among the labels: 6 angry" in caplog.text
    settings = yaml.safe_load(
        (place / "training/recognizer/hyperparams.yaml").read_text()
    )
    assert settings["label_words"] == ["neutral", "happy", "sad"]
    results = json.loads((folder / "loeo" / "results.json").read_text())
    found = results["runs"]["1"]["emodb"]["set"]
    assert found["words"]["angry"]["n"] == 2
    assert list(found["words"]["angry"]["synonyms"]) == ["furious"]
    assert "AUROC, transductive" in (folder / "loeo/table.md").read_text()
