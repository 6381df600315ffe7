#!/usr/bin/env python3
"""What a linear probe reaches behind each front end, and what copies help.

Leave one corpus out, as loco_baselines.py: mean over time of layers 2 to 4 of
Whisper-base side by side, logistic regression. Each training corpus is
standardised by itself, the test corpus by all training corpora ("inductive")
or by itself ("transductive"). "Worse microphones": the test corpus through a
telephone's band, noise 15 dB under speech and a room, training as it is: mean
of the three, inductive. Copies: the training utterances once more, as another
microphone would have recorded them; standardised each by itself ("own"), or as
the corpus was recorded ("corpus").

Nothing is random but the choice of `--clips` of each corpus, evenly over its
emotions, and what is drawn for each copy: both are the same each time. What
is encoded once is read again: interrupted, it goes on.

Usage: python front_end.py --data FOLDER --folder results/front_end
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import recipe  # noqa: F401  finds the recipe's scripts
import torch
from baseline import FOLDERS, mean_and_deviation
from corpora import prepare_manifests
from loco_baselines import LABELS, logistic_regression
from microphones import (
    Chain,
    Equalised,
    HighPass,
    Loudness,
    NoPauses,
    both,
    level,
    trim,
)
from sklearn.preprocessing import StandardScaler

from speechbrain_mser.dataio.cached_encoding import open_store
from speechbrain_mser.dataio.feature_reader import FeatureReader
from speechbrain_mser.dataio.manifest import read_manifests
from speechbrain_mser.dataio.microphones import WORSE, Band, Noise, Room
from speechbrain_mser.dataio.utterances import select_utterances
from speechbrain_mser.emotions import CANONICAL, candidate_labels
from speechbrain_mser.errors import exits_on_input_error
from speechbrain_mser.evaluation.corpus_figures import balanced_sample
from speechbrain_mser.evaluation.metrics import emotion_metrics
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.files.markdown import markdown_table
from speechbrain_mser.lobes import build_encoder

LAYERS = [1, 2, 3, 4, 5]
AS_IT_IS = "as it is"
# The open recipe's.
OURS = "trim 35 dB, level"
FRONT_ENDS = {
    AS_IT_IS: [],
    OURS: [both()],
    "level": [level()],
    "level by BS.1770": [Loudness()],
    "trim 35 dB": [trim(35.0)],
    "trim 30 dB": [trim(30.0)],
    "trim 25 dB": [trim(25.0)],
    "trim 40 dB": [trim(40.0)],
    "trim 30 dB, level": [both(30.0)],
    "trim 25 dB, level": [both(25.0)],
    "trim 40 dB, level": [both(40.0)],
    "pauses of more than 0.2 s, level": [NoPauses(), both()],
    "trim 35 dB, equalised half way, level": [Equalised(), both()],
    "high-pass 80 Hz, trim 35 dB, level": [HighPass(), both()],
    "trim 35 dB, level, noise 30 dB under": [both(), Noise(30, 30)],
}
# Also tested with worse microphones: three more times through the encoder.
TESTED_WORSE = (AS_IT_IS, "level", OURS, "trim 25 dB, level")
# Gain is none of them: behind a level, such a copy is the utterance again.
COPIES = {
    "noise": Noise(10, 30, seed=1),
    "room": Room(0.2, 1.0, seed=1),
    "band": Band(0, 2500, 7000, seed=1),
    "telephone": Band(300, 3400, 3400, seed=1),
}


class Pooled:
    """An encoder's layers as mean and deviation over time, one frame."""

    def __init__(self, encoder):
        self.encoder = encoder

    def fingerprint(self):
        """The encoder's, and that."""
        return {**self.encoder.fingerprint(), "pooled": "mean, deviation"}

    def __call__(self, wavs, wav_lens):
        """``[batch, layers, 1, 2 dim]``."""
        pooled = mean_and_deviation(*self.encoder(wavs, wav_lens))
        return pooled[:, :, None], torch.ones(len(wavs))


