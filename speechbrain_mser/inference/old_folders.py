"""Recognisers' folders from before their settings were plain.

Their ``hyperparams.yaml`` is HyperPyYAML: our own model.yaml of the time, with
the experiment's values in it. It is not loaded as such: where it describes
the objects that we build anyway, its plain values are the settings.
"""

import functools

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from speechbrain_mser.errors import InputError
from speechbrain_mser.inference.settings import OWN, check_settings

# What model.yaml describes, whatever the experiment.
_OBJECTS = """
encoder: !apply:speechbrain_mser.lobes.build_encoder
  source: !ref <whisper_hub>
  encoder_class: !ref <encoder_class>
  save_path: !ref <pretrained_folder>
  layers: !ref <encoder_layers>
  window: !ref <encoder_window>
  pad_to_30s: !ref <pad_to_30s>
  mean_over_time: !ref <mean_over_time>
  trim_silence: !ref <trim_silence>
  speech_level: !ref <speech_level>
  dtype: !ref <frozen_dtype>
llm: !new:speechbrain_mser.lobes.llama.EmotionLLaMA
  source: !ref <llama_hub>
  save_path: !ref <pretrained_folder>
  prompt: !ref <prompt>
  prompt_before: !ref <prompt_before>
  chat_template: !ref <chat_template>
  token_mixture: !ref <token_mixture>
  meaning_frames: !ref <meaning_frames>
  dtype: !ref <frozen_dtype>
  load_in_4bit: !ref <load_in_4bit>
  lora_rank: !ref <lora_rank>
  emotion_words: !ref <emotion_words>
  activation_checkpointing: !ref <activation_checkpointing>
connector: !apply:speechbrain_mser.lobes.build_connector
  connector_type: !ref <connector_type>
  input_dim: !ref <encoder.hidden_size>
  n_input_layers: !ref <encoder.n_output_layers>
  layer_join: !ref <layer_join>
  output_dim: !ref <llm.hidden_size>
  output_rms: !ref <llm.embedding_rms>
  n_queries: !ref <n_queries>
  standardize: !ref <standardize>
  hear_meaning: !ref <hear_meaning>
  query_dim: !ref <query_dim>
  bert_source: !ref <bert_hub>
  save_path: !ref <pretrained_folder>
  n_layers: !ref <qformer_layers>
  hidden_size: !ref <qformer_hidden>
  n_heads: !ref <qformer_heads>
  intermediate_size: !ref <qformer_ffn>
  cross_attention_every: !ref <cross_attention_every>
  dropout: !ref <dropout>
modules:
  encoder: !ref <encoder>
  connector: !ref <connector>
  llm: !ref <llm>
"""
# What it described while it was written into recognisers' folders.
_OLD_NAMES = {
    "!apply:speechbrain_mser.lobes.build_encoder": (
        "!new:speechbrain_mser.lobes.whisper.WhisperEncoder"
    ),
    "  encoder_class: !ref <encoder_class>\n": "",
    "encoder: !": "whisper: !",
    "<encoder.": "<whisper.",
    "<encoder>": "<whisper>",
    "llm: !": "llama: !",
    "<llm": "<llama",
}
_OLD_OBJECTS = (
    functools.reduce(
        lambda text, names: text.replace(*names), _OLD_NAMES.items(), _OBJECTS
    )
    + """
pretrainer: !new:speechbrain_mser.checkpoints.SafetensorsPretrainer
  loadables:
    connector: !ref <connector>
    llama: !ref <llama>
  conditions:
    llama: !ref <lora_rank>
"""
)
# Arguments that came later, each with the setting that stands for it.
_LATER = {
    "window",
    "layer_join",
    "mean_over_time",
    "trim_silence",
    "speech_level",
    "activation_checkpointing",
    "emotion_words",
    "prompt_before",
    "chat_template",
    "token_mixture",
    "hear_meaning",
    "meaning_frames",
}
# In a trained Q-Former's place of BERT stands its shape.
SHAPE = {
    "n_layers": "qformer_layers",
    "hidden_size": "qformer_hidden",
    "n_heads": "qformer_heads",
    "intermediate_size": "qformer_ffn",
}


