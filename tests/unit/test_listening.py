"""What is heard is shrunk to the training's statistics, and moves features."""

import numpy as np
import pandas
import pytest
import torch

from speechbrain_mser.errors import InputError
from speechbrain_mser.inference.adaptation import Adaptation, shrink
from speechbrain_mser.inference.heard_speech import HeardSpeech
from speechbrain_mser.inference.listening import Listening, parse_adaptation
from speechbrain_mser.lobes.standardize import FeatureStandardizer

NO_NUMBERS = ("", ":", ":0", ":-1", ":1.5", ":\u0661", ":3:", ":3:x")


def training_of(mean, std):
    """A training's statistics, of one layer and dimension."""
    training = FeatureStandardizer(dim=1)
    training.mean.fill_(mean)
    training.std.fill_(std)
    return training


@pytest.fixture
def training():
    """Statistics of two layers of width 5, some a hundred times the rest."""
    found = FeatureStandardizer(dim=5, n_layers=2)
    scale = torch.tensor([1.0, 1.0, 1.0, 100.0, 0.01])
    features = 3 * scale + scale * torch.randn(8, 2, 20, 5)
    found.update(features, torch.ones(8))
    found.finish()
    return found


# All frames of an utterance, or their mean alone.
@pytest.fixture(params=[12, 1])
def features(request):
    return 2 + 3 * torch.randn(6, 2, request.param, 5)


def test_the_numbers_that_come_out_on_paper():
    # Two utterances of a mean over time each: 4 and 8, mean 6, variance 4;
    # the training's 1 and 9. Mean (2 x 6 + 3 x 1) / 5 = 3; variance
    # (2 x 4 + 6 x 9) / 8 = 7.75.
    heard = HeardSpeech.of(torch.tensor([[[4.0]], [[8.0]]]), torch.ones(2))
    training = training_of(mean=1.0, std=3.0)
    own = shrink(heard, training, kappa_mean=3, kappa_variance=6)
    assert own.mean.item() == pytest.approx(3)
    assert own.std.item() ** 2 == pytest.approx(7.75)
    # And 9 becomes (9 - 3) / sqrt(7.75) x 3 + 1.
    moved = Adaptation(training, heard)(torch.tensor([[[9.0]]]))
    assert moved.item() == pytest.approx(1 + 6 / 7.75**0.5 * 3)


def test_frames_make_the_mean_and_utterances_make_it_known():
    # Three frames and one: the mean is (3 x 2 + 6) / 4 = 3, known from two
    # utterances, not from four frames. Padding does not count.
    padded = torch.tensor([[[2.0], [2.0], [2.0]], [[6.0], [99.0], [99.0]]])
    heard = HeardSpeech.of(padded, torch.tensor([1.0, 1 / 3]))
    assert (heard.utterances, heard.frames) == (2, 4)
    own = shrink(heard, training_of(mean=0.0, std=1.0), kappa_mean=3)
    assert own.mean.item() == pytest.approx(2 / 5 * 3)


def test_nothing_heard_moves_nothing(training, features):
    own = shrink(HeardSpeech(), training)
    assert torch.equal(own.mean, training.mean)
    assert torch.equal(own.std, training.std)
    moved = Adaptation(training, HeardSpeech())(features)
    # But for the last bit of numbers of a hundred times the deviation
    torch.testing.assert_close(moved, features, atol=1e-4, rtol=0)


def test_without_end_it_is_the_adaptation_to_a_whole_set(training, features):
    lens = torch.tensor([1.0, 0.5, 0.5, 1.0, 1.0, 0.25])
    if features.shape[2] == 1:
        lens = torch.ones(6)
    whole = training.anew()
    whole.update(features, lens)
    whole.finish()
    heard = HeardSpeech.of(features, lens)
    endless = HeardSpeech(10**15, heard.frames, heard.total, heard.squares)
    for own in (shrink(heard, training, 0, 0), shrink(endless, training)):
        torch.testing.assert_close(own.mean, whole.mean)
        torch.testing.assert_close(own.std, whole.std)


