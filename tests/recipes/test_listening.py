"""Evaluation after a few utterances were heard."""

import csv
import json
import math
import statistics

import numpy as np
import pytest
import torch

from speechbrain_mser.dataio.feature_reader import FeatureReader
from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.inference.ensemble import recognize_sets
from speechbrain_mser.inference.listening import Listening, parse_adaptation
from speechbrain_mser.inference.pseudo_labels import even_out
from speechbrain_mser.lobes.encoder import FrozenEncoder
from speechbrain_mser.settings.project_files import HPARAMS

EVALUATE = HPARAMS / "evaluate.yaml"
LABELS = ["neutral", "happy", "sad", "angry"]


@pytest.fixture(scope="module")
def recognizer(folder):
    return EmotionRecognizer.from_hparams(folder)


@pytest.fixture(scope="module")
def table(tiny_corpus):
    manifest = tiny_corpus / "manifests" / "tiny.csv"
    return read_manifest(manifest, tiny_corpus / "corpora" / "tiny")


@pytest.fixture(scope="module")
def frames(recognizer, table):
    """ID to the encoder's features, one utterance at a time."""
    return {
        row.ID: recognizer.mods.encoder(
            recognizer.load_audio(row.wav)[None], torch.ones(1)
        )[0]
        for row in table.itertuples()
    }


@pytest.fixture
def evaluate(run_script, tiny_corpus, folder, tmp_path):
    """Evaluate on the whole corpus: metrics, predictions by ID, the table."""

    def run(**settings):
        flags = {
            "recognizer": folder,
            "output_folder": tmp_path / "evaluation",
            "data_root": tiny_corpus / "corpora",
            "manifest_folder": tiny_corpus / "manifests",
            "skip_prep": True,
            "num_workers": 0,
            "sets": "[{name: all, corpus: tiny, labels: paper4}]",
            "resamples": 0,
            **settings,
        }
        assert run_script("evaluate", EVALUATE, flags=flags) == 0
        there = tmp_path / "evaluation"
        with open(there / "all" / "predictions.csv", encoding="utf-8") as file:
            rows = {row["ID"]: row for row in csv.DictReader(file)}
        metrics = json.loads((there / "metrics.json").read_text())["all"]
        return metrics, rows, (there / "table.md").read_text()

    return run


def said_after(recognizer, frames, table, listening):
    """Probabilities by ID after each draw, by formula and one by one."""
    common = recognizer.mods.connector.standardizer
    groups = listening.groups(table)
    results = []
    for drawn in listening.draw(table):
        found = {}
        for utterance, features in frames.items():
            heard = [
                frames[other][0]
                for other in drawn
                if groups[other] == groups[utterance]
            ]
            n, every = len(heard), torch.cat(heard)
            mean = (n * every.mean(0) + 3 * common.mean) / (n + 3)
            variance = n * every.var(0, correction=0) + 6 * common.std**2
            std = (variance / (n + 6)).sqrt()
            moved = (features - mean) / std * common.std + common.mean
            _, log_probs = recognizer.recognize_features(
                moved, torch.ones(1), LABELS
            )
            found[utterance] = log_probs[0].exp().tolist()
        results.append(found)
    return results


@pytest.mark.parametrize("by_speaker", [False, True])
def test_figures_are_means_over_draws_and_predictions_the_first_ones(
    evaluate, recognizer, frames, table, by_speaker
):
    adaptation = "listen:3:speaker" if by_speaker else "listen:3"
    metrics, rows, report = evaluate(adaptation=adaptation, draws=2, seed=7)
    listening = Listening(3, by_speaker, draws=2, seed=7)
    draws = said_after(recognizer, frames, table, listening)
    for utterance, row in rows.items():
        for label, value in zip(LABELS, draws[0][utterance], strict=True):
            assert float(row[label]) == pytest.approx(value, abs=1e-4)
    uas = []
    for found in draws:
        recalls = []
        for label in LABELS:
            of_label = [
                LABELS[max(range(4), key=found[row.ID].__getitem__)] == label
                for row in table.itertuples()
                if row.emotion == label
            ]
            recalls.append(statistics.mean(of_label))
        uas.append(statistics.mean(recalls))
    assert metrics["draws"]["UA"] == pytest.approx(uas)
    assert metrics["UA"] == pytest.approx(statistics.mean(uas))
    assert metrics["adaptation"] == adaptation and metrics["n"] == len(table)
    assert f"deviation of {statistics.stdev(uas):.3f}" in report
    assert "3 utterances of " + ("each" if by_speaker else "it") in report


