"""What evaluation, calibration and pseudo-labels share: recognisers that settings
name, and how utterances are read for them."""

from speechbrain_mser.dataio.bad_utterances import BadUtterances
from speechbrain_mser.dataio.cached_encoding import open_store
from speechbrain_mser.dataio.feature_reader import FeatureReader
from speechbrain_mser.dataio.microphones import find_worse
from speechbrain_mser.errors import InputError
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.inference.listening import parse_adaptation
from speechbrain_mser.inference.settings import OWN


def load_recognizer(source, settings, run_opts):
    """A trained recogniser and the reader of its features, as settings say.

    Arguments
    ---------
    source : str
        The folder that training left, a hub name, or "open".
    settings : dict
        Of evaluate.yaml, calibrate.yaml or pseudo_label.yaml.
    run_opts : dict
        SpeechBrain's: the device.
    """
    recognizer = EmotionRecognizer.from_hparams(
        source,
        overrides={
            name: settings[name]
            for name in ("whisper_hub", "llama_hub", *OWN)
            if settings[name] is not None
        },
        run_opts=run_opts,
        trusted=settings["trusted"],
    )
    encoder = recognizer.mods.encoder
    store = open_store(
        encoder,
        settings["features"],
        settings["feature_folder"],
        settings["feature_dtype"],
    )
    return recognizer, FeatureReader(
        encoder,
        store,
        settings["batch_size"],
        settings["num_workers"],
        BadUtterances(settings["on_bad_utterance"]),
        recognizer.device,
        [find_worse(settings.get("microphone"))],
    )


def load_recognizers(settings, run_opts):
    """Recognisers that are evaluated together, and how many they are.

    Each is loaded when it is its turn, by `load_recognizer`.

    Raises
    ------
    InputError
        There is none.
    """
    sources = settings["recognizer"]
    sources = [sources] if isinstance(sources, str) else list(sources or [])
    if not sources:
        raise InputError("no recogniser: recognizer takes a folder, or a list")
    loaded = (load_recognizer(name, settings, run_opts) for name in sources)
    return loaded, len(sources)


def read_adaptation(settings):
    """What is heard before a set is recognised, checked before all is loaded.

    Arguments
    ---------
    settings : dict
        Of evaluate.yaml or pseudo_label.yaml.

    Returns
    -------
    speechbrain_mser.inference.listening.Listening or None
        None where nothing is.

    Raises
    ------
    InputError
        What is asked for cannot be had.
    """
    how = ("draws", "seed", "kappa_mean", "kappa_variance", "kappa_speaker")
    return parse_adaptation(
        settings["adaptation"],
        **{name: settings[name] for name in how if name in settings},
    )
