"""One shard: what is made of it, whatever the translator does."""

import csv
import hashlib
import io
import json
import os
import pickle
import resource
import subprocess
import sys
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import soundfile
from echo_backend import EchoBackend

from speechbrain_mser.errors import InputError
from speechbrain_mser.synthesis.flac import encode_flac
from speechbrain_mser.synthesis.folder import SynthesisFolder
from speechbrain_mser.synthesis.shard import ShardWork
from speechbrain_mser.synthesis.sources import make_batches

HERE = Path(__file__).parent
BENCHMARKS = HERE.parents[2] / "benchmarks"


def rows_of(work, name="fra-00000"):
    path = work.folder.path / "shards" / f"{name}.csv"
    with open(path, newline="", encoding="utf-8") as file:
        return {row["ID"]: row for row in csv.DictReader(file)}


def made_in(work):
    """Names of the audio files that are there."""
    return sorted(path.stem for path in work.folder.path.rglob("*.flac"))


def test_a_shard_is_audio_rows_and_a_receipt(begin, sources):
    plan, work = begin()
    shard = plan.shard("fra-00000")
    receipt = work.make(shard)
    rows = rows_of(work)
    assert list(rows) == [task.ID for task in shard.tasks]
    size = 0
    for task, row in zip(shard.tasks, rows.values(), strict=True):
        path = work.folder.path / row["audio"]
        assert row["audio"] == f"fra/toy/{task.ID}.flac"
        samples, rate = soundfile.read(path)
        source, _ = soundfile.read(task.wav)
        # fra is the third of the languages: a third as loud, end first
        assert np.abs(samples - source[::-1] / 3).max() <= 0.5 / 32768 + 1e-6
        assert soundfile.info(path).subtype == "PCM_16"
        assert float(row["seconds"]) == pytest.approx(len(source) / 16000)
        assert int(row["sample_rate"]) == rate == 16000
        data = path.read_bytes()
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert row["text"] == task.text.upper()
        assert (row["clipped"], row["error"]) == ("0", "")
        size += len(data)
    assert receipt["planned"] == receipt["made"] == len(rows)
    assert receipt["failed"] == receipt["too_long"] == 0
    assert receipt["bytes"] == size
    assert receipt["versions"] == {"echo": "1"}
    assert receipt["source_seconds"] == pytest.approx(receipt["seconds"])
    path = work.folder.path / "shards/fra-00000.json"
    assert json.loads(path.read_text()) == receipt
    # A lock, and nothing half made
    left = os.listdir(work.folder.path / ".partial")
    assert {*left} <= {"fra-00000.lock", "folder.lock"}


def test_a_finished_shard_is_not_made_again(begin, mischief, notes):
    plan, work = begin(mischief("Noting"))
    shard = plan.shard("fra-00000")
    first = work.make(shard)
    asked = notes()
    assert len(asked) == 3
    assert work.make(shard) == first
    _, other = begin(mischief("Noting"))
    assert other.make(shard) == first
    assert notes() == asked


def test_batches_are_of_similar_duration(begin, mischief, notes):
    plan, work = begin(mischief("Noting"), batch_size=3)
    work.make(plan.shard("fra-00000"))
    asked = [batch.split("+") for batch in notes()]
    names = [task.ID for task in plan.shard("fra-00000").tasks]
    # Each of the sources is longer than the one before
    assert [*chain(*asked)] == names[::-1]
    assert [len(batch) for batch in asked] == [3, 3, 1]


def test_a_batch_holds_its_seconds_of_padded_audio():
    draw = np.random.default_rng(0)
    durations = draw.uniform(0.2, 30, 300).tolist()
    batches = make_batches(durations, 8, 60.0)
    assert sorted(chain(*batches)) == list(range(300))
    for batch in batches:
        padded = len(batch) * max(durations[k] for k in batch)
        assert len(batch) == 1 or (padded <= 60 and len(batch) <= 8)
    longest = [durations[batch[0]] for batch in batches]
    assert longest == sorted(longest, reverse=True)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_seconds": 0}])
def test_batches_of_nothing_are_refused(begin, options):
    with pytest.raises(InputError, match="at least 1 utterance"):
        begin(**options)


# Utterances that fail


def test_a_source_that_cannot_be_read_is_a_row(begin, sources, tmp_path):
    broken = sources.copy()
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    broken.loc[0, "wav"] = str(tmp_path / "broken.wav")
    broken.loc[1, "wav"] = str(tmp_path / "gone.wav")
    plan, work = begin(table=broken)
    receipt = work.make(plan.shard("fra-00000"))
    rows = rows_of(work)
    assert rows["toy_00"]["error"].startswith("unreadable: cannot be decoded")
    assert rows["toy_01"]["error"] == "unreadable: no such file"
    assert receipt["failed"] == 2 and receipt["errors"] == {"unreadable": 2}
    assert receipt["made"] == receipt["planned"] - 2 == len(made_in(work))


