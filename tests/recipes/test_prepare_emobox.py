"""What `emobox_prepare.py` makes of EmoBox's lists and of audio beside them.

Against a real clone too where the environment variable EMOBOX names one.
"""

import importlib
import json
import os
from pathlib import Path, PurePosixPath

import emobox_prepare
import pytest
from corpora import read_corpora
from emobox_prepare import LANGUAGES, prepare_emobox
from miniature import read_dropped, refused, run, write_noise

from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.errors import InputError
from speechbrain_mser.preparation.file_names import by_name

# Corpus, as EmoBox has it: label map; key, label, speaker and file
LISTS = {
    "ravdess": (
        {"Angry": "Angry", "Calm": "Calm", "Fearful": "Fear"},
        ("03-01-05-01-02-01-18", "Angry", "18", "audio/Actor_18"),
        ("03-01-02-01-02-01-01", "Calm", "01", "audio/Actor_01"),
        ("03-01-06-01-02-01-02", "Fearful", "02", "audio/Actor_02"),
    ),
    "emodb": (
        {"anger": "Angry", "Neutral": "Neutral", "boredem": "Boredom"},
        ("03a01Wa", "anger", "male_03", "wav"),
        ("16a01Nb", "neutral", "female_16", "wav"),
        ("16b10Lc", "boredem", "female_16", "wav"),
    ),
    "emovo": (
        {"gio": "Happy", "neu": "Neutral"},
        ("gio-f2-b2", "gio", "f2", "f2"),
        ("neu-m1-d1", "neu", "m1", "m1"),
    ),
    "urdu": (
        {"A": "Angry", "N": "Neutral"},
        ("SM20_F8_N012", "N", "SM20", "Neutral"),
        ("SF1_F19_A019", "A", "SF1", "Angry"),
    ),
    "aesdd": (
        {"a": "Angry", "d": "Disgust"},
        ("a03 (3)", "a", "3", "anger"),
        ("d04 (1)b", "d", "1", "disgust"),
    ),
    "shemo": (
        {"sad": "Sad", "surprised": "Surprise"},
        ("M36S02", "sad", "M36", "male"),
        ("F24W24", "surprised", "F24", "female"),
    ),
}


def write_lists(clone, corpus, words, *entries, parts=("train", "test")):
    """A corpus of a clone; the entries fall into the parts in turn."""
    folder = clone / "data" / corpus
    (folder / "fold_1").mkdir(parents=True)
    (folder / "label_map.json").write_text(json.dumps(words))
    lines, spoken = [], []
    for item, label, speaker, place, *more in entries:
        wav = f"downloads/{corpus}/{place}/{item}.wav"
        key = f"{corpus}-{item}"
        entry = {"key": key, "wav": wav, "emo": label, "channel": 1}
        lines.append(json.dumps({**entry, **dict(*more)}))
        tags = f"<id={key},lang=en,spk={speaker},emotion={label}>"
        spoken.append(f"{key} 1 {speaker} 0 1.5 {tags} {label}\n")
    (folder / "data.seg.wrd.stm").write_text("".join(spoken))
    (folder / f"{corpus}.jsonl").write_text("\n".join(lines))
    for number, part in enumerate(parts):
        path = folder / f"fold_1/{corpus}_{part}_fold_1.jsonl"
        path.write_text("\n".join(lines[number :: len(parts)]) + "\n")


@pytest.fixture
def clone(tmp_path):
    for corpus, (words, *entries) in LISTS.items():
        write_lists(tmp_path / "EmoBox", corpus, words, *entries)
        for item, _, _, place in entries:
            place = place.removeprefix("audio/")
            write_noise(tmp_path / f"{corpus}/{place}/{item}.wav")
    return tmp_path / "EmoBox"


def label_of(table):
    return dict(zip(table.wav, table.emotion, strict=True))


@pytest.mark.parametrize("corpus", LISTS)
def test_labels_agree_with_our_own_script(clone, tmp_path, corpus):
    audio = tmp_path / corpus
    theirs = read_manifest(prepare_emobox(audio, tmp_path, clone, corpus))
    own = importlib.import_module(f"{corpus}_prepare")
    prepare = getattr(own, f"prepare_{corpus}")
    ours = read_manifest(prepare(audio, tmp_path, valid_speakers=[]))
    assert label_of(theirs) == label_of(ours)
    assert set(theirs.language) == set(ours.language)
    assert not set(theirs.ID) & set(ours.ID)


def test_rows_say_what_the_lists_say(clone, tmp_path):
    manifest = prepare_emobox(tmp_path / "emodb", tmp_path, clone, "emodb")
    assert manifest.name == "emobox_emodb.csv"
    columns = ["ID", "wav", "corpus", "split", "speaker", "label", "emotion"]
    rows = read_manifest(manifest)[columns].values.tolist()
    assert rows[1:] == [
        [
            *("emobox_emodb_16a01Nb", "$data_root/wav/16a01Nb.wav"),
            *("emobox_emodb", "test", "female_16", "neutral", "neutral"),
        ],
        [
            *("emobox_emodb_16b10Lc", "$data_root/wav/16b10Lc.wav"),
            *("emobox_emodb", "train", "female_16", "boredem", "boredom"),
        ],
    ]


