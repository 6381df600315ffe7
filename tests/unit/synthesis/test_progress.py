"""Rates and times, by hand."""

import pandas
import pytest

from speechbrain_mser.errors import InputError
from speechbrain_mser.synthesis.progress import (
    BYTES_PER_SECOND,
    measure,
    plan_report,
    status_report,
)

SHARDS = pandas.DataFrame(
    {
        "name": ["deu-00000", "deu-00001", "fra-00000", "fra-00001"],
        "language": ["deu", "deu", "fra", "fra"],
        "utterances": [100, 50, 100, 50],
        "seconds": [3600.0, 1800.0, 3600.0, 1800.0],
    }
)


def receipt(finished_at, wall, source, made=90, failed=7, too_long=3):
    return {
        "planned": made + failed + too_long,
        "made": made,
        "failed": failed,
        "too_long": too_long,
        "errors": {"too long": too_long, "unreadable": failed},
        "source_seconds": source,
        "seconds": 1.1 * source,
        "bytes": int(20_000 * source),
        "finished_at": finished_at,
        "wall_seconds": wall,
    }


RECEIPTS = {
    # Another day, another machine: ten times slower
    "deu-00000": receipt(100_000.0, 36_000.0, 3600.0),
    # The last hour of work: from 499,000 to 500,800
    "fra-00000": receipt(500_000.0, 1000.0, 3600.0),
    "fra-00001": receipt(500_800.0, 1200.0, 1800.0, 48, 0, 2),
}


def test_the_rate_is_that_of_the_last_hour():
    found = measure(SHARDS, RECEIPTS)
    # 5400 s of speech in 1800 s; 1800 s are left
    assert found["rate"] == pytest.approx(3.0)
    assert found["seconds_left"] == pytest.approx(600.0)
    assert (found["shards_finished"], found["shards"]) == (3, 4)
    assert (found["planned"], found["utterances"]) == (250, 300)
    assert (found["made"], found["failed"], found["too_long"]) == (228, 14, 8)
    assert found["errors"] == {"too long": 8, "unreadable": 14}


def test_before_the_first_shard_nothing_is_known():
    found = measure(SHARDS, {})
    assert found["rate"] is None and found["seconds_left"] is None
    assert "rate" not in status_report(SHARDS, {})


def test_the_status_says_all_of_it():
    lines = status_report(SHARDS, RECEIPTS).splitlines()
    assert lines[1].split() == ["deu", "1/2", "100/150", "90", "7", "3"]
    assert lines[2].split() == ["fra", "2/2", "150/150", "138", "7", "5"]
    assert lines[3].split() == ["total", "3/4", "250/300", "228", "14", "8"]
    assert lines[5] == (
        "source speech: 2.50 of 3.00 h (83.3%), made: 2.75 h, 180.0 MB"
    )
    assert lines[6] == "rate: 3 times real time; left: 10 min"
    assert lines[7] == "failures: unreadable 14, too long 8"


def test_a_plan_says_what_to_expect():
    told = plan_report(SHARDS, {}, n_workers=4, speed=1.5)
    assert told.splitlines()[3].split() == ["total", "300", "3.00", "4"]
    size = 10_800 * BYTES_PER_SECOND / 1e6
    assert f"disk: {size:.1f} MB" in told
    # 10,800 s by four at 1.5 times real time
    assert "time: 30 min (4 workers at 1.5 times real time each)" in told


def test_what_is_finished_tells_what_the_rest_takes():
    told = plan_report(SHARDS, RECEIPTS, n_workers=1)
    # 20 kB for each of 10,800 s
    assert "disk: 216.0 MB (as the shards that are finished)" in told
    assert "time: 10 min (at the rate measured so far)" in told
    assert "finished: 3 of 4 shards" in told


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf")])
def test_a_speed_that_is_none_is_refused(speed):
    with pytest.raises(InputError, match="speed is"):
        plan_report(SHARDS, {}, 1, speed)
