"""The script that makes M5SER, with a translator that only echoes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import m5ser_card
import pytest
from demo_m5ser import differences

from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.files.tables import read_table
from speechbrain_mser.synthesis.folder import SynthesisFolder

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "recipes/M5SER/synthesize.py"
BENCHMARKS = ROOT / "benchmarks"
# tiny_corpus: five speakers, four emotions, once in English
SOURCES = 20


@pytest.fixture
def yaml(tmp_path, monkeypatch):
    """The recipe's YAML with one more backend."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    for name in ("synthesize.yaml", "corpora.yaml"):
        shutil.copy(ROOT / "hparams" / name, tmp_path)
    with open(tmp_path / "synthesize.yaml", "a") as file:
        file.write(
            "  echo:\n"
            "    !name:echo_backend.EchoBackend\n"
            "    gain: !ref <gain>\n"
            "    seconds: !ref <seconds>\n"
            "gain: 1.0\n"
            "seconds: 0.0\n"
        )
    return tmp_path / "synthesize.yaml"


@pytest.fixture
def flags(tiny_corpus, tmp_path):
    """Two languages in four shards of some four seconds."""
    shutil.copytree(tiny_corpus / "manifests", tmp_path / "manifests")
    return {
        "data_root": str(tiny_corpus / "corpora"),
        "output_folder": str(tmp_path / "out"),
        "manifest_folder": str(tmp_path / "manifests"),
        "corpora": "[tiny]",
        "skip_prep": "True",
        "languages": "[deu, fra]",
        "backend": "echo",
        "shard_minutes": "0.07",
    }


@pytest.fixture
def synthesize(run_script, yaml, flags, monkeypatch):
    """Run the script here; give its exit code."""
    # test_m5ser_card.py sees to the pictures, which take longer than the rest
    monkeypatch.setattr(m5ser_card, "_draw_map", lambda *_: None)
    monkeypatch.setattr(m5ser_card, "draw_distributions", lambda *_: None)

    def run(**changed):
        return run_script("synthesize", yaml, flags={**flags, **changed})

    return run


