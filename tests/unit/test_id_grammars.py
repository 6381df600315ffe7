"""The file names that the preparation scripts read, and what they refuse."""

import math
from pathlib import PurePosixPath
from types import SimpleNamespace

import aesdd_prepare
import cmu_mosei_prepare
import emodb_prepare
import emovo_prepare
import iemocap_prepare
import m5ser_prepare
import mead_prepare
import meld_prepare
import msp_podcast_prepare
import pytest
import ravdess_prepare
import resd_prepare
import shemo_prepare
import urdu_prepare
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from speechbrain_mser.dataio.manifest import write_manifest
from speechbrain_mser.preparation.file_names import by_name

# The same examples in every run, and no failure by a busy machine
claim = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
of = st.sampled_from


def number(low, high, width=1):
    return st.integers(low, high).map(lambda n: f"{n:0{width}d}")


def named(module):
    return by_name(module._parse_name)


# A grammar is the strategies of a name's parts, a function from the parts to
# (path, what the row must say), and how the script collects paths.


def ravdess(emotion, intensity, statement, take, actor):
    code, label = emotion
    word = {"01": "Kids are talking", "02": "Dogs are sitting"}[statement]
    stem = f"03-01-{code}-{intensity}-{statement}-{take}-{actor}"
    return f"Actor_{actor}/{stem}.wav", {
        "ID": stem,
        "label": label,
        "speaker": actor,
        "gender": "female" if int(actor) % 2 == 0 else "male",
        "text": f"{word} by the door.",
    }


def emodb(speaker, text, emotion, version):
    letter, label = emotion
    stem = speaker + text[0] + letter + version
    return f"wav/{stem}.wav", {
        "ID": stem,
        "label": label,
        "speaker": speaker,
        "gender": "male" if speaker in EMODB_MEN else "female",
        "text": text[1],
    }


def emovo(emotion, sex, actor, text):
    word, label = emotion
    stem = f"{word}-{sex}{actor}-{text[0]}"
    return f"{sex}{actor}/{stem}.wav", {
        "ID": stem,
        "label": label,
        "speaker": sex + actor,
        "gender": {"f": "female", "m": "male"}[sex],
        "text": text[1],
    }


def aesdd(label, sentence, speaker, take):
    stem = f"{label[0]}{sentence} ({speaker}){take}"
    row = {"ID": stem, "label": label, "speaker": speaker[-1]}
    return f"{label}/{stem}.wav", row


def urdu(sex, speaker, clip, label, take):
    stem = f"S{sex}{speaker}_F{clip}_{label[0]}{take}"
    return f"{label}/{stem}.wav", {
        "ID": stem,
        "label": label,
        "speaker": f"S{sex}{speaker}",
        "gender": {"F": "female", "M": "male"}[sex],
    }


def shemo(sex, speaker, emotion, take):
    letter, label = emotion
    stem = f"{sex}{speaker}{letter}{take}"
    gender = {"F": "female", "M": "male"}[sex]
    return f"{gender}/{stem}.wav", {
        "ID": stem,
        "label": label,
        "speaker": sex + speaker,
        "gender": gender,
    }


def mead(actor, label, level, sentence):
    return f"{actor}/audio/{label}/level_{level}/{sentence}.wav", {
        "ID": f"{actor}_{label}_{level}_{sentence}",
        "label": label,
        "speaker": actor,
        "gender": {"W": "female", "M": "male"}[actor[0]],
    }


def resd(dialogue, label, other, take):
    # A few names of the release have a space before the letter
    letter, mark = label[0], " " if take.endswith("0") else "_"
    stem = f"{dialogue}_{label}_{other}{mark}{letter}_{take}"
    return f"{label}/{stem}", {
        "ID": f"{dialogue}_{label}_{other}_{letter}_{take}",
        "label": label,
        "speaker": dialogue + letter,
    }


def collect_resd(_, paths):
    rows, dropped = [], []
    for path in paths:
        # The folder stands for the table's column
        label, _, name = path.partition("/")
        entry = {"name": name, "emotion": label, "text": None}
        row, problem = resd_prepare._row(entry, "train", "keep")
        if problem:
            dropped.append((path, problem))
        else:
            rows.append(row)
    return rows, dropped


