"""What is chosen is chosen without the corpus that it is reported on."""

import choose
import pytest
from folds import LABELS, Folds, read_overrides
from miniature import cells
from real_ablation import read_rows

from speechbrain_mser.settings.project_files import HPARAMS


@pytest.fixture
def found():
    """Another UA for each pair and corpus."""
    return {
        pair: {
            corpus: 0.1 * number + 0.01 * place
            for place, corpus in enumerate(LABELS)
            if corpus not in pair
        }
        for number, pair in enumerate(choose.PAIRS)
    }


@pytest.mark.parametrize("left_out", LABELS)
def test_a_corpus_has_no_part_in_what_is_chosen_for_it(found, left_out):
    before = choose.inside(found, left_out)
    without = {
        pair: {c: ua if left_out != c else 9.0 for c, ua in uas.items()}
        if left_out not in pair
        else {c: 9.0 for c in uas}
        for pair, uas in found.items()
    }
    assert choose.inside(without, left_out) == before
    # Three corpora, each tested by a training on the other two
    assert before == pytest.approx(
        sum(
            found[tuple(o for o in LABELS if o not in (left_out, c))][c]
            for c in LABELS
            if c != left_out
        )
        / 3
    )


@pytest.mark.parametrize("kind", choose.KINDS)
def test_each_corpus_chooses_by_the_others(found, kind):
    def all_of(ua, other=0.0):
        return {
            pair: {
                each: dict.fromkeys(uas, ua if each == kind else other)
                for each in choose.KINDS
            }
            for pair, uas in found.items()
        }

    # Of what is not asked for, b is best.
    better_on_urdu = all_of(0.5, other=0.9)
    better_on_urdu["emodb", "emovo"][kind] = {"ravdess": 0.5, "urdu": 0.8}
    rows = {"a": {"name": "row a"}, "b": {"name": "row b"}}
    runs = {1: {"a": all_of(0.55), "b": better_on_urdu}}
    table = cells(choose.report(rows, runs, kind))
    # URDU's own 0.8 counts for RAVDESS's fold alone, and among all twelve.
    assert table[2][1:] == ["0.550"] * 5
    assert table[3][1:] == ["0.500", "0.500", "0.600", "0.500", "0.525"]
    assert table[4] == ["chosen", "row a", "row a", "row b", "row a", "row a"]


def test_every_row_has_a_name_and_settings_that_there_are(real_corpora):
    data, folder, overrides = real_corpora
    folds = Folds(data, folder, read_overrides(overrides))
    rows = read_rows(HPARAMS / "choices.yaml", folds, None)
    assert rows["as_recorded"]["settings"] == {"microphones": []}
