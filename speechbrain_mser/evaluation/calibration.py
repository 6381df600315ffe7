"""Calibrated probabilities: temperature scaling and prior correction.

An LLM is often surer than it is right, and likes some words better than
others before it has heard anything. Both are measured once, on validation
data, and taken back:

    log p'(label) = log p(label) / T - log_prior(label) + constant

with a temperature T and a log-prior per label. T alone never changes which
label is the most probable; the prior does. Without the prior T is another
one: it has to make up for a liking that it cannot name.
"""

import json
from dataclasses import asdict, dataclass, field

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax
from speechbrain.utils.logger import get_logger

from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.metrics import (
    emotion_metrics,
    label_positions,
)
from speechbrain_mser.evaluation.reliability import (
    calibration,
    normalize_log_probs,
)
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.files.tables import read_json

logger = get_logger(__name__)

# The file in a recogniser's folder.
FILE = "calibration.json"
# What may be asked for.
MODES = ("none", "temperature", "temperature+prior")
# Beyond, validation data are all right or all wrong, and say nothing.
TEMPERATURES = (0.01, 100.0)


def check_mode(mode):
    """Refuse what is not among `MODES`.

    Arguments
    ---------
    mode : str
        What was asked for.

    Raises
    ------
    InputError
        It cannot be had.

    Example
    -------
    >>> check_mode("prior")
    Traceback (most recent call last):
    ...
    InputError: calibration is 'prior'; give none, temperature or ...
    """
    if mode not in MODES:
        raise InputError(
            f"calibration is {mode!r}; give {', '.join(MODES[:-1])} or "
            f"{MODES[-1]}"
        )


@dataclass(frozen=True)
class Calibration:
    """What is to be taken back of a model's log-probabilities.

    Arguments
    ---------
    temperature : float
        T without prior correction: above 1 where the model is too sure.
    temperature_with_prior : float
        T beside it.
    log_prior : dict
        Label to how much the model likes it, in nats; their mean is 0. Labels
        that are not in it have 0: nothing is known of them.
    fitted_on : dict
        On what: for the record, and to refuse other models and data.

    Example
    -------
    >>> import torch
    >>> calibration = Calibration(2.0, 1.8, {"sad": 0.5, "angry": -0.5})
    >>> log_probs = torch.tensor([[0.9, 0.1]]).log()
    >>> calibration.apply(log_probs, ["sad", "angry"], "temperature").exp()
    tensor([[0.7500, 0.2500]])
    """

    temperature: float
    temperature_with_prior: float
    log_prior: dict
    fitted_on: dict = field(default_factory=dict)

    def __post_init__(self):
        temperatures = (self.temperature, self.temperature_with_prior)
        numbers = [*temperatures, *self.log_prior.values()]
        if not np.isfinite(numbers).all() or min(temperatures) <= 0:
            raise InputError(
                f"temperatures {temperatures} and log-priors "
                f"{self.log_prior} are no calibration: temperatures are above "
                "0, and all are finite"
            )

    def apply(self, log_probs, labels, mode, meant=()):
        """Calibrate log-probabilities.

        Arguments
        ---------
        log_probs : torch.Tensor
            ``[n, n_labels]``.
        labels : list of str
            The candidates, in the order of the columns.
        mode : str
            One of `MODES`.
        meant : container of str
            Labels whose probabilities are their meaning's, not the LLM's
            (`EmotionRecognizer.meant_words`): nothing was fitted to those,
            they stay, and the others are calibrated among themselves.

        Returns
        -------
        torch.Tensor
            ``[n, n_labels]``, normalised over the labels.

        Raises
        ------
        InputError
            An unknown mode, or a row that is no distribution.
        """
        check_mode(mode)
        if any(label in meant for label in labels):
            return self._apply_beside(log_probs, labels, mode, meant)
        if mode == "temperature":
            log_probs = log_probs / self.temperature
        if mode == "temperature+prior":
            liked = [self.log_prior.get(label, 0.0) for label in labels]
            log_probs = log_probs / self.temperature_with_prior
            log_probs = log_probs - log_probs.new_tensor(liked)
        calibrated = log_probs.log_softmax(-1)
        bad = calibrated.isnan().any(-1).nonzero().flatten().tolist()
        if bad:
            raise InputError(
                f"log-probabilities of utterance {bad[0] + 1} of "
                f"{len(calibrated)} are not finite: there is nothing to calibrate"
            )
        return calibrated

    def _apply_beside(self, log_probs, labels, mode, meant):
        """Calibrate what the others have among themselves."""
        log_probs = log_probs.log_softmax(-1)
        rest = [k for k, label in enumerate(labels) if label not in meant]
        if rest:
            said = log_probs[:, rest]
            left = said.logsumexp(-1, keepdim=True)
            own = self.apply(said, [labels[k] for k in rest], mode)
            log_probs[:, rest] = left + own
        return log_probs

    def save(self, path):
        """Write it as JSON, atomically.

        Arguments
        ---------
        path : str or path-like
            The file.
        """
        text = json.dumps(asdict(self), indent=2, allow_nan=False)
        write_text(path, text + "\n")

    @classmethod
    def load(cls, path):
        """Read what `save` wrote.

        Arguments
        ---------
        path : str or path-like
            The file.

        Returns
        -------
        Calibration
            The same.

        Raises
        ------
        InputError
            The file is none of ours, or its numbers cannot be used.
        """
        saved = read_json(path)
        try:
            return cls(
                float(saved["temperature"]),
                float(saved["temperature_with_prior"]),
                {word: float(x) for word, x in saved["log_prior"].items()},
                dict(saved["fitted_on"]),
            )
        # OverflowError: an integer of 400 digits
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            OverflowError,
        ):
            raise InputError(
                f"{path}: expected temperature and temperature_with_prior "
                "above 0, a log_prior of label to number, and fitted_on: "
                "calibrate again"
            ) from None


