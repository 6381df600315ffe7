"""Speakers' shifts, told from what the speakers say."""

import numpy as np
import pytest
import torch

from speechbrain_mser.inference.speakers import speaker_shifts

RNG = np.random.default_rng(7)
LAYERS, DIM = 2, 20
MEANS = torch.tensor(RNG.normal(0, 2, (3, LAYERS, DIM))).float()
SHIFTS = torch.tensor(RNG.normal(0, 1, (4, LAYERS, DIM))).float()


def gaussian(features):
    """The true posteriors of emotions that are equally probable."""
    far = (features[:, None] - MEANS).square().sum((2, 3))
    return (-far / 2).softmax(1)


def speech(emotions):
    """Utterances of four speakers, and who said them."""
    numbers = torch.tensor(emotions)
    speakers = torch.arange(4).repeat_interleave(numbers.shape[1])
    noise = torch.tensor(RNG.normal(0, 1, (len(speakers), LAYERS, DIM)))
    features = MEANS[numbers.flatten()] + SHIFTS[speakers] + noise.float()
    return features, [f"s{i}" for i in speakers.tolist()]


def test_shifts_are_found_whatever_each_speaker_says():
    # Each of them says one emotion only, two of them another one once.
    said = [[0] * 40, [1] * 40, [2] * 39 + [0], [0] * 39 + [1]]
    features, speakers = speech(said)
    found = speaker_shifts(features, speakers, MEANS, gaussian, kappa=0)
    for number in range(4):
        # The mean of 40 utterances with a deviation of 1
        off = found[f"s{number}"] - SHIFTS[number]
        assert off.abs().mean() < 0.2
    # Where the mean of all that they say is somewhere else
    mean = features[:40].mean(0) - SHIFTS[0]
    assert mean.abs().mean() > 1


def test_known_emotions_give_the_mean_of_what_is_left():
    said = RNG.integers(0, 3, (4, 5)).tolist()
    features, speakers = speech(said)
    truth = torch.eye(3)[torch.tensor(said).flatten()]
    found = speaker_shifts(features, speakers, MEANS, lambda _: truth, kappa=3)
    for number in range(4):
        rows = slice(5 * number, 5 * number + 5)
        left = features[rows] - MEANS[torch.tensor(said[number])]
        expected = left.sum(0) / (5 + 3)
        torch.testing.assert_close(found[f"s{number}"], expected)


@pytest.mark.parametrize("kappa", [1.0, 10.0, 1e9])
def test_the_more_no_shift_counts_the_smaller_it_is(kappa):
    features, speakers = speech([[0, 1, 2]] * 4)
    found, smaller = (
        speaker_shifts(features, speakers, MEANS, gaussian, one)
        for one in (kappa / 10, kappa)
    )
    for speaker in found:
        assert smaller[speaker].norm() < found[speaker].norm()


def test_an_utterance_of_which_nothing_can_be_said_takes_no_speaker_with_it():
    features, speakers = speech([[0, 1, 2]] * 4)
    kept = [1, *range(3, 12)]
    expected = speaker_shifts(
        features[kept],
        [speakers[number] for number in kept],
        MEANS,
        gaussian,
        kappa=3,
    )
    features[[0, 2]] = torch.nan
    found = speaker_shifts(features, speakers, MEANS, gaussian, kappa=3)
    for name, shift in expected.items():
        torch.testing.assert_close(found[name], shift)
    features[:3] = torch.nan  # nothing at all of the first
    found = speaker_shifts(features, speakers, MEANS, gaussian, kappa=0)
    assert torch.equal(found["s0"], torch.zeros(LAYERS, DIM))
