"""What acoustic descriptors by hand reach: eGeMAPS and a support vector machine.

The 88 functionals of the extended Geneva minimalistic acoustic parameter set
(eGeMAPSv02: pitch, jitter, formants, loudness, spectral balance, rhythm) of an
utterance, by openSMILE, whose licence is for non-commercial use.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from sklearn.metrics import recall_score
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.dataio.cached_encoding import open_store
from speechbrain_mser.dataio.feature_reader import FeatureReader
from speechbrain_mser.errors import InputError

COSTS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class EGeMAPS:
    """openSMILE with the face of a frozen encoder: one frame an utterance.

    So its output is stored and found again as any encoder's is.

    Arguments
    ---------
    front_end : speechbrain_mser.lobes.front_end.FrontEnd, optional
        What every utterance goes through before.

    Raises
    ------
    InputError
        openSMILE is not installed.
    """

    def __init__(self, front_end=None):
        self.front_end = front_end
        try:
            import opensmile
        except ImportError:
            raise InputError(
                "eGeMAPS needs openSMILE: pip install "
                "'speechbrain-mser[egemaps]'"
            ) from None
        self.version = opensmile.__version__
        self.smile = opensmile.Smile(
            feature_set=opensmile.FeatureSet.eGeMAPSv02,
            feature_level=opensmile.FeatureLevel.Functionals,
        )

    def fingerprint(self):
        """All that decides the output, beside the audio."""
        described = {
            "encoder": "openSMILE eGeMAPSv02",
            "version": self.version,
        }
        if self.front_end is not None:
            described["front_end"] = self.front_end.settings()
        return described

    def __call__(self, wavs, wav_lens):
        """Functionals of a batch: ``[batch, 1, 88]``, and lengths of 1."""
        samples = (wav_lens * wavs.shape[1]).round().long().tolist()
        wavs = [wav[:n] for wav, n in zip(wavs, samples, strict=True)]
        if self.front_end is not None:
            wavs = map(self.front_end, wavs)
        signals = [wav.numpy() for wav in wavs]
        # openSMILE works outside Python's lock.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            features = np.stack(list(pool.map(self._functionals, signals)))
        return torch.from_numpy(features[:, None]), torch.ones(len(signals))

    def _functionals(self, signal):
        # It is cast to 16 bits without a check: a full sample would change
        # its sign.
        signal = np.clip(signal, -1, 1 - 2**-15)
        return self.smile(signal, SAMPLE_RATE)[0, :, 0]


def egemaps_features(table, folder, front_end=None):
    """eGeMAPS of every utterance, ``[n, 88]``, computed once and read ever after.

    The store has a folder of its own in the one given, and goes on where it
    was after an interruption.
    """
    encoder = EGeMAPS(front_end)
    reader = FeatureReader(
        encoder, open_store(encoder, "write", folder, "float32")
    )
    _, features = reader.compute(
        lambda features, _: features[:, 0], table, "eGeMAPS"
    )
    return features.numpy()


def support_vectors(features, emotions, corpora):
    """A support vector machine whose C serves corpora that it did not see.

    Radial basis functions, balanced classes, standardised features. C is the
    one with the best mean UA when each of the corpora is left out in turn.

    Arguments
    ---------
    features : numpy.ndarray
        ``[n, dim]``, of the training corpora.
    emotions : array of str
        ``[n]``.
    corpora : array of str
        ``[n]``, two corpora at least.

    Returns
    -------
    sklearn.model_selection.GridSearchCV
        Trained on all of it; has ``decision_function`` and ``classes_``.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> emotions = np.array(["angry", "happy", "sad"] * 20)
    >>> features = (emotions[:, None] == ["angry", "sad"]) + 0.1 * rng.normal(
    ...     size=(60, 2)
    ... )
    >>> model = support_vectors(features, emotions, ["a"] * 30 + ["b"] * 30)
    >>> str(model.classes_[model.decision_function([[0, 1]]).argmax()])
    'sad'
    """
    svm = make_pipeline(StandardScaler(), SVC(class_weight="balanced"))
    search = GridSearchCV(
        svm,
        {"svc__C": COSTS},
        scoring=_closed_set_ua,
        cv=LeaveOneGroupOut(),
        error_score="raise",
    )
    return search.fit(features, emotions, groups=corpora)


def _closed_set_ua(model, features, emotions):
    """UA if only the emotions that occur in a corpus can win."""
    occurring = np.isin(model.classes_, emotions)
    scores = model.decision_function(features)[:, occurring]
    said = model.classes_[occurring][scores.argmax(1)]
    labels = np.unique(emotions)
    return recall_score(emotions, said, labels=labels, average="macro")
