"""A recogniser's folder is written whole, and loaded as what it is: data."""

import json
import os
import shutil
import stat
import sys
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML
from safetensors.torch import load as load_bytes
from safetensors.torch import load_file, save_file

from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.calibration import FILE as CALIBRATION
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.inference.export import (
    export_recognizer,
    replace_recognizer,
)
from speechbrain_mser.inference.folder import (
    BESIDE,
    find_beside,
    find_weights,
    read_settings,
)
from speechbrain_mser.inference.settings import settings_text
from speechbrain_mser.lobes import hub
from speechbrain_mser.lobes.linear import LinearConnector

ROOT = Path(__file__).resolve().parents[2]
MODEL_YAML = ROOT / "hparams" / "model.yaml"
MODEL_TREE = YAML().load(MODEL_YAML)
FILES = ["connector.safetensors", "hyperparams.yaml"]


def load(path, **overrides):
    with open(path, encoding="utf-8") as file:
        return load_hyperpyyaml(file, overrides)


@pytest.fixture(scope="module")
def settings(tiny_whisper, tiny_llama, tiny_bert):
    """What the user gives for a tiny model."""
    return {
        "whisper_hub": str(tiny_whisper),
        "llama_hub": str(tiny_llama),
        "bert_hub": str(tiny_bert),
        "label_words": ["happy", "sad"],
        # Anything else than text to HyperPyYAML
        "prompt": 'Which emotion: "x", #2, (1, 2) or 9**9?',
        "n_queries": 3,
        "query_dim": 16,
        "qformer_layers": 2,
        "encoder_layers": [1, -1],
        "dropout": 1e-5,
        "standardize": False,
    }


def exported(folder, settings, seed=0, **changes):
    """A folder as training leaves it, and the connector in it."""
    torch.manual_seed(seed)
    model = load(MODEL_YAML, **{**settings, **changes})
    connector, llama = model["connector"].eval(), model["llm"]
    connector.bind(
        {"encoder": model["encoder"].describe(), "llm": llama.describe()}
    )
    adapters = llama if model["lora_rank"] else None
    export_recognizer(folder, MODEL_TREE, model, connector, adapters)
    return connector


