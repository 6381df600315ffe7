"""The folder that training leaves: found again, and built from.

Plain settings (``hyperparams.yaml``), the connector's parameters and, where
they were trained, the LLM's adapters. None of it is code.
"""

from pathlib import Path

from huggingface_hub import snapshot_download
from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML
from speechbrain.utils.logger import get_logger

from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation import calibration
from speechbrain_mser.files.fingerprints import file_digest
from speechbrain_mser.inference.hub_errors import hub_reason
from speechbrain_mser.inference.old_folders import SHAPE, convert_settings
from speechbrain_mser.inference.settings import (
    DIGESTS,
    has_tags,
    parse_settings,
    read_text,
)
from speechbrain_mser.lobes import build_connector, build_encoder
from speechbrain_mser.lobes.encoder import layer_numbers
from speechbrain_mser.lobes.hub import is_folder
from speechbrain_mser.lobes.llama import EmotionLLaMA
from speechbrain_mser.settings.hparams import explained
from speechbrain_mser.settings.project_files import PACKAGE
from speechbrain_mser.training import record

logger = get_logger(__name__)

SETTINGS_FILE = "hyperparams.yaml"
# Files, named as ever.
PARTS = ("connector", "llama")
CARD = "README.md"
WEIGHTS = [f"{part}.safetensors" for part in PARTS]
# What goes with them, and is nothing without.
BESIDE = [calibration.FILE, record.FILE, CARD]
# All that a recogniser's folder may hold, here and on the hub.
FILES = [*WEIGHTS, SETTINGS_FILE, *BESIDE]
# Files of an export that was interrupted as soon as its settings counted.
NEXT = "next-"
# In the output folder of a training.
OUTPUT = "recognizer"
# Settings that decide what features a connector hears.
HEARD = (
    "encoder_layers",
    "mean_over_time",
    "trim_silence",
    "speech_level",
    "pad_to_30s",
)
# The recogniser that is part of this project, and where it lies.
RELEASED = "open"
RELEASED_FOLDER = PACKAGE / "models" / RELEASED


def find_folder(
    source,
    settings_file=SETTINGS_FILE,
    revision=None,
    cache_dir=None,
    token=None,
    local_files_only=False,
    everything=False,
):
    """A recogniser's folder on this machine, fetched from the hub if need be.

    Arguments
    ---------
    source : str or path-like
        The folder, a hub name, or "open", the released recogniser, whatever
        lies in the working directory: a folder of that name is ``./open``, or
        any path that is no str.
    settings_file : str
        The name of its settings.
    revision : str, optional
        The hub's branch, tag or commit.
    cache_dir : str or path-like, optional
        Where the hub's files are kept; by default its own cache.
    token : str or bool, optional
        The hub's, for what is not public.
    local_files_only : bool
        Ask no network.
    everything : bool
        Fetch all files, not only a recogniser's own.

    Returns
    -------
    pathlib.Path
        All of its files are of one revision.

    Raises
    ------
    InputError
        There is no such folder, here or on the hub, or no recogniser in it.
    """
    if source == RELEASED:
        return _find_released()
    source = str(source)
    if is_folder(source):
        folder, inner = Path(source), Path(source, OUTPUT)
        if (inner / SETTINGS_FILE).is_file() and not _is_recognizer(folder):
            raise InputError(
                f"{folder} is a training's output folder: the recogniser is "
                f"{inner}"
            )
        return folder
    if Path(source).is_absolute() or source.startswith("."):
        raise InputError(f"there is no folder {source}")
    names = {*FILES, settings_file}
    try:
        folder = Path(
            snapshot_download(
                source,
                revision=revision,
                cache_dir=cache_dir,
                token=token,
                local_files_only=local_files_only,
                allow_patterns=None if everything else sorted(names),
            )
        )
    # The hub's own errors are of many kinds, none of them a bug here.
    except Exception as error:
        raise InputError(
            f"{source!r} is neither a folder that training left (with a "
            f"{settings_file}) nor to be had from the hub"
            f"{_at(revision)}: {hub_reason(error)}; without a network, give "
            "the folder that holds it"
        ) from None
    if not (folder / settings_file).is_file():
        raise InputError(
            f"{source!r} is on the hub{_at(revision)}, but holds no "
            f"recogniser: it has no {settings_file}. A model that is to be "
            "listened with or that is to answer is whisper_hub or llama_hub"
        )
    return folder


