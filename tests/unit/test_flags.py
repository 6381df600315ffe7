"""Command lines: a text stays what it is, the rest is of its setting's kind."""

import collections
import io
import json
from collections import UserString
from pathlib import Path

import pytest
import yaml
from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML

from speechbrain_mser.errors import InputError
from speechbrain_mser.settings.experiment_files import read_yaml
from speechbrain_mser.settings.flags import read_command_line
from speechbrain_mser.settings.hparams import (
    find_settings,
    load_hparams,
    load_object,
    place_overrides,
    read_settings,
    record_settings,
)

HPARAMS = Path(__file__).resolve().parents[2] / "hparams"
# Each was something else for YAML, for HyperPyYAML or for SpeechBrain.
NAMES = [
    *("run #2", "123456", "007", "0x10", "1_000", "1e5", ".inf", "2026-11-28"),
    *(
        "yes",
        "no",
        "on",
        "True",
        "null",
        "12:30:45",
        "[final]",
        "{x}",
        "run: 2",
    ),
    *("!x", "*a", "&a", "'", '"', "a ", " a", "-x", "- a", "? a", "@x", "%x"),
    *(
        "|",
        ">",
        "#",
        "`",
        "a=b",
        "=",
        "a\\b",
        "a\nb",
        "run\t2",
        "$HOME",
        "${x}",
    ),
    *(
        "Übung",
        "U\u0308bung",
        "训练",
        "😀",
        "<seed>",
        "<no such>",
        "(1)",
        "(a, b)",
    ),
    *(
        "1/0",
        "9**9**9**9",
        "!ref <seed>",
        "!!python/name:os.system",
        "~x",
        "a~",
    ),
]
WORST = [
    "run #2",
    "2026-11-28",
    "[final]",
    "null",
    "<seed> (1)/0",
    " é:'\"",
    "-x",
]
SCRIPTS = {
    "stage1": {"data_root": "/c"},
    "stage2": {"data_root": "/c"},
    "open/train": {"data_root": "/c"},
    "evaluate": {"data_root": "/c", "recognizer": "r"},
    "calibrate": {"data_root": "/c", "recognizer": "r", "corpora": "meld"},
    "synthesize": {"data_root": "/c"},
    "pseudo_label": {"data_root": "/c", "recognizer": "r", "corpus": "meld"},
    "ablation": {},
}


def read(script, **flags):
    """What a script's settings come to, as each of the scripts asks."""
    path = str(HPARAMS / f"{script}.yaml")
    arguments = [f"--{name}={text}" for name, text in flags.items()]
    path, _, overrides = read_command_line([path, *arguments])
    return read_settings(path, overrides)


@pytest.mark.parametrize("name", WORST)
@pytest.mark.parametrize("script", SCRIPTS)
def test_an_output_folder_is_called_as_it_is_given(script, name):
    settings = read(script, **SCRIPTS[script], output_folder=name)
    assert settings["output_folder"] == name
    for key, value in SCRIPTS[script].items():
        assert settings[key] == value


@pytest.mark.parametrize("name", WORST)
def test_every_other_place_and_source_is_called_as_it_is_given(name):
    # null is none where there may be none; a folder of that name is ./null
    optional = None if name == "null" else name
    train = read("stage1", data_root=name, pretrained=name, bert_hub=name)
    assert train["data_root"] == name
    assert train["pretrained"] == train["model"]["bert_hub"] == optional
    places = {
        "manifest_folder": name,
        "feature_folder": name,
        "pretrained_folder": name,
    }
    train = read("stage1", data_root="/c", prompt=name, **places)
    assert train["manifest_folder"] == train["training"]["feature_folder"]
    assert train["manifest_folder"] == train["model"]["pretrained_folder"]
    assert train["manifest_folder"] == name
    assert train["model"]["prompt"] == optional
    needed = {"data_root": "/c", "recognizer": "r"}
    assert read("evaluate", **needed, llama_hub=name)["llama_hub"] == optional
    made = read("synthesize", data_root="/c", output_folder="o", m4t_hub=name)
    assert made["m4t_hub"] == optional


