"""The examples of docs/extend.md train, and touch nothing of the library."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from speechbrain_mser.brain import EmotionBrain
from speechbrain_mser.errors import InputError
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.settings.project_files import HPARAMS

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture
def brains(monkeypatch):
    """The brains that are trained."""
    trained, fit = [], EmotionBrain.fit

    def fit_and_keep(self, *args, **kwargs):
        trained.append(self)
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(EmotionBrain, "fit", fit_and_keep)
    return trained


def log_of(folder):
    return (folder / "train_log.txt").read_text()


def test_a_loss_is_swapped_by_a_line(
    run_script, tiny_flags, tmp_path, brains, caplog
):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    flags = {**tiny_flags, "output_folder": tmp_path, "w1": 5}
    assert run_script("train", EXAMPLES / "loss.yaml", flags=flags) == 0
    # What is given and nothing takes is said, and nothing else.
    (told,) = [each for each in caplog.messages if "has no effect" in each]
    assert told.startswith("w1 has no effect: ")
    (loss,) = {brain.hparams.contrastive_loss for brain in brains}
    assert type(loss) is losses.SupConLoss
    assert loss.temperature == 0.1
    assert "train contrastive: " in log_of(tmp_path)
    assert (tmp_path / "recognizer" / "connector.safetensors").exists()


def test_utterances_are_heard_through_a_microphone_of_ones_own(
    run_script, tiny_flags, tmp_path, brains
):
    flags = {**tiny_flags, "output_folder": tmp_path}
    assert run_script("train", EXAMPLES / "clipped.yaml", flags=flags) == 0
    (brain,) = brains
    clipped, noise = brain.hparams.microphones
    heard = clipped(torch.tensor([0.1, -1.0, 0.2, 0.5]))
    assert heard.tolist() == pytest.approx([0.1, -0.3, 0.2, 0.3])
    assert (noise.low, noise.high) == (10, 30)
    # Not with others: what they are called counts, too. With these it goes on.
    flags |= {"number_of_epochs": 2}
    text = (EXAMPLES / "clipped.yaml").read_text()
    other = tmp_path / "other.yaml"
    other.write_text(text.replace("microphones.Noise", "microphones.Room"))
    assert run_script("train", other, flags=flags) == 2
    assert run_script("train", EXAMPLES / "clipped.yaml", flags=flags) == 0
    assert log_of(tmp_path).count("epoch") == 2


def test_a_term_is_added_trained_logged_and_saved(
    run_script, tiny_flags, tmp_path, brains, capsys
):
    flags = {
        **tiny_flags,
        "output_folder": tmp_path,
        "batch_size": 4,
        "ckpt_interval_steps": 1,
        "lr": 0.01,
    }
    yaml = EXAMPLES / "gender_term.yaml"
    assert run_script("train", yaml, flags=flags) == 0
    (brain,) = brains
    trained = brain.raw("gender").state_dict()
    for name in ("train gender: ", "valid gender: ", "train contrastive: "):
        assert name in log_of(tmp_path)
    (checkpoint,) = (tmp_path / "save").glob("CKPT*")
    saved = load_file(checkpoint / "gender.ckpt")
    assert all(torch.equal(saved[name], trained[name]) for name in trained)
    # The loss is all terms, weighted.
    numbers = dict(
        part.rsplit(": ", 1)
        for part in log_of(tmp_path).strip().replace(" - ", ", ").split(", ")
    )
    terms = [float(numbers[f"valid {n}"]) for n in ("contrastive", "ce")]
    expected = sum(terms) + 0.5 * float(numbers["valid gender"])
    assert float(numbers["valid loss"]) == pytest.approx(expected, rel=1e-3)
    # The recogniser has a connector and nothing else.
    exported = {path.name for path in (tmp_path / "recognizer").iterdir()}
    assert exported == {
        *("card.json", "connector.safetensors", "hyperparams.yaml"),
    }
    # And it goes on with what it has saved.
    flags |= {"number_of_epochs": 2}
    assert run_script("train", yaml, flags=flags) == 0
    assert log_of(tmp_path).count("epoch") == 2
    assert run_script("train", "hparams/stage1.yaml", flags=flags) == 2
    message = capsys.readouterr().err
    assert "holds a training with brain_class '!name:gender_term" in message


# A subclass has the parameters of what it stands for, a mapping changes an
# argument: loaded as the project's own, these would be other recognisers.
VARIANTS = {
    "fewer arguments": """
