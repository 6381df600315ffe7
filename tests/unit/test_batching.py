"""From manifest rows to batches: what is taken, left out, and reported."""

import logging
import pickle

import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from speechbrain_mser.dataio.batching import (
    BadUtterance,
    UtteranceBatch,
    pad_together,
)
from speechbrain_mser.dataio.manifest import (
    COLUMNS,
    read_manifest,
    read_manifests,
)
from speechbrain_mser.dataio.utterances import (
    StoredUtterance,
    make_dataset,
    read_signal,
    read_stored,
    select_utterances,
)
from speechbrain_mser.errors import InputError
from speechbrain_mser.features.store import FeatureStore, UtteranceKey

NAN = float("nan")


@pytest.fixture(scope="module")
def table(tiny_corpus):
    """The tiny corpus: 5 speakers, 4 emotions, 2 languages."""
    return read_manifest(
        tiny_corpus / "manifests" / "tiny.csv",
        tiny_corpus / "corpora" / "tiny",
    )


def item(name, sig):
    return {"id": name, "sig": sig, "emotion": "happy", "duration": 1.0}


# Batches


def test_signals_are_padded_and_their_lengths_told():
    batch = UtteranceBatch([item("a", torch.ones(2)), item("b", torch.ones(8))])
    assert len(batch) == 2
    assert batch.id == ["a", "b"]
    assert batch.emotion == ["happy", "happy"]
    assert batch.sig.data.tolist() == [[1] * 2 + [0] * 6, [1] * 8]
    assert batch.sig.lengths.tolist() == [0.25, 1]
    assert batch.bad == []


def test_bad_utterances_are_set_aside_by_name():
    gone = BadUtterance("b", "no such file")
    batch = UtteranceBatch(
        [item("a", torch.ones(2)), item("b", gone), item("c", torch.ones(4))]
    )
    assert len(batch) == 2
    assert batch.id == ["a", "c"]
    assert batch.sig.data.shape == (2, 4)
    assert batch.bad == [gone]


def test_a_batch_of_bad_utterances_is_empty_and_can_be_moved():
    gone = [BadUtterance(name, "broken") for name in "ab"]
    batch = UtteranceBatch([item(bad.utterance, bad) for bad in gone])
    assert len(batch) == 0
    assert batch.bad == gone
    assert batch.to("cpu") is batch
    assert batch.pin_memory() is batch


def test_moving_a_batch_keeps_what_is_bad():
    gone = BadUtterance("b", "broken")
    batch = UtteranceBatch([item("a", torch.ones(2)), item("b", gone)])
    moved = batch.to(dtype=torch.float64)
    assert moved.sig.data.dtype == torch.float64
    assert moved.bad == [gone]


def test_a_batch_travels_between_processes():
    gone = BadUtterance("b", "broken")
    for examples in (
        [item("a", torch.ones(2)), item("b", gone)],
        [item("b", gone)],
    ):
        batch = pickle.loads(pickle.dumps(UtteranceBatch(examples)))
        assert len(batch) == len(examples) - 1
        assert batch.bad == [gone]


# Signals


def test_a_part_of_a_file_is_read(tmp_path):
    path = tmp_path / "a.wav"
    ramp = torch.linspace(-0.5, 0.5, 16000)
    soundfile.write(path, ramp.numpy(), 16000, subtype="FLOAT")
    for start, stop, expected in (
        (NAN, NAN, ramp),
        (0.25, NAN, ramp[4000:]),
        (NAN, 0.5, ramp[:8000]),
        (0.25, 0.5, ramp[4000:8000]),
    ):
        assert torch.equal(read_signal("a", str(path), start, stop), expected)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no such file"), (b"", "empty"), (b"no audio" * 99, "a.wav")],
)
def test_what_cannot_be_read_says_why(content, reason, tmp_path):
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    bad = read_signal("utterance_7", str(path), NAN, NAN)
    assert bad.utterance == "utterance_7"
    assert str(path) in bad.reason
    assert reason in bad.reason


# Selection


def test_only_utterances_with_an_emotion_are_taken(table):
    table = table.copy()
    table.loc[[3, 5], "emotion"] = ""
    chosen = select_utterances(table)
    assert set(table.ID) - set(chosen.ID) == set(table.ID[[3, 5]])


