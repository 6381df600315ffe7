"""Both stages train, save, resume and leave a recogniser, on tiny models."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas
import pytest
import ready
import soundfile
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from trained import train_recognizer
from transformers import LlamaForCausalLM, WhisperModel

from speechbrain_mser.brain import EmotionBrain
from speechbrain_mser.inference.folder import read_settings
from speechbrain_mser.inference.settings import settings_text
from speechbrain_mser.lobes.alignment import KAPPA_SPEAKER, CorpusAlignment
from speechbrain_mser.lobes.llama import EmotionLLaMA
from speechbrain_mser.lobes.qformer import EmotionQFormer
from speechbrain_mser.lobes.standardize import FeatureStandardizer, frame_means

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes" / "M5SER"
STAGE1 = ROOT / "hparams" / "stage1.yaml"
STAGE2 = ROOT / "hparams" / "stage2.yaml"


def connector(folder):
    return load_file(folder / "recognizer" / "connector.safetensors")


def last_checkpoint(folder):
    checkpoints = sorted((folder / "save").glob("CKPT*"))
    return load_file(checkpoints[-1] / "connector.ckpt")


@pytest.fixture(scope="module")
def trained(tiny_flags, tmp_path_factory):
    """Output folder of a short stage 1."""
    folder = tmp_path_factory.mktemp("stage1")
    argv = ["train.py", "hparams/stage1.yaml"]
    flags = {**tiny_flags, "output_folder": str(folder), "number_of_epochs": 2}
    for name, value in flags.items():
        argv += [f"--{name}", str(value)]
    # As a user does it: a process of its own, in the recipe's folder.
    run = subprocess.run(
        [sys.executable, *argv],
        cwd=RECIPES,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return folder


def test_training_leaves_what_it_should(trained):
    files = {str(path.relative_to(trained)) for path in trained.rglob("*.*")}
    assert "train_log.txt" in files
    assert "hyperparams.yaml" in files
    assert "recognizer/connector.safetensors" in files
    assert "recognizer/hyperparams.yaml" in files
    assert any(name.startswith("tensorboard/events") for name in files)
    log = (trained / "train_log.txt").read_text().splitlines()
    assert len(log) == 2
    for term in ("contrastive", "ce", "UA", "lr", "bad_utterances"):
        assert term in log[0]


def test_checkpoint_holds_the_connector_only(trained):
    tensors = connector(trained)
    assert not [
        name for name in tensors if "whisper" in name or "llama" in name
    ]
    size = sum(value.numel() for value in tensors.values())
    checkpoint = max((trained / "save").glob("CKPT*"))
    stored = sum(path.stat().st_size for path in checkpoint.iterdir())
    # parameters, and AdamW's two moments of each: four bytes apiece
    assert stored < 3 * 4 * size + 100_000


def test_frozen_models_are_bitwise_unchanged_and_without_gradients(
    run_script, tiny_flags, tiny_llama, tiny_whisper, tmp_path, monkeypatch
):
    brains = []
    fit = EmotionBrain.fit

    def fit_and_keep(self, *args, **kwargs):
        brains.append(self)
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(EmotionBrain, "fit", fit_and_keep)
    flags = {**tiny_flags, "output_folder": tmp_path}
    assert run_script("train", STAGE1, flags=flags) == 0
    (brain,) = brains
    llama, whisper = brain.raw("llm"), brain.raw("encoder")
    for module, original in (
        (llama.model, LlamaForCausalLM.from_pretrained(tiny_llama)),
        (
            whisper.model.encoder,
            WhisperModel.from_pretrained(tiny_whisper).encoder,
        ),
    ):
        expected = original.state_dict()
        for name, value in module.state_dict().items():
            assert torch.equal(value, expected[name]), name
        assert all(p.grad is None for p in module.parameters())
        assert not module.training
    changed = [
        p for p in brain.raw("connector").parameters() if p.requires_grad
    ]
    assert changed


def test_stage2_goes_on_from_stage1(run_script, trained, tiny_flags, tmp_path):
    stage1 = tmp_path / "stage1"
    shutil.copytree(trained / "recognizer", stage1)
    path = stage1 / "hyperparams.yaml"
    other = {**read_settings(path), "trained_corpora": ["other"]}
    # One that has said a word more
    other["label_words"] = [*other["label_words"], "calm"]
    path.write_text(settings_text(other))
    flags = {
        **tiny_flags,
        "output_folder": tmp_path,
        "pretrained": stage1,
        "languages": "[eng, deu]",
        "label_words": other["label_words"],
        "lr": 0.0,
    }
    assert run_script("train", STAGE2, flags=flags) == 0
    before, after = connector(trained), connector(tmp_path)
    # With a learning rate of zero nothing moves: it started from stage 1.
    assert all(torch.equal(before[name], after[name]) for name in before)
    # What stage 1 has heard is not zero-shot.
    settings = read_settings(tmp_path / "recognizer/hyperparams.yaml")
    assert settings["trained_corpora"] == ["other", "tiny"]
    assert settings["untrained_words"] == []


def test_stage2_refuses_a_connector_of_other_models(
    run_script, trained, tiny_flags, tmp_path, capsys
):
    flags = {
        **tiny_flags,
        "output_folder": tmp_path / "out",
        "pretrained": trained / "recognizer",
        "n_queries": 5,
    }
    assert run_script("train", STAGE2, flags=flags) == 2
    assert "queries" in capsys.readouterr().err
    assert not (tmp_path / "out" / "recognizer").exists()


def test_stage2_refuses_a_connector_of_other_features(
    run_script, trained, tiny_flags, tmp_path, capsys
):
    stage1 = tmp_path / "stage1"
    shutil.copytree(trained / "recognizer", stage1)
    path = stage1 / "hyperparams.yaml"
    settings = read_settings(path)
    layers = settings["encoder_layers"]
    flags = {
        **tiny_flags,
        "output_folder": tmp_path / "out",
        "pretrained": stage1,
        "languages": "[eng]",
        "lr": 0.0,
    }
    # Layers of two encoder layers: the same widths and shapes
    other = [(n + 1) % 3 for n in layers] if layers != -1 else 1
    path.write_text(
        settings_text(
            {**settings, "encoder_layers": other, "speech_level": -20}
        )
    )
    assert run_script("train", STAGE2, flags=flags) == 2
    told = capsys.readouterr().err
    assert f"encoder_layers was {other!r}, here it is {layers!r}" in told
    assert "speech_level was -20" in told
    assert not (tmp_path / "out" / "recognizer").exists()
    flags["frozen_models"] = "warn"
    assert run_script("train", STAGE2, flags=flags) == 0


def test_stage2_knows_its_frozen_models_by_their_weights(
    run_script, trained, tiny_flags, tmp_path, capsys
):
    here = tmp_path / "another-name"
    shutil.copytree(tiny_flags["llama_hub"], here)
    flags = {
        **tiny_flags,
        "output_folder": tmp_path / "out",
        "pretrained": trained / "recognizer",
        "llama_hub": here,
    }
    weights = here / "model.safetensors"
    # Clones: older releases of safetensors give views of the file
    tensors = {k: v.clone() for k, v in load_file(weights).items()}
    changed = {name: 1.01 * tensor for name, tensor in tensors.items()}
    save_file(changed, weights, {"format": "pt"})
    assert run_script("train", STAGE2, flags=flags) == 2
    assert "other frozen models" in capsys.readouterr().err
    save_file(tensors, weights, {"format": "pt"})
    assert run_script("train", STAGE2, flags=flags) == 0
    # Half way with these, the rest with others that are said to be the same
    flags |= {"number_of_epochs": 2}
    save_file(changed, weights, {"format": "pt"})
    assert run_script("train", STAGE2, flags=flags) == 2
    assert "frozen_models: warn" in capsys.readouterr().err
    assert (
        run_script("train", STAGE2, flags={**flags, "frozen_models": "warn"})
        == 0
    )


class Interrupt(Exception):
    """Stands for a kill between two steps."""


INTERRUPTED = {
    "number_of_epochs": 3,
    "batch_size": 4,
    "lr": 1e-3,
    "warmup": 0.2,
    "cooldown": 0.5,
    "ckpt_interval_steps": 1,
    # What reads it is an optimiser group of its own; test_termination.py has
    # trainings of one group.
    "hear_meaning": True,
}


@pytest.fixture(scope="module")
def whole(tiny_flags, tmp_path_factory):
    """Output folder of the training that is interrupted below, and was not."""
    folder = tmp_path_factory.mktemp("whole")
    train_recognizer({**tiny_flags, **INTERRUPTED}, folder)
    # From zero: or equality would show nothing.
    assert last_checkpoint(folder)["meaning.weight"].all()
    return folder


@pytest.mark.parametrize("stop_after", [2, 5], ids=["mid-epoch", "epoch-2"])
def test_resumed_training_equals_uninterrupted(
    run_script, tiny_flags, whole, tmp_path, monkeypatch, stop_after
):
    flags = {**tiny_flags, **INTERRUPTED, "output_folder": tmp_path}
    done = []

    def stop(self, *args):
        done.append(self.step)
        if len(done) > stop_after:
            raise Interrupt

    with monkeypatch.context() as patch:
        # Before a step, after the checkpoint of the one before it.
        start = EmotionBrain.on_fit_batch_start

        def on_fit_batch_start(self, *args):
            stop(self)
            return start(self, *args)

        patch.setattr(EmotionBrain, "on_fit_batch_start", on_fit_batch_start)
        with pytest.raises(Interrupt):
            run_script("train", STAGE1, flags=flags)
    assert not (tmp_path / "recognizer").exists() or stop_after > 3
    assert run_script("train", STAGE1, flags=flags) == 0
    expected, found = last_checkpoint(whole), last_checkpoint(tmp_path)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_training_that_was_killed_goes_on_as_if_it_had_not_been(
    run_script, tiny_flags, whole, tmp_path, sent
):
    flags = {**tiny_flags, **INTERRUPTED, "output_folder": tmp_path}
    argv = ["train.py", STAGE1]
    argv += [f"--{name}={value}" for name, value in flags.items()]
    process = ready.Ready(argv, cwd=RECIPES)
    try:
        # Somewhere in the first epochs, wherever it is by then.
        while not any(tmp_path.glob("save/CKPT*/CKPT.yaml")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(sent)
        assert process.wait(timeout=600) != 0
    finally:
        process.kill()
    assert run_script("train", STAGE1, flags=flags) == 0
    expected, found = last_checkpoint(whole), last_checkpoint(tmp_path)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


def test_gradient_accumulation_equals_the_larger_batch(
    run_script, tiny_flags, tmp_path
):
    # The cross entropy is a mean, so two batches of 6 make one of all 12; the
    # contrastive loss is about pairs within a batch and is left out.
    results = []
    for batch, factor, lr in ((12, 1, 1e-3), (6, 2, 1e-3), (12, 1, 0.0)):
        folder = tmp_path / f"{batch}-{lr}"
        flags = {
            **tiny_flags,
            "output_folder": folder,
            "batch_size": batch,
            "grad_accumulation_factor": factor,
            "lr": lr,
            "w1": 0.0,
            "w2": 0.0,
            "dropout": 0.0,
            "label_words": "[sad, happy]",
            "languages": "[eng, deu]",
            "max_grad_norm": 1e9,
        }
        assert run_script("train", STAGE1, flags=flags) == 0
        results.append(connector(folder))
    one, other, untrained = results
    name = "output.weight"
    assert (one[name] - untrained[name]).abs().max() > 1e-3
    for name, value in one.items():
        assert torch.allclose(value, other[name], atol=1e-5), name


def test_linear_connector_trains_with_the_same_files(
    run_script, tiny_flags, tmp_path
):
    flags = {
        **tiny_flags,
        "output_folder": tmp_path,
        "connector_type": "linear",
        "encoder_layers": "all",
    }
    assert run_script("train", STAGE1, flags=flags) == 0
    assert "layer_weights" in connector(tmp_path)


def test_adapters_are_trained_saved_and_loaded(
    run_script, tiny_flags, tmp_path
):
    pytest.importorskip("peft")
    from speechbrain_mser.inference import EmotionRecognizer

    flags = {
        **tiny_flags,
        "output_folder": tmp_path,
        "lora_rank": 2,
        "lr": 1e-2,
        "ce_weight": 10.0,
    }
    assert run_script("train", STAGE1, flags=flags) == 0
    stored = load_file(tmp_path / "recognizer" / "llama.safetensors")
    recognizer = EmotionRecognizer.from_hparams(tmp_path / "recognizer")
    loaded = dict(recognizer.mods.llm.named_parameters())
    assert all(torch.equal(loaded[name], stored[name]) for name in stored)
    # B starts at zero and has moved
    assert any(
        value.abs().max() > 0
        for name, value in stored.items()
        if "lora_B" in name
    )


def test_training_works_from_the_root_in_bf16(tiny_flags, tmp_path):
    flags = {**tiny_flags, "output_folder": tmp_path, "precision": "bf16"}
    argv = ["recipes/M5SER/train.py", "hparams/stage1.yaml"]
    for name, value in flags.items():
        argv += [f"--{name}", str(value)]
    run = ready.run(argv, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "recognizer" / "connector.safetensors").exists()


def test_torchrun_launches_stage2_unchanged(tiny_flags, trained, tmp_path):
    flags = {
        **tiny_flags,
        "pretrained": trained / "recognizer",
        "output_folder": tmp_path,
        "distributed_backend": "gloo",
        "device": "cpu",
        "batch_size": 3,
    }
    argv = ["recipes/M5SER/train.py", "hparams/stage2.yaml"]
    argv += [f"--{name}={value}" for name, value in flags.items()]
    # A free port: several suites may run at once
    launcher = "-m torch.distributed.run --nproc_per_node=2 --standalone"
    done = subprocess.run(
        [sys.executable, *launcher.split(), *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "recognizer" / "connector.safetensors").exists()


@pytest.mark.parametrize("name", ["batch_size", "number_of_epochs"])
def test_a_count_of_nothing_is_refused(
    run_script, tiny_flags, tmp_path, name, capsys
):
    flags = {**tiny_flags, "output_folder": tmp_path, name: 0}
    assert run_script("train", STAGE1, flags=flags) == 2
    assert f"{name} is 0, expected 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"microphone_shift": -1}, "microphone_shift is -1, expected"),
        ({"rest_exchange": "much"}, "rest_exchange is 'much', expected"),
        ({"hear_meaning": True, "lora_rank": 2}, "lora_rank is 2, expected 0"),
    ],
)
def test_settings_with_which_nothing_can_be_learned_are_refused(
    run_script, tiny_flags, tmp_path, settings, message, capsys
):
    flags = {**tiny_flags, "output_folder": tmp_path, **settings}
    assert run_script("train", STAGE1, flags=flags) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", "Which emotion?"),
        ("label_words", "[neutral, happy, sad, fear]"),
        ("n_queries", "5"),
    ],
)
def test_a_training_does_not_go_on_as_another_model(
    run_script, trained, tiny_flags, name, value, capsys
):
    written = (trained / "hyperparams.yaml").read_text()
    flags = {**tiny_flags, "output_folder": trained, "number_of_epochs": 3}
    assert run_script("train", STAGE1, flags={**flags, name: value}) == 2
    message = capsys.readouterr().err
    assert f"holds a training with {name}" in message
    assert "give another output_folder" in message
    assert (trained / "hyperparams.yaml").read_text() == written


def contents(folder):
    """Every file below a folder, but for when it was read."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def finished(trained, tmp_path):
    """A copy of a folder whose training is done."""
    return shutil.copytree(trained, tmp_path / "finished")


