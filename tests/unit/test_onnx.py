"""What is exported as ONNX answers as the recogniser does, without torch."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML

from speechbrain_mser.errors import InputError
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.inference.export import export_recognizer
from speechbrain_mser.settings.project_files import HPARAMS

LABELS = ["happy", "sad", "angry"]
pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13),
    reason="the exporter of an earlier torch was not tried",
)
# Samples: of several windows, of a frame, of less than one; alone and together
BATCHES = [(9000, 24000, 16001), (17,), (5, 400), (66000, 20000)]


@pytest.fixture(scope="module")
def load(tiny_whisper, tiny_llama, tmp_path_factory):
    """A recogniser of some settings, whose features were standardised."""

    def make(**changed):
        folder = tmp_path_factory.mktemp("recognizer")
        settings = {
            "whisper_hub": str(tiny_whisper),
            "llama_hub": str(tiny_llama),
            "frozen_dtype": "float32",
            "label_words": LABELS,
            "encoder_layers": [0, 1],
            # A frame is 20 ms, a window 50 of them
            "encoder_window": 1,
            "trim_silence": 35.0,
            "speech_level": -26.0,
            "n_queries": 2,
            **changed,
        }
        torch.manual_seed(3)
        path = HPARAMS / "model.yaml"
        with open(path, encoding="utf-8") as file:
            model = load_hyperpyyaml(file, settings)
        connector = model["connector"].eval()
        connector.standardizer.mean.normal_()
        connector.standardizer.std.uniform_(0.5, 2.0)
        connector.standardizer.frames.fill_(1)
        if connector.meaning is not None:
            torch.nn.init.normal_(connector.meaning.weight)
        described = {
            "encoder": model["encoder"].describe(),
            "llm": model["llm"].describe(),
        }
        connector.bind(described)
        export_recognizer(folder, YAML().load(path), model, connector)
        return EmotionRecognizer.from_hparams(folder)

    return make


@pytest.fixture(scope="module")
def mixing(load, tmp_path_factory):
    """A recogniser whose LLM reads mixtures, and its export."""
    recognizer = load(
        connector_type="linear", token_mixture=True, hear_meaning=True
    )
    folder = tmp_path_factory.mktemp("onnx")
    recognizer.export_onnx(folder)
    return recognizer, folder


@pytest.fixture(scope="module")
def qformer(load, mixing, tmp_path_factory):
    """The paper's connector behind the same encoder, and its export."""
    recognizer = load(
        bert_hub=None,
        query_dim=16,
        qformer_layers=1,
        qformer_hidden=32,
        qformer_heads=2,
        qformer_ffn=32,
    )
    folder = tmp_path_factory.mktemp("onnx")
    for path in mixing[1].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    before = (folder / "encoder.onnx").stat().st_mtime_ns
    recognizer.export_onnx(folder)
    # It is this one's, too.
    assert (folder / "encoder.onnx").stat().st_mtime_ns == before
    return recognizer, folder


def speech(lengths):
    """Bursts of noise with silence around them, as long as asked for."""
    rng = np.random.default_rng(0)
    wavs = np.zeros((len(lengths), max(lengths)), np.float32)
    for wav, length in zip(wavs, lengths, strict=True):
        noise = rng.normal(size=length) * 1e-3
        third = length // 3
        noise[third : 2 * third + 1] *= 100
        wav[:length] = noise
    return wavs, np.array(lengths)


def run(folder, name, **inputs):
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx")
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def listen(folder, wavs, lengths, **given):
    """As somebody without torch would."""
    heard = run(folder, "encoder", wavs=wavs, lengths=lengths)
    return {**heard, **run(folder, "connector", **heard, **given)}


def features_of(recognizer, wavs, lengths):
    lens = torch.from_numpy(lengths / wavs.shape[1]).float()
    return recognizer.mods.encoder(torch.from_numpy(wavs), lens)


def assert_close(found, expected):
    assert np.isfinite(found).all()
    expected = expected.detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("lengths", BATCHES)
@pytest.mark.parametrize("kind", ["mixing", "qformer"])
def test_it_answers_as_the_recogniser(kind, lengths, request):
    recognizer, folder = request.getfixturevalue(kind)
    signals = speech(lengths)
    found = listen(folder, *signals)
    features, lens = features_of(recognizer, *signals)
    expected = recognizer.mods.connector(features, lens)
    assert_close(found["tokens"], expected.tokens)
    assert_close(found["embedding"], expected.pooled)
    assert ("mixtures" in found) == (kind == "mixing")
    if kind == "mixing":
        assert_close(found["meaning"], expected.meaning)
        near = recognizer.guess_features(features, lens)
        assert_close(found["nearness"], near)