def test_hearing_all_without_shrinkage_is_hearing_the_set(evaluate):
    _, whole, _ = evaluate(adaptation="set")
    metrics, rows, _ = evaluate(
        adaptation="listen:1000", draws=1, kappa_mean=0, kappa_variance=0
    )
    for utterance, row in rows.items():
        for label in LABELS:
            assert math.isclose(
                float(row[label]), float(whole[utterance][label]), abs_tol=2e-6
            )
    assert len(metrics["draws"]["UA"]) == 1


def test_the_number_of_draws_costs_no_encoding(
    evaluate, monkeypatch, tmp_path, table
):
    encoded = []
    forward = FrozenEncoder.forward

    def counted(self, wavs, wav_lens=None):
        encoded.append(len(wavs))
        return forward(self, wavs, wav_lens)

    monkeypatch.setattr(FrozenEncoder, "forward", counted)
    plain, _, _ = evaluate(adaptation="listen:2", draws=1)
    assert sum(encoded) == len(table) + 2  # those heard once more
    encoded.clear()
    stored = {"features": "write", "feature_folder": tmp_path / "features"}
    evaluate(adaptation="listen:2", draws=5, feature_dtype="float32", **stored)
    assert sum(encoded) == len(table)
    assert "draws" in plain


@pytest.mark.parametrize("adaptation", ["listen:3", "listen:2:speaker"])
def test_no_label_changes_a_bit_of_what_is_said(recognizer, table, adaptation):
    listening = parse_adaptation(adaptation, draws=3, seed=1)
    reader = FeatureReader(recognizer.mods.encoder)
    wrong = table.emotion.sample(frac=1, random_state=0).to_numpy()
    answers = []
    for labelled in (table, table.assign(emotion=wrong, label=wrong)):
        ((_, read, log_probs, _),) = recognize_sets(
            [(recognizer, reader)],
            1,
            {"all": (labelled, LABELS, labelled)},
            listening,
        )
        assert log_probs.shape == (3, len(table), 4)
        answers.append((read.ID.tolist(), log_probs))
    assert answers[0][0] == answers[1][0]
    assert torch.equal(answers[0][1], answers[1][1])
    assert not torch.equal(log_probs[0], log_probs[1])


def test_pseudo_labels_are_what_is_said_after_listening(
    evaluate, run_script, tiny_corpus, folder, tmp_path
):
    _, rows, _ = evaluate(adaptation="listen:4", draws=1)
    flags = {
        "recognizer": folder,
        "output_folder": tmp_path / "pseudo",
        "corpus": "tiny",
        "labels": "paper4",
        "keep": 1.0,
        "adaptation": "listen:4",
        "data_root": tiny_corpus / "corpora",
        "manifest_folder": tiny_corpus / "manifests",
        "skip_prep": True,
        "num_workers": 0,
    }
    yaml = HPARAMS / "pseudo_label.yaml"
    assert run_script("pseudo_label", yaml, flags=flags) == 0
    said = read_manifest(tmp_path / "pseudo" / "tiny.csv")
    probs = [[float(rows[name][label]) for label in LABELS] for name in said.ID]
    expected = even_out(np.log(probs)).argmax(1)
    assert len(said) == len(rows)
    assert said.emotion.tolist() == [LABELS[k] for k in expected]


def test_fewer_utterances_than_asked_for_are_said(evaluate, caplog):
    evaluate(adaptation="listen:9:speaker", draws=1)
    assert "9 utterances of each speaker were to be heard" in caplog.text
    assert "8 at least, 8.0 on average" in caplog.text
