"""What worker_seamless.py uses of fairseq2 and seamless_communication.

Stubs with the real names, arguments and shapes, that refuse whatever the real
ones would refuse and write down what they are called with. What they make of
an utterance can be worked out by hand: its units say how many frames it has,
its sound how loud it is, the one from the text model's input, the other from
the prosody's, so that a row which got into the wrong place is heard.
"""

import json
import os
import sys
import types
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

FRAME = 160
BINS = 80
OUTPUT_RATE = {"vocoder_pretssel": 24000, "vocoder_pretssel_16khz": 16000}


def note(event, **facts):
    """Write down a call."""
    with open(os.environ["STUB_NOTES"], "a") as file:
        print(json.dumps({"event": event, **facts}), file=file)


class InProcAssetMetadataProvider:
    def __init__(self, metadata):
        self.metadata = {card["name"]: card for card in metadata}


class AssetStore:
    user_metadata_providers = []

    def path(self, name, field):
        """Where a file is, which must be there."""
        (provider,) = self.user_metadata_providers
        place = provider.metadata[f"{name}@user"][field]
        assert place.startswith("file:///"), place
        assert Path(place.removeprefix("file://")).is_file(), place
        return place


asset_store = AssetStore()


class Collater:
    def __init__(self, pad_value=None):
        assert pad_value == 0

    def __call__(self, sequences):
        assert isinstance(sequences, list)
        lengths = [len(each) for each in sequences]
        return {
            "seqs": pad_sequence(sequences, batch_first=True),
            "seq_lens": torch.tensor(lengths),
            "is_ragged": len(set(lengths)) > 1,
        }


class WaveformToFbankConverter:
    def __init__(self, **options):
        device, dtype = options.pop("device"), options.pop("dtype")
        assert (device.type, dtype) == ("cpu", torch.float32)
        assert options == {
            "num_mel_bins": BINS,
            "waveform_scale": 2**15,
            "channel_last": True,
            "standardize": False,
        }

    def __call__(self, data):
        waveform = data["waveform"]
        assert set(data) == {"waveform", "sample_rate"}
        assert data["sample_rate"] == 16000
        assert waveform.dtype == torch.float32
        assert waveform.shape[1:] == (1,)
        frames = waveform[: len(waveform) // FRAME * FRAME].view(-1, FRAME)
        loudness = frames.abs().mean(dim=1)
        return {"fbank": loudness[:, None] * torch.arange(1.0, 1 + BINS)}


class NGramRepeatBlockProcessor:
    def __init__(self, ngram_size):
        self.ngram_size = ngram_size


class SequenceGeneratorOptions:
    def __init__(
        self, beam_size, soft_max_seq_len, unk_penalty, step_processor
    ):
        self.facts = {
            "beam_size": beam_size,
            "soft_max_seq_len": soft_max_seq_len,
            "unk_penalty": unk_penalty,
            "ngram_size": step_processor.ngram_size,
        }


class Speech:
    def __init__(self, units, audio_wavs=(), sample_rate=16000):
        self.units, self.audio_wavs = units, audio_wavs
        self.sample_rate = sample_rate


class Translator:
    def __init__(self, name, vocoder_name_or_card, device, dtype):
        print("a library that talks to stdout")
        assert vocoder_name_or_card is None
        for field in ("checkpoint", "tokenizer", "char_tokenizer"):
            asset_store.path(name, field)
        note("Translator", name=name, device=str(device), dtype=str(dtype))

    def predict(
        self,
        source,
        task,
        tgt_lang,
        text_generation_opts,
        duration_factor,
        prosody_encoder_input,
    ):
        count = len(source["seqs"])
        note(
            "predict",
            task=task,
            language=tgt_lang,
            count=count,
            shape=list(source["seqs"].shape),
            duration_factor=duration_factor,
            **text_generation_opts.facts,
        )
        assert source["seqs"].shape == prosody_encoder_input["seqs"].shape
        assert source["seq_lens"].equal(prosody_encoder_input["seq_lens"])
        assert source["seqs"].isfinite().all()
        room = Path(os.environ["STUB_NOTES"]).with_name("room")
        if room.exists() and count > int(room.read_text()):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        for row, length in zip(
            source["seqs"], source["seq_lens"].tolist(), strict=True
        ):
            # Each normalised by itself, over its own frames
            torch.testing.assert_close(
                row[:length].mean(dim=0), torch.zeros(BINS), atol=1e-4, rtol=0
            )
        lengths = source["seq_lens"].tolist()
        texts = [f"*{length}* frames =  in {tgt_lang}" for length in lengths]
        return texts, Speech([[7] * length for length in lengths])


class PretsselGenerator:
    def __init__(self, name, vocab_info, device, dtype):
        assert vocab_info == "the units' vocabulary"
        asset_store.path(name, "checkpoint")
        self.rate = OUTPUT_RATE[name]
        note("PretsselGenerator", name=name)

    def predict(self, units, tgt_lang, prosody_encoder_input):
        rows = prosody_encoder_input["seqs"]
        lengths = prosody_encoder_input["seq_lens"].tolist()
        wavs = [
            torch.full(
                (1, 1, len(unit) * self.rate // 100), row[:length].mean()
            )
            for unit, row, length in zip(units, rows, lengths, strict=True)
        ]
        return Speech(units, wavs, self.rate)


def load_unity_unit_tokenizer(name):
    assert name == "seamless_expressivity"
    return types.SimpleNamespace(vocab_info="the units' vocabulary")


def load_gcmvn_stats(name):
    assert name in OUTPUT_RATE
    return [1.0] * BINS, [100.0] * BINS


def install():
    """Put the stubs where the real modules would be."""
    here = globals()
    predict = "seamless_communication.cli.expressivity.predict"
    for name, names in {
        "fairseq2.assets": ("InProcAssetMetadataProvider", "asset_store"),
        "fairseq2.data": ("Collater",),
        "fairseq2.data.audio": ("WaveformToFbankConverter",),
        "fairseq2.generation": ("NGramRepeatBlockProcessor",),
        "seamless_communication.inference": (
            "SequenceGeneratorOptions",
            "Translator",
        ),
        "seamless_communication.models.unity": (
            "load_gcmvn_stats",
            "load_unity_unit_tokenizer",
        ),
        f"{predict}.pretssel_generator": ("PretsselGenerator",),
    }.items():
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            path = ".".join(parts[:depth])
            if path not in sys.modules:
                sys.modules[path] = types.ModuleType(path)
            if depth > 1:
                parent = sys.modules[".".join(parts[: depth - 1])]
                setattr(parent, parts[depth - 1], sys.modules[path])
        vars(sys.modules[name]).update({each: here[each] for each in names})