prompt_before: "Listen:"
llm: !new:speechbrain_mser.lobes.llama.EmotionLLaMA
  source: !ref <llama_hub>
  prompt: !ref <prompt>
  dtype: !ref <frozen_dtype>
""",
    "a subclass": """
connector: !new:backwards.Backwards
  input_dim: !ref <encoder.hidden_size>
  output_dim: !ref <llm.hidden_size>
  n_queries: 2
""",
    "an argument": """
llm:
  prompt: "Say how the person feels:"
encoder:
  layers: 1
connector:
  n_queries: 3
""",
}
OWN = """
from speechbrain_mser.lobes.linear import LinearConnector
class Backwards(LinearConnector):
    def write_tokens(self, hidden):
        return super().write_tokens(hidden.flip(1))
"""


@pytest.mark.parametrize("changed", ["docs", *VARIANTS])
def test_what_is_exported_is_what_was_trained(
    run_script, tiny_flags, tmp_path, brains, changed, monkeypatch, capsys
):
    yaml = EXAMPLES / "attentive.yaml"
    monkeypatch.syspath_prepend(EXAMPLES)
    if changed != "docs":
        (tmp_path / "backwards.py").write_text(OWN)
        monkeypatch.syspath_prepend(tmp_path)
        yaml = tmp_path / "own.yaml"
        yaml.write_text(f"extends: hparams/stage1.yaml\n{VARIANTS[changed]}")
    flags = {**tiny_flags, "output_folder": tmp_path / "out"}
    assert run_script("train", yaml, flags=flags) == 0
    (brain,) = brains
    source = tmp_path / "out" / "recognizer"
    with pytest.raises(InputError, match="trusted=True"):
        EmotionRecognizer.from_hparams(source)
    found = EmotionRecognizer.from_hparams(source, trusted=True).mods
    torch.manual_seed(0)
    wavs, lens = torch.randn(2, 9000), torch.tensor([1.0, 0.7])
    said = []
    for modules in (found, brain.modules):
        connector = modules.connector.eval()
        with torch.no_grad():
            tokens = connector(*modules.encoder(wavs, lens)).tokens
            said.append(modules.llm.score(tokens, ["happy", "sad"]))
    assert torch.equal(*said)
    # The training does not go on as another one.
    flags |= {"number_of_epochs": 2}
    capsys.readouterr()
    assert run_script("train", "hparams/stage1.yaml", flags=flags) == 2
    told = {
        "an argument": "llm: prompt",
        # Which it has only of the project's
        "fewer arguments": "prompt_before 'Listen:'",
    }.get(changed, "connector '!new:")
    message = capsys.readouterr().err
    assert "holds a training with " in message and told in message


MAIN = """
heard_with: WHISPER
some: 15
some_layers: [0, 1]
model: !include:model.yaml
  encoder: !new:hearing.Own
    source: !ref <heard_with>
    save_path: pretrained_models
    window: !ref <some> * 2
    layers: !ref <some_layers>
