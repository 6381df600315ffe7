"""One or several recognisers over whole evaluation sets."""

from functools import partial

import torch


def recognize_sets(recognizers, count, sets, adapts=False):
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
    adapts : bool
        Whether each set is moved to the training's mean and deviation.

    Yields
    ------
    name : str
        The set's.
    table : pandas.DataFrame
        The utterances that could be read, by ID.
    log_probs : torch.Tensor
        ``[n, n_labels]``, normalised over the labels.
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
            if adapts:
                heard = reader(audio, f"{name}, statistics")
                recognizer.adapt(encoded for _, *encoded in heard)
            recognized, log_probs = reader.compute(
                partial(recognizer.score_features, labels=labels),
                table.sort_values("ID"),
                name,
            )
            answers[name].append(log_probs.log_softmax(-1))
            if number == count:
                each = answers[name]
                mean = torch.stack(each).mean(0).log_softmax(-1)
                yield name, recognized, mean, each