@pytest.mark.parametrize("name", NAMES)
def test_a_name_reaches_the_object_and_the_record(tmp_path, name):
    path = tmp_path / "a.yaml"
    path.write_text(
        "output_folder: results\n"
        "save: !ref <output_folder>/save\n"
        "part: !include:b.yaml\n"
        "  folder: !ref <output_folder>\n"
    )
    (tmp_path / "b.yaml").write_text(
        "folder: none\n"
        "built: !new:collections.UserString\n"
        "  seq: !ref <folder>/save\n"
    )
    flags = ["--output_folder", name]
    _, _, overrides = read_command_line([str(path), *flags])
    loaded = load_hparams(path, overrides)
    assert loaded["output_folder"] == loaded["part"]["folder"] == name
    assert loaded["save"] == f"{name}/save"
    assert loaded["part"]["built"] == UserString(f"{name}/save")
    built = load_object(path, overrides, "part", "built")
    assert built == UserString(f"{name}/save")

    record = tmp_path / "record.yaml"
    record_settings(record, path, overrides)
    text = record.read_text(encoding="utf-8")
    assert read_settings(record, {})["save"] == f"{name}/save"
    assert load_hparams(record, {}) == load_hyperpyyaml(text) == loaded
    assert YAML().load(text)["part"]["folder"] == name


@pytest.mark.parametrize("name", NAMES)
def test_any_loader_reads_the_name_from_the_record(tmp_path, name):
    (tmp_path / "a.yaml").write_text("output_folder: results\n")
    record = tmp_path / "record.yaml"
    record_settings(record, tmp_path / "a.yaml", {"output_folder": name})
    with open(record, encoding="utf-8") as file:
        assert yaml.safe_load(file) == {"output_folder": name}


def test_a_home_is_found_where_no_shell_has_looked(monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    found = read(
        "stage1",
        data_root="~",
        output_folder="~/out",
        manifest_folder="~nobody-of-that-name/x",
        pretrained="~/r",
        corpus_folders="{meld: ~/MELD}",
        prompt="~/ is what?",
    )
    assert found["data_root"] == "/home/anna"
    assert found["output_folder"] == "/home/anna/out"
    assert found["manifest_folder"] == "~nobody-of-that-name/x"
    assert found["pretrained"] == "/home/anna/r"
    assert found["corpus_folders"]["meld"] == "/home/anna/MELD"
    assert found["model"]["prompt"] == "~/ is what?"


def test_lists_of_names_hold_the_names(tmp_path, monkeypatch):
    words = ["yes", "no", "null", "007", "1e5", "2026-11-28", "12:30"]
    text = f"[{', '.join(words)}]"
    settings = read("stage1", data_root="/c", label_words=text, corpora=text)
    assert settings["model"]["label_words"] == settings["corpora"] == words
    assert read("stage1", data_root="/c", corpora="007")["corpora"] == "007"
    needed = {"data_root": "/c"}
    several = read("evaluate", **needed, recognizer="[run 1, 2026-11-28]")
    assert several["recognizer"] == ["run 1", "2026-11-28"]
    # A folder that is there is meant.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[final]").mkdir()
    assert read("evaluate", **needed, recognizer="[final]")["recognizer"] == (
        "[final]"
    )
    command = '[python, "w.py", --port, 1e5]'
    made = read("synthesize", **needed, output_folder="o", command=command)
    assert made["command"] == ["python", "w.py", "--port", "1e5"]


def test_names_within_mappings_are_names_and_numbers_numbers():
    options = (
        "{iemocap: {test_session: 1}, folder: {valid_speakers: [007, no, 1e5], "
        "name: 2026, decode: True}}"
    )
    found = read("stage1", data_root="/c", corpus_options=options)
    assert found["corpus_options"] == {
        "iemocap": {"test_session": 1},
        "folder": {
            "valid_speakers": ["007", "no", "1e5"],
            "name": "2026",
            "decode": True,
        },
    }
    sets = "[{name: 007, corpus: no, labels: [yes, no], split: null}]"
    needed = {"data_root": "/c", "recognizer": "r"}
    (entry,) = read("evaluate", **needed, sets=sets)["sets"]
    assert entry == {
        "name": "007",
        "corpus": "no",
        "labels": ["yes", "no"],
        "split": None,
    }


def test_numbers_switches_and_null_are_read_as_yaml():
    found = read(
        "stage1",
        data_root="/c",
        lr="1e-4",
        batch_size="8",
        skip_prep="true",
        # by its name's end a text, by what it is a switch
        align_speakers="False",
        encoder_layers="[2, 3]",
        qformer_layers="2",
        valid_split="null",
        languages="null",
    )
    training, model = found["training"], found["model"]
    assert (training["lr"], training["batch_size"]) == (1e-4, 8)
    assert found["skip_prep"] is True
    assert found["training"]["align_speakers"] is False
    assert (model["encoder_layers"], model["qformer_layers"]) == ([2, 3], 2)
    assert found["valid_split"] is None and found["languages"] is None
    assert read("stage1", data_root="/c", encoder_layers="-1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--skip_prep", "no"], "skip_prep is 'no', expected True or False"),
        (["--skip_prep", "tRuE"], "skip_prep is 'tRuE', expected True or"),
        (["--align_speakers", "no"], "align_speakers is 'no', expected True"),
        (["--lr", "fast"], "lr is 'fast', expected a number"),
        (["--seed", "2026-11-28"], "seed is '2026-11-28', expected a number"),
        (["--batch_size", "True", "--x"], "--x has no value"),
        (["--corpora", "[a, b"], r"corpora is '\[a, b', which is no YAML"),
        (["--corpora", "[a, *b]"], "which is no YAML"),
        (["--corpora", "[" * 50], "which is no YAML"),
        (["--corpus_options", "&a [*a]"], "which is no YAML"),
        (["--corpus_folders", "MELD"], "expected {...: ...}"),
        (["--output_folder"], "--output_folder has no value"),
        (["--output_folder", "--lr", "1"], "--output_folder=--"),
        (["--output_folder", ""], "output_folder is empty"),
        (["--output_folder", " "], "output_folder is empty"),
        (["--output_folder", "a\udcff"], "which is not UTF-8"),
        (["--lr", "1", "--lr=2"], "--lr is given twice"),
        (["--device", "gpu"], "device is 'gpu'"),
    ],
)
def test_what_is_no_value_of_its_setting_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        read_command_line([str(HPARAMS / "stage1.yaml"), *arguments])


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [
        ("batchsize", "batch_size"),
        ("n_querys", "n_queries"),
        ("output-folder", "output_folder"),
        ("devise", "device"),
        ("data_rot", "data_root"),
    ],
)
def test_a_mistyped_flag_gets_the_nearest_names_and_no_others(mistyped, meant):
    with pytest.raises(InputError) as refused:
        read("stage1", **{mistyped: "1"})
    message = str(refused.value)
    assert f"no setting '{mistyped}'" in message and meant in message
    assert message.count(" or ") <= 2 and len(message.splitlines()) == 1
    assert "label_words" not in message


