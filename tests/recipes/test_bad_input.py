"""What a user can get wrong ends with a message, exit code 2, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from speechbrain_mser.dataio.manifest import COLUMNS

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes" / "M5SER"
STAGE1 = ROOT / "hparams" / "stage1.yaml"


@pytest.fixture
def corpus(tiny_corpus, tmp_path):
    """A copy of the tiny corpus to break; its flags."""
    import shutil

    shutil.copytree(tiny_corpus, tmp_path / "data")
    data = tmp_path / "data"
    return {
        "data_root": data / "corpora",
        "manifest_folder": data / "manifests",
        "output_folder": tmp_path / "out",
    }


@pytest.fixture
def refuse(run_script, tiny_flags, corpus, capsys):
    """Train with some flags changed; the message that it ends with."""

    def run(**changed):
        flags = {**tiny_flags, **corpus, **changed}
        flags = {name: value for name, value in flags.items() if value != ""}
        assert run_script("train", STAGE1, flags=flags) == 2
        assert not Path(corpus["output_folder"]).exists()
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ")
        return error

    return run


def edit_manifest(corpus, change):
    path = corpus["manifest_folder"] / "tiny.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(change(lines)) + "\n", encoding="utf-8")


def test_missing_data_root_must_be_given(refuse):
    message = refuse(data_root="")
    assert "data_root must be given" in message


def test_wrong_data_root(refuse):
    assert "/no/where is not a folder" in refuse(data_root="/no/where")


def test_corpus_folder_that_is_not_there(refuse):
    message = refuse(corpora="[ravdess]", skip_prep=False)
    assert "RAVDESS" in message and "--corpus_folders" in message


def test_option_that_a_corpus_does_not_have(refuse, corpus):
    (corpus["data_root"] / "RAVDESS").mkdir()
    message = refuse(
        corpora="[ravdess]",
        skip_prep=False,
        corpus_options="{ravdess: {test_session: 1}}",
    )
    assert "no option test_session" in message and "valid_speakers" in message


def test_corpus_without_a_script_or_manifest(refuse):
    assert "no preparation script for tiny" in refuse(skip_prep=False)
    assert "no such manifest" in refuse(corpora="[nothing]")


def test_corpus_that_is_made_and_not_read(refuse, corpus):
    (corpus["data_root"] / "espeak").mkdir()
    script = RECIPES / "experiments" / "espeak_prepare.py"
    message = refuse(
        corpora="[espeak]",
        skip_prep=False,
        corpus_options=f"{{espeak: {{script: {script}}}}}",
    )
    assert "run it by itself" in message and "skip_prep" in message


def test_manifest_without_a_column(refuse, corpus):
    column = COLUMNS.index("emotion")
    edit_manifest(
        corpus,
        lambda lines: [
            ",".join(f for i, f in enumerate(line.split(",")) if i != column)
            for line in lines
        ],
    )
    message = refuse()
    assert "tiny.csv" in message and "emotion" in message


def test_manifest_with_an_unknown_emotion(refuse, corpus):
    edit_manifest(
        corpus,
        lambda lines: [
            *lines[:2],
            lines[2].replace(",happy,", ",hapy,"),
            *lines[3:],
        ],
    )
    edit_manifest(
        corpus,
        lambda lines: [line.replace(",angry,", ",angrry,") for line in lines],
    )
    message = refuse()
    assert "angrry" in message and "did you mean 'angry'" in message


def test_manifest_with_an_id_twice(refuse, corpus):
    edit_manifest(corpus, lambda lines: [*lines, lines[1]])
    assert "tiny_eng_1_neutral" in refuse()


def test_manifest_with_a_file_that_is_not_there(refuse, corpus):
    (corpus["data_root"] / "tiny" / "tiny_eng_1_sad.wav").unlink()
    message = refuse()
    assert "1 of 40 audio files" in message and "tiny_eng_1_sad" in message


def test_no_utterance_of_the_languages(refuse):
    message = refuse(languages="[xxx]")
    assert "xxx" in message and "deu, eng" in message


def test_unknown_setting_gets_the_nearest_names(refuse):
    message = refuse(label_word="[happy]")
    assert "no setting 'label_word'; did you mean label_words" in message


def test_repeated_labels(refuse):
    assert "twice" in refuse(label_words="[happy, happy]")


def test_labels_that_are_empty(refuse):
    assert "no labels" in refuse(label_words="[]")


def test_hub_name_without_a_network_names_file_and_setting(refuse):
    message = refuse(whisper_hub="openai/whisper-large-v3")
    assert (
        "config.json" in message and "point whisper_hub to a folder" in message
    )


def test_folder_without_a_model(refuse, tmp_path):
    (tmp_path / "hollow").mkdir()
    message = refuse(llama_hub=tmp_path / "hollow")
    assert "llama_hub" in message and "config.json" in message


def test_read_only_output_folder(refuse, tmp_path, corpus):
    if os.geteuid() == 0:
        # Nothing is read-only for root; a file in the way stops even root.
        (tmp_path / "file").write_text("in the way")
        assert "file" in refuse(output_folder=tmp_path / "file" / "out")
    else:
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "locked" in refuse(output_folder=tmp_path / "locked" / "out")


def break_file(corpus, name):
    path = corpus["data_root"] / "tiny" / f"{name}.wav"
    signal, rate = soundfile.read(path)
    soundfile.write(path, 0 * signal, rate)


def test_bad_utterance_in_training_is_skipped_and_counted(
    run_script, tiny_flags, corpus
):
    break_file(corpus, "tiny_eng_2_happy")
    break_file(corpus, "tiny_eng_4_sad")
    flags = {**tiny_flags, **corpus, "number_of_epochs": 2}
    assert run_script("train", STAGE1, flags=flags) == 0
    log = (corpus["output_folder"] / "log.txt").read_text().splitlines()
    reported = [line for line in log if "left out" in line]
    assert len(reported) == 2  # once each, not in every epoch
    assert "tiny_eng_2_happy" in reported[0] + reported[1]
    assert "zero" in reported[0]
    log = (corpus["output_folder"] / "train_log.txt").read_text()
    assert log.splitlines()[-1].count("bad_utterances: 2") == 1


def test_bad_utterance_in_training_stops_it_when_asked(
    run_script, tiny_flags, corpus, capsys
):
    break_file(corpus, "tiny_eng_2_happy")
    flags = {**tiny_flags, **corpus, "on_bad_utterance": "stop"}
    assert run_script("train", STAGE1, flags=flags) == 2
    assert "tiny_eng_2_happy" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["train", "evaluate"])
def test_no_traceback_from_a_real_process(script):
    yaml = {"train": "stage1", "evaluate": "evaluate"}[script]
    run = subprocess.run(
        [
            sys.executable,
            f"{script}.py",
            f"hparams/{yaml}.yaml",
            "--data_root=/no/where",
            *(["--recognizer=/no/where"] if script == "evaluate" else []),
        ],
        cwd=RECIPES,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "/no/where" in run.stderr
    assert "Traceback" not in run.stderr


def test_evaluate_with_a_wrong_recognizer(run_script, tiny_corpus, capsys):
    flags = {
        "recognizer": "/no/where",
        "data_root": tiny_corpus / "corpora",
        "manifest_folder": tiny_corpus / "manifests",
        "skip_prep": True,
        "sets": "[{name: tiny, corpus: tiny, labels: paper4}]",
    }
    yaml = ROOT / "hparams" / "evaluate.yaml"
    assert run_script("evaluate", yaml, flags=flags) == 2
    assert "/no/where" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        ("[{corpus: tiny, labels: paper4}]", "needs name and labels"),
        ("[{name: a, corpus: tiny, labels: paper9}]", "paper9"),
        ("[{name: a, corpus: tiny, labels: paper4, split: dev}]", "dev"),
        ("[{name: a, corpus: tiny, labels: [calm]}]", "calm"),
        ("[{name: ../a, corpus: tiny, labels: paper4}]", "../a"),
        ("[{name: a, labels: paper4}]", "corpus"),
        ("[{name: .., corpus: tiny, labels: paper4}]", ".."),
        ("{name: a, corpus: tiny, labels: paper4}", "mapping"),
        ("[tinny]", "a set is described as"),
        ("[]", "nothing to evaluate"),
        (
            "[{name: a, corpus: tiny, labels: paper4, languages: xxx}]",
            "language xxx",
        ),
        (
            "[{name: a, corpus: tiny, labels: paper4}, "
            "{name: a, corpus: tiny, labels: paper7}]",
            "twice",
        ),
    ],
)
def test_bad_sets(run_script, tiny_corpus, capsys, sets, reason):
    flags = {
        "recognizer": "/no/where",
        "data_root": tiny_corpus / "corpora",
        "manifest_folder": tiny_corpus / "manifests",
        "skip_prep": True,
        "sets": sets,
    }
    yaml = ROOT / "hparams" / "evaluate.yaml"
    assert run_script("evaluate", yaml, flags=flags) == 2
    assert reason in capsys.readouterr().err


def test_one_name_stands_for_a_list_of_one(run_script, tiny_flags, corpus):
    flags = {
        **tiny_flags,
        **corpus,
        "corpora": "tiny",
        "languages": "eng",
        "label_words": "paper4",
    }
    assert run_script("train", STAGE1, flags=flags) == 0
    assert (corpus["output_folder"] / "recognizer").is_dir()


@pytest.mark.parametrize("broken", ["connector", "optimizer", "random_state"])
def test_resuming_from_a_broken_checkpoint(
    run_script, tiny_flags, corpus, capsys, broken
):
    flags = {**tiny_flags, **corpus}
    assert run_script("train", STAGE1, flags=flags) == 0
    (path,) = (corpus["output_folder"] / "save").glob(f"CKPT*/{broken}.ckpt")
    path.write_bytes(path.read_bytes()[:10])
    flags["number_of_epochs"] = 2
    assert run_script("train", STAGE1, flags=flags) == 2
    message = capsys.readouterr().err
    assert str(path.parent) in message and path.name in message
    assert "delete" in message


@pytest.mark.parametrize("setting", ["n_queries", "lora_rank"])
def test_resuming_with_another_model(
    run_script, tiny_flags, corpus, capsys, setting
):
    if setting == "lora_rank":
        pytest.importorskip("peft")
    flags = {**tiny_flags, **corpus}
    assert run_script("train", STAGE1, flags=flags) == 0
    assert run_script("train", STAGE1, flags={**flags, setting: 2}) == 2
    message = capsys.readouterr().err
    assert "give another" in message and "output_folder" in message


def test_corpus_options_reach_the_preparation_script(
    run_script, tiny_flags, corpus, tmp_path
):
    audio = corpus["data_root"] / "EmoDB" / "wav"
    audio.mkdir(parents=True)
    source = corpus["data_root"] / "tiny" / "tiny_eng_1_sad.wav"
    for name in ("03a01Ta", "08a01Wa", "03a02Wa", "08a02Ta"):
        (audio / f"{name}.wav").write_bytes(source.read_bytes())
    flags = {
        **tiny_flags,
        **corpus,
        "corpora": "emodb",
        "languages": "deu",
        "skip_prep": False,
        "corpus_options": "{emodb: {valid_speakers: ['08']}}",
    }
    assert run_script("train", STAGE1, flags=flags) == 0
    manifest = (corpus["manifest_folder"] / "emodb.csv").read_text()
    assert "emodb,valid,deu,08" in manifest and "emodb,train,deu,03" in manifest
