"""What `espeak_prepare.py` speaks: which voices, which emotions, and how."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("espeakng_loader")

RECIPES = Path(__file__).parents[2] / "recipes/M5SER"
sys.path.insert(0, str(RECIPES / "experiments"))

import espeak_prepare  # noqa: E402
from espeak_prepare import (  # noqa: E402
    LANGUAGES,
    plan_language,
    prepare_espeak,
)

from speechbrain_mser.dataio.manifest import read_manifest  # noqa: E402
from speechbrain_mser.emotions import CANONICAL  # noqa: E402
from speechbrain_mser.errors import InputError  # noqa: E402

UNSEEN = ("ell", "rus", "fas")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One sentence per voice and emotion, in two languages."""
    folder = tmp_path_factory.mktemp("espeak")
    prepare_espeak(folder, utterances=1, languages=("eng", "ell"))
    return folder


@pytest.fixture(scope="module")
def manifest(folder):
    return read_manifest(folder / "espeak.csv", folder / "espeak")


@pytest.fixture(scope="module")
def plan():
    """All that a run with the defaults would speak."""
    return {language: plan_language(language, 3, 1) for language in LANGUAGES}


def read(path):
    samples, rate = soundfile.read(path)
    assert rate == 16000 and samples.ndim == 1
    return samples