class Probe:
    """Features behind any front end, and what the probe makes of them."""

    def __init__(self, data, folder, dtype, clips):
        manifests = prepare_manifests(
            list(FOLDERS), data / "speech", FOLDERS, folder / "manifests"
        )
        table = select_utterances(read_manifests(manifests))
        asked = [
            emotion in candidate_labels(LABELS[corpus])
            for corpus, emotion in zip(table.corpus, table.emotion, strict=True)
        ]
        table = table[asked]
        if clips:
            parts = [
                balanced_sample(part, clips, seed=0)
                for _, part in table.groupby("corpus")
            ]
            table = table.loc[sorted(i for part in parts for i in part.index)]
        self.table, self.folder = table, folder
        self.corpora = table.corpus.to_numpy(str)
        self.emotions = table.emotion.to_numpy(str)
        self.encoder = build_encoder(
            data / "whisper-base-encoder", layers=LAYERS, dtype=dtype
        )

    def features(self, parts, corpus=None):
        """``[utterances, layers, 2 dim]`` behind a chain."""
        self.encoder.front_end = Chain(parts) if parts else None
        pooled = Pooled(self.encoder)
        store = open_store(pooled, "write", self.folder / "features", "float32")
        table = self.table
        if corpus is not None:
            table = table[self.corpora == corpus]
        name = ", ".join(type(part).__name__ for part in parts) or AS_IT_IS
        return (
            FeatureReader(pooled, store)
            .compute(lambda features, _: features[:, :, 0], table, name)[1]
            .numpy()
        )


class Trained:
    """A probe trained on some corpora, as they are and as copies.

    Arguments
    ---------
    probe : Probe
        Whose utterances they are.
    blocks : list of numpy.ndarray
        ``[utterances, dim]`` each: as recorded, then copies.
    training : list of str
        The corpora.
    own : bool
        Whether a copy of a corpus is standardised by itself, as another
        corpus; else by the statistics of the corpus as it was recorded.
    """

    def __init__(self, probe, blocks, training, own=True):
        self.probe = probe
        features, emotions = [], []
        for corpus in training:
            rows = probe.corpora == corpus
            known = np.isin(probe.emotions[rows], CANONICAL)
            for block in blocks:
                source = block if own else blocks[0]
                moved = standardized(block[rows], source[rows])
                features.append(moved[known])
                emotions.append(probe.emotions[rows][known])
        rows = np.isin(probe.corpora, training)
        self.heard = np.concatenate(
            [block[rows] for block in (blocks if own else blocks[:1])]
        )
        features = np.concatenate(features)
        self.scaler = StandardScaler().fit(features)
        self.model = logistic_regression(
            self.scaler.transform(features), np.concatenate(emotions), None
        )

    def recall(self, features, test, heard=None):
        """UA on a corpus, standardised by what was heard of it, or inductive.

        ``features`` are the corpus's own, ``[utterances, dim]``.
        """
        classes = list(self.model.classes_)
        labels = list(candidate_labels(LABELS[test]))
        features = standardized(
            features, self.heard if heard is None else heard
        )
        scores = self.model.decision_function(self.scaler.transform(features))
        # Closed set, as the system is asked: only the candidates can win; of
        # two training corpora, some are in neither.
        known = [label for label in labels if label in classes]
        columns = [classes.index(label) for label in known]
        said = [known[i] for i in scores[:, columns].argmax(1)]
        truth = list(self.probe.emotions[self.probe.corpora == test])
        return emotion_metrics(truth, said, labels)["UA"]


def standardized(features, source):
    """``[n, dim]`` by another's mean and deviation."""
    return (features - source.mean(0)) / (source.std(0) + 1e-6)


def chosen(features, layers=(2, 3, 4), deviation=False):
    """Of all layers' mean and deviation, some side by side."""
    dim = features.shape[-1] // (1 if deviation else 2)
    columns = [LAYERS.index(layer) for layer in layers]
    return features[:, columns, :dim].reshape(len(features), -1)


def measure(probe, blocks, worse=(), own=True):
    """UA of all folds, by kind of test.

    ``blocks`` are the training's, the first as recorded and tested on;
    ``worse`` are further tests, ``{corpus: [utterances, dim]}`` each.
    """
    results = {}
    for test in LABELS:
        trained = Trained(
            probe, blocks, [corpus for corpus in LABELS if corpus != test], own
        )
        rows = blocks[0][probe.corpora == test]
        results[test] = {
            "inductive": trained.recall(rows, test),
            "transductive": trained.recall(rows, test, rows),
            "worse": [trained.recall(each[test], test) for each in worse],
        }
    return results


