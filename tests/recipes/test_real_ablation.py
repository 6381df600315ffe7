"""Rows on real corpora: what they change, what they share, what is refused."""

import json

import pytest
import real_ablation
import yaml
from folds import Folds, read_overrides
from miniature import cells
from ruamel.yaml import YAML

from speechbrain_mser.errors import InputError
from speechbrain_mser.settings.project_files import HPARAMS


@pytest.fixture
def folds(real_corpora):
    data, folder, overrides = real_corpora
    return Folds(data, folder, read_overrides(overrides))


@pytest.fixture
def written(tmp_path):
    """Rows as a YAML file."""

    def write(rows):
        path = tmp_path / "rows.yaml"
        path.write_text(yaml.safe_dump({"rows": rows}, sort_keys=False))
        return path

    return write


def test_every_row_is_there_to_run(folds):
    path = HPARAMS / "real_ablation.yaml"
    rows = real_ablation.read_rows(path, folds, None)
    assert rows["recipe"]["settings"] == {}
    assert rows["without_lec"]["settings"] == {"w1": 0.0, "w2": 0.0}
    assert rows["layer_3"]["settings"] == {"encoder_layers": [3]}
    assert [*real_ablation.read_rows(path, folds, ["sum"])] == ["sum"]


def test_rows_of_stage_1_differ_in_its_loss_and_rate_alone(folds):
    rows = real_ablation.read_rows(HPARAMS / "flagship.yaml", folds, None)
    settings = [row["settings"] for row in rows.values()]
    own = {"reduction", "lr", "ce_weight", "w1", "w2"}
    shared = [
        {k: v for k, v in one.items() if k not in own} for one in settings
    ]
    assert all(one == shared[0] for one in shared)
    assert shared[0]["connector_type"] == "qformer"
    # Where the open recipe differs from stage 1's loop, so do they not.
    loop = YAML().load(HPARAMS / "training.yaml")
    recipe = YAML().load(HPARAMS / "open" / "train.yaml")["training"]
    kept = own | {"output_folder", "number_of_epochs", "weight_decay"}
    kept |= {"features", "feature_dtype", "num_workers"}
    for name in recipe.keys() - kept:
        assert shared[0].get(name, recipe[name]) == loop[name], name
    assert {one["lr"] for one in settings} == {1e-5, 1e-4, 5e-4}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"settings": {"lr": 1.0}}, "found settings"),
        ({"name": "a", "seting": {}}, "found name, seting"),
        ({"name": "a", "settings": {"lrr": 1.0}}, "no setting 'lrr'"),
        ({"name": "a", "first": ["emo"]}, "first is 'emo', expected one of"),
    ],
)
def test_a_row_that_cannot_be_run_is_refused(folds, written, row, message):
    with pytest.raises(InputError, match=message):
        real_ablation.read_rows(written({"mine": row}), folds, None)


def test_a_row_that_is_not_there_is_refused(folds, written):
    path = written({"mine": {"name": "a"}})
    with pytest.raises(InputError, match="no row 'yours' among mine"):
        real_ablation.read_rows(path, folds, ["yours"])


def test_rows_that_come_to_the_same_are_trained_once(
    real_corpora, written, run_script, in_this_process, monkeypatch
):
    monkeypatch.setattr(real_ablation, "KINDS", {"none": "inductive"})
    data, folder, overrides = real_corpora
    overrides = json.dumps({**json.loads(overrides), "n_queries": 4})
    path = written(
        {
            "recipe": {"name": "recipe"},
            "queries_4": {"name": "four", "settings": {"n_queries": 4}},
            "stages": {"name": "stages", "first": ["ravdess", "emodb"]},
        }
    )
    flags = {"data": data, "folder": folder, "overrides": overrides}
    few = ["--seeds", "1", "--corpora", "ravdess"]
    assert run_script("real_ablation", path, *few, flags=flags) == 0
    trained = [
        dict(zip(arguments[1::2], arguments[2::2], strict=True))
        for name, arguments in in_this_process.ran
        if name == "train"
    ]
    others = ["emodb", "emovo", "urdu"]
    corpora = [json.loads(one["--corpora"]) for one in trained]
    # RAVDESS is left out, so it is not what is trained on first.
    assert corpora == [others, ["emodb"], others]
    stage1 = folder / "ablation/stages/ravdess/seed1/first"
    assert trained[1]["--output_folder"] == str(stage1)
    assert trained[2]["--pretrained"] == f"{stage1}/recognizer"
    # The recipe's own is where loco.py has it.
    place = str(folder / "ravdess" / "seed1" / "training")
    assert trained[0]["--output_folder"] == place


def test_tables_have_means_over_seeds_and_corpora():
    rows = {"a": {"name": "row a"}, "b": {"name": "row b"}}

    def metrics(ua):
        return {kind: {"UA": ua} for kind in real_ablation.KINDS}

    runs = {
        seed: {
            "a": {"emodb": metrics(ua), "urdu": metrics(ua + 0.2)},
            "b": {"emodb": metrics(0.5), "urdu": metrics(0.5)},
        }
        for seed, ua in ((1, 0.1), (2, 0.3))
    }
    table = cells(real_ablation.report(rows, runs))
    deviation = "± 0.141"
    assert table[2] == [
        "row a",
        f"0.200 {deviation}",
        f"0.400 {deviation}",
        f"0.300 {deviation}",
    ]
    assert table[0] == ["UA, inductive", "emodb", "urdu", "mean"]
    assert ["UA, transductive", "emodb", "urdu", "mean"] in table