def _is_recognizer(folder):
    """Whether a folder has a connector, be it in the middle of an export."""
    names = (WEIGHTS[0], f"{NEXT}{WEIGHTS[0]}")
    return any((folder / name).is_file() for name in names)


def _at(revision):
    return "" if revision is None else f" at revision {revision!r}"


def _find_released():
    """The released recogniser's folder."""
    if not (RELEASED_FOLDER / SETTINGS_FILE).is_file():
        raise InputError(
            f"{RELEASED!r}, the released recogniser, is not in "
            f"{RELEASED_FOLDER}: here it was not trained yet; make train-open "
            f"MSER_DATA=FOLDER trains it (a folder called {RELEASED} is "
            f"./{RELEASED})"
        )
    return RELEASED_FOLDER


def read_settings(path):
    """A recogniser's settings, checked.

    Arguments
    ---------
    path : str or path-like
        The settings file in its folder.

    Returns
    -------
    dict
        As `recognizer_settings.check_settings` returns it.

    Raises
    ------
    InputError
        They are not plain, nor those that older trainings left.
    """
    text = read_text(path)
    if has_tags(text, path):
        return convert_settings(text, path)
    return parse_settings(text, path)


def load_pretrained(source, model):
    """Take the parameters of another training's recogniser.

    Arguments
    ---------
    source : str or path-like
        Its folder, or a hub name.
    model : dict
        Of model.yaml: "encoder"; "connector", of the same shape; "llm",
        adapters are read where it has some; and its settings.

    Returns
    -------
    corpora : dict
        Those that it was trained on, as far as its settings say: name to what
        its training's record says of it.
    words : set of str
        Those that it was trained to say, as far as they do.

    Raises
    ------
    InputError
        There is none, it is of another shape, or its connector was trained
        on other features and ``frozen_models`` is "strict".
    """
    folder = find_folder(source)
    path = folder / SETTINGS_FILE
    text = read_text(path)
    # HyperPyYAML says no digests.
    settings = dict.fromkeys(DIGESTS)
    if not has_tags(text, path):
        settings = parse_settings(text, path)
        _check_heard(folder, settings, model)
    else:
        tree = YAML().load(text)  # nothing is built
        settings |= {
            name: list(tree[name])
            for name in ("trained_corpora", "untrained_words", "label_words")
            if isinstance(tree.get(name), list)
        }
    load_parts(folder, settings, model["connector"], model["llm"], go_on=True)
    path = find_beside(folder, record.FILE)
    recorded = record.read_record(path).get("corpora", {})
    corpora = {
        name: recorded.get(name, {})
        for name in settings.get("trained_corpora", [])
    }
    if "label_words" not in settings:
        return corpora, set()
    words = {*candidate_labels(settings["label_words"])}
    return corpora, words - {*settings.get("untrained_words", [])}


def _check_heard(folder, settings, model):
    """Refuse a connector that heard other features of the same width.

    Its statistics and all that it learned are of those.
    """
    layers, encoder = settings["encoder_layers"], model["encoder"]
    found = {name: settings[name] for name in HEARD}
    expected = {name: model[name] for name in HEARD}
    # -1 is another name of the last.
    if layer_numbers(layers, encoder.n_layers) == encoder.layers:
        del found["encoder_layers"], expected["encoder_layers"]
    differing = [n for n, value in found.items() if value != expected[n]]
    if not differing:
        return
    told = "; ".join(
        f"{name} was {found[name]!r}, here it is {expected[name]!r}"
        for name in differing
    )
    if model["frozen_models"] != "warn":
        raise InputError(
            f"{folder}: its connector was trained on other features ({told}); "
            "set them as they were, or train anew (frozen_models: warn goes "
            "on all the same)"
        )
    logger.warning(
        "%s: its connector was trained on other features (%s); it has to "
        "learn them anew (frozen_models is warn)",
        folder,
        told,
    )


