"""The released recogniser's mechanics, with a tiny one in its place."""

import json
import shutil

import numpy as np
import pytest
import release
import torch
from folds import LABELS, Folds, read_overrides
from release_card import release_card
from trained import train_recognizer

from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.calibration import (
    FILE,
    MODES,
    Calibration,
    compare_calibrations,
    fit_calibration,
)
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.inference import folder as folder_module
from speechbrain_mser.inference.folder import SETTINGS_FILE, read_settings
from speechbrain_mser.settings.project_files import HPARAMS

TRAINING = {"seed": 7, "number_of_epochs": 1}


@pytest.fixture(scope="module")
def trained(tiny_flags, tmp_path_factory):
    return train_recognizer(tiny_flags, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def flags(tiny_corpus):
    return {
        "data_root": str(tiny_corpus / "corpora"),
        "manifest_folder": str(tiny_corpus / "manifests"),
        "skip_prep": True,
        "num_workers": 0,
    }


@pytest.fixture(scope="module")
def scored(trained, flags):
    """The tiny corpus as if its two languages were corpora left out."""
    whole = release.score_left_out({"tiny": trained}, flags)
    ((table, log_probs, among),) = whole.values()
    parts = {}
    for corpus, language in (("emodb", "deu"), ("mine", "eng")):
        rows = (table.language == language).to_numpy(copy=True)
        parts[corpus] = table[rows], log_probs[rows], among[rows]
    return parts


@pytest.fixture(scope="module")
def made(trained, scored, flags, tmp_path_factory):
    target = tmp_path_factory.mktemp("released") / "open"
    measured = dict.fromkeys(("seeds", "listening", "worse", "unseen"))
    release.release(trained, scored, flags, TRAINING, measured, target)
    return target


@pytest.fixture
def wav(tiny_corpus):
    return tiny_corpus / "corpora/tiny/tiny_eng_5_happy.wav"


def test_half_the_bytes_say_the_same(trained, made, wav):
    whole, half = (
        EmotionRecognizer.from_hparams(source) for source in (trained, made)
    )
    for one in (whole, half):
        assert {p.dtype for p in one.mods.connector.parameters()} == {
            torch.float32
        }
    sizes = [
        (source / "connector.safetensors").stat().st_size
        for source in (trained, made)
    ]
    assert sizes[1] < 0.65 * sizes[0]
    _, expected = whole.recognize_file(wav)
    words, found = half.recognize_file(wav, calibration="none")
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)
    # The calibration is the halved connector's own.
    again, calibrated = half.recognize_file(wav, calibration="temperature")
    assert again == words
    fitted = Calibration.load(made / FILE)
    torch.testing.assert_close(
        calibrated, (found / fitted.temperature).log_softmax(-1)
    )


def test_the_settings_are_those_of_training(trained, made):
    before, after = (
        read_settings(source / SETTINGS_FILE) for source in (trained, made)
    )
    assert before.pop("connector_digest") != after.pop("connector_digest")
    # On any machine what it multiplies natively
    assert after.pop("frozen_dtype") == "auto"
    assert before.pop("frozen_dtype") != "auto"
    assert before == after
    assert after["trained_corpora"] == ["tiny"]


def test_a_corpus_is_measured_among_its_own_words(scored):
    labels = ["neutral", "happy", "sad", "angry"]
    table, _, log_probs = scored["mine"]
    two = table.emotion.isin(["happy", "sad"]).to_numpy(copy=True)
    # As if only these were asked for: the tiny corpus has all four
    among = log_probs[:, [1, 2]]
    found = release.measure(table[two], among[two], labels)
    right = {"happy": [], "sad": []}
    for emotion, row in zip(table.emotion[two], log_probs[two], strict=True):
        said = "happy" if row[1] > row[2] else "sad"
        right[emotion].append(said == emotion)
    assert found["words"] == 2
    assert found["utterances"] == sum(map(len, right.values()))
    assert found["UA"] == pytest.approx(
        np.mean([np.mean(each) for each in right.values()])
    )


