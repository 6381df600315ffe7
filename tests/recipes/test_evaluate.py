"""Evaluation and the recogniser agree, and say what users need to know."""

import csv
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from protocols import read_sets
from scipy import stats

from speechbrain_mser.dataio.audio import load_audio
from speechbrain_mser.dataio.manifest import read_manifest, write_manifest
from speechbrain_mser.dataio.microphones import WORSE
from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.diagrams import plot_confusion
from speechbrain_mser.evaluation.unfinished import FOLDER, Unfinished
from speechbrain_mser.inference import EmotionRecognizer, ensemble
from speechbrain_mser.inference.heard_speech import HeardSpeech
from speechbrain_mser.settings.project_files import HPARAMS

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "M5SER"
EVALUATE = HPARAMS / "evaluate.yaml"
LABELS = ["neutral", "happy", "sad", "angry"]


@pytest.fixture(scope="module")
def recognizer(folder):
    return EmotionRecognizer.from_hparams(folder)


@pytest.fixture
def flags(tiny_corpus, folder, tmp_path):
    return {
        "recognizer": folder,
        "output_folder": tmp_path / "evaluation",
        "data_root": tiny_corpus / "corpora",
        "manifest_folder": tiny_corpus / "manifests",
        "skip_prep": True,
        "num_workers": 0,
        "sets": "[{name: all, corpus: tiny, labels: paper4}, "
        "{name: test-deu, corpus: tiny, labels: [sad, angry], split: test, "
        "languages: [deu]}]",
    }


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_evaluate_writes_the_recognizers_predictions(
    run_script, flags, recognizer, tiny_corpus
):
    assert run_script("evaluate", EVALUATE, flags=flags) == 0
    rows = rows_of(flags["output_folder"] / "all" / "predictions.csv")
    assert list(rows[0]) == ["ID", "label", "prediction", *LABELS]
    table = read_manifest(
        tiny_corpus / "manifests" / "tiny.csv", tiny_corpus / "corpora" / "tiny"
    )
    assert sorted(row["ID"] for row in rows) == sorted(table.ID)
    by_id = table.set_index("ID")
    for row in rows:
        words, log_probs = recognizer.recognize_file(
            by_id.wav[row["ID"]], LABELS
        )
        # One at a time here, in batches there: the same but for rounding.
        for label, value in zip(LABELS, log_probs[0].tolist(), strict=True):
            assert float(row[label]) == pytest.approx(math.exp(value), abs=2e-6)
        assert row["prediction"] == words[0]
        assert row["label"] == by_id.emotion[row["ID"]]


def test_a_set_is_heard_through_a_worse_microphone(
    run_script, flags, recognizer, tiny_corpus
):
    flags = {**flags, "microphone": "telephone"}
    assert run_script("evaluate", EVALUATE, flags=flags) == 0
    rows = rows_of(flags["output_folder"] / "all" / "predictions.csv")
    table = read_manifest(
        tiny_corpus / "manifests" / "tiny.csv", tiny_corpus / "corpora" / "tiny"
    )
    wav = load_audio(table.wav.iloc[0], math.nan, math.nan)
    heard = WORSE["telephone"](wav)
    _, log_probs = recognizer.recognize_batch(heard[None], labels=LABELS)
    (row,) = (row for row in rows if row["ID"] == table.ID.iloc[0])
    said = [float(row[label]) for label in LABELS]
    assert said == pytest.approx(log_probs[0].exp().tolist(), abs=2e-6)
    metrics, report = evaluated(flags)
    assert metrics["all"]["microphone"] == "telephone"
    assert "heard through a worse microphone: telephone" in report
    assert (
        run_script(
            "evaluate", EVALUATE, flags={**flags, "microphone": "studio"}
        )
        == 2
    )


