#!/usr/bin/env python3
"""The paper's figures 1, 2 and 4, from any manifests and recognisers.

    python figures.py distributions --manifest M.csv --output figures/fig1
    python figures.py spectrograms --manifest M.csv FOLDER --output figures/fig2
    python figures.py embeddings --manifest M.csv FOLDER \
        --without R1 --with R2 --feature_folder F --output figures/fig4

--manifest may be given several times, each with the folder of its corpus.
Writes <output>.png and .pdf, and the figure's numbers into <output>.json.
"""

import argparse
import json
import sys

import numpy as np
import torch
from baseline import standardize_each
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import recall_score, silhouette_score
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from speechbrain.lobes.features import Fbank

from speechbrain_mser.atomic import atomic_path
from speechbrain_mser.dataio.audio import SAMPLE_RATE
from speechbrain_mser.dataio.batching import read_batches, select_utterances
from speechbrain_mser.dataio.encoding import encode_batch, open_store
from speechbrain_mser.dataio.manifest import read_manifests
from speechbrain_mser.errors import InputError, exits_on_input_error
from speechbrain_mser.figures import (
    in_order,
    plot_distributions,
    plot_embeddings,
    plot_spectrogram_map,
)
from speechbrain_mser.inference import EmotionRecognizer

N_MELS = 80


def read_utterances(options):
    """The manifests' utterances that are asked for, and have an emotion."""
    sources = {}
    for entry in options.manifest:
        if len(entry) > 2:
            raise InputError(
                f"--manifest {' '.join(entry)}: expected a file, and the "
                "folder of its corpus"
            )
        sources[entry[0]] = entry[1] if len(entry) == 2 else None
    rootless = [path for path, root in sources.items() if root is None]
    if rootless and options.command != "distributions":
        raise InputError(
            f"--manifest {rootless[0]}: where its audio lies must be given "
            f"too: --manifest {rootless[0]} FOLDER"
        )
    return select_utterances(
        read_manifests(sources),
        options.split,
        options.languages,
        options.emotions,
    )


def balanced_sample(table, most, seed):
    """At most so many utterances, as evenly from everywhere as there are.

    Arguments
    ---------
    table : pandas.DataFrame
        Utterances.
    most : int
        How many.
    seed : int
        Of the choice.

    Returns
    -------
    pandas.DataFrame
        Of every corpus, language and emotion equally many, or all that there
        are; in random order.
    """
    shuffled = table.sample(frac=1, random_state=seed)
    cells = shuffled.groupby(["corpus", "language", "emotion"])
    rank = cells.cumcount().sort_values(kind="stable")
    return shuffled.loc[rank.index[:most]].sample(frac=1, random_state=seed)


def name_bad(bad):
    """Say what cannot be read."""
    print(f"{bad.utterance} left out: {bad.reason}", file=sys.stderr)


def mean_spectrograms(table):
    """The mean over time of every utterance's log-mel spectrogram.

    Arguments
    ---------
    table : pandas.DataFrame
        Utterances.

    Returns
    -------
    features : numpy.ndarray
        ``[utterances, 80]``, decibels.
    table : pandas.DataFrame
        The utterances that could be read.
    """
    fbank = Fbank(sample_rate=SAMPLE_RATE, n_mels=N_MELS)
    means = {}
    # One by one: the floor of the decibels is below the batch's loudest.
    for batch in read_batches(table, None, "spectrograms", name_bad, 1):
        with torch.no_grad():
            means[batch.id[0]] = fbank(batch.sig.data)[0].mean(0).numpy()
    return _stacked(means, table)


def _stacked(vectors, table):
    """Vectors by ID as rows in the table's order."""
    if not vectors:
        raise InputError("no utterance could be read")
    table = table[table.ID.isin(list(vectors))]
    return np.stack([vectors[name] for name in table.ID]), table


