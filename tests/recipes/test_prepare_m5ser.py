"""What `m5ser_prepare.py` makes of translations and their sources."""

import json
from functools import partial

import miniature
import pytest
from m5ser_prepare import prepare_m5ser
from miniature import read_csv, read_dropped, refused, run
from synthesized import synthesize

from speechbrain_mser.dataio.manifest import (
    read_manifest,
    write_manifest,
)
from speechbrain_mser.errors import InputError

write_noise = partial(
    miniature.write_noise, seconds=1.0, rate=24000, subtype="FLOAT"
)

HAPPY = "iemocap_Ses01F_impro01_F000"
ANGRY = "iemocap_Ses05M_script01_1b_M003"
XXX = "iemocap_Ses02F_impro02_M001"
SAD = "meld_train_dia0_utt0"
TEST = "meld_test_dia0_utt0"
MEAD = "mead_M003_fear_level_1_001"


def source(corpus, item, split, speaker, gender, emotion, label):
    return {
        "ID": item,
        "duration": 2.0,
        "wav": f"$data_root/{item}.wav",
        "corpus": corpus,
        "split": split,
        "language": "eng",
        "speaker": speaker,
        "gender": gender,
        "emotion": emotion,
        "label": label,
        "text": "Excuse me.",
    }


@pytest.fixture
def out(tmp_path):
    """The save folder, with the manifests of three sources."""
    tables = {
        "iemocap": [
            (HAPPY, "train", "1F", "female", "excited", "exc"),
            (ANGRY, "test", "5M", "male", "angry", "ang"),
            (XXX, "train", "2M", "male", "", "xxx"),
        ],
        "meld": [
            (SAD, "train", "Joey", "", "sad", "sadness"),
            (TEST, "test", "", "", "sad", "sadness"),
        ],
        "mead": [(MEAD, "valid", "M003", "male", "fear", "fear")],
    }
    for corpus, rows in tables.items():
        write_manifest(
            tmp_path / f"out/{corpus}.csv",
            [source(corpus, *row) for row in rows],
        )
    return tmp_path / "out"


@pytest.fixture
def release(tmp_path):
    """Translations of six utterances."""
    root = tmp_path / "M5SER"
    for name in (
        *(f"fra/iemocap/{HAPPY}", f"cmn/iemocap/{HAPPY}"),
        *(f"deu/iemocap/{ANGRY}", f"spa/iemocap/{XXX}"),
        # Without the leading corpus
        *("ita/meld/train_dia0_utt0", f"fra/meld/{TEST}", f"spa/mead/{MEAD}"),
    ):
        write_noise(root / f"{name}.wav")
    (root / "plan.jsonl").write_text("{}\n")
    return root


def test_labels_speakers_and_splits_are_the_sources(release, out):
    table = read_manifest(prepare_m5ser(release, out), release)
    columns = ["ID", "split", "language", "speaker", "gender", "emotion"]
    assert table[[*columns, "label"]].values.tolist() == [
        [f"m5ser_cmn_{HAPPY}", "train", "cmn", *FEMALE, "excited", "exc"],
        [f"m5ser_deu_{ANGRY}", "test", "deu", *MALE, "angry", "ang"],
        [f"m5ser_fra_{HAPPY}", "train", "fra", *FEMALE, "excited", "exc"],
        [f"m5ser_fra_{TEST}", "test", "fra", "", "", "sad", "sadness"],
        [f"m5ser_ita_{SAD}", "train", "ita", *JOEY, "sad", "sadness"],
        [f"m5ser_spa_{XXX}", "train", "spa", "iemocap_2M", "male", "", "xxx"],
        [
            *(f"m5ser_spa_{MEAD}", "valid", "spa", "mead_M003", "male"),
            *("fear", "fear"),
        ],
    ]


FEMALE = ["iemocap_1F", "female"]
MALE = ["iemocap_5M", "male"]
JOEY = ["meld_Joey", ""]