def inner(probe, block, outer):
    """Mean UA of leaving one more out of the corpora but ``outer``."""
    others = [corpus for corpus in LABELS if corpus != outer]
    return np.mean(
        [
            Trained(
                probe, [block], [corpus for corpus in others if corpus != test]
            ).recall(block[probe.corpora == test], test)
            for test in others
        ]
    )


def mean(results, kind):
    """Over the folds, and over all worse microphones."""
    return np.mean([results[test][kind] for test in LABELS])


def row(name, results):
    """A table's row."""
    worse = [results[test]["worse"] for test in LABELS]
    cells = [results[test]["inductive"] for test in LABELS]
    cells += [mean(results, "inductive"), mean(results, "transductive")]
    cells += list(np.mean(worse, axis=0)) or [None] * len(WORSE)
    cells += [np.mean(worse) if worse[0] else None]
    return (name, *("" if x is None else f"{x:.3f}" for x in cells))


HEADINGS = (
    *LABELS,
    "mean, inductive",
    "transductive",
    *WORSE,
    "worse, mean",
)


def in_tests(probe, block):
    """A block's rows by corpus, as `measure` takes worse tests."""
    return {test: block[probe.corpora == test] for test in LABELS}


def worse_tests(probe, parts, pool=chosen):
    """Each worse microphone before a front end."""
    return [
        in_tests(probe, pool(probe.features([microphone, *parts])))
        for microphone in WORSE.values()
    ]


def front_ends(probe):
    """All front ends, and what would have been chosen without the test."""
    results, blocks = {}, {}
    for name, parts in FRONT_ENDS.items():
        blocks[name] = chosen(probe.features(parts))
        worse = worse_tests(probe, parts) if name in TESTED_WORSE else []
        results[name] = measure(probe, [blocks[name]], worse)
    yield "front end", [row(name, found) for name, found in results.items()]
    rows = []
    for test in LABELS:
        scores = {
            name: inner(probe, block, test) for name, block in blocks.items()
        }
        best = max(scores, key=scores.get)
        found = results[best][test]["inductive"]
        rows.append((test, f"{found:.3f}", f"{scores[best]:.3f}", best))
    yield (("left out", "inductive", "inside the others", "chosen there"), rows)


def copies(probe):
    """Copies of the training utterances, alone and together."""
    parts = FRONT_ENDS[OURS]
    base, worse = chosen(probe.features(parts)), worse_tests(probe, parts)
    blocks = {
        name: chosen(probe.features([microphone, *parts]))
        for name, microphone in COPIES.items()
    }
    rows = [row("none", measure(probe, [base], worse))]
    every = [(name,) for name in blocks]
    for names in (*every, ("noise", "room"), ("noise", "room", "telephone")):
        for how, own in (("own", True), ("corpus", False)):
            training = [base, *(blocks[name] for name in names)]
            found = measure(probe, training, worse, own)
            rows.append(row(f"{', '.join(names)}; {how}", found))
    yield "copies", rows


def poolings(probe):
    """Other layers, and the deviation over time beside the mean."""
    parts, rows = FRONT_ENDS[OURS], []
    for layers in ((3,), (2, 3, 4), (3, 4), (3, 4, 5), (2, 3, 4, 5), LAYERS):
        for deviation in (False, True):
            pool = partial(chosen, layers=layers, deviation=deviation)
            found = measure(
                probe,
                [pool(probe.features(parts))],
                worse_tests(probe, parts, pool),
            )
            name = ", ".join(map(str, layers))
            rows.append(row(name + " and deviation" * deviation, found))
    yield "layers", rows


@exits_on_input_error
def main():
    """Measure everything, and print a table of each kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default="results/front_end")
    parser.add_argument("--clips", type=int, default=320)
    parser.add_argument("--dtype", default="bfloat16")
    arguments = parser.parse_args()
    probe = Probe(
        arguments.data, arguments.folder, arguments.dtype, arguments.clips
    )
    tables = []
    for part in (front_ends, copies, poolings):
        for heading, rows in part(probe):
            if isinstance(heading, str):
                heading = (heading, *HEADINGS)
            tables.append(markdown_table([heading, *rows]))
            print(tables[-1], end="\n\n", flush=True)
    write_text(arguments.folder / "table.md", "\n\n".join(tables) + "\n")


if __name__ == "__main__":
    main()
