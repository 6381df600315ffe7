"""The paper's two rules, and what each of them drops."""

import math
import random

import pytest

from speechbrain_mser.errors import InputError
from speechbrain_mser.synthesis.filters import (
    PaperFilters,
    ScoreFilter,
    filters_toll,
    toll_table,
)


def shortest(rules, corpus):
    """Seconds from which on all is kept, by bisection."""
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (low, middle)
            if rules.refuse(corpus, middle) == ""
            else (middle, high)
        )
    return high


@pytest.mark.parametrize(
    "rate, width, of_20, of_50",
    [
        (24000, 4, 0.208, 0.521),
        (16000, 4, 0.3125, 0.781),
        (24000, 2, 0.417, 1.042),
        (16000, 2, 0.625, 1.5625),
    ],
)
def test_what_kilobytes_mean_depends_on_the_encoding(rate, width, of_20, of_50):
    rules = PaperFilters(
        min_seconds=0,
        min_kilobytes_of={"meld": 20},
        reference_rate=rate,
        reference_bytes=width,
    )
    assert shortest(rules, "meld") == pytest.approx(of_20, abs=6e-4)
    assert shortest(rules, "mead") == pytest.approx(of_50, abs=6e-4)


def test_a_limit_itself_is_kept():
    rules = PaperFilters(min_kilobytes=48)
    assert rules.refuse("mead", 0.5) == ""
    assert rules.refuse("mead", math.nextafter(0.5, 0)) != ""


def test_without_limits_everything_is_kept():
    assert PaperFilters(0, 0).refuse("mead", 0.0) == ""


@pytest.mark.parametrize(
    "setting", ["min_seconds", "reference_rate", "kilobyte"]
)
@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_numbers_that_are_none_are_refused(setting, value):
    with pytest.raises(InputError, match=setting):
        PaperFilters(**{setting: value})


def test_the_toll_is_what_each_rule_alone_would_drop():
    rng = random.Random(0)
    rules = PaperFilters(min_seconds=0.6, min_kilobytes_of={"meld": 80})
    items = [
        (rng.choice(["meld", "mead"]), rng.choice(["fra", "deu"]), s / 1000)
        for s in (rng.randrange(200, 1200) for _ in range(400))
    ]
    reasons = [rules.refuse(corpus, s) for corpus, _, s in items]
    toll = filters_toll(
        [i[:2] for i, reason in zip(items, reasons, strict=True) if not reason],
        [
            (*item[:2], reason)
            for item, reason in zip(items, reasons, strict=True)
            if reason
        ],
    )
    alone = {
        "too short": PaperFilters(0.6, 0),
        "too small": PaperFilters(0, min_kilobytes_of={"meld": 80}),
        "either": rules,
    }
    assert [(row["corpus"], row["language"]) for row in toll] == [
        *(("mead", "deu"), ("mead", "fra")),
        *(("meld", "deu"), ("meld", "fra"), ("all", "")),
    ]
    for row in toll:
        own = [
            (corpus, seconds)
            for corpus, language, seconds in items
            if row["corpus"] == "all"
            or (corpus, language) == (row["corpus"], row["language"])
        ]
        assert row["translations"] == len(own)
        for name, only in alone.items():
            assert row[name] == sum(only.refuse(*it) != "" for it in own)
        assert row["both"] == (
            row["too short"] + row["too small"] - row["either"]
        )


def test_a_toll_of_nothing_is_a_table_too():
    (row,) = filters_toll([], [])
    assert row["translations"] == row["either"] == 0
    assert "| all " in toll_table([row])


@pytest.fixture
def scores(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("audio,cer,ratio\na,0.5,2\nb,0.51,2\nc,,1\nd,0.1,nan\n")
    return path


def test_scores_are_kept_where_all_conditions_hold(scores):
    limits = ScoreFilter(scores, ["cer<=0.5", "ratio >= 1.5"])
    assert limits.refuse("a") == ""
    assert limits.refuse("b") == (
        "score: cer is 0.51, at most 0.5 is asked for"
    )
    assert limits.refuse("c") == "score: no cer"
    assert (
        limits.refuse("d") == "score: ratio is nan, at least 1.5 is asked for"
    )
    assert limits.refuse("elsewhere") == "score: no cer"


@pytest.mark.parametrize(
    "condition, message",
    [
        ("cer<0.5", "'cer<0.5' is not of the form"),
        ("cer<=much", "'cer<=much' is not of the form"),
        ("cer<=1.2.3", "is not of the form"),
        ("wer<=0.5", "column wer is missing"),
    ],
)
def test_conditions_that_cannot_be_checked_are_named(
    scores, condition, message
):
    with pytest.raises(InputError, match=message):
        ScoreFilter(scores, [condition])


def test_a_score_that_is_no_number_is_named(scores):
    scores.write_text("audio,cer\na,low\n")
    with pytest.raises(InputError, match="cer of a is 'low'"):
        ScoreFilter(scores, ["cer<=1"])
