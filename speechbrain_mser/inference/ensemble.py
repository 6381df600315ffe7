"""One or several recognisers over whole evaluation sets."""

from collections import Counter, defaultdict
from functools import partial

import torch
from speechbrain.utils.logger import get_logger

from speechbrain_mser.inference.adaptation import shrink
from speechbrain_mser.inference.heard_speech import HeardSpeech
from speechbrain_mser.inference.listening import known_speakers, names_by_id
from speechbrain_mser.inference.speakers import knows_emotions, own_of_speakers
from speechbrain_mser.lobes.alignment import move_statistics

logger = get_logger(__name__)


def recognize_sets(recognizers, count, sets, listening=None, unfinished=None):
    """What one or several recognisers make of one or several sets.

    Arguments
    ---------
    recognizers : iterable
        Pairs of an `EmotionRecognizer` and the `FeatureReader` of its encoder.
        Each is asked for when it is its turn, so that one at a time is in the
        memory.
    count : int
        How many there are; their log-probabilities are averaged.
    sets : dict
        Name to the utterances, the candidates, and the utterances whose audio
        adaptation may take (`pandas.DataFrame`, list of str,
        `pandas.DataFrame`).
    listening : Listening, optional
        What is heard of each set before it is recognised, and how often that
        is drawn; every utterance is encoded once, whatever the number of
        draws, and those that are heard once more where nothing is stored.
    unfinished : speechbrain_mser.evaluation.unfinished.Unfinished, optional
        Answers that an interrupted evaluation has left are taken, and those
        that are found are left.

    Yields
    ------
    name : str
        The set's.
    table : pandas.DataFrame
        The utterances that could be read, by ID.
    log_probs : torch.Tensor
        ``[draws, n, n_labels]``, normalised over the labels; one draw where
        nothing is drawn.
    each : list of torch.Tensor
        The same of every recogniser.

    Raises
    ------
    InputError
        An utterance is bad and bad ones end the run, all of a set are, or a
        recogniser cannot adapt.
    """
    answers = {name: [] for name in sets}
    for number, (recognizer, reader) in enumerate(recognizers, start=1):
        for name, (table, labels, audio) in sets.items():
            a_set = table.sort_values("ID"), labels, audio
            ask = partial(
                _recognize, recognizer, reader, listening, name, *a_set
            )
            if unfinished is None:
                recognized, log_probs = ask()
            else:
                recognized, log_probs = unfinished.answer(
                    recognizer, *a_set, ask
                )
            answers[name].append(log_probs.transpose(0, 1).log_softmax(-1))
            if number == count:
                each = answers[name]
                mean = torch.stack(each).mean(0).log_softmax(-1)
                yield name, recognized, mean, each


def _recognize(recognizer, reader, listening, name, table, labels, audio):
    """The utterances that could be read, and ``[n, draws, n_labels]``."""
    moves = [lambda _, features: features]
    if listening is not None:
        moves = _listen(listening, reader, audio, recognizer, labels, name)
    score = partial(_score, recognizer, moves, labels)
    return reader.compute_of(score, table, name)


def _score(recognizer, moves, labels, utterances, features, lens):
    """``[batch, draws, n_labels]``, what is said after each draw."""
    features = features.to(recognizer.device)
    each = [
        recognizer.score_features(move(utterances, features), lens, labels)
        for move in moves
    ]
    return torch.stack(each, dim=1)


def _listen(listening, reader, audio, recognizer, labels, name):
    """Hear a set; for each draw how its utterances' features are moved."""
    training = recognizer.mods.connector.standardizer
    # Whose recogniser does not standardise is told before anything is read.
    unmoved = shrink(HeardSpeech(), training)
    groups, drawn = listening.groups(audio), listening.draw(audio)
    wanted = audio[audio.ID.isin(set().union(*drawn))]
    heard, means, read = [defaultdict(HeardSpeech) for _ in drawn], {}, set()
    by_speaker = listening.knows_speakers and knows_emotions(recognizer, labels)
    asked = groups
    if by_speaker:
        groups = names_by_id(audio, audio.corpus)
    for batch, features, lens in reader(wanted, f"{name}, listening"):
        for row, utterance in enumerate(batch.id):
            one = HeardSpeech.of(features[row, None], lens[row, None])
            read.add(utterance)
            if by_speaker:
                means[utterance] = one.mean.float()
            for of_draw, by_group in zip(drawn, heard, strict=True):
                if utterance in of_draw:
                    by_group[groups[utterance]] += one
    _say_fewer(listening, asked, [of_draw & read for of_draw in drawn], name)
    kappas = listening.kappa_mean, listening.kappa_variance
    moves = []
    for of_draw, by_group in zip(drawn, heard, strict=True):
        own = dict.fromkeys(groups.values(), unmoved) | {
            group: shrink(of_group, training, *kappas)
            for group, of_group in by_group.items()
        }
        own = {utterance: own[group] for utterance, group in groups.items()}
        if by_speaker:
            own = own_of_speakers(
                own,
                {name: means[name] for name in sorted(of_draw & means.keys())},
                known_speakers(audio),
                recognizer,
                labels,
                listening.kappa_speaker,
            )
        moves.append(partial(_move, training, own))
    return moves


def _move(training, own, utterances, features):
    """Features of a batch, each moved as its group was heard."""
    own = [own[utterance] for utterance in utterances]
    return move_statistics(features, own, training)


def _say_fewer(listening, groups, heard, name):
    """Log where fewer utterances were heard than asked for."""
    if listening.utterances is None:
        return
    counts = []
    for of_draw in heard:
        numbers = Counter(groups[utterance] for utterance in of_draw)
        counts += [numbers[group] for group in set(groups.values())]
    if min(counts) < listening.utterances:
        logger.warning(
            "%s: %d utterances %s were to be heard; there are fewer, or some "
            "could not be read: %d at least, %.1f on average",
            name,
            listening.utterances,
            "of each speaker" if listening.by_speaker else "of the set",
            min(counts),
            sum(counts) / len(counts),
        )
