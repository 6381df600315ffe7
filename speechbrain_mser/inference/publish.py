"""A recogniser, published on the hub, where `from_hparams` finds it by name."""

import shutil
import tempfile
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

import speechbrain_mser
from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation import calibration
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.files.tables import read_json, read_text
from speechbrain_mser.inference.folder import (
    CARD,
    FILES,
    SETTINGS_FILE,
    find_beside,
    find_weights,
    hex_digest,
    read_settings,
)
from speechbrain_mser.inference.hub_errors import hub_reason
from speechbrain_mser.inference.model_card import card_facts, model_card
from speechbrain_mser.inference.settings import settings_text
from speechbrain_mser.lobes.connector import copy_checkpoint
from speechbrain_mser.lobes.hub import is_public
from speechbrain_mser.training import record
from speechbrain_mser.training.record import read_record, write_record

# The settings that name frozen models, and who a connector knows them as.
_ROLES = {"whisper_hub": "encoder", "llama_hub": "llm"}
# What a card says of an evaluation set.
_FIGURES = ("n", "labels", "chance", "UA", "WA", "WF1")


def publish(
    recognizer,
    repo_id,
    private=None,
    token=None,
    revision=None,
    commit_message=None,
    evaluation=None,
    license=None,  # as the hub calls it
):
    """Push a recogniser to the hub; see `EmotionRecognizer.push_to_hub`."""
    _check_name(repo_id)
    with tempfile.TemporaryDirectory() as made:
        facts = write_copy(recognizer, made)
        results = read_evaluation(evaluation, recognizer)
        own = find_beside(recognizer.folder, CARD)
        written = read_text(own) if own.is_file() else None
        card = model_card(repo_id, facts, license, results, written)
        write_text(Path(made) / CARD, card)
        try:
            return _push(
                made, repo_id, private, token, revision, commit_message
            )
        # The hub's own errors are of many kinds, none of them a bug here.
        except Exception as error:
            raise InputError(
                f"{repo_id!r} cannot be pushed to the hub: {hub_reason(error)}"
            ) from None


def _push(folder, repo_id, private, token, revision, commit_message):
    """All files as one commit; its address."""
    api = HfApi(
        token=token,
        library_name="speechbrain-mser",
        library_version=speechbrain_mser.__version__,
    )
    api.create_repo(repo_id, private=private, exist_ok=True)
    if revision is not None:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    done = api.upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        revision=revision,
        commit_message=commit_message or "Push a recogniser of emotions",
        allow_patterns=FILES,
        # Those of a recogniser that was there and had more than this one.
        delete_patterns=FILES,
    )
    return done.commit_url


def _check_name(repo_id):
    """Refuse what is no name before anything is written."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"{repo_id!r}: {hub_reason(error)}") from None
    if "/" not in repo_id:
        raise InputError(
            f"{repo_id!r} does not say whose it is: names on the hub are "
            f"user/{repo_id} or organisation/{repo_id}"
        )


def write_copy(recognizer, target):
    """Write a recogniser's folder as others can use it.

    Plain settings, the same weights; frozen models by the names that others
    have them by, and no path of this machine.

    Arguments
    ---------
    recognizer : EmotionRecognizer
        From a folder of plain settings.
    target : str or path-like
        An empty folder.

    Returns
    -------
    dict
        The facts of its card.

    Raises
    ------
    InputError
        It was not loaded from a folder, or a frozen model is a folder of this
        machine, or others than it was trained with.
    """
    source, target = recognizer.folder, Path(target)
    if source is None:
        raise InputError(
            "only a recogniser that from_hparams has loaded can be pushed: "
            "this one has no folder"
        )
    settings = read_settings(source / SETTINGS_FILE)
    settings |= {name: _public(recognizer, settings, name) for name in _ROLES}
    names = {role: settings[name] for name, role in _ROLES.items()}
    path = target / "connector.safetensors"
    frozen_models = copy_checkpoint(
        find_weights(source, "connector", settings["connector_digest"]),
        path,
        names,
        recognizer.mods.connector.frozen_models,
    )
    settings["connector_digest"] = hex_digest(path)
    if settings["lora_rank"] > 0:
        path = target / "llama.safetensors"
        weights = find_weights(source, "llama", settings["llama_digest"])
        shutil.copyfile(weights, path)
        settings["llama_digest"] = hex_digest(path)
    fitted = find_beside(source, calibration.FILE)
    if fitted.is_file():
        shutil.copyfile(fitted, target / calibration.FILE)
    noted = read_record(find_beside(source, record.FILE))
    if noted:
        noted["frozen_models"] = frozen_models
        write_record(target / record.FILE, noted)
    # Last, as in a training: what counts is what they say.
    write_text(target / SETTINGS_FILE, settings_text(settings))
    return {**card_facts(source), "frozen_models": frozen_models}


def _public(recognizer, settings, name):
    """What others call a frozen model: as in the folder, or as it was loaded."""
    for called in (settings[name], getattr(recognizer.hparams, name)):
        if is_public(called):
            return called
    raise InputError(
        f"{name} is {settings[name]}, a folder of this machine, which nobody "
        "else has: load the recogniser with the hub's name of the same model, "
        f'from_hparams(..., overrides={{"{name}": "user/model"}}), and push it '
        "then"
    )


def read_evaluation(path, recognizer):
    """What evaluate.py has found of a recogniser.

    Arguments
    ---------
    path : str or path-like, optional
        Its output folder, or the ``metrics.json`` in it.
    recognizer : EmotionRecognizer
        The one that it should be of.

    Returns
    -------
    dict
        Evaluation set to metrics; empty without a path.

    Raises
    ------
    InputError
        The file is none of evaluate.py's, or of another recogniser.
    """
    if path is None:
        return {}
    path = Path(path)
    path = path / "metrics.json" if path.is_dir() else path
    results = read_json(path)
    connector = recognizer.describe()["connector"]
    for name, figures in results.items():
        if not isinstance(figures, dict) or not {*_FIGURES} <= {*figures}:
            raise InputError(
                f"{path}: {name!r} has not the figures of an evaluation set; "
                "give the folder that evaluate.py wrote"
            )
        if figures.get("connector", connector) != connector:
            raise InputError(
                f"{path} is the evaluation of another recogniser: its "
                f"connector is {figures['connector']}, here it is {connector}"
            )
    return results
