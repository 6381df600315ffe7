"""Whole tables are read, encoded and computed on, whatever their order."""

import pytest
import soundfile
import torch

from speechbrain_mser.dataio.bad_utterances import BadUtterances
from speechbrain_mser.dataio.feature_reader import FeatureReader
from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.errors import InputError


def encoder(wavs, lens):
    """A frame of each 320 samples: their own values."""
    return wavs[:, : wavs.shape[1] // 320 * 320 : 320, None], lens


def first_value(features, lens):
    del lens
    return features[:, 0]


@pytest.fixture
def table(tiny_corpus):
    manifest = tiny_corpus / "manifests" / "tiny.csv"
    return read_manifest(manifest, tiny_corpus / "corpora" / "tiny")


def test_rows_are_in_the_tables_order_though_read_by_length(table):
    shuffled = table.sample(frac=1, random_state=0)
    reader = FeatureReader(encoder, batch_size=7)
    read, rows = reader.compute(first_value, shuffled, "test")
    assert read.ID.tolist() == shuffled.ID.tolist()
    expected = [soundfile.read(wav, frames=1)[0][0] for wav in shuffled.wav]
    assert rows.flatten().tolist() == pytest.approx(expected, abs=1e-6)
    durations = dict(zip(table.ID, table.duration, strict=True))
    order = [
        durations[i] for batch, *_ in reader(shuffled, "") for i in batch.id
    ]
    assert order == sorted(order)


def test_what_is_no_number_is_left_out_by_name_or_refused(table):
    def no_number_for_the_loudest(features, lens):
        rows = first_value(features, lens).clone()
        rows[rows == loudest] = torch.nan
        return rows

    _, rows = FeatureReader(encoder).compute(first_value, table, "test")
    loudest = rows.max()
    name = table.ID.iloc[int(rows.argmax())]
    bad = BadUtterances("skip")
    reader = FeatureReader(encoder, bad_utterances=bad)
    read, rest = reader.compute(no_number_for_the_loudest, table, "test")
    assert list(bad.reasons) == [name] and "not finite" in bad.reasons[name]
    assert read.ID.tolist() == [i for i in table.ID if i != name]
    assert rest.isfinite().all()
    with pytest.raises(InputError, match=name):
        FeatureReader(encoder).compute(no_number_for_the_loudest, table, "test")


def test_nothing_to_compute_on_is_an_error(table):
    bad = BadUtterances("skip")
    reader = FeatureReader(encoder, bad_utterances=bad)
    with pytest.raises(InputError, match="mine: no utterance could be read"):
        reader.compute(
            lambda features, _: torch.full((len(features), 1), torch.nan),
            table,
            "mine",
        )
    assert len(bad.reasons) == len(table)
