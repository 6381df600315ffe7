#!/usr/bin/env python3
"""SeamlessExpressive as a worker: the library runs it, see README.md.

Runs in the environment that setup.sh makes (fairseq2 0.2, torch 2.2), which
cannot be ours. It speaks docs/synthesis_protocol.md and does what Meta's
expressivity_predict does, but loads the model once and translates batches.
It differs from Meta's expressivity_evaluate in three ways. That one drops
utterances whose features are NaN from one of its two inputs only, so that all
the others get someone else's prosody; here such an utterance is in neither.
It takes audio of any rate for 16 kHz; here another rate is refused. And it
leaves the marks of emphasis and pauses in the text.
"""

import argparse
import json
import sys
from importlib import metadata
from pathlib import Path

# The protocol's side of this project needs the standard library alone. It lies
# in one of the folders above, in a checkout and where pip has installed it.
sys.path += [
    str(folder)
    for folder in Path(__file__).resolve().parents
    if (folder / "speechbrain_mser/__init__.py").is_file()
]

from speechbrain_mser.synthesis.backends.protocol import CannotStart, serve

MODEL = "seamless_expressivity"
SAMPLE_RATE = 16000
PACKAGES = ("fairseq2", "fairseq2n", "seamless_communication", "torch")


class Expressive:
    """The translator: text and units first, then their sound.

    Arguments
    ---------
    options : argparse.Namespace
        The command line.
    """

    def __init__(self, options):
        import torch
        from fairseq2.data import Collater
        from fairseq2.data.audio import WaveformToFbankConverter
        from seamless_communication.cli.expressivity.predict import (
            pretssel_generator,
        )
        from seamless_communication.inference import Translator
        from seamless_communication.models.unity import (
            load_gcmvn_stats,
            load_unity_unit_tokenizer,
        )

        use_local_files(options)
        self.torch = torch
        self.duration_factors = options.duration_factors
        on_gpu = torch.cuda.is_available()
        device = torch.device("cuda:0" if on_gpu else "cpu")
        dtype = getattr(torch, options.dtype)
        if not on_gpu and dtype is not torch.float32:
            raise CannotStart(
                f"dtype is {options.dtype} and there is no GPU; give float32"
            )
        self.decoding = decoding(options)
        # Its sound comes from PRETSSEL, not from a vocoder of its own.
        self.translator = Translator(
            MODEL, vocoder_name_or_card=None, device=device, dtype=dtype
        )
        self.vocoder = pretssel_generator.PretsselGenerator(
            options.vocoder,
            vocab_info=load_unity_unit_tokenizer(MODEL).vocab_info,
            device=device,
            dtype=dtype,
        )
        self.to_fbank = WaveformToFbankConverter(
            num_mel_bins=80,
            waveform_scale=2**15,
            channel_last=True,
            standardize=False,
            device=device,
            dtype=dtype,
        )
        self.mean, self.std = (
            torch.tensor(values, device=device, dtype=dtype)
            for values in load_gcmvn_stats(options.vocoder)
        )
        self.collate = Collater(pad_value=0)

    def __call__(self, request):
        """Translate a request's utterances; their results, in any order."""
        read, results = [], []
        for utterance in request["utterances"]:
            try:
                read.append((utterance, *self.features(utterance["audio"])))
            except Unusable as reason:
                results.append({"id": utterance["id"], "error": str(reason)})
        if read:
            results += self.translate(
                read, request["language"], Path(request["folder"])
            )
        return results

    def features(self, path):
        """An utterance's two inputs.

        Returns
        -------
        fbank, gcmvn_fbank : torch.Tensor
            ``[frames, 80]``, normalised by its own statistics (for what is
            said) and by the training data's (for how).
        """
        import soundfile

        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        if rate != SAMPLE_RATE or samples.shape[1] != 1:
            raise Unusable(
                f"{samples.shape[1]} channels at {rate} Hz; mono at "
                f"{SAMPLE_RATE} Hz is needed"
            )
        waveform = self.torch.from_numpy(samples)  # [time, 1]
        converted = self.to_fbank(
            {"waveform": waveform, "sample_rate": SAMPLE_RATE}
        )
        fbank = converted["fbank"]
        std, mean = self.torch.std_mean(fbank, dim=0)
        both = (fbank - mean) / std, (fbank - self.mean) / self.std
        # Silence has no variation to divide by, nor has a single frame.
        if not len(fbank) or not all(
            self.torch.isfinite(each).all() for each in both
        ):
            raise Unusable("its features are not finite: silent or too short")
        return both

    def translate(self, read, language, folder):
        """Translate what could be read; in halves where memory is short."""
        try:
            return self.predict(read, language, folder)
        except self.torch.cuda.OutOfMemoryError:
            if len(read) == 1:
                return [{"id": read[0][0]["id"], "error": "out of GPU memory"}]
        # Not in the except clause, whose traceback holds on to the memory.
        self.torch.cuda.empty_cache()
        half = len(read) // 2
        return self.translate(read[:half], language, folder) + self.translate(
            read[half:], language, folder
        )

    def predict(self, read, language, folder):
        """Translate a batch and write what came of it."""
        import soundfile

        utterances, fbanks, prosodies = zip(*read, strict=True)
        # Each from the same list: a row of one is the same row of the other.
        source = self.collate(list(fbanks))
        prosody = self.collate(list(prosodies))
        texts, speech = self.translator.predict(
            source,
            "s2st",
            language,
            text_generation_opts=self.decoding,
            duration_factor=self.duration_factors[language],
            prosody_encoder_input=prosody,
        )
        said = self.vocoder.predict(
            speech.units, tgt_lang=language, prosody_encoder_input=prosody
        )
        results = []
        for utterance, text, wav in zip(
            utterances, texts, said.audio_wavs, strict=True
        ):
            path = folder / Path(utterance["audio"]).name
            soundfile.write(
                path,
                wav[0].reshape(-1).float().cpu().numpy(),
                said.sample_rate,
                subtype="FLOAT",
            )
            results.append(
                {
                    "id": utterance["id"],
                    "audio": str(path),
                    "text": without_marks(str(text)),
                }
            )
        return results