def iemocap(session, marked, dialogue, speaker, turn):
    stem = f"Ses0{session}{marked}_{dialogue}_{speaker}{turn}"
    return f"Session{session}/sentences/wav/{stem}.wav", {
        "ID": stem,
        "label": "neu",
        "speaker": session + speaker,
        "gender": {"F": "female", "M": "male"}[speaker],
    }


def collect_iemocap(folder, paths):
    table = folder / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    table.parent.mkdir(parents=True, exist_ok=True)
    turns = [PurePosixPath(path).stem for path in paths]
    known = {"Ses01F_impro01_F000", *filter(str.isidentifier, turns)}
    lines = [f"[0.0 - 1.5]\t{turn}\tneu\t[2.5, 2.5, 2.5]\n" for turn in known]
    table.write_text("".join(lines), encoding="utf-8")
    return iemocap_prepare._collect(folder, paths, "keep")


def meld(split, dialogue, utterance):
    folder, name = {
        "train": ("train_splits", ""),
        "dev": ("dev_splits_complete", ""),
        # Every second film as if there were a corrected cut
        "test": (
            "output_repeated_splits_test",
            "final_videos_test" * (int(utterance) % 2),
        ),
    }[split]
    stem = f"dia{dialogue}_utt{utterance}"
    return f"{split}/{folder}/{name}{stem}.wav", {
        "ID": f"{split}_{stem}",
        "split": {"dev": "valid"}.get(split, split),
    }


def collect_meld(_, paths):
    _, audio, dropped = meld_prepare._find_clips(paths)
    clips = [
        (key, [meld_prepare.Clip(path, path, meld_prepare._key(path)[1], "")])
        for key, path in audio
    ]
    return [meld_prepare._choose(*clip, dropped) for clip in clips], dropped


EMODB_MEN = ("03", "10", "11", "12", "15")
EMODB_TEXTS = ("a01", "a02", "a04", "a05", "a07", "b01", "b02", "b03", "b09")
EMOVO_TEXTS = (*("b1", "b2", "b3", "l1", "l2", "l3", "l4"), "n1", "n5", "d2")
MEAD_LABELS = ("angry", "contempt", "fear", "happy", "neutral", "surprised")
# Letter or word of the name, label
EMOTIONS = {
    "ravdess": [
        *[("01", "neutral"), ("02", "calm"), ("03", "happy"), ("04", "sad")],
        *[("05", "angry"), ("06", "fearful")],
        *[("07", "disgust"), ("08", "surprised")],
    ],
    "emodb": [
        *[("W", "anger"), ("L", "boredom"), ("E", "disgust"), ("A", "fear")],
        *[("F", "happiness"), ("T", "sadness"), ("N", "neutral")],
    ],
    "emovo": [
        *[("dis", "disgust"), ("gio", "joy"), ("neu", "neutral")],
        *[("pau", "fear"), ("rab", "anger"), ("sor", "surprise")],
        ("tri", "sadness"),
    ],
    "shemo": [
        *[("A", "anger"), ("F", "fear"), ("H", "happiness")],
        *[("N", "neutral"), ("S", "sadness"), ("W", "surprise")],
    ],
}
RESD_LABELS = ("neutral", "happiness", "sadness", "anger", "enthusiasm")
DIALOGUES = st.builds("impro{}{}".format, number(1, 8, 2), of(["", "a", "b"]))
SCRIPTS = st.builds(
    "script{}_{}{}".format, number(1, 3, 2), number(1, 3), of(["", "b"])
)


def with_text(texts, words):
    return of([(text, words[text]) for text in texts])


def grammar(build, collect, *parts):
    return SimpleNamespace(
        build=build, collect=collect, parts=st.tuples(*parts)
    )