def needs_trust(path):
    """Whether a settings file is HyperPyYAML that may run others' code.

    Arguments
    ---------
    path : str or path-like
        The file.

    Returns
    -------
    bool
        False for plain settings, and what older trainings left in their place.

    Raises
    ------
    InputError
        It is no YAML.
    """
    text = read_text(path)
    if not has_tags(text, path):
        return False
    try:
        convert_settings(text, path)
    except InputError:
        return True
    return False


def load_trusted(folder, settings_file, overrides, overrides_must_match):
    """What HyperPyYAML builds, with the folder's parameters.

    Arguments
    ---------
    folder : path-like
        The recogniser's.
    settings_file : str
        A file in it that the user trusts: it can run anything.
    overrides : dict or str
        Settings in place of the file's.
    overrides_must_match : bool
        Refuse those that the file does not have.

    Returns
    -------
    dict
        Objects and settings by name; "modules" are the lobes.

    Raises
    ------
    InputError
        The parameters are missing, damaged, or of another model.
    """
    path = folder / settings_file
    with explained(path), open(path, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides, overrides_must_match)
    modules = hparams["modules"]
    load_parts(
        folder,
        dict.fromkeys(DIGESTS),
        modules["connector"],
        modules["llm"],
    )
    return hparams


def find_beside(folder, name):
    """Where a file that goes with a recogniser's weights is.

    Arguments
    ---------
    folder : str or path-like
        The recogniser's.
    name : str
        One of `BESIDE`.

    Returns
    -------
    pathlib.Path
        Of an export that was interrupted, the new one's: where its connector
        is still to be renamed and the settings are its, so may be the others.
        Whether anything is there is another question.
    """
    path = Path(folder) / name
    following = path.with_name(NEXT + name)
    return following if following.is_file() and interrupted(folder) else path


def interrupted(folder):
    """Whether an export was interrupted when its settings counted already.

    Arguments
    ---------
    folder : str or path-like
        The recogniser's.

    Returns
    -------
    bool
        Its connector is there under the name that it has until then; it is
        the last to be renamed.
    """
    folder = Path(folder)
    following = folder / f"{NEXT}{WEIGHTS[0]}"
    if not following.is_file():
        return False
    try:
        digest = read_settings(folder / SETTINGS_FILE)["connector_digest"]
    except InputError:
        return False
    return hex_digest(following) == digest


def find_weights(folder, part, digest):
    """The file with a part's parameters.

    Arguments
    ---------
    folder : str or path-like
        The recogniser's.
    part : str
        "connector" or "llama".
    digest : str, optional
        Of its content, as the settings say; older ones say none.

    Returns
    -------
    pathlib.Path
        A file that is there, with that content.

    Raises
    ------
    InputError
        There is none, or another one.
    """
    path = Path(folder) / f"{part}.safetensors"
    if digest is None and path.is_file():
        return path
    for candidate in (path, path.with_name(NEXT + path.name)):
        if candidate.is_file() and hex_digest(candidate) == digest:
            return candidate
    if path.is_file():
        raise InputError(
            f"{path} is not the file that {SETTINGS_FILE} goes with "
            f"({part}_digest): it was damaged or exchanged; copy or fetch the "
            f"folder again, or delete the line if you changed it yourself"
        )
    raise InputError(
        f"{folder} has no {path.name}: give the folder 'recognizer' in a "
        "training's output folder"
    )