def test_what_is_near_to_nothing_is_told_where_to_look():
    with pytest.raises(InputError, match="and those that it includes"):
        read("stage1", qwxz="1")


def test_speechbrains_options_reach_it_and_values_are_no_options():
    path = str(HPARAMS / "stage1.yaml")
    arguments = [
        *("--device=cpu", "--data_root", "-h", "--precision", "bf16"),
        *("--noprogressbar", "--seed", "5", "--jit_module_keys", "a", "b"),
    ]
    _, run_opts, overrides = read_command_line([path, *arguments])
    assert run_opts["device"] == "cpu" and run_opts["precision"] == "bf16"
    assert run_opts["noprogressbar"]
    assert run_opts["jit_module_keys"] == ["a", "b"]
    assert overrides == {
        "data_root": "-h",
        "seed": 5,
        "training": {"precision": "bf16"},
    }
    assert "seed" not in run_opts.overridden_args


def test_scripts_hand_names_on_to_scripts_unchanged():
    from steps import as_flags

    names = {"data_root": "[2026-11-28] <seed>", "output_folder": "null"}
    path, flags = str(HPARAMS / "stage1.yaml"), as_flags(names)
    _, _, overrides = read_command_line([path, *flags])
    assert overrides == names
    lists = {"corpora": ["no", "007"], "valid_split": None, "skip_prep": True}
    _, _, overrides = read_command_line([path, *as_flags(lists)])
    assert json.loads(json.dumps(overrides)) == lists


# Files that go on from others

BASE = """
seed: 1
part: !include:part.yaml
  lr: 0.5
"""
PART = """
seed_name: s
lr: 0.1
names: {a: 1}
loss: !new:collections.Counter
  lr: !ref <lr>
double: !ref <lr> * 2
"""