@pytest.fixture(scope="module")
def original(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "recognizer"
    return folder, exported(folder, settings)


@pytest.fixture
def folder(original, tmp_path, monkeypatch):
    """A copy to be damaged; marks are left in the folder around it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(original[0], tmp_path / "recognizer")
    return tmp_path / "recognizer"


@pytest.fixture
def change(folder):
    """Change the folder's settings."""

    def write(**changes):
        path = folder / "hyperparams.yaml"
        path.write_text(settings_text({**read_settings(path), **changes}))

    return write


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# What training leaves


@pytest.mark.parametrize("connector_type", ["qformer", "linear"])
def test_the_exported_folder_builds_the_same_model(
    connector_type, settings, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results" / "recognizer"
    connector = exported(folder, settings, connector_type=connector_type)
    assert names(folder) == FILES
    assert names(folder.parent) == ["recognizer"]
    # Elsewhere the BERT is neither there nor needed
    text = (folder / "hyperparams.yaml").read_text()
    (folder / "hyperparams.yaml").write_text(
        text.replace(settings["bert_hub"], "/nowhere")
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    recognizer = EmotionRecognizer.from_hparams(folder)
    for name, value in settings.items():
        if name not in ("bert_hub", "encoder_layers"):
            assert getattr(recognizer.hparams, name) == value
    assert recognizer.mods.llm.prompt == settings["prompt"]
    again = recognizer.mods.connector
    assert again.frozen_models == connector.frozen_models
    features = torch.randn(2, 2, 7, 32), torch.ones(2)
    there, here = again(*features), connector(*features)
    for a, b in zip(there[:2], here[:2], strict=True):
        assert torch.equal(a, b)
    assert names(tmp_path / "elsewhere") == []


def test_a_model_keeps_its_name_wherever_the_recognizer_is_loaded(
    settings, tiny_whisper, tmp_path, monkeypatch
):
    (tmp_path / "whisper-link").symlink_to(tiny_whisper)
    monkeypatch.chdir(tmp_path)
    exported("recognizer", settings, whisper_hub="whisper-link")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    # Binding refuses another model
    EmotionRecognizer.from_hparams(tmp_path / "recognizer")


def test_an_export_replaces_the_one_before_as_a_whole(settings, tmp_path):
    pytest.importorskip("peft")
    folder = tmp_path / "recognizer"
    exported(folder, settings, lora_rank=1)
    adapters = load_file(folder / "llama.safetensors")
    assert adapters and all("lora_" in name for name in adapters)
    assert read_settings(folder / "hyperparams.yaml")["lora_rank"] == 1
    (folder / CALIBRATION).write_text("{}")
    (folder / "README.md").write_text("the user's own")
    # Left behind by a kill
    (folder / ".partial-1-connector.safetensors").write_bytes(b"half")
    exported(folder, settings)
    assert names(folder) == ["README.md", *FILES]


@pytest.mark.parametrize("native", ["bfloat16", "float32"])
def test_a_recogniser_keeps_the_dtype_that_auto_was(
    native, settings, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(hub, "native_dtype", lambda: native)
        exported(tmp_path, settings, frozen_dtype="auto")
    found = read_settings(tmp_path / "hyperparams.yaml")
    assert found["frozen_dtype"] == native
    # A user may still ask for what is fast elsewhere.
    monkeypatch.setattr(hub, "native_dtype", lambda: "float32")
    recognizer = EmotionRecognizer.from_hparams(
        tmp_path, overrides={"frozen_dtype": "auto"}
    )
    assert recognizer.mods.encoder.dtype_name == "float32"


def test_what_could_not_be_loaded_is_not_trained(settings):
    from speechbrain_mser.inference.export import plain_settings

    model = load(MODEL_YAML, **settings)
    with pytest.raises(InputError, match="prompt"):
        plain_settings(
            {**model, "prompt": "x" * 30_000}, MODEL_TREE, "mine.yaml"
        )


def test_lobes_of_ones_own_are_exported_as_hyperpyyaml(
    settings, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "from speechbrain_mser.lobes.whisper import WhisperEncoder\n"
        "class Own(WhisperEncoder):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = load(MODEL_YAML, **settings, encoder_class="own.Own")
    export_recognizer("recognizer", MODEL_TREE, model, model["connector"])
    with pytest.raises(InputError, match="trusted=True"):
        EmotionRecognizer.from_hparams("recognizer")
    # Nothing that lies in a savedir takes a file's place, here neither
    shutil.copytree("recognizer", "saved")
    Path("saved/hyperparams.yaml").write_text("x: !apply:os.system [exit 1]")
    recognizer = EmotionRecognizer.from_hparams(
        "recognizer", trusted=True, savedir="saved"
    )
    assert type(recognizer.mods.encoder).__name__ == "Own"
    assert torch.equal(
        recognizer.mods.connector.queries, model["connector"].queries
    )


@pytest.mark.parametrize(
    "said, overrides, trained",
    [
        ("!ref <words>", {}, {"happy", "sad"}),
        ("!ref <words>", {"label_words": ["sad"]}, {"happy", "sad"}),
        # It does not say: what is asked for is all that is known.
        ("!PLACEHOLDER", {"label_words": ["sad"]}, {"sad"}),
    ],
)
def test_words_of_a_trusted_file_are_those_that_it_comes_to(
    settings, tmp_path, said, overrides, trained, monkeypatch
):
    (tmp_path / "own.py").write_text(
        "from speechbrain_mser.lobes.whisper import WhisperEncoder\n"
        "class Own(WhisperEncoder):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = load(MODEL_YAML, **settings, encoder_class="own.Own")
    folder = tmp_path / "recognizer"
    export_recognizer(folder, MODEL_TREE, model, model["connector"])
    path = folder / "hyperparams.yaml"
    lines = [
        f"words: [happy, sad]\nlabel_words: {said}"
        if line.startswith("label_words:")
        else line
        for line in path.read_text().splitlines()
        if not line.startswith(("- happy", "- sad"))
    ]
    path.write_text("\n".join(lines) + "\n")
    recognizer = EmotionRecognizer.from_hparams(
        folder, trusted=True, overrides=overrides
    )
    assert recognizer.trained_words() == trained


def old_text(settings):
    """The settings file of an older training, with these settings."""
    lines = Path(__file__).with_name("old_hyperparams.txt").read_text()
    lines = lines.splitlines()
    for name, value in settings.items():
        if isinstance(value, str):
            number = [line.split(":")[0] for line in lines].index(name)
            lines[number] = f"{name}: {json.dumps(value)}"
    return "\n".join(lines) + "\n"


def test_a_folder_of_an_older_training_loads(folder, settings):
    wavs = torch.randn(2, 8000)
    _, expected = EmotionRecognizer.from_hparams(folder).recognize_batch(wavs)
    (folder / "hyperparams.yaml").write_text(old_text(settings))
    for trusted in (False, True):
        found = EmotionRecognizer.from_hparams(folder, trusted=trusted)
        assert torch.equal(found.recognize_batch(wavs)[1], expected)


def test_the_file_that_is_loaded_is_the_one_that_is_checked(folder, settings):
    (folder / "other.yaml").write_text(
        MODEL_YAML.read_text() + "x: !apply:os.getcwd []\n"
    )
    EmotionRecognizer.from_hparams(folder)
    with pytest.raises(InputError, match="outside this package"):
        EmotionRecognizer.from_hparams(folder, "other.yaml")
    recognizer = EmotionRecognizer.from_hparams(
        folder, "other.yaml", trusted=True, overrides=settings
    )
    assert recognizer.hparams.x == os.getcwd()


# A kill during an export


class Kill:
    """Ends the process at its k-th change of something under a folder."""

    EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.chmod")
    WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def __init__(self, folder, number):
        self.folder, self.left = str(folder), number

    def __call__(self, event, arguments):
        # A kill at a reading is one at the change that comes next.
        if event == "open" and not arguments[2] & self.WRITING:
            return
        if event in self.EVENTS and any(
            str(part).startswith(self.folder) for part in arguments
        ):
            self.left -= 1
            if self.left == 0:
                os._exit(9)


def export_killed_at(number, folder, connectors, model):
    """Export in a process that is killed; whether it was."""
    return killed_at(
        number,
        folder,
        export_recognizer,
        folder,
        MODEL_TREE,
        model,
        *connectors,
    )


def killed_at(number, folder, function, *arguments):
    """Call a function in a process that is killed; whether it was."""
    process = os.fork()
    if process == 0:
        sys.addaudithook(Kill(folder, number))
        try:
            function(*arguments)
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, 9)
    return code == 9


class Part(LinearConnector):
    """Stands for the adapters as well: a file of its own to write."""

    def __init__(self, value):
        super().__init__(4, 4, 1)
        torch.nn.init.constant_(self.output.weight, value)


def loaded(folder, parts):
    """The value of every part that the folder's settings go with."""
    settings = read_settings(folder / "hyperparams.yaml")
    found = []
    for part in parts:
        digest = settings[f"{part}_digest"]
        module = Part(0.0)
        module.load(find_weights(folder, part, digest))
        found.append(module.output.weight[0, 0].item())
    return found


@pytest.mark.parametrize("before", ["new", "old", "killed"])
def test_a_kill_during_an_export_leaves_a_recogniser_that_loads(
    before, settings, tmp_path
):
    parts = ("connector", "llama")
    model = load(MODEL_YAML, **settings, connector_type="linear")
    first, last = tmp_path / "first", 1.0
    export_recognizer(first, MODEL_TREE, model, Part(last), Part(last))
    if before == "old":  # which says no digest
        path = first / "hyperparams.yaml"
        plain = read_settings(path)
        plain |= {"connector_digest": None, "llama_digest": None}
        path.write_text(settings_text(plain))
    if before == "killed":  # when the settings counted, and no more
        last = 2.0
        export_recognizer(first, MODEL_TREE, model, Part(last), Part(last))
        for part in parts:
            path = first / f"{part}.safetensors"
            path.rename(first / f"next-{path.name}")
            Part(1.0).save(path)
        assert loaded(first, parts) == [last, last]
    outcomes = []
    for number in range(1, 200):
        folder = tmp_path / f"{number}"
        shutil.copytree(first, folder)
        new = [Part(3.0), Part(3.0)]
        killed = export_killed_at(number, folder, new, model)
        # both of one export
        outcomes.append(loaded(folder, parts))
        if not killed:
            break
        if number % 3 == 0:  # and the next one ends as if nothing had been
            export_recognizer(folder, MODEL_TREE, model, *new)
            assert loaded(folder, parts) == [3.0, 3.0]
            assert names(folder) == [FILES[0], FILES[1], "llama.safetensors"]
    assert [last, last] in outcomes
    assert outcomes.count([3.0, 3.0]) > 1
    assert outcomes[-1] == [3.0, 3.0]
    assert all(a == b for a, b in outcomes)


def test_a_first_export_that_is_killed_leaves_no_half_of_one(
    settings, tmp_path
):
    model = load(MODEL_YAML, **settings, connector_type="linear")
    outcomes = set()
    for number in range(1, 100):
        folder = tmp_path / f"{number}"
        if not export_killed_at(number, folder, [Part(1.0)], model):
            break
        try:
            outcomes.add(loaded(folder, ["connector"])[0])
        except InputError:
            outcomes.add("none")
    assert outcomes == {"none", 1.0}


@pytest.mark.parametrize("connectors", [(1.0, 2.0), (1.0, 1.0)])
def test_a_kill_while_one_replaces_another_leaves_all_of_either(
    connectors, settings, tmp_path
):
    model = load(MODEL_YAML, **settings, connector_type="linear")
    for name, value in zip(("old", "new"), connectors, strict=True):
        export_recognizer(tmp_path / name, MODEL_TREE, model, Part(value))
        for beside in BESIDE:
            (tmp_path / name / beside).write_text(name)
    expected = {
        name: [value, *[name] * len(BESIDE)]
        for name, value in zip(("old", "new"), connectors, strict=True)
    }

    def held(folder):
        texts = [find_beside(folder, name).read_text() for name in BESIDE]
        return [*loaded(folder, ["connector"]), *texts]

    outcomes = []
    for number in range(1, 100):
        folder = tmp_path / f"{number}"
        shutil.copytree(tmp_path / "old", folder)
        both = tmp_path / "new", folder
        killed = killed_at(number, folder, replace_recognizer, *both)
        outcomes.append(held(folder))
        if not killed:
            break
        if number % 4 == 0:  # and the next one ends as if nothing had been
            replace_recognizer(*both)
            assert held(folder) == expected["new"]
            assert names(folder) == names(tmp_path / "new")
    turn = outcomes.index(expected["new"])
    assert turn > 0
    assert outcomes[:turn] == [expected["old"]] * turn
    assert outcomes[turn:] == [expected["new"]] * (len(outcomes) - turn)


# Permissions


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_exported_files_have_the_umasks_permissions(umask, settings, tmp_path):
    before = os.umask(umask)
    try:
        exported(tmp_path / "recognizer", settings)
    finally:
        os.umask(before)
    for path in (tmp_path / "recognizer").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask, path


# What is checked is what is loaded


def test_what_lies_in_a_savedir_is_not_loaded(folder, settings, tmp_path):
    expected = EmotionRecognizer.from_hparams(folder)
    saved = tmp_path / "saved"
    exported(saved, settings, seed=99)
    planted = "open('CODE_RAN', 'w').close()\n"
    for name in ("custom.py", "custom_interface.py"):
        (saved / name).write_text(planted)
        (folder / name).write_text(planted)
    (saved / "hyperparams.yaml").write_text("x: !apply:os.system [true]\n")
    before = names(saved)
    found = EmotionRecognizer.from_hparams(folder, savedir=saved)
    wavs = torch.randn(2, 8000)
    assert torch.equal(
        found.recognize_batch(wavs)[1], expected.recognize_batch(wavs)[1]
    )
    assert not Path("CODE_RAN").exists()
    # and nothing is left there for the next one
    assert names(saved) == before
    assert not any(path.is_symlink() for path in saved.iterdir())


def test_a_revision_of_the_hub_is_loaded_as_a_whole(
    original, settings, tmp_path
):
    # The hub's cache as it is after a download
    hub = tmp_path / "hub" / "models--someone--mser"
    (hub / "refs").mkdir(parents=True)
    connectors = {}
    for number, name in enumerate(("main", "v2")):
        commit = str(number) * 40
        (hub / "refs" / name).write_text(commit)
        connectors[name] = exported(
            hub / "snapshots" / commit, settings, seed=number
        )
    for name, connector in connectors.items():
        found = EmotionRecognizer.from_hparams(
            "someone/mser", savedir=tmp_path / "hub", revision=name
        )
        assert torch.equal(found.mods.connector.queries, connector.queries), (
            name
        )
    with pytest.raises(InputError, match="neither a folder"):
        EmotionRecognizer.from_hparams(
            "someone/mser", savedir=tmp_path / "hub", revision="v3"
        )


def test_weights_of_another_folder_are_refused(folder, settings, tmp_path):
    exported(tmp_path / "other", settings, seed=99)
    shutil.copy(tmp_path / "other" / "connector.safetensors", folder)
    with pytest.raises(InputError, match="connector_digest"):
        EmotionRecognizer.from_hparams(folder)


def test_a_flipped_bit_is_found(folder):
    path = folder / "connector.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        EmotionRecognizer.from_hparams(folder)


# Strangers


def test_the_example_that_ran_code_is_refused(folder, settings):
    text = old_text(settings)
    text = text[: text.index("pretrainer:")]
    (folder / "hyperparams.yaml").write_text(
        f"""{text}
m: !ref <llama.model>
hook: !ref <m.load_custom_generate>
pretrainer: !new:speechbrain_mser.checkpoints.SafetensorsPretrainer
  custom_hooks: {{x: !ref <hook>}}
  loadables:
    x: {folder}
    connector: !ref <connector>
    llama: !ref <llama>
  conditions:
    llama: !ref <lora_rank>
"""
    )
    shutil.copy(folder / "connector.safetensors", folder / "x.safetensors")
    (folder / "config.json").write_text("{}")
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(
        "from pathlib import Path\nPath('CODE_RAN').write_text('')\n"
        "def generate(*args, **kwargs):\n    pass\n"
    )
    with pytest.raises(InputError, match="trusted=True"):
        EmotionRecognizer.from_hparams(folder)
    assert not Path("CODE_RAN").exists()


@pytest.mark.parametrize(
    "name",
    [
        *("../../etc", "../recognizer", "/etc", "no/such/model", "~", "a/../b"),
        *("https://example.org/x", "owner/model@main", "--x/y", "\x00", ""),
        *("someone/model\n", "a" * 900, "\\\\host\\share", "file:///etc"),
    ],
)
@pytest.mark.parametrize("setting", ["whisper_hub", "llama_hub"])
def test_a_frozen_model_that_is_none_is_refused(change, folder, setting, name):
    change(**{setting: name})
    with pytest.raises(InputError, match=setting):
        EmotionRecognizer.from_hparams(folder)


def test_numbers_that_promise_a_model_of_any_size_are_refused(change, folder):
    change(qformer_layers=1000, qformer_hidden=65_536, qformer_ffn=1_000_000)
    with pytest.raises(InputError, match="too small"):
        EmotionRecognizer.from_hparams(folder)
    change(
        qformer_layers=2,
        qformer_hidden=32,
        qformer_ffn=64,
        n_queries=65_536,
        query_dim=65_536,
    )
    with pytest.raises(InputError, match="too small"):
        EmotionRecognizer.from_hparams(folder)


def test_heads_that_do_not_divide_the_width_are_refused(change, folder):
    change(qformer_heads=5)
    with pytest.raises(InputError, match="qformer_heads"):
        EmotionRecognizer.from_hparams(folder)


DESCRIBED = (
    *("[NaN", "[]", "[" * 9000, '{"llm": 1}', '{"llm": {}}'),
    '{"llm": {"name": "a", "width": "b"}}',
)


@pytest.mark.parametrize(
    "what", ["pipe", "folder", "nothing", "pickle", "cut", *DESCRIBED]
)
def test_weights_that_are_none_are_refused(change, folder, what):
    change(connector_digest=None)
    path = folder / "connector.safetensors"
    content = path.read_bytes()
    path.unlink()
    if what == "pipe":
        os.mkfifo(path)
    if what == "folder":
        path.mkdir()
    if what == "pickle":
        torch.save({"a": torch.zeros(1)}, path)
    if what == "cut":
        path.write_bytes(content[:-4])
    if what in DESCRIBED:
        save_file(load_bytes(content), path, {"frozen_models": what})
    with pytest.raises(InputError, match="connector"):
        EmotionRecognizer.from_hparams(folder)


def test_labels_and_prompt_are_words_to_the_recogniser(change, folder):
    change(label_words=["!new:os.system", "<llama>"], prompt="!ref <whisper>")
    recognizer = EmotionRecognizer.from_hparams(folder)
    assert recognizer.labels() == ["!new:os.system", "<llama>"]
    assert recognizer.mods.llm.prompt == "!ref <whisper>"
    # overrides of the user are words as well
    recognizer = EmotionRecognizer.from_hparams(
        folder, overrides={"prompt": "<llama.model.load_custom_generate>"}
    )
    assert recognizer.mods.llm.prompt.startswith("<llama")