def test_metrics_are_those_of_the_predictions(run_script, flags):
    from sklearn.metrics import balanced_accuracy_score, f1_score

    assert run_script("evaluate", EVALUATE, flags=flags) == 0
    results = json.loads((flags["output_folder"] / "metrics.json").read_text())
    assert set(results) == {"all", "test-deu"}
    rows = rows_of(flags["output_folder"] / "all" / "predictions.csv")
    truth = [row["label"] for row in rows]
    said = [row["prediction"] for row in rows]
    assert results["all"]["n"] == len(rows) == 40
    assert results["all"]["labels"] == LABELS
    assert results["all"]["UA"] == pytest.approx(
        balanced_accuracy_score(truth, said)
    )
    assert results["all"]["WF1"] == pytest.approx(
        f1_score(truth, said, average="weighted")
    )
    # Only sad and angry of speaker 5 in German: two utterances
    assert results["test-deu"]["n"] == 2
    assert results["test-deu"]["labels"] == ["sad", "angry"]
    for name in results:
        png = (flags["output_folder"] / name / "confusion.png").read_bytes()
        assert png.startswith(b"\x89PNG")
    table = (flags["output_folder"] / "table.md").read_text()
    assert "test-deu" in table and "WA" in table


def evaluated(flags):
    """What metrics.json and table.md say after a run that ended well."""
    folder = flags["output_folder"]
    metrics = json.loads((folder / "metrics.json").read_text())
    return metrics, (folder / "table.md").read_text()


def test_a_label_that_was_not_trained_is_marked(run_script, flags, monkeypatch):
    import evaluate

    drawn = {}

    def plot(matrix, labels, path, title, untrained):
        drawn[title] = untrained
        plot_confusion(matrix, labels, path, title, untrained)

    monkeypatch.setattr(evaluate, "plot_confusion", plot)
    sets = "[{name: a, corpus: tiny, labels: [sad, fear, jealous]}, "
    sets += "{name: b, corpus: tiny, labels: [sad, angry]}]"
    assert run_script("evaluate", EVALUATE, flags={**flags, "sets": sets}) == 0
    metrics, table = evaluated(flags)
    assert metrics["a"]["untrained"] == ["fear", "jealous"]
    assert metrics["b"]["untrained"] == []
    assert drawn == {"a": ["fear", "jealous"], "b": []}
    recall = metrics["a"]["per_class"]["sad"]["recall"]
    (row,) = [r for r in table.splitlines() if r.startswith("| a ")][1:]
    found = [cell.strip() for cell in row.strip("|").split("|")]
    assert found == ["a", f"{recall:.3f}", "-*", "-*", ""]


@pytest.mark.parametrize("name", ["tiny", "TINY"])
def test_a_corpus_by_its_name_is_its_test_split_with_its_emotions(
    run_script, flags, name
):
    assert (
        run_script("evaluate", EVALUATE, flags={**flags, "sets": [name]}) == 0
    )
    metrics, table = evaluated(flags)
    assert metrics[name]["n"] == 8
    assert metrics[name]["labels"] == LABELS
    assert "the test split, the labels are the emotions that occur" in table


def test_names_of_corpora_mean_their_protocols_or_all_of_them(tiny_corpus):
    settings = {
        "data_root": str(tiny_corpus),
        "manifest_folder": str(tiny_corpus / "manifests"),
        "corpus_folders": {"emodb": "EmoDB", "tiny": "corpora/tiny"},
        "corpus_options": {},
        "skip_prep": True,
        "protocols": {
            "DB-4": {"corpus": "emodb", "labels": "paper4"},
            "DB-7": {"corpus": "emodb", "labels": "paper7"},
        },
    }
    for name in ("emodb", "EmoDB", "EMODB"):
        wanted = {**settings, "sets": [name, "Tiny"]}
        sets, absent = read_sets(wanted)
        assert (set(sets), set(absent)) == ({"Tiny"}, {"DB-4", "DB-7"})
        assert sets["Tiny"].labels == LABELS
    with pytest.raises(InputError, match="no such protocol or corpus; there"):
        read_sets({**settings, "sets": ["EmoBD"]})


def test_the_table_shows_intervals_and_how_they_came_about(run_script, flags):
    assert run_script("evaluate", EVALUATE, flags=flags) == 0
    metrics, table = evaluated(flags)
    found = metrics["all"]["intervals"]
    # Five speakers are too few to draw.
    assert (found["drawn"], found["units"]) == ("utterances", 40)
    expected = stats.binom.ppf([0.025, 0.975], 40, metrics["all"]["WA"]) / 40
    assert found["WA"] == pytest.approx(expected, abs=1.01 / 40)
    low, high = found["WA"]
    assert f"{metrics['all']['WA']:.3f} [{low:.3f}, {high:.3f}]" in table
    assert "2,000 resamples of utterances: all (40), test-deu (2)." in table
    without = {**flags, "resamples": 0}
    assert run_script("evaluate", EVALUATE, flags=without) == 0
    metrics, table = evaluated(flags)
    assert "intervals" not in metrics["all"] and "resamples" not in table