@pytest.fixture
def base(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "part.yaml").write_text(PART)

    def extend(lines):
        own = tmp_path / "own.yaml"
        own.write_text(f"extends: base.yaml\n{lines}")
        return own

    return extend


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", {"lr": 0.5, "loss": {"lr": 0.5}, "double": 1.0}),
        # though base.yaml gives another
        ("lr: 3.0\n", {"lr": 3.0, "loss": {"lr": 3.0}, "double": 6.0}),
        # an object is another, not both; what it refers to lies where it does
        (
            "loss: !new:collections.OrderedDict\n  m: !ref <lr>\n",
            {"loss": {"m": 0.5}},
        ),
        ("loss: !name:collections.Counter\n", {"loss": collections.Counter}),
        # plain mappings become one
        ("names: {b: 2}\n", {"names": {"a": 1, "b": 2}}),
    ],
)
def test_a_line_stands_in_place_of_that_of_the_file_gone_on_from(
    base, lines, expected
):
    path = base(lines)
    built = load_hparams(path, {})["part"]
    assert {name: built[name] for name in expected} == expected
    assert find_settings(path)["seed"] == 1
    # A flag counts more than the line.
    flag = place_overrides(path, {"lr": 7.0})
    assert load_hparams(path, flag)["part"]["lr"] == 7.0


def test_a_mistyped_line_is_refused_like_a_flag(base):
    path = base("seed_nam: 3\n")
    with pytest.raises(InputError, match="no setting 'seed_nam'; did you mean"):
        load_hparams(path, {})


def test_an_object_given_to_an_included_file_takes_the_place_of_its_own(
    base, tmp_path
):
    path = tmp_path / "plain.yaml"
    path.write_text(
        "part: !include:part.yaml\n  loss: !new:collections.OrderedDict\n"
        "    m: 2\n"
    )
    assert load_hparams(path, {})["part"]["loss"] == {"m": 2}
    assert read_settings(path, {})["part"]["loss"] == {"m": 2}


@pytest.mark.parametrize(
    ("name", "before", "after", "expected"),
    [
        ("base.yaml", "lr: 0.5", "lr: 0.75", 1.5),
        ("part.yaml", "<lr> * 2", "<lr> * 4", 2.0),
        ("own.yaml", "seed: 2", "lr: 3.0", 6.0),
    ],
)
def test_what_is_read_is_what_the_files_say_now(
    base, tmp_path, name, before, after, expected
):
    path = base("seed: 2\n")

    def doubled(overrides):
        settings = read_settings(path, overrides)
        double = settings["part"].pop("double")  # the caller's own
        assert "double" in find_settings(path)
        return double

    assert doubled({}) == 1.0
    edited = tmp_path / name
    text = edited.read_text("utf-8")
    edited.write_text(text.replace(before, after), "utf-8")
    assert doubled({}) == expected
    edited.write_text(text, "utf-8")
    assert [doubled({"part": {"lr": 8}}), doubled({})] == [16, 1.0]


@pytest.mark.parametrize("path", HPARAMS.rglob("*.yaml"), ids=str)
def test_a_file_that_was_read_before_says_all_that_it_says(path):
    read_yaml(path)
    texts = io.StringIO(), io.StringIO()
    YAML().dump(read_yaml(path), texts[0])
    YAML().dump(YAML().load(path), texts[1])
    assert texts[0].getvalue() == texts[1].getvalue()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"lr: [1\nseed: 2\n", "no YAML: line 2: expected ',' or ']'"),
        (b"lr: 1\nlr: 2\n", "no YAML: line 2: found duplicate key"),
        (b"lr: 1\n\tseed: 2\n", "no YAML: line 2: "),
        (b"lr: \x07\n", "no YAML: "),
        (b"lr: 2026-13-45\n", "no YAML: month must be in 1..12"),
        (b"lr: \xff\n", "no text in UTF-8: "),
        (b"- lr\n", "settings are expected"),
        (b"", "settings are expected"),
        (None, "no such file"),
    ],
    ids=lambda value: None,
)
@pytest.mark.parametrize("name", ["base.yaml", "part.yaml", "own.yaml"])
def test_a_file_that_holds_no_settings_is_said(
    base, tmp_path, name, written, said
):
    path = base("")
    if written is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(written)
    for read in (
        find_settings,
        lambda path: read_settings(path, {}),
        lambda path: load_hparams(path, {}),
    ):
        with pytest.raises(InputError) as found:
            read(path)
        assert f"{name}: {said}" in str(found.value)
        assert "\n" not in str(found.value)