def test_a_calibration_is_measured_on_what_it_was_not_fitted_to(scored):
    labels = ["neutral", "happy", "sad", "angry"]
    found = release.measure_calibration(scored, labels)
    (table, log_probs, _), (others, theirs, _) = scored["mine"], scored["emodb"]
    fitted = fit_calibration(theirs, others.emotion.tolist(), labels)
    expected = compare_calibrations(
        fitted, log_probs, table.emotion.tolist(), labels, "present"
    )
    for mode in MODES:
        assert found["mine"][mode] == {
            name: expected[mode][name] for name in ("UA", "ECE", "NLL")
        }


def test_every_number_of_the_card_is_in_its_json(made, scored):
    facts = json.loads((made / "card.json").read_text())
    card = (made / "README.md").read_text()
    assert card == release_card(facts)
    for name, one in facts["left_out"].items():
        assert one["utterances"] == len(scored[name][0])
        assert f"{one['UA']:.3f} (" in card
        one["UA"] = 0.98765
    assert release_card(facts).count("0.988 (") == len(facts["left_out"])
    # Terms that nobody told are not made up.
    assert "unknown, see the corpus" in card
    assert "not commercial" in card and "Article 5(1)(f)" in card
    assert f"seed {TRAINING['seed']}" in card
    assert "never trained on: not measured" in card


@pytest.fixture
def folds(real_corpora, monkeypatch):
    """Whose trainings leave a file that says what was trained."""

    def run(self, place, script, yaml, flags, note):
        folder = self.folder / place
        (folder / "recognizer").mkdir(parents=True, exist_ok=True)
        path = folder / "recognizer" / "connector.safetensors"
        path.write_text(json.dumps([place, flags["seed"]]))
        return folder

    monkeypatch.setattr(Folds, "_run", run)
    data, folder, overrides = real_corpora
    made = Folds(data, folder, read_overrides(overrides))
    release.train(made, 1, 1)
    return made


def test_what_was_measured_beside_it_is_in_the_card(made, folds):
    facts = json.loads((made / "card.json").read_text())
    own = {"emodb": 0.5, "mine": 0.7}
    runs = {
        str(seed): {
            corpus: {
                "none": {"UA": ua + 0.1 * (seed - 1)},
                "set": {"UA": ua + 0.2},
                "noise": {"UA": ua - 0.1},
            }
            for corpus, ua in own.items()
        }
        for seed in (1, 2)
    }
    words = {"fear": {"AUROC": 0.75}}
    folds.write_results("", "table", runs)
    folds.write_results(
        "loeo", "table", {"1": {"emodb": {"none": {"words": words}}}}
    )
    facts["results"] = release.read_results(folds, 1)
    # (0.5 + 0.7 + 0.6 + 0.8) / 4, and what is not there is not said
    assert facts["results"]["listening"] == {
        "inductive": pytest.approx(0.65),
        "transductive": pytest.approx(0.8),
    }
    assert facts["results"]["worse"] == {
        "inductive, in noise": pytest.approx(0.5)
    }
    card = release_card(facts)
    assert ": not measured" not in card
    assert "0.650 |" in card and "0.750 |" in card and "2 seeds" in card
    assert "| inductive, in noise | 0.500 |" in card


@pytest.mark.parametrize("place", ["", "loeo"])
def test_what_was_measured_of_other_trainings_is_refused(
    folds, real_corpora, place
):
    data, folder, overrides = real_corpora
    words = {"words": {"fear": {"AUROC": 0.75}}, "UA": 0.5}
    runs = {"1": {"emodb": {"none": words}}}
    folds.write_results(place, "table", runs)
    release.read_results(folds, 1)
    # The same figures with another recipe
    other = Folds(data, folder, {**read_overrides(overrides), "lr": 0.5})
    with pytest.raises(InputError, match=r"results\.json is of another recipe"):
        release.read_results(other, 1)
    if place == "":  # with another seed
        with pytest.raises(InputError, match="others than emodb/seed2/train"):
            release.read_results(folds, 2)
    # with one that was trained again since, and is another
    folds.train("urdu/seed1/training", [], {}, 7)
    with pytest.raises(InputError, match="than the one in urdu/seed1/train"):
        release.read_results(folds, 1)
    # and of an earlier version, which did not say of what they are
    path = folds.folder / place / "results.json"
    path.write_text(json.dumps(runs))
    with pytest.raises(InputError, match="run its experiment again"):
        release.read_results(folds, 1)


