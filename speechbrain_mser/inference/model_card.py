"""A recogniser's card: what it is, as Markdown, and as hubs read it.

All of it is told by the training's own record (`training.record`), by what
lies in the recogniser's folder and by an evaluation; nothing is measured here.
"""

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from yaml import YAMLError

from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.markdown import markdown_table
from speechbrain_mser.inference.folder import (
    SETTINGS_FILE,
    find_beside,
    read_settings,
)
from speechbrain_mser.lobes.hub import is_public
from speechbrain_mser.models.registry import OPEN_MODELS
from speechbrain_mser.training.record import FILE, read_record

TAGS = ["speech-emotion-recognition", "audio-classification", "zero-shot"]
TASK = "audio-classification"
# Where nobody says which: the strictest of what it was trained on.
LICENCE = {"license": "other", "license_name": "see-the-terms-of-its-data"}
NOT_MEASURED = (
    "Not measured, or not told: no evaluation was given with it, and of what "
    "it was trained on none can say how good it is."
)
NOT_RECORDED = (
    "Its training has left no record: of an earlier version, or another "
    "program's."
)
LIMITS = """\
- It is as good as the tables above say, on recordings like those. Other
  voices, accents, languages, microphones and rooms were not measured.
- It hears how an emotion sounds in its corpora, acted ones most often. A word
  is what listeners or actors called it, not what a person feels.
- It always answers with one of the words that it is given; silence, music and
  neutral talk get one too. What words mean that it was not trained on it knows
  from its LLM alone.
- Its probabilities are those of a language model: not calibrated unless there
  is a calibration.json, and then on the data that it names."""
NOT_FOR = """\
- Decisions about people: hiring, marks, insurance, credit, police, borders.
- Inferring emotions at work or in education. The European Union's AI Act
  (Regulation 2024/1689, Article 5(1)(f)) prohibits it, but for medical and
  safety reasons; elsewhere emotion recognition is high-risk (Annex III) and
  those who are heard must be told (Article 50).
- Diagnosis, therapy, crisis lines: it is no medical device and was tested as
  none.
- Finding lies, or what somebody wants, thinks or is.
- Listening to people who do not know or do not want it."""


def card_facts(folder):
    """What is known of a recogniser in its folder.

    Arguments
    ---------
    folder : pathlib.Path
        Its plain settings are there.

    Returns
    -------
    dict
        For `model_card`; little more than names where its training has left
        no record.

    Raises
    ------
    InputError
        The settings or the record are none.
    """
    settings = read_settings(folder / SETTINGS_FILE)
    return {
        "corpora": {name: {} for name in settings["trained_corpora"]},
        "frozen_models": {
            role: {"name": settings[name]}
            for name, role in (("whisper_hub", "encoder"), ("llama_hub", "llm"))
        },
        **read_record(find_beside(folder, FILE)),
        "labels": list(candidate_labels(settings["label_words"])),
    }


def model_card(name, facts, licence=None, evaluation=None, written=None):
    """The card of a recogniser, with the head that hubs read.

    Arguments
    ---------
    name : str
        What it is loaded by: a hub's name, or a folder.
    facts : dict
        As `card_facts` returns them.
    licence : str, optional
        An identifier of the hub's, such as "cc-by-nc-4.0".
    evaluation : dict, optional
        Evaluation set to its metrics: what evaluate.py leaves as
        ``metrics.json``.
    written : str, optional
        A card that somebody wrote. It stays, and what its head does not say
        is added.

    Returns
    -------
    str
        Markdown.

    Raises
    ------
    InputError
        The head of ``written`` is no YAML.

    Example
    -------
    >>> facts = {"labels": ["sad", "angry"], "frozen_models": {}}
    >>> print(model_card("me/mine", facts, "cc-by-4.0")[:48].strip())
    ---
    library_name: speechbrain
    license: cc-by-4.0
    """
    measured = evaluation or _of_left_out(facts.get("left_out", {}))
    head = _head(name, facts, licence, measured)
    if written is None:
        parts = _parts(name, facts, licence, measured)
        text = "\n\n".join([f"# {_last(name)}", *parts])
    else:
        own, text = _split(written)
        if licence:  # said now, by whom publishes it
            own = {k: v for k, v in own.items() if k not in LICENCE}
        elif "license" in own:
            head = {k: v for k, v in head.items() if k not in LICENCE}
        if evaluation:
            own.pop("model-index", None)
        head = {**head, **own}
    data = ModelCardData(**head, ignore_metadata_errors=True)
    return f"---\n{data.to_yaml()}\n---\n{text.strip()}\n"