@torch.no_grad()
def embeddings(recognizer, table, options):
    """What the contrastive loss compares: the connector's pooled embedding.

    Arguments
    ---------
    recognizer : EmotionRecognizer
        Trained.
    table : pandas.DataFrame
        Utterances.
    options : argparse.Namespace
        Where features are stored.

    Returns
    -------
    features : numpy.ndarray
        ``[utterances, hidden]``, of length 1: the loss sees directions only.
    table : pandas.DataFrame
        The utterances that could be read.
    """
    encoder = recognizer.mods.whisper
    features = "off" if options.feature_folder is None else "write"
    store = open_store(encoder, features, options.feature_folder, "float16")
    pooled = {}
    # Neighbours of like length: little is computed for padding.
    ordered = table.sort_values(["duration", "ID"])
    for batch in read_batches(ordered, store, "embeddings", name_bad, 32):
        encoded = encode_batch(batch.to(recognizer.device), encoder, store)
        _, vectors = recognizer.mods.connector(*encoded)
        vectors = torch.nn.functional.normalize(vectors.float(), dim=-1)
        pooled |= zip(batch.id, vectors.cpu().numpy(), strict=True)
    return _stacked(pooled, table)


def to_map(features, seed):
    """Two dimensions in which neighbours stay neighbours: PCA, then t-SNE.

    Arguments
    ---------
    features : numpy.ndarray
        ``[utterances, dim]``.
    seed : int
        Of t-SNE.

    Returns
    -------
    numpy.ndarray
        ``[utterances, 2]``.
    """
    n = len(features)
    if n < 10:
        raise InputError(f"{n} utterances: a map needs 10 or more")
    reduced = PCA(min(30, *features.shape), random_state=seed)
    perplexity = min(30, (n - 1) / 3)
    tsne = TSNE(perplexity=perplexity, random_state=seed)
    return tsne.fit_transform(reduced.fit_transform(features))


def silhouette(features, words, metric="euclidean"):
    """How much nearer utterances are to their own class than to the next.

    Arguments
    ---------
    features : numpy.ndarray
        ``[utterances, dim]``.
    words : numpy.ndarray
        ``[utterances]``, the classes.
    metric : str
        As scikit-learn names it.

    Returns
    -------
    float or None
        Between -1 and 1; None where there is one class only, or every
        utterance is a class of its own.
    """
    if not 1 < len(set(words)) < len(words):
        return None
    return float(silhouette_score(features, words, metric=metric))


def mmd(x, y):
    """Squared maximum mean discrepancy: how unlike two sets of vectors are.

    Unbiased, with a Gaussian kernel as wide as the median distance between
    all vectors: 0 is expected for two samples of one distribution.

    Arguments
    ---------
    x : numpy.ndarray
        ``[n, dim]``, two or more.
    y : numpy.ndarray
        ``[m, dim]``, two or more.

    Returns
    -------
    float
        May be a little below 0.
    """
    n, m = len(x), len(y)
    distances = euclidean_distances(np.concatenate([x, y]), squared=True)
    pairs = distances[np.triu_indices(n + m, 1)]
    kernel = np.exp(-distances / np.median(pairs))
    np.fill_diagonal(kernel, 0)
    return float(
        kernel[:n, :n].sum() / (n * (n - 1))
        + kernel[n:, n:].sum() / (m * (m - 1))
        - 2 * kernel[:n, n:].mean()
    )


def centroid_ratios(features, emotions, source_features, source_emotions):
    """How far emotions are from the same emotions of another language.

    Arguments
    ---------
    features : numpy.ndarray
        ``[n, dim]``.
    emotions : numpy.ndarray
        ``[n]``.
    source_features : numpy.ndarray
        ``[m, dim]``, of the other language.
    source_emotions : numpy.ndarray
        ``[m]``.

    Returns
    -------
    dict
        Of each emotion the distance between the two languages' centroids,
        over the mean distance between the centroids of two emotions of the
        source. Below 1, an emotion is nearer to itself in the other language
        than emotions are to one another in the source. Empty with fewer than
        two emotions in common.
    """
    shared = in_order(set(emotions) & set(source_emotions))
    if len(shared) < 2:
        return {}
    here, there = (
        np.stack([values[words == word].mean(0) for word in shared])
        for values, words in (
            (features, emotions),
            (source_features, source_emotions),
        )
    )
    between = euclidean_distances(there)[np.triu_indices(len(shared), 1)]
    ratios = np.linalg.norm(here - there, axis=1) / between.mean()
    return dict(zip(shared, ratios.tolist(), strict=True))


