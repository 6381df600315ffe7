"""The recogniser that a command line names, and what it has heard."""

import argparse
import logging

from speechbrain_mser.emotions import LABEL_SETS, candidate_labels
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.fingerprints import settings_digest

RELEASED = "open"
# Warn that the LLM is frozen; each has set its own level when imported.
_LOUD = (
    "speechbrain.integrations.huggingface.huggingface",
    "speechbrain.lobes.models.huggingface_transformers.huggingface",
)


def add_arguments(parser):
    """What names a recogniser.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Gets them.
    """
    group = parser.add_argument_group("recogniser")
    group.add_argument(
        "--recognizer",
        default=RELEASED,
        metavar="FOLDER|NAME",
        help="a folder that training left, or its name on the hub; by "
        "default the released one",
    )
    group.add_argument(
        "--heard",
        metavar="FILE",
        help="what it has heard of the room or the speaker (mser listen)",
    )
    group.add_argument(
        "--device",
        help="cpu, cuda, cuda:1 or mps; by default the best there is",
    )
    group.add_argument(
        "--overrides",
        metavar="YAML",
        help="settings in place of the recogniser's, such as "
        '"{whisper_hub: /models/whisper, llama_hub: /models/llama}"',
    )
    group.add_argument(
        "--trusted",
        action="store_true",
        help="run the code that the folder names, an encoder or connector of "
        "your own; never for a folder of somebody whom you would not let in",
    )


def add_labels(parser):
    """What names the candidates.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Gets it.
    """
    parser.add_argument(
        "--labels",
        type=parse_labels,
        metavar="WORD,WORD",
        help="the candidates: any words, or one of the sets "
        f"{', '.join(LABEL_SETS)}; by default the words of training",
    )


def add_calibration(parser):
    """What is to be taken back of probabilities.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Gets it.
    """
    parser.add_argument(
        "--calibration",
        help="none, temperature or temperature+prior: what to take back of "
        "the probabilities; by default temperature, which changes no answer, "
        "where the recogniser was calibrated and the candidates were trained",
    )


def parse_labels(text):
    """The candidates that a command line lists.

    Arguments
    ---------
    text : str
        Words with commas between them, or the name of a set.

    Returns
    -------
    list of str
        The words.

    Raises
    ------
    argparse.ArgumentTypeError
        One is empty or given twice.

    Example
    -------
    >>> parse_labels("bored, excited")
    ['bored', 'excited']
    >>> parse_labels("paper4")
    ['neutral', 'happy', 'sad', 'angry']
    """
    try:
        return list(
            candidate_labels(text if text in LABEL_SETS else text.split(","))
        )
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def load_recognizer(
    recognizer, heard=None, device=None, overrides=None, trusted=False
):
    """A recogniser, ready.

    Arguments
    ---------
    recognizer : str
        As for `EmotionRecognizer.from_hparams`.
    heard : str, optional
        A file of `HeardSpeech`.
    device : str, optional
        As for `speechbrain_mser.devices.find_device`.
    overrides : str, optional
        YAML.
    trusted : bool
        As for `EmotionRecognizer.from_hparams`.

    Returns
    -------
    EmotionRecognizer
        Adapted to what was heard.

    Raises
    ------
    InputError
        One of them cannot be used.
    """
    from speechbrain_mser.inference import EmotionRecognizer, HeardSpeech

    _quieten()
    known = HeardSpeech.load(heard) if heard else None  # seconds before it
    loaded = EmotionRecognizer.from_hparams(
        recognizer,
        overrides=overrides,
        run_opts={"device": device} if device else None,
        trusted=trusted,
    )
    if known is not None:
        loaded.adapt(known)
    return loaded


def _quieten():
    """Of loading, say nothing: it is the same each time, and soon done."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)


def load_named(options):
    """The recogniser of `add_arguments`.

    Arguments
    ---------
    options : argparse.Namespace
        Parsed.

    Returns
    -------
    EmotionRecognizer
        Ready.
    """
    return load_recognizer(
        options.recognizer,
        options.heard,
        options.device,
        options.overrides,
        options.trusted,
    )


def identify(recognizer):
    """What a recogniser's answers depend on, for a record of them.

    Arguments
    ---------
    recognizer : EmotionRecognizer
        Adapted or not.

    Returns
    -------
    dict
        "recognizer", a digest of its weights and settings and of its frozen
        models', and "heard", one of what it has heard, None for nothing.
    """
    described = {
        **recognizer.describe(),
        **recognizer.listener,
        "llm": recognizer.mods.llm.digest,
    }
    heard = recognizer.heard
    return {
        "recognizer": settings_digest(described),
        "heard": None if heard is None else heard.digest(),
    }
