"""Emotions that the LLM says with another word are still those emotions."""

from pathlib import Path

import pytest
import torch

from speechbrain_mser.command.main import main as mser
from speechbrain_mser.errors import InputError
from speechbrain_mser.inference import EmotionRecognizer

HPARAMS = Path(__file__).resolve().parents[2] / "hparams"
STAGE1, EVALUATE = HPARAMS / "stage1.yaml", HPARAMS / "evaluate.yaml"
LABELS = ["neutral", "happy", "sad", "angry"]
SAID = ["neutral", "joyful", "sad", "wütend"]


@pytest.fixture
def flags(tiny_flags, tmp_path):
    return {
        **tiny_flags,
        "output_folder": tmp_path / "trained",
        "languages": "[deu]",
        "emotion_words": "{happy: joyful, angry: wütend}",
    }


def test_a_recognizer_answers_with_the_emotions(
    run_script, flags, tiny_corpus, tmp_path
):
    assert run_script("train", STAGE1, flags=flags) == 0
    recognizer = EmotionRecognizer.from_hparams(
        flags["output_folder"] / "recognizer"
    )
    wavs = torch.randn(2, 8000) / 10
    answers, log_probs = recognizer.recognize_batch(wavs)
    assert set(answers) <= set(LABELS)
    # The numbers are those of the words.
    with torch.no_grad():
        tokens, *_ = recognizer.mods.connector(
            *recognizer.mods.encoder(wavs, torch.ones(2))
        )
    llama = recognizer.mods.llm
    assert llama.emotion_words == {"happy": "joyful", "angry": "wütend"}
    llama.emotion_words = {}
    expected = llama.score(tokens, SAID).log_softmax(-1)
    torch.testing.assert_close(log_probs, expected)

    # so evaluation is about emotions
    evaluation = {
        "recognizer": flags["output_folder"] / "recognizer",
        "output_folder": tmp_path / "evaluation",
        "sets": "[tiny]",
        "resamples": 0,
        **{
            name: flags[name]
            for name in ("data_root", "manifest_folder", "skip_prep")
        },
    }
    assert run_script("evaluate", EVALUATE, flags=evaluation) == 0
    text = tmp_path / "evaluation" / "tiny" / "predictions.csv"
    header, *rows = text.read_text(encoding="utf-8").splitlines()
    assert header.split(",") == ["ID", "label", "prediction", *LABELS]
    assert {row.split(",")[2] for row in rows} <= set(LABELS)


def test_training_is_on_the_words(run_script, flags, tmp_path):
    # With a learning rate of zero both trainings end where they began, and
    # what is logged differs by the words alone.
    logs = []
    for words in ("{}", flags["emotion_words"]):
        folder = tmp_path / str(len(logs))
        changed = {"output_folder": folder, "emotion_words": words, "lr": 0.0}
        assert run_script("train", STAGE1, flags={**flags, **changed}) == 0
        line = (folder / "train_log.txt").read_text()
        logs.append(
            dict(part.split(": ") for part in line.split(" - ")[1].split(", "))
        )
    one, other = logs
    assert one["train contrastive"] == other["train contrastive"]
    assert one["train ce"] != other["train ce"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("{hapy: joyful}", "'hapy' is not among label_words, neutral, happy"),
        ("{happy: sad}", "'happy' and 'sad' are both said with 'sad'"),
        ("{happy: ''}", "'happy' is said with '', expected a word"),
        ("{happy: 3}", "'happy' is said with 3, expected a word"),
    ],
)
def test_words_that_cannot_be_are_refused(
    run_script, flags, words, reason, capsys
):
    changed = {**flags, "emotion_words": words}
    assert run_script("train", STAGE1, flags=changed) == 2
    assert reason in capsys.readouterr().err
    assert not flags["output_folder"].exists()


def test_a_training_does_not_go_on_with_other_words(run_script, flags, capsys):
    assert run_script("train", STAGE1, flags=flags) == 0
    changed = {"emotion_words": "{happy: joyful}", "number_of_epochs": 2}
    assert run_script("train", STAGE1, flags={**flags, **changed}) == 2
    assert "holds a training with emotion_words {" in capsys.readouterr().err