@pytest.mark.parametrize(
    ("split", "languages", "labels", "n"),
    [
        ("train", None, None, 3 * 2 * 4),
        ("test", None, None, 1 * 2 * 4),
        (None, ["deu"], None, 5 * 1 * 4),
        (None, ["deu", "eng", "fra"], None, 5 * 2 * 4),
        (None, None, ["sad", "angry", "fear"], 5 * 2 * 2),
        ("valid", ["eng"], ["sad"], 1),
    ],
)
def test_every_filter_takes_what_it_names(table, split, languages, labels, n):
    expected = [
        row.ID
        for row in table.itertuples()
        if (split is None or row.split == split)
        and (languages is None or row.language in languages)
        and (labels is None or row.emotion in labels)
    ]
    chosen = select_utterances(table, split, languages, labels)
    assert chosen.ID.tolist() == expected
    assert len(expected) == n


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (
            {"split": "dev"},
            "no utterance has split dev; the manifests have test, train, valid",
        ),
        (
            {"languages": ["fra", "spa"]},
            "no utterance has language fra, spa; the manifests have deu, eng",
        ),
        (
            {"labels": ["fear", "calm"]},
            "no utterance has an emotion among fear, calm",
        ),
    ],
)
def test_nothing_left_says_what_there_is(table, filters, message):
    with pytest.raises(InputError) as error:
        select_utterances(table, **filters)
    assert str(error.value) == message


def test_without_any_emotion_nothing_is_left(table):
    table = table.assign(emotion="")
    with pytest.raises(InputError, match="no utterance has an emotion"):
        select_utterances(table)


def test_what_is_left_out_is_counted(table, caplog):
    table = table.copy()
    table.loc[[0, 1], "emotion"] = ""
    with caplog.at_level(logging.INFO):
        select_utterances(table, labels=["sad", "angry", "neutral"])
    assert "10 happy" in caplog.text
    assert "2 (no emotion)" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        select_utterances(table.drop(index=[0, 1]))
    assert "left out" not in caplog.text


# Datasets


def test_a_dataset_reads_each_utterance_when_it_is_asked_for(
    table, tiny_corpus
):
    dataset = make_dataset(table)
    assert len(dataset) == 40
    for row in (0, 17, 39):
        found = dataset[row]
        expected = table.iloc[row]
        assert found["id"] == expected.ID
        assert found["emotion"] == expected.emotion
        assert found["duration"] == expected.duration
        samples, _ = soundfile.read(expected.wav, dtype="float32")
        assert torch.equal(found["sig"], torch.from_numpy(samples))


def test_a_batch_has_the_manifests_columns_and_ones_own(table, tmp_path):
    # A corpus with a valence, one without, and a column that no name is.
    lines = ["ID,duration,wav,start,stop,corpus,split,language,speaker,gender"]
    lines[0] += ",emotion,label,text,valence,"
    lines.append(
        "a,1,$data_root/a.wav,,,c,train,eng,c_1,female,happy,h,t,0.5,x"
    )
    (tmp_path / "a.wav").touch()
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "plain.csv").write_text(
        "\n".join(line.rsplit(",", 2)[0] for line in lines).replace(
            "\na", "\nb"
        )
    )
    sources = dict.fromkeys(
        [tmp_path / "own.csv", tmp_path / "plain.csv"], tmp_path
    )
    assert read_manifests(sources).columns.tolist() == list(COLUMNS)
    both = read_manifests(sources, own_columns=True)
    assert both.valence.tolist() == ["0.5", ""]
    own = table.assign(valence="0.5")
    batch = UtteranceBatch([make_dataset(own)[row] for row in (0, 9)])
    for name in ("gender", "speaker", "language", "label", "text", "valence"):
        assert getattr(batch, name) == own[name][[0, 9]].tolist(), name
    with pytest.raises(InputError, match="cannot be called keys"):
        make_dataset(table.assign(keys="a"))


def test_a_missing_file_ends_up_in_its_batchs_bad_list(table):
    table = table.copy()
    table.loc[2, "wav"] = "/nowhere.wav"
    loader = DataLoader(
        make_dataset(table), batch_size=4, collate_fn=UtteranceBatch
    )
    batches = list(loader)
    assert [len(batch) for batch in batches] == [3] + [4] * 9
    (bad,) = batches[0].bad
    assert bad == BadUtterance(table.ID[2], "/nowhere.wav: no such file")
    read = [name for batch in batches for name in batch.id]
    assert read == table.ID.drop(2).tolist()


