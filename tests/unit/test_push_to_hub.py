"""A recogniser that is pushed to the hub is found there by its name.

The hub is a stand-in on this machine, its client the real one.
"""

import json
import shutil
import socket
from pathlib import Path

import hub_stand_in
import pytest
import torch
from hub_stand_in import READER, TOKEN
from huggingface_hub import ModelCard, constants
from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML
from speechbrain.utils.fetching import FetchConfig

from speechbrain_mser.command.main import main as mser
from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.calibration import FILE as CALIBRATION
from speechbrain_mser.evaluation.calibration import fit_calibration
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.inference.export import export_recognizer
from speechbrain_mser.inference.folder import find_folder
from speechbrain_mser.settings.project_files import HPARAMS

NAME = "tester/emotions"
LABELS = ["happy", "sad", "angry"]
RECORD = {
    "training": {"recipe": "stage1.yaml", "seed": 7},
    "corpora": {
        "mine": {
            "utterances": 12,
            "hours": 0.5,
            "speakers": 3,
            "languages": ["deu"],
            "emotions": {"happy": 5, "sad": 7},
            "terms": "CC BY-NC-SA 4.0",
            "where": "https://example.org/mine",
        }
    },
    "versions": {"torch": "2.13.0"},
}


@pytest.fixture(scope="module")
def models(tiny_whisper, tiny_llama):
    return {"whisper_hub": str(tiny_whisper), "llama_hub": str(tiny_llama)}


@pytest.fixture(scope="module")
def trained(models, tmp_path_factory):
    """A folder as training leaves it, calibrated."""
    folder = tmp_path_factory.mktemp("training") / "recognizer"
    torch.manual_seed(0)
    path = HPARAMS / "model.yaml"
    settings = {
        **models,
        "connector_type": "linear",
        "frozen_dtype": "float32",
        "label_words": LABELS,
        "n_queries": 2,
        "standardize": False,
    }
    with open(path, encoding="utf-8") as file:
        model = load_hyperpyyaml(file, settings)
    model["trained_corpora"] = ["mine"]
    connector, llm = model["connector"].eval(), model["llm"]
    connector.bind(
        {"encoder": model["encoder"].describe(), "llm": llm.describe()}
    )
    export_recognizer(
        folder, YAML().load(path), model, connector, record=RECORD
    )
    fitted = fit_calibration(
        torch.randn(9, 3).log_softmax(-1),
        LABELS * 3,
        LABELS,
        **EmotionRecognizer.from_hparams(folder).describe(),
    )
    fitted.save(folder / CALIBRATION)
    return folder