def test_a_row_is_complete_and_has_no_english_text(release, out):
    assert read_csv(prepare_m5ser(release, out))[1] == [
        *(f"m5ser_cmn_{HAPPY}", "1.0"),
        f"$data_root/cmn/iemocap/{HAPPY}.wav",
        *("", "", "m5ser", "train", "cmn", "iemocap_1F", "female"),
        *("excited", "exc", ""),
    ]
    assert read_dropped(out) == {}


def test_a_source_that_is_held_out_is_held_out_in_every_language(out, tmp_path):
    root = tmp_path / "M5SER"
    for language in ("fra", "deu", "ita", "cmn", "spa"):
        write_noise(root / f"{language}/meld/{TEST}.wav")
    table = read_manifest(prepare_m5ser(root, out))
    assert set(table.split) == {"test"} and len(table) == 5


def test_other_splits_of_a_source_are_taken_over_at_the_next_run(
    release, out, capsys
):
    prepare_m5ser(release, out)
    path = out / "meld.csv"
    path.write_text(path.read_text().replace("train,eng", "valid,eng"))
    table = read_manifest(prepare_m5ser(release, out)).set_index("ID")
    assert table.split[f"m5ser_ita_{SAD}"] == "valid"
    capsys.readouterr()
    prepare_m5ser(release, out)
    assert "nothing to do" in capsys.readouterr().out


def test_filters_are_by_duration_and_by_reference_size(release, out, capsys):
    # 96 bytes per millisecond: 50 KB are 0.521 s, 20 KB are 0.208 s
    write_noise(release / f"fra/mead/{MEAD}.wav", seconds=0.51)
    write_noise(release / f"fra/iemocap/{HAPPY}.wav", seconds=0.51)
    write_noise(release / f"ita/meld/{SAD}.wav", seconds=0.5)
    write_noise(release / f"deu/meld/{SAD}.wav", seconds=0.499)
    write_noise(release / f"cmn/meld/{SAD}.wav", seconds=0.2)
    (release / "ita/meld/train_dia0_utt0.wav").unlink()
    table = read_manifest(prepare_m5ser(release, out))
    assert read_dropped(out) == {
        f"fra/mead/{MEAD}.wav": "too small: 49.0 KB of 50 KB",
        f"deu/meld/{SAD}.wav": "too short: 0.499 s of 0.5 s",
        f"cmn/meld/{SAD}.wav": "too short and too small: 0.200 s of 0.5 s, "
        "19.2 KB of 20 KB",
    }
    assert {f"m5ser_fra_{HAPPY}", f"m5ser_ita_{SAD}"} <= set(table.ID)
    # How many each filter drops alone, and how many both
    printed = capsys.readouterr().out
    for number in ("too short 1", "too small 1", "too short and too small 1"):
        assert number in printed


def test_how_a_file_is_stored_does_not_change_its_size(release, out):
    for path in release.rglob("*.wav"):
        path.unlink()
        flac = path.with_suffix(".flac")
        write_noise(flac, seconds=0.6, rate=16000, subtype="PCM_16")
    assert len(read_manifest(prepare_m5ser(release, out))) == 7


def test_another_reference_encoding_drops_more(release, out):
    sixteen_bit = {"reference_rate": 16000, "reference_bytes": 2}
    table = read_manifest(prepare_m5ser(release, out, **sixteen_bit))
    assert read_dropped(out) == {
        f"spa/mead/{MEAD}.wav": "too small: 32.0 KB of 50 KB"
    }
    assert len(table) == 6
    # 48 KB are 47 KB of 1024 bytes
    with pytest.raises(InputError, match="too small 7"):
        prepare_m5ser(
            *(release, out),
            reference_bytes=2,
            min_kilobytes=47,
            min_kilobytes_of=[],
            kilobyte=1024,
        )


def test_without_filters_everything_is_kept(release, out):
    write_noise(release / f"fra/mead/{MEAD}.wav", seconds=0.15)
    table = read_manifest(
        prepare_m5ser(release, out, min_seconds=0, min_kilobytes=0)
    )
    assert len(table) == 8