def without_head(card):
    """A card's text without what is for the hub's machines.

    Arguments
    ---------
    card : str
        Markdown.

    Returns
    -------
    str
        The same from its title on.

    Example
    -------
    >>> without_head("---\\nlicense: mit\\n---\\n# Mine\\n")
    '# Mine\\n'
    """
    return _split(card)[1].lstrip("\n")


def _split(card):
    """Its head as a dict, and its text."""
    try:
        card = ModelCard(card, ignore_metadata_errors=True)
    except (ValueError, YAMLError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            "the card's head, between two lines of ---, does not hold values "
            f"by name ({reason}): correct README.md, or remove it to have one "
            "written"
        ) from None
    return card.data.to_dict(), card.text


def _last(name):
    return name.rstrip("/").rpartition("/")[2]


def _of_left_out(left_out):
    """As if evaluate.py had found what the released recogniser's card has."""
    return {
        f"{corpus}, left out of training": {
            "n": figures["utterances"],
            "labels": range(figures["words"]),
            "chance": 1 / figures["words"],
            **{name: figures[name] for name in ("UA", "WA")},
            "intervals": {"UA": figures["interval"]},
        }
        for corpus, figures in left_out.items()
        if figures["words"] > 0
    }


def _head(name, facts, licence, measured):
    """What hubs read, as a dict."""
    corpora = facts.get("corpora", {})
    languages = {
        language
        for one in corpora.values()
        for language in one.get("languages", [])
    }
    models = [model["name"] for model in facts["frozen_models"].values()]
    hubs = [n for n in models if is_public(n) and n not in OPEN_MODELS]
    results = [*_results(measured)]
    return ModelCardData(
        library_name="speechbrain",
        **({"license": licence} if licence else LICENCE),
        pipeline_tag=TASK,
        tags=TAGS,
        language=sorted(languages) or None,
        datasets=sorted(corpora) or None,
        base_model=hubs or None,
        base_model_relation="adapter" if hubs else None,
        metrics=["recall", "accuracy"] if results else None,
        model_name=_last(name) if results else None,
        eval_results=results or None,
    ).to_dict()


def _results(measured):
    """What was measured, as the hub's model index has it."""
    for name, figures in measured.items():
        for figure, kind in (("UA", "recall"), ("WA", "accuracy")):
            interval = figures.get("intervals", {}).get(figure)
            yield EvalResult(
                task_type=TASK,
                task_name="speech emotion recognition",
                dataset_type=name.partition(",")[0],
                dataset_name=name,
                metric_type=kind,
                metric_name=figure,
                metric_value=round(figures[figure], 4),
                metric_args={"interval": [round(x, 4) for x in interval]}
                if interval
                else None,
            )


def _parts(name, facts, licence, measured):
    """The card's text, part by part."""
    corpora = facts.get("corpora", {})
    yield _about(facts)
    yield (
        "```python\nfrom speechbrain_mser.inference import EmotionRecognizer"
        f'\n\nrecognizer = EmotionRecognizer.from_hparams("{name}")\n'
        'words, log_probs = recognizer.recognize_file("speech.wav")\n```'
    )
    yield "## Terms"
    yield (
        f"`{licence}`, says whoever published it."
        if licence
        else "Nobody has said under which licence these weights are."
    ) + (
        " They were trained on recordings that have terms of their own "
        "(below), and work between frozen models that have theirs. Whether "
        "weights inherit the terms of what they were trained on is not "
        "settled; the strict reading is that they do. No legal advice."
    )
    yield "## How good it is"
    yield from _figures(measured) if measured else [NOT_MEASURED]
    yield "## What it was trained on"
    yield from corpus_tables(corpora) if corpora else [NOT_RECORDED]
    yield "## Between which frozen models"
    yield frozen_models_table(facts["frozen_models"])
    yield "## How it was made"
    yield _making(facts)
    yield "## Limits"
    yield LIMITS
    yield "## What it is not for"
    yield NOT_FOR


