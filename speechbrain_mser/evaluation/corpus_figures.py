"""Figures of corpora: what they hold (Fig. 1), and how they lie (Fig. 2)."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler
from speechbrain.lobes.features import Fbank

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.dataio.bad_utterances import BadUtterances
from speechbrain_mser.dataio.feature_reader import FeatureReader
from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.figures import (
    plot_distributions,
    plot_spectrogram_map,
)
from speechbrain_mser.evaluation.separation import separation

N_MELS = 80


def balanced_sample(table, most, seed):
    """At most so many utterances, as evenly from everywhere as there are.

    Of every corpus, language and emotion equally many, or all that there
    are; in random order.
    """
    shuffled = table.sample(frac=1, random_state=seed)
    cells = shuffled.groupby(["corpus", "language", "emotion"])
    rank = cells.cumcount().sort_values(kind="stable")
    return shuffled.loc[rank.index[:most]].sample(frac=1, random_state=seed)


def mean_spectrograms(table):
    """The mean over time of every utterance's log-mel spectrogram, in decibels.

    Returns ``[utterances, 80]``, and the utterances that could be read.
    """
    fbank = Fbank(sample_rate=SAMPLE_RATE, n_mels=N_MELS)
    reader = FeatureReader(
        lambda wavs, lens: (fbank(wavs), lens),
        # One by one: the floor of the decibels is below the batch's loudest.
        batch_size=1,
        bad_utterances=BadUtterances("skip"),
    )
    table, means = reader.compute(
        lambda spectrogram, _: spectrogram.mean(1), table, "spectrograms"
    )
    return means.numpy(), table


def standardize_each(features, corpora):
    """Every corpus by its own mean and deviation; no labels are used."""
    features = features.copy()
    for corpus in np.unique(corpora):
        rows = corpora == corpus
        part = features[rows]
        features[rows] = (part - part.mean(0)) / (part.std(0) + 1e-6)
    return features


def to_map(features, seed):
    """Two dimensions in which neighbours stay neighbours: PCA, then t-SNE.

    ``[utterances, dim]`` becomes ``[utterances, 2]``.
    """
    n = len(features)
    if n < 10:
        raise InputError(f"{n} utterances: a map needs 10 or more")
    reduced = PCA(min(30, *features.shape), random_state=seed)
    perplexity = min(30, (n - 1) / 3)
    tsne = TSNE(perplexity=perplexity, random_state=seed)
    return tsne.fit_transform(reduced.fit_transform(features))


def draw_distributions(table, output):
    """Fig. 1: emotions and languages.

    Returns utterances and hours by emotion, language and corpus.
    """
    plot_distributions(table, output)
    hours = table.assign(hours=table.duration / 3600)
    return {
        name: hours.groupby(name)
        .agg(utterances=("ID", "size"), hours=("hours", "sum"))
        .to_dict("index")
        for name in ("emotion", "language", "corpus")
    }


def draw_spectrograms(
    table, output, source="eng", most=2000, seed=1, each_corpus=False
):
    """Fig. 2: a map of mean spectrograms, and its numbers.

    The languages are compared with ``source``; ``each_corpus`` takes
    every corpus by its own mean and deviation. Returns ``n``, and what
    `separation` does.

    Raises
    ------
    InputError
        Too few can be read, or none in the source's language.
    """
    features, table = mean_spectrograms(balanced_sample(table, most, seed))
    features = StandardScaler().fit_transform(features)
    if each_corpus:
        features = standardize_each(features, table.corpus.to_numpy())
    numbers = separation(features, table, source)
    plot_spectrogram_map(to_map(features, seed), table, numbers, output)
    return {"n": len(table), **numbers}