def audio(folder):
    """Path to content of all translations."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*.flac")
    }


def all_paths(folder):
    return sorted(map(str, folder.rglob("*")))


def test_a_dry_run_and_a_status_write_nothing(synthesize, tmp_path, capsys):
    before = all_paths(tmp_path)
    assert synthesize(dry_run=True, speed=0.5, n_workers=2) == 0
    told = capsys.readouterr().out
    # Twice 10 s of speech, at half of its time by each of two workers
    assert "time: 20 s (2 workers at 0.5 times real time each)" in told
    total = next(line for line in told.splitlines() if "total" in line)
    assert total.split() == ["total", str(2 * SOURCES), "0.01", "6"]
    assert synthesize(dry_run=True) == 0
    assert "not known before a shard is finished" in capsys.readouterr().out
    assert synthesize(status=True) == 0
    assert f"0/{2 * SOURCES}" in capsys.readouterr().out
    assert all_paths(tmp_path) == before


def test_all_is_made_once_and_training_finds_it(synthesize, tmp_path, capsys):
    out = tmp_path / "out"
    # What fails before its first shard leaves the folder free for another
    assert synthesize(backend="external", command="[/nowhere/python]") == 2
    assert "/nowhere/python is not there" in capsys.readouterr().err
    assert synthesize() == 0
    assert f"{2 * SOURCES}/{2 * SOURCES}" in capsys.readouterr().out
    assert len(audio(out)) == 2 * SOURCES
    table = read_manifest(tmp_path / "manifests/m5ser.csv", out)
    assert set(table.language) == {"deu", "fra"}
    assert set(table.split) == {"train", "valid", "test"}
    assert (out / "README.md").is_file()
    assert not (out / ".partial").exists()
    # Nothing is made again
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.flac")}
    assert synthesize(n_workers=2) == 0
    assert times == {p: p.stat().st_mtime_ns for p in out.rglob("*.flac")}
    assert synthesize(status=True) == 0
    assert "left: nothing" in capsys.readouterr().out
    # Another translator's, or other sources', are not mixed with it
    assert synthesize(gain=0.5) == 2
    assert "gain was 1.0, is 0.5" in capsys.readouterr().err
    assert synthesize(labels="[happy]") == 2
    assert "corpora.tiny.utterances was 20, is 5" in capsys.readouterr().err
    assert synthesize(shard_minutes=1, status=True) == 2
    assert "shard_minutes was 0.07, is 1.0" in capsys.readouterr().err
    assert times == {p: p.stat().st_mtime_ns for p in out.rglob("*.flac")}


def test_parts_make_what_one_run_makes(synthesize, tmp_path, capsys):
    out, whole = tmp_path / "out", tmp_path / "whole"
    # More parts than shards
    assert synthesize(shard_index="9/9") == 0
    assert synthesize(shard_index="9/9", status=True) == 0
    assert audio(out) == {}
    assert synthesize(shard_index="2/2") == 0
    assert "other parts are not finished" in capsys.readouterr().out
    assert 0 < len(audio(out)) < 2 * SOURCES
    assert not (out / "README.md").exists()
    assert synthesize(shard_index="1/2") == 0
    assert (out / "README.md").is_file()
    assert synthesize(output_folder=whole) == 0
    assert audio(out) == audio(whole)


def test_what_failed_is_told_and_can_be_tried_again(
    synthesize, tiny_corpus, tmp_path, capsys
):
    data = tmp_path / "corpora"
    shutil.copytree(tiny_corpus / "corpora", data)
    broken = data / "tiny/tiny_eng_1_sad.wav"
    sound = broken.read_bytes()
    broken.write_bytes(b"no audio")
    assert synthesize(data_root=data, languages="[fra]") == 0
    assert "failures: unreadable 1" in capsys.readouterr().out
    assert len(audio(tmp_path / "out")) == SOURCES - 1
    broken.write_bytes(sound)
    again = {"retry_failed": True, "data_root": data, "languages": "[fra]"}
    assert synthesize(**again) == 0
    assert "failures: none" in capsys.readouterr().out
    assert len(audio(tmp_path / "out")) == SOURCES


def test_audio_that_was_lost_or_changed_is_told_and_made_again(
    synthesize, run_script, tmp_path
):
    out, manifests = tmp_path / "out", tmp_path / "manifests"
    assert synthesize() == 0
    before = audio(out)
    lost, changed, *_, other = sorted(before)
    (out / lost).unlink()
    flags = {"data_folder": out, "save_folder": manifests}
    assert run_script("m5ser_prepare", flags=flags) == 0
    dropped = read_table(manifests / "m5ser_dropped.csv", ["item", "reason"])
    (reason,) = [row["reason"] for row in dropped if row["item"] == lost]
    assert reason.startswith("lost: a finished shard has it")
    kept = read_manifest(manifests / "m5ser.csv", out)
    assert len(kept) + len(dropped) == 2 * SOURCES
    assert synthesize() == 0
    assert audio(out) == before
    # Good audio, of another utterance
    shutil.copy(out / other, out / changed)
    assert synthesize(check_audio=True) == 0
    assert audio(out) == before


@pytest.mark.parametrize(
    "changed, told",
    [
        ({"languages": "[fra, ell]"}, "echo does not speak ell; it speaks cmn"),
        ({"languages": "fr"}, "three letters"),
        ({"languages": "ell"}, "echo does not speak ell"),
        ({"languages": "[fra, fra]"}, "three letters"),
        ({"backend": "none"}, "expected one of seamless_expressive"),
        ({"executor": "slurm"}, "expected local or ray"),
        ({"shard_index": "3/2"}, "shard_index is '3/2', expected for example"),
        ({"n_workers": 0}, "n_workers is 0, expected a whole number"),
        ({"batch_size": 1.5}, "batch_size is 1.5, expected a whole number"),
        ({"shard_minutes": "ten"}, "shard_minutes is 'ten', expected a number"),
        ({"labels": "paper5"}, "unknown label set"),
        ({"source_languages": "[ita]"}, "no utterance has language ita"),
        ({"data_root": "/nowhere"}, "is not a folder"),
        ({"corpora": "[meld]"}, "no such manifest"),
        ({"speed": 0, "dry_run": True}, "speed is 0"),
        ({"speed": "fast", "dry_run": True}, "speed is 'fast', expected a"),
        ({"retry_failed": "no"}, "retry_failed is 'no', expected True or"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_made(
    synthesize, tmp_path, capsys, changed, told
):
    assert synthesize(**changed) == 2
    assert told in capsys.readouterr().err
    assert audio(tmp_path / "out") == {}


def command(yaml, flags, **changed):
    words = [sys.executable, SCRIPT, yaml]
    for name, value in {**flags, **changed}.items():
        words += [f"--{name}", str(value)]
    return list(map(str, words))


def environment():
    return {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{BENCHMARKS}",
        "OMP_NUM_THREADS": "1",
    }


def test_ray_makes_the_same_and_its_drivers_keep_each_other_out(
    synthesize, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("ray")
    # Half a CPU each, for machines with one; paths begin where it is started
    ray = {"executor": "ray", "n_workers": 2, "ray_cpus": 0.5}
    ray = {**ray, "output_folder": "by_ray", "manifest_folder": "manifests"}
    monkeypatch.chdir(tmp_path)
    assert synthesize(**ray) == 0
    assert not (tmp_path / "by_ray/.partial").exists()
    assert synthesize(output_folder=tmp_path / "by_local") == 0
    folders = [tmp_path / "by_ray", tmp_path / "by_local"]
    assert len(audio(folders[0])) == 2 * SOURCES
    assert differences(*folders) == []
    with SynthesisFolder(tmp_path / "out", {}, {}).hold_part("1/1"):
        assert synthesize(executor="ray") == 2
    assert "another run is making part 1/1" in capsys.readouterr().err


def test_without_ray_its_extra_is_named(synthesize, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert synthesize(executor="ray") == 2
    assert "pip install 'speechbrain-mser[ray]'" in capsys.readouterr().err


def test_an_interrupted_run_says_so_and_goes_on(
    yaml, flags, synthesize, tmp_path, capsys
):
    out = tmp_path / "out"
    # In a session of its own: its children can be counted, none may stay
    process = subprocess.Popen(
        command(yaml, flags, seconds=0.3, shard_minutes=0.02, batch_size=2),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 600
        while not list(out.glob("shards/*.json")):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted; run it again" in errors
    assert "Traceback" not in errors
    before = {p: p.stat().st_mtime_ns for p in out.glob("shards/*.json")}
    assert synthesize(shard_minutes=0.02) == 0
    after = {p: p.stat().st_mtime_ns for p in out.glob("shards/*.json")}
    # What was finished was not made again
    assert before.items() < after.items()
    assert len(audio(out)) == 2 * SOURCES


def test_a_full_disk_ends_with_advice_and_the_next_run_goes_on(
    yaml, flags, synthesize, tmp_path
):
    # No file beyond 8 kB: the audio is some 10. In a process whose output is
    # no file, as pytest's is.
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "limited"]
    done = subprocess.run(
        [*limited, *command(yaml, flags)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "cannot be written to (File too large)" in done.stderr
    assert "what is finished is kept" in done.stderr
    assert "Traceback" not in done.stderr
    partial = tmp_path / "out/.partial"
    assert all(p.suffix == ".lock" for p in partial.iterdir())
    assert synthesize() == 0
    assert len(audio(tmp_path / "out")) == 2 * SOURCES


def test_a_few_kills_change_nothing():
    done = subprocess.run(
        [
            *(sys.executable, BENCHMARKS / "kill_synthesis.py"),
            *("--kills", "3", "--utterances", "40"),
        ],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "each time the same" in done.stdout