def test_absent_corpora_are_named_and_the_others_evaluated(run_script, flags):
    sets = "[RAVDESS-7, {name: mine, corpus: tiny, labels: paper4}, MELD-7]"
    sets = {**flags, "sets": sets}
    assert run_script("evaluate", EVALUATE, flags=sets) == 0
    metrics, table = evaluated(flags)
    assert list(metrics) == ["mine"]
    absent = json.loads((flags["output_folder"] / "absent.json").read_text())
    assert list(absent) == ["RAVDESS-7", "MELD-7"]
    for folder in ("RAVDESS", "MELD.Raw"):
        assert f"absent: no folder {flags['data_root'] / folder}" in table


def test_without_any_corpus_nothing_is_evaluated(run_script, flags, capsys):
    flags = {**flags, "sets": "[RAVDESS-7, MELD-7]"}
    assert run_script("evaluate", EVALUATE, flags=flags) == 2
    message = capsys.readouterr().err
    assert "MELD.Raw" in message and "--data_root" in message
    assert not flags["output_folder"].exists()


def test_a_corpus_that_nobody_knows_is_not_absent_but_wrong(
    run_script, flags, capsys
):
    sets = "[{name: mine, corpus: tiny, labels: paper4}, "
    sets += "{name: other, corpus: ravdes, labels: paper4}]"
    flags = {**flags, "sets": sets}
    assert run_script("evaluate", EVALUATE, flags=flags) == 2
    assert "ravdes.csv: no such manifest" in capsys.readouterr().err


def as_corpus(tiny_corpus, folder, name, emotions=None):
    """The tiny corpus under another name; flags that find it."""
    table = read_manifest(tiny_corpus / "manifests" / "tiny.csv")
    rows = table.to_dict("records")
    for row in rows:
        row["corpus"] = name
        row["emotion"] = (emotions or {}).get(row["emotion"], row["emotion"])
    write_manifest(folder / "manifests" / f"{name}.csv", rows)
    return {
        "manifest_folder": folder / "manifests",
        "corpus_folders": json.dumps({name: str(tiny_corpus / "corpora/tiny")}),
    }


def test_a_protocol_brings_its_comparators_and_its_note(
    run_script, flags, tiny_corpus, tmp_path
):
    there = as_corpus(tiny_corpus, tmp_path, "meld")
    sets = "[MELD-4, {name: mine, corpus: meld, labels: paper4, split: test}]"
    flags = {**flags, **there, "sets": sets}
    assert run_script("evaluate", EVALUATE, flags=flags) == 0
    metrics, table = evaluated(flags)
    protocol, mine = metrics["MELD-4"], metrics["mine"]
    assert protocol["WA"] == mine["WA"]
    assert (protocol["protocol"], mine["protocol"]) == ("MELD-4", None)
    others = {other["system"]: other for other in protocol["published"]}
    # Table I of the paper
    assert others["the paper"]["WA"] == 0.614
    assert others["the paper"]["UA"] == 0.526
    assert others["ASER"]["UA"] == 0.4855
    assert mine["published"] == []
    assert "arXiv 2503.21806v1, Table I" in table
    assert "MELD-4: the official test." in table
    flags |= {"published": "null"}
    assert run_script("evaluate", EVALUATE, flags=flags) == 0
    assert "arXiv" not in evaluated(flags)[1]


def test_resd_without_with_and_instead_of_enthusiasm(
    run_script, flags, tiny_corpus, tmp_path
):
    # what was sad is enthusiasm: 10 of 40 utterances
    there = as_corpus(tiny_corpus, tmp_path, "resd", {"sad": "enthusiasm"})
    sets = "[RESD-7, RESD-7-merged, RESD-6-merged]"
    flags = {**flags, **there, "sets": sets}
    assert run_script("evaluate", EVALUATE, flags=flags) == 0
    metrics, _ = evaluated(flags)
    dropped, over7, over6 = metrics.values()
    assert [m["n"] for m in (dropped, over7, over6)] == [30, 40, 40]
    assert dropped["per_class"]["happy"]["n"] == 10
    assert over7["per_class"]["happy"]["n"] == 20
    # three labels occur, of which UA is the mean, or a part of seven
    recalls = [c["recall"] for c in over7["per_class"].values() if c["n"]]
    assert over7["UA"] == pytest.approx(sum(recalls) / 7)
    recalls = [c["recall"] for c in over6["per_class"].values() if c["n"]]
    assert over6["UA"] == pytest.approx(sum(recalls) / 3)
    assert "surprise" not in over6["labels"]


