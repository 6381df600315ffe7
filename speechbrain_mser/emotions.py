"""The emotion vocabulary: one word per emotion, and nothing unknown.

Every corpus spells its labels in its own way; results are comparable only
when all of them land on one vocabulary and a typo fails instead of becoming a
class of its own. The words are those that the LLM is asked to say.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from unicodedata import category

from speechbrain_mser.errors import InputError
from speechbrain_mser.spelling import compose

# The seven basic emotions of M5SER, in the paper's order (section III-A).
CANONICAL = (
    "neutral",
    "happy",
    "sad",
    "angry",
    "surprise",
    "disgust",
    "fear",
)

# Emotions that some corpora have beside the seven.
FURTHER = (
    "calm",
    "boredom",
    "contempt",
    "enthusiasm",
    "excited",
    "frustrated",
)

# The spellings of the corpora's own labels, in lower case.
ALIASES = {
    "neutrality": "neutral",
    "neu": "neutral",
    "happiness": "happy",
    "hap": "happy",
    "joy": "happy",
    "joyful": "happy",
    "sadness": "sad",
    "anger": "angry",
    "ang": "angry",
    "surprised": "surprise",
    "sur": "surprise",
    "disgusted": "disgust",
    "dis": "disgust",
    "fearful": "fear",
    "fea": "fear",
    "bored": "boredom",
    "excitement": "excited",
    "exc": "excited",
    "frustration": "frustrated",
    "fru": "frustrated",
    "enthusiastic": "enthusiasm",
}

# Of a label, in characters: an LLM reads them all for each candidate.
LONGEST_LABEL = 100
# Control characters, halves of surrogates, separators of lines.
_NO_TEXT = ("Cc", "Cs", "Zl", "Zp")

# The label sets of the paper's evaluations (Table I), by name.
LABEL_SETS = {
    "paper4": ("neutral", "happy", "sad", "angry"),
    "paper7": CANONICAL,
    # AESDD: no neutral, no surprise
    "aesdd5": ("happy", "sad", "angry", "disgust", "fear"),
    # RAVDESS with seven emotions is RAVDESS without calm
    "ravdess7": CANONICAL,
    "resd7": CANONICAL,
    # ShEMO: no disgust
    "shemo6": ("neutral", "happy", "sad", "angry", "surprise", "fear"),
    # Open corpora beside the paper's
    "emodb6": ("neutral", "happy", "sad", "angry", "disgust", "fear"),
    "urdu4": ("neutral", "happy", "sad", "angry"),
}


def in_order(words):
    """Emotions in the vocabulary's order; all else by name, after them.

    Arguments
    ---------
    words : iterable of str
        Emotions, languages or corpora, repeated or not.

    Returns
    -------
    list of str
        Each once.

    Example
    -------
    >>> in_order(["stressed", "sad", "neutral", "sad"])
    ['neutral', 'sad', 'stressed']
    >>> in_order(["ita", "deu"])
    ['deu', 'ita']
    """
    known = {word: place for place, word in enumerate((*CANONICAL, *FURTHER))}
    return sorted(
        set(words), key=lambda word: (known.get(word, len(known)), word)
    )


def canonical(label, own=()):
    """The vocabulary's word for a label, whatever its case or spelling.

    Arguments
    ---------
    label : str
        A label as a corpus or a user writes it.
    own : tuple of str
        Emotions beyond the vocabulary, as `read_own` returns them.

    Returns
    -------
    str
        One of `CANONICAL`, `FURTHER` or these.

    Raises
    ------
    InputError
        The label is not known.

    Example
    -------
    >>> canonical("Happiness")
    'happy'
    >>> canonical("anrgy")
    Traceback (most recent call last):
    ...
    InputError: unknown emotion 'anrgy'; did you mean 'angry'?
    """
    word = compose(str(label).strip().lower())
    word = ALIASES.get(word, word)
    if word in CANONICAL or word in FURTHER or word in own:
        return word
    # Without the three-letter codes, which resemble anything ("nan": "ang").
    spelled_out = (alias for alias in ALIASES if len(alias) > 3)
    known = [*CANONICAL, *FURTHER, *own, *spelled_out]
    close = get_close_matches(word, known, n=1)
    if close:
        # The word itself, not an alias: manifests accept nothing else.
        hint = f"; did you mean {ALIASES.get(close[0], close[0])!r}?"
    else:
        hint = f"; known are {', '.join([*CANONICAL, *FURTHER, *own])}"
    raise InputError(f"unknown emotion {str(label).strip()!r}{hint}")


def without_trained(labels, trained):
    """Labels that were never trained, whatever their case.

    Arguments
    ---------
    labels : list of str
        The candidates.
    trained : iterable of str
        The words that were.

    Returns
    -------
    list of str
        In the candidates' order.

    Example
    -------
    >>> without_trained(["Sad", "bored"], ["sad", "happy"])
    ['bored']
    """
    trained = {_heard_as(word) for word in trained}
    return [label for label in labels if _heard_as(label) not in trained]


def in_known_spelling(labels, known):
    """Labels in the spelling of the words that are known, if they are these.

    An LLM reads "Sad" as another word than "sad", and says it differently.
    Neither capitals nor invisible marks make another emotion.

    Arguments
    ---------
    labels : list of str
        The candidates.
    known : list of str
        The words that are known, in their spelling.

    Returns
    -------
    list of str
        In the candidates' order; others are as they were.

    Example
    -------
    >>> in_known_spelling(["Sad", "Bored"], ["sad", "happy"])
    ['sad', 'Bored']
    """
    spelled = {_heard_as(word): word for word in reversed(known)}
    return [
        label if label in known else spelled.get(_heard_as(label), label)
        for label in labels
    ]


def check_emotion_words(emotion_words, labels, whole=False):
    """Refuse to say two labels with the same word.

    Arguments
    ---------
    emotion_words : dict
        Label to the word that is said for it, where that is another one.
    labels : list of str
        The candidates.
    whole : bool
        Whether the labels are all that is trained, so that words for one that
        is nearly spelled like one of them are a mistake. Words for others are
        for labels that are never trained.

    Raises
    ------
    InputError
        Two labels could not be told apart, or a label or word is none.

    Example
    -------
    >>> check_emotion_words({"fear": "scared"}, ["fear", "sad"])
    >>> check_emotion_words({"fear": "scared"}, ["fear", "scared"])
    Traceback (most recent call last):
    ...
    InputError: labels 'fear' and 'scared' are both said with 'scared'; ...
    """
    for label, word in emotion_words.items() if whole else ():
        meant = get_close_matches(str(label), labels, n=1, cutoff=0.75)
        if label not in labels and meant:
            raise InputError(
                f"emotion_words: {label!r} is not among label_words, "
                f"{', '.join(labels)}; did you mean {meant[0]!r}?"
            )
        if not isinstance(word, str) or not word.strip():
            raise InputError(
                f"emotion_words: {label!r} is said with {word!r}, expected a "
                "word"
            )
    said = {}
    for label in labels:
        word = emotion_words.get(label, label).strip()
        other = said.setdefault(_heard_as(word), label)
        if other != label:
            raise InputError(
                f"labels {other!r} and {label!r} are both said with {word!r}; "
                "give only one of them, or another word (emotion_words)"
            )


def candidate_labels(labels):
    """The candidate words of a recognition, from a set's name or a list.

    Zero-shot recognition may ask for any word, so words outside the
    vocabulary are allowed here; empty and repeated ones are not, nor what is
    no word: control characters, and more than a hundred characters.

    Arguments
    ---------
    labels : str or list of str
        A name in `LABEL_SETS`, or the words themselves.

    Returns
    -------
    tuple of str
        The words, in the order given.

    Raises
    ------
    InputError
        No words, an empty word, a word twice (in another case or with
        invisible marks, too), what is no word, or an unknown set's name.

    Example
    -------
    >>> candidate_labels("paper4")
    ('neutral', 'happy', 'sad', 'angry')
    >>> candidate_labels(["jealous", "proud"])
    ('jealous', 'proud')
    """
    if isinstance(labels, str):
        if labels not in LABEL_SETS:
            raise InputError(
                f"unknown label set {labels!r}; known sets are "
                f"{', '.join(LABEL_SETS)}; or give a list of words"
            )
        return LABEL_SETS[labels]
    if not isinstance(labels, (Iterable, type(None))):
        raise InputError(f"labels are {labels!r}, expected a list of words")
    labels = () if labels is None else tuple(labels)
    if not labels:
        raise InputError("no labels: give at least one emotion word")
    words, seen = [], {}
    for position, label in enumerate(labels, start=1):
        word = check_word(label, f"label {position} of {len(labels)}")
        heard_as = _heard_as(word)
        if heard_as in seen:
            first = seen[heard_as]
            as_ = "" if first == word else f" (as {first!r} before)"
            raise InputError(f"label {word!r} is given twice{as_}")
        seen[heard_as] = word
        words.append(word)
    return tuple(words)


def check_word(label, which):
    """A word as it is asked for.

    Arguments
    ---------
    label : object
        What is given.
    which : str
        What it is, for the message.

    Returns
    -------
    str
        Stripped and composed.

    Raises
    ------
    InputError
        It is no word.

    Example
    -------
    >>> check_word(" sad", "the label")
    'sad'
    """
    if not isinstance(label, str):
        raise InputError(f"{which} is {label!r}, expected a word")
    word = compose(label.strip())
    if not _heard_as(word):
        raise InputError(f"{which} is empty")
    if len(word) > LONGEST_LABEL:
        raise InputError(
            f"{which} has {len(word)} characters; {LONGEST_LABEL} at most are "
            "a word or a phrase"
        )
    if any(category(one) in _NO_TEXT for one in word):
        raise InputError(
            f"{which} is {word!r}, which has control characters: give words"
        )
    return word


def _heard_as(word):
    """Equal for one word: whatever its case, joiners and direction marks."""
    letters = (one for one in compose(word) if category(one) != "Cf")
    return "".join(letters).strip().casefold()
