"""Mean and deviation of the features that a training will see."""

import torch
from speechbrain.utils.distributed import get_rank, if_main_process
from tqdm import tqdm

from speechbrain_mser.dataio.batching import UtteranceBatch
from speechbrain_mser.dataio.utterances import THROUGH
from speechbrain_mser.distributed import sum_over_ranks, world_size
from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.alignment import (
    KAPPA_SPEAKER,
    CorpusAlignment,
    SpeakerAlignment,
)
from speechbrain_mser.lobes.standardize import frame_sums


@torch.no_grad()
def estimate_statistics(standardizer, dataset, encode, most, show=True):
    """Mean and standard deviation of the features, on training data.

    In several processes each encodes its part.

    Arguments
    ---------
    standardizer : FeatureStandardizer
        What receives the statistics.
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        The training set, as `make_dataset` makes it.
    encode : callable
        Gives an `UtteranceBatch` its ``features``; returns whether it could
        be encoded.
    most : int
        How many utterances, evenly spaced, are encoded at most.
    show : bool
        Whether the main process draws a progress bar.
    """
    for batch in _encoded(dataset, encode, most, show, "feature statistics"):
        standardizer.update(*batch.features)
    standardizer.finish()


def _encoded(dataset, encode, most, show, name):
    """This process's part of a training set's utterances, one by one."""
    wanted = min(most, len(dataset))
    chosen = [i * len(dataset) // wanted for i in range(wanted)]
    own = chosen[get_rank() or 0 :: world_size()]
    hide = not (show and if_main_process())
    for index in tqdm(own, name, disable=hide):
        batch = UtteranceBatch([dataset[index]])
        if encode(batch):
            yield batch


def align_corpora(standardizer, dataset, *how):
    """Estimate each training corpus's own mean and deviation.

    Not part of a checkpoint: the same utterances give the same ones when a
    training goes on.

    Arguments
    ---------
    standardizer : FeatureStandardizer or None
        With those of all corpora together.
    dataset, *how
        As for `estimate_statistics`.

    Returns
    -------
    CorpusAlignment
        For the training's corpora.

    Raises
    ------
    InputError
        The connector does not standardise.
    """
    if standardizer is None:
        raise InputError("align_corpora needs standardize: True")
    alignment = CorpusAlignment(standardizer)
    with dataset.output_keys_as(["corpus"]):
        corpora = sorted({item["corpus"] for item in dataset})
    for corpus in corpora:
        own = standardizer.anew()
        part = dataset.filtered_sorted(key_test={"corpus": corpus.__eq__})
        estimate_statistics(own, part, *how)
        alignment.add(corpus, own)
    return alignment


def align_speakers(standardizer, alignment, dataset, encode, show=True):
    """Estimate what is each training speaker's own.

    Of a speaker, what is left of the utterances without the mean of each one's
    emotion, as `inference.speakers.speaker_shifts` has it; here it is known
    which emotion that is. All utterances are taken, as they were recorded; their
    copies through microphones are moved by the same. Not part of a checkpoint,
    as for `align_corpora`.

    Arguments
    ---------
    standardizer, alignment, dataset
        As for `estimate_emotion_means`.
    encode, show
        As for `estimate_statistics`.

    Returns
    -------
    SpeakerAlignment
        For the training's speakers, where the manifest names them.
    """
    columns = ["corpus", "speaker", "emotion"]
    recorded = dataset.filtered_sorted(key_test={THROUGH: (0).__eq__})
    how = encode, len(recorded), show
    found = _sums(standardizer, alignment, columns, recorded, *how)
    emotions = _means(found)
    own = {}
    for (corpus, speaker, emotion), (count, total) in found.items():
        if speaker:
            counted, left = own.get((corpus, speaker), (KAPPA_SPEAKER, 0.0))
            left = left + total - count * emotions[emotion]
            own[corpus, speaker] = counted + count, left
    return SpeakerAlignment(
        standardizer, {one: left / n for one, (n, left) in own.items()}
    )


def estimate_emotion_means(standardizer, alignment, dataset, *how):
    """What each emotion does to the features: their mean among its utterances.

    In several processes each encodes its part.

    Arguments
    ---------
    standardizer : FeatureStandardizer
        With the statistics of all training data.
    alignment : CorpusAlignment or None
        What is taken out of the features before they are standardised.
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        The training set, as `make_dataset` makes it.
    *how
        As for `estimate_statistics`.

    Returns
    -------
    dict
        Emotion to ``[layers, dim]``, in standard deviations from the mean of
        all; on the CPU.
    """
    return _means(_sums(standardizer, alignment, ["emotion"], dataset, *how))


def _means(sums):
    """Emotion to the mean of what `_sums` gives by it, whatever else by."""
    joined = {}
    for (*_, emotion), (count, total) in sums.items():
        counted, together = joined.get(emotion, (0, 0.0))
        joined[emotion] = counted + count, together + total
    return {
        emotion: total / count for emotion, (count, total) in joined.items()
    }


@torch.no_grad()
def _sums(standardizer, alignment, columns, dataset, encode, most, show=True):
    """Utterances' means over time, added up by what is in columns.

    The columns' values to how many and their sum, ``[layers, dim]``, in
    standard deviations from the mean of all; without those of which there was
    none.
    """
    with dataset.output_keys_as(columns):
        keys = sorted({tuple(map(item.get, columns)) for item in dataset})
    numbers = {key: number for number, key in enumerate(keys)}
    sums = standardizer.mean.new_zeros(len(keys), *standardizer.mean.shape)
    counts = sums.new_zeros(len(keys))
    name = f"means by {columns[0]}"
    for batch in _encoded(dataset, encode, most, show, name):
        features, lens = batch.features
        if alignment is not None:
            features = alignment(features, batch.corpus)
        frames, total, _ = frame_sums(features, lens)
        row = numbers[tuple(getattr(batch, column)[0] for column in columns)]
        sums[row] += (total / frames - standardizer.mean) / standardizer.std
        counts[row] += 1
    counts, sums = sum_over_ranks(counts).cpu(), sum_over_ranks(sums).cpu()
    return {
        key: (count, total)
        for key, count, total in zip(keys, counts, sums, strict=True)
        if count
    }
