"""Mean and deviation of the features that a training will see."""

import torch
from speechbrain.utils.distributed import get_rank, if_main_process
from tqdm import tqdm

from speechbrain_mser.dataio.batching import UtteranceBatch
from speechbrain_mser.distributed import sum_over_ranks, world_size
from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.alignment import CorpusAlignment
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


@torch.no_grad()
def estimate_emotion_means(
    standardizer, alignment, dataset, encode, most, show=True
):
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
    encode, most, show
        As for `estimate_statistics`.

    Returns
    -------
    dict
        Emotion to ``[layers, dim]``, in standard deviations from the mean of
        all; on the CPU.
    """
    with dataset.output_keys_as(["emotion"]):
        words = sorted({item["emotion"] for item in dataset})
    sums = torch.zeros(
        len(words), *standardizer.mean.shape, device=standardizer.mean.device
    )
    counts = sums.new_zeros(len(words))
    for batch in _encoded(dataset, encode, most, show, "emotions' means"):
        features, lens = batch.features
        if alignment is not None:
            features = alignment(features, batch.corpus)
        frames, total, _ = frame_sums(features, lens)
        row = words.index(batch.emotion[0])
        sums[row] += (total / frames - standardizer.mean) / standardizer.std
        counts[row] += 1
    counts, sums = sum_over_ranks(counts).cpu(), sum_over_ranks(sums).cpu()
    return {
        word: total / count
        for word, total, count in zip(words, sums, counts, strict=True)
        if count
    }