def test_a_file_is_told_from_others_of_its_name(tmp_path):
    # As in MELD: the three parts begin with the same numbers
    places = ("train/train_splits", "dev_splits", "output_test")
    write_lists(
        *(tmp_path / "EmoBox", "meld", {"joy": "Happy"}),
        *(("dia0_utt0", "joy", "Ross", place) for place in places),
        parts=("train", "valid", "test"),
    )
    lists = tmp_path / "EmoBox/data/meld"
    for path in lists.glob("**/*.*"):
        # Keys hold the part, files do not
        text = path.read_text()
        for place, part in zip(places, ("train", "dev", "test"), strict=True):
            lines = [
                line.replace("meld-dia0_utt0", f"meld-dia0_utt0-{part}")
                if place in line
                else line
                for line in text.split("\n")
            ]
            text = "\n".join(lines)
        path.write_text(text)
    write_noise(tmp_path / "MELD/train_splits/dia0_utt0.flac")
    write_noise(tmp_path / "MELD/output_test/dia0_utt0.flac")
    write_noise(tmp_path / "MELD/elsewhere/dia0_utt0.flac")
    manifest = prepare_emobox(tmp_path / "MELD", tmp_path, lists.parent, "meld")
    table = read_manifest(manifest)
    assert table[["ID", "wav", "split"]].values.tolist() == [
        [
            "emobox_meld_dia0_utt0-test",
            "$data_root/output_test/dia0_utt0.flac",
            "test",
        ],
        [
            "emobox_meld_dia0_utt0-train",
            "$data_root/train_splits/dia0_utt0.flac",
            "train",
        ],
    ]
    assert read_dropped(tmp_path) == {
        "downloads/meld/dev_splits/dia0_utt0.wav": "missing: no such file",
        "elsewhere/dia0_utt0.flac": "unlisted: none of EmoBox's",
    }


def test_labels_without_a_word_stay_and_unknown_ones_do_not(tmp_path):
    write_lists(
        tmp_path / "EmoBox",
        *("iemocap", {"exc": "Happy", "slp": "Sleepy", "ent": "Enthusiastic"}),
        ("Ses01F_impro04_M000", "exc", "Ses01F", "wav"),
        ("Ses01F_impro04_F001", "slp", "Ses01F", "wav"),
        ("Ses05M_script01_1b_F002", "ent", "Ses05M", "wav"),
        ("Ses05M_impro01_M003", "xxx", "Ses05M", "wav"),
    )
    audio = tmp_path / "EmoBox/downloads/iemocap/wav"
    for name in ("01F_impro04_M000", "01F_impro04_F001", "05M_impro01_M003"):
        write_noise(audio / f"Ses{name}.wav")
    write_noise(audio / "Ses05M_script01_1b_F002.wav")
    write_noise(tmp_path / "EmoBox/downloads/other/a.wav")
    # EmoBox's own layout: nothing has to be moved
    clone = tmp_path / "EmoBox"
    table = read_manifest(prepare_emobox(clone, tmp_path, clone, "iemocap"))
    assert sorted(table[["speaker", "emotion", "label"]].values.tolist()) == [
        # Who speaks, not who wears the markers
        ["1F", "", "slp"],
        ["1M", "happy", "exc"],
        ["5F", "enthusiasm", "ent"],
    ]
    assert read_dropped(tmp_path) == {
        "downloads/iemocap/wav/Ses05M_impro01_M003.wav": "unlabelled: the "
        "label map has no 'xxx'"
    }
    # One that was declared is one.
    (tmp_path / "emotions.txt").write_text("sleepy\n")
    table = read_manifest(prepare_emobox(clone, tmp_path, clone, "iemocap"))
    assert table.emotion[table.label == "slp"].tolist() == ["sleepy"]


def test_parts_of_a_file_and_utterances_in_no_fold(tmp_path):
    # As in PAVOQUE: an emotion's recordings are one file
    times = [{"start_time": n / 2, "end_time": n / 2 + 0.5} for n in range(3)]
    write_lists(
        *(tmp_path / "EmoBox", "pavoque", {"sad": "Sad"}),
        *((f"s{n}", "sad", "STEFAN", ".", times[n]) for n in range(3)),
        parts=("train", "test", "other"),
    )
    lists = tmp_path / "EmoBox/data/pavoque"
    for path in lists.glob("**/*.jsonl"):
        text = path.read_text()
        for number in range(3):
            text = text.replace(f"./s{number}.wav", "sad.flac")
        path.write_text(text)
    write_noise(tmp_path / "pavoque/sad.flac", seconds=2)
    table = read_manifest(
        prepare_emobox(tmp_path / "pavoque", tmp_path, lists.parent, "pavoque")
    )
    assert table[["ID", "start", "stop", "duration"]].values.tolist() == [
        ["emobox_pavoque_s0", 0.0, 0.5, 0.5],
        ["emobox_pavoque_s1", 0.5, 1.0, 0.5],
    ]
    assert read_dropped(tmp_path) == {
        "emobox_pavoque_s2".removeprefix("emobox_pavoque_"): "in no fold: no "
        "part of fold 1 has it"
    }