def again(tiny_flags, finished, **changed):
    return {
        **tiny_flags,
        "output_folder": finished,
        "number_of_epochs": 2,
        **changed,
    }


def test_a_finished_training_is_said_to_be_and_nothing_is_written(
    run_script, finished, tiny_flags, caplog
):
    before = contents(finished)
    # what is learnt does not depend on these
    free = {"features": "off", "ckpt_interval_steps": 7, "num_workers": 1}
    flags = again(tiny_flags, finished, **free)
    assert run_script("train", STAGE1, flags=flags) == 0
    assert "is already trained, for 2 epochs" in caplog.text
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.5),
        ("batch_size", 4),
        ("seed", 5),
        ("balance", 1.0),
        # of SpeechBrain's own options
        ("max_grad_norm", 1.0),
        ("grad_accumulation_factor", 2),
    ],
)
def test_other_settings_are_refused_where_a_training_is(
    run_script, finished, tiny_flags, name, value, capsys
):
    before = contents(finished)
    for epochs in (2, 3):
        flags = again(tiny_flags, finished, number_of_epochs=epochs)
        assert run_script("train", STAGE1, flags={**flags, name: value}) == 2
        message = capsys.readouterr().err
        assert re.search(
            rf"holds a training with {name} .* it is {value}", message
        )
        assert "give another output_folder" in message
    assert contents(finished) == before


