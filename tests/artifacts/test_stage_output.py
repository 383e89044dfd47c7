import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from imputune.artifacts.stage_output import (
    Origin,
    TrainedFold,
    differences,
    read_fold,
    read_result,
    read_weights,
    write_stage,
    write_weights,
)
from imputune.data.directions import Views
from imputune.data.scaling import Scaler, load_scaler
from imputune.data.splits import divide
from imputune.errors import UserError
from imputune.models.weights import load_module
from imputune.protocol.variants import make_cell
from imputune.training.finetune import FinetuneJob, build_classifier, finetune_fold
from imputune.training.pretrain import PretrainJob, pretrain_fold

ORIGIN = Origin("synthetic", "data1", "folds1", ("HR", "Temp", "pH"))
TRAINED = {"cohort_hash": "data1", "folds_hash": "folds1", "variables": ["HR", "Temp", "pH"]}
REMEDY = "run `imputune pretrain synthetic`"


@pytest.fixture
def trained() -> TrainedFold:
    """A fold as training returns it, without curves."""
    return TrainedFold(4, {"imputer.bias": np.ones(2, np.float32)}, {"test_auc": 0.75}, 7, 1.5, [])


def test_final_metrics_are_scores_best_epoch_and_seconds(trained):
    """What a recorder hears at the end of a fold, all as numbers."""
    assert trained.final_metrics == {"test_auc": 0.75, "best_epoch": 7.0, "seconds": 1.5}


def test_scaler_reads_back_by_value(cohort, folds, make_params, heard, tmp_path):
    """A scaler fitted in pretraining has, read from its file, the numbers it had, variable by variable."""
    fitted = Scaler.fit(cohort.values_NTD[folds[1].train], make_params().scaling.tail_share)
    result = pretrain_fold(PretrainJob(cohort, folds[1], make_params()), heard)
    write_stage(tmp_path / "csai", {}, [result])
    read = load_scaler(read_weights(tmp_path / "csai", 1))
    for name, array in vars(fitted).items():
        np.testing.assert_array_equal(getattr(read, name), array, err_msg=name)


def test_every_array_reads_back_whatever_its_strides(tmp_path):
    """Columns, reversed and transposed arrays are written by value, not as they lie in memory."""
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    arrays = {"column": table[:, 1], "reversed": table[0, ::-1], "transposed": table.T}
    write_weights(tmp_path, [TrainedFold(0, arrays, {}, 0, 0.0, [])])
    read = read_weights(tmp_path, 0)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name].numpy(), array, err_msg=name)


@pytest.mark.parametrize(
    ("head", "mode", "reads"),
    [
        ("mlp2", "frozen", "hidden"),
        ("mlp2", "unfrozen", "hidden"),
        ("lstm", "unfrozen", "imputed"),
        ("gru", "frozen", "raw"),
    ],
)
def test_written_fold_loaded_into_a_new_classifier_gives_the_same_risks(
    cohort, folds, make_params, heard, tmp_path, head, mode, reads
):
    """From the files alone, scaler included, each validation and test stay has the risk that training wrote."""
    params, cell = make_params(), make_cell(head, mode, reads)
    pretrained = pretrain_fold(PretrainJob(cohort, folds[1], params), heard).weights
    pretrained = {name: torch.from_numpy(array) for name, array in pretrained.items()}
    result = finetune_fold(FinetuneJob(cohort, folds[1], params, cell, pretrained, tmp_path), heard)
    write_stage(tmp_path / "cell", {"run_id": "run7"}, [result])

    weights = read_weights(tmp_path / "cell", 1)
    classifier = build_classifier(cohort.values_NTD.shape, params, cell, fold=0).eval()
    for part in ("imputer", "head"):
        load_module(part, getattr(classifier, part), weights)
    data = divide(cohort, folds[1], load_scaler(weights))
    written = pd.read_csv(tmp_path / "cell" / "predictions.csv")
    assert set(written["fold"]) == {1}
    for name, part in (("validation", data.validation), ("test", data.test)):
        with torch.no_grad():
            risk = torch.sigmoid(classifier(Views.read(*part.batch(torch.arange(len(part)))))).numpy()
        rows = written[written["partition"] == name]
        assert rows["stay_id"].tolist() == part.stay_ids_N.tolist()
        np.testing.assert_allclose(risk, rows["risk"], rtol=0, atol=1e-7)


def test_result_reads_back(trained, tmp_path):
    """What the folds share and what each scored comes back, with the format's number."""
    write_stage(tmp_path / "csai", {"run_id": "run7"}, [trained])
    assert read_result(tmp_path / "csai", REMEDY) == {
        "format": 2,
        "run_id": "run7",
        "folds": [
            {
                "fold": 4,
                "scores": {"test_auc": 0.75},
                "best_epoch": 7,
                "seconds": 1.5,
                "history": [],
                "imputation": [],
                "learning_rate": None,
                "trials": [],
            }
        ],
    }


