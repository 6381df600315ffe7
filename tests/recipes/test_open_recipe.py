"""The open recipe: no validation, several recognisers, a second training."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import log_softmax, softmax

from speechbrain_mser.dataio.manifest import read_manifest, write_manifest
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.settings.project_files import HPARAMS

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "M5SER"
OPEN = HPARAMS / "open" / "train.yaml"
EVALUATE = HPARAMS / "evaluate.yaml"
PSEUDO = HPARAMS / "pseudo_label.yaml"
LABELS = ["neutral", "happy", "sad", "angry"]
# The paper's connector, which reads every frame.
QFORMER = {
    "connector_type": "qformer",
    "mean_over_time": False,
    "feature_dtype": "float16",
    "n_queries": 8,
}


@pytest.fixture
def open_flags(tiny_flags, tmp_path):
    # Those that the recipe itself is about stay as they are.
    kept = {"n_queries", "query_dim", "number_of_epochs", "bert_hub"}
    flags = {k: v for k, v in tiny_flags.items() if k not in kept}
    return {
        **flags,
        "languages": "[eng, deu]",
        "encoder_layers": "[0, 2]",
        "feature_folder": tmp_path / "features",
        "batch_size": 8,
        # Of both kinds
        "number_of_epochs": 4,
        "epochs_before_llm": 3,
    }


@pytest.fixture
def train(run_script, open_flags, tmp_path):
    """Train with changed settings; the output folder."""

    def run(name, **changed):
        folder = tmp_path / name
        flags = {**open_flags, "output_folder": folder}
        assert run_script("train", OPEN, flags=flags | changed) == 0
        return folder

    return run


@pytest.fixture
def reading(tiny_corpus, tmp_path):
    return {
        # What training stored is found by these settings' own defaults.
        "features": "read",
        "feature_folder": tmp_path / "features",
        "data_root": tiny_corpus / "corpora",
        "manifest_folder": tiny_corpus / "manifests",
        "skip_prep": True,
        "num_workers": 0,
    }


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_without_validation_all_is_trained_on_and_the_last_epoch_kept(train):
    folder = train("one")
    log = (folder / "train_log.txt").read_text().splitlines()
    assert len(log) == 4
    assert ["train ce" in line for line in log] == [False] * 3 + [True]
    assert not any("valid" in line for line in log)
    (kept,) = (folder / "save").glob("CKPT*")
    last = load_file(kept / "connector.ckpt")
    exported = load_file(folder / "recognizer" / "connector.safetensors")
    assert all(torch.equal(last[name], exported[name]) for name in last)
    # The mean over time of two layers side by side, to one token
    width = exported["standardizer.mean"].shape[1]
    assert exported["output.weight"].shape[1] == 2 * width
    recognizer = EmotionRecognizer.from_hparams(folder / "recognizer")
    features, lens = recognizer.mods.encoder(torch.randn(1, 16000))
    assert features.shape == (1, 2, 1, width)
    tokens, *_ = recognizer.mods.connector(features, lens)
    assert tokens.shape[1] == 1
    wavs = torch.randn(2, 16000)
    _, log_probs = recognizer.recognize_batch(wavs)
    assert log_probs.exp().sum(1).tolist() == pytest.approx([1, 1])
    # It hears as it was trained: a level is no emotion.
    _, softly = recognizer.recognize_batch(wavs / 100)
    torch.testing.assert_close(softly, log_probs, rtol=0, atol=1e-4)


def test_training_hears_through_worse_microphones(
    train, run_script, open_flags, capsys
):
    # Forty recordings, each in noise, in a room, through a telephone and in two
    # voices as well
    assert run_script("extract", OPEN, flags=open_flags) == 0
    assert "240 encoded" in capsys.readouterr().out
    heard = train("heard", features="read", number_of_epochs=1)
    alone = train("alone", microphones="[]", number_of_epochs=1)
    heard, alone = (
        load_file(folder / "recognizer" / "connector.safetensors")
        for folder in (heard, alone)
    )
    # The statistics, too, are of recordings and copies.
    for name in ("standardizer.mean", "output.weight"):
        assert not torch.equal(heard[name], alone[name])


def test_a_qformer_hears_every_frame(train):
    folder = train("qformer", **QFORMER, number_of_epochs=1)
    exported = load_file(folder / "recognizer" / "connector.safetensors")
    # Two layers side by side
    width = exported["standardizer.mean"].shape[1]
    assert (256, 2 * width) in {tuple(t.shape) for t in exported.values()}
    recognizer = EmotionRecognizer.from_hparams(folder / "recognizer")
    features, lens = recognizer.mods.encoder(torch.randn(1, 16000))
    assert features.shape == (1, 2, 50, width)
    tokens, *_ = recognizer.mods.connector(features, lens)
    assert tokens.shape[1] == 8


def test_resumed_without_validation_equals_uninterrupted(train):
    constant = {"warmup": 0.0, "cooldown": 0.0}
    whole = train("whole", **constant)
    train("halved", **constant, number_of_epochs=2)
    halved = train("halved", **constant)
    one, other = (
        load_file(folder / "recognizer" / "connector.safetensors")
        for folder in (whole, halved)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_several_recognisers_say_what_their_mean_log_probability_says(
    train, run_script, reading, tmp_path
):
    folders = [
        str(train(f"seed{seed}", seed=seed) / "recognizer") for seed in (1, 2)
    ]
    sets = "[{name: all, corpus: tiny, labels: paper4}]"
    probabilities = []
    for number, recognizer in enumerate([*folders, f"[{', '.join(folders)}]"]):
        output = tmp_path / f"evaluation{number}"
        flags = {
            **reading,
            "recognizer": recognizer,
            "output_folder": output,
            "sets": sets,
            "resamples": 0,
        }
        assert run_script("evaluate", EVALUATE, flags=flags) == 0
        rows = rows_of(output / "all" / "predictions.csv")
        probabilities.append(
            np.array([[float(row[label]) for label in LABELS] for row in rows])
        )
    one, two, both = probabilities
    assert np.abs(one - two).max() > 1e-4
    mean = (np.log(one) + np.log(two)) / 2
    np.testing.assert_allclose(both, softmax(mean, axis=1), atol=1e-5)


def test_calibration_belongs_to_one_recogniser(
    train, run_script, reading, tmp_path, capsys
):
    folder = train("one") / "recognizer"
    flags = {
        **reading,
        "recognizer": f"[{folder}, {folder}]",
        "output_folder": tmp_path / "evaluation",
        "sets": "[{name: all, corpus: tiny, labels: paper4}]",
        "calibration": "temperature",
    }
    assert run_script("evaluate", EVALUATE, flags=flags) == 2
    assert "--calibration none" in capsys.readouterr().err


def test_a_second_training_has_the_recognisers_labels_and_no_others(
    train, run_script, reading, tiny_corpus, tmp_path
):
    recognizer = train("one") / "recognizer"
    table = read_manifest(tiny_corpus / "manifests" / "tiny.csv")
    results = []
    # As it is, and with all labels gone
    for number, rows in enumerate(
        (table, table.assign(emotion="sad", label="x"))
    ):
        manifests = tmp_path / f"manifests{number}"
        write_manifest(manifests / "tiny.csv", rows.to_dict("records"))
        flags = {
            **reading,
            "manifest_folder": manifests,
            "recognizer": recognizer,
            "output_folder": tmp_path / f"pseudo{number}",
            "corpus": "tiny",
            "labels": "paper4",
        }
        assert run_script("pseudo_label", PSEUDO, flags=flags) == 0
        results.append(tmp_path / f"pseudo{number}" / "tiny.csv")
    assert results[0].read_bytes() == results[1].read_bytes()
    labelled = read_manifest(results[0])
    assert set(labelled.label) == {"pseudo"}
    assert set(labelled.emotion) <= set(LABELS)
    assert len(LABELS) - 1 < len(labelled) <= len(table) / 2
    # What the recogniser says of them, after all labels have been made
    # equally probable
    flags = {
        **reading,
        "recognizer": recognizer,
        "output_folder": tmp_path / "evaluation",
        "sets": "[{name: all, corpus: tiny, labels: paper4}]",
        "adaptation": "set",
        "resamples": 0,
    }
    assert run_script("evaluate", EVALUATE, flags=flags) == 0
    rows = rows_of(tmp_path / "evaluation" / "all" / "predictions.csv")
    said = np.log([[float(row[label]) for label in LABELS] for row in rows])
    bias = np.zeros(4)
    for _ in range(2000):
        mean = np.exp(log_softmax(said + bias, axis=1)).mean(0)
        bias += 0.5 * (0.25 - mean)
    expected = {
        row["ID"]: LABELS[k]
        for row, k in zip(rows, (said + bias).argmax(1), strict=True)
    }
    found = dict(zip(labelled.ID, labelled.emotion, strict=True))
    assert found == {name: expected[name] for name in found}
    # And it can be trained on.
    train("second", manifest_folder=tmp_path / "pseudo0")


def test_adaptation_takes_the_audio_of_all_emotions(
    train, run_script, reading, tiny_corpus, tmp_path
):
    """Which utterances have a candidate's emotion is a label too."""
    recognizer = train("one") / "recognizer"
    table = read_manifest(tiny_corpus / "manifests" / "tiny.csv")
    sad = table[table.emotion == "sad"].iloc[0].ID
    probabilities = []
    for number in range(2):
        rows = table.to_dict("records")
        manifests = tmp_path / f"manifests{number}"
        for row in rows:
            # The same audio, once as an emotion that is no candidate
            if number and row["emotion"] == "sad" and row["ID"] != sad:
                row["emotion"] = "boredom"
        write_manifest(manifests / "tiny.csv", rows)
        flags = {
            **reading,
            "manifest_folder": manifests,
            "recognizer": recognizer,
            "output_folder": tmp_path / f"evaluation{number}",
            "sets": "[{name: all, corpus: tiny, labels: paper4}]",
            "adaptation": "set",
            "resamples": 0,
        }
        assert run_script("evaluate", EVALUATE, flags=flags) == 0
        path = tmp_path / f"evaluation{number}" / "all" / "predictions.csv"
        probabilities.append({row["ID"]: row for row in rows_of(path)})
    every, fewer = probabilities
    assert len(fewer) < len(every)
    assert all(every[name] == row for name, row in fewer.items())