def test_an_option_of_speechbrains_is_written_down_as_the_setting_it_is(
    run_script, tiny_flags, tmp_path
):
    flags = {**tiny_flags, "output_folder": tmp_path, "max_grad_norm": 1.25}
    assert run_script("train", STAGE1, flags=flags) == 0
    settings = YAML().load(tmp_path / "hyperparams.yaml")
    assert settings["training"]["max_grad_norm"] == 1.25


def test_a_higher_number_of_epochs_goes_on(
    run_script, finished, tiny_flags, caplog
):
    flags = again(tiny_flags, finished, number_of_epochs=3)
    assert run_script("train", STAGE1, flags=flags) == 0
    assert "number_of_epochs was 2 and is 3: the learning rate" in caplog.text
    log = (finished / "train_log.txt").read_text().splitlines()
    assert ["epoch: 3" in line for line in log] == [False, False, True]


@pytest.mark.parametrize("column", ["ID", "emotion", "duration", "none"])
def test_other_data_are_refused_where_a_training_is(
    run_script, finished, tiny_flags, tiny_corpus, tmp_path, column, capsys
):
    table = pandas.read_csv(tiny_corpus / "manifests" / "tiny.csv", dtype=str)
    if column == "none":
        table = table[table.speaker != "tiny_1"]
    else:
        new = {"ID": "tiny_new", "emotion": "sad", "duration": "0.45"}
        table.loc[0, column] = new[column]
    table.to_csv(tmp_path / "tiny.csv", index=False)
    flags = again(tiny_flags, finished, manifest_folder=tmp_path)
    before = contents(finished)
    assert run_script("train", STAGE1, flags=flags) == 2
    message = capsys.readouterr().err
    counts = "12 utterances, here are " + ("8" if column == "none" else "12")
    assert f"on other data: its train set had {counts}" in message
    assert "give another output_folder, or delete" in message
    assert contents(finished) == before


