"""What is finished, and what may be mixed."""

import csv
import errno
import fcntl
import json
import os
import subprocess
import sys

import pytest

from speechbrain_mser.errors import InputError
from speechbrain_mser.synthesis.folder import SynthesisFolder

PLAN = {
    "shard_minutes": 15.0,
    "corpora": {"meld": {"utterances": 3}},
}
SETTINGS = {"backend": "echo", "factors": {"fra": 1.2}}
ROW = {"ID": "a", "language": "fra", "text": 'sagt "ja",\nund', "error": ""}


@pytest.fixture
def finished(tmp_path):
    """A folder with one finished shard."""
    return finish(tmp_path)


def finish(path, name="fra-00000", row=ROW):
    """Finish a shard of one row."""
    scratch = path / ".partial"
    scratch.mkdir(exist_ok=True)
    folder = SynthesisFolder(path, PLAN, SETTINGS)
    folder.begin()
    folder.finish(scratch, {"shard": name}, [row])
    return folder


def test_a_finished_shard_is_found_again(finished):
    assert finished.receipt("fra-00000")["shard"] == "fra-00000"
    assert list(finished.receipts(["fra-00000", "fra-00001"])) == ["fra-00000"]
    # Also without what it was made of
    found = SynthesisFolder.of(finished.path)
    assert found.receipts() == finished.receipts()
    (row,) = found.rows("fra-00000")
    assert {name: row[name] for name in ROW} == ROW
    with open(finished.rows_path("fra-00000"), newline="") as file:
        assert list(csv.DictReader(file)) == [row]


@pytest.mark.parametrize(
    "change", [{"plan": "0"}, {"settings": "0"}, {"shard": "fra-00001"}]
)
def test_another_plans_or_settings_shard_is_not_finished(finished, change):
    path = finished.receipt_path("fra-00000")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert finished.receipt("fra-00000") is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda shards: (shards / "fra-00000.csv").write_text("other rows"),
        lambda shards: (shards / "fra-00000.csv").unlink(),
        lambda shards: (shards / "fra-00000.json").unlink(),
        lambda shards: (shards / "fra-00000.json").write_text('{"shard": "fr'),
        lambda shards: (shards / "fra-00000.json").write_text("[]"),
        lambda shards: (shards / "fra-00000.json").write_bytes(b"\xff\xfe"),
        lambda shards: (shards / "fra-00000.json").write_bytes(b""),
    ],
)
def test_half_a_shard_is_not_finished(finished, spoil):
    spoil(finished.path / "shards")
    assert finished.receipt("fra-00000") is None


def test_what_is_forgotten_is_not_finished(finished):
    finished.forget("fra-00000")
    finished.forget("fra-00000")
    assert finished.receipt("fra-00000") is None


def test_halves_of_surrogate_pairs_do_not_stop_a_shard(tmp_path):
    row = {**ROW, "text": "a\ud83d"}
    assert finish(tmp_path, "fra-00001", row).receipt("fra-00001")


# The folder


def test_the_same_may_go_on(tmp_path):
    SynthesisFolder(tmp_path / "out", PLAN, SETTINGS).begin()
    SynthesisFolder(tmp_path / "out", PLAN, SETTINGS).begin()
    told = json.loads((tmp_path / "out/synthesis.json").read_text())
    assert told == {"plan": PLAN, "settings": SETTINGS}


def test_tuples_are_no_difference_to_lists(tmp_path):
    SynthesisFolder(tmp_path, PLAN, {"languages": ("fra", "deu")}).begin()
    SynthesisFolder(tmp_path, PLAN, {"languages": ["fra", "deu"]}).begin()