def test_a_fifth_is_held_out_the_same_in_every_run(tmp_path):
    items = [(f"{n:04d}_000001", "Sad", f"{n:04d}", "a") for n in range(1, 21)]
    write_lists(
        *(tmp_path / "EmoBox", "esd", {"Sad": "Sad"}), *items, parts=["train"]
    )
    test = tmp_path / "EmoBox/data/esd/fold_1/esd_test_fold_1.jsonl"
    train = test.with_name("esd_train_fold_1.jsonl")
    *lines, last = train.read_text().splitlines()
    train.write_text("\n".join(lines))
    test.write_text(last)
    for item, *_ in items:
        write_noise(tmp_path / f"esd/{item}.wav")

    def prepare(**options):
        clone = tmp_path / "EmoBox"
        path = prepare_emobox(
            tmp_path / "esd", tmp_path, clone, "esd", **options
        )
        return read_manifest(path)

    first, again = prepare(), prepare(decode=True)
    assert first.split.tolist() == again.split.tolist()
    assert 1 <= (first.split == "valid").sum() <= 8
    assert set(prepare(valid_share=0.0).split) == {"train", "test"}
    assert set(prepare(fold=0).split) == {"test"}
    assert first.language.value_counts().to_dict() == {"cmn": 10, "eng": 10}


def test_training_reads_several_of_its_corpora(clone, tmp_path):
    settings = {
        **{"data_root": str(tmp_path), "skip_prep": False},
        "manifest_folder": str(tmp_path / "manifests"),
        "corpus_folders": {"emobox_emovo": "emovo", "emobox": "urdu"},
        "corpus_options": {"emobox": {"emobox": str(clone), "corpus": "urdu"}},
    }
    table = read_corpora(["emobox_emovo", "emobox"], settings)
    assert table.corpus.value_counts().to_dict() == {
        "emobox_emovo": 2,
        "emobox_urdu": 2,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corpus": "meld"}, "no meld/meld.jsonl; there are lists of aesdd"),
        ({"fold": 7}, "fold is 7; emodb has fold_1, and 0 puts"),
        ({"valid_share": 1.0}, "valid_share is 1.0"),
        ({"emobox": "/nowhere"}, "lists of nothing; emobox is a clone of"),
    ],
)
def test_what_cannot_be_used_is_refused(clone, tmp_path, options, message):
    given = {"emobox": clone, "corpus": "emodb", **options}
    with pytest.raises(InputError, match=message):
        prepare_emobox(tmp_path / "emodb", tmp_path, **given)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"key": "a"}', "1\n2"])
def test_a_list_that_is_none_is_refused(clone, tmp_path, text):
    (clone / "data/emodb/emodb.jsonl").write_text(text)
    with pytest.raises(InputError, match="with the texts key, wav, emo"):
        prepare_emobox(tmp_path / "emodb", tmp_path, clone, "emodb")


def test_the_command_line(clone, tmp_path):
    out, audio = tmp_path / "out", tmp_path / "urdu"
    flags = ("--emobox", clone, "--corpus", "urdu")
    done = run("emobox", audio, out, *flags, "--fold", "1")
    assert done.returncode == 0, done.stderr
    assert "counts equal the release's: 2 utterances" in done.stdout
    assert "--corpus" in refused("emobox", audio, out, *flags[:2])


CLONE = os.environ.get("EMOBOX")


@pytest.mark.skipif(not CLONE, reason="EMOBOX names no clone of EmoBox")
def test_a_real_clone_is_known_and_agrees():
    """All corpora in it; the labels of those that we read by names."""
    lists = sorted(Path(CLONE, "data").glob("*/label_*.json"))
    assert {path.parent.name for path in lists} == {
        *LANGUAGES,
        *("esd", "asvpesd"),
    }
    agreed = {}
    for corpus in (*LISTS, "mead", "resd"):
        folder = Path(CLONE, "data", corpus)
        if not (folder / f"{corpus}.jsonl").is_file():
            continue
        utterances = emobox_prepare._read_utterances(folder, 1, 0.2)
        ours = importlib.import_module(f"{corpus}_prepare")
        for row in utterances:
            path = row["wav"].removeprefix(f"downloads/{corpus}/")
            if corpus == "mead":
                label = ours._parse_path(path)["label"]
            elif corpus == "resd":
                entry = {
                    "name": PurePosixPath(path).stem,
                    "emotion": row["label"],
                }
                label = ours._row(entry, "train", "keep")[0]["label"]
            else:
                (own,), _ = by_name(ours._parse_name)(None, [path])
                label = own["label"]
            assert emobox_prepare.canonical(label) == row["emotion"], path
        agreed[corpus] = len(utterances)
    print(agreed, sum(agreed.values()))