# Utterances of a feature store


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "features", {}, dtype="float32")


def stored(features=None, wav=None):
    key = UtteranceKey(b"u", b"f", b"c", True)
    return StoredUtterance(key, features, wav)


def test_padding_is_that_of_torch():
    tensors = [torch.randn(n, 2) for n in (3, 1, 5)]
    expected = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
    data, lengths = pad_together(tensors, -2)
    assert torch.equal(data, expected)
    assert lengths.tolist() == pytest.approx([3 / 5, 1 / 5, 1])
    data, _ = pad_together([tensor.T for tensor in tensors], -1)
    assert torch.equal(data, expected.mT)


def test_stored_and_new_utterances_are_padded_apart():
    gone = BadUtterance("c", "broken")
    batch = UtteranceBatch(
        [
            item("a", stored(wav=torch.ones(4))),
            item("b", stored(features=torch.ones(2, 3))),
            item("c", gone),
            item("d", stored(features=torch.ones(1, 3))),
            item("e", stored(wav=torch.ones(2))),
        ]
    )
    assert len(batch) == len(batch.keys) == 4
    assert batch.id == ["a", "b", "d", "e"]
    # positions among those that could be read
    assert batch.rows == {"sig": [0, 3], "stored": [1, 2]}
    assert batch.sig.data.tolist() == [[1] * 4, [1, 1, 0, 0]]
    assert batch.sig.lengths.tolist() == [1, 0.5]
    assert batch.stored.data.tolist() == [[[1] * 3] * 2, [[1] * 3, [0] * 3]]
    assert batch.stored.lengths.tolist() == [1, 0.5]
    assert batch.bad == [gone]


def test_a_batch_of_stored_utterances_has_no_signals():
    batch = UtteranceBatch([item("a", stored(features=torch.ones(7, 2, 3)))])
    assert batch.sig is None
    assert batch.stored.data.shape == (1, 7, 2, 3)
    assert UtteranceBatch([item("a", stored(wav=torch.ones(9)))]).stored is None


def test_moving_a_batch_moves_stored_features():
    examples = [
        item("a", stored(wav=torch.ones(4))),
        item("b", stored(features=torch.ones(2, 3))),
    ]
    batch = pickle.loads(pickle.dumps(UtteranceBatch(examples)))
    moved = batch.to("meta")
    assert moved is batch
    for padded in (moved.sig, moved.stored):
        assert padded.data.device.type == "meta"
        assert padded.lengths.device.type == "meta"
    assert moved.keys == [example["sig"].key for example in examples]


def test_an_utterance_is_read_where_it_is_stored(table, store):
    row = table.iloc[0]
    found = read_stored(row.ID, row.wav, NAN, NAN, store)
    assert found.features is None
    assert torch.equal(found.wav, read_signal(row.ID, row.wav, NAN, NAN))
    features = torch.randn(5, 3)
    store.put(found.key, features)
    found = read_stored(row.ID, row.wav, NAN, NAN, store)
    assert found.wav is None
    assert torch.equal(found.features, features)
    # Another part of the file is another utterance.
    part = read_stored(row.ID, row.wav, 0.1, NAN, store)
    assert torch.equal(part.wav, read_signal(row.ID, row.wav, 0.1, NAN))


@pytest.mark.parametrize("content", [None, b"", b"no audio" * 99])
def test_what_cannot_be_read_is_said_as_without_a_store(
    store, content, tmp_path
):
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    bad = read_stored("utterance_7", str(path), NAN, NAN, store)
    assert bad == read_signal("utterance_7", str(path), NAN, NAN)


def test_audio_that_changes_while_it_is_read_is_not_taken(tmp_path):
    path = tmp_path / "a.wav"
    ramp = torch.linspace(-0.5, 0.5, 16000).numpy()
    soundfile.write(path, ramp, 16000)

    class Rewriting(FeatureStore):
        """As if another process wrote the file at the worst moment."""

        def get(self, key):
            soundfile.write(path, -ramp, 16000)
            return super().get(key)

    store = Rewriting(tmp_path / "features", {}, dtype="float32")
    bad = read_stored("a", str(path), NAN, NAN, store)
    assert bad == BadUtterance("a", f"{path}: changed while it was read")
