"""The demo's three models: they load, repeat, and know the emotion words."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import (
    AutoFeatureExtractor,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertModel,
    WhisperModel,
)

RECIPES = Path(__file__).parents[2] / "recipes/M5SER"
sys.path.insert(0, str(RECIPES / "experiments"))

from demo_models import LEXICON, build_demo_models, build_llama  # noqa: E402

from speechbrain_mser.emotions import CANONICAL, FURTHER  # noqa: E402

STEPS = 70  # of the 150 of the demo: enough for the seven words
PROMPT = "What is the emotion of the speaker? Answer with one word:"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return build_demo_models(tmp_path_factory.mktemp("demo"), llama_steps=STEPS)


@pytest.fixture(scope="module")
def tokenizer(folders):
    return AutoTokenizer.from_pretrained(folders["llama"])


@pytest.fixture(scope="module")
def llama(folders):
    return AutoModelForCausalLM.from_pretrained(folders["llama"]).eval()


@pytest.fixture(scope="module")
def lexicon():
    return yaml.safe_load(LEXICON.read_text(encoding="utf-8"))


def ids_of(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


def test_whisper_hears_prosody(folders):
    """A louder and a higher tone both change the encoder's output."""
    whisper = WhisperModel.from_pretrained(folders["whisper"]).eval()
    mels = AutoFeatureExtractor.from_pretrained(folders["whisper"])

    def encode(hertz, amplitude):
        wav = amplitude * torch.sin(torch.arange(16000) * hertz / 16000 * 6.283)
        mel = mels(wav.numpy(), sampling_rate=16000, return_tensors="pt")
        with torch.no_grad():
            return whisper.encoder(mel.input_features).last_hidden_state[0, :40]

    tone = encode(150, 0.1)
    assert tone.shape == (40, whisper.config.d_model)
    for other in (encode(150, 0.3), encode(250, 0.1)):
        change = (other - tone).norm() / tone.norm()
        assert change > 0.1


def test_bert_loads_whole(folders):
    _, report = BertModel.from_pretrained(
        folders["bert"], add_pooling_layer=False, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]


def test_each_emotion_word_is_one_token(tokenizer):
    ids = [ids_of(tokenizer, f" {word}") for word in CANONICAL]
    assert all(len(tokens) == 1 for tokens in ids)
    assert len({tokens[0] for tokens in ids}) == len(CANONICAL)


def test_longer_words_are_several_tokens(tokenizer):
    for word in ("enthusiasm", "frustrated"):
        assert len(ids_of(tokenizer, f" {word}")) > 1


def test_the_tokenizer_is_small_and_loses_nothing(tokenizer):
    assert len(tokenizer) <= 2000
    text = "Ärger? 高兴, неожиданно!"
    assert tokenizer.decode(ids_of(tokenizer, text)) == text


def test_bos_is_added_only_when_asked_for(tokenizer):
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert bos is not None and eos is not None and bos != eos
    plain = ids_of(tokenizer, " happy")
    assert bos not in plain
    assert tokenizer.encode(" happy") == [bos, *plain]


def test_a_word_is_the_same_token_after_the_prompt(tokenizer):
    prompt = ids_of(tokenizer, PROMPT)
    for word in CANONICAL:
        whole = ids_of(tokenizer, f"{PROMPT} {word}")
        assert whole == prompt + ids_of(tokenizer, f" {word}")


def test_descriptions_are_answered_with_their_emotion(
    tokenizer, llama, lexicon
):
    """``bos, description, prompt`` -> the word, then eos."""
    words = [ids_of(tokenizer, f" {word}")[0] for word in CANONICAL]
    right = []
    for emotion in CANONICAL:
        voice = lexicon["emotions"][emotion]["voice"]
        for first in range(0, len(voice), 4):
            text = "".join(f" {word}" for word in voice[first : first + 4])
            ids = [tokenizer.bos_token_id, *ids_of(tokenizer, text)]
            ids += ids_of(tokenizer, PROMPT)
            with torch.no_grad():
                logits = llama(torch.tensor([ids])).logits[0, -1]
            right.append(logits[words].argmax() == CANONICAL.index(emotion))
    assert sum(right) >= 0.9 * len(right)


def test_the_answer_ends_after_the_word(tokenizer, llama):
    ids = [
        tokenizer.bos_token_id,
        *ids_of(tokenizer, " weeping quiet dull heavy"),
        *ids_of(tokenizer, f"{PROMPT} sad"),
    ]
    with torch.no_grad():
        logits = llama(torch.tensor([ids])).logits[0, -1]
    assert logits.argmax() == tokenizer.eos_token_id


def test_the_lexicon_knows_all_words_of_the_vocabulary(lexicon):
    assert tuple(lexicon["emotions"]) == (*CANONICAL, *FURTHER)
    assert lexicon["prompts"][0] == PROMPT


def test_no_voice_word_describes_two_emotions(lexicon):
    voices = [
        w for entry in lexicon["emotions"].values() for w in entry["voice"]
    ]
    assert len(set(voices)) == len(voices)


def test_the_same_seed_gives_the_same_models(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        build_llama(tmp_path / name, seed=seed, steps=2)
    a, b, c = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in "abc"
    )
    assert a == b != c


def test_a_second_build_does_nothing(folders):
    def times():
        files = [p for f in folders.values() for p in f.iterdir()]
        return {p: p.stat().st_mtime_ns for p in files}

    before = times()
    again = build_demo_models(folders["llama"].parent, llama_steps=STEPS)
    assert again == folders
    assert times() == before


def test_another_seed_builds_anew(tmp_path):
    build_demo_models(tmp_path, seed=1, llama_steps=1)
    before = (tmp_path / "bert/model.safetensors").read_bytes()
    build_demo_models(tmp_path, seed=2, llama_steps=1)
    assert (tmp_path / "bert/model.safetensors").read_bytes() != before
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "bert",
        "llama",
        "whisper",
    ]