def test_two_labels_that_are_said_alike_cannot_be_asked_for(run_script, flags):
    assert run_script("train", STAGE1, flags=flags) == 0
    recognizer = EmotionRecognizer.from_hparams(
        flags["output_folder"] / "recognizer"
    )
    with pytest.raises(InputError, match="'happy' and 'joyful' are both said"):
        recognizer.recognize_batch(
            torch.randn(1, 8000) / 10, labels=["happy", "joyful"]
        )


def test_a_label_without_training_utterances_is_zero_shot(
    run_script, flags, tmp_path
):
    flags |= {"label_words": "[happy, fear, sad]", "emotion_words": "{}"}
    assert run_script("train", STAGE1, flags=flags) == 0
    recognizer = EmotionRecognizer.from_hparams(
        flags["output_folder"] / "recognizer"
    )
    assert recognizer.trained_words() == {"happy", "sad"}


@pytest.fixture
def meaning(run_script, flags):
    """A recogniser's folder that hears the meaning of words never trained."""
    changed = {
        **flags,
        "label_words": "[happy, sad]",
        "emotion_words": "{happy: froh, sad: traurig}",
        "connector_type": "linear",
        "hear_meaning": True,
        "token_mixture": True,
    }
    assert run_script("train", STAGE1, flags=changed) == 0
    return flags["output_folder"] / "recognizer"


@pytest.fixture
def wavs():
    return torch.randn(2, 9000, generator=torch.Generator().manual_seed(1)) / 9


def test_a_word_that_training_had_said_is_its_label(meaning, wavs):
    recognizer = EmotionRecognizer.from_hparams(meaning)
    _, expected = recognizer.recognize_batch(wavs, labels=["sad", "happy"])
    asked = ["Traurig", "froh"]
    words, found = recognizer.recognize_batch(wavs, labels=asked)
    assert torch.equal(found, expected)
    assert {*words} <= {*asked}
    assert recognizer.meant_words([*asked, "bored"]) == {"bored"}
    with pytest.raises(InputError, match="'happy' and 'froh' are both said"):
        recognizer.recognize_batch(wavs, labels=["happy", "froh"])


def test_what_is_asked_for_was_not_trained_for_that(meaning, wavs):
    plain = EmotionRecognizer.from_hparams(meaning)
    asked = ["happy", "bored", "sad"]
    overridden = EmotionRecognizer.from_hparams(
        meaning, overrides={"label_words": asked}
    )
    assert overridden.labels() == asked
    said = {"froh", "traurig"}
    assert overridden.trained_words() == {"happy", "sad", *said}
    assert overridden.meant_words() == {"bored"}
    _, found = overridden.recognize_batch(wavs)
    assert torch.equal(found, plain.recognize_batch(wavs, labels=asked)[1])


def test_another_word_for_a_label_was_never_trained(meaning, wavs):
    other = EmotionRecognizer.from_hparams(
        meaning, overrides={"emotion_words": {"happy": "glad"}}
    )
    # "sad" is said as sad now, and training had it say something else.
    assert other.trained_words() == {"froh", "traurig"}
    assert other.meant_words(["happy", "sad"]) == {"happy", "sad"}
    other = EmotionRecognizer.from_hparams(
        meaning,
        overrides={"emotion_words": {"happy": "glad", "sad": "Traurig"}},
    )
    assert other.trained_words() == {"sad", "froh", "traurig"}


@pytest.mark.parametrize(
    "labels, emotion_words",
    [
        (["glad", "down"], {"glad": "froh", "down": "traurig"}),
        (["froh", "traurig"], {}),
        (["Happy", "SAD"], {"happy": "froh", "sad": "traurig"}),
    ],
)
def test_labels_of_another_name_are_those_that_are_said_alike(
    meaning, wavs, labels, emotion_words
):
    expected = EmotionRecognizer.from_hparams(meaning).recognize_batch(wavs)
    other = EmotionRecognizer.from_hparams(
        meaning,
        overrides={"label_words": labels, "emotion_words": emotion_words},
    )
    assert other.meant_words() == set()
    words, found = other.recognize_batch(wavs)
    assert torch.equal(found, expected[1])
    assert {*words} <= {*labels}


def test_what_was_said_for_a_label_is_found(meaning, tiny_corpus, capsys):
    wav = str(next((tiny_corpus / "corpora").rglob("*.wav")))
    found = []
    for word in ("froh", "happy"):
        command = ["find", word, wav, "--json", "--recognizer", str(meaning)]
        assert mser(command) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1]
    assert '"word": "happy"' in found[0]