def test_every_protocol_can_be_read_and_table_one_is_the_default():
    from speechbrain_mser.emotions import candidate_labels, canonical
    from speechbrain_mser.settings.hparams import read_settings

    given = {"recognizer": "", "data_root": ""}
    settings = read_settings(EVALUATE, given)
    counts = {"IEMOCAP-4": 4, "IEMOCAP-7": 7, "MELD-4": 4, "MELD-7": 7}
    counts |= {"ShEMO-6": 6, "AESDD-5": 5, "RAVDESS-7": 7, "RESD-7": 7}
    assert settings["sets"] == list(counts)
    for name, protocol in settings["protocols"].items():
        labels = candidate_labels(protocol["labels"])
        assert len(labels) == int(name.split("-")[1])
        assert all(canonical(label) == label for label in labels)
        assert protocol["corpus"] in settings["corpus_folders"]


def test_a_bad_utterance_is_reported_and_counted(
    run_script, flags, tiny_corpus, tmp_path, caplog
):
    rows = read_manifest(tiny_corpus / "manifests" / "tiny.csv")
    rows = rows[rows.split == "test"].to_dict("records")
    audio = tmp_path / "audio"
    audio.mkdir()
    for row in rows:
        name = row["wav"].rsplit("/", 1)[-1]
        source = tiny_corpus / "corpora" / "tiny" / name
        (audio / name).write_bytes(source.read_bytes())
    (audio / rows[0]["wav"].rsplit("/", 1)[-1]).write_bytes(b"no audio at all")
    write_manifest(tmp_path / "m.csv", rows)
    entry = (
        f"[{{name: mine, manifest: {tmp_path}/m.csv, data_root: {audio}, "
        "labels: paper4}]"
    )
    assert run_script("evaluate", EVALUATE, flags={**flags, "sets": entry}) == 0
    results = json.loads((flags["output_folder"] / "metrics.json").read_text())
    assert results["mine"]["unreadable"] == 1
    assert results["mine"]["n"] == len(rows) - 1
    assert rows[0]["ID"] in caplog.text
    stop = {**flags, "sets": entry, "on_bad_utterance": "stop"}
    assert run_script("evaluate", EVALUATE, flags=stop) == 2


def test_log_probs_are_normalised_in_the_order_of_labels(recognizer):
    wavs = torch.randn(3, 8000)
    words, log_probs = recognizer.recognize_batch(wavs, labels=LABELS)
    assert log_probs.shape == (3, 4)
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(3), atol=1e-5)
    assert words == [LABELS[i] for i in log_probs.argmax(-1)]
    _, turned = recognizer.recognize_batch(wavs, labels=LABELS[::-1])
    assert torch.allclose(turned.flip(-1), log_probs, atol=1e-5)


def test_batched_equals_single(recognizer):
    signals = [torch.randn(n) * 0.1 for n in (8000, 12345, 16000)]
    longest = max(map(len, signals))
    wavs = torch.stack(
        [torch.nn.functional.pad(s, (0, longest - len(s))) for s in signals]
    )
    lens = torch.tensor([len(s) / longest for s in signals])
    _, together = recognizer.recognize_batch(wavs, lens)
    for i, signal in enumerate(signals):
        _, alone = recognizer.recognize_batch(signal[None])
        assert torch.allclose(together[i], alone[0], atol=1e-5)


def test_labels_may_be_words_never_trained_on(recognizer):
    words, log_probs = recognizer.recognize_batch(
        torch.randn(2, 8000), labels=["jealous", "fear", "fearful"]
    )
    assert set(words) <= {"jealous", "fear", "fearful"}
    assert log_probs.isfinite().all()


def test_default_labels_are_those_of_training(recognizer):
    _, log_probs = recognizer.recognize_batch(torch.randn(1, 8000))
    assert recognizer.labels() == LABELS
    assert log_probs.shape == (1, 4)


