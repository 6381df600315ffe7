"""The vocabulary: every known spelling, and nothing unknown."""

import pytest

from speechbrain_mser.emotions import (
    ALIASES,
    CANONICAL,
    FURTHER,
    LABEL_SETS,
    candidate_labels,
    canonical,
)
from speechbrain_mser.errors import InputError


def test_the_seven_emotions_are_the_papers_in_its_order():
    assert CANONICAL == (
        "neutral",
        "happy",
        "sad",
        "angry",
        "surprise",
        "disgust",
        "fear",
    )


def test_every_word_of_the_vocabulary_is_itself():
    for word in (*CANONICAL, *FURTHER):
        assert canonical(word) == word


def test_every_alias_leads_into_the_vocabulary_and_hides_no_word_of_it():
    vocabulary = {*CANONICAL, *FURTHER}
    assert set(ALIASES.values()) <= vocabulary
    assert not vocabulary & set(ALIASES)


@pytest.mark.parametrize(
    ("corpus", "labels", "expected"),
    [
        ("IEMOCAP", "neu hap sad ang", "neutral happy sad angry"),
        ("IEMOCAP", "sur dis fea", "surprise disgust fear"),
        ("IEMOCAP", "exc fru", "excited frustrated"),
        ("MELD", "joy sadness anger", "happy sad angry"),
        ("MEAD", "disgusted surprised contempt", "disgust surprise contempt"),
        ("RAVDESS", "fearful calm", "fear calm"),
        ("RESD", "happiness enthusiasm", "happy enthusiasm"),
    ],
)
def test_labels_of_the_corpora_are_known(corpus, labels, expected):
    assert [canonical(word) for word in labels.split()] == expected.split()


def test_case_and_outer_spaces_do_not_matter():
    assert canonical("  HaPPiness\n") == "happy"


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("anrgy", "angry"),
        ("neutrall", "neutral"),
        # the nearest is the alias 'surprised', which no manifest accepts
        ("suprised", "surprise"),
    ],
)
def test_a_typo_fails_with_the_word_that_was_meant(typo, meant):
    with pytest.raises(InputError, match=f"'{typo}'; did you mean '{meant}'"):
        canonical(typo)


@pytest.mark.parametrize("label", ["xxx", "", None, float("nan"), 3])
def test_what_resembles_nothing_fails_with_the_whole_vocabulary(label):
    with pytest.raises(InputError, match="neutral, happy, sad") as caught:
        canonical(label)
    assert repr(str(label)) in str(caught.value)


def test_label_sets_hold_words_of_the_vocabulary_each_once():
    for name, words in LABEL_SETS.items():
        assert len(set(words)) == len(words), name
        assert [canonical(word) for word in words] == list(words), name


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("paper4", 4),
        ("paper7", 7),
        ("aesdd5", 5),
        ("ravdess7", 7),
        ("resd7", 7),
        ("shemo6", 6),
    ],
)
def test_label_sets_have_the_papers_sizes(name, size):
    assert len(candidate_labels(name)) == size


def test_candidates_may_be_any_words_in_the_order_given():
    assert candidate_labels([" jealous", "proud"]) == ("jealous", "proud")
    # A Persian word has a control of its own, emoji are joined by one
    words = ("خسته‌کننده", "👩‍🚒", "w" * 100)
    assert candidate_labels(words) == words


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("paper5", "unknown label set 'paper5'.*paper4"),
        ([], "no labels"),
        (None, "no labels"),
        (["sad", " "], "label 2 of 2 is empty"),
        (["sad", "angry", "sad "], "'sad' is given twice"),
        (["sad", "SAD"], r"'SAD' is given twice \(as 'sad' before\)"),
        (["a\nb"], r"'a\\nb', which has control characters"),
        (["sad", "\x1b[31m"], "control characters"),
        (["\udcff"], "control characters"),
        (["sad", "w" * 101], "label 2 of 2 has 101 characters; 100 at most"),
        (["\u200b", "sad"], "label 1 of 2 is empty"),
        (["sad", "sad\u200b"], r"'sad\\u200b' is given twice"),
        (["sad", None], "label 2 of 2 is None, expected a word"),
        (["sa\u200bd", "SAD"], r"'SAD' is given twice"),
        (5, "labels are 5, expected a list of words"),
    ],
)
def test_candidates_that_make_no_choice_fail(labels, reason):
    with pytest.raises(InputError, match=reason):
        candidate_labels(labels)