def test_what_has_no_source_or_no_place_is_dropped(release, out):
    write_noise(release / "fra/iemocap/Ses09F_impro01_F000.wav")
    write_noise(release / f"eng/iemocap/{HAPPY}.wav")
    write_noise(release / f"jpn/other/{HAPPY}.wav")
    write_noise(release / f"fra/{HAPPY}.wav")
    write_noise(release / f"{HAPPY}.wav")
    write_noise(
        release / "fra/iemocap/Ses01F_impro01_F000.flac", subtype="PCM_16"
    )
    (release / f"ita/mead/{MEAD}.wav").parent.mkdir()
    (release / f"ita/mead/{MEAD}.wav").touch()
    prepare_m5ser(release, out)
    misplaced = "misplaced: not like fra/iemocap/ID.wav"
    assert read_dropped(out) == {
        "fra/iemocap/Ses09F_impro01_F000.wav": "no source: not in iemocap.csv",
        f"eng/iemocap/{HAPPY}.wav": "language: eng is none of M5SER's",
        f"jpn/other/{HAPPY}.wav": "language: jpn is none of M5SER's",
        f"fra/{HAPPY}.wav": misplaced,
        f"{HAPPY}.wav": misplaced,
        f"fra/iemocap/{HAPPY}.wav": "duplicate: has the name of "
        "fra/iemocap/Ses01F_impro01_F000.flac",
        f"ita/mead/{MEAD}.wav": "empty: 0 bytes",
    }


# What each filter drops, by itself


def test_the_toll_of_each_filter_is_written(release, out, capsys):
    write_noise(release / f"fra/mead/{MEAD}.wav", seconds=0.51)
    write_noise(release / f"deu/meld/{SAD}.wav", seconds=0.499)
    write_noise(release / f"cmn/meld/{SAD}.wav", seconds=0.2)
    prepare_m5ser(release, out)
    facts = json.loads((out / "m5ser_filters.json").read_text())
    assert facts["min_kilobytes_of"] == {"iemocap": 20.0, "meld": 20.0}
    numbers = ("translations", "too short", "too small", "both", "either")
    toll = {
        (row["corpus"], row["language"]): [row[name] for name in numbers]
        for row in facts["toll"]
    }
    assert toll["mead", "fra"] == [1, 0, 1, 0, 1]
    assert toll["meld", "deu"] == [1, 1, 0, 0, 1]
    assert toll["meld", "cmn"] == [1, 1, 1, 1, 1]
    assert toll["all", ""] == [10, 2, 2, 1, 3]
    # Also where there is nothing to do again
    (out / "m5ser_filters.json").unlink()
    capsys.readouterr()
    prepare_m5ser(release, out)
    printed = capsys.readouterr().out
    assert "nothing to do" in printed and "| mead    | fra " in printed
    assert json.loads((out / "m5ser_filters.json").read_text()) == facts


def test_scores_drop_only_where_it_is_asked_for(release, out, tmp_path):
    path = tmp_path / "scores.csv"
    lines = [
        f"{wav.relative_to(release)},{0.9 if 'cmn' in str(wav) else 0.1}\n"
        for wav in release.rglob("*.wav")
        if "spa" not in str(wav)
    ]
    path.write_text("audio,cer\n" + "".join(lines))
    assert len(read_manifest(prepare_m5ser(release, out))) == 7
    kept = prepare_m5ser(release, out, scores=path, keep_if=["cer<=0.5"])
    assert set(read_manifest(kept).language) == {"deu", "fra", "ita"}
    assert read_dropped(out) == {
        f"cmn/iemocap/{HAPPY}.wav": "score: cer is 0.9, at most 0.5 is asked "
        "for",
        f"spa/iemocap/{XXX}.wav": "score: no cer",
        f"spa/mead/{MEAD}.wav": "score: no cer",
    }
    # They are no toll of the paper's rules
    toll = json.loads((out / "m5ser_filters.json").read_text())["toll"]
    assert (toll[-1]["translations"], toll[-1]["either"]) == (7, 0)


# A folder that synthesize.py made