def test_embeddings_and_free_text(recognizer):
    wavs = torch.randn(2, 8000)
    embeddings = recognizer.encode_batch(wavs)
    assert embeddings.shape == (2, 32) and embeddings.isfinite().all()
    texts = recognizer.generate_batch(wavs, max_new_tokens=3)
    assert len(texts) == 2 and all(isinstance(text, str) for text in texts)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 96000])
def test_any_rate_and_stereo_are_recognised(recognizer, tmp_path, rate):
    t = np.arange(rate) / rate
    stereo = np.stack([np.sin(2 * np.pi * 200 * t)] * 2, 1) * 0.1
    soundfile.write(tmp_path / "a.wav", stereo, rate)
    words, log_probs = recognizer.recognize_file(tmp_path / "a.wav")
    assert words[0] in LABELS and log_probs.shape == (1, 4)


def test_eight_bit_is_recognised(recognizer, tmp_path):
    tone = np.sin(np.arange(16000) / 10) * 0.3
    soundfile.write(tmp_path / "a.wav", tone, 16000, subtype="PCM_U8")
    assert recognizer.recognize_file(tmp_path / "a.wav")[0][0] in LABELS


def test_ten_minutes_are_recognised_in_windows(recognizer, tmp_path):
    rng = np.random.default_rng(0)
    noise = (0.1 * rng.standard_normal(600 * 8000)).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", noise, 8000)
    words, log_probs = recognizer.recognize_file(tmp_path / "long.wav")
    assert words[0] in LABELS and log_probs.isfinite().all()


def write_bad(kind, path):
    rng = np.random.default_rng(0)
    noise = (0.1 * rng.standard_normal(16000)).astype(np.float32)
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        soundfile.write(path, noise, 16000)
        path.write_bytes(path.read_bytes()[:9000])
    elif kind == "non-audio":
        path.write_text("I am a text file")
    elif kind == "zeros":
        soundfile.write(path, np.zeros(16000), 16000)
    elif kind == "nan":
        noise[5] = np.nan
        soundfile.write(path, noise, 16000, subtype="FLOAT")
    elif kind == "short":
        soundfile.write(path, noise[:800], 16000)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no such file"),
        ("empty", "empty"),
        ("truncated", "truncated"),
        ("non-audio", "cannot be decoded"),
        ("zeros", "zero"),
        ("nan", "NaN"),
        ("short", "0.05"),
    ],
)
def test_bad_audio_is_refused_with_the_reason(
    recognizer, tmp_path, kind, reason
):
    path = tmp_path / "bad.wav"
    write_bad(kind, path)
    with pytest.raises(InputError, match=reason) as refused:
        recognizer.recognize_file(path)
    assert "bad.wav" in str(refused.value)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([], "no labels"),
        (["happy", "happy"], "twice"),
        (["happy", " "], "empty"),
        ("paper5", "unknown label set"),
    ],
)
def test_bad_labels_are_refused(recognizer, labels, reason):
    with pytest.raises(InputError, match=reason):
        recognizer.recognize_batch(torch.randn(1, 8000), labels=labels)


def test_signals_are_checked_too(recognizer):
    with pytest.raises(InputError, match="zero"):
        recognizer.recognize_batch(torch.zeros(1, 16000))


@pytest.mark.parametrize(
    ("wavs", "lens", "reason"),
    [
        (np.ones((2, 8000)), None, "wavs is a ndarray"),
        (torch.ones(8000), None, r"\[batch, time\]"),
        (torch.ones(2, 1, 8000), None, r"\[batch, time\]"),
        (torch.ones(0, 8000), None, "one utterance at least"),
        (torch.ones(2, 8000, dtype=torch.int16), None, "floating point"),
        (torch.ones(2, 8000), [1.0, 0.5], "wav_lens is a list"),
        (torch.ones(2, 8000), torch.ones(1), r"need \[2\]"),
        (torch.ones(2, 8000), torch.tensor([8000, 4000]), "relative"),
        (torch.ones(2, 8000), torch.tensor([1.0, 0.0]), "relative"),
        (torch.ones(2, 8000), torch.tensor([1.0, torch.nan]), "relative"),
    ],
)
def test_what_is_no_batch_is_refused(recognizer, wavs, lens, reason):
    for method in (recognizer.recognize_batch, recognizer.encode_batch):
        with pytest.raises(InputError, match=reason):
            method(wavs, lens)