def times(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def median_f0(samples, rate=16000, frame=640):
    """Hz, by the autocorrelation of the loud frames."""
    found = []
    frames = samples[: len(samples) // frame * frame].reshape(-1, frame)
    for x in frames[frames.std(1) > np.median(frames.std(1))]:
        correlation = np.correlate(x, x, "full")[frame - 1 :] / (x @ x)
        lags = slice(rate // 500, rate // 60)
        lag = correlation[lags].argmax() + lags.start
        if correlation[lag] > 0.5:
            found.append(rate / lag)
    return np.median(found)


def level(samples):
    return 20 * np.log10(samples.std())


def compare(manifest, measure, one, other):
    """Median over voices of measure(one) - measure(other)."""
    spoken = {
        key: np.median([measure(read(wav)) for wav in group.wav])
        for key, group in manifest.groupby(["speaker", "emotion"])
    }
    speakers = sorted(set(manifest.speaker))
    return np.median([spoken[s, one] - spoken[s, other] for s in speakers])


def test_every_language_has_every_emotion_equally_often(plan):
    for items in plan.values():
        emotions = [item["emotion"] for item in items]
        counts = {emotion: emotions.count(emotion) for emotion in CANONICAL}
        assert len(set(counts.values())) == 1 and min(counts.values()) > 0
        assert len(emotions) == sum(counts.values())


def test_a_default_run_speaks_three_to_four_thousand_utterances(plan):
    ids = [item["ID"] for items in plan.values() for item in items]
    assert 3000 <= len(ids) <= 4000
    assert len(set(ids)) == len(ids)


def test_no_voice_of_training_is_in_another_split_of_any_language(plan):
    voices = {"train": set(), "valid": set(), "test": set()}
    for items in plan.values():
        for item in items:
            voices[item["split"]].add(item["voice"])
    assert not voices["train"] & (voices["valid"] | voices["test"])
    assert not voices["valid"] & voices["test"]


def test_unseen_languages_are_for_testing_only(plan):
    for language, items in plan.items():
        splits = {item["split"] for item in items}
        seen = {"train", "valid", "test"}
        assert splits == ({"test"} if language in UNSEEN else seen)


def test_the_text_says_nothing_about_the_emotion(plan):
    for items in plan.values():
        texts = {}
        for item in items:
            key = (item["voice"], item["emotion"])
            texts.setdefault(key, []).append(item["text"])
        for voice in {item["voice"] for item in items}:
            assert len({tuple(texts[voice, e]) for e in CANONICAL}) == 1


def test_the_manifest_is_what_was_spoken(manifest):
    assert len(manifest) == 20 * 7 * 1 + 6 * 7 * 2
    row = manifest[manifest.ID.str.startswith("espeak_eng_m1_angry_")].iloc[0]
    assert row.speaker == "espeak_eng_m1"
    assert (row.language, row.split, row.gender) == ("eng", "train", "male")
    assert row.emotion == row.label == "angry"
    for row in manifest[::20].itertuples():
        assert len(read(row.wav)) / 16000 == pytest.approx(row.duration, 1e-3)


def test_no_utterance_is_silent_or_clipped(manifest):
    for wav in manifest.wav:
        samples = read(wav)
        assert 0.5 < len(samples) / 16000 < 6
        assert 0.001 < samples.std() and np.abs(samples).max() <= 1
        assert (np.abs(samples) > 0.999).mean() < 0.01


def test_prosody_goes_where_the_literature_says(manifest):
    seconds = manifest.groupby("emotion").duration.mean()
    assert seconds.sad > seconds.neutral > seconds.fear
    for louder, softer in (("angry", "neutral"), ("neutral", "sad")):
        assert compare(manifest, level, louder, softer) > 3  # dB
    english = manifest[manifest.language == "eng"]
    for higher, lower in (("angry", "sad"), ("fear", "neutral")):
        assert compare(english, median_f0, higher, lower) > 10  # Hz


def test_the_same_seed_gives_the_same_samples(manifest, tmp_path):
    # Not within one second: eSpeak's noise is seeded from the clock.
    time.sleep(1)
    prepare_espeak(tmp_path, utterances=1, languages=("ell",), workers=1)
    again = read_manifest(tmp_path / "espeak.csv", tmp_path / "espeak")
    greek = manifest[manifest.language == "ell"]
    assert again.ID.tolist() == greek.ID.tolist()
    for one, other in zip(greek.wav, again.wav, strict=True):
        assert np.array_equal(read(one), read(other))


def test_another_seed_changes_prosody_but_not_the_design():
    one, other = plan_language("eng", 3, 1), plan_language("eng", 3, 2)
    assert [i["pitch"] for i in one] != [i["pitch"] for i in other]
    assert len(one) == len(other)


def test_a_second_run_does_nothing(folder, manifest, capsys):
    before = times(folder)
    prepare_espeak(folder, utterances=1, languages=("eng", "ell"))
    assert times(folder) == before
    assert "already there" in capsys.readouterr().out


def test_only_what_is_missing_is_spoken_again(folder, manifest):
    greek = manifest[manifest.language == "ell"].wav.iloc[0]
    samples = read(greek)
    before = times(folder / "espeak/eng")
    Path(greek).unlink()
    # What a killed run leaves behind.
    (folder / "espeak/.ell.1.partial").mkdir()
    prepare_espeak(folder, utterances=1, languages=("eng", "ell"))
    assert np.array_equal(read(greek), samples)
    assert times(folder / "espeak/eng") == before
    assert {p.name for p in (folder / "espeak").iterdir()} == {"eng", "ell"}


def test_a_missing_synthesiser_is_named(monkeypatch, tmp_path):
    find_spec = espeak_prepare.importlib.util.find_spec
    monkeypatch.setattr(
        espeak_prepare.importlib.util,
        "find_spec",
        lambda name: None if name == "espeakng_loader" else find_spec(name),
    )
    with pytest.raises(InputError, match=r"pip install speechbrain-mser\[demo"):
        prepare_espeak(tmp_path, utterances=1, languages=("eng",))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"languages": ("eng", "xyz")}, "unknown language 'xyz'"),
        ({"utterances": 13}, "utterances is 13"),
        ({"utterances": 0}, "utterances is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_bad_setting_is_refused(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        prepare_espeak(tmp_path, **settings)
    assert not list(tmp_path.iterdir())


def test_an_unknown_voice_is_refused_not_replaced():
    # eSpeak itself would silently speak with its default voice.
    from espeak_engine import Engine

    item = {**plan_language("eng", 1, 1)[0], "voice": "nobody"}
    with pytest.raises(InputError, match=r"no voice en-us\+nobody"):
        Engine(seed=1).speak("en-us", item)


def test_the_script_ends_on_bad_input_with_code_2(tmp_path):
    script = [
        sys.executable,
        str(RECIPES / "experiments" / "espeak_prepare.py"),
    ]
    done = subprocess.run(
        [*script, "--save_folder", str(tmp_path), "--languages", "tlh"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown language 'tlh'")