def test_the_text_is_the_translations(tmp_path):
    synthesize(tmp_path)
    folder = tmp_path / "m5ser"
    manifest = prepare_m5ser(folder, tmp_path / "manifests")
    table = read_manifest(manifest, folder).set_index("ID")
    # Without the sign that SpeechBrain would replace
    assert table.text["m5ser_fra_tones_03"] == "fra: Tone 3 costs 5"
    # 24 sources: one fails, one is too long, one too short
    assert sorted(table.groupby("language").size().items()) == [
        ("deu", 21),
        ("fra", 21),
    ]
    assert set(read_dropped(tmp_path / "manifests")) == {
        "deu/tones/tones_07.flac",
        "fra/tones/tones_07.flac",
    }


def test_what_was_made_may_be_in_any_language(tmp_path):
    synthesize(tmp_path, most=4, languages=("jpn",))
    folder, out = tmp_path / "m5ser", tmp_path / "manifests"
    write_noise(folder / "fra/tones/tones_02.wav")
    assert set(read_manifest(prepare_m5ser(folder, out)).language) == {"jpn"}
    assert "language: fra is none of M5SER's" in read_dropped(out).values()


def test_a_file_of_no_finished_shard_is_reported_and_not_used(tmp_path):
    synthesize(tmp_path)
    folder, out = tmp_path / "m5ser", tmp_path / "manifests"
    write_noise(folder / "fra/tones/tones_05_cannot.wav")
    first = folder / "shards/deu-00000.csv"
    lost = [row[3] for row in read_csv(first)[1:] if row[3]]
    first.write_text(first.read_text().replace("Tone", "Tune"))
    table = read_manifest(prepare_m5ser(folder, out), folder)
    reason = "no receipt: in no finished shard"
    dropped = read_dropped(out)
    assert {item for item, why in dropped.items() if why == reason} == {
        *lost,
        "fra/tones/tones_05_cannot.wav",
    }
    assert len(lost) > 1 and len(table) == 42 - len(lost)


# Bad input


def test_a_source_without_a_manifest_ends_with_what_to_do(release, out):
    (out / "mead.csv").unlink()
    message = refused("m5ser", release, out)
    assert f"{out / 'mead.csv'}: the manifest of mead" in message
    assert "prepare mead first" in message
    assert not (out / "m5ser.csv").exists()


def test_sources_may_lie_elsewhere(release, out, tmp_path):
    manifest = tmp_path / "new/m5ser.csv"
    # With an emotion that only they have
    source = out / "mead.csv"
    (out / "emotions.txt").write_text("stressed\n")
    text = source.read_text()
    source.write_text(text.replace(",fear,fear,", ",stressed,fear,"))
    result = run(
        *("m5ser", release, manifest.parent),
        *("--source_folder", out, "--min_kilobytes_of", "meld=200"),
    )
    assert result.returncode == 0, result.stderr
    table = read_manifest(manifest, release)
    assert len(table) == 5
    assert "stressed" in set(table.emotion)


def test_a_broken_source_manifest_is_named(release, out):
    (out / "mead.csv").write_text("ID,durat")
    with pytest.raises(InputError, match=r"mead\.csv: column duration"):
        prepare_m5ser(release, out)
    assert not (out / "m5ser.csv").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"min_kilobytes_of": ["meld"]}, "'meld' is not of the form meld=20"),
        (
            {"min_kilobytes_of": ["meld=-1"]},
            "meld is -1; it must be 0 or above",
        ),
        ({"min_seconds": float("nan")}, "min_seconds is nan; it must be 0 or"),
        ({"reference_rate": 0}, "reference_rate is 0; it must be above 0"),
        ({"keep_if": ["cer<=1"]}, "scores and keep_if belong together"),
        ({"scores": "scores.csv"}, "scores and keep_if belong together"),
    ],
)
def test_settings_that_cannot_be_used_are_named(release, out, options, message):
    with pytest.raises(InputError, match=message):
        prepare_m5ser(release, out, **options)


def test_a_folder_inside_ends_with_the_right_one(release, out):
    message = refused("m5ser", release / "fra", out)
    assert f"give {release}" in message
    assert not (out / "m5ser.csv").exists()
