"""eGeMAPS: computed once, of each utterance alone; C without the test corpus."""

import sys

import egemaps
import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import balanced_accuracy_score
from sklearn.svm import SVC

from speechbrain_mser.dataio.audio import load_audio
from speechbrain_mser.dataio.batching import pad_together
from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.front_end import FrontEnd

RATE = 16000


@pytest.fixture
def table(tiny_corpus):
    root = tiny_corpus / "corpora" / "tiny"
    table = read_manifest(tiny_corpus / "manifests" / "tiny.csv", root)
    # Not in the order of anything
    return table.sample(frac=1, random_state=1)[:20]


@pytest.fixture
def opensmile():
    return pytest.importorskip("opensmile")


def alone(signals):
    """eGeMAPS of signals one by one."""
    encoder = egemaps.EGeMAPS()
    one = torch.ones(1)
    return [encoder(torch.as_tensor(s)[None], one)[0][0, 0] for s in signals]


def test_without_opensmile_the_extra_is_named(table, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(InputError, match=r"speechbrain-mser\[egemaps\]"):
        egemaps.egemaps_features(table, tmp_path)


def test_rows_are_what_opensmile_says_of_the_files(opensmile, table, tmp_path):
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.Functionals,
    )
    found = egemaps.egemaps_features(table, tmp_path)
    assert found.shape == (20, 88)
    for row, wav in zip(found, table.wav, strict=True):
        # Its own reader, its own way to a table
        np.testing.assert_allclose(
            row, smile.process_file(wav).to_numpy()[0], rtol=1e-5
        )


def test_a_front_end_comes_before(opensmile):
    wav = 0.1 * torch.randn(8000)
    front_end = FrontEnd(trim_silence=35.0, speech_level=-26.0)
    encoder = egemaps.EGeMAPS(front_end)
    padded = pad_together([torch.cat([torch.zeros(8000), wav]), wav], -1)
    found, _ = encoder(padded.data, padded.lengths)
    (expected,) = alone([front_end(wav)])
    assert torch.equal(found[1, 0], expected)
    # Of the silence 50 ms are left
    heard = front_end(padded.data[0])
    assert len(heard) == 8800 and torch.equal(found[0, 0], alone([heard])[0])
    assert encoder.fingerprint() != egemaps.EGeMAPS().fingerprint()


def test_an_utterance_does_not_depend_on_its_batch_mates(opensmile):
    rng = np.random.default_rng(0)
    signals = [
        torch.tensor(0.1 * rng.normal(size=n), dtype=torch.float32)
        for n in (1600, 7777, 16000)
    ]
    padded = pad_together(signals, -1)
    features, lens = egemaps.EGeMAPS()(padded.data, padded.lengths)
    assert features.shape == (3, 1, 88) and lens.tolist() == [1, 1, 1]
    for together, one in zip(features[:, 0], alone(signals), strict=True):
        assert torch.equal(together, one)
        assert one.isfinite().all()


def test_a_full_sample_keeps_its_sign(opensmile):
    wave = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)
    loud, full = (np.float32(peak * wave) for peak in (0.999, 1.0))
    # A peak beyond it, as resampling may leave
    over = np.float32(1.0001 * wave)
    loud, *others = alone([loud, full, over])
    for other in others:
        torch.testing.assert_close(other, loud, rtol=0.05, atol=0.05)


def test_what_was_computed_is_read_after_an_interruption(
    opensmile, table, tmp_path, monkeypatch
):
    computed = []
    functionals = egemaps.EGeMAPS._functionals

    def count(self, signal):
        if len(computed) == stop_at:
            raise KeyboardInterrupt
        computed.append(len(signal))
        return functionals(self, signal)

    monkeypatch.setattr(egemaps.EGeMAPS, "_functionals", count)
    monkeypatch.setattr(egemaps.os, "cpu_count", lambda: 1)
    # In the second batch of 16
    stop_at = 18
    with pytest.raises(KeyboardInterrupt):
        egemaps.egemaps_features(table, tmp_path)
    computed.clear()
    stop_at = None
    first = egemaps.egemaps_features(table, tmp_path)
    assert len(computed) == 20 - 16
    again = egemaps.egemaps_features(table, tmp_path)
    assert len(computed) == 20 - 16
    np.testing.assert_array_equal(first, again)
    # By ID, not by position
    turned = egemaps.egemaps_features(table[::-1], tmp_path)
    np.testing.assert_array_equal(turned[::-1], first)


def test_an_utterance_that_cannot_be_read_is_named(opensmile, table, tmp_path):
    bad = tmp_path / "bad.wav"
    soundfile.write(bad, np.zeros(RATE), RATE)
    table = table[:2].copy()
    table.iloc[1, table.columns.get_loc("wav")] = str(bad)
    with pytest.raises(InputError, match=rf"{table.ID.iloc[1]}.*zero"):
        egemaps.egemaps_features(table, tmp_path / "features")
    with pytest.raises(InputError):
        load_audio(bad)


@pytest.fixture
def corpora():
    """Features, emotions and names of three corpora; emotions overlap."""
    rng = np.random.default_rng(0)
    names = np.repeat(["a", "b", "c"], 60)
    emotions = np.tile(["angry", "happy", "sad"], 60)
    middle = {"angry": (2, 0), "happy": (0, 2), "sad": (-2, -2)}
    features = np.array([middle[e] for e in emotions])
    features = features + rng.normal(size=(180, 2))
    return features, emotions, names


def test_c_is_the_best_on_corpora_left_out(corpora):
    features, emotions, names = corpora
    found = egemaps.support_vectors(features, emotions, names)
    # By hand
    means = []
    for cost in egemaps.COSTS:
        uas = []
        for name in ("a", "b", "c"):
            train = names != name
            mean, std = features[train].mean(0), features[train].std(0)
            x = (features - mean) / std
            model = SVC(C=cost, class_weight="balanced")
            model.fit(x[train], emotions[train])
            scores = model.decision_function(x[~train])
            said = model.classes_[scores.argmax(1)]
            uas.append(balanced_accuracy_score(emotions[~train], said))
        means.append(np.mean(uas))
    np.testing.assert_allclose(found.cv_results_["mean_test_score"], means)
    assert found.best_params_ == {"svc__C": egemaps.COSTS[np.argmax(means)]}


def test_emotions_that_a_corpus_has_not_cannot_win_in_it(corpora):
    features, emotions, names = corpora
    model = egemaps.support_vectors(features, emotions, names)
    # Happy by the looks of it; of angry and sad, angry is nearer
    x = np.array([[0.5, 2.0], [2.0, 0.0], [-2.0, -2.0]])
    assert model.predict(x)[0] == "happy"
    ua = egemaps._closed_set_ua(model, x, np.array(["angry", "angry", "sad"]))
    assert ua == 1.0
    # One that training had not cannot be said, and counts.
    ua = egemaps._closed_set_ua(model, x, np.array(["fear", "angry", "sad"]))
    assert ua == pytest.approx(2 / 3)
