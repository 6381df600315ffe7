"""Mean and deviation of the features that a training will see."""

import torch
from speechbrain.utils.distributed import get_rank, if_main_process
from tqdm import tqdm

from speechbrain_mser.dataio.batching import UtteranceBatch
from speechbrain_mser.distributed import world_size
from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.alignment import CorpusAlignment


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
    wanted = min(most, len(dataset))
    chosen = [i * len(dataset) // wanted for i in range(wanted)]
    own = chosen[get_rank() or 0 :: world_size()]
    hide = not (show and if_main_process())
    for index in tqdm(own, "feature statistics", disable=hide):
        batch = UtteranceBatch([dataset[index]])
        if encode(batch):
            standardizer.update(*batch.features)
    standardizer.finish()


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
