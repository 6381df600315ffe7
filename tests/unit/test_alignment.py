"""Random microphones and voices: every utterance's features moved as a whole."""

import numpy as np
import pytest
import torch
from speechbrain.dataio.dataset import DynamicItemDataset

from speechbrain_mser.lobes.alignment import (
    KAPPA_SPEAKER,
    SpeakerAlignment,
    exchange_rests,
    shift_features,
)
from speechbrain_mser.lobes.standardize import FeatureStandardizer
from speechbrain_mser.training.statistics import align_speakers


@pytest.mark.parametrize("shape", [(400, 6, 3), (400, 2, 6, 3)])
def test_shifts_are_an_utterances_own_and_of_the_size_asked_for(shape):
    torch.manual_seed(0)
    features = torch.randn(shape)
    layers = 1 if len(shape) == 3 else shape[1]
    deviation = torch.arange(1.0, 1 + 3 * layers).view(layers, 3)
    shifts = shift_features(features, deviation, 0.5) - features
    # The same for all frames
    torch.testing.assert_close(
        shifts, shifts[..., :1, :].expand_as(shifts), atol=1e-5, rtol=0
    )
    found = shifts[..., 0, :].reshape(400, layers, 3)
    torch.testing.assert_close(found.std(0), 0.5 * deviation, atol=0, rtol=0.15)
    assert (found.mean(0).abs() < 0.1 * deviation).all()


def test_no_shift_leaves_features_as_they_are():
    features = torch.randn(2, 5, 3)
    assert torch.equal(shift_features(features, torch.ones(1, 3), 0), features)


@pytest.mark.parametrize("shape", [(60, 6, 2), (60, 3, 6, 2)])
def test_rests_are_exchanged_with_the_covariance_within_emotions(shape):
    torch.manual_seed(0)
    emotions = [("sad", "angry", "happy")[n % 3] for n in range(60)]
    # Emotions far from each other: nothing of that is in a rest.
    far = torch.tensor([100.0 * (n % 3) for n in range(60)])
    features = torch.randn(shape).cumsum(-1) + far.view(
        -1, *[1] * len(shape[1:])
    )
    lens = torch.tensor([1.0, 0.5] * 30)
    features[1::2, ..., 3:, :] = torch.nan  # padding
    means = np.stack(
        [
            one[..., : 3 if n % 2 else 6, :].mean(-2).flatten().numpy()
            for n, one in enumerate(features)
        ]
    )
    rests = np.concatenate(
        [means[k::3] - means[k::3].mean(0) for k in range(3)]
    )
    shifts = exchange_rests(features, lens, emotions, 0.5) - features
    found = shifts[..., 0, :].flatten(1).numpy()
    # Each is somebody's, and everybody's is somewhere: the same covariance.
    order = [np.abs(0.5 * rests - one).sum(1).argmin() for one in found]
    assert sorted(order) == [*range(60)]
    np.testing.assert_allclose(found, 0.5 * rests[order], atol=1e-4)
    # The same for all frames
    assert torch.allclose(
        shifts[..., :3, :],
        shifts[..., :1, :].expand_as(shifts[..., :3, :]),
        atol=1e-4,
    )


def test_a_speakers_own_is_told_from_what_the_speaker_says():
    # By hand: sad is 1 to the left of the mean of all, angry to the right. Voices
    # are 0.5 off, as many on each side; x says angry three times as often, and
    # its name means another speaker in another corpus.
    voices = {
        ("a", "x"): 0.5,
        ("a", "y"): -0.5,
        ("b", "x"): -0.5,
        ("b", ""): 0.5,
    }
    said = {
        ("a", "x"): [1, 1, 1, -1],
        ("a", "y"): [1, 1, 1, -1],
        ("b", "x"): [-1, 1],
        ("b", ""): [-1, 1],
    }
    items = {
        f"{corpus}{speaker}{n}": {
            "sig": torch.tensor([7 + 2.0 * (emotion + voice)]),
            "corpus": corpus,
            "speaker": speaker,
            "emotion": "angry" if emotion > 0 else "sad",
            "heard_through": 0,
        }
        for (corpus, speaker), voice in voices.items()
        for n, emotion in enumerate(said[corpus, speaker])
    }
    # Through a microphone nobody is who they are.
    items |= {
        f"{name} (copy 1)": {
            **item,
            "sig": 3 * item["sig"],
            "heard_through": 1,
        }
        for name, item in items.items()
    }
    dataset = DynamicItemDataset(items)
    dataset.set_output_keys(["id", "sig", "corpus", "speaker", "emotion"])
    standardizer = FeatureStandardizer(dim=1)
    standardizer.mean.fill_(7.0)
    standardizer.std.fill_(2.0)

    def encode(batch):
        batch.features = batch.sig.data[:, :, None], batch.sig.lengths
        return True

    alignment = align_speakers(standardizer, None, dataset, encode, False)
    shifts = {who: own.item() for who, own in alignment.shifts.items()}
    assert shifts == pytest.approx(
        {
            ("a", "x"): 4 * 0.5 / (4 + KAPPA_SPEAKER),
            ("a", "y"): 4 * -0.5 / (4 + KAPPA_SPEAKER),
            ("b", "x"): 2 * -0.5 / (2 + KAPPA_SPEAKER),
        },
        abs=1e-6,
    )
    features = torch.full((3, 2, 1), 9.0)
    moved = alignment(features, ["a", "b", "a"], ["x", "", "z"])
    expected = [9 - 2 * shifts["a", "x"], 9.0, 9.0]
    assert moved[:, 1, 0].tolist() == pytest.approx(expected)


def test_rests_are_those_of_full_precision():
    # A hundred deviations off, as some of Whisper's dimensions are
    torch.manual_seed(0)
    features = 100 + torch.randn(8, 1, 64)
    emotions = ["sad", "angry"] * 4
    torch.manual_seed(1)
    expected = exchange_rests(features, torch.ones(8), emotions, 1.0)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = exchange_rests(features, torch.ones(8), emotions, 1.0)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_each_layer_has_its_own_shift():
    common = FeatureStandardizer(dim=3, n_layers=2)
    common.std.copy_(torch.arange(1.0, 7).view(2, 3))
    shift = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.5]])
    alignment = SpeakerAlignment(common, {("a", "x"): shift})
    moved = alignment(torch.zeros(2, 2, 4, 3), ["a", "a"], ["x", "y"])
    expected = torch.tensor([[-1.0, 0, 0], [0, 0, -3]])[:, None].expand(2, 4, 3)
    assert torch.equal(moved[0], expected)
    assert torch.equal(moved[1], torch.zeros(2, 4, 3))