def hex_digest(path):
    """A file's digest, as the settings note it."""
    try:
        return file_digest(path).hex()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def load_parts(folder, digests, connector, llm, go_on=False):
    """Read a recogniser's parameters into its connector and adapters.

    Arguments
    ---------
    folder : str or path-like
        The recogniser's.
    digests : dict
        Its settings, those of `DIGESTS` at least.
    connector : Connector
        Of the same shape.
    llm : EmotionLLaMA
        Adapters are read where it has some.
    go_on : bool
        As for `Connector.load`.

    Raises
    ------
    InputError
        A file is missing, damaged, or belongs to another model.
    """
    connector.load(
        find_weights(folder, "connector", digests["connector_digest"]), go_on
    )
    if llm.lora_rank > 0:
        llm.load(find_weights(folder, "llama", digests["llama_digest"]))


def build_recognizer(folder, settings, pretrained_folder):
    """The lobes that settings describe, with the folder's parameters.

    Arguments
    ---------
    folder : str or path-like
        The recogniser's.
    settings : dict
        As `read_settings` returns them.
    pretrained_folder : str
        Where the frozen models' files from the hub are kept.

    Returns
    -------
    dict
        "encoder", "connector" and "llm".

    Raises
    ------
    InputError
        A frozen model cannot be had, or the parameters are of other settings.
    """
    weights = find_weights(folder, "connector", settings["connector_digest"])
    _check_size(weights, settings)
    encoder = build_encoder(
        source=settings["whisper_hub"],
        save_path=pretrained_folder,
        layers=settings["encoder_layers"],
        window=settings["encoder_window"],
        pad_to_30s=settings["pad_to_30s"],
        mean_over_time=settings["mean_over_time"],
        trim_silence=settings["trim_silence"],
        speech_level=settings["speech_level"],
        dtype=settings["frozen_dtype"],
    )
    llm = EmotionLLaMA(
        source=settings["llama_hub"],
        save_path=pretrained_folder,
        prompt=settings["prompt"],
        prompt_before=settings["prompt_before"],
        chat_template=settings["chat_template"],
        token_mixture=settings["token_mixture"],
        meaning_frames=settings["meaning_frames"],
        dtype=settings["frozen_dtype"],
        load_in_4bit=settings["load_in_4bit"],
        lora_rank=settings["lora_rank"],
        emotion_words=settings["emotion_words"],
        activation_checkpointing=settings["activation_checkpointing"],
    )
    connector = build_connector(
        connector_type=settings["connector_type"],
        input_dim=encoder.hidden_size,
        n_input_layers=encoder.n_output_layers,
        layer_join=settings["layer_join"],
        output_dim=llm.hidden_size,
        output_rms=llm.embedding_rms,
        n_queries=settings["n_queries"],
        standardize=settings["standardize"],
        hear_meaning=settings["hear_meaning"],
        query_dim=settings["query_dim"],
        # All parameters are in the folder: nothing comes from BERT again.
        bert_source=None,
        cross_attention_every=settings["cross_attention_every"],
        dropout=settings["dropout"],
        **{name: settings[setting] for name, setting in SHAPE.items()},
    )
    load_parts(folder, settings, connector, llm)
    return {"encoder": encoder, "connector": connector, "llm": llm}


def _check_size(path, settings):
    """Refuse a small file's promise of a model that does not fit the memory."""
    if settings["connector_type"] != "qformer":
        return
    layers, width, ffn = (
        settings[name] or 1
        for name in ("qformer_layers", "qformer_hidden", "qformer_ffn")
    )
    # Self-attention and feed-forward; a byte per parameter is the least.
    least = layers * width * (4 * width + 2 * ffn)
    least += settings["n_queries"] * settings["query_dim"]
    if path.stat().st_size < least:
        raise InputError(
            f"{path} is too small for {SETTINGS_FILE}'s {layers} layers of "
            f"width {width}: it was made with other settings"
        )