def test_frozen_models_that_not_everybody_can_have_are_refused():
    release.check_models(
        {
            "whisper_hub": "open:whisper-base",
            "llama_hub": "open:smollm2-135m-instruct",
        }
    )
    with pytest.raises(InputError, match="the recipe's llama_hub is mine"):
        release.check_models(
            {"whisper_hub": "open:whisper-base", "llama_hub": "mine"}
        )


def test_all_of_it_is_made_once_and_again_bit_by_bit(
    real_corpora, run_script, in_this_process, monkeypatch, tmp_path, wav
):
    data, folder, overrides = real_corpora
    settings = read_overrides(overrides)
    hubs = {settings[name]: None for name in ("whisper_hub", "llama_hub")}
    monkeypatch.setattr(release, "OPEN_MODELS", hubs)
    flags = {"data": data, "folder": folder, "overrides": overrides}
    flags["output"] = tmp_path / "open"
    assert run_script("release", flags=flags) == 0
    scripts = [name for name, _ in in_this_process.ran]
    assert scripts == ["extract", *["train"] * 5]
    made = {p.name: p.read_bytes() for p in flags["output"].iterdir()}
    assert made.keys() == {
        *("hyperparams.yaml", "connector.safetensors", "calibration.json"),
        *("card.json", "README.md"),
    }
    assert run_script("release", flags=flags) == 0
    assert [name for name, _ in in_this_process.ran] == scripts
    assert made == {p.name: p.read_bytes() for p in flags["output"].iterdir()}
    monkeypatch.setattr(folder_module, "RELEASED_FOLDER", flags["output"])
    words, _ = EmotionRecognizer.from_hparams().recognize_file(wav)
    assert words[0] in json.loads(made["card.json"])["labels"]


def test_four_are_trained_on_three_and_one_on_all():
    class Trained:
        def train(self, place, corpora, settings, seed):
            return place, tuple(corpora), settings, seed

    final, left_out = release.train(Trained(), 3, 2)
    assert final == ("all/seed3/training", tuple(LABELS), {}, 3)
    for corpus, (place, corpora, settings, seed) in left_out.items():
        assert corpus not in corpora and len(corpora) == 3
        # The very place and settings of loco.py
        assert place == f"{corpus}/seed3/training"
        assert (settings, seed) == ({}, 3)


@pytest.fixture
def in_its_place(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "open")
    monkeypatch.setattr(folder_module, "RELEASED_FOLDER", tmp_path / "open")
    return tmp_path / "open"


def test_who_names_no_recogniser_evaluates_the_released_one(
    in_its_place, flags, run_script, tmp_path
):
    sets = "[{name: tiny, corpus: tiny, labels: paper4, split: test}]"
    given = {**flags, "sets": sets, "output_folder": tmp_path / "out"}
    assert run_script("evaluate", HPARAMS / "evaluate.yaml", flags=given) == 0
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())["tiny"]
    assert "not zero-shot, trained on tiny" in metrics["note"]
    # Its calibration is on the corpora that were left out, not on this one.
    assert metrics["calibrated_on_it"] is False
    given = {**flags, "corpus": "tiny", "output_folder": tmp_path / "labels"}
    assert (
        run_script("pseudo_label", HPARAMS / "pseudo_label.yaml", flags=given)
        == 0
    )


def test_the_released_one_keeps_its_calibration(
    in_its_place, flags, run_script, capsys, tmp_path
):
    before = (in_its_place / FILE).read_bytes()
    given = {**flags, "recognizer": "open", "corpora": "tiny"}
    given["output_folder"] = tmp_path / "out"
    assert run_script("calibrate", HPARAMS / "calibrate.yaml", flags=given) == 2
    assert "copy that folder" in capsys.readouterr().err
    assert (in_its_place / FILE).read_bytes() == before
    shutil.copytree(in_its_place, tmp_path / "mine")
    given["recognizer"] = tmp_path / "mine"
    assert run_script("calibrate", HPARAMS / "calibrate.yaml", flags=given) == 0
    assert (tmp_path / "mine" / FILE).read_bytes() != before
