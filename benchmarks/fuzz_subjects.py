"""What the fuzz run damages, and how it uses it afterwards."""

import csv
import io
import json
import math
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import soundfile
import torch
from material import emotional_llama
from safetensors.torch import load_file
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from speechbrain_mser.dataio.audio import load_audio
from speechbrain_mser.dataio.manifest import (
    COLUMNS,
    read_manifest,
    write_manifest,
)
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.fingerprints import file_digest
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.preparation.audio_listing import probe
from speechbrain_mser.settings.project_files import HPARAMS

RECIPES = Path(__file__).resolve().parent.parent / "recipes" / "M5SER"
WORDS = ["neutral", "happy", "sad", "angry"]
RATE = 16000
# Seconds by which a manifest's duration may differ from what is decoded.
TOLERANCE = 0.05
# Written by a stranger's code, if it ever runs.
MARK = "CODE_RAN"

# What a field may hold that nobody expects.
HOSTILE_TEXTS = (
    *("", " ", "nan", "inf", "-1", "1e999", "0x10", "null", "~", "True"),
    *("../../etc/passwd", "/etc/passwd", "$data_root/../x", "~/x", "a\x00b"),
    *("=1+1", "+1", "-x", "@x", '"', "'", "a\nb", "a,b", "\ufeff", "é"),
    *("!!python/object/apply:os.getcwd []", "!new:os.system", "<x>"),
    *("(1, 2)", "[" * 500, "{" * 500, "&a [*a, *a]", "9**9**9**9"),
    *("%s%n", "\ud800".encode("utf-8", "replace").decode(), "x" * 10_000),
)


def make_shared(folder, kinds):
    """What all cases start from: a small corpus, small models, a training.

    Arguments
    ---------
    folder : pathlib.Path
        Where it is made.
    kinds : set of str
        Which of `SUBJECTS` are wanted.

    Returns
    -------
    pathlib.Path
        The folder.
    """
    folder.mkdir()
    make_corpus(folder)
    if kinds & {"audio", "recognizers", "checkpoints"}:
        make_models(folder)
        train(folder, folder / "whole")
    if "checkpoints" in kinds:
        # A training that was stopped half-way, between two steps.
        stop = {"MSER_STOP_AT_STEP": "7"}
        train(folder, folder / "begun", stop)
    return folder


def make_corpus(folder):
    """Twenty-four utterances of four emotions, and their manifest."""
    audio = folder / "corpora" / "tiny"
    audio.mkdir(parents=True)
    draw, rows = np.random.default_rng(0), []
    for number in range(24):
        emotion = WORDS[number % 4]
        seconds = 0.4 + 0.05 * (number % 5)
        time = np.arange(int(seconds * RATE)) / RATE
        tone = 0.2 * np.sin(2 * np.pi * 150 * (1 + number % 4) * time)
        tone += 0.01 * draw.standard_normal(len(time))
        soundfile.write(audio / f"{number}.wav", tone, RATE)
        rows.append(
            {
                "ID": f"tiny_{number}",
                "duration": round(seconds, 2),
                "wav": f"$data_root/{number}.wav",
                "corpus": "tiny",
                "split": "valid" if number >= 16 else "train",
                "language": "eng",
                "speaker": f"tiny_{number % 3}",
                "gender": "female",
                "emotion": emotion,
                "label": emotion,
                "text": "some words, said",
            }
        )
    write_manifest(folder / "manifests" / "tiny.csv", rows)


def make_models(folder):
    """A Whisper and a LLaMA with random weights."""
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=64,
    )
    WhisperModel(config).save_pretrained(folder / "whisper")
    WhisperFeatureExtractor().save_pretrained(folder / "whisper")
    shape = {
        "vocab_size": 64,
        "hidden_size": 48,
        "intermediate_size": 96,
    }
    emotional_llama(folder, **shape).rename(folder / "llama")


def command(folder, output):
    """Training's command line."""
    flags = {
        "data_root": folder / "corpora",
        "corpora": "[tiny]",
        "manifest_folder": folder / "manifests",
        "skip_prep": True,
        "output_folder": output,
        "whisper_hub": folder / "whisper",
        "llama_hub": folder / "llama",
        "bert_hub": "null",
        "qformer_layers": 2,
        "qformer_hidden": 32,
        "qformer_heads": 2,
        "qformer_ffn": 64,
        "frozen_dtype": "float32",
        "precision": "fp32",
        "eval_precision": "fp32",
        "n_queries": 4,
        "query_dim": 16,
        "label_words": json.dumps(WORDS),
        "number_of_epochs": 3,
        "batch_size": 4,
        "num_workers": 0,
        "ckpt_interval_steps": 2,
        "lr": 1e-3,
    }
    argv = [str(HPARAMS / "stage1.yaml")]
    for name, value in flags.items():
        argv += [f"--{name}", str(value)]
    return argv


