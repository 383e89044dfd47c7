import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from imputune.artifacts.stage_files import (
    each_tested_once,
    read_assessment,
    read_fold,
    read_test_risks,
    read_training,
    read_weights,
    write_assessment,
    write_training,
    write_weights,
)
from imputune.artifacts.stage_output import AssessmentOutput, TrainingOutput
from imputune.data.directions import Directions
from imputune.data.scaling import Scaler
from imputune.data.splits import split_cohort
from imputune.errors import UserError
from imputune.evaluation.assessment import AssessedFold, HeldOutScores, VariableErrors
from imputune.evaluation.imputation import CellErrors, ImputationErrors
from imputune.models.weights import load_module
from imputune.protocol.variants import make_variant
from imputune.training.finetune import build_classifier, finetune_fold
from imputune.training.pretrain import PretrainJob, pretrain_fold

REMEDY = "run `imputune pretrain synthetic`"


@pytest.fixture
def write(tmp_path, made_from):
    """Write folds as the output of a stage and return its folder."""

    def written(*folds, description=made_from):
        output = TrainingOutput(made_from=description, run_id="run7", folds=tuple(fold.record for fold in folds))
        write_training(tmp_path / "output", output, folds)
        return tmp_path / "output"

    return written


def halve(path):
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_scaler_reads_back_by_value(cohort, folds, make_params, recorder, write):
    """Read from its file, a scaler has the numbers that pretraining fitted, variable by variable."""
    fitted = Scaler.fit(cohort.values_NTD[folds[1].train], make_params().scaling.clip_quantile)
    folder = write(pretrain_fold(PretrainJob(cohort=cohort, fold=folds[1], params=make_params()), recorder))
    read = Scaler.from_arrays(read_weights(folder, 1))
    for name, array in vars(fitted).items():
        np.testing.assert_array_equal(getattr(read, name), array, err_msg=name)


def test_every_array_reads_back_whatever_its_strides(tmp_path, make_fold):
    """Columns, reversed and transposed arrays are written by value, not as they lie in memory."""
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    arrays = {"column": table[:, 1], "reversed": table[0, ::-1], "transposed": table.T}
    write_weights(tmp_path, [make_fold(0, weights=arrays)])
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
def test_a_written_fold_loaded_into_a_new_classifier_gives_the_same_risks(
    cohort, folds, make_finetune_job, recorder, write, variant_made_from, head, mode, reads
):
    """From the files alone, scaler included, each validation and test stay has the risk that training wrote."""
    variant = make_variant(head, mode, reads)
    job = make_finetune_job(variant)
    description = variant_made_from.model_copy(update={"variant": variant})
    folder = write(finetune_fold(job, recorder), description=description)

    weights = read_weights(folder, 1)
    classifier = build_classifier(cohort.values_NTD.shape, job.params, variant, fold=0).eval()
    for prefix in ("imputer", "head"):
        load_module(prefix, getattr(classifier, prefix), weights)
    data = split_cohort(cohort, folds[1], Scaler.from_arrays(weights))
    written = pd.read_csv(folder / "predictions.csv")
    assert set(written["fold"]) == {1}
    for name, split in (("validation", data.validation), ("test", data.test)):
        with torch.no_grad():
            risk = torch.sigmoid(classifier(Directions.of(*split.batch(torch.arange(len(split)))))).numpy()
        rows = written[written["split"] == name]
        assert rows["stay_id"].tolist() == split.stay_ids_N.tolist()
        np.testing.assert_allclose(risk, rows["risk"], rtol=0, atol=1e-7)


def test_a_result_reads_back(write, made_from, make_fold):
    """The file has the number of its format, and gives the output that was written."""
    errors = CellErrors(cells=3, mae=0.5, rmse=0.6, mre=0.7)
    imputation = [
        ImputationErrors(imputer="csai", pattern="uniform", split="test", overall=errors, by_variable={"HR": errors})
    ]
    fold = make_fold(imputation=imputation)
    folder = write(fold)
    content = json.loads((folder / "result.json").read_text())
    assert content["format"] == 3
    assert content["made_from"]["variables"] == ["HR", "Temp", "pH"]
    assert content["folds"] == [
        {
            "fold": 4,
            "scores": {"test_auc": 0.75},
            "best_epoch": 7,
            "seconds": 1.5,
            "history": [],
            "imputation": [each.model_dump() for each in imputation],
            "learning_rate": None,
            "trials": [],
            "boosters_sha256": [],
            "failure": "",
        }
    ]
    assert read_training(folder, REMEDY) == TrainingOutput(made_from=made_from, run_id="run7", folds=(fold.record,))