def test_missing_result_names_the_remedy(tmp_path):
    """A stage that has not run is one line that says what to run."""
    with pytest.raises(UserError, match="csai has no result of a finished run: run `imputune pretrain synthetic`"):
        read_result(tmp_path / "csai", REMEDY)


def test_result_cut_in_half_is_refused(trained, tmp_path):
    """A file that is no JSON any more is one line with the remedy."""
    write_stage(tmp_path / "csai", {"run_id": "run7"}, [trained])
    path = tmp_path / "csai" / "result.json"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"result\.json is broken: run `imputune pretrain synthetic`"):
        read_result(tmp_path / "csai", REMEDY)


@pytest.mark.parametrize("number", [None, 0, 1, 3, "2"])
def test_result_of_another_format_is_refused(trained, tmp_path, number):
    """A file that an earlier or later version wrote is not misread."""
    write_stage(tmp_path / "csai", {"run_id": "run7"}, [trained])
    path = tmp_path / "csai" / "result.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in content.items() if key != "format"} | {"format": number}))
    with pytest.raises(UserError, match=r"result\.json is of another version of imputune: run"):
        read_result(tmp_path / "csai", REMEDY)


def test_missing_and_broken_weights_are_named(trained, tmp_path):
    """A weights file that is gone or cut in half is one line with its name."""
    write_stage(tmp_path / "csai", {}, [trained])
    assert torch.equal(read_weights(tmp_path / "csai", 4)["imputer.bias"], torch.ones(2))
    path = tmp_path / "csai" / "fold-4.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for fold in (4, 5):
        with pytest.raises(
            UserError, match=rf"fold-{fold}\.safetensors cannot be read \(.*\): restore it, or train again"
        ):
            read_weights(tmp_path / "csai", fold)


def test_output_of_the_same_origin_passes(tmp_path):
    """Equal data, folds and variables are no error."""
    ORIGIN.check(TRAINED, tmp_path, REMEDY)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"variables": ["HR", "pH"]}, "other variables (2, the cohort has 3; differing: Temp)"),
        ({"variables": ["HR", "Temp", "GCS"]}, "other variables (3, the cohort has 3; differing: GCS, pH)"),
        ({"variables": ["HR", "pH", "Temp"]}, "other variables (3, the cohort has 3; differing: their order)"),
        (
            {"variables": list("gfedcba")},
            "other variables (7, the cohort has 3; differing: HR, Temp, a, b, c)",
        ),
        ({"cohort_hash": "data2"}, "other data than synthetic now has"),
        ({"folds_hash": "folds2"}, "other folds than synthetic now has"),
        ({"cohort_hash": "data2", "folds_hash": "folds2"}, "other data than synthetic now has"),
    ],
)
def test_output_of_another_origin_is_refused(tmp_path, changed, message):
    """What was trained on other variables, data or folds is one line with the difference and the remedy."""
    with pytest.raises(UserError) as caught:
        ORIGIN.check(TRAINED | changed, tmp_path, REMEDY)
    assert str(caught.value).endswith(f"was trained on {message}: {REMEDY}")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fold_reads_back_as_it_was(cohort, folds, make_params, heard, tmp_path):
    """Weights, scores, curves, predictions, the found rate and the trials of a fold come back from the files."""
    params = make_params()
    pretrained = pretrain_fold(PretrainJob(cohort, folds[1], params), heard).weights
    pretrained = {name: torch.from_numpy(array) for name, array in pretrained.items()}
    job = FinetuneJob(cohort, folds[1], params, make_cell("mlp2", "frozen", None, "optuna"), pretrained, tmp_path)
    result = finetune_fold(job, heard)
    write_stage(tmp_path / "cell", {}, [replace(result, fold=0), result])
    read = read_fold(tmp_path / "cell", 1, REMEDY)
    for name, array in result.weights.items():
        np.testing.assert_array_equal(read.weights[name], array, err_msg=name)
    for name in ("fold", "scores", "best_epoch", "seconds", "history", "learning_rate", "trials"):
        assert getattr(read, name) == getattr(result, name), name
    assert len(read.trials) == params.schedules.optuna.trials
    tables = (each.predictions.reset_index(drop=True) for each in (read, result))
    pd.testing.assert_frame_equal(*tables, check_dtype=False)


def test_differences_are_named_by_their_place():
    """What an output lacks or has otherwise is named, nested too; what it has beside the wanted does not count."""
    wanted = {"seed": 1, "params": {"finetune": {"dropout": 0.3, "patience": 25}, "csai": {"hidden": 108}}}
    found = {"seed": 1, "run_id": "x", "params": {"finetune": {"dropout": 0.2, "patience": 25}}}
    assert differences(found, wanted) == ["params.finetune.dropout", "params.csai.hidden"]
    assert differences(wanted, wanted) == []
