"""The released recogniser's card: all numbers are those of its card.json."""

from statistics import mean

from licences import with_terms

from speechbrain_mser.evaluation.calibration import MODES
from speechbrain_mser.files.markdown import markdown_table
from speechbrain_mser.inference.model_card import (
    NOT_FOR,
    corpus_tables,
    frozen_models_table,
    in_millions,
)

HEAD = """\
---
license: other
license_name: non-commercial-research
library_name: speechbrain
tags:
- speech-emotion-recognition
- audio-classification
- zero-shot
---
# A recogniser of emotions in speech, trained on open corpora"""

USE = """\
```python
from speechbrain_mser.inference import EmotionRecognizer

recognizer = EmotionRecognizer.from_hparams("open")
words, log_probs = recognizer.recognize_file("speech.wav")
```"""

LICENCE = """\
**These weights are for research that is not commercial.** They were trained on
recordings whose terms say so (below). Whether weights inherit the terms of what
they were trained on is not settled; this is the strict reading, and no legal
advice. The program around them is under the project's own licence."""

LIMITS = """\
- Actors' emotions, most of them, and talk shows' in Urdu; short, clean
  recordings of adults, one speaker at a time. How people sound who do not act
  was not measured, nor were children, illness, crosstalk; noise, rooms and
  telephones only as a computer makes them.
- It hears how an emotion is acted in the cultures of these corpora. A word is
  what listeners or actors called it, not what a person feels.
- Few speakers: voices, accents and languages that none of them has are served
  worse, and nobody knows how much for whom. No figure here is by gender or age.
- It always answers with one of the words that it is given; silence, music and
  neutral talk get one too.
- Its probabilities are those of a language model; calibrated, they are right
  for recordings like those of these corpora."""


def release_card(facts):
    """The card.

    Arguments
    ---------
    facts : dict
        What is in card.json; see `release.release`.

    Returns
    -------
    str
        Markdown.
    """
    parts = [
        HEAD,
        _about(facts),
        USE,
        LICENCE,
        "## How good it is",
        *_left_out(facts["left_out"]),
        *_results(facts["results"]),
        "## How sure it is",
        *_calibration(facts["calibration"]),
        "## What it was trained on",
        *corpus_tables(with_terms(facts["corpora"])),
        "## Between which frozen models",
        frozen_models_table(facts["frozen_models"]),
        "## How it was made",
        _making(facts),
        "## Limits",
        LIMITS,
        "## What it is not for",
        NOT_FOR,
    ]
    return "\n\n".join(parts) + "\n"


def _about(facts):
    connector = facts["connector"]
    return (
        "Between a frozen Whisper and a frozen LLaMA, "
        f"{in_millions(connector['parameters'])} trained parameters, "
        f"{connector['bytes'] / 1e6:.1f} MB in half precision. It says one of "
        f"{', '.join(facts['labels'])}, or of any other words. Halving moved "
        f"no probability by more than {connector['most']:.1g}, and "
        f"{connector['other_words']} of {connector['compared']} answers."
    )


def _left_out(left_out):
    """Table of what the four recognisers say of what they never heard."""
    yield (
        "It has heard all four corpora, so none can say how good it is. The "
        "same recipe was trained four times on three of them; each line is a "
        "corpus, and its language, that the training never heard. Utterances "
        "are taken one by one, the candidates are the words that occur in the "
        "corpus; in brackets a bootstrap's 95 % interval over what is said."
    )
    rows = [("left out", "n", "words", "chance", "UA", "WA", "drawn")]
    for corpus, figures in left_out.items():
        low, high = figures["interval"]
        rows.append(
            (
                corpus,
                f"{figures['utterances']}",
                f"{figures['words']}",
                f"{1 / figures['words']:.3f}",
                f"{figures['UA']:.3f} ({low:.3f} to {high:.3f})",
                f"{figures['WA']:.3f}",
                figures["drawn"],
            )
        )
    uas = [figures["UA"] for figures in left_out.values()]
    rows.append(("mean", "", "", "", f"{mean(uas):.3f}", "", ""))
    yield markdown_table(rows)


def _results(results):
    """What was measured beside it, or that it was not."""
    if results["listening"]:
        seeds = results["seeds"]
        plural = "" if seeds == 1 else "s"
        yield (
            "After `recognizer.listen` to utterances of the same corpus, or a "
            "second training with the corpus's audio, who speaks in it and no "
            f"label of it; mean UA of the four, {seeds} seed{plural} "
            "(`make loco`):"
        )
        yield _figures(("", "UA"), results["listening"])
    else:
        yield "What listening to a microphone first is worth: not measured."
    if results["worse"]:
        yield (
            "Heard through worse microphones than the corpora were recorded "
            "with: a telephone's band, noise 15 dB under speech, a room of "
            "0.6 s:"
        )
        yield _figures(("", "UA"), results["worse"])
    if results["unseen"]:
        yield (
            "Words that it was never trained on: trained without fear and "
            "disgust, and without the corpus, how well the word's probability "
            "tells its utterances from others (AUROC, 0.5 is chance; "
            "`make loeo`):"
        )
        yield _figures(("word (corpus)", "AUROC"), results["unseen"])
    else:
        yield "Words that it was never trained on: not measured."


def _figures(head, figures):
    """Table of figures by name."""
    return markdown_table(
        [head, *((k, f"{v:.3f}") for k, v in figures.items())]
    )


def _calibration(calibration):
    yield (
        'With `calibration="temperature"` its probabilities are divided by '
        f"{calibration['temperature']:.2f} in the logarithm, with "
        '`"temperature+prior"` its liking for some words is taken back too. '
        "Both were fitted to what the four recognisers say of the corpora "
        "that they never heard, all words of training as candidates; the "
        "table's are fitted to three of them and measured on the fourth."
    )
    rows = [("corpus", *(f"{name}: UA, ECE" for name in MODES))]
    for corpus, modes in calibration["left_out"].items():
        cells = (f"{m['UA']:.3f}, {m['ECE']:.3f}" for m in modes.values())
        rows.append((corpus, *cells))
    yield markdown_table(rows)


def _making(facts):
    training = ", ".join(f"{k} {v}" for k, v in facts["training"].items())
    versions = ", ".join(f"{k} {v}" for k, v in facts["versions"].items())
    return (
        "    make models\n    make train-open MSER_DATA=FOLDER\n\n"
        f"which trains `hparams/open/train.yaml` ({training}) on all four, and "
        "on three of them four times, and makes these files again bit by bit "
        f"on one machine. Versions: {versions}."
    )