def test_a_label_without_a_training_utterance_is_named_and_all_are_counted(
    run_script, tiny_flags, tmp_path, capsys
):
    flags = {
        **tiny_flags,
        "output_folder": tmp_path,
        "label_words": "[happy, fear, sad, boredom]",
        "languages": "[eng, deu]",
    }
    assert run_script("train", STAGE1, flags=flags) == 0
    shown = "".join(capsys.readouterr())
    said = "no training utterance is fear or boredom:"
    # Three speakers train, each says each emotion once in each language.
    for row in (
        "| emotion | deu | eng | all |",
        "| happy   |   3 |   3 |   6 |",
        "| fear    |   0 |   0 |   0 |",
        "| all     |   6 |   6 |  12 |",
    ):
        assert row in shown
    first_epoch = shown.index("Going into epoch 1")
    assert shown.index("| all     |") < first_epoch
    assert shown.index(said) < first_epoch


def test_validation_takes_the_loss_from_the_scores(tiny_llama):
    words = ["neutral", "happy", "sad", "bored", "contemptuous"]
    llama = EmotionLLaMA(tiny_llama)
    # words of different numbers of tokens, or this would show nothing
    assert len({len(llama.word_tokens(word)) for word in words}) > 1
    said = ["sad", "contemptuous", "sad", "bored"]
    tokens = torch.randn(4, 3, llama.hidden_size)
    brain = SimpleNamespace(
        raw=lambda name: {"llm": llama}[name],
        label_words=words,
        references=[],
        predictions=[],
    )
    numbers = torch.tensor([words.index(word) for word in said])
    scores = llama.score(tokens, words)
    found = EmotionBrain._predict(brain, scores, numbers, said)
    torch.testing.assert_close(found, llama.loss(tokens, said))
    assert brain.references == said
    best = llama.score(tokens, words).argmax(-1)
    assert brain.predictions == [words[i] for i in best]