def load_fitted(path, source, described):
    """A recogniser's calibration, where it is its own.

    Arguments
    ---------
    path : pathlib.Path or None
        Where it would be in the recogniser's folder, if that has one.
    source : str
        What the user calls it.
    described : dict
        What its log-probabilities depend on.

    Returns
    -------
    Calibration
        Of its folder.

    Raises
    ------
    InputError
        There is none, or it was fitted with something else.
    """
    if path is None:
        raise InputError(
            f"no {FILE}: a recogniser that from_hparams did not load has no "
            "folder"
        )
    if not path.is_file():
        raise InputError(
            f"{source} has no {FILE}: calibrate it on validation data first"
        )
    fitted = Calibration.load(path)
    for name, value in described.items():
        if fitted.fitted_on.get(name) != value:
            raise InputError(
                f"{path} was fitted with another {name} than this "
                "recogniser's: calibrate again"
            )
    return fitted


def fit_calibration(log_probs, references, labels, **fitted_on):
    """Temperature and log-priors from labelled utterances.

    T alone minimises the mean of ``-log p'(true)`` over utterances (Guo et
    al., ICML 2017). T and the log-priors together minimise the same with
    every true label weighing equally, so that the model's liking is taken
    back and not replaced by the fitting data's frequencies: a zero-shot
    corpus has its own. At that minimum all labels have the same mean
    probability, over true labels of equal weight, but for a penalty of
    ``sum(log_prior^2) / 2`` nats, which keeps a label of a handful of
    utterances from running away.

    Only labels that occur take part, as candidates too.

    Arguments
    ---------
    log_probs : numpy.ndarray or torch.Tensor
        ``[n, n_labels]`` of validation utterances.
    references : list of str
        Their true emotions.
    labels : str or list of str
        The candidates, in the order of the columns.
    **fitted_on : dict
        What is to be remembered of the utterances and of the model.

    Returns
    -------
    Calibration
        With the number of utterances and of those of each label added to
        ``fitted_on``.

    Raises
    ------
    InputError
        A wrong shape, a reference that is not among the labels, or fewer than
        two labels that occur.

    Example
    -------
    >>> import torch
    >>> log_probs = np.log([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]])
    >>> truth = ["sad", "angry", "angry", "angry"]  # three of four right
    >>> fitted = fit_calibration(log_probs, truth, ["sad", "angry"])
    >>> fitted.apply(torch.tensor([[0.9, 0.1]]).log(), ["sad", "angry"],
    ...             "temperature").exp()
    tensor([[0.7500, 0.2500]])
    """
    labels = candidate_labels(labels)
    truth = label_positions("reference", references, labels)
    log_probs = normalize_log_probs(log_probs, (len(truth), len(labels)))
    occurring, truth, counts = np.unique(
        truth, return_inverse=True, return_counts=True
    )
    words = [labels[k] for k in occurring]
    if len(words) < 2:
        raise InputError(
            f"all {len(truth)} utterances are {words[0]}: a calibration needs "
            "utterances of two labels at least"
        )
    log_probs = log_probs[:, occurring]
    temperature = _fit_temperature(log_probs, truth)
    with_prior, prior = _fit_with_prior(log_probs, truth, counts)
    all_right = (log_probs.argmax(axis=1) == truth).all()
    if all_right or temperature > 0.99 * TEMPERATURES[1]:
        logger.warning(
            "the %d utterances are %s, which says little about calibration "
            "(temperature %.3g)",
            len(truth),
            "all recognised" if all_right else "not recognised above chance",
            temperature,
        )
    return Calibration(
        temperature,
        with_prior,
        dict(zip(words, prior.tolist(), strict=True)),
        {
            **fitted_on,
            "n": len(truth),
            "labels": dict(zip(words, counts.tolist(), strict=True)),
        },
    )