def probe(features, table, source, language):
    """UA of a linear classifier trained on one language, on another.

    Arguments
    ---------
    features : numpy.ndarray
        ``[utterances, dim]``.
    table : pandas.DataFrame
        The same utterances.
    source : str
        The language of training.
    language : str
        The language of the test; for the source itself five folds of other
        speakers.

    Returns
    -------
    ua : float or None
        Over the emotions that both have; None where there are fewer than two,
        or too few speakers for folds.
    chance : float or None
        The UA of always saying the same word.
    """
    emotions = table.emotion.to_numpy()
    train, test = (
        (table.language == name).to_numpy() for name in (source, language)
    )
    shared = set(emotions[train]) & set(emotions[test])
    asked = table.emotion.isin(shared).to_numpy()
    train, test = train & asked, test & asked
    if len(shared) < 2:
        return None, None
    model = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000),
    )
    if source != language:
        model.fit(features[train], emotions[train])
        said = model.predict(features[test])
    else:
        # Corpora may have a speaker of the same name.
        speakers = (table.corpus + "/" + table.speaker)[train]
        folds = _folds(emotions[train], speakers)
        if folds is None:
            return None, None
        said = cross_val_predict(
            model, features[train], emotions[train], cv=folds
        )
    ua = recall_score(emotions[test], said, average="macro", zero_division=0)
    return float(ua), 1 / len(shared)


def _folds(emotions, speakers):
    """Five folds (fewer of few speakers) that share none; None if they can't."""
    count = min(5, speakers.nunique())
    if count < 2:
        return None
    folds = list(GroupKFold(count).split(emotions, groups=speakers))
    # Nothing is learned from a single emotion.
    if any(len(set(emotions[train])) < 2 for train, _ in folds):
        return None
    return folds


def spectrogram_numbers(features, table, source):
    """What a map of utterances can only suggest, measured in all dimensions.

    Arguments
    ---------
    features : numpy.ndarray
        ``[utterances, dim]``, standardised.
    table : pandas.DataFrame
        The same utterances.
    source : str
        The language that the others are compared with.

    Returns
    -------
    dict
        ``source``; ``silhouette`` by emotion, language and corpus;
        ``languages``, language to ``n``, ``mmd``, ``centroids`` (their mean;
        None for the source), ``centroids_by_emotion``, ``probe`` and
        ``chance``.
    """
    languages = in_order(table.language)
    if source not in languages:
        raise InputError(
            f"--source is {source!r}; the utterances' languages are "
            f"{', '.join(languages)}"
        )
    emotions = table.emotion.to_numpy()
    of = {name: (table.language == name).to_numpy() for name in languages}
    by_language = {}
    for name in sorted(languages, key=lambda name: name != source):
        rows, others = of[name], of[source]
        ua, chance = probe(features, table, source, name)
        compared = name != source and min(rows.sum(), others.sum()) > 1
        ratios = {}
        if compared:
            ratios = centroid_ratios(
                features[rows],
                emotions[rows],
                features[others],
                emotions[others],
            )
        by_language[name] = {
            "n": int(rows.sum()),
            "mmd": mmd(features[rows], features[others]) if compared else None,
            "centroids": float(np.mean([*ratios.values()])) if ratios else None,
            "centroids_by_emotion": ratios,
            "probe": ua,
            "chance": chance,
        }
    by_class = {
        name: silhouette(features, table[name].to_numpy())
        for name in ("emotion", "language", "corpus")
    }
    return {
        "source": source,
        "silhouette": {k: v for k, v in by_class.items() if v is not None},
        "languages": by_language,
    }