@pytest.fixture
def connected(monkeypatch):
    """The features and lengths that a Q-Former gets, batch by batch."""
    batches = []
    connect = EmotionQFormer.forward

    def watch(self, features, lens):
        batches.append((features, lens))
        return connect(self, features, lens)

    monkeypatch.setattr(EmotionQFormer, "forward", watch)
    return batches


def test_aligned_corpora_have_one_mean_and_deviation(
    run_script, tiny_flags, tiny_corpus, tmp_path, monkeypatch, connected
):
    # German as a corpus of its own, four times as loud
    from speechbrain_mser.dataio.manifest import read_manifest, write_manifest

    root = tiny_corpus / "corpora" / "tiny"
    table = read_manifest(tiny_corpus / "manifests" / "tiny.csv", root)
    rows = []
    for row in table.fillna("").to_dict("records"):
        samples, rate = soundfile.read(row["wav"])
        if row["language"] == "deu":
            row["corpus"] = "loud"
            samples = samples * 4
        name = Path(row["wav"]).name
        soundfile.write(tmp_path / name, samples, rate)
        rows.append({**row, "wav": f"$manifest_folder/{name}"})
    write_manifest(tmp_path / "tiny.csv", rows)
    moved = []
    move = CorpusAlignment.__call__

    def watch(self, features, corpora):
        moved.append((self.common, move(self, features, corpora), corpora))
        return moved[-1][1]

    monkeypatch.setattr(CorpusAlignment, "__call__", watch)
    flags = {
        **tiny_flags,
        "manifest_folder": tmp_path,
        "output_folder": tmp_path / "out",
        "languages": "[eng, deu]",
        "align_corpora": True,
        "encoder_layers": "[1, -1]",
        "batch_size": 24,
    }
    assert run_script("train", STAGE1, flags=flags) == 0
    # The training set is one batch.
    common, features, corpora = moved[0]
    assert torch.equal(connected[0][0], features)
    for corpus in ("tiny", "loud"):
        rows = [row for row, name in enumerate(corpora) if name == corpus]
        assert len(rows) == 12
        found = FeatureStandardizer(features.shape[-1], n_layers=2)
        found.update(features[rows], connected[0][1][rows])
        found.finish()
        for name in ("mean", "std"):
            torch.testing.assert_close(
                getattr(found, name),
                getattr(common, name),
                atol=1e-3,
                rtol=1e-3,
            )