PUBLIC = {"whisper_hub": "openai/tiny", "llama_hub": "meta/tiny"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def standing_in(models, home):
    """The stand-in with both frozen models, as long as the tests here run."""
    with hub_stand_in.serve() as hub, pytest.MonkeyPatch.context() as patch:
        url = constants.HUGGINGFACE_CO_URL_TEMPLATE
        url = url.replace(constants.ENDPOINT, hub.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_TOKEN_PATH", str(home / "none"))
        for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            patch.delenv(variable, raising=False)
        patch.chdir(home)
        for setting, name in PUBLIC.items():
            files = {
                path.name: path.read_bytes()
                for path in Path(models[setting]).iterdir()
            }
            hub.add(name, files)
        yield hub


@pytest.fixture(scope="module")
def kept(trained, standing_in):
    """Loaded with the names that others have the frozen models by."""
    return EmotionRecognizer.from_hparams(trained, overrides=PUBLIC)


@pytest.fixture
def hub(standing_in, tmp_path, monkeypatch):
    """Nothing was pushed yet, and no recogniser of the hub's is kept here."""
    cache = str(tmp_path / "hub_cache")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", cache)
    standing_in.repositories.pop(NAME, None)
    standing_in.listed_too.clear()
    return standing_in


@pytest.fixture
def folder(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "recognizer")
    return tmp_path / "recognizer"


@pytest.fixture
def loaded(kept, folder, hub):
    """Loaded, of a folder that a test may change."""
    kept.folder = folder
    return kept


def held(hub, revision="main"):
    return hub.find(NAME, revision)[1]


def test_what_was_pushed_answers_the_same(loaded, hub, tmp_path):
    wavs, lens = torch.randn(2, 9000), torch.tensor([1.0, 0.7])
    expected = [
        loaded.recognize_batch(wavs, lens, calibration=how)[1]
        for how in ("none", "temperature+prior")
    ]
    url = loaded.push_to_hub(NAME, token=TOKEN)
    assert url.startswith(f"{hub.url}/{NAME}/commit/")
    assert held(hub).keys() == {
        *("connector.safetensors", "hyperparams.yaml", "calibration.json"),
        *("card.json", "README.md"),
    }
    # Nothing of this machine
    for name, data in held(hub).items():
        assert str(tmp_path.parent).encode() not in data, name
        assert b"pytest" not in data, name
    shutil.rmtree("pretrained_models")
    again = EmotionRecognizer.from_hparams(NAME)
    assert again.folder.is_relative_to(constants.HF_HUB_CACHE)
    found = [
        again.recognize_batch(wavs, lens, calibration=how)[1]
        for how in ("none", "temperature+prior")
    ]
    assert torch.equal(torch.stack(found), torch.stack(expected))
    # And once more without a network: it is kept.
    asked = len(hub.asked)
    EmotionRecognizer.from_hparams(
        NAME, fetch_config=FetchConfig(allow_network=False)
    )
    assert len(hub.asked) == asked


def test_a_push_replaces_all_that_was_there(loaded, hub, folder):
    loaded.push_to_hub(NAME, token=TOKEN)
    first = hub.repositories[NAME]["branches"]["main"]
    for name in (CALIBRATION, "card.json"):
        (folder / name).unlink()
    loaded.push_to_hub(NAME, token=TOKEN)
    assert held(hub).keys() == {
        *("connector.safetensors", "hyperparams.yaml", "README.md"),
    }
    assert b"has left no record" in held(hub)["README.md"]
    # The one before is still there, by its commit.
    before = find_folder(NAME, revision=first)
    assert (before / CALIBRATION).is_file()


def test_a_branch_is_a_revision_to_load(folder, hub):
    loaded = EmotionRecognizer.from_hparams(folder, overrides=PUBLIC)
    loaded.push_to_hub(NAME, token=TOKEN)
    with torch.no_grad():
        loaded.mods.connector.output.bias.add_(1.0)
    loaded.mods.connector.save(loaded.folder / "connector.safetensors")
    settings = loaded.folder / "hyperparams.yaml"
    lines = settings.read_text().splitlines(keepends=True)
    settings.write_text("".join(x for x in lines if "_digest" not in x))
    loaded.push_to_hub(NAME, token=TOKEN, revision="v2")
    biases = {
        revision: EmotionRecognizer.from_hparams(
            NAME, revision=revision
        ).mods.connector.output.bias
        for revision in (None, "v2")
    }
    assert torch.equal(biases["v2"], biases[None] + 1.0)
    with pytest.raises(InputError, match="at revision 'v3': the hub has no"):
        EmotionRecognizer.from_hparams(NAME, revision="v3")


def test_a_private_one_is_for_those_with_a_token(loaded, hub):
    loaded.push_to_hub(NAME, token=TOKEN, private=True)
    with pytest.raises(InputError, match="or it is private: log in"):
        EmotionRecognizer.from_hparams(NAME)
    config = FetchConfig(token=READER)
    EmotionRecognizer.from_hparams(
        NAME, fetch_config=config, download_only=True
    )


# The card


def test_the_card_says_what_the_training_has_noted(
    loaded, hub, tmp_path, capsys
):
    metrics = {
        "MINE-3": {
            "n": 40,
            "labels": LABELS,
            "chance": 1 / 3,
            "UA": 0.5125,
            "WA": 0.525,
            "WF1": 0.5,
            "intervals": {"UA": [0.4, 0.61]},
            "note": "zero-shot",
            "connector": loaded.describe()["connector"],
        }
    }
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    loaded.push_to_hub(
        NAME, token=TOKEN, evaluation=tmp_path, license="cc-by-nc-4.0"
    )
    text = held(hub)["README.md"].decode()
    head = ModelCard(text).data.to_dict()
    assert head["license"] == "cc-by-nc-4.0" and "license_name" not in head
    assert head["library_name"] == "speechbrain"
    assert (head["language"], head["datasets"]) == (["deu"], ["mine"])
    assert head["base_model"] == [*PUBLIC.values()]
    ((result),) = head["model-index"][0]["results"]
    assert result["dataset"]["name"] == "MINE-3"
    assert result["metrics"][0] == {
        "type": "recall",
        "value": 0.5125,
        "name": "UA",
        "args": {"interval": [0.4, 0.61]},
    }
    for told in (
        *("0.512 (0.400 to 0.610)", "CC BY-NC-SA 4.0", "seed 7"),
        *("No utterance of its training was angry", "Article 5(1)(f)"),
        f'from_hparams("{NAME}")',
    ):
        assert told in text, told
    # The same from the shell, by the name and by the folder
    for own in (NAME, str(loaded.folder)):
        assert mser(["card", "--recognizer", own]) == 0
        card = capsys.readouterr().out
        assert "CC BY-NC-SA 4.0" in card and "license:" not in card
    assert mser(["card", "--recognizer", NAME, "--json"]) == 0
    noted = json.loads(capsys.readouterr().out)
    assert noted["corpora"] == RECORD["corpora"]
    metrics["MINE-3"]["connector"] = "another"
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(InputError, match="evaluation of another recogniser"):
        loaded.push_to_hub(NAME, token=TOKEN, evaluation=tmp_path)
    (tmp_path / "metrics.json").write_text('{"MINE-3": {"UA": 1}}')
    with pytest.raises(InputError, match=r"that evaluate\.py wrote"):
        loaded.push_to_hub(NAME, token=TOKEN, evaluation=tmp_path)


def test_a_card_of_ones_own_stays_and_its_head_is_completed(
    loaded, hub, folder
):
    own = "---\nlicense: mit\ntags:\n- mine\n---\n# Mine\n\nMy words.\n"
    (folder / "README.md").write_text(own)
    loaded.push_to_hub(NAME, token=TOKEN)
    card = ModelCard(held(hub)["README.md"].decode())
    assert card.text == "# Mine\n\nMy words.\n"
    head = card.data.to_dict()
    assert (head["license"], head["tags"]) == ("mit", ["mine"])
    assert "license_name" not in head and head["datasets"] == ["mine"]
    for broken in ("[1", "x: !!python/object/apply:os.getcwd []", "- a"):
        (folder / "README.md").write_text(f"---\n{broken}\n---\n# Mine\n")
        with pytest.raises(InputError, match="the card's head"):
            loaded.push_to_hub(NAME, token=TOKEN)


def test_a_strangers_card_moves_no_cursor(folder, capsys):
    (folder / "README.md").write_text("# Mine\x1b[2J\x9b2J\r\n")
    assert mser(["card", "--recognizer", str(folder)]) == 0
    assert capsys.readouterr().out == "# Mine[2J2J\n"
    (folder / "README.md").write_bytes(b"# Mine \xff")
    assert mser(["card", "--recognizer", str(folder)]) == 0


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"frozen_models": {"llm": 5}}, "llm of frozen_models"),
        ({"frozen_models": {"llm": {}}}, "llm of frozen_models"),
        ({"connector": [1]}, "connector"),
        ({"corpora": {"a": {"languages": [[1]]}}}, "languages of a"),
        ({"corpora": {"a": {"emotions": {"x": {}}}}}, "x of emotions of a"),
        ({"left_out": {"a": {}}}, "a of left_out"),
        ({"left_out": {"a": {"interval": [1]}}}, "interval of a"),
    ],
)
def test_a_strangers_record_is_one_or_refused(folder, capsys, record, said):
    (folder / "card.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit, match="2"):
        mser(["card", "--recognizer", str(folder)])
    errors = capsys.readouterr().err
    assert f"card.json: {said}" in errors and "Traceback" not in errors


# What cannot be pushed


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (None, "does not know who asks: log in"),
        (READER, "does not allow it: log in"),
        (True, "there is no token: log in"),
    ],
)
def test_who_may_not_push_is_told_what_to_do(loaded, hub, token, said):
    with pytest.raises(InputError, match=said) as refused:
        loaded.push_to_hub(NAME, token=token)
    assert refused.value.__cause__ is None
    assert NAME not in hub.repositories


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *(("a b/c", "of letters"), ("../x", "of letters"), ("", "of letters")),
        *(("a/b/c", "user/name"), ("emotions", "whose it is")),
    ],
)
def test_a_name_that_is_none_is_refused_before_anything_is_asked(
    loaded, hub, name, said
):
    asked = len(hub.asked)
    with pytest.raises(InputError, match=said):
        loaded.push_to_hub(name, token=TOKEN)
    assert len(hub.asked) == asked