def draw_distributions(table, options):
    """Fig. 1: emotions and languages."""
    plot_distributions(table, options.output)
    hours = table.assign(hours=table.duration / 3600)
    return {
        name: hours.groupby(name)
        .agg(utterances=("ID", "size"), hours=("hours", "sum"))
        .to_dict("index")
        for name in ("emotion", "language", "corpus")
    }


def draw_spectrograms(table, options):
    """Fig. 2: a map of mean spectrograms, and its numbers."""
    features, table = mean_spectrograms(
        balanced_sample(table, options.most, options.seed)
    )
    features = StandardScaler().fit_transform(features)
    if options.standardize_each:
        features = standardize_each(features, table.corpus.to_numpy())
    numbers = spectrogram_numbers(features, table, options.source)
    points = to_map(features, options.seed)
    plot_spectrogram_map(points, table, numbers, options.output)
    return {"n": len(table), **numbers}


def draw_embeddings(table, options):
    """Fig. 4: embeddings with and without the contrastive loss."""
    table = balanced_sample(table, options.most, options.seed)
    maps, numbers = {}, {}
    for name, source in (
        ("without the contrastive loss", options.without),
        ("with it", options.with_loss),
    ):
        recognizer = EmotionRecognizer.from_hparams(
            source, run_opts={"device": options.device}
        )
        features, read = embeddings(recognizer, table, options)
        numbers[name] = {
            f"silhouette by {column}": silhouette(
                features, read[column].to_numpy(), "cosine"
            )
            for column in ("emotion", "language", "corpus")
        }
        by_emotion = numbers[name]["silhouette by emotion"]
        if by_emotion is None:
            raise InputError(
                "the utterances have one emotion only: there is nothing to "
                "tell apart"
            )
        points = to_map(features, options.seed)
        maps[name] = (points, read.emotion.to_numpy(), by_emotion)
    plot_embeddings(maps, options.output)
    return {"n": len(read), **numbers}


def parse_arguments(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, draw in (
        ("distributions", draw_distributions),
        ("spectrograms", draw_spectrograms),
        ("embeddings", draw_embeddings),
    ):
        command = commands.add_parser(name, help=draw.__doc__)
        command.set_defaults(draw=draw)
        command.add_argument(
            "--manifest",
            nargs="+",
            action="append",
            required=True,
            metavar=("FILE", "FOLDER"),
            help="a manifest, and the folder of its corpus",
        )
        command.add_argument("--output", required=True)
        command.add_argument("--split")
        command.add_argument("--languages", nargs="+")
        command.add_argument("--emotions", nargs="+")
        if name == "distributions":
            continue
        command.add_argument(
            "--most", type=int, default=2000, help="utterances in the map"
        )
        command.add_argument("--seed", type=int, default=1)
        if name == "spectrograms":
            command.add_argument(
                "--source",
                default="eng",
                help="the language that the others are compared with",
            )
            command.add_argument(
                "--standardize_each",
                action="store_true",
                help="every corpus by its own mean and deviation: without "
                "what comes of room, microphone and level",
            )
            continue
        for flag, dest in (("without", "without"), ("with", "with_loss")):
            command.add_argument(
                f"--{flag}",
                dest=dest,
                required=True,
                metavar="RECOGNIZER",
                help=f"trained {flag} the contrastive loss",
            )
        command.add_argument("--feature_folder")
        command.add_argument("--device", default="cpu")
    return parser.parse_args(arguments)


@exits_on_input_error
def main():
    """Draw one figure."""
    options = parse_arguments()
    numbers = options.draw(read_utterances(options), options)
    with atomic_path(f"{options.output}.json") as partial:
        partial.write_text(json.dumps(numbers, indent=2) + "\n")
    print(json.dumps(numbers, indent=2))


if __name__ == "__main__":
    main()
