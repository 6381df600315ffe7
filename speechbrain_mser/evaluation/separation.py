"""How separate emotions, languages and corpora are: what a map only suggests."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score, silhouette_score
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from speechbrain_mser.emotions import in_order
from speechbrain_mser.errors import InputError


def silhouette(features, words, metric="euclidean"):
    """How much nearer utterances are to their own class than to the next.

    Between -1 and 1; None where there is one class only, or every utterance
    is a class of its own.
    """
    if not 1 < len(set(words)) < len(words):
        return None
    return float(silhouette_score(features, words, metric=metric))


def mmd(x, y):
    """Squared maximum mean discrepancy: how unlike ``[n, dim]`` and ``[m, dim]`` are.

    Unbiased, with a Gaussian kernel as wide as the median distance between
    all vectors: 0 is expected for two samples of one distribution, and it
    may be a little below.
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
    """How far emotions are from the same emotions of another language, the source.

    Of each emotion the distance between the two languages' centroids, over
    the mean distance between the centroids of two emotions of the source:
    below 1, an emotion is nearer to itself in the other language than
    emotions are to one another in the source. Empty with fewer than two
    emotions in common.
    """
    shared = in_order(set(emotions) & set(source_emotions))
    if len(shared) < 2:
        return {}
    own, source = (
        np.stack([values[words == word].mean(0) for word in shared])
        for values, words in (
            (features, emotions),
            (source_features, source_emotions),
        )
    )
    between = euclidean_distances(source)[np.triu_indices(len(shared), 1)]
    ratios = np.linalg.norm(own - source, axis=1) / between.mean()
    return dict(zip(shared, ratios.tolist(), strict=True))


def probe(features, table, source, language):
    """UA of a linear classifier trained on one language, on another, and chance.

    For the source itself in five folds of other speakers. Over the emotions
    that both have; None where there are fewer than two, or too few speakers
    for folds.
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


def separation(features, table, source):
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
            f"source is {source!r}; the utterances' languages are "
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
