"""An ablation runs every row once, goes on where it was, and adds up right."""

import json
import statistics
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from speechbrain_mser.errors import InputError
from speechbrain_mser.settings.hparams import place_overrides, read_settings

ROOT = Path(__file__).resolve().parents[2]
HPARAMS = ROOT / "hparams"
METRICS = ("WA", "UA", "WF1", "precision")


def rows_of(table, name):
    """The cells beside a name, in a Markdown text's tables."""
    lines = [line.split("|") for line in table.splitlines()]
    cells = [[cell.strip() for cell in line[1:-1]] for line in lines]
    return [row[1:] for row in cells if row and row[0] == name]


def shipped():
    """The settings of ablation.yaml as it is."""
    path = HPARAMS / "ablation.yaml"
    return json.loads(json.dumps(read_settings(path, {})))


@pytest.fixture
def small(tiny_flags, tiny_corpus, tmp_path):
    """Settings of an ablation of two rows on tiny models."""
    flags = {name: yaml.safe_load(v) for name, v in tiny_flags.items()}
    shared = {
        "data_root": flags.pop("data_root"),
        "manifest_folder": flags.pop("manifest_folder"),
        "skip_prep": flags.pop("skip_prep"),
        "num_workers": flags.pop("num_workers"),
        "features": "write",
        "feature_folder": str(tmp_path / "features"),
    }
    return {
        "output_folder": str(tmp_path / "ablation"),
        "seeds": [1, 2],
        "jobs": 1,
        "demo": False,
        "data_root": shared["data_root"],
        "shared": shared,
        "base": flags,
        "stages": {
            "stage1": {"languages": ["eng"]},
            "stage2": {"languages": ["eng", "deu"]},
        },
        "evaluation": {
            "batch_size": 8,
            "sets": [
                {
                    "name": "both languages",
                    "corpus": "tiny",
                    "split": "test",
                    "labels": "paper4",
                }
            ],
        },
        "groups": {"a": "first", "b": "second"},
        "rows": {
            "ser": {
                "name": "SER",
                "group": "a",
                "stage": "stage1",
                "settings": {"w1": 0.0, "w2": 0.0},
                "paper": dict.fromkeys(METRICS, 0.5),
            },
            "s2": {
                "name": "S2",
                "group": "b",
                "stage": "stage2",
                "after": "ser",
            },
        },
    }


@pytest.fixture
def ablate(run_script, tmp_path):
    """Run ablation.py on settings, as written into a YAML file."""

    def run(settings):
        path = tmp_path / "ablation.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        return run_script("ablation", path)

    return run


def test_a_miniature_is_run_once_and_its_table_follows_from_the_evaluations(
    small, ablate, in_this_process
):
    assert ablate(small) == 0
    scripts = [name for name, _ in in_this_process.ran]
    # Two stages to extract for; two rows with two seeds
    assert scripts == ["extract"] * 2 + ["train", "evaluate"] * 4
    folder = Path(small["output_folder"])
    for name in ("table.csv", "ablation.png", "ablation.pdf"):
        assert (folder / name).stat().st_size > 0
    uas = [
        json.loads(
            (folder / "s2" / f"seed{seed}/evaluation/metrics.json").read_text()
        )["both languages"]["UA"]
        for seed in (1, 2)
    ]
    mean = (uas[0] + uas[1]) / 2
    sd = abs(uas[0] - uas[1]) / 2**0.5
    table = (folder / "table.md").read_text()
    (row,) = rows_of(table, "S2")
    assert row[1] == f"{mean:.3f} ± {sd:.3f}"
    # This run's, and the paper's
    assert rows_of(table, "SER")[1] == ["0.500"] * 4

    # All is done: a second run does nothing and says the same.
    in_this_process.ran.clear()
    before = (folder / "metrics.json").read_bytes()
    assert ablate(small) == 0
    assert in_this_process.ran == []
    assert (folder / "metrics.json").read_bytes() == before

    # What was trained otherwise is trained anew, and what starts from it.
    small["seeds"] = [1]
    small["rows"]["ser"]["settings"] = {"w1": 0.0, "w2": 0.5}
    assert ablate(small) == 0
    trained = [
        arguments[arguments.index("--output_folder") + 1]
        for name, arguments in in_this_process.ran
        if name == "train"
    ]
    assert "extract" not in [name for name, _ in in_this_process.ran]
    assert trained == [
        str(folder / key / "seed1" / "training") for key in ("ser", "s2")
    ]
    table = (folder / "table.md").read_text()
    assert "one seed" in table
    assert "±" not in table


def test_a_failure_ends_the_run_and_the_next_goes_on_from_there(
    small, ablate, in_this_process
):
    small["seeds"] = [1]
    del small["rows"]["s2"]
    in_this_process.fail.append("evaluate")
    assert ablate(small) == 3
    scripts = [name for name, _ in in_this_process.ran]
    assert scripts == ["extract", "train", "evaluate"]
    assert not (Path(small["output_folder"]) / "table.md").exists()
    in_this_process.fail.clear()
    in_this_process.ran.clear()
    assert ablate(small) == 0
    assert [name for name, _ in in_this_process.ran] == ["evaluate"]