@pytest.mark.parametrize(
    "plan, settings, told",
    [
        (
            {**PLAN, "shard_minutes": 10.0},
            SETTINGS,
            "shard_minutes was 15.0, is 10.0",
        ),
        (
            {**PLAN, "corpora": {"meld": {"utterances": 4}}},
            SETTINGS,
            "corpora.meld.utterances was 3, is 4",
        ),
        (
            {**PLAN, "corpora": {**PLAN["corpora"], "mead": {"hours": 1}}},
            SETTINGS,
            'corpora.mead was not there, is {"hours": 1}',
        ),
        (PLAN, {**SETTINGS, "backend": "m4t"}, 'backend was "echo", is "m4t"'),
        (
            PLAN,
            {**SETTINGS, "factors": {"fra": 1.0}},
            "factors.fra was 1.2, is 1.0",
        ),
        (PLAN, {"backend": "echo"}, "factors was {"),
        # Another digest: what was made would not be found again
        (PLAN, {**SETTINGS, "voice": None}, "voice was not there, is null"),
    ],
)
def test_a_folder_of_something_else_is_refused_and_kept(
    tmp_path, plan, settings, told
):
    late = SynthesisFolder(tmp_path, plan, settings)
    SynthesisFolder(tmp_path, PLAN, SETTINGS).begin()
    before = (tmp_path / "synthesis.json").read_bytes()
    # Whether it comes afterwards or was there when nothing was begun
    for begin in (
        late.begin,
        lambda: SynthesisFolder(tmp_path, plan, settings),
    ):
        with pytest.raises(InputError) as error:
            begin()
        assert told in str(error.value)
        assert "give another output folder" in str(error.value)
    assert (tmp_path / "synthesis.json").read_bytes() == before


@pytest.mark.parametrize("there", ["shards", "fra"])
def test_a_folder_that_does_not_say_what_it_is_is_refused(tmp_path, there):
    (tmp_path / there).mkdir()
    with pytest.raises(InputError, match=f"{there} in it, but no synthesis"):
        SynthesisFolder(tmp_path, PLAN, SETTINGS)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"plan": 1}', "{"])
def test_a_folders_broken_file_is_named(tmp_path, text):
    (tmp_path / "synthesis.json").write_text(text)
    with pytest.raises(InputError, match=r"synthesis\.json: cannot be read"):
        SynthesisFolder(tmp_path, PLAN, SETTINGS)


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written to"):
        SynthesisFolder(tmp_path / "file/out", PLAN, SETTINGS).begin()


def test_looking_at_a_folder_that_is_not_there_makes_none(tmp_path):
    folder = SynthesisFolder(tmp_path / "out", PLAN, SETTINGS)
    assert folder.receipts(["fra-00000"]) == {} == folder.receipts()
    assert list(tmp_path.iterdir()) == []


# Two runs at once

HOLD = """
import sys, time
from speechbrain_mser.synthesis.folder import SynthesisFolder
with SynthesisFolder(sys.argv[1], {}, {}).hold_part("1/2"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_until_the_first_is_gone(tmp_path):
    folder = SynthesisFolder(tmp_path, {}, {})
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE
    )
    try:
        assert first.stdout.readline() == b"held\n"
        with (
            pytest.raises(InputError, match="another run is making part 1/2"),
            folder.hold_part("1/2"),
        ):
            pass
        with folder.hold_part("2/2"):
            pass
    finally:
        # As a crash does: it lets go of nothing
        first.kill()
        first.communicate()
    for _ in range(2):
        with folder.hold_part("1/2"):
            pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, number):
    # No such file system can be mounted here
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    folder = SynthesisFolder(tmp_path, {}, {})
    for hold in (folder.hold_part, folder.lock):
        with (
            pytest.raises(InputError, match=r"has no locks .*the option flock"),
            hold("1-of-2"),
        ):
            pass


def test_nothing_partial_stays_when_all_is_made(finished):
    (finished.path / ".partial/fra-00001-abc").mkdir()
    (finished.path / ".partial/fra-00001-abc/0").touch()
    (finished.path / ".partial-123-synthesis.json").touch()
    finished.clear_partial()
    left = sorted(path.name for path in finished.path.iterdir())
    assert left == ["shards", "synthesis.json"]
