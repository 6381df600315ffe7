"""What of an evaluation set is heard before it is recognised."""

import re
from dataclasses import dataclass

import numpy as np

from speechbrain_mser.errors import InputError
from speechbrain_mser.inference.adaptation import (
    KAPPA_MEAN,
    KAPPA_VARIANCE,
    check_kappa,
)
from speechbrain_mser.lobes.alignment import KAPPA_SPEAKER


@dataclass(frozen=True)
class Listening:
    """Utterances to hear before recognising; no label of them is used.

    Arguments
    ---------
    utterances : int or None
        How many; None hears all.
    by_speaker : bool
        So many of each speaker, for that speaker's utterances, instead of so
        many of the set for all. Utterances of a corpus whose speaker is not
        known are taken for one speaker's.
    draws : int
        How many times they are drawn.
    seed : int
        Of the draws. With the same seed fewer utterances are the first ones
        of more.
    kappa_mean, kappa_variance : float
        As for `speechbrain_mser.inference.adaptation.shrink`.
    kappa_speaker : float
        As for `speechbrain_mser.inference.speakers.speaker_shifts`.

    Example
    -------
    >>> import pandas
    >>> audio = pandas.DataFrame({"ID": [*"abcd"], "corpus": "mine"})
    >>> audio["speaker"] = [*"xxyy"]
    >>> len(Listening(3).draw(audio)[0])
    3
    >>> [len(heard) for heard in Listening(1, by_speaker=True).draw(audio)]
    [2]
    """

    utterances: int | None = None
    by_speaker: bool = False
    draws: int = 1
    seed: int = 0
    kappa_mean: float = 0.0
    kappa_variance: float = 0.0
    kappa_speaker: float = KAPPA_SPEAKER

    @property
    def knows_speakers(self):
        """Whether it is about speakers: "set" takes all that is known."""
        return self.by_speaker or self.utterances is None

    def groups(self, audio):
        """Whose statistics each utterance has.

        Arguments
        ---------
        audio : pandas.DataFrame
            With the manifest's columns ``ID``, ``corpus`` and ``speaker``.

        Returns
        -------
        dict
            ID to a name.
        """
        # A manifest's speakers are unique within their corpus only.
        names = audio.corpus + "/" + audio.speaker if self.by_speaker else ""
        return names_by_id(audio, names)

    def draw(self, audio):
        """Which utterances are heard.

        Arguments
        ---------
        audio : pandas.DataFrame
            Those that there are.

        Returns
        -------
        list of set of str
            For each draw the IDs, of all groups.
        """
        members = {}
        for utterance, group in sorted(self.groups(audio).items()):
            members.setdefault(group, []).append(utterance)
        drawn = []
        for number in range(self.draws):
            rng = np.random.default_rng([self.seed, number])
            drawn.append(
                {
                    str(utterance)
                    for _, ids in sorted(members.items())
                    for utterance in rng.permutation(ids)[: self.utterances]
                }
            )
        return drawn


def known_speakers(audio):
    """ID to speaker, unique over corpora; without those nobody knows."""
    known = audio[audio.speaker.fillna("") != ""]
    return names_by_id(known, known.corpus + "/" + known.speaker)


def names_by_id(audio, names):
    """ID to name, where all may have the same one."""
    return dict(audio.assign(name=names)[["ID", "name"]].to_numpy().tolist())


def parse_adaptation(
    adaptation,
    draws=1,
    seed=0,
    kappa_mean=KAPPA_MEAN,
    kappa_variance=KAPPA_VARIANCE,
    kappa_speaker=KAPPA_SPEAKER,
):
    """What a setting asks to be heard.

    Arguments
    ---------
    adaptation : str
        "none", "set", "listen:N" or "listen:N:speaker".
    draws, seed, kappa_mean, kappa_variance, kappa_speaker
        As for `Listening`; "set" hears everything, once, and believes it.

    Returns
    -------
    Listening or None
        None where every utterance is taken as it comes.

    Raises
    ------
    InputError
        Another word, or a number that is none.

    Example
    -------
    >>> parse_adaptation("listen:10:speaker").utterances
    10
    >>> parse_adaptation("listen:ten")
    Traceback (most recent call last):
    ...
    InputError: adaptation is 'listen:ten', expected none, set, listen:N or ...
    """
    if adaptation == "none":
        return None
    check_kappa("kappa_speaker", kappa_speaker)
    if adaptation == "set":
        return Listening(kappa_speaker=kappa_speaker)
    wanted = re.fullmatch(
        r"listen:0*([1-9]\d{0,8})(:speaker)?", str(adaptation)
    )
    if not wanted:
        raise InputError(
            f"adaptation is {adaptation!r}, expected none, set, listen:N or "
            "listen:N:speaker with N utterances, 1 at least"
        )
    if not isinstance(draws, int) or draws < 1:
        raise InputError(f"draws is {draws!r}, expected 1 or more")
    check_kappa("kappa_mean", kappa_mean)
    check_kappa("kappa_variance", kappa_variance)
    return Listening(
        int(wanted[1]),
        wanted[2] is not None,
        draws,
        seed,
        kappa_mean,
        kappa_variance,
        kappa_speaker,
    )
