"""A small folder of translations, made as `synthesize.py` makes one."""

import numpy as np
import soundfile

from speechbrain_mser.dataio.manifest import write_manifest
from speechbrain_mser.synthesis.backend import Backend, Translation
from speechbrain_mser.synthesis.folder import SynthesisFolder
from speechbrain_mser.synthesis.plan import Plan, read_sources
from speechbrain_mser.synthesis.shard import ShardWork

RATE = 16000
PITCH = {"neutral": 200, "happy": 500, "sad": 900, "angry": 2000}
SETTINGS = {"backend": "echo", "half": True}


class Echo(Backend):
    """Says everything again, a little faster; sad things it cannot say."""

    languages = ("deu", "fra", "jpn")
    max_seconds = 3.0

    def settings(self):
        return {"half": True}

    def open(self):
        return {"echo": "1.0"}

    def translate(self, utterances, language):
        return [
            Translation(error="too sad")
            if utterance.id.endswith("cannot")
            else Translation(
                utterance.samples[: int(0.8 * len(utterance.samples))],
                RATE,
                f"{language}: {utterance.text} costs $5",
            )
            for utterance in utterances
        ]


def write_sources(folder):
    """``manifests/tones.csv`` and its audio; its data root is given."""
    root, rows = folder / "tones", []
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(24):
        emotion = list(PITCH)[number % 4]
        name = f"tones_{number:02d}"
        seconds = 1.0
        # One of each fate: it fails, is too long, too short afterwards
        if number == 5:
            name += "_cannot"
        seconds = {6: 3.5, 7: 0.6}.get(number, seconds)
        time = np.arange(int(seconds * RATE)) / RATE
        samples = 0.3 * np.sin(2 * np.pi * PITCH[emotion] * time)
        samples += 0.01 * rng.standard_normal(len(time))
        soundfile.write(root / f"{name}.wav", samples, RATE)
        rows.append(
            {
                "ID": name,
                "duration": seconds,
                "wav": f"$data_root/{name}.wav",
                "corpus": "tones",
                "split": "test" if number > 19 else "train",
                "language": "eng",
                "speaker": str(number // 8),
                "gender": "",
                "emotion": emotion,
                "label": emotion,
                "text": f"Tone {number}",
            }
        )
    write_manifest(folder / "manifests/tones.csv", rows)
    return root


def synthesize(folder, most=None, minutes=0.1, languages=("deu", "fra")):
    """Translate them into ``<folder>/m5ser``; perhaps some shards only.

    Gives the manifest with its root, as the last step takes it.
    """
    root = write_sources(folder)
    sources = {str(folder / "manifests/tones.csv"): str(root)}
    plan = Plan(read_sources(sources), languages, shard_minutes=minutes)
    work = ShardWork(
        Echo, SynthesisFolder(folder / "m5ser", plan.description, SETTINGS)
    )
    for name in plan.shards.name[:most]:
        work.make(plan.shard(name))
    return sources
