"""Random microphones: every utterance's features moved as a whole."""

import pytest
import torch

from speechbrain_mser.lobes.alignment import shift_features


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
