"""The probe behind front ends: what stands before the encoder, and no peeking."""

from types import SimpleNamespace

import front_end
import microphones
import numpy as np
import pytest
import torch
from loco_baselines import LABELS

from speechbrain_mser.emotions import candidate_labels

RATE = 16000


def sine(hertz, seconds=1.0):
    return torch.sin(2 * torch.pi * hertz * torch.arange(seconds * RATE) / RATE)


def test_the_loudness_of_a_sine_is_as_bs_1770_says():
    # 997 Hz at full scale in one channel: -3.01 LUFS, to a peak of -23 dB.
    loud = microphones.Loudness(-26.0)(sine(997, 3.0))
    assert 20 * float(loud.amax().log10()) == pytest.approx(-23, abs=0.3)


def test_pauses_of_more_than_02_s_are_shortened_to_that():
    wav = torch.cat([sine(1000), torch.zeros(2 * RATE), sine(1000)])
    assert len(microphones.NoPauses()(wav)) == round(2.2 * RATE)
    short = torch.cat([sine(1000), torch.zeros(RATE // 10), sine(1000)])
    assert torch.equal(microphones.NoPauses()(short), short)


@pytest.fixture
def probe():
    """Twenty utterances of each corpus, of all its emotions."""
    corpora = np.repeat(list(LABELS), 20)
    emotions = [
        candidate_labels(LABELS[corpus])[i % len(candidate_labels(labels))]
        for corpus, labels in LABELS.items()
        for i in range(20)
    ]
    return SimpleNamespace(corpora=corpora, emotions=np.array(emotions))


def test_an_inductive_probe_does_not_look_at_the_test_corpus(probe):
    rng = np.random.default_rng(0)
    clean, copy = rng.normal(size=(2, len(probe.corpora), 6))
    training = [corpus for corpus in LABELS if corpus != "urdu"]
    test = probe.corpora == "urdu"
    for own in (True, False):
        before = front_end.Trained(probe, [clean, copy], training, own)
        changed = [
            np.where(test[:, None], block + 1000, block)
            for block in (clean, copy)
        ]
        after = front_end.Trained(probe, changed, training, own)
        np.testing.assert_array_equal(before.model.coef_, after.model.coef_)
        np.testing.assert_array_equal(before.heard, after.heard)


def test_a_copy_is_standardised_as_is_said(probe):
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(len(probe.corpora), 6))
    louder = 3 * clean + 5
    training = list(LABELS)[:3]
    by_itself = front_end.Trained(probe, [clean, louder], training, own=True)
    alone = front_end.Trained(probe, [clean, clean], training, own=True)
    # By itself it is the corpus again; by the corpus's statistics it is not.
    np.testing.assert_allclose(
        by_itself.model.coef_, alone.model.coef_, atol=1e-4
    )
    by_corpus = front_end.Trained(probe, [clean, louder], training, own=False)
    assert np.abs(by_corpus.scaler.mean_).min() > 1