def test_frozen_models_that_nobody_else_has_are_named(folder, hub):
    recognizer = EmotionRecognizer.from_hparams(folder)
    with pytest.raises(InputError, match=r"whisper_hub is .* folder of"):
        recognizer.push_to_hub(NAME, token=TOKEN)
    # Nor is another model published as the one of training.
    name = hub_of_another_llm(hub, folder.parent)
    recognizer = EmotionRecognizer.from_hparams(
        folder,
        overrides={**PUBLIC, "llama_hub": name, "frozen_models": "warn"},
    )
    with pytest.raises(InputError, match="what is called else/tiny is"):
        recognizer.push_to_hub(NAME, token=TOKEN)
    assert NAME not in hub.repositories


def hub_of_another_llm(hub, folder):
    """A model of the same shape and other weights, on the hub."""
    from safetensors.torch import load, save

    _, files = hub.find(PUBLIC["llama_hub"], "main")
    weights = load(files["model.safetensors"])
    weights = {name: value + 0.01 for name, value in weights.items()}
    other = save(weights, {"format": "pt"})
    hub.add("else/tiny", {**files, "model.safetensors": other})
    return "else/tiny"


def test_without_a_network_it_is_said(loaded, hub, monkeypatch):
    with socket.socket() as taken:  # nobody listens there
        taken.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", nowhere)
        with pytest.raises(InputError, match="the hub cannot be reached"):
            loaded.push_to_hub(NAME, token=TOKEN)
        with pytest.raises(InputError, match="the hub cannot be reached"):
            EmotionRecognizer.from_hparams(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE forbids it"):
        loaded.push_to_hub(NAME, token=TOKEN)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE forbids it"):
        EmotionRecognizer.from_hparams(NAME)


def test_one_that_no_folder_was_loaded_from_is_refused(loaded):
    loaded.folder = None
    with pytest.raises(InputError, match="from_hparams has loaded"):
        loaded.push_to_hub(NAME, token=TOKEN)


# What cannot be loaded


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody/nothing", "the hub has none of that name, or it is private"),
        ("openai/tiny", "holds no recogniser: it has no hyperparams.yaml"),
        ("a b/c", "names on the hub are user/name"),
    ],
)
def test_what_is_no_recogniser_is_refused(hub, name, said, capsys):
    with pytest.raises(InputError, match=said) as refused:
        EmotionRecognizer.from_hparams(name)
    assert refused.value.__cause__ is None
    with pytest.raises(SystemExit, match="2"):
        mser(["card", "--recognizer", name])
    said = capsys.readouterr().err
    assert "error: " in said and "Traceback" not in said