def test_the_more_is_heard_the_nearer_it_comes(training, features):
    whole = shrink(HeardSpeech.of(features, torch.ones(6)), training, 0, 0)
    heard, distances = HeardSpeech(), []
    for _ in range(5):
        heard += HeardSpeech.of(features, torch.ones(6))
        own = shrink(heard, training)
        distances.append((own.mean - whole.mean).abs().max().item())
    assert distances == sorted(distances, reverse=True)


def test_in_whatever_pieces_it_is_heard(features):
    lens = torch.ones(6)
    whole = HeardSpeech.of(features, lens)
    first, rest = (
        HeardSpeech.of(features[part], lens[part])
        for part in (slice(2), slice(2, 6))
    )
    together = first + rest
    assert (together.utterances, together.frames) == (6, whole.frames)
    torch.testing.assert_close(together.mean, whole.mean)
    torch.testing.assert_close(together.variance, whole.variance)
    # What was heard before is not changed by it.
    assert first.utterances == 2


def test_a_recogniser_that_does_not_standardise_cannot_adapt(features):
    heard = HeardSpeech.of(features, torch.ones(6))
    with pytest.raises(InputError, match="standardize: False"):
        Adaptation(None, heard)


@pytest.fixture
def audio():
    """Ten utterances of x, three of y, two of nobody known, in two corpora."""
    names = [f"u{k:02}" for k in range(16)]
    return pandas.DataFrame(
        {
            "ID": names,
            "corpus": ["a"] * 15 + ["b"],
            "speaker": ["x"] * 10 + ["y"] * 3 + [""] * 2 + ["x"],
        }
    )


def test_so_many_are_drawn_and_others_each_time(audio):
    drawn = Listening(4, draws=5, seed=1).draw(audio)
    assert [len(ids) for ids in drawn] == [4] * 5
    assert len(set(map(frozenset, drawn))) > 1
    assert set().union(*drawn) <= set(audio.ID)
    # The order of the table does not matter, the seed does.
    shuffled = audio.sample(frac=1, random_state=0)
    assert Listening(4, draws=5, seed=1).draw(shuffled) == drawn
    assert Listening(4, draws=5, seed=2).draw(audio) != drawn
    # Fewer are the first of more, so that curves over N are smooth.
    for few, many in zip(
        drawn, Listening(9, draws=5, seed=1).draw(audio), strict=True
    ):
        assert few < many


def test_every_utterance_is_drawn_equally_often(audio):
    drawn = Listening(4, draws=2000, seed=1).draw(audio)
    counts = pandas.Series([u for ids in drawn for u in ids]).value_counts()
    # Binomial, n 2,000, p 1 / 4: within five deviations
    assert len(counts) == 16
    assert np.abs(counts - 500).max() < 5 * (2000 * 0.25 * 0.75) ** 0.5


def test_by_speaker_each_hears_their_own(audio):
    listening = Listening(3, by_speaker=True, seed=1)
    groups = listening.groups(audio)
    assert len(set(groups.values())) == 4  # x in a is another one than in b
    (drawn,) = listening.draw(audio)
    heard = [groups[utterance] for utterance in drawn]
    # Three of x, all three of y, both of nobody known, the only one in b
    assert sorted(heard.count(g) for g in set(heard)) == [1, 2, 3, 3]


def test_a_set_is_heard_as_a_whole(audio):
    whole = parse_adaptation("set", draws=6)
    assert whole.draw(audio) == [set(audio.ID)]
    assert (whole.kappa_mean, whole.kappa_variance) == (0, 0)


@pytest.mark.parametrize(
    "word",
    [None, 3, "SET", *(f"listen{n}" for n in NO_NUMBERS)],
)
def test_what_cannot_be_heard_is_refused(word):
    with pytest.raises(InputError, match="expected none, set, listen:N"):
        parse_adaptation(word)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("draws", 0),
        ("draws", 1.5),
        ("kappa_mean", -1),
        ("kappa_mean", "3"),
        ("kappa_variance", float("nan")),
    ],
)
def test_settings_of_listening_are_checked(name, value):
    with pytest.raises(InputError, match=name):
        parse_adaptation("listen:3", **{name: value})