class Unusable(Exception):
    """Why an utterance cannot be translated."""


def use_local_files(options):
    """Tell fairseq2 where weights and tokenizers are: nothing is fetched."""
    from fairseq2.assets import InProcAssetMetadataProvider, asset_store

    # "@user" is looked up last and so beats what a machine's configuration
    # says. The gated checkpoints have no address to fetch them from; the
    # tokenizers have one, which a machine without a network cannot reach.
    asset_store.user_metadata_providers.append(
        InProcAssetMetadataProvider(
            [
                {
                    "name": f"{MODEL}@user",
                    "checkpoint": f"file://{options.checkpoint}",
                    "tokenizer": f"file://{options.tokenizer}",
                    "char_tokenizer": f"file://{options.char_tokenizer}",
                },
                {
                    "name": f"{options.vocoder}@user",
                    "checkpoint": f"file://{options.vocoder_checkpoint}",
                },
            ]
        )
    )


def decoding(options):
    """How the text is decoded.

    No unknown tokens and no phrase again and again, as Meta's own
    demonstration has it: its command line allows both.
    """
    import math

    from fairseq2.generation import NGramRepeatBlockProcessor
    from seamless_communication.inference import SequenceGeneratorOptions

    return SequenceGeneratorOptions(
        beam_size=options.beam_size,
        soft_max_seq_len=(0, options.max_tokens),
        unk_penalty=math.inf,
        step_processor=NGramRepeatBlockProcessor(
            ngram_size=options.no_repeat_ngram
        ),
    )


def without_marks(text):
    """A text without the marks of emphasis (``*``) and pauses (``=``)."""
    return " ".join(text.replace("*", "").replace("=", "").split())


def versions(options):
    """Of the packages, and the weights by name and size."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    for path in (options.checkpoint, options.vocoder_checkpoint):
        found[path.name] = f"{path.stat().st_size} bytes"
    return found


def command_line():
    """What `SeamlessExpressive` calls this with."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    for name in (
        "--checkpoint",
        "--vocoder_checkpoint",
        "--tokenizer",
        "--char_tokenizer",
    ):
        add(name, type=Path, required=True)
    add("--vocoder", required=True)
    add("--dtype", required=True)
    add("--duration_factors", type=json.loads, required=True)
    add("--beam_size", type=int, required=True)
    add("--no_repeat_ngram", type=int, required=True)
    add("--max_tokens", type=int, required=True)
    return parser.parse_args()


def load():
    """For `serve`: what this can do, and the function that does it."""
    options = command_line()
    try:
        expressive = Expressive(options)
    except ImportError as error:
        raise CannotStart(
            f"the environment of {sys.executable} is not complete ({error}); "
            "run recipes/M5SER/seamless_expressive/setup.sh again"
        ) from None
    about = {
        "languages": sorted(options.duration_factors),
        "versions": versions(options),
    }
    return about, expressive


if __name__ == "__main__":
    serve(load)
