"""Speakers told from what they say: their shift of the features alone.

Speakers shift an encoder's features, as microphones do. But who was only heard
angry has an angry mean, and moved to that of the training would be neutral. So
what is taken out is what is left of a speaker's utterances without what their
emotions do: with the mean m in the training of the emotion that the recogniser
itself hears most in an utterance x,

    shift = sum over utterances of (x - m) / (n + kappa)

over and over, since it hears better without the shift. No label is used. By the
likeliest emotion rather than by all probabilities: those are of a recogniser
that is not sure, and what it leaves open would be taken for the voice.
"""

import torch

# Where nothing moves any more, in leave-one-corpus-out on four corpora.
PASSES = 5


def speaker_shifts(
    features, speakers, means, probabilities, kappa, passes=PASSES
):
    """How much each speaker's features are off, whatever was said.

    Arguments
    ---------
    features : torch.Tensor
        ``[n, layers, dim]``, utterances' means in standard deviations of the
        training from its mean.
    speakers : list of str
        ``[n]``.
    means : torch.Tensor
        ``[emotions, layers, dim]``, likewise, those of each emotion.
    probabilities : callable
        Features to ``[n, emotions]``, how probable each emotion is.
    kappa : float
        How many utterances without a shift each speaker is taken to have.
    passes : int
        How often.

    Returns
    -------
    dict
        Speaker to ``[layers, dim]``.

    Example
    -------
    >>> means = torch.tensor([[[-1.0]], [[1.0]]])  # sad, angry
    >>> heard = torch.tensor([[[1.5]], [[1.5]]])  # both angry, and 0.5 off
    >>> def sign(features):
    ...     angry = (features[:, 0] > 0).float()
    ...     return torch.cat([1 - angry, angry], dim=1)
    >>> speaker_shifts(heard, ["a", "a"], means, sign, kappa=0)
    {'a': tensor([[0.5000]])}
    """
    names = sorted(set(speakers))
    number = torch.tensor([names.index(speaker) for speaker in speakers])
    shifts = features.new_zeros(len(names), *features.shape[1:])
    for _ in range(passes):
        said = probabilities(features - shifts[number])
        left = features - means[said.argmax(1).to(means.device)]
        # What no emotion can be said of tells nothing of its speaker either.
        tells = ~said.isnan().any(1).to(left.device)
        who = number[tells]
        shifts = torch.zeros_like(shifts).index_add(0, who, left[tells])
        counts = torch.bincount(who, minlength=len(names))[:, None, None]
        shifts /= (counts + kappa).clamp(min=1)
    return dict(zip(names, shifts, strict=True))


def knows_emotions(recognizer, labels):
    """Whether it can tell a speaker's shift from what the speaker says.

    Arguments
    ---------
    recognizer : EmotionRecognizer
        Its connector has the mean of each emotion, or none.
    labels : list of str
        The candidates.

    Returns
    -------
    bool
        Where features are more than their mean over time, a shift has not
        been tried.
    """
    means = recognizer.mods.connector.emotion_means
    of_time = getattr(recognizer.mods.encoder, "mean_over_time", False)
    return of_time and len(set(labels) & set(means)) > 1


@torch.no_grad()
def own_of_speakers(own, heard, speakers, recognizer, labels, kappa):
    """Each utterance's mean and deviation, with its speaker's shift.

    Arguments
    ---------
    own : dict
        Utterance to the `FeatureStandardizer` of all speakers together.
    heard : dict
        Utterance to its features' mean, ``[layers, dim]``.
    speakers : dict
        Utterance to speaker, of those that are known.
    recognizer : EmotionRecognizer
        That `knows_emotions`.
    labels : list of str
        The candidates.
    kappa : float
        As for `speaker_shifts`.

    Returns
    -------
    dict
        As ``own``; those whose speaker is not known or was not heard are as
        they were.
    """
    connector = recognizer.mods.connector
    training = connector.standardizer
    labels = [word for word in labels if word in connector.emotion_means]
    means = torch.stack([connector.emotion_means[word] for word in labels])
    heard = {name: heard[name] for name in heard if name in speakers}
    if not heard:
        return own

    def probabilities(features):
        features = features.to(training.mean) * training.std + training.mean
        # One frame an utterance; a single layer's features have no layers.
        features = features[:, :, None].squeeze(1)
        lens = torch.ones(len(features))
        return torch.cat(
            [
                recognizer.guess_features(*part, labels).exp().cpu()
                for part in zip(
                    features.split(256), lens.split(256), strict=True
                )
            ]
        )

    features = torch.stack(
        [
            (mean - own[name].mean.cpu()) / own[name].std.cpu()
            for name, mean in heard.items()
        ]
    )
    shifts = speaker_shifts(
        features,
        [speakers[name] for name in heard],
        means,
        probabilities,
        kappa,
    )
    # A speaker is of one corpus, so all utterances have the same one.
    first = {speaker: own[name] for name, speaker in speakers.items()}
    of_speaker = {
        speaker: _shifted(first[speaker], shift)
        for speaker, shift in shifts.items()
    }
    return own | {
        name: of_speaker[speaker]
        for name, speaker in speakers.items()
        if speaker in of_speaker
    }


def _shifted(common, shift):
    """Statistics whose mean is off by so many of their deviations."""
    shifted = common.anew()
    shifted.std.copy_(common.std)
    shifted.mean.copy_(common.mean + shift.to(common.mean) * common.std)
    return shifted
