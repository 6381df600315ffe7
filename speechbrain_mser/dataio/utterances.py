"""From manifest rows to utterances: which are taken, and what is read of each."""

from dataclasses import dataclass
from functools import partial

import pandas
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.logger import get_logger

from speechbrain_mser.dataio.audio import AudioError, load_audio
from speechbrain_mser.dataio.bad_utterances import BadUtterance
from speechbrain_mser.dataio.batching import UtteranceBatch
from speechbrain_mser.errors import InputError
from speechbrain_mser.features.records import DamagedFeaturesError
from speechbrain_mser.features.store import UtteranceKey
from speechbrain_mser.files.fingerprints import file_identity

logger = get_logger(__name__)


@dataclass(frozen=True)
class StoredUtterance:
    """An utterance that a feature store knows or will know.

    Arguments
    ---------
    key : UtteranceKey
        Its name in the store.
    features : torch.Tensor, optional
        ``[frames, dim]`` or ``[layers, frames, dim]``, if it was there.
    wav : torch.Tensor, optional
        ``[time]``, if it was not.
    """

    key: UtteranceKey
    features: torch.Tensor | None = None
    wav: torch.Tensor | None = None


def read_signal(utterance, wav, start, stop, microphone=None):
    """Load an utterance's audio, or say what is wrong with it.

    Arguments
    ---------
    utterance : str
        The ID.
    wav : str
        The file.
    start : float
        Seconds; NaN for the beginning.
    stop : float
        Seconds; NaN for the end.
    microphone : callable, optional
        ``[time] -> [time]``: what it is to have been recorded through.

    Returns
    -------
    torch.Tensor or BadUtterance
        ``[time]`` at 16 kHz.

    Example
    -------
    >>> read_signal("x", "/no/such.wav", float("nan"), float("nan")).reason
    '/no/such.wav: no such file'
    """
    try:
        samples = load_audio(wav, start, stop)
    except AudioError as error:
        return BadUtterance(utterance, str(error))
    return samples if microphone is None else _heard(microphone, samples)


def _heard(microphone, samples):
    """What a microphone makes of a signal, if it is one.

    Raises
    ------
    InputError
        It is not: a microphone that is wrong once is wrong.
    """
    heard = microphone(samples)
    if not (
        isinstance(heard, torch.Tensor)
        and heard.is_floating_point()
        and heard.ndim == 1
        and len(heard)
        and heard.isfinite().all()
    ):
        what = (
            f"{heard.dtype} of shape {[*heard.shape]}"
            if isinstance(heard, torch.Tensor)
            else type(heard).__name__
        )
        raise InputError(
            f"{microphone} makes {what} of {len(samples)} samples, expected a "
            "float tensor [time] of finite numbers, not empty"
        )
    return heard


def select_utterances(table, split=None, languages=None, labels=None):
    """Take the rows that an experiment uses, and log what is left out.

    Arguments
    ---------
    table : pandas.DataFrame
        As `dataio.manifest.read_manifest` returns.
    split : str, optional
        Only this split.
    languages : str or list of str, optional
        Only this language or these (ISO 639-3).
    labels : list of str, optional
        Only these emotions; an utterance without an emotion is never taken.

    Returns
    -------
    pandas.DataFrame
        At least one row.

    Raises
    ------
    InputError
        Nothing is left.

    Example
    -------
    >>> import pandas
    >>> table = pandas.DataFrame({"split": ["train", "test"],
    ...     "language": "eng", "emotion": ["happy", "calm"]})
    >>> len(select_utterances(table, split="train"))
    1
    """
    if isinstance(languages, str):
        languages = [languages]
    kept = table
    for name, wanted in (
        ("split", None if split is None else [split]),
        ("language", languages),
    ):
        if wanted is not None:
            found = sorted(set(kept[name]))
            kept = kept[kept[name].isin(wanted)]
            if kept.empty:
                raise InputError(
                    f"no utterance has {name} {', '.join(wanted)}; the "
                    f"manifests have {', '.join(found)}"
                )
    chosen = kept.emotion != "" if labels is None else kept.emotion.isin(labels)
    left_out = kept.emotion[~chosen].replace("", "(no emotion)").value_counts()
    if len(left_out):
        # Not info: before a training begins to log, nobody would see it.
        logger.warning(
            "left out, emotion not among the labels: %s",
            ", ".join(f"{n} {emotion}" for emotion, n in left_out.items()),
        )
    if not chosen.any():
        raise InputError(
            f"no utterance has an emotion among {', '.join(labels or ['any'])}"
        )
    return kept[chosen]


