"""Whether a model is as sure as it is right: ECE, Brier, NLL, reliability."""

import numpy as np

from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.metrics import label_positions


def calibration(log_probs, references, labels, bins=10):
    """Whether the model is as sure as it is right.

    With p the probabilities of one utterance's labels:

    - ECE, expected calibration error: utterances are binned by their
      confidence max p, in bins of equal width; the mean over utterances of
      ``|accuracy of the bin - mean confidence of the bin|``
    - brier: the mean over utterances of ``sum over labels of (p - [true])^2``,
      between 0 and 2
    - NLL: the mean over utterances of ``-log p(true)``; infinite when a true
      label was given probability 0

    Arguments
    ---------
    log_probs : numpy.ndarray or torch.Tensor
        ``[n, n_labels]``. Every row is normalised to add up to probability 1:
        an LLM leaves some probability to words that are no candidates.
    references : list of str
        The true emotion of every utterance.
    labels : str or list of str
        The candidates, in the order of the columns.
    bins : int
        How many bins of confidence.

    Returns
    -------
    dict
        ``n``, ``bins``, ``ECE``, ``brier``, ``NLL``; ``reliability``, the
        bins as `reliability_curve` gives them.

    Raises
    ------
    InputError
        A wrong shape, a row that is no distribution, a reference that is not
        among the labels, or no bins.

    Example
    -------
    >>> half = np.log([[0.5, 0.5], [0.5, 0.5]])
    >>> result = calibration(half, ["sad", "angry"], ["sad", "angry"])
    >>> round(result["ECE"], 3), round(result["NLL"], 3)
    (0.0, 0.693)
    """
    labels = candidate_labels(labels)
    truth = label_positions("reference", references, labels)
    log_probs = normalize_log_probs(log_probs, (len(truth), len(labels)))
    probs = np.exp(log_probs)
    curve = reliability_curve(
        probs.max(axis=1), probs.argmax(axis=1) == truth, bins
    )
    gaps = [
        n * abs(accuracy - confidence)
        for n, confidence, accuracy in zip(*curve.values(), strict=True)
        if n
    ]
    one_hot = np.eye(len(labels))[truth]
    true_log_probs = log_probs[np.arange(len(truth)), truth]
    return {
        "n": len(truth),
        "bins": bins,
        "ECE": sum(gaps) / len(truth),
        "brier": float(((probs - one_hot) ** 2).sum(axis=1).mean()),
        # + 0.0: not minus zero where every true label is certain
        "NLL": float(-true_log_probs.mean() + 0.0),
        "reliability": curve,
    }


def normalize_log_probs(log_probs, shape):
    """Log-probabilities in double precision, every row adding up to 1.

    Arguments
    ---------
    log_probs : numpy.ndarray or torch.Tensor
        ``[n, n_labels]``.
    shape : tuple of int
        What is expected.

    Returns
    -------
    numpy.ndarray
        ``[n, n_labels]``, float64.

    Raises
    ------
    InputError
        Another shape, or a row that is no distribution.

    Example
    -------
    >>> np.exp(normalize_log_probs(np.zeros((1, 2)), (1, 2)))
    array([[0.5, 0.5]])
    """
    if hasattr(log_probs, "detach"):  # torch; numpy knows no bfloat16
        log_probs = log_probs.detach().double().cpu()
    log_probs = np.asarray(log_probs, dtype=np.float64)
    if log_probs.shape != shape:
        raise InputError(
            f"log-probabilities of shape {list(log_probs.shape)}; expected "
            f"{list(shape)}: a row per reference and a column per label"
        )
    best = log_probs.max(axis=1, keepdims=True)
    # NaN spreads to the maximum. -inf is probability 0, but not for all.
    bad = np.flatnonzero(~np.isfinite(best))
    if len(bad):
        raise InputError(
            f"log-probabilities of utterance {bad[0] + 1} are "
            f"{log_probs[bad[0]].tolist()}, which is no distribution"
        )
    total = np.exp(log_probs - best).sum(axis=1, keepdims=True)
    return log_probs - best - np.log(total)


def reliability_curve(confidence, correct, bins=10):
    """Accuracy and mean confidence of utterances of like confidence.

    Bin k of K holds the confidences in ``(k / K, (k + 1) / K]``.

    Arguments
    ---------
    confidence : numpy.ndarray
        ``[n]``, the probability of the predicted label.
    correct : numpy.ndarray
        ``[n]``, bool: whether that is the true one.
    bins : int
        How many, of equal width.

    Returns
    -------
    dict
        ``n``, ``confidence`` and ``accuracy``: lists with an item per bin,
        the latter two None where nobody is in it. Ready for JSON.

    Raises
    ------
    InputError
        No bins.

    Example
    -------
    >>> sure = np.array([0.6, 0.8, 0.9])
    >>> reliability_curve(sure, np.array([True, True, False]), bins=2)["n"]
    [0, 3]
    """
    if bins < 1:
        raise InputError(f"{bins} bins of confidence: at least 1 is needed")
    bin_of = np.ceil(confidence * bins).astype(int) - 1
    bin_of = np.clip(bin_of, 0, bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    sums = {
        "confidence": np.bincount(bin_of, confidence, minlength=bins),
        "accuracy": np.bincount(bin_of, correct, minlength=bins),
    }
    return {
        "n": counts.tolist(),
        **{
            name: [
                float(total / n) if n else None
                for total, n in zip(values, counts, strict=True)
            ]
            for name, values in sums.items()
        },
    }
