"""A recogniser's settings are names, numbers and words, or an InputError."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from speechbrain_mser.errors import InputError
from speechbrain_mser.inference.folder import read_settings
from speechbrain_mser.inference.old_folders import (
    convert_settings,
    describes_ours,
)
from speechbrain_mser.inference.settings import (
    MOST_BYTES,
    OWN,
    SETTINGS,
    check_settings,
    has_tags,
    override_settings,
    parse_settings,
    settings_text,
)

ROOT = Path(__file__).resolve().parents[2]
GOOD = {
    "whisper_hub": "openai/whisper-base",
    "llama_hub": "someone/llama",
    "frozen_dtype": "float32",
    "load_in_4bit": False,
    "lora_rank": 0,
    "activation_checkpointing": False,
    "encoder_layers": [1, -1],
    "encoder_window": 30,
    "layer_join": "mix",
    "mean_over_time": False,
    "trim_silence": 35.0,
    "speech_level": -26,
    "pad_to_30s": False,
    "prompt": "Which emotion?",
    "prompt_before": "",
    "chat_template": False,
    "token_mixture": False,
    "hear_meaning": False,
    "meaning_frames": ["The speaker feels"],
    "label_words": ["happy", "sad"],
    "emotion_words": {"sad": "down", "off": "1e-5"},
    "untrained_words": ["happy"],
    "trained_corpora": ["emodb", "ravdess"],
    "connector_type": "qformer",
    "n_queries": 3,
    "query_dim": 16,
    "bert_hub": "bert",
    "qformer_layers": 2,
    "qformer_hidden": 32,
    "qformer_heads": 2,
    "qformer_ffn": 64,
    "cross_attention_every": 2,
    "dropout": 1e-05,
    "standardize": False,
    "connector_digest": "0123456789abcdef" * 2,
    "llama_digest": None,
}
OLD_GOOD = {
    **GOOD,
    "emotion_words": {},
    "trim_silence": None,
    "speech_level": None,
    "untrained_words": [],
    "trained_corpora": [],
    "connector_digest": None,
}
# As trainings wrote it before settings were plain.
OLD = (Path(__file__).parent / "old_hyperparams.txt").read_text("utf-8")
# What YAML, HyperPyYAML or Python's own parsers would read otherwise.
TEXTS = [
    *("off", "null", "~", "1e-5", "1_000", "1:20", "2001-01-01", "", " "),
    *("<whisper_hub>", "<llama.model>", "<n_queries>**9**9**9", "$x", "(1,2)"),
    *("!new:os.system", "!!python/name:os.system", "9**9**9**9", "&a", "*a"),
    *("# not a comment", "a: b", "- a", "'\"", "\\", "  a\n\n b \n", "a\tb"),
    *(
        "\x85",
        "\u2028",
        "\ufeff",
        "\x00\x1b\x85\u2028",
        "\U0001f600",
        "<<",
        "=",
        "%TAG",
        "---",
    ),
]


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_is_read_as_it_was_written(text):
    written = {**GOOD, "prompt": text, "bert_hub": text}
    assert parse_settings(settings_text(written), "x") == written
    assert not has_tags(settings_text(written), "x")


@settings(max_examples=50, deadline=None)
@given(
    st.text(max_size=40), st.floats(0, 1), st.integers(1, 65_536), st.booleans()
)
def test_settings_are_read_as_they_were_written(
    prompt, dropout, number, choice
):
    written = {
        **GOOD,
        "prompt": prompt,
        "dropout": dropout,
        "n_queries": number,
        "pad_to_30s": choice,
    }
    assert parse_settings(settings_text(written), "x") == written


def test_every_setting_of_the_model_is_one_of_a_recogniser():
    text = (ROOT / "hparams" / "model.yaml").read_text("utf-8")
    tree = YAML().load(text)
    assert describes_ours(tree, tree)
    # One of an earlier version lacks what came later, unless it is asked for.
    del tree["llm"]["prompt_before"], tree["encoder"]["trim_silence"]
    assert describes_ours(tree, tree)
    assert not describes_ours(tree, {**tree, "prompt_before": "Listen:"})
    del tree["llm"]["prompt"]
    assert not describes_ours(tree, tree)
    plain = {
        name: value
        for name, value in YAML().load(text).items()
        if not isinstance(value, dict) or name == "emotion_words"
    }
    # No folder can name a class, of which model.yaml itself has none.
    assert plain.pop("encoder_class") is None
    with pytest.raises(InputError, match="no setting 'encoder_class'"):
        check_settings({**GOOD, "encoder_class": "os.system"}, "x")
    assert plain.keys() == SETTINGS.keys() | OWN.keys()
    for name, setting in OWN.items():
        assert plain.pop(name) == setting.default
    check_settings(plain, "model.yaml")


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    "value",
    [
        *(float("nan"), float("inf"), -(10**400), 1.5, -1, "x" * 30_000),
        *({}, [[]], [None], [float("nan")], {"a": 1}, object(), b"x"),
        *(["happy", "happy"], ["happy", 1], ["x"] * 2000, [""], []),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_value_that_does_not_fit_is_refused(name, value):
    if name == "encoder_layers" and value == -1:
        return  # the last one
    if name == "emotion_words" and value == {}:
        return  # all are said as they are
    if (name, value) in [("trim_silence", 1.5), ("speech_level", -1)]:
        return  # decibels
    with pytest.raises(InputError, match=name) as error:
        check_settings({**GOOD, name: value}, "x")
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("load_in_4bit", 1),
        ("lora_rank", True),
        ("n_queries", "3"),
        ("n_queries", 10**9),
        ("qformer_layers", 10**9),
        ("encoder_layers", "last"),
        ("encoder_layers", True),
        ("label_words", "paper5"),
        ("emotion_words", {"sad": "x" * 201}),
        ("emotion_words", {"sad": ["down"]}),
        ("untrained_words", "sad"),
        ("untrained_words", [["sad"]]),
        ("label_words", {"happy": 1}),
        ("frozen_dtype", "int8"),
        ("connector_type", "linear\n"),
        ("connector_digest", "../../etc/passwd"),
        ("whisper_hub", None),
        ("prompt", None),
    ],
)
def test_another_kind_of_value_is_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"here: {name}"):
        check_settings({**GOOD, name: value}, "here")


@pytest.mark.parametrize("name", ["device", "compile", *OWN, 1])
def test_an_unknown_setting_is_refused(name):
    with pytest.raises(InputError, match="no setting"):
        check_settings({**GOOD, name: "x"}, "here")


def test_a_missing_setting_is_named_and_later_ones_have_a_default():
    for name, setting in SETTINGS.items():
        fewer = {k: v for k, v in GOOD.items() if k != name}
        later = ("layer_join", "mean_over_time", "activation_checkpointing")
        later += ("emotion_words", "encoder_window")
        later += ("trim_silence", "speech_level")
        later += ("prompt_before", "chat_template", "token_mixture")
        later += ("hear_meaning", "meaning_frames")
        if name in later:
            assert check_settings(fewer, "x")[name] == setting.default
        else:
            with pytest.raises(InputError, match=f"{name} is missing"):
                check_settings(fewer, "x")


def test_adapters_where_meaning_is_heard_are_refused():
    hears = {**GOOD, "hear_meaning": True}
    assert check_settings(hears, "here") == hears
    expected = "lora_rank is 4, expected 0"
    with pytest.raises(InputError, match=f"here: hear_meaning .*{expected}"):
        parse_settings(settings_text({**hears, "lora_rank": 4}), "here")
    with pytest.raises(InputError, match=f"overrides: .*{expected}"):
        override_settings(hears, {"lora_rank": 4})


# Files that are none

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "brackets": "[" * 5000,
    "braces": "{" * 5000,
    "brackets to the limit": "[" * (MOST_BYTES - 1),
    "dashes": "- " * 5000,
    "questions": "? " * 5000,
    "bomb": BOMB,
    "merge": "a: &a {b: 1}\nc:\n  <<: *a",
    "anchor": "a: &a 1",
    "power": "n_queries: 9**9**9**9",
    "digits": "n_queries: " + "9" * 60_000,
    "no date": "n_queries: 2001-99-99",
    "many values": "label_words: [" + "a," * 30_000 + "]",
    "many keys": "\n".join(f"k{number}: 1" for number in range(6000)),
    "a key twice": settings_text(GOOD) + "n_queries: 3\n",
    "two documents": settings_text(GOOD) + "---\na: 1\n",
    "a list": "- a",
    "a word": "a",
    "nothing": "",
    "unfinished": "a: [1",
    "null byte": "a: \x00",
    "bytes": b"\xff\xfe\x00",
    "large": "#" * (MOST_BYTES + 1),
    "tags": "%TAG ! !new:speechbrain_mser.lobes.\n---\nwhisper: !whisper.X {}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name, tmp_path):
    text = HOSTILE[name]
    path = tmp_path / "hyperparams.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match="hyperparam") as error:
        read_settings(path)
    assert len(str(error.value)) < 1000


def test_a_pipe_a_folder_and_a_large_file_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with open(tmp_path / "large", "wb") as file:
        file.truncate(100 << 20)
    (tmp_path / "loop").symlink_to("loop")
    for name, reason in (
        ("pipe", "not a regular file"),
        ("folder", "not a regular file"),
        ("large", "larger than 64 KiB"),
        ("loop", "loop"),
        ("nowhere", "No such file"),
        ("/dev/zero", "not a regular file"),
    ):
        with pytest.raises(InputError, match=reason):
            read_settings(tmp_path / name)


# What older trainings left


def test_settings_of_an_older_training_are_taken_out_of_its_text():
    assert has_tags(OLD, "x")
    assert convert_settings(OLD, "x") == OLD_GOOD


def test_the_first_trainings_had_fewer_settings():
    lines = [
        line
        for line in OLD.splitlines()
        if not any(
            name in line
            for name in (
                "activation_checkpointing",
                "layer_join",
                "mean_over_time",
            )
        )
    ]
    found = convert_settings("\n".join(lines), "x")
    assert found == OLD_GOOD


def test_an_older_linear_connector_has_no_shape():
    text = OLD.replace("connector_type: qformer", "connector_type: linear")
    for name, written in (
        ("bert_source", ""),
        ("n_layers", " 2"),
        ("hidden_size", " 32"),
        ("n_heads", " 2"),
        ("intermediate_size", " 64"),
    ):
        setting = {
            "bert_source": "bert_hub",
            "n_layers": "qformer_layers",
            "hidden_size": "qformer_hidden",
            "n_heads": "qformer_heads",
            "intermediate_size": "qformer_ffn",
        }[name]
        text = text.replace(
            f"  {name}:{written}\n", f"  {name}: !ref <{setting}>\n"
        )
    found = convert_settings(text, "x")
    assert found["connector_type"] == "linear"
    assert found["qformer_hidden"] is None


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        # another object, argument, reference or value than ours
        ("!new:speechbrain_mser.lobes.whisper.WhisperEncoder", "!new:os.x"),
        ("!apply:speechbrain_mser.lobes.build_connector", "!apply:os.system"),
        ("!new:speechbrain_mser.lobes.llama.EmotionLLaMA", "!name:os.system"),
        ("!ref <whisper.hidden_size>", "!ref <llama.model.generate>"),
        ("!ref <whisper_hub>", "!ref <llama_hub>"),
        ("!ref <whisper_hub>", "!copy <whisper_hub>"),
        ("source: !ref <whisper_hub>", "source: elsewhere"),
        ("  dropout: !ref <dropout>\n", ""),
        ("  dropout: !ref", "  freeze: false\n  dropout: !ref"),
        (
            "  conditions:\n",
            "  custom_hooks: {x: !ref <prompt>}\n  conditions:\n",
        ),
        ("  loadables:\n", "  paths: {connector: /x}\n  loadables:\n"),
        ("  n_layers: 2", "  n_layers: !apply:os.getpid []"),
        ("  n_layers: 2", "  n_layers: (!!python/object/apply:os.getpid [])"),
        ("n_queries: 3", "n_queries: !ref <llama.model.load_custom_generate>"),
        ("n_queries: 3", "n_queries: !include:/etc/passwd"),
        ("n_queries: 3", "? !apply:os.getcwd []\n: 1\nn_queries: 3"),
        ("n_queries: 3", "x: [{a: !module:os }]\nn_queries: 3"),
        (
            "n_queries: 3",
            "x: !!python/object/apply:os.system [ls]\nn_queries: 3",
        ),
        ("n_queries: 3", "x: !<!apply:os.system> [ls]\nn_queries: 3"),
        ("modules:\n", "modules: !new:os.x\n"),
        ("  llama: !ref <llama>\n\npre", "\npre"),
        ("# The system", "!apply:os.system # The system"),
        ("\npretrainer:", "\nx:"),
        ("standardize: false", "unknown: 1\nstandardize: false"),
        ("n_queries: 3", "n_queries: (3, 4)"),
    ],
)
def test_another_text_than_ours_is_not_converted(there, instead, tmp_path):
    assert there in OLD
    path = tmp_path / "hyperparams.yaml"
    path.write_text(OLD.replace(there, instead, 1), "utf-8")
    with pytest.raises(InputError):
        read_settings(path)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_tag_at_the_top_is_refused(mark, tmp_path):
    path = tmp_path / "hyperparams.yaml"
    path.write_text(f"{mark}!apply:os.system {{command: ls}}\n", "utf-8")
    with pytest.raises(InputError, match="trusted=True"):
        read_settings(path)


# What the user changes


def test_overrides_are_settings_too():
    for overrides in (
        {"n_queries": 5, "whisper_hub": Path("/models/w")},
        "{n_queries: 5, whisper_hub: /models/w}",
    ):
        found, own = override_settings(GOOD, overrides)
        assert found == {**GOOD, "n_queries": 5, "whisper_hub": "/models/w"}
        assert own == {
            "pretrained_folder": "pretrained_models",
            "frozen_models": "strict",
        }
    given = {"pretrained_folder": "/cache", "frozen_models": "warn"}
    assert override_settings(GOOD, given) == (GOOD, given)
    assert override_settings(GOOD, None)[0] == GOOD


@pytest.mark.parametrize(
    "overrides",
    [
        {"nqueries": 5},
        {"n_queries": 0},
        {"frozen_models": "ignore"},
        {"pretrained_folder": None},
        {"connector_digest": "0" * 32},
        {"whisper": {"layers": 1}},
        ["n_queries"],
        "[",
        "n_queries: &a [*a]",
        "n_queries: !new:os.x {}",
    ],
)
def test_overrides_that_are_none_are_refused(overrides):
    with pytest.raises(InputError, match="overrides"):
        override_settings(GOOD, overrides)