"""


def test_what_a_file_says_of_itself_is_in_what_it_exports(
    run_script, tiny_flags, tmp_path, monkeypatch
):
    """A file that extends none, and objects that name its own settings."""
    (tmp_path / "hearing.py").write_text(
        "from speechbrain_mser.lobes.whisper import WhisperEncoder\n"
        "class Own(WhisperEncoder):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("hearing", None)
    for name in ("model", "training", "corpora"):
        shutil.copy(HPARAMS / f"{name}.yaml", tmp_path)
    text = (HPARAMS / "stage1.yaml").read_text()
    own = MAIN.replace("WHISPER", tiny_flags["whisper_hub"])
    yaml = tmp_path / "mine.yaml"
    yaml.write_text(text.replace("\nmodel: !include:model.yaml\n", own))
    flags = {**tiny_flags, "output_folder": tmp_path / "out"}
    flags["prompt"] = "Which <emotion> (one of four)?"
    assert run_script("train", yaml, flags=flags) == 0
    found = EmotionRecognizer.from_hparams(
        tmp_path / "out" / "recognizer", trusted=True
    )
    encoder = found.mods.encoder
    assert type(encoder).__name__ == "Own"
    assert encoder.max_frames == 30 * 50 and encoder.layers == [0, 1]
    assert found.mods.llm.prompt == "Which <emotion> (one of four)?"
    assert found.trained_words() == {*found.labels()}
    # And who goes on from it knows what it has heard.
    flags |= {"pretrained": found.folder, "output_folder": tmp_path / "more"}
    flags |= {"corpora": "[tiny]", "label_words": "[sad, fear]"}
    assert run_script("train", yaml, flags=flags) == 0
    more = EmotionRecognizer.from_hparams(
        tmp_path / "more" / "recognizer", trusted=True
    )
    assert more.hparams.trained_corpora == ["tiny"]
    # Where Python does not find it, that is said.
    monkeypatch.undo()
    sys.modules.pop("hearing", None)
    with pytest.raises(InputError, match=r"no such class as hearing\.Own"):
        EmotionRecognizer.from_hparams(found.folder, trusted=True)


LOSS = """
extends: hparams/stage1.yaml
modules:
  contrastive_loss: !new:pytorch_metric_learning.losses.ProxyAnchorLoss
    num_classes: 4
    embedding_size: !ref <connector.embedding_dim>
"""


def test_a_loss_with_parameters_of_its_own_is_trained_and_resumed(
    run_script, tiny_flags, tmp_path, brains
):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    yaml = tmp_path / "proxies.yaml"
    yaml.write_text(LOSS)
    flags = {**tiny_flags, "output_folder": tmp_path / "out", "lr": 0.01}
    assert run_script("train", yaml, flags=flags) == 0
    (brain,), name = brains, "contrastive_loss"
    loss = brain.raw(name)
    assert type(loss) is losses.ProxyAnchorLoss
    (group,) = brain.optimizer.param_groups
    assert any(proxies is loss.proxies for proxies in group["params"])
    (checkpoint,) = (tmp_path / "out" / "save").glob("CKPT*")
    saved = load_file(checkpoint / "contrastive_loss.ckpt")
    assert torch.equal(saved["proxies"], loss.proxies)
    flags |= {"number_of_epochs": 2}
    assert run_script("train", yaml, flags=flags) == 0
    assert not torch.equal(saved["proxies"], brains[1].raw(name).proxies)
    # With other proxies it is another training.
    yaml.write_text(LOSS.replace("num_classes: 4", "num_classes: 5"))
    flags |= {"number_of_epochs": 3}
    assert run_script("train", yaml, flags=flags) == 2
    # The recogniser needs none of it, and names no code.
    EmotionRecognizer.from_hparams(tmp_path / "out" / "recognizer")


@pytest.mark.parametrize(
    "line, told",
    [
        ("contrastive_loss: !new:no.such.Loss {}", "no such class as no.such"),
        (
            "contrastive_loss: !new:torch.nn.Linear {dim: !ref <connector>}",
            "!ref <connector> names nothing in the same file",
        ),
    ],
)
def test_a_class_or_name_that_there_is_not_is_said(
    run_script, tiny_flags, tmp_path, line, told, capsys
):
    yaml = tmp_path / "wrong.yaml"
    yaml.write_text(f"extends: hparams/stage1.yaml\n{line}\n")
    flags = {**tiny_flags, "output_folder": tmp_path / "out"}
    assert run_script("train", yaml, flags=flags) == 2
    assert told in capsys.readouterr().err