def _fit_temperature(log_probs, truth):
    rows = np.arange(len(truth))

    def nll(log_temperature):
        scaled = log_probs / np.exp(log_temperature)
        return -log_softmax(scaled, axis=1)[rows, truth].mean()

    # Convex in 1 / T, so there is one minimum and no other to fall into.
    optimum = minimize_scalar(
        nll,
        bounds=np.log(TEMPERATURES),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return float(np.exp(optimum.x))


def _fit_with_prior(log_probs, truth, counts):
    rows, n = np.arange(len(truth)), len(truth)
    # Every label weighs the same, and all together as much as they are.
    weights = (n / len(counts) / counts)[truth]
    true = np.eye(len(counts))[truth]

    def objective(parameters):
        inverse, prior = parameters[0], parameters[1:]
        scores = inverse * log_probs - prior
        nll = -log_softmax(scores, axis=1)[rows, truth]
        slope = weights[:, None] * (softmax(scores, axis=1) - true)
        gradient = [(slope * log_probs).sum(), *(prior - slope.sum(axis=0))]
        value = weights @ nll + prior @ prior / 2
        return value / n, np.array(gradient) / n

    # Convex in 1 / T and the prior; the penalty makes the prior's mean 0.
    optimum = minimize(
        objective,
        np.array([1.0, *np.zeros(len(counts))]),
        jac=True,
        method="L-BFGS-B",
        bounds=[
            (1 / TEMPERATURES[1], 1 / TEMPERATURES[0]),
            *[(None, None)] * len(counts),
        ],
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000},
    ).x
    return float(1 / optimum[0]), optimum[1:]


def compare_calibrations(fitted, log_probs, references, labels, ua_over):
    """What a set's metrics are with each of `MODES`.

    Arguments
    ---------
    fitted : Calibration
        As `fit_calibration` returns.
    log_probs : torch.Tensor
        ``[n, n_labels]``, not calibrated.
    references : list of str
        The true emotions.
    labels : list of str
        The candidates.
    ua_over : str
        As for `speechbrain_mser.evaluation.metrics.emotion_metrics`.

    Returns
    -------
    dict
        Mode to what `speechbrain_mser.evaluation.reliability.calibration` returns, with "WA"
        and "UA".

    Example
    -------
    >>> import torch
    >>> log_probs = torch.tensor([[0.9, 0.1], [0.9, 0.1]]).log()
    >>> modes = compare_calibrations(
    ...     Calibration(2.0, 2.0, {}), log_probs, ["sad", "angry"],
    ...     ["sad", "angry"], "present"
    ... )
    >>> {mode: round(result["ECE"], 2) for mode, result in modes.items()}
    {'none': 0.4, 'temperature': 0.25, 'temperature+prior': 0.25}
    """
    compared = {}
    for mode in MODES:
        applied = fitted.apply(log_probs, labels, mode)
        said = [labels[k] for k in applied.argmax(-1).tolist()]
        metrics = emotion_metrics(references, said, labels, ua_over)
        compared[mode] = {
            "WA": metrics["WA"],
            "UA": metrics["UA"],
            **calibration(applied, references, labels),
        }
    return compared