def test_undefined_metrics_read_back_as_nan(write, make_fold):
    """NaN in a curve or a score stays NaN: an AUC over a single class is undefined."""
    folder = write(make_fold(scores={"test_auc": math.nan}, history=[{"train_auc": math.nan, "train_loss": 0.5}]))
    read = read_fold(folder, read_training(folder, REMEDY), 4)
    assert math.isnan(read.scores["test_auc"])
    assert math.isnan(read.history[0]["train_auc"])
    assert read.history[0]["train_loss"] == 0.5


def test_a_missing_result_names_the_remedy(tmp_path):
    """If a stage has not run, one line says what to run."""
    for read in (read_training, read_assessment):
        with pytest.raises(UserError, match="csai has no result of a finished run: run `imputune pretrain synthetic`"):
            read(tmp_path / "csai", REMEDY)


def test_a_truncated_result_is_refused(write, make_fold):
    """A file that is no JSON is one line with the remedy."""
    folder = write(make_fold())
    halve(folder / "result.json")
    with pytest.raises(UserError, match=r"result\.json is broken: run `imputune pretrain synthetic`"):
        read_training(folder, REMEDY)


@pytest.mark.parametrize("changed", [{"folds": [{"fold": 1}]}, {"run_id": None}, {"more": 1}])
def test_a_result_with_other_fields_is_refused(write, make_fold, changed):
    """Missing, wrong and unknown fields are the same one line."""
    path = write(make_fold()) / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(UserError, match=r"result\.json is broken: run `imputune pretrain synthetic`"):
        read_training(path.parent, REMEDY)


@pytest.mark.parametrize("number", [None, 0, 1, 2, 4, "3"])
def test_a_result_of_another_format_is_refused(write, make_fold, number):
    """A file that an earlier or later version wrote is not misread."""
    path = write(make_fold()) / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": number}))
    with pytest.raises(UserError, match=r"result\.json is of another version of imputune: run"):
        read_training(path.parent, REMEDY)


def test_missing_and_broken_weights_are_named(write, make_fold):
    """If a weights file is missing or truncated, one line names it."""
    folder = write(make_fold(weights={"imputer.bias": np.ones(2, np.float32)}))
    assert torch.equal(read_weights(folder, 4)["imputer.bias"], torch.ones(2))
    halve(folder / "fold-4.safetensors")
    for fold in (4, 5):
        with pytest.raises(
            UserError, match=rf"fold-{fold}\.safetensors cannot be read \(.*\): restore it, or train again"
        ):
            read_weights(folder, fold)


def test_a_fold_reads_back_as_it_was(make_finetune_job, recorder, write, variant_made_from):
    """Weights, scores, curves, predictions, the found rate and the trials of a fold come back from the files."""
    job = make_finetune_job(make_variant("mlp2", "frozen", None, "optuna"))
    result = finetune_fold(job, recorder)
    folder = write(replace(result, fold=0), result, description=variant_made_from)
    read = read_fold(folder, read_training(folder, REMEDY), 1)
    for name, array in result.weights.items():
        np.testing.assert_array_equal(read.weights[name], array, err_msg=name)
    assert read.record == result.record
    assert len(read.trials) == job.params.schedules.optuna.trials
    tables = (each.predictions.reset_index(drop=True) for each in (read, result))
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert read_fold(folder, read_training(folder, REMEDY), 1, with_weights=False).weights == {}


def test_a_non_neural_fold_has_no_weights(write, variant_made_from, make_fold):
    """Its files hold none, and reading it looks for none."""
    description = variant_made_from.model_copy(update={"variant": make_variant("svm")})
    folder = write(make_fold(weights={}), description=description)
    assert [path.name for path in folder.iterdir()] == ["result.json"]
    assert read_fold(folder, read_training(folder, REMEDY), 4).weights == {}