def test_missing_folder_says_what_to_give(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        EmotionRecognizer.from_hparams(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"hyperparams\.yaml"):
        EmotionRecognizer.from_hparams(tmp_path)


def test_hub_name_without_a_network_names_the_file():
    with pytest.raises(InputError, match=r"hyperparams\.yaml.*folder"):
        EmotionRecognizer.from_hparams("someone/some-model")


def test_frozen_models_can_be_moved_and_renamed(folder, tiny_llama, tmp_path):
    import shutil

    moved = tmp_path / "another-name"
    shutil.copytree(tiny_llama, moved)
    recognizer = EmotionRecognizer.from_hparams(
        folder, overrides={"llama_hub": str(moved)}
    )
    assert recognizer.mods.llm.source == str(moved)


def test_other_frozen_models_are_refused(folder, tiny_llama, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    other = tmp_path / tiny_llama.name
    shutil.copytree(tiny_llama, other)
    weights = {
        name: tensor * 1.001
        for name, tensor in load_file(other / "model.safetensors").items()
    }
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    overrides = {"llama_hub": str(other)}
    with pytest.raises(InputError, match="other frozen models"):
        EmotionRecognizer.from_hparams(folder, overrides=overrides)
    overrides["frozen_models"] = "warn"
    recognizer = EmotionRecognizer.from_hparams(folder, overrides=overrides)
    assert recognizer.mods.llm.source == str(other)


def test_adaptation_moves_a_set_to_the_training_and_says_so(
    run_script, flags, recognizer, tiny_corpus
):
    flags = {**flags, "adaptation": "set"}
    assert run_script("evaluate", EVALUATE, flags=flags) == 0
    results = json.loads((flags["output_folder"] / "metrics.json").read_text())
    assert results["all"]["adaptation"] == "transductive"
    assert "transductive" in (flags["output_folder"] / "table.md").read_text()
    # By hand: every frame of the set, one utterance at a time
    table = read_manifest(
        tiny_corpus / "manifests" / "tiny.csv", tiny_corpus / "corpora" / "tiny"
    )
    frames = {
        row.ID: recognizer.mods.encoder(
            recognizer.load_audio(row.wav)[None], torch.ones(1)
        )[0]
        for row in table.itertuples()
    }
    every = torch.cat([one[0] for one in frames.values()])
    common = recognizer.mods.connector.standardizer
    mean, std = every.mean(0), every.std(0, correction=0)
    for row in rows_of(flags["output_folder"] / "all" / "predictions.csv"):
        moved = (frames[row["ID"]] - mean) / std * common.std + common.mean
        _, log_probs = recognizer.recognize_features(
            moved, torch.ones(1), LABELS
        )
        for label, value in zip(LABELS, log_probs[0].tolist(), strict=True):
            assert float(row[label]) == pytest.approx(math.exp(value), abs=1e-4)


def test_a_recogniser_adapts_to_a_microphone_and_forgets_it(recognizer):
    features, lens = recognizer.mods.encoder(
        0.1 * torch.randn(3, 16000), torch.ones(3)
    )
    features = 3 * features + 1
    common = recognizer.mods.connector.standardizer
    frames = features.flatten(0, 1)
    mean, std = frames.mean(0), frames.std(0, correction=0)
    moved = (features - mean) / std * common.std + common.mean
    _, plain = recognizer.recognize_features(features, lens)
    _, expected = recognizer.recognize_features(moved, lens)
    # The same utterances one by one
    heard = HeardSpeech()
    for one in features:
        heard += HeardSpeech.of(one[None], torch.ones(1))
    recognizer.adapt(heard, kappa_mean=0, kappa_variance=0)
    _, adapted = recognizer.recognize_features(features, lens)
    assert torch.allclose(adapted, expected, atol=1e-4)
    assert not torch.allclose(adapted, plain, atol=1e-4)
    recognizer.forget()
    _, again = recognizer.recognize_features(features, lens)
    assert torch.equal(again, plain)


@pytest.mark.parametrize("adaptation", ["set", "listen:3"])
def test_adaptation_sees_no_label(
    run_script, flags, tiny_corpus, tmp_path, adaptation
):
    said = []
    path = tiny_corpus / "manifests" / "tiny.csv"
    rows = rows_of(path)
    emotions = [row["emotion"] for row in rows]
    for shift, name in ((0, "right"), (1, "wrong")):
        moved = emotions[shift:] + emotions[:shift]
        folder = tmp_path / name
        write_manifest(
            folder / "tiny.csv",
            [
                {**row, "emotion": emotion}
                for row, emotion in zip(rows, moved, strict=True)
            ],
        )
        here = {
            **flags,
            "adaptation": adaptation,
            "manifest_folder": folder,
            "output_folder": folder,
            "sets": "[{name: all, corpus: tiny, labels: paper4}]",
        }
        assert run_script("evaluate", EVALUATE, flags=here) == 0
        found = rows_of(folder / "all" / "predictions.csv")
        said.append([[row[key] for key in ("ID", *LABELS)] for row in found])
    assert said[0] == said[1]


def test_an_unknown_adaptation_is_refused(run_script, flags, capsys):
    flags = {**flags, "adaptation": "corpus"}
    assert run_script("evaluate", EVALUATE, flags=flags) == 2
    assert "expected none, set, listen:N" in capsys.readouterr().err


def predictions(folder):
    return {
        path.parent.name: path.read_text()
        for path in sorted(folder.glob("*/predictions.csv"))
    }


@pytest.mark.parametrize("adaptation", ["none", "listen:3"])
def test_what_was_recognised_before_an_interrupt_is_not_again(
    run_script, flags, monkeypatch, adaptation, tiny_corpus, capsys
):
    """Three sets, interrupted in the last of them."""
    more = "{name: two, corpus: tiny, labels: [sad, angry]}]"
    flags |= {
        "sets": f"{flags['sets'][:-1]}, {more}",
        "adaptation": adaptation,
        "draws": 2,
        "resamples": 0,
    }
    whole = {**flags, "output_folder": flags["output_folder"].parent / "whole"}
    assert run_script("evaluate", EVALUATE, flags=whole) == 0
    asked = []
    recognize = ensemble._recognize

    def count(recognizer, reader, listening, name, *a_set):
        asked.append(name)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return recognize(recognizer, reader, listening, name, *a_set)

    monkeypatch.setattr(ensemble, "_recognize", count)
    folder = flags["output_folder"]
    capsys.readouterr()
    assert run_script("evaluate", EVALUATE, flags=flags) == 130
    assert "run it again to go on" in capsys.readouterr().err
    # One of the two that were found is damaged meanwhile.
    kept = sorted((folder / FOLDER).iterdir(), key=os.path.getmtime)
    assert asked == ["all", "test-deu", "two"] and len(kept) == 2
    kept[1].write_bytes(kept[1].read_bytes()[:-9])
    assert run_script("evaluate", EVALUATE, flags=flags) == 0
    assert asked[3:] == ["test-deu", "two"]
    assert predictions(folder) == predictions(whole["output_folder"])
    assert evaluated(flags) == evaluated(whole)
    # Nothing is kept of what is finished.
    assert not (folder / FOLDER).exists()


def test_answers_that_were_kept_are_those_of_the_same_question(
    flags, recognizer, tiny_corpus, tmp_path
):
    table = read_manifest(
        tiny_corpus / "manifests" / "tiny.csv", tiny_corpus / "corpora" / "tiny"
    ).sort_values("ID")
    table = table.assign(wav=str(tmp_path / "one.wav"))
    (tmp_path / "one.wav").write_bytes(b"one")
    asked = []

    def ask():
        asked.append(1)
        return table[3:], torch.full((len(table) - 3, 1, 2), len(asked))

    def answer(labels=("sad", "happy"), rows=table, **settings):
        unfinished = Unfinished(tmp_path, {"seed": 1, **settings})
        found, log_probs = unfinished.answer(
            recognizer, rows, labels, table, ask
        )
        assert found.equals(table[3:])
        return log_probs[0, 0, 0].item()

    assert [answer(), answer()] == [1, 1]
    assert [answer(seed=2), answer(("happy", "sad")), answer()] == [2, 3, 1]
    (tmp_path / "one.wav").write_bytes(b"other")
    assert [answer(), answer()] == [4, 4]