@pytest.mark.parametrize(
    "name", ["../../../stolen", "/tmp/../stolen", "a/../../../../stolen"]
)
@pytest.mark.parametrize("trusted", [False, True])
def test_a_listed_file_is_written_nowhere_else(
    loaded, hub, home, tmp_path, name, trusted
):
    loaded.push_to_hub(NAME, token=TOKEN)
    # As a connector, too: one of the files that are asked for
    names = {f"{name}/connector.safetensors": b"x", name: b"x"}
    hub.listed_too[NAME] = names
    places = (tmp_path, home)
    before = {path for place in places for path in place.rglob("*")}
    try:
        EmotionRecognizer.from_hparams(
            NAME, trusted=trusted, download_only=True
        )
    except InputError:
        assert trusted  # all that is listed is asked for
    after = {path for place in places for path in place.rglob("*")}
    written = {path for path in after - before if path.is_file()}
    assert all(p.is_relative_to(constants.HF_HUB_CACHE) for p in written)
    assert not [path for path in after if path.name.startswith("stolen")]
    assert not Path("/tmp/stolen").exists()


def test_what_is_beside_a_recogniser_is_not_fetched(loaded, hub):
    loaded.push_to_hub(NAME, token=TOKEN)
    hub.commit(NAME, "main", {"model.py": b"x", "pytorch_model.bin": b"x"})
    folder = find_folder(NAME)
    assert {path.name for path in folder.iterdir()} == {
        *("connector.safetensors", "hyperparams.yaml", "calibration.json"),
        *("card.json", "README.md"),
    }