def read_stored(utterance, wav, start, stop, store, microphone=None):
    """An utterance's features where they are stored, else its audio.

    Arguments
    ---------
    utterance, wav, start, stop, microphone
        As for `read_signal`.
    store : FeatureStore
        Where to look.

    Returns
    -------
    StoredUtterance or BadUtterance
        With features or with audio.
    """
    try:
        key = store.key(wav, start, stop, microphone)
    except OSError as error:
        # What is wrong is said as without a store.
        found = read_signal(utterance, wav, start, stop)
        if isinstance(found, BadUtterance):
            return found
        return BadUtterance(utterance, f"{wav}: {error.strerror}")
    try:
        features = store.get(key)
    except DamagedFeaturesError as error:
        logger.warning(
            "utterance %s: its stored features are damaged (%s), it is "
            "encoded again",
            utterance,
            error,
        )
        features = None
    if features is not None:
        return StoredUtterance(key, features=features)
    found = read_signal(utterance, wav, start, stop, microphone)
    if isinstance(found, BadUtterance):
        return found
    try:
        # Else what another process writes at this moment would be stored
        # under what was there before.
        if file_identity(wav) != key.file:
            return BadUtterance(utterance, f"{wav}: changed while it was read")
    except OSError as error:
        return BadUtterance(utterance, f"{wav}: {error.strerror}")
    return StoredUtterance(key, wav=found)


# Columns that say where the audio is, and names that a batch has already.
PLACE = ("wav", "start", "stop")
# Column of the number of the microphone that an utterance is heard through; 0 as
# it was recorded.
THROUGH = "heard_through"
TAKEN = {"sig", "stored", "keys", "rows", "bad", "features"}
TAKEN |= set(dir(UtteranceBatch))
TAKEN_COLUMN = (
    "a manifest's column cannot be called {}, which is something else in a "
    "batch: rename it"
)


def with_copies(table, n):
    """Each utterance once more for each microphone, after all as recorded.

    Arguments
    ---------
    table : pandas.DataFrame
        As `dataio.manifest.read_manifest` returns.
    n : int
        How many microphones there are.

    Returns
    -------
    pandas.DataFrame
        With a column ``heard_through``, 0 for as recorded; a copy's ID is the
        utterance's and its number.

    Raises
    ------
    InputError
        There is such a column, or such an ID.

    Example
    -------
    >>> import pandas
    >>> table = pandas.DataFrame({"ID": ["a", "b"]})
    >>> with_copies(table, 1).ID.tolist()
    ['a', 'b', 'a (copy 1)', 'b (copy 1)']
    """
    if THROUGH in table:
        raise InputError(TAKEN_COLUMN.format(THROUGH))
    copies = [
        table.assign(ID=table.ID + f" (copy {number})", **{THROUGH: number})
        for number in range(1, n + 1)
    ]
    heard = pandas.concat([table.assign(**{THROUGH: 0}), *copies])
    twice = heard.ID[heard.ID.duplicated()]
    if len(twice):
        raise InputError(
            f"two utterances are called {twice.iloc[0]!r}: rename one"
        )
    return heard


def _read(utterance, wav, start, stop, through, store, microphones):
    """An utterance's signal, or from a store's its features."""
    # A file that cannot be read is one, however often it is heard.
    utterance = utterance.removesuffix(f" (copy {through})")
    place, microphone = (utterance, wav, start, stop), microphones[through]
    if store is None:
        return read_signal(*place, microphone)
    return read_stored(*place, store, microphone)


def make_dataset(table, store=None, microphones=(None,)):
    """A SpeechBrain dataset of utterances, with the signal read on demand.

    Arguments
    ---------
    table : pandas.DataFrame
        As `dataio.manifest.read_manifest` returns, paths resolved.
    store : FeatureStore, optional
        Where the encoder's features may be found instead of audio.
    microphones : list
        Callables ``[time] -> [time]`` with ``settings()``, as in
        `dataio.microphones`, by the numbers of a table `with_copies`; None
        for as recorded.

    Returns
    -------
    speechbrain.dataio.dataset.DynamicItemDataset
        Items ``id``, ``sig`` (``[time]``, with a store a `StoredUtterance`,
        or a `BadUtterance`), and every column of the table but those that say
        where the audio is.

    Raises
    ------
    InputError
        A column of one's own has a name that means something else in a batch.
    """
    if THROUGH not in table:
        table = with_copies(table, 0)
    taken = [name for name in table if name in TAKEN]
    # A manifest's columns are texts.
    if table[THROUGH].dtype.kind != "i":
        taken.append(THROUGH)
    if taken:
        raise InputError(TAKEN_COLUMN.format(", ".join(taken)))
    rows = table.rename(columns={"ID": "id"}).set_index("id", drop=False)
    data = rows.drop(columns="id").to_dict("index")
    dataset = DynamicItemDataset(data)
    dataset.add_dynamic_item(
        partial(_read, store=store, microphones=microphones),
        takes=["id", *PLACE, THROUGH],
        provides="sig",
    )
    columns = [name for name in rows if name not in ("id", *PLACE)]
    dataset.set_output_keys(["id", "sig", *columns])
    return dataset