GRAMMARS = {
    "ravdess": grammar(
        *(ravdess, named(ravdess_prepare), of(EMOTIONS["ravdess"])),
        *(of(["01", "02"]), of(["01", "02"]), of(["01", "02"])),
        number(1, 24, 2),
    ),
    "emodb": grammar(
        *(emodb, named(emodb_prepare)),
        of(["03", *(f"{n:02d}" for n in range(8, 17))]),
        with_text(EMODB_TEXTS, emodb_prepare.TEXTS),
        *(of(EMOTIONS["emodb"]), of("abcdef")),
    ),
    "emovo": grammar(
        *(emovo, named(emovo_prepare), of(EMOTIONS["emovo"])),
        *(of("fm"), of("123"), with_text(EMOVO_TEXTS, emovo_prepare.TEXTS)),
    ),
    "aesdd": grammar(
        *(aesdd, named(aesdd_prepare)),
        of(["anger", "disgust", "fear", "happiness", "sadness"]),
        *(number(1, 20, 2), of([*"123456", "01"]), of(["", "a", "b"])),
    ),
    "urdu": grammar(
        *(urdu, named(urdu_prepare), of("FM"), number(1, 99)),
        *(number(1, 99), of(["Angry", "Happy", "Neutral", "Sad"])),
        number(1, 100, 3),
    ),
    "shemo": grammar(
        shemo,
        lambda folder, paths: shemo_prepare._collect(folder, paths, "all", {}),
        *(of("FM"), number(1, 56, 2), of(EMOTIONS["shemo"])),
        number(0, 99, 2),
    ),
    "mead": grammar(
        mead,
        lambda folder, paths: mead_prepare._collect(folder, paths, folder),
        *(of(["M003", "M042", "W009", "W040"]), of(MEAD_LABELS)),
        *(of("123"), number(1, 999, 3)),
    ),
    "resd": grammar(
        *(resd, collect_resd, number(1, 50, 2), of(RESD_LABELS)),
        *(of(RESD_LABELS), number(0, 999, 3)),
    ),
    "iemocap": grammar(
        *(iemocap, collect_iemocap, of("12345"), of("FM")),
        *(DIALOGUES | SCRIPTS, of("FM"), number(0, 99, 3)),
    ),
    "meld": grammar(
        *(meld, collect_meld, of(["train", "dev", "test"])),
        *(number(0, 1153), number(0, 32)),
    ),
}
every_grammar = pytest.mark.parametrize(
    "grammar", GRAMMARS.values(), ids=GRAMMARS
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("release")


def refused(grammar, folder, *paths):
    """Whether no path makes a row and each a reason, ``kind: detail``."""
    rows, dropped = grammar.collect(folder, paths)
    reasons = [(path, why) for path, why in dropped if path in paths]
    return (
        rows == []
        and [path for path, _ in reasons] == [*paths]
        and all(": " in why for _, why in reasons)
    )


@every_grammar
@claim
@given(data=st.data())
def test_a_name_parses_back_to_its_parts(grammar, folder, data):
    path, expected = grammar.build(*data.draw(grammar.parts))
    (row,), dropped = grammar.collect(folder, [path])
    assert expected.items() <= row.items()
    assert [item for item, _ in dropped if item == path] == []


@every_grammar
@settings(claim, max_examples=40)
@given(data=st.data())
def test_other_parts_have_another_id(grammar, folder, data):
    parts = data.draw(st.lists(grammar.parts, unique=True, max_size=6))
    rows = [
        grammar.collect(folder, [grammar.build(*one)[0]])[0][0] for one in parts
    ]
    assert len({row["ID"] for row in rows}) == len(parts)


@every_grammar
@claim
@given(name=st.text(st.characters(exclude_characters="/"), max_size=30))
@example(name="")
@example(name=".wav")
@example(name="1" * 5000)
@example(name="a01 (" + "1" * 5000 + ")")
@example(name="SM1_F1")
@example(name="dia" + "1" * 5000 + "_utt0")
def test_any_other_string_is_refused_and_never_raises(grammar, folder, name):
    folders = ("", "Angry/", "anger/", "train/train_splits/", "neutral/")
    paths = [f"{above}{name}.wav" for above in folders]
    assert refused(grammar, folder, *paths)


@every_grammar
@settings(claim, max_examples=40)
@given(data=st.data())
def test_a_changed_name_is_refused(grammar, folder, data):
    path, _ = grammar.build(*data.draw(grammar.parts))
    above, _, name = path.rpartition("/")
    stem, dot, ending = name.partition(".")
    foreign = data.draw(st.sampled_from("\n\t\0.é٣²½ａ*%+=~’"))
    where = data.draw(st.integers(0, len(stem)))
    others = (
        # As macOS shadows it
        f"._{stem}",
        stem[:where] + foreign + stem[where:],
        f"{stem} ",
        f" {stem}",
        f"{stem}-copy",
        f"{stem} (1)" if grammar.build is not aesdd else f"{stem}(1)",
        # Digits of another script are no number of the corpus
        stem.translate(dict(zip(range(48, 58), "٠١٢٣٤٥٦٧٨٩", strict=True))),
    )
    paths = [f"{above}/{other}{dot}{ending}" for other in others]
    assert refused(grammar, folder, *paths)


@every_grammar
@settings(claim, max_examples=40)
@given(data=st.data())
def test_case_matters_in_a_name_and_not_in_its_extension(grammar, folder, data):
    path, expected = grammar.build(*data.draw(grammar.parts))
    stem, dot, ending = path.partition(".")
    rows, _ = grammar.collect(folder, [stem + dot + ending.upper()])
    assert expected.items() <= rows[0].items()
    above, _, name = stem.rpartition("/")
    if name.swapcase() != name:
        other = f"{above}/{name.swapcase()}{dot}{ending}"
        assert refused(grammar, folder, other)


@pytest.mark.parametrize("name", ["aesdd", "urdu", "resd"])
@claim
@given(data=st.data())
def test_a_name_that_contradicts_its_label_is_refused(name, folder, data):
    grammar = GRAMMARS[name]
    path, expected = grammar.build(*data.draw(grammar.parts))
    label = data.draw(of(["anger", "Angry", "Sad", "fear", "sadness", ""]))
    stem = path.rpartition("/")[2]
    if label != expected["label"]:
        assert refused(grammar, folder, f"{label}/{stem}")


@claim
@given(
    modality=of(["01", "02", "03"]),
    channel=of(["01", "02"]),
    parts=GRAMMARS["ravdess"].parts,
)
def test_a_video_and_a_song_of_ravdess_say_so(modality, channel, parts):
    path, _ = ravdess(*parts)
    path = path.replace("/03-01-", f"/{modality}-{channel}-")
    rows, dropped = GRAMMARS["ravdess"].collect(None, [path])
    if modality != "03":
        assert dropped == [(path, f"video: modality {modality}")]
    elif channel != "01":
        assert dropped == [(path, f"song: channel {channel}")]
    else:
        assert len(rows) == 1


@claim
@given(split=of(["train", "dev"]), parts=GRAMMARS["meld"].parts)
def test_only_the_test_films_of_meld_are_corrected(split, parts):
    path, _ = meld(split, *parts[1:])
    other = path.replace("/dia", "/final_videos_testdia")
    assert refused(GRAMMARS["meld"], None, other)


def test_a_label_of_resd_that_is_missing_is_no_label():
    for name in ("32_neutral_fear_n_120", "32_fear_neutral_f_120"):
        for emotion in (None, ""):
            entry = {"name": name, "emotion": emotion}
            row, problem = resd_prepare._row(entry, "train", "keep")
            assert row == {}
            assert problem.startswith("misnamed: none in the table")


LANGUAGES = ("fra", "deu", "ita", "cmn", "spa")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Manifests of two corpora, ten utterances each."""
    made = {}
    for corpus in ("meld", "msp_podcast"):
        rows = [
            {
                **{
                    "ID": f"{corpus}_u{n}.{n}",
                    "duration": 1.0,
                    "wav": "$data_root/a.wav",
                },
                **{"corpus": corpus, "split": "train", "language": "eng"},
                **{"speaker": f"s{n}" if n else "", "gender": ""},
                **{"emotion": "happy", "label": "joy", "text": ""},
            }
            for n in range(10)
        ]
        made[corpus] = tmp_path_factory.mktemp("sources") / f"{corpus}.csv"
        write_manifest(made[corpus], rows)
    return made


@settings(claim, max_examples=25)
@given(
    st.sets(
        st.tuples(
            of(LANGUAGES), of(["meld", "msp_podcast"]), st.integers(0, 9)
        ),
        max_size=20,
    ),
    st.booleans(),
)
def test_a_translation_finds_its_source(sources, parts, prefixed):
    parts = sorted(parts)
    paths = [
        f"{language}/{corpus}/{f'{corpus}_' * prefixed}u{n}.{n}.wav"
        for language, corpus, n in parts
    ]
    rows, dropped = m5ser_prepare._collect(
        None, paths, sources, LANGUAGES, texts=None
    )
    assert dropped == []
    assert [
        (row["ID"], row["wav"], row["language"], row["speaker"]) for row in rows
    ] == [
        (
            *(f"{language}_{corpus}_u{n}.{n}", path, language),
            f"{corpus}_s{n}" if n else "",
        )
        for (language, corpus, n), path in zip(parts, paths, strict=True)
    ]


@settings(claim, max_examples=25)
@given(
    st.lists(
        st.text(st.characters(exclude_characters="/\0")).map("a{}.wav".format),
        unique=True,
    )
)
def test_what_is_no_translation_is_refused(sources, names):
    folders = ("", "fra/", "eng/meld/", "FRA/meld/", "fra/meld/")
    paths = [above + name for above in folders for name in names]
    rows, dropped = m5ser_prepare._collect(
        None, paths, sources, LANGUAGES, texts=None
    )
    assert rows == []
    assert [path for path, _ in dropped] == paths


TURNS = st.builds(
    "MSP-PODCAST_{}_{}{}".format,
    *(number(1, 9999, 4), number(0, 9999, 4), of(["", "_0001"])),
)
MSP_CLASSES = dict(
    *[zip("ASHN", ("angry", "sad", "happy", "neutral"), strict=True)],
    X="no agreement",
    O="other",
)
MSP_SPLITS = {"Train": "train", "Development": "valid", "Test1": "test"}


@settings(claim, max_examples=50)
@given(
    turns=st.dictionaries(
        TURNS,
        st.tuples(
            of([*MSP_CLASSES]),
            of([*MSP_SPLITS]),
            number(1, 3000) | st.just("Unknown"),
            of(["Male", "Female", "Unknown"]),
        ),
        max_size=6,
    )
)
def test_a_turn_of_msp_podcast_has_its_row_of_the_table(folder, turns):
    table = folder / "Labels/labels_consensus.csv"
    table.parent.mkdir(exist_ok=True)
    lines = ["FileName,EmoClass,Split_Set,SpkrID,Gender"]
    lines += [",".join([f"{turn}.wav", *turns[turn]]) for turn in turns]
    table.write_text("\n".join(lines) + "\n")
    paths = [f"Audios/{turn}.wav" for turn in turns]
    stray = "Audios/MSP-PODCAST_test3_0001.wav"
    shadows = [f"Audios/._{turn}.wav" for turn in turns]
    rows, dropped = msp_podcast_prepare._collect(
        folder, [*paths, stray, *shadows], ["Test1"]
    )
    assert {row["ID"]: row for row in rows} == {
        turn: {
            **{"ID": turn, "wav": f"Audios/{turn}.wav", "text": ""},
            **{"label": MSP_CLASSES[emotion], "split": MSP_SPLITS[split]},
            "speaker": "" if speaker == "Unknown" else speaker,
            "gender": "" if gender == "Unknown" else gender.lower(),
        }
        for turn, (emotion, split, speaker, gender) in turns.items()
    }
    assert {path for path, _ in dropped} == {stray, *shadows}


@claim
@given(
    emotion=of([*"ANX"]) | st.text(max_size=2),
    split=of(["Train", "Validation", "Test1", "Test2", "Test3"])
    | st.text(max_size=4),
)
def test_an_unknown_word_in_the_table_is_a_reason(emotion, split):
    found = {"EmoClass": emotion, "Split_Set": split}
    problem = msp_podcast_prepare._problem(found, ["Test1"])
    known = emotion in [*"ASHUFDCNOX"] and split in (
        *("Train", "Development", "Validation", "Test1"),
    )
    assert (problem == "") == known


VIDEOS = st.text("abcXYZ019_-", min_size=1, max_size=11)
MILLISECONDS = st.integers(0, 5_000_000)


@claim
@given(st.tuples(VIDEOS, MILLISECONDS, MILLISECONDS))
def test_an_id_of_cmu_mosei_gives_back_video_and_times(parts):
    video, start, stop = parts
    item = cmu_mosei_prepare._item(video, start / 1000, stop / 1000)
    name, *times = item.rsplit("_", 2)
    assert (name, *map(int, times)) == parts


@claim
@given(st.floats(0.0) | st.just(math.nan), st.floats())
@example(1e306, 2e306)
@example(1e306, -1e306)
def test_damaged_times_make_an_id_and_never_raise(start, stop):
    assert cmu_mosei_prepare._item("video", start, stop).startswith("video_")
    row = cmu_mosei_prepare._times(start, stop)
    problem = row.get("problem") or cmu_mosei_prepare._refuse(row, 10.0)
    assert bool(problem) == (not start < stop <= 10.5)