def convert_settings(text, where):
    """The plain settings of a HyperPyYAML text, if it says nothing else.

    Arguments
    ---------
    text : str
        With tags; `has_tags` has gone through it.
    where : str
        The file, for the message.

    Returns
    -------
    dict
        As `check_settings` returns it.

    Raises
    ------
    InputError
        It describes other objects than those that we build.
    """
    expected = YAML().load(_OLD_OBJECTS)
    tree = _read(text, expected, where)
    connector = tree.get("connector")
    settings = {
        name: value for name, value in tree.items() if name not in expected
    }
    # The user's, not the folder's
    for name in OWN:
        settings.pop(name, None)
    if isinstance(connector, dict) and "bert_source" in connector:
        shape = {
            SHAPE[name]: connector[name]
            for name in SHAPE
            if isinstance(connector.get(name), int)
        }
        if connector["bert_source"] is None and len(shape) == len(SHAPE):
            settings |= shape
            for name in ("bert_source", *SHAPE):
                connector[name] = expected["connector"][name]
    for name in expected:
        _compare(tree.get(name), expected[name], name, where)
    return check_settings(settings, where)


def describes_ours(tree, values):
    """Whether a model's YAML describes the objects that we build.

    Arguments
    ---------
    tree : dict
        HyperPyYAML as a round trip reads it, from an experiment of one's own.
        One of an earlier version lacks arguments that came later.
    values : dict
        Its settings, as they are in the training.

    Returns
    -------
    bool
        Plain settings say the same.
    """
    expected = YAML().load(_OBJECTS)
    # A training has modules of its own, which a recogniser has not.
    modules = {name: tree["modules"].get(name) for name in expected["modules"]}
    try:
        for name in expected:
            there = modules if name == "modules" else tree.get(name)
            _compare(there, expected[name], name, "", _without_effect(values))
    except InputError:
        return False
    return True


def _without_effect(values):
    """Arguments that came later whose setting changes nothing."""
    values = {**values, "window": values.get("encoder_window")}
    if not values.get("hear_meaning"):
        values["meaning_frames"] = None
    neutral = {"window": 30, "layer_join": "mix"}
    return {
        name
        for name in _LATER
        if not values.get(name) or values[name] == neutral.get(name)
    }


def _read(text, objects, where):
    """The tree with its tags as names; a round trip builds nothing."""
    try:
        tree = YAML().load(text)
    except (YAMLError, ValueError) as error:
        problem = getattr(error, "problem", None) or error
        raise InputError(
            f"{where}: the hyperparameters are no YAML: {problem}"
        ) from None
    if not isinstance(tree, dict) or _tag(tree):
        raise _foreign(_tag(tree) or type(tree).__name__, where)
    for name, value in tree.items():
        if not isinstance(name, str):
            raise InputError(f"{where}: a setting's name is not text")
        if name not in objects:
            _refuse_tags(value, where)
    return tree


def _refuse_tags(node, where):
    if _tag(node):
        raise _foreign(_tag(node), where)
    parts = [*node, *node.values()] if isinstance(node, dict) else node
    if isinstance(node, (dict, list)):
        for part in parts:
            _refuse_tags(part, where)


def _compare(node, expected, name, where, later=_LATER):
    """Refuse a node that says another thing than ours."""
    if _tag(node) != _tag(expected):
        raise _foreign(_tag(node) or f"another {name}", where)
    if not isinstance(expected, dict):
        if getattr(node, "value", node) != expected.value:
            raise _foreign(f"another {name}", where)
        return
    if not isinstance(node, dict):
        raise _foreign(f"another {name}", where)
    for key in expected.keys() | node.keys():
        if key not in expected:
            raise _foreign(f"{name}: {key}", where)
        if key in node or key not in later:
            _compare(
                node.get(key), expected[key], f"{name}: {key}", where, later
            )


def _tag(node):
    """A node's own tag, as written; of a plain value None."""
    return getattr(getattr(node, "tag", None), "value", None)


def _foreign(what, where):
    return InputError(
        f"{where} uses {what[:80]}, which may run code from outside this package; "
        "read the file, and pass trusted=True (scripts: --trusted True, mser: "
        "--trusted) if you wrote it"
    )
