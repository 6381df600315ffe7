"""What evaluation and calibration share: a recogniser over many utterances."""

from functools import partial

import torch
from speechbrain.utils.logger import get_logger

from speechbrain_mser.dataio.batching import BadUtterance, read_batches
from speechbrain_mser.dataio.cached_encoding import (
    NO_SCORE,
    encode_batch,
    open_store,
)
from speechbrain_mser.errors import InputError
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.inference.settings import OWN
from speechbrain_mser.lobes.alignment import CorpusAlignment
from speechbrain_mser.lobes.standardize import FeatureStandardizer

logger = get_logger(__name__)


def load_recognizer(source, settings, run_opts):
    """A trained recogniser, and the store of its encoder's features.

    Arguments
    ---------
    source : str
        The folder that training left, or a hub name.
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
        source,
        overrides={
            name: settings[name]
            for name in ("whisper_hub", "llama_hub", *OWN)
            if settings[name] is not None
        },
        run_opts=run_opts,
    )
    store = open_store(
        recognizer.mods.encoder,
        settings["features"],
        settings["feature_folder"],
        settings["feature_dtype"],
    )
    return recognizer, store


def features_of(recognizer, store, table, settings, name):
    """Batches of utterances with the encoder's features.

    Arguments
    ---------
    recognizer : EmotionRecognizer
        The trained system.
    store : FeatureStore or None
        Where its encoder's features may be.
    table : pandas.DataFrame
        The utterances.
    settings : dict
        Batch size, workers, and what to do with unreadable utterances.
    name : str
        What the utterances are, for messages.

    Yields
    ------
    batch : UtteranceBatch
        Of the utterances that could be read.
    features : torch.Tensor
        ``[batch, frames, dim]`` or ``[batch, layers, frames, dim]``.
    lens : torch.Tensor
        ``[batch]``, relative lengths.

    Raises
    ------
    InputError
        An utterance could not be read and ``on_bad_utterance`` is "stop".
    """

    on_bad = partial(_leave_out, settings)
    for batch in read_batches(
        # Neighbours of like length: little is computed for padding.
        table.sort_values(["duration", "ID"]),
        store,
        name,
        on_bad,
        settings["batch_size"],
        settings["num_workers"],
    ):
        batch = batch.to(recognizer.device)
        found = encode_batch(batch, recognizer.mods.encoder, store, on_bad)
        if len(batch):
            yield batch, *found


def _leave_out(settings, bad):
    """Stop at an utterance that cannot be used, or go on without it."""
    if settings["on_bad_utterance"] == "stop":
        raise InputError(f"{bad.utterance}: {bad.reason}")
    logger.warning("%s left out: %s", bad.utterance, bad.reason)


def align_to_training(recognizer, store, table, settings, name):
    """Learn to move utterances to the mean and deviation of the training.

    Needs their audio, but no label: what is then said of them is transductive.

    Arguments
    ---------
    recognizer, store, table, settings, name
        As for `features_of`.

    Returns
    -------
    CorpusAlignment
        For the corpora in the table, taken together.

    Raises
    ------
    InputError
        The recogniser was trained without standardisation.
    """
    common = recognizer.mods.connector.standardizer
    if common is None:
        raise InputError(
            "adaptation: set moves features to the training's mean and "
            "deviation, and this recogniser has none (standardize: False)"
        )
    own = FeatureStandardizer(*reversed(common.mean.shape))
    own = own.to(recognizer.device)
    name = f"{name}, statistics"
    for _, *features in features_of(recognizer, store, table, settings, name):
        own.update(*features)
    own.finish()
    alignment = CorpusAlignment(common)
    for corpus in set(table.corpus):
        alignment.add(corpus, own)
    return alignment


def recognize(recognizer, store, table, labels, settings, name, alignment=None):
    """Log-probabilities of all candidates, as the LLM gives them.

    Arguments
    ---------
    recognizer, store, table, settings, name
        As for `features_of`.
    labels : list of str
        The candidates.
    alignment : CorpusAlignment, optional
        How features are moved before they are connected.

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
    found = {}
    for batch, features, lens in features_of(
        recognizer, store, table, settings, name
    ):
        if alignment is not None:
            features = alignment(features, batch.corpus)
        log_probs = recognizer.score_features(features, lens, labels).cpu()
        for utterance, row in zip(batch.id, log_probs, strict=True):
            if row.isnan().any():
                _leave_out(settings, BadUtterance(utterance, NO_SCORE))
            else:
                found[utterance] = row
    if not found:
        raise InputError(f"{name}: no utterance could be read and recognised")
    table = table[table.ID.isin(found)].sort_values("ID")
    return table, torch.stack([found[utterance] for utterance in table.ID])


def load_recognizers(settings, run_opts):
    """Recognisers that are evaluated together, loaded one by one.

    Arguments
    ---------
    settings : dict
        ``recognizer`` is a folder or hub name, or a list of them; the rest as
        for `load_recognizer`.
    run_opts : dict
        SpeechBrain's: the device.

    Returns
    -------
    recognizers : iterator
        Of what `load_recognizer` returns; each is loaded when it is its turn.
    count : int
        How many there are.

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


def recognize_sets(recognizers, count, settings, sets):
    """What one or several recognisers make of one or several sets.

    Arguments
    ---------
    recognizers, count
        As `load_recognizers` returns; log-probabilities are averaged.
    settings : dict
        ``adaptation`` is "none", or "set" for features moved to the training's
        mean and deviation; the rest as for `features_of`.
    sets : dict
        Name to the utterances, the candidates, and the utterances whose audio
        adaptation may take (`pandas.DataFrame`, list of str,
        `pandas.DataFrame`).

    Yields
    ------
    name : str
        The set's.
    table : pandas.DataFrame
        The utterances that could be read, by ID.
    log_probs : torch.Tensor
        ``[n, n_labels]``, normalised over the labels.
    each : list of torch.Tensor
        The same of every recogniser.

    Raises
    ------
    InputError
        As `recognize` and `align_to_training`.
    """
    found = {name: [] for name in sets}
    for number, (recognizer, store) in enumerate(recognizers, start=1):
        for name, (table, labels, audio) in sets.items():
            alignment = None
            if settings["adaptation"] == "set":
                alignment = align_to_training(
                    recognizer, store, audio, settings, name
                )
            read, log_probs = recognize(
                recognizer, store, table, labels, settings, name, alignment
            )
            found[name].append(log_probs.log_softmax(-1))
            if number == count:
                each = found[name]
                mean = torch.stack(each).mean(0).log_softmax(-1)
                yield name, read, mean, each


def check_adaptation(settings):
    """Refuse what is no adaptation, before anything is loaded.

    Raises
    ------
    InputError
        Another word than none or set.
    """
    if settings["adaptation"] not in ("none", "set"):
        raise InputError(
            f"adaptation is {settings['adaptation']!r}, expected none or set"
        )
