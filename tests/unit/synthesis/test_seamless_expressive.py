"""SeamlessExpressive: the real worker script, on stubs of what it loads."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from packaging.specifiers import SpecifierSet

from speechbrain_mser.errors import InputError
from speechbrain_mser.synthesis.backend import SourceUtterance
from speechbrain_mser.synthesis.backends.seamless_expressive import (
    DURATION_FACTORS,
    SeamlessExpressive,
)
from speechbrain_mser.synthesis.backends.worker import WorkerProcess

HERE = Path(__file__).parent
RECIPE = HERE.parents[2] / "recipes" / "M5SER" / "seamless_expressive"
WEIGHTS = (
    "m2m_expressive_unity.pt",
    "pretssel_melhifigan_wm.pt",
    "pretssel_melhifigan_wm-16khz.pt",
)
TOKENIZERS = ("tokenizer.model", "spm_char_lang38_tc.model")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Empty weights, and what an interpreter needs to have the stubs."""
    place = tmp_path_factory.mktemp("seamless")
    for folder, names in (("weights", WEIGHTS), ("spm", TOKENIZERS)):
        (place / folder).mkdir()
        for name in names:
            (place / folder / name).touch()
    # Python imports this by itself when it starts.
    (place / "site").mkdir()
    (place / "site" / "sitecustomize.py").write_text(
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "import seamless_stubs; seamless_stubs.install()\n"
    )
    return place


def make(place, **settings):
    """A backend whose worker runs on the stubs."""
    options = {
        "worker_python": sys.executable,
        "model_folder": "weights",
        "tokenizer_folder": "spm",
        "worker_script": RECIPE / "worker_seamless.py",
        "dtype": "float32",
        "environment": {
            "STUB_NOTES": place / "notes",
            "PYTHONPATH": place / "site",
        },
        "working_folder": place,
        **settings,
    }
    return SeamlessExpressive(**options)


@pytest.fixture(scope="module")
def running(place):
    """One that several tests ask."""
    backend = make(place)
    yield backend
    backend.close()


@pytest.fixture
def notes(place):
    """Gives what the stubs wrote down since the test began."""
    path = place / "notes"
    path.write_text("")

    def read(event):
        lines = map(json.loads, path.read_text().splitlines())
        return [line for line in lines if line.pop("event") == event]

    return read


@pytest.fixture
def room(place):
    """Sets how many utterances the GPU has room for."""
    yield lambda count: (place / "room").write_text(str(count))
    (place / "room").unlink()


def speak(name, frames, loudness):
    """Frames of 10 ms, every other one silent."""
    wave = np.repeat(np.resize([0.0, 2.0], frames), 160) * loudness
    return SourceUtterance(name, wave.astype(np.float32))


def expected_level(loudness):
    """Of the stub vocoder: mean over bins of (k x loudness - 1) / 100."""
    return (40.5 * loudness - 1) / 100


def test_every_utterance_gets_its_own_text_length_and_prosody(running, notes):
    versions = running.open()
    assert versions["m2m_expressive_unity.pt"] == "0 bytes"
    assert versions["torch"]
    # The second and the fourth have no finite features: they must be missing
    # from both inputs, or the others would sound like them.
    batch = [
        speak("a", 40, 0.1),
        speak("b", 30, 0.0),
        speak("c", 20, 0.4),
        speak("d", 1, 0.2),
        speak("e", 50, 0.2),
    ]
    found = running.translate(batch, "fra")
    for k, frames, loudness in ((0, 40, 0.1), (2, 20, 0.4), (4, 50, 0.2)):
        assert found[k].text == f"{frames} frames in fra"
        assert found[k].sample_rate == 24000
        assert found[k].samples.shape == (frames * 240,)
        level = expected_level(loudness)
        np.testing.assert_allclose(found[k].samples, level, rtol=1e-4)
    for k in (1, 3):
        assert "not finite: silent or too short" in found[k].error
    (call,) = notes("predict")
    assert call == {
        "task": "s2st",
        "language": "fra",
        "count": 3,
        "shape": [3, 50, 80],
        "duration_factor": 1.2,
        "beam_size": 5,
        "soft_max_seq_len": [0, 200],
        "unk_penalty": math.inf,
        "ngram_size": 10,
    }


def test_the_other_vocoder(place, notes):
    backend = make(place, vocoder="vocoder_pretssel_16khz")
    (found,) = backend.translate([speak("a", 40, 0.1)], "spa")
    backend.close()
    assert found.sample_rate == 16000
    assert found.samples.shape == (40 * 160,)
    assert notes("PretsselGenerator") == [{"name": "vocoder_pretssel_16khz"}]


def test_a_batch_too_large_for_the_gpu_is_halved(running, notes, room):
    room(2)
    batch = [speak(f"u{k}", 20 + k, 0.1) for k in range(5)]
    found = running.translate(batch, "deu")
    assert [each.text for each in found] == [
        f"{20 + k} frames in deu" for k in range(5)
    ]
    assert [call["count"] for call in notes("predict")] == [5, 2, 3, 1, 2]


def test_one_too_large_for_the_gpu_has_failed(running, room):
    room(0)
    (found,) = running.translate([speak("a", 20, 0.1)], "deu")
    assert found.error == "out of GPU memory"


