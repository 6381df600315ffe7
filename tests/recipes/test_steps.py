"""Steps run once, again when their command changes, and stop on failure."""

import json

import pytest
from steps import NOTE, Steps, as_flags, begin_with, summarize

from speechbrain_mser.errors import InputError


@pytest.fixture
def steps(tmp_path, monkeypatch):
    import steps as module

    script = tmp_path / "count.py"
    script.write_text(
        "import sys, pathlib\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "path.write_text(path.read_text() + 'x' if path.exists() else 'x')\n"
        "sys.exit(int(sys.argv[2]))\n"
    )
    monkeypatch.setattr(module, "RECIPE", tmp_path)
    return lambda: Steps(tmp_path)


def test_a_step_runs_once_until_its_command_changes(steps, tmp_path):
    counter = tmp_path / "counter"
    for _ in range(2):
        steps().run("one", "count.py", counter, 0)
    assert counter.read_text() == "x"
    steps().run("one", "count.py", counter, "00")
    assert counter.read_text() == "xx"


def test_what_comes_after_a_changed_step_runs_again(steps, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for flag in ("0", "00"):
        run = steps()
        run.run("one", "count.py", first, flag)
        run.run("two", "count.py", second, "0")
    assert second.read_text() == "xx"


def test_a_failed_step_ends_with_its_code_and_is_not_done(steps, tmp_path):
    counter = tmp_path / "counter"
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            steps().run("one", "count.py", counter, 2)
        assert ended.value.code == 2
    assert counter.read_text() == "xx"


def test_an_interrupted_training_keeps_its_checkpoints(tmp_path):
    folder = tmp_path / "row"
    checkpoint = folder / "training" / "save"
    begin_with(folder, {"lr": 0.1})
    checkpoint.mkdir(parents=True)
    begin_with(folder, {"lr": 0.1})
    assert checkpoint.is_dir()
    begin_with(folder, {"lr": 0.2})
    assert [path.name for path in folder.iterdir()] == [NOTE]


def test_a_folder_of_others_is_not_emptied(tmp_path):
    other = tmp_path / "stage1" / "1234" / "train_log.txt"
    other.parent.mkdir(parents=True)
    other.touch()
    with pytest.raises(InputError, match="stage1 is not empty"):
        begin_with(tmp_path / "stage1", {"lr": 0.1})
    assert other.exists()


def test_a_folder_that_is_half_emptied_is_emptied_again(tmp_path, monkeypatch):
    import steps as module

    begin_with(tmp_path, {"lr": 0.1})
    checkpoint = tmp_path / "save"
    checkpoint.mkdir()

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            begin_with(tmp_path, {"lr": 0.2})
    # Back to the settings from before: what is left of it is not whole.
    begin_with(tmp_path, {"lr": 0.1})
    assert not checkpoint.exists()


def test_flags_are_yaml():
    flags = as_flags({"a": None, "b": True, "c": ["x"], "d": "text"})
    assert flags == [
        "--a",
        "null",
        "--b",
        "true",
        "--c",
        '["x"]',
        "--d",
        "text",
    ]


def test_summary_tells_zero_shot_from_seen(tmp_path):
    from speechbrain_mser.evaluation.metrics import emotion_metrics

    labels = ["sad", "angry"]
    for stage, said in (("stage1", "sad"), ("stage2", "angry")):
        metrics = emotion_metrics(["sad", "angry"], [said, "angry"], labels)
        metrics |= {"labels": labels, "languages": ["eng"]}
        path = tmp_path / stage / "evaluation" / "metrics.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"a": metrics, "b": metrics}))
    table = summarize(tmp_path, {"stage1": ["a", "b"], "stage2": ["b"]})
    lines = table.splitlines()
    assert lines[2].split("|")[1:5] == [
        " stage1 ",
        " a   ",
        " eng      ",
        " zero-shot ",
    ]
    assert lines[4].split("|")[4].strip() == "seen"
    assert "stage1: mean UA of 2 zero-shot sets 1.000" in lines
    assert "stage2: mean UA of 1 seen sets 0.500" in lines
    assert (tmp_path / "table.md").read_text() == table + "\n"
    assert len(json.loads((tmp_path / "metrics.json").read_text())) == 4