def test_parts_of_a_file_are_read(begin, sources):
    part = sources.assign(start=0.1, stop=0.25, duration=0.15)
    plan, work = begin(table=part)
    work.make(plan.shard("fra-00000"))
    assert {row["seconds"] for row in rows_of(work).values()} == {"0.15"}


class Short(EchoBackend):
    max_seconds = 0.45


def test_what_is_too_long_is_a_row_and_no_failure(begin, sources):
    # The manifest is right about 0.5 s and more, and wrong about the first
    wrong = sources.copy()
    wrong.loc[0, ["duration", "wav"]] = [0.3, sources.wav[2]]
    plan, work = begin(Short, table=wrong)
    receipt = work.make(plan.shard("fra-00000"))
    errors = {name: row["error"] for name, row in rows_of(work).items()}
    assert errors.pop("toy_01") == ""
    assert errors["toy_02"] == "too long: 0.50 s, echo takes 0.45 s"
    assert errors["toy_00"] == "too long: 0.50 s, echo takes 0.45 s"
    assert receipt["made"] == 1 and receipt["failed"] == 0
    assert receipt["too_long"] == len(errors) == receipt["planned"] - 1


@pytest.mark.parametrize(
    "name, options, reason",
    [
        ("Says", {}, "out of tune"),
        ("Raises", {}, "MemoryError: too much"),
        ("Nonsense", {"samples": None}, "no audio"),
        ("Nonsense", {"samples": []}, "no audio"),
        ("Nonsense", {"samples": [[0.1], [0.2]]}, "no audio"),
        ("Nonsense", {"samples": [0.1, np.nan]}, "samples are NaN or infinite"),
        ("Nonsense", {"samples": [0.1, np.inf]}, "samples are NaN or infinite"),
        ("Nonsense", {"samples": [0.1], "rate": 0}, "a sample rate of 0 Hz"),
    ],
)
def test_one_that_fails_leaves_the_others_alone(
    begin, mischief, name, options, reason
):
    plan, work = begin(mischief(name, only="toy_04", **options))
    names = [task.ID for task in plan.shard("fra-00000").tasks]
    assert "toy_04" in names
    # What an earlier run left of it
    work.folder.begin()
    old = work.folder.path / "fra/toy/toy_04.flac"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    receipt = work.make(plan.shard("fra-00000"))
    rows = rows_of(work)
    assert rows["toy_04"]["error"] == f"not translated: {reason}"
    assert rows["toy_04"]["audio"] == rows["toy_04"]["sha256"] == ""
    assert receipt["failed"] == 1 and receipt["made"] == len(names) - 1
    assert made_in(work) == [name for name in names if name != "toy_04"]


def test_a_translator_that_always_raises_makes_no_shard(begin, mischief):
    plan, work = begin(mischief("Broken"))
    with pytest.raises(KeyError, match="missing"):
        work.make(plan.shard("fra-00000"))
    assert not (work.folder.path / "shards").exists()
    assert made_in(work) == []


def test_translations_that_are_too_few_are_not_taken(begin, mischief):
    plan, work = begin(mischief("TooFew"))
    with pytest.raises(RuntimeError, match="gave 0 translations of 1"):
        work.make(plan.shard("fra-00000"))


def test_a_language_that_it_lacks_is_refused(begin, sources):
    plan, work = begin()
    shard = plan.shard("fra-00000")._replace(language="ell")
    with pytest.raises(InputError, match="does not speak ell; it speaks cmn"):
        work.make(shard)
    assert made_in(work) == []


def test_the_translator_is_opened_once_and_told_of_shards(
    begin, mischief, notes
):
    plan, work = begin(mischief("Closing"))
    # It travels before it is opened
    work = pickle.loads(pickle.dumps(work))
    assert notes() == []
    for name in plan.shards.name[:2]:
        work.make(plan.shard(name))
    again = pickle.loads(pickle.dumps(work))
    assert again._backend is None
    work.close()
    work.close()
    called = [note for note in notes() if "toy" not in note]
    assert called == ["open", "fra-00000", "fra-00001", "close"]


@pytest.mark.parametrize(
    "name, error", [("WithoutWeights", InputError), ("Broken", KeyError)]
)
def test_who_fails_before_the_first_shard_leaves_the_folder_free(
    begin, mischief, name, error
):
    plan, work = begin(mischief(name))
    with pytest.raises(error, match=r"no weights|missing"):
        work.make(plan.shard("fra-00000"))
    other = SynthesisFolder(
        work.folder.path, plan.description, {"backend": "another"}
    )
    ShardWork(EchoBackend, other).make(plan.shard("fra-00000"))
    # And is no longer, once there is one
    with pytest.raises(InputError, match='backend was "another", is "echo"'):
        begin()


# The audio