def test_other_rates_and_channels_are_refused(running, tmp_path):
    # The backend never sends them; a driver of one's own may.
    running.open()
    soundfile.write(tmp_path / "a.wav", np.ones(800), 8000)
    soundfile.write(tmp_path / "b.wav", np.ones((800, 2)), 16000)
    answer = running._worker.ask(
        {
            "id": 1,
            "language": "fra",
            "folder": str(tmp_path),
            "utterances": [
                {"id": name, "audio": str(tmp_path / f"{name}.wav")}
                for name in "ab"
            ],
        },
        60,
    )
    assert [result["error"][:21] for result in answer["results"]] == [
        "1 channels at 8000 Hz",
        "2 channels at 16000 H",
    ]


@pytest.mark.parametrize(
    ("language", "factor"),
    [("cmn", 1.0), ("deu", 1.1), ("fra", 1.2), ("ita", 1.0), ("spa", 1.0)],
)
def test_the_authors_duration_factors(language, factor):
    assert DURATION_FACTORS[language] == factor


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"worker_python": "none/bin/python"},
            "interpreter none/bin.*m5ser.md",
        ),
        (
            {"worker_script": "worker.py"},
            "no worker.py .*the recipe's own worker",
        ),
        ({"model_folder": "spm"}, "no m2m_expressive_unity.pt; .*m5ser.md"),
        ({"tokenizer_folder": "weights"}, "no tokenizer.model; .*m5ser.md"),
        ({"vocoder": "hifigan"}, "expected one of vocoder_pretssel, "),
        ({"dtype": "int8"}, "expected one of float16, float32"),
        ({"dtype": "float16"}, "there is no GPU; give float32"),
        ({"environment": {}}, "is not complete .*fairseq2.*setup.sh"),
    ],
)
def test_what_is_missing_is_named(place, settings, message):
    with pytest.raises(InputError, match=message):
        make(place, **settings).open()


@pytest.mark.parametrize("name", WEIGHTS[:2] + TOKENIZERS)
def test_each_missing_file_is_named(place, tmp_path, name):
    folder = place / ("spm" if name in TOKENIZERS else "weights")
    (folder / name).rename(tmp_path / "elsewhere")
    try:
        with pytest.raises(InputError, match=re.escape(name)):
            make(place).open()
    finally:
        (tmp_path / "elsewhere").rename(folder / name)


def test_the_vocoders_other_name_is_known(place, tmp_path):
    other = tmp_path / "pretssel_melhifigan_wm-final.pt"
    for path in (other, tmp_path / WEIGHTS[0]):
        path.touch()
    assert str(other) in make(place, model_folder=tmp_path)._command()


def test_settings_do_not_say_where_files_are():
    one = SeamlessExpressive("a/python", "a/weights", "a/spm")
    other = SeamlessExpressive("b/python", "b/weights", "b/spm", max_seconds=9)
    assert one.settings() == other.settings()
    assert one.max_seconds == 20
    slower = SeamlessExpressive("a", "b", "c", duration_factors={"fra": 1.0})
    assert slower.settings() != one.settings()
    assert slower.languages == ("fra",)


# What fairseq2 0.2.1 and fairseq2n 0.2.1 say they need
NEEDED = {
    "fairseq2": "==0.2.1",
    "fairseq2n": "==0.2.1",
    "torch": "==2.2.2",
    "torchaudio": "==2.2.2",
    "numpy": "~=1.23",
    "jiwer": "~=3.0",
    "overrides": "~=7.3",
    "packaging": "~=23.1",
    "pyyaml": "~=6.0",
    "sacrebleu": "~=2.3",
    "torcheval": "~=0.0.6",
    "tqdm": "~=4.62",
    "tbb": ">=2021.8",
}


def test_the_environment_is_pinned_to_what_fairseq2_needs():
    lines = (RECIPE / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", pin) for pin in pins)
    versions = dict(pin.split("==") for pin in pins)
    for package, wanted in NEEDED.items():
        assert versions[package] in SpecifierSet(wanted), package
    assert {"soundfile", "scipy"} <= set(versions)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: "),
        (["{folder}/new", "{folder}/old"], "is Python 3.8; .* is for 3.11"),
        (["{folder}/new", "{folder}/none"], "cannot run .*/none"),
    ],
)
def test_the_setup_refuses_before_it_makes_anything(
    tmp_path, arguments, message
):
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\necho 3.8\n")
    old.chmod(0o755)
    run = subprocess.run(
        [
            RECIPE / "setup.sh",
            *(word.format(folder=tmp_path) for word in arguments),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert re.search(message, run.stderr)
    assert not (tmp_path / "new").exists()


def test_the_source_is_taken_at_one_commit():
    script = (RECIPE / "setup.sh").read_text()
    assert "COMMIT=90e2b57ac4d82fa2bfaa25caeffe39ceb8b2ebec\n" in script
    assert "seamless_communication@$COMMIT" in script
    assert "--no-deps" in script


def test_the_worker_says_what_it_was_not_given(tmp_path):
    log = tmp_path / "log"
    worker = WorkerProcess(
        [sys.executable, str(RECIPE / "worker_seamless.py")],
        str(tmp_path),
        dict(os.environ),
        log,
    )
    with pytest.raises(Exception, match="exit status 2"):
        worker.receive(60)
    worker.kill()
    assert "the following arguments are required" in log.read_text()
