"""What evaluation and calibration share: a recogniser over many utterances."""

import torch
from speechbrain.utils.logger import get_logger
from torch.utils.data import DataLoader
from tqdm import tqdm

from speechbrain_mser.dataio.batching import UtteranceBatch, make_dataset
from speechbrain_mser.dataio.encoding import encode_batch, open_store
from speechbrain_mser.errors import InputError
from speechbrain_mser.inference import EmotionRecognizer

logger = get_logger(__name__)


def load_recognizer(settings, run_opts):
    """The recogniser of an experiment, and the store of its features.

    Arguments
    ---------
    settings : dict
        Of evaluate.yaml or calibrate.yaml, as `read_settings` returns them.
    run_opts : dict
        SpeechBrain's: the device.

    Returns
    -------
    recognizer : EmotionRecognizer
        The trained system.
    store : FeatureStore or None
        Where its encoder's features may be.
    """
    recognizer = EmotionRecognizer.from_hparams(
        settings["recognizer"],
        overrides={
            hub: settings[hub]
            for hub in ("whisper_hub", "llama_hub")
            if settings[hub] is not None
        },
        run_opts=run_opts,
    )
    store = open_store(
        recognizer.mods.whisper,
        settings["features"],
        settings["feature_folder"],
        settings["feature_dtype"],
    )
    return recognizer, store


def recognize(recognizer, store, table, labels, settings, name):
    """Log-probabilities of all candidates, as the LLM gives them.

    Arguments
    ---------
    recognizer : EmotionRecognizer
        The trained system.
    store : FeatureStore or None
        Where the encoder's features may be.
    table : pandas.DataFrame
        The utterances.
    labels : list of str
        The candidates.
    settings : dict
        Batch size, workers, and what to do with unreadable utterances.
    name : str
        What the utterances are, for messages.

    Returns
    -------
    table : pandas.DataFrame
        The utterances that could be read, by ID.
    log_probs : torch.Tensor
        ``[n, n_labels]``, in the order of that table, on the CPU.

    Raises
    ------
    InputError
        An utterance could not be read and ``on_bad_utterance`` is "stop", or
        none could be.
    """
    loader = DataLoader(
        # Neighbours of like length: little is computed for padding.
        make_dataset(table.sort_values(["duration", "ID"]), store),
        batch_size=settings["batch_size"],
        num_workers=settings["num_workers"],
        collate_fn=UtteranceBatch,
    )
    found = {}
    for batch in tqdm(loader, name):
        for utterance in batch.bad:
            if settings["on_bad_utterance"] == "stop":
                raise InputError(f"{utterance.utterance}: {utterance.reason}")
            logger.warning(
                "%s left out: %s", utterance.utterance, utterance.reason
            )
        if len(batch) == 0:
            continue
        features = encode_batch(
            batch.to(recognizer.device), recognizer.mods.whisper, store
        )
        _, log_probs = recognizer.recognize_features(*features, labels)
        found.update(zip(batch.id, log_probs.cpu(), strict=True))
    if not found:
        raise InputError(f"{name}: no utterance could be read")
    table = table[table.ID.isin(found)].sort_values("ID")
    return table, torch.stack([found[utterance] for utterance in table.ID])