def test_a_part_to_believe_that_is_none_is_refused_before_anything_is_read(
    run_script, reading, tmp_path, capsys
):
    flags = {
        **reading,
        "recognizer": tmp_path / "not there",
        "corpus": "tiny",
        "output_folder": tmp_path / "pseudo",
        "keep": 2,
    }
    assert run_script("pseudo_label", PSEUDO, flags=flags) == 2
    assert "keep is 2; expected above 0" in capsys.readouterr().err


def read_all(recognizer, reading):
    """The tiny corpus, and each utterance's features, by ID."""
    table = read_manifest(
        reading["manifest_folder"] / "tiny.csv", reading["data_root"] / "tiny"
    )
    features = {
        row.ID: recognizer.mods.encoder(
            recognizer.load_audio(row.wav)[None], torch.ones(1)
        )[0]
        for row in table.itertuples()
    }
    return table, features


def test_a_set_is_heard_speaker_by_speaker(
    train, run_script, reading, tmp_path
):
    folder = train("one", microphones="[]")
    recognizer = EmotionRecognizer.from_hparams(folder / "recognizer")
    connector = recognizer.mods.connector
    table, features = read_all(recognizer, reading)
    common = connector.standardizer
    # One training corpus: what it has of its own is what all have.
    standard = {
        name: (one[0, :, 0] - common.mean) / common.std
        for name, one in features.items()
    }
    means = connector.emotion_means
    for word in LABELS:
        rows = table.ID[(table.emotion == word)]
        every = torch.stack([standard[name] for name in rows])
        torch.testing.assert_close(
            means[word], every.mean(0), atol=1e-4, rtol=1e-4
        )
    evaluation = tmp_path / "evaluation"
    flags = {
        **reading,
        "recognizer": folder / "recognizer",
        "output_folder": evaluation,
        "adaptation": "set",
        "kappa_speaker": 2,
        "sets": "[{name: all, corpus: tiny, labels: paper4}]",
        "resamples": 0,
    }
    assert run_script("evaluate", EVALUATE, flags=flags) == 0
    # The same, one utterance and one word after the other
    every = torch.stack(list(standard.values()))
    mean, std = every.mean(0), every.std(0, correction=0)
    own = {name: (one - mean) / std for name, one in standard.items()}
    shifts = {speaker: torch.zeros_like(mean) for speaker in table.speaker}

    def raw(row):
        moved = own[row.ID] - shifts[row.speaker]
        return (moved * common.std + common.mean)[None, :, None]

    for _ in range(5):
        left = {speaker: [] for speaker in shifts}
        for row in table.itertuples():
            p = recognizer.guess_features(raw(row), torch.ones(1), LABELS)[0]
            left[row.speaker].append(own[row.ID] - means[LABELS[p.argmax()]])
        shifts = {
            speaker: sum(every) / (len(every) + 2)
            for speaker, every in left.items()
        }
    found = {
        row["ID"]: row for row in rows_of(evaluation / "all/predictions.csv")
    }
    for row in table.itertuples():
        _, expected = recognizer.recognize_features(
            raw(row), torch.ones(1), LABELS
        )
        for label, p in zip(LABELS, expected[0].exp().tolist(), strict=True):
            assert float(found[row.ID][label]) == pytest.approx(p, abs=1e-3)