def test_what_was_listened_to_is_an_input(mixing):
    recognizer, folder = mixing
    signals = speech((30000, 20000))
    features, lens = features_of(recognizer, *signals)
    before = recognizer._connect(features, lens).tokens
    try:
        wavs, lengths = signals
        recognizer.listen(
            [wav[:n] for wav, n in zip(wavs, lengths, strict=True)]
        )
        own = recognizer.adaptation.own
        expected = recognizer._connect(features, lens).tokens
    finally:
        recognizer.forget()
    assert (expected - before).abs().max() > 0.005
    given = {"mean": own.mean.numpy(), "std": own.std.numpy()}
    assert_close(listen(folder, *signals, **given)["tokens"], expected)
    assert_close(listen(folder, *signals)["tokens"], before)


def test_an_llm_elsewhere_is_told_all_that_it_needs(mixing):
    """With the description and embeddings alone, word after word."""
    recognizer, folder = mixing
    described = json.loads((folder / "recognizer.json").read_text())["llm"]
    signals = speech((30000, 20000))
    mixtures = torch.from_numpy(listen(folder, *signals)["mixtures"])
    model = recognizer.mods.llm.model
    embed = model.get_input_embeddings()
    scores = []
    with torch.no_grad():
        for ids in described["words"].values():
            parts = [
                embed(torch.tensor(described["before"])).expand(2, -1, -1),
                mixtures,
                embed(torch.tensor(described["after"])).expand(2, -1, -1),
                embed(torch.tensor(ids[:-1])).expand(2, -1, -1),
            ]
            logits = model(inputs_embeds=torch.cat(parts, 1)).logits
            said = logits[:, -len(ids) :].log_softmax(-1)
            scores.append(said[:, range(len(ids)), ids].sum(-1))
    expected = recognizer.score_features(*features_of(recognizer, *signals))
    found = torch.stack(scores, 1).log_softmax(-1)
    assert_close(found.numpy(), expected)
    assert list(described["words"]) == LABELS and described["token_mixture"]


def test_inputs_and_outputs_are_as_described(mixing):
    _, folder = mixing
    described = json.loads((folder / "recognizer.json").read_text())
    assert described["sampling_rate"] == 16000
    for part in ("encoder", "connector"):
        session = onnxruntime.InferenceSession(folder / f"{part}.onnx")
        for kind in ("inputs", "outputs"):
            real = getattr(session, f"get_{kind}")()
            told = described[part][kind]
            needed = [n for n, one in told.items() if "optional" not in one]
            assert needed == [value.name for value in real]
            for value in real:
                shape = told[value.name]["shape"]
                assert [n for n in shape if isinstance(n, int)] == [
                    n for n in value.shape if isinstance(n, int)
                ]
    assert described["connector"]["inputs"]["words"] == {
        "type": "float",
        "shape": ["words", 48],
        "optional": True,
    }


def test_what_cannot_be_exported_leaves_what_was_there(
    mixing, tmp_path, monkeypatch
):
    recognizer, folder = mixing
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    encoder = recognizer.mods.encoder
    with monkeypatch.context() as patch:
        patch.setattr(encoder, "dtype_name", "bfloat16")
        with pytest.raises(InputError, match='"frozen_dtype": "float32"'):
            recognizer.export_onnx(tmp_path)

    class Own(type(encoder)):
        pass

    with monkeypatch.context() as patch:
        patch.setattr(encoder, "__class__", Own)
        with pytest.raises(InputError, match="only Whisper's"):
            recognizer.export_onnx(tmp_path)
    # One of a user's, which decides by the numbers
    connector = recognizer.mods.connector

    def forward(features, lens):
        return features if features.sum() > 0 else lens

    with monkeypatch.context() as patch:
        patch.setattr(connector, "forward", forward)
        with pytest.raises(InputError, match="could not export connector"):
            recognizer.export_onnx(folder)
    assert not [*tmp_path.iterdir()]
    assert before == {p.name: p.read_bytes() for p in folder.iterdir()}