def test_speakers_and_what_differs_within_emotions_in_training_alone(
    run_script, tiny_flags, tmp_path, connected
):
    flags = {**tiny_flags, "languages": "[eng, deu]", "batch_size": 24}
    found = {}
    for name, setting in (
        ("plain", {}),
        ("speakers", {"align_speakers": True}),
        ("rests", {"rest_exchange": 0.5}),
    ):
        own = {"output_folder": tmp_path / name, **setting}
        assert run_script("train", STAGE1, flags=flags | own) == 0
        found[name] = [*connected]
        connected.clear()
    # The training set is one batch. Who is validated with was never trained on.
    for name in ("speakers", "rests"):
        for (one, _), (other, _) in zip(
            found[name][1:], found["plain"][1:], strict=True
        ):
            assert torch.equal(one, other)
    means = {
        name: frame_means(*batches[0])[:, 0] for name, batches in found.items()
    }
    # Three speakers, eight utterances each, two of each emotion: what is
    # theirs is off the mean of all, and ten utterances speak against it.
    off = means["plain"] - means["speakers"]
    nearest = torch.cdist(off, off).argsort(1)[:, :8]
    groups = {tuple(sorted(row.tolist())) for row in nearest}
    assert sorted(sum(groups, ())) == [*range(24)]
    for rows in map(list, groups):
        own = means["plain"][rows].mean(0) - means["plain"].mean(0)
        expected = (8 / (8 + KAPPA_SPEAKER) * own).expand(8, -1)
        torch.testing.assert_close(off[rows], expected, atol=1e-4, rtol=1e-3)
    # What is added to one is another's, half of it; all of it together nothing.
    added = means["rests"] - means["plain"]
    assert added.norm(dim=1).min() > 0
    torch.testing.assert_close(
        added.sum(0), torch.zeros_like(added[0]), atol=1e-3, rtol=0
    )
