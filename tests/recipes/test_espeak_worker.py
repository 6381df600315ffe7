"""The demo's translator: the same words elsewhere, whatever happened before."""

import numpy as np
import pytest

pytest.importorskip("espeakng_loader")

from espeak_prepare import CORPUS, plan_language
from espeak_worker import NotOfTheDemo, plan_translation
from miniature import RECIPES

from speechbrain_mser.errors import InputError
from speechbrain_mser.synthesis.backend import SourceUtterance
from speechbrain_mser.synthesis.backends.external import ExternalBackend


def source(item, **changes):
    """An utterance of the demo corpus as a backend gets it."""
    return SourceUtterance(
        **{
            "id": item["ID"],
            "samples": np.zeros(1600, np.float32),
            "text": item["text"],
            "emotion": item["emotion"],
            "speaker": f"espeak_eng_{item['voice']}",
            **changes,
        }
    )


@pytest.fixture(scope="module")
def sources():
    """Eight utterances of several voices and emotions."""
    return [source(item) for item in plan_language("eng", 1, 1)[::19]]


@pytest.fixture
def backend():
    opened = ExternalBackend(
        ["python", "experiments/espeak_worker.py"], working_folder=RECIPES
    )
    yield opened
    opened.close()


def samples(translations):
    assert [t.error for t in translations] == [""] * len(translations)
    return [t.samples.tobytes() for t in translations]


def test_an_utterance_sounds_the_same_in_any_company(sources, backend):
    together = backend.translate(sources, "fra")
    alone = [backend.translate([one], "fra")[0] for one in sources[::-1]]
    assert samples(alone[::-1]) == samples(together)
    assert {t.sample_rate for t in together} == {16000}


def test_a_killed_translator_says_the_same_when_it_is_back(sources, backend):
    before = samples(backend.translate(sources[:3], "cmn"))
    backend._worker._process.kill()
    backend._worker._process.wait()
    assert samples(backend.translate(sources[:3], "cmn")) == before


def test_it_says_the_sentence_of_the_same_number(sources, backend):
    tables = {
        name: entry["sentences"] for name, entry in CORPUS["languages"].items()
    }
    for language in ("deu", "spa"):
        for one, made in zip(
            sources[:3],
            backend.translate(sources[:3], language),
            strict=True,
        ):
            number = tables["eng"].index(one.text)
            assert made.text == tables[language][number]


def plan(language, **changes):
    item = plan_language("eng", 1, 1)[0]
    names = ("id", "text", "emotion", "speaker")
    one = source(item, **changes)
    return plan_translation({n: getattr(one, n) for n in names}, language)


def test_emotions_sound_as_their_rules_say():
    # The deviations are of ID and voice: the same here
    neutral, angry = (
        plan("ita", emotion="neutral"),
        plan("ita", emotion="angry"),
    )
    rule = CORPUS["emotions"]["angry"]
    for name in ("pitch", "level", "tilt", "creak"):
        assert angry[name] - neutral[name] == pytest.approx(rule[name])
    assert neutral["voice"] == "m1"


def test_utterances_and_languages_differ_in_their_deviations():
    one = plan("ita")
    assert plan("ita") == one
    assert plan("ita", id="espeak_eng_m1_other")["pitch"] != one["pitch"]
    assert plan("deu")["pitch"] != one["pitch"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"text": "Excuse me."}, "no sentence 'Excuse me.'"),
        ({"emotion": "calm"}, "no emotion 'calm'"),
        ({"speaker": "iemocap_1F"}, "no voice 'iemocap_1F'"),
    ],
)
def test_what_the_demo_does_not_have_is_an_error_of_its_own(
    sources, backend, changes, message
):
    with pytest.raises(NotOfTheDemo, match=message):
        plan("fra", **changes)
    item = plan_language("eng", 1, 1)[0]
    good, bad = backend.translate([sources[0], source(item, **changes)], "fra")
    assert good.error == "" and message in bad.error and bad.samples is None


def test_a_language_that_it_lacks_is_refused(sources, backend):
    backend.open()
    with pytest.raises(InputError, match="'jpn' is none of the languages"):
        backend.translate(sources[:1], "jpn")