def _about(facts):
    corpora = facts.get("corpora", {}).values()
    heard = {word for one in corpora for word in one.get("emotions", {})}
    unheard = [word for word in facts["labels"] if word not in heard]
    parameters = facts.get("connector", {}).get("parameters")
    return (
        "A recogniser of emotions in speech: a connector"
        + (f" of {in_millions(parameters)} parameters" if parameters else "")
        + ", trained between a frozen speech encoder and a frozen LLM. It says "
        f"one of {', '.join(facts['labels'])}, or of any other words."
        + (
            f" No utterance of its training was {' or '.join(unheard)}."
            if heard and unheard
            else ""
        )
    )


def in_millions(parameters):
    """A number of parameters, in words.

    Example
    -------
    >>> in_millions(890000)
    '0.89 million'
    """
    return f"{parameters / 1e6:.2f} million"


def _figures(measured):
    """Table of what evaluate.py found."""
    yield (
        "UA is the mean recall over emotions, WA the accuracy; in brackets a "
        "bootstrap's interval where it was drawn. A set that is not zero-shot "
        "is of a corpus, though not of the utterances, that it was trained on."
    )
    rows = [("set", "n", "words", "chance", "UA", "WA", "WF1", "note")]
    for name, figures in measured.items():
        interval = figures.get("intervals", {}).get("UA")
        between = "({:.3f} to {:.3f})".format(*interval) if interval else ""
        rows.append(
            (
                name,
                f"{figures['n']}",
                f"{len(figures['labels'])}",
                f"{figures['chance']:.3f}",
                f"{figures['UA']:.3f} {between}".rstrip(),
                f"{figures['WA']:.3f}",
                f"{figures['WF1']:.3f}" if "WF1" in figures else "",
                figures.get("note", ""),
            )
        )
    yield markdown_table(rows)


def corpus_tables(corpora):
    """What a recogniser was trained on: one table of corpora, one of words.

    Arguments
    ---------
    corpora : dict
        Name to what `describe_corpus` returns, "terms" and "where"; an empty
        dict is a corpus of which nothing else is known.

    Yields
    ------
    str
        A table in Markdown.
    """
    rows = [("corpus", "language", "terms", "where", "speakers", "n", "hours")]
    for name, one in corpora.items():
        hours = one.get("hours")
        rows.append(
            (
                name,
                " ".join(map(str, one.get("languages", []))),
                one.get("terms", ""),
                one.get("where", ""),
                one.get("speakers", ""),
                one.get("utterances", ""),
                "" if hours is None else f"{hours:.2f}",
            )
        )
    yield markdown_table(rows, names=4)
    described = {n: one for n, one in corpora.items() if "emotions" in one}
    words = sorted({word for o in described.values() for word in o["emotions"]})
    counts = [("utterances", *words)]
    counts += [
        (name, *(one["emotions"].get(word, 0) for word in words))
        for name, one in described.items()
    ]
    if words:
        yield markdown_table(counts)


def frozen_models_table(models):
    """Between which frozen models a connector stands, and their terms.

    Arguments
    ---------
    models : dict
        Role to "name" and "digest", as a connector has them.

    Returns
    -------
    str
        A table in Markdown.
    """
    rows = [("", "name", "terms", "digest of the weights")]
    for role, model in models.items():
        known = OPEN_MODELS.get(model["name"])
        terms = known.licence if known else "see the model"
        rows.append((role, model["name"], terms, model.get("digest", "")))
    return markdown_table(rows, names=4)


def _making(facts):
    if "training" not in facts:
        return NOT_RECORDED
    training = ", ".join(f"{k} {v}" for k, v in facts["training"].items())
    versions = ", ".join(
        f"{k} {v}" for k, v in facts.get("versions", {}).items()
    )
    return f"Trained with {training}. Versions: {versions}."
