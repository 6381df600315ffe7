"""What a training was made of: the facts of its recogniser's card.

They lie beside the recogniser as ``card.json``. Nothing is computed from them;
they are for whoever asks what it has heard, and is written into its card
(`speechbrain_mser.inference.model_card`).
"""

import json
import platform
from importlib.metadata import version
from numbers import Real

import speechbrain_mser
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.files.tables import read_json

FILE = "card.json"
PACKAGES = ("torch", "transformers", "speechbrain", "numpy")
# Of a training's settings.
TOLD = (
    "number_of_epochs",
    "epochs_before_llm",
    "batch_size",
    "lr",
    "ce_weight",
    "reduction",
)
# What a card reads, and what it may be there: a kind, a list of one, two of
# some, an object of named things or, with EACH, of like things of any names.
EACH = "*"
_FORM = {
    "training": {},
    "versions": {},
    "connector": {"parameters": Real},
    "corpora": {
        EACH: {
            "utterances": Real,
            "hours": Real,
            "speakers": Real,
            "languages": [str],
            "emotions": {EACH: Real},
            "terms": str,
            "where": str,
        }
    },
    "frozen_models": {EACH: {"name": str, "digest": str}},
    "left_out": {
        EACH: {
            "utterances": Real,
            "words": int,
            "UA": Real,
            "WA": Real,
            "interval": (Real, Real),
        }
    },
}
# Where one of these is, all of it is.
_WHOLE = {"frozen_models": ["name"], "left_out": [*_FORM["left_out"][EACH]]}


def describe_corpus(table):
    """What a corpus is made of.

    Arguments
    ---------
    table : pandas.DataFrame
        Its utterances, as a manifest has them.

    Returns
    -------
    dict
        "utterances", "hours", "speakers", "languages" and "emotions", how
        many utterances each has. Ready for JSON.

    Example
    -------
    >>> import pandas
    >>> table = pandas.DataFrame(
    ...     {
    ...         "duration": [1800.0, 1800.0],
    ...         "speaker": ["a", "b"],
    ...         "language": ["deu", "deu"],
    ...         "emotion": ["sad", "sad"],
    ...     }
    ... )
    >>> described = describe_corpus(table)
    >>> described["hours"], described["speakers"], described["emotions"]
    (1.0, 2, {'sad': 2})
    """
    return {
        "utterances": len(table),
        "hours": float(table.duration.sum() / 3600),
        "speakers": int(table.speaker.nunique()),
        "languages": sorted(set(table.language)),
        "emotions": table.emotion.value_counts().sort_index().to_dict(),
    }


def package_versions():
    """Versions of what computes: this package, Python and `PACKAGES`.

    Returns
    -------
    dict
        Name to version.
    """
    return {
        "speechbrain-mser": speechbrain_mser.__version__,
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def write_record(path, record):
    """Write what a training was made of beside its recogniser.

    Arguments
    ---------
    path : str or path-like
        `FILE` in the recogniser's folder.
    record : dict
        Ready for JSON.
    """
    write_text(path, json.dumps(record, indent=1) + "\n")


def read_record(path):
    """What a recogniser's folder says of its training.

    The folder may come from a stranger: what a card reads is of the kind that
    it expects.

    Arguments
    ---------
    path : path-like
        `FILE` in the recogniser's folder, if it is there.

    Returns
    -------
    dict
        Empty where nothing was noted.

    Raises
    ------
    InputError
        There is something else under that name.

    Example
    -------
    >>> path = getfixture("tmp_path") / FILE
    >>> read_record(path)
    {}
    >>> write_record(path, {"corpora": {"emodb": {"speakers": "ten"}}})
    >>> read_record(path)
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: ...card.json: speakers of emodb ...
    """
    if not path.exists():
        return {}
    record = read_json(path)
    wrong = next(_misfits(record, _FORM), None)
    if wrong is None:
        wrong = next(_incomplete(record), None)
    if wrong is not None:
        raise InputError(
            f"{path}: {wrong} is not what a training notes there; fetch the "
            "file again, or remove it if it is another program's"
        )
    return record


def _misfits(value, form, name=None):
    """Names of what is not of its form."""
    if isinstance(form, dict):
        if not isinstance(value, dict):
            yield name
            return
        for key, one in value.items():
            if (expected := form.get(key, form.get(EACH))) is not None:
                inner = f"{key} of {name}" if name else key
                yield from _misfits(one, expected, inner)
        return
    if isinstance(form, (list, tuple)):
        fits = (
            isinstance(value, list)
            and (isinstance(form, list) or len(value) == len(form))
            and all(isinstance(item, form[0]) for item in value)
        )
    else:
        fits = isinstance(value, form)
    if not fits:
        yield name


def _incomplete(record):
    """Names of what lacks something that a card says of each."""
    for part, needed in _WHOLE.items():
        for name, one in record.get(part, {}).items():
            if not {*needed} <= one.keys():
                yield f"{name} of {part}"
