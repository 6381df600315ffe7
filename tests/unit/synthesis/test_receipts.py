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
from speechbrain_mser.synthesis.receipts import (
    begin_folder,
    check_folder,
    clear_partial,
    forget,
    hold_part,
    lock_in,
    read_receipt,
    read_receipts,
    write_shard,
)

PLAN = {"shard_minutes": 15.0, "corpora": {"meld": {"utterances": 3}}}
SETTINGS = {"backend": "echo", "factors": {"fra": 1.2}}
ROW = {"ID": "a", "language": "fra", "text": 'sagt "ja",\nund', "error": ""}


@pytest.fixture
def finished(tmp_path):
    """A folder with one finished shard."""
    scratch = tmp_path / ".partial"
    scratch.mkdir()
    receipt = {"shard": "fra-00000", "plan": "p", "settings": "s"}
    write_shard(tmp_path, scratch, receipt, [ROW])
    return tmp_path


def test_a_finished_shard_is_found_again(finished):
    receipt = read_receipt(finished, "fra-00000", "p", "s")
    assert receipt["shard"] == "fra-00000"
    names = ["fra-00000", "fra-00001"]
    assert list(read_receipts(finished, names, "p", "s")) == ["fra-00000"]
    with open(finished / "shards/fra-00000.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert {name: row[name] for name in ROW} == ROW


@pytest.mark.parametrize("digests", [("other", "s"), ("p", "other")])
def test_another_plans_or_settings_shard_is_not_finished(finished, digests):
    assert read_receipt(finished, "fra-00000", *digests) is None


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
    spoil(finished / "shards")
    assert read_receipt(finished, "fra-00000", "p", "s") is None


def test_a_receipt_under_another_name_does_not_count(finished):
    for ending in ("csv", "json"):
        path = finished / f"shards/fra-00000.{ending}"
        path.rename(path.with_stem("fra-00001"))
    assert read_receipt(finished, "fra-00001", "p", "s") is None


def test_what_is_forgotten_is_not_finished(finished):
    forget(finished, "fra-00000")
    forget(finished, "fra-00000")
    assert read_receipt(finished, "fra-00000", "p", "s") is None


def test_halves_of_surrogate_pairs_do_not_stop_a_shard(finished):
    receipt = {"shard": "fra-00001", "plan": "p", "settings": "s"}
    rows = [{**ROW, "text": "a\ud83d"}]
    write_shard(finished, finished / ".partial", receipt, rows)
    assert read_receipt(finished, "fra-00001", "p", "s")


# The folder


def test_the_same_may_go_on(tmp_path):
    begin_folder(tmp_path / "out", PLAN, SETTINGS)
    begin_folder(tmp_path / "out", PLAN, SETTINGS)
    told = json.loads((tmp_path / "out/synthesis.json").read_text())
    assert told == {"plan": PLAN, "settings": SETTINGS}


def test_tuples_are_no_difference_to_lists(tmp_path):
    begin_folder(tmp_path, PLAN, {"languages": ("fra", "deu")})
    check_folder(tmp_path, PLAN, {"languages": ["fra", "deu"]})


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
    begin_folder(tmp_path, PLAN, SETTINGS)
    before = (tmp_path / "synthesis.json").read_bytes()
    for refuse in (begin_folder, check_folder):
        with pytest.raises(InputError) as error:
            refuse(tmp_path, plan, settings)
        assert told in str(error.value)
        assert "nothing is made of it yet" in str(error.value)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/fra-00000.json").touch()
    with pytest.raises(InputError, match="give another output folder"):
        begin_folder(tmp_path, plan, settings)
    assert (tmp_path / "synthesis.json").read_bytes() == before


@pytest.mark.parametrize("there", ["shards", "fra"])
def test_a_folder_that_does_not_say_what_it_is_is_refused(tmp_path, there):
    (tmp_path / there).mkdir()
    with pytest.raises(InputError, match=f"{there} in it, but no synthesis"):
        begin_folder(tmp_path, PLAN, SETTINGS)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"plan": 1}', "{"])
def test_a_folders_broken_file_is_named(tmp_path, text):
    (tmp_path / "synthesis.json").write_text(text)
    with pytest.raises(InputError, match=r"synthesis\.json: cannot be read"):
        begin_folder(tmp_path, PLAN, SETTINGS)


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a file is there or above"):
        begin_folder(tmp_path / "file/out", PLAN, SETTINGS)


def test_looking_at_a_folder_that_is_not_there_makes_none(tmp_path):
    check_folder(tmp_path / "out", PLAN, SETTINGS)
    assert read_receipts(tmp_path / "out", ["fra-00000"], "p", "s") == {}
    assert list(tmp_path.iterdir()) == []


# Two runs at once

HOLD = """
import sys, time
from speechbrain_mser.synthesis.receipts import hold_part
with hold_part(sys.argv[1], "1/2"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_until_the_first_is_gone(tmp_path):
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE
    )
    try:
        assert first.stdout.readline() == b"held\n"
        with (
            pytest.raises(InputError, match="another run is making part 1/2"),
            hold_part(tmp_path, "1/2"),
        ):
            pass
        with hold_part(tmp_path, "2/2"):
            pass
    finally:
        # As a crash does: it lets go of nothing
        first.kill()
        first.communicate()
    for _ in range(2):
        with hold_part(tmp_path, "1/2"):
            pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, number):
    # No such file system can be mounted here
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    for hold in (hold_part, lock_in):
        with (
            pytest.raises(InputError, match=r"has no locks .*the option flock"),
            hold(tmp_path, "1-of-2"),
        ):
            pass


def test_nothing_partial_stays_when_all_is_made(finished):
    (finished / ".partial/fra-00001-abc").mkdir()
    (finished / ".partial/fra-00001-abc/0").touch()
    (finished / ".partial-123-synthesis.json").touch()
    clear_partial(finished)
    assert [path.name for path in finished.iterdir()] == ["shards"]