def test_test_risks_are_those_of_the_test_stays(write, make_fold, predictions):
    """Ids and risks of all folds' test stays, without validation stays; a missing file names the remedy."""
    later = predictions.assign(stay_id=predictions["stay_id"] + 100)
    folder = write(make_fold(0, predictions=predictions), make_fold(1, predictions=later))
    ids, risks = read_test_risks(folder, REMEDY)
    assert ids.tolist() == [7, 9, 107, 109]
    assert risks.tolist() == [0.3, 0.4, 0.3, 0.4]
    (folder / "predictions.csv").unlink()
    with pytest.raises(UserError, match=r"predictions\.csv is missing: run `imputune pretrain synthetic`"):
        read_test_risks(folder, REMEDY)


def test_an_assessment_reads_back(tmp_path, made_from):
    """Scores, the borders of the groups and the example, whose missing cells are None, come back."""
    errors = VariableErrors(cells=3, mae=0.5, rmse=0.6, mre=0.7, wasserstein=0.1)
    scores = HeldOutScores(
        **dict(errors),
        pattern="hours",
        rate=0.1,
        correlation_error=None,
        by_variable={"HR": errors},
        by_missing_share={"0": CellErrors(cells=3, mae=0.5, rmse=0.6, mre=0.7)},
    )
    fold = AssessedFold(fold=2, seconds=1.5, batch_difference=0.0, scores=(scores,), example=[[1.0, 2.0]])
    output = AssessmentOutput(
        made_from=made_from.model_copy(update={"stage": "assess"}),
        run_id="run7",
        missing_share_edges=(0.1, 0.5, 0.9),
        example=[[1.0, None]],
        folds=(fold,),
    )
    write_assessment(tmp_path / "assess", output)
    assert read_assessment(tmp_path / "assess", REMEDY) == output


def test_boosters_are_files_with_checksums(write, make_fold, variant_made_from):
    """Each booster of a fold is a file of its own, read back as it was; a changed or missing one is one line."""
    xgboost = variant_made_from.model_copy(update={"variant": make_variant("xgboost", None, "summary")})
    fold = make_fold(boosters=(b"{1}", b"{2}"))
    folder = write(fold, description=xgboost)
    assert sorted(path.name for path in folder.glob("fold-*")) == [
        "fold-4-booster-0.json",
        "fold-4-booster-1.json",
        "fold-4.safetensors",
    ]
    output = read_training(folder, REMEDY)
    read = read_fold(folder, output, 4)
    assert read.boosters == (b"{1}", b"{2}")
    assert read.weights["imputer.bias"].tolist() == [4.0, 4.0]
    assert read_fold(folder, output, 4, with_weights=False).boosters == ()
    (folder / "fold-4-booster-1.json").write_bytes(b"{1}")
    with pytest.raises(UserError, match=r"fold-4-booster-1\.json has changed since it was written"):
        read_fold(folder, output, 4)
    (folder / "fold-4-booster-0.json").unlink()
    with pytest.raises(UserError, match=r"fold-4-booster-0.json cannot be read \(No such file or directory\): restore"):
        read_fold(folder, output, 4)


def test_a_result_without_boosters_is_read(write, make_fold):
    """A result.json from before boosters were kept has none."""
    folder = write(make_fold())
    path = folder / "result.json"
    content = json.loads(path.read_text())
    del content["folds"][0]["boosters_sha256"]
    path.write_text(json.dumps(content))
    assert read_training(folder, REMEDY).folds[0].boosters_sha256 == ()


def test_a_stay_that_two_splits_test_counts_once() -> None:
    """By hand: stay 3 is a test stay of both splits, and has the risk of the first; validation stays do not count."""
    predictions = pd.DataFrame(
        {
            "stay_id": [3, 5, 4, 3, 6],
            "split": ["test", "test", "validation", "test", "test"],
            "risk": [0.1, 0.2, 0.3, 0.4, 0.5],
            "fold": [0, 0, 1, 1, 1],
        }
    )
    once = each_tested_once(predictions)
    assert list(zip(once["stay_id"], once["risk"], strict=True)) == [(3, 0.1), (5, 0.2), (6, 0.5)]