# Stops a training as a kill does, but after a given step.
STOP = """
import os, runpy, sys
from speechbrain_mser.brain import EmotionBrain
step = EmotionBrain.on_fit_batch_end
def stop(self, *args, **kwargs):
    step(self, *args, **kwargs)
    if self.optimizer_step == int(os.environ.get("MSER_STOP_AT_STEP", -1)):
        os._exit(9)
EmotionBrain.on_fit_batch_end = stop
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def train(folder, output, environment=None):
    """Train in a process of its own, to its end or to a step."""
    done = subprocess.run(
        [
            *(sys.executable, "-c", STOP, RECIPES / "train.py"),
            *command(folder, output),
        ],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != (9 if environment else 0):
        raise SystemExit(done.stderr)


def damage_bytes(draw, content):
    """Bytes as a bad disk, a bad download or a bad program leaves them.

    Arguments
    ---------
    draw : random.Random
        What decides.
    content : bytes
        The file's.

    Returns
    -------
    bytes
        Others.
    """
    content = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        size = max(len(content), 1)
        # Headers decide the most, and lie at the beginning.
        place = draw.randrange(draw.choice((min(size, 64), size)))
        length = draw.choice((1, 2, 4, 64, 4096))
        way = draw.randrange(7)
        if way == 0:
            content[place : place + 1] = bytes([draw.randrange(256)])
        elif way == 1 and content:
            place = min(place, len(content) - 1)
            content[place] ^= 1 << draw.randrange(8)
        elif way == 2:
            del content[place:]
        elif way == 3:
            del content[place : place + length]
        elif way == 4:
            content[place:place] = content[place : place + length]
        elif way == 5:
            content[place : place + length] = bytes(length)
        else:
            extreme = draw.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"))
            content[place : place + 4] = extreme
    return bytes(content)


def finite(tensor):
    """The tensor; an error if it holds what is no number."""
    if not torch.isfinite(tensor).all():
        raise ArithmeticError(f"an answer that is not finite: {tensor}")
    return tensor


def refused(error):
    """A refusal's kind: its message without what is the case's own."""
    text = str(error).rpartition(": ")[2]
    return "refused", "".join(c if not c.isdigit() else "#" for c in text)[:80]


class Audio:
    """Files of every format, damaged, then listed and recognised."""

    # Format, codec and file name of what PyAV writes.
    CONTAINERS = (
        ("mp3", "libmp3lame", "a.mp3"),
        ("mp4", "aac", "a.m4a"),
        ("adts", "aac", "a.aac"),
        ("webm", "libopus", "a.webm"),
        ("mp4", "aac", "a.mp4"),
    )
    PLAIN = (
        ("a.wav", "PCM_16"),
        ("b.wav", "FLOAT"),
        ("c.wav", "ULAW"),
        ("d.wav", "GSM610"),
        ("e.wav", "PCM_24"),
        ("a.flac", "PCM_16"),
        ("a.ogg", "VORBIS"),
        ("a.aiff", "PCM_16"),
    )

    def __init__(self, shared, scratch):
        self.recognizer = EmotionRecognizer.from_hparams(
            source=str(shared / "whole" / "recognizer")
        )
        self.folder = scratch / "originals"
        self.folder.mkdir(exist_ok=True)
        draw = np.random.default_rng(0)
        for name, subtype in self.PLAIN:
            rate = 8000 if subtype == "GSM610" else 22050
            channels = 1 if subtype in ("GSM610", "VORBIS") else 2
            shape = (rate // 2, channels)
            noise = 0.1 * draw.standard_normal(shape)
            soundfile.write(self.folder / name, noise, rate, subtype)
        for format_, codec, name in self.CONTAINERS:
            self._encode(draw, format_, codec, self.folder / name)
        self.originals = sorted(self.folder.iterdir())

    @staticmethod
    def _encode(draw, format_, codec, path):
        import av

        with av.open(str(path), "w", format=format_) as container:
            stream = container.add_stream(codec, rate=48000, layout="mono")
            noise = draw.standard_normal((1, 24000)).astype(np.float32) * 0.1
            frame = av.AudioFrame.from_ndarray(noise, "flt", "mono")
            frame.sample_rate = 48000
            for made in (frame, None):
                for packet in stream.encode(made):
                    container.mux(packet)

    def run(self, draw, folder):
        """Damage a file; list it, load it, recognise it."""
        original = draw.choice(self.originals)
        content = original.read_bytes()
        if draw.random() < 0.1:
            content += draw.choice(self.originals).read_bytes()
        if draw.random() < 0.95:
            content = damage_bytes(draw, content)
        other = draw.choice(self.originals)
        name = (original if draw.random() < 0.8 else other).name
        path = folder / name
        path.write_bytes(content)
        listed = self._duration(path)
        try:
            samples = load_audio(path)
        except InputError as error:
            return refused(error)
        finite(samples)
        seconds = len(samples) / RATE
        if listed is not None and abs(listed - seconds) > TOLERANCE:
            raise ArithmeticError(f"listed {listed} s, decoded {seconds} s")
        try:
            _, log_probs = self.recognizer.recognize_file(path)
        except InputError as error:
            return refused(error)
        finite(log_probs)
        return "used", ""

    @staticmethod
    def _duration(path):
        """What a manifest would say; None if it would not list the file."""
        seconds, problem = probe(path)
        return None if problem else seconds


class Manifests:
    """A manifest whose text was damaged, read and written again."""

    def __init__(self, shared, scratch):
        del scratch
        self.text = (shared / "manifests" / "tiny.csv").read_text("utf-8")
        self.root = shared / "corpora" / "tiny"

    def run(self, draw, folder):
        """Damage, read; what was read is written and read to the same."""
        path = folder / "tiny.csv"
        path.write_bytes(self._damaged(draw))
        try:
            table = read_manifest(path, self.root)
        except InputError as error:
            return refused(error)
        root = self.root.resolve()
        for wav in table.wav:
            if root not in Path(wav).resolve().parents:
                raise AssertionError(f"{wav} lies outside {root}")
        if not np.isfinite(table.duration).all():
            raise ArithmeticError("a duration that is not finite")
        if table.ID.duplicated().any():
            raise AssertionError("one ID twice")
        if any(unicodedata.normalize("NFC", x) != x for x in table.speaker):
            raise AssertionError("a speaker with two spellings")
        rows = read_manifest(path).to_dict("records")
        again = folder / "again.csv"
        write_manifest(again, rows)
        if not read_manifest(again, self.root).equals(table):
            raise AssertionError("another table after writing it")
        return "used", ""

    def _damaged(self, draw):
        way = draw.randrange(4)
        if way == 0:
            return damage_bytes(draw, self.text.encode())
        rows = list(csv.reader(io.StringIO(self.text)))
        if way == 1:
            for _ in range(draw.choice((1, 1, 3))):
                row = draw.choice(rows)
                row[draw.randrange(len(COLUMNS))] = draw.choice(HOSTILE_TEXTS)
        elif way == 2:
            column = draw.randrange(len(COLUMNS))
            for row in rows:
                if draw.random() < 0.5:
                    del row[column]
                else:
                    row.insert(column, draw.choice(HOSTILE_TEXTS))
        else:
            rows = draw.choices(rows, k=draw.randrange(30))
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        encoding = draw.choice(("utf-8", "utf-8", "utf-16", "latin-1"))
        return text.getvalue().encode(encoding, "replace")


class Recognizers:
    """A recogniser's folder that was damaged, or made by an enemy."""

    # Values that a setting may be given instead of its own.
    VALUES = (
        *("!apply:os.system ['touch CODE_RAN']", "!new:os.getcwd", "!ref <x>"),
        *("!!python/object/apply:os.system ['touch CODE_RAN']", "&a [*a]"),
        *("[" * 5000, "{" * 5000, "9**9**9**9", ".nan", "-.inf", "1e999"),
        *("null", "-1", "0", "1.5", "true", "[]", "{}", "''", "[[1]]"),
        *("/etc/passwd", "../../x", "(1, 2)", "x" * 100_000, "10" * 300),
        *("&a [1]\nb: &b [*a, *a]\nc: [*b, *b]", "|\n  x", "<whisper_hub>"),
    )
    PLANTED = ("custom.py", "custom_interface.py", "hyperparams.py")

    def __init__(self, shared, scratch):
        self.folder = shared / "whole" / "recognizer"
        self.home = scratch
        os.chdir(scratch)  # where a mark would be left
        self.wavs = 0.1 * torch.randn(2, RATE // 2)

    def run(self, draw, folder):
        """Damage a folder; load it, and recognise with it."""
        source = folder / "recognizer"
        shutil.copytree(self.folder, source)
        for _ in range(draw.choice((1, 1, 2))):
            self._damage(draw, source)
        try:
            recognizer = EmotionRecognizer.from_hparams(
                source=str(source), savedir=str(folder / "savedir")
            )
            _, log_probs = recognizer.recognize_batch(self.wavs)
        except InputError as error:
            answer = refused(error)
        else:
            finite(log_probs)
            answer = "used", ""
        if (self.home / MARK).exists():
            (self.home / MARK).unlink()
            raise AssertionError("a stranger's code ran")
        return answer

    def _damage(self, draw, source):
        path = draw.choice(sorted(p for p in source.iterdir() if p.is_file()))
        way = draw.randrange(5)
        if way == 0 and path.suffix == ".yaml":
            lines = path.read_text("utf-8", "replace").splitlines() or [""]
            number = draw.randrange(len(lines))
            name, colon, _ = lines[number].partition(":")
            if draw.random() < 0.2:
                name = draw.choice(HOSTILE_TEXTS)
            lines[number] = f"{name}{colon} {draw.choice(self.VALUES)}"
            path.write_text("\n".join(lines), "utf-8", "surrogatepass")
        elif way == 1:
            path.unlink()
        elif way == 2:
            planted = source / draw.choice(self.PLANTED)
            planted.write_text(f"open({MARK!r}, 'w')\n")
        elif way == 3 and path.suffix == ".safetensors":
            path.write_bytes(self._with_nan(draw, path.read_bytes()))
            if draw.random() < 0.7:
                self._say_digest(source, path)
        else:
            path.write_bytes(damage_bytes(draw, path.read_bytes()))

    @staticmethod
    def _say_digest(source, weights):
        """Have the settings go with other weights, as their maker would."""
        path = source / "hyperparams.yaml"
        if path.exists():
            name = f"{weights.stem}_digest"
            lines = path.read_text("utf-8", "replace").splitlines()
            digest = file_digest(weights).hex()
            said = [f"{name}: {digest}" if name in x else x for x in lines]
            path.write_text("\n".join(said), "utf-8")

    @staticmethod
    def _with_nan(draw, content):
        """Weights of which one is no number."""
        content = bytearray(content)
        start = 8 + int.from_bytes(content[:8], "little")
        if start + 4 > len(content):  # damaged before
            return bytes(content)
        place = start + 4 * draw.randrange((len(content) - start) // 4)
        content[place : place + 4] = np.float32(
            draw.choice((math.nan, math.inf, -math.inf))
        ).tobytes()
        return bytes(content)


class Checkpoints:
    """A training's folder that was damaged, then gone on with."""

    def __init__(self, shared, scratch):
        sys.path.insert(0, str(RECIPES))
        self.shared = shared
        os.chdir(scratch)
        self.expected = load_file(
            shared / "whole" / "recognizer" / "connector.safetensors"
        )

    def run(self, draw, folder):
        """Damage files of a training; go on, to the undisturbed end."""
        import train

        # The output folder's name is one of the settings.
        output = folder / "output"
        shutil.copytree(self.shared / "begun", output)
        files = sorted(p for p in output.rglob("*") if p.is_file())
        for _ in range(draw.choice((1, 1, 2, 4))):
            path = draw.choice(files)
            if draw.random() < 0.15:
                path.unlink(missing_ok=True)
            elif path.exists():
                path.write_bytes(damage_bytes(draw, path.read_bytes()))
        sys.argv = ["train.py", *command(self.shared, output)]
        try:
            train.main()
        except SystemExit as ended:
            if ended.code != 2:
                raise AssertionError(f"exit code {ended.code}") from None
            return "refused", "exit code 2"
        found = load_file(output / "recognizer" / "connector.safetensors")
        for name, value in self.expected.items():
            if not torch.equal(finite(found[name]), value):
                raise AssertionError(f"{name} differs after going on")
        return "used", ""


SUBJECTS = {
    "audio": Audio,
    "manifests": Manifests,
    "recognizers": Recognizers,
    "checkpoints": Checkpoints,
}
