"""What a translated corpus may be used for: its sources' and weights' terms.

A translation is made of both, so the strictest of all terms holds. Read the
texts themselves: this is where to find them, and no legal advice.
"""

# Name to terms and where they stand
CORPORA = {
    "iemocap": ("academic research only", "https://sail.usc.edu/iemocap/"),
    "meld": (
        "GPL-3.0 for the annotations; the scenes are of a TV series",
        "https://github.com/declare-lab/MELD",
    ),
    "mead": (
        "non-commercial research",
        "https://wywu.github.io/projects/MEAD/MEAD.html",
    ),
    "cmu_mosei": (
        "research; the videos are their makers'",
        "http://multicomp.cs.cmu.edu/resources/cmu-mosei-dataset/",
    ),
    "msp_podcast": (
        "a signed licence, academic or commercial",
        "https://lab-msp.com/MSP/MSP-Podcast.html",
    ),
    "ravdess": ("CC BY-NC-SA 4.0", "https://zenodo.org/records/1188976"),
    "emodb": ("free for research", "http://emodb.bilderbar.info/"),
    "emovo": (
        "research",
        "http://voice.fub.it/activities/corpora/emovo/index.html",
    ),
    "urdu": (
        "research only",
        "https://github.com/siddiquelatif/URDU-Dataset",
    ),
    "espeak": (
        "this project's sentences (Apache-2.0), spoken by eSpeak NG",
        "recipes/M5SER/experiments/espeak_corpus.yaml",
    ),
}

TRANSLATORS = {
    "seamless_expressive": (
        "Seamless Licensing Agreement: noncommercial research, also for what "
        "comes out; pass its notice on",
        "https://github.com/facebookresearch/seamless_communication/blob/main/"
        "SEAMLESS_LICENSE",
    ),
    "seamless_m4t": (
        "CC BY-NC 4.0",
        "https://huggingface.co/facebook/seamless-m4t-v2-large",
    ),
    "espeak": (
        "GPL-3.0, the program",
        "https://github.com/espeak-ng/espeak-ng",
    ),
}

UNKNOWN_CORPUS = ("unknown, see the corpus", "")
UNKNOWN_TRANSLATOR = ("unknown, see its weights", "")


def with_terms(corpora):
    """Descriptions of corpora, with what they may be used for.

    Arguments
    ---------
    corpora : dict
        Name to a dict.

    Returns
    -------
    dict
        The same, with "terms" and "where" those stand; those that are told
        there already stay.

    Example
    -------
    >>> with_terms({"ravdess": {"utterances": 1248}})["ravdess"]["terms"]
    'CC BY-NC-SA 4.0'
    """
    return {
        name: {
            **dict(
                zip(
                    ("terms", "where"),
                    CORPORA.get(name, UNKNOWN_CORPUS),
                    strict=True,
                )
            ),
            **described,
        }
        for name, described in corpora.items()
    }


def inherited(corpora, translator):
    """The terms that translations of some corpora inherit.

    Arguments
    ---------
    corpora : iterable of str
        The sources'.
    translator : str
        The backend's name.

    Returns
    -------
    list of tuple
        ``(what, name, terms, source)``, the translator last.

    Example
    -------
    >>> inherited(["mine"], "espeak")[0]
    ('corpus', 'mine', 'unknown, see the corpus', '')
    """
    rows = [
        ("corpus", name, *CORPORA.get(name, UNKNOWN_CORPUS))
        for name in sorted(corpora)
    ]
    terms = TRANSLATORS.get(translator, UNKNOWN_TRANSLATOR)
    return [*rows, ("translator", translator, *terms)]