def test_rows_wait_for_their_start_and_first_evaluations_are_alone(
    small, monkeypatch
):
    import steps
    from ablation import Ablation

    small |= {"jobs": 4, "seeds": [1, 2, 3]}
    small["rows"]["linear"] = {"name": "L", "group": "b", "stage": "stage1"}
    events, lock = [], threading.Lock()

    def call(command):
        script = Path(command[1]).stem
        output = Path(command[command.index("--output_folder") + 1])
        row, seed = output.parts[-3:-1]
        with lock:
            events.append(("begin", script, row, seed))
        time.sleep(0.01)  # lets others begin
        with lock:
            events.append(("end", script, row, seed))
        return 0

    monkeypatch.setattr(steps, "subprocess", SimpleNamespace(call=call))
    Ablation(small).run()
    assert len(events) == 2 * 2 * 9
    for seed in ("seed1", "seed2", "seed3"):
        assert events.index(("end", "evaluate", "ser", seed)) < events.index(
            ("begin", "train", "s2", seed)
        )
    evaluations = [event for event in events if event[1] == "evaluate"]
    assert evaluations[0][0] == "begin"
    assert evaluations[1] == ("end", *evaluations[0][1:])


def test_mean_and_deviation_by_hand():
    from ablation import mean_and_sd

    over_seeds = mean_and_sd([0.1, 0.2, 0.6])
    assert over_seeds["mean"] == pytest.approx(0.3)
    # ((-0.2)^2 + (-0.1)^2 + 0.3^2) / (3 - 1) = 0.07
    assert over_seeds["sd"] == pytest.approx(0.07**0.5)
    assert mean_and_sd([0.1])["sd"] is None


def test_tables_say_what_was_collected():
    from ablation import markdown, mean_and_sd, table_csv

    metrics = dict.fromkeys(METRICS, mean_and_sd([0.25, 0.75]))
    row = {"group": "g", "paper": None}
    sets = {"x": {"n": 4, "chance": 0.5, **metrics}}
    rows = [{**row, "name": name, "sets": sets} for name in ("A", "B")]
    text = markdown(rows, [1, 2])
    assert "### x: n = 4, chance 0.500, mean ± sd over 2 seeds" in text
    cell = f"0.500 ± {statistics.stdev([0.25, 0.75]):.3f}"
    assert rows_of(text, "B") == [[cell] * 4]
    assert rows_of(text, "*g*") == [[""] * 4]
    lines = table_csv(rows, [1, 2]).splitlines()
    assert lines[0] == "group,row,set,metric,seed,value"
    assert lines[2] == "g,A,x,WA,2,0.75"
    assert len(lines) == 1 + 2 * 4 * 2


@pytest.mark.parametrize(
    "change, says",
    [
        ({"rows": {"a": {"name": "A"}}}, "missing: group, stage"),
        ({"seeds": []}, "seeds is []"),
        ({"jobs": 0}, "jobs is 0"),
    ],
)
def test_what_cannot_be_run_is_refused(small, change, says):
    from ablation import check_rows

    check_rows(small)
    with pytest.raises(InputError) as error:
        check_rows({**small, **change})
    assert says in str(error.value)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"lr": 1}, "unknown: lr"),
        ({"stage": "stage3"}, "no stage 'stage3' among stage1, stage2"),
        ({"group": "c"}, "no group 'c' among a, b"),
        ({"after": "s3"}, "no row above it; these are ser"),
        ({"name": "SER"}, "two rows are called 'SER'"),
    ],
)
def test_a_row_that_cannot_be_run_is_refused(small, change, says):
    from ablation import check_rows

    small["rows"]["s2"] |= change
    with pytest.raises(InputError) as error:
        check_rows(small)
    assert says in str(error.value)


def test_the_shipped_rows_name_settings_that_there_are():
    from ablation import Ablation, check_rows

    settings = shipped()
    check_rows(settings)
    ablation = Ablation(settings)
    for key, row in settings["rows"].items():
        flags = ablation.training_flags(key, 1)
        place_overrides(HPARAMS / f"{row['stage']}.yaml", flags)
    place_overrides(
        HPARAMS / "evaluate.yaml",
        {**settings["shared"], **settings["evaluation"]},
    )


def test_the_shipped_rows_are_table_2():
    rows = shipped()["rows"]
    # Table II of the paper, in per cent: WA, UA, WF1, precision
    paper = {
        "SER": (59.7, 48.8, 58.4, 67.9),
        "SER + L": (64.7, 48.6, 64.0, 67.9),
        "MSER": (62.2, 50.0, 61.1, 70.1),
        "MSER + L": (68.6, 49.1, 67.8, 70.2),
        "MSER (S2)": (66.0, 49.5, 65.0, 71.0),
        "MSER + L (S2)": (69.0, 51.3, 68.5, 71.0),
    }
    found = [row for row in rows.values() if "paper" in row]
    assert [row["name"] for row in found] == list(paper)
    for row in found:
        name = row["name"]
        percent = [round(100 * row["paper"][metric], 1) for metric in METRICS]
        assert percent == list(paper[name])
        # MSER learns from all languages, S2 from English first
        assert row["stage"] == ("stage2" if "MSER" in name else "stage1")
        assert ("after" in row) == ("S2" in name)
        assert (row.get("settings") is None) == ("+ L" in name)
    assert rows["mser_l_s2"]["after"] == "ser_l"
    assert rows["mser_s2"]["after"] == "ser"


def test_the_shipped_base_is_the_demo():
    import demo

    settings = shipped()
    base = {**settings["base"], **settings["shared"]}
    for name, value in demo.SMALL.items():
        assert base[name] == value
    for stage, of_demo in demo.STAGES.items():
        assert settings["stages"][stage]["languages"] == of_demo["languages"]
        assert base["lr"] == of_demo["lr"]