def test_flac_is_the_nearest_16_bits_and_counts_what_it_cuts():
    samples = np.array([0, 1, -1, 1.0001, -7, 0.25, 1e-5, -1e-5], np.float32)
    flac, clipped = encode_flac(samples, 24000)
    # 1.0 itself is one step beyond the highest, and full scale all the same
    expected = [0, 32767, -32768, 32767, -32768, 8192, 0, 0]
    assert clipped == 2
    found, rate = soundfile.read(io.BytesIO(flac), dtype="int16")
    assert (found.tolist(), rate) == (expected, 24000)


# Killed anywhere

KILLED = """
import os, signal, sys, shutil, pickle
from pathlib import Path
import torch  # before the forks, which would each import it
import speechbrain_mser.dataio.audio
from speechbrain_mser.synthesis import folder, shard
import filelock

work, task = pickle.load(open(sys.argv[1], "rb"))
out = work.folder.path

def forked(kill_at):
    # The number of steps that were made, None when it was killed
    child = os.fork()
    if child == 0:
        steps = 0
        def step(wrapped):
            def call(*args, **kwargs):
                nonlocal steps
                if steps == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                steps += 1
                return wrapped(*args, **kwargs)
            return call
        os.replace = step(os.replace)
        os.fsync = step(os.fsync)
        Path.unlink = step(Path.unlink)
        Path.mkdir = step(Path.mkdir)
        shutil.rmtree = step(shutil.rmtree)
        work.make(task)
        Path(sys.argv[2]).write_text(str(steps))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    assert status == 0, status
    return int(Path(sys.argv[2]).read_text())

def tree():
    found = {}
    for path in out.rglob("*"):
        if path.is_file() and path.suffix in (".flac", ".csv"):
            found[str(path.relative_to(out))] = path.read_bytes()
    return found

def is_finished():
    return work.folder.receipt(task.name) is not None

out.mkdir()
steps = forked(-1)
calm = tree()
for kill_at in range(steps):
    shutil.rmtree(out)
    out.mkdir()
    assert forked(kill_at) is None
    # What says that it is finished is
    assert not is_finished() or tree() == calm, kill_at
    was_finished = is_finished()
    # Another kill on the way that is left, then none
    forked(kill_at // 2)
    forked(-1)
    assert is_finished() and tree() == calm, kill_at
    left = [p for p in (out / ".partial").iterdir() if p.suffix != ".lock"]
    # Nobody comes back for a finished one's; the end of the run removes it
    assert was_finished or not left, (kill_at, left)
print(steps)
"""


def test_killed_at_any_step_the_next_run_makes_the_same(begin, tmp_path):
    plan, work = begin()
    shard = plan.shard("fra-00000")
    with open(tmp_path / "work.pkl", "wb") as file:
        pickle.dump((work, shard._replace(tasks=shard.tasks[:3])), file)
    path = os.pathsep.join(map(str, (HERE, BENCHMARKS)))
    done = subprocess.run(
        [
            *(sys.executable, "-c", KILLED),
            *(tmp_path / "work.pkl", tmp_path / "steps"),
        ],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # Each utterance is written and moved, rows and receipt too, and more
    assert int(done.stdout) > 2 * 3 + 4


def test_a_retried_shard_loses_what_no_longer_succeeds(begin, mischief):
    plan, work = begin()
    shard = plan.shard("fra-00000")
    work.make(shard)
    assert "toy_04" in made_in(work)
    (work.folder.path / "shards/fra-00000.json").unlink()
    _, worse = begin(mischief("Says", only="toy_04"))
    worse.make(shard)
    assert "toy_04" not in made_in(work)


# Nowhere to write to


def test_a_disk_without_space_ends_with_advice_and_goes_on_later(begin):
    plan, work = begin()
    shard = plan.shard("fra-00000")
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(InputError) as error:
            work.make(shard)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    assert "cannot be written to" in str(error.value)
    assert "free some space" in str(error.value)
    assert made_in(work) == []
    assert not (work.folder.path / "shards").exists()
    assert work.make(shard)["made"] == len(shard.tasks)
    assert made_in(work) == [task.ID for task in shard.tasks]


def test_a_translator_without_space_is_no_utterances_fault(begin, mischief):
    plan, work = begin(mischief("Full", only="toy_04"))
    with pytest.raises(InputError, match="no space for its own files"):
        work.make(plan.shard("fra-00000"))
    assert made_in(work) == []


# Light to start


@pytest.mark.parametrize(
    "module", ["plan", "folder", "shard", "progress", "executors.local"]
)
def test_workers_start_without_torch(module):
    program = (
        f"import speechbrain_mser.synthesis.{module}, sys; "
        "heavy = {'torch', 'speechbrain', 'transformers'} & {*sys.modules}; "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_workers_do_not_import_pandas():
    program = (
        "import speechbrain_mser.synthesis.executors.local, sys; "
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_work_is_light_to_send(begin):
    _, work = begin(partial(EchoBackend, gain=0.5))
    assert len(pickle.dumps(work)) < 1000
    assert isinstance(work, ShardWork)
