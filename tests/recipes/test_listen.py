"""A recogniser listens to a microphone: adds, saves, forgets, and no more."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from trained import train_recognizer

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.fingerprints import weights_digest
from speechbrain_mser.inference import EmotionRecognizer, HeardSpeech

ROOT = Path(__file__).resolve().parents[2]
RATE = 16000


@pytest.fixture(scope="module")
def loaded(folder):
    return EmotionRecognizer.from_hparams(folder)


@pytest.fixture
def recognizer(loaded):
    loaded.forget()
    return loaded


@pytest.fixture
def files(tiny_corpus):
    """Utterances of the tiny corpus, of one length each."""
    return sorted((tiny_corpus / "corpora" / "tiny").glob("*.wav"))[:5]


def signals(n):
    """Utterances from a loud, humming room."""
    hum = 0.2 * torch.sin(torch.arange(RATE) * 2 * torch.pi * 50 / RATE)
    return [hum + 0.1 * torch.randn(RATE) for _ in range(n)]


def test_after_listening_all_that_is_recognised_is_moved(recognizer, files):
    room = signals(4)
    wav = room[-1][None]
    plain = recognizer.recognize_batch(wav)[1]
    embedding = recognizer.encode_batch(wav)
    heard = recognizer.listen(room[:3])
    assert heard.utterances == 3 and heard is recognizer.heard
    # By formula, of every frame that was heard
    common = recognizer.mods.connector.standardizer
    encode = recognizer.mods.encoder
    frames = torch.cat([encode(one[None])[0][0] for one in room[:3]])
    mean = (3 * frames.mean(0) + 3 * common.mean) / 6
    variance = 3 * frames.var(0, correction=0) + 6 * common.std**2
    std = (variance / 9).sqrt()
    features, lens = encode(wav)
    moved = (features - mean) / std * common.std + common.mean
    after = recognizer.recognize_batch(wav)[1]
    assert not torch.allclose(after, plain, atol=1e-4)
    assert not torch.allclose(recognizer.encode_batch(wav), embedding)
    of_file = recognizer.recognize_file(files[0])[1]
    recognizer.forget()
    expected = recognizer.recognize_features(moved, lens)[1]
    torch.testing.assert_close(after, expected, atol=1e-4, rtol=0)
    assert not torch.equal(recognizer.recognize_file(files[0])[1], of_file)


def test_nothing_but_listening_changes_an_answer(recognizer):
    *room, wav = signals(4)
    weights = weights_digest(recognizer.mods)
    plain = recognizer.recognize_batch(wav[None])[1]
    recognizer.listen(room)
    after = recognizer.recognize_batch(wav[None])[1]
    # Recognising is not listening
    recognizer.recognize_batch(torch.stack(room))
    assert torch.equal(recognizer.recognize_batch(wav[None])[1], after)
    assert recognizer.heard.utterances == 3
    recognizer.forget()
    assert torch.equal(recognizer.recognize_batch(wav[None])[1], plain)
    recognizer.adapt(HeardSpeech())  # nothing is nothing, to the last bit
    assert torch.equal(recognizer.recognize_batch(wav[None])[1], plain)
    assert weights_digest(recognizer.mods) == weights


def test_listening_again_adds(recognizer):
    room = signals(5)
    first = recognizer.listen(room[0])
    recognizer.listen(room[1:3])
    piecewise = recognizer.listen(room[3:])
    assert (first.utterances, piecewise.utterances) == (1, 5)
    recognizer.forget()
    whole = recognizer.listen(room)
    torch.testing.assert_close(piecewise.mean, whole.mean)
    torch.testing.assert_close(piecewise.variance, whole.variance)


def test_listening_on_keeps_what_the_training_counts_for(recognizer):
    *room, wav = signals(4)
    heard = recognizer.listen(room)
    recognizer.adapt(heard, kappa_mean=0, kappa_variance=0)
    expected = recognizer.recognize_batch(wav[None])[1]
    recognizer.forget()
    recognizer.adapt(HeardSpeech(), kappa_mean=0, kappa_variance=0)
    recognizer.listen(room)
    assert torch.equal(recognizer.recognize_batch(wav[None])[1], expected)
    assert torch.equal(recognizer.adaptation.own.mean, heard.mean.float())
    # Adapting anew says it anew, and forgetting forgets that, too.
    recognizer.adapt(heard)
    by_default = recognizer.recognize_batch(wav[None])[1]
    assert not torch.equal(by_default, expected)
    recognizer.adapt(heard, 0, 0)
    recognizer.forget()
    recognizer.listen(room)
    assert torch.equal(recognizer.recognize_batch(wav[None])[1], by_default)


def test_recordings_may_be_files_tensors_or_arrays(recognizer, files, tmp_path):
    signal = recognizer.load_audio(files[0])
    soundfile.write(tmp_path / "stereo.wav", np.zeros((9, 2)), RATE)
    kinds = [
        files[0],
        str(files[0]),
        signal,
        signal.double(),
        signal.numpy(),
        signal.numpy().astype(">f8"),  # of another machine
        signal.flip(0).numpy()[::-1],
    ]
    means = []
    for recording in kinds:
        recognizer.forget()
        means.append(recognizer.listen(recording).mean)
    for mean in means:
        torch.testing.assert_close(mean, means[0])
    recognizer.forget()
    assert recognizer.listen(kinds).utterances == len(kinds)


def test_bad_recordings_are_named_and_left_out(
    recognizer, files, tmp_path, caplog
):
    text = tmp_path / "text.wav"
    text.write_text("no audio")
    bad = [
        text,
        tmp_path / "missing.wav",
        torch.zeros(RATE),
        torch.full((RATE,), torch.nan),
        torch.randn(2, RATE),
        np.ones(RATE, dtype=np.int16),
        torch.randn(10),
        3.5,
        None,
    ]
    heard = recognizer.listen([*bad, files[0], files[1]])
    assert heard.utterances == 2
    for name in ("text.wav", "missing.wav", "recording 3 of 11", "int16"):
        assert name in caplog.text
    assert caplog.text.count("left out") == len(bad)
    before = recognizer.heard
    with pytest.raises(InputError, match=r"none of 9 recordings.*and 4 more"):
        recognizer.listen(bad)
    for none in ([], None, 5):
        with pytest.raises(InputError, match="no recording"):
            recognizer.listen(none)
    assert recognizer.heard is before


def test_what_was_heard_serves_on_another_day(recognizer, folder, tmp_path):
    *room, wav = signals(4)
    heard = recognizer.listen(room)
    after = recognizer.recognize_batch(wav[None])[1]
    path = tmp_path / "rooms" / "mine.safetensors"
    heard.save(path)
    other = EmotionRecognizer.from_hparams(folder)
    for saved in (HeardSpeech.load(path), path, str(path)):
        other.forget()
        other.adapt(saved)
        assert torch.equal(other.recognize_batch(wav[None])[1], after)
    assert other.listen(room[0]).utterances == 4
    # Sums, and nothing of a length that audio has
    tensors = load_file(path)
    assert set(tensors) == {"total", "squares"}
    assert all(one.shape == heard.total.shape for one in tensors.values())


def test_what_another_recogniser_heard_is_refused(
    recognizer, tiny_flags, tmp_path
):
    heard = recognizer.listen(signals(2))
    path = tmp_path / "mine.safetensors"
    heard.save(path)
    flags = {**tiny_flags, "seed": 5}
    other = train_recognizer(flags, tmp_path / "connector")
    flags = {**tiny_flags, "encoder_layers": "2"}
    layer = train_recognizer(flags, tmp_path / "encoder")
    for folder, part in ((other, "connector"), (layer, "encoder")):
        stranger = EmotionRecognizer.from_hparams(folder)
        with pytest.raises(InputError, match=f"of another {part}"):
            stranger.adapt(HeardSpeech.load(path))
        assert stranger.adaptation is None and stranger.heard is None
        with pytest.raises(InputError, match=f"of another {part}"):
            stranger.listen(signals(1)) + heard


def test_without_standardisation_there_is_nothing_to_move_to(
    tiny_flags, tmp_path
):
    flags = {**tiny_flags, "standardize": "False"}
    folder = train_recognizer(flags, tmp_path)
    recognizer = EmotionRecognizer.from_hparams(folder)
    with pytest.raises(InputError, match="standardize: False"):
        recognizer.listen(signals(1))
    recognizer.recognize_batch(signals(1)[0][None])


@pytest.fixture
def saved(recognizer, tmp_path):
    path = tmp_path / "mine.safetensors"
    recognizer.listen(signals(2)).save(path)
    return path


def rewritten(path, said=None, **changed):
    """The file with another description or other tensors."""
    with safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["heard_speech"])
    tensors = {**load_file(path), **changed}
    tensors = {name: one for name, one in tensors.items() if one is not None}
    if len(tensors) == 2:
        # Of numbers that are meant so; what is damaged has another
        counts = described["utterances"], described["frames"]
        described["digest"] = HeardSpeech(*counts, **tensors).digest()
    text = json.dumps(described | (said or {}))
    save_file(tensors, path, {"heard_speech": text})


@pytest.mark.parametrize(
    ("said", "changed"),
    [
        ({"utterances": 0}, {}),
        ({"utterances": -3}, {}),
        ({"utterances": 1.5}, {}),
        ({"utterances": True}, {}),
        ({"frames": 10**400}, {}),
        ({"frames": None}, {}),
        ({"listener": {}}, {}),
        ({"listener": ["encoder", "connector"]}, {}),
        ({"listener": None}, {}),
        ({"digest": "0" * 40}, {}),
        ({"digest": None}, {}),
        ({}, {"total": None}),
        ({}, {"total": torch.zeros(1, 32)}),
        ({}, {"total": torch.zeros(32, dtype=torch.float64)}),
        ({}, {"total": torch.zeros(1, 31, dtype=torch.float64)}),
        ({}, {"squares": torch.full((1, 32), torch.nan).double()}),
        ({}, {"total": torch.full((1, 32), 1e300, dtype=torch.float64)}),
    ],
)
def test_a_strangers_numbers_are_refused(saved, said, changed):
    rewritten(saved, said, **changed)
    with pytest.raises(InputError, match=r"mine.safetensors: not what a"):
        HeardSpeech.load(saved)


def test_another_file_is_refused(saved, folder, recognizer, tmp_path):
    content = saved.read_bytes()
    saved.write_bytes(content[:-8])
    for path in (saved, folder / "connector.safetensors"):
        with pytest.raises(InputError, match="not what a recogniser has"):
            HeardSpeech.load(path)
    with pytest.raises(InputError, match="no such file"):
        HeardSpeech.load(tmp_path)
    large = tmp_path / "large.safetensors"
    with open(large, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="more than 64 MB"):
        HeardSpeech.load(large)
    # Of as many dimensions as this recogniser has not
    saved.write_bytes(content)
    rewritten(
        saved,
        total=torch.zeros(2, 32, dtype=torch.float64),
        squares=torch.ones(2, 32, dtype=torch.float64),
    )
    recognizer.forget()
    with pytest.raises(InputError, match=r"\[2, 32\] layers and dimensions"):
        recognizer.adapt(HeardSpeech.load(saved))
    assert recognizer.heard is None


@pytest.mark.parametrize("damage", ["zeros", "one bit", "a count"])
def test_damaged_numbers_are_refused(saved, damage):
    """As plausible as the ones that were saved: no cut, nothing infinite."""
    content = bytearray(saved.read_bytes())
    if damage == "zeros":
        # A power cut: the second half was never written
        middle = len(content) - 256
        content[middle:] = bytes(256)
    elif damage == "one bit":
        content[-2] ^= 0x10
    else:
        place = content.index(b"utterances") + len(b'utterances\\": ')
        assert content[place : place + 1] == b"2"
        content[place : place + 1] = b"3"
    saved.write_bytes(content)
    with pytest.raises(InputError, match=r"mine.safetensors: .*damaged"):
        HeardSpeech.load(saved)


def test_what_nobody_heard_is_not_saved(recognizer, tmp_path):
    unbound = HeardSpeech.of(torch.randn(1, 3, 32), torch.ones(1))
    for heard in (HeardSpeech(), unbound):
        with pytest.raises(InputError, match="nothing to save"):
            heard.save(tmp_path / "nothing.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_page_shows_what_works(
    recognizer, folder, files, tmp_path, monkeypatch
):
    page = (ROOT / "docs" / "recognise.md").read_text("utf-8")
    (shown,) = re.findall(r"```python\n([^`]*recognizer\.listen[^`]*)```", page)
    monkeypatch.chdir(tmp_path)
    monday = tmp_path / "monday"
    monday.mkdir()
    for number, path in enumerate(files[:4], start=1):
        (monday / f"{number}.wav").write_bytes(path.read_bytes())
    there = tmp_path / "results" / "open" / "1234"
    there.mkdir(parents=True)
    (there / "recognizer").symlink_to(folder)
    names = {}
    exec(compile(shown, "recognise.md", "exec"), names)
    assert names["recognizer"].heard.utterances == 4


def test_a_signal_and_its_rate_are_not_two_recordings(recognizer, files):
    # What soundfile and torchaudio return
    for recording in (soundfile.read(files[0]), (signals(1)[0], np.int64(8))):
        with pytest.raises(InputError, match="a signal and its rate are not"):
            recognizer.listen(recording)
    assert recognizer.heard is None


@pytest.mark.parametrize("given", [None, ["a.wav", "b.wav"], np.zeros(RATE)])
def test_what_is_no_path_is_said(recognizer, given):
    for method in (recognizer.recognize_file, recognizer.adapt):
        with pytest.raises(InputError, match="a file's path is expected"):
            method(given)


def test_no_words_cannot_be_generated(recognizer):
    with pytest.raises(InputError, match="max_new_tokens is 0"):
        recognizer.generate_batch(signals(1)[0][None], max_new_tokens=0)


def test_the_output_folder_is_not_the_recogniser_in_it(folder):
    with pytest.raises(InputError, match=r"the recogniser is .*/recognizer"):
        EmotionRecognizer.from_hparams(folder.parent)
