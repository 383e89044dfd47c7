import pytest

from imputune.tracking.metric_names import program_metrics, program_name, stored_name

NAMES = {
    "train_loss": "train/loss",
    "train_total_loss": "train/total_loss",
    "validation_auc": "validation/auc",
    "validation_mae": "validation/mae",
    "validation_missingness": "validation/missingness",
    "test_calibration_error": "test/calibration_error",
    "test_mae_non_uniform": "imputation/test_mae_non_uniform",
    "validation_mre_uniform": "imputation/validation_mre_uniform",
    "mae": "imputation/mae",
    "mae_uniform_10": "imputation/mae_uniform_10",
    "batch_difference": "imputation/batch_difference",
    "seconds_per_1000_stays": "imputation/seconds_per_1000_stays",
    "external_auc": "external/auc",
    "external_before_brier": "external/before_brier",
    "seconds": "seconds",
    "best_epoch": "best_epoch",
    "num_parameters": "num_parameters",
    "training_stays_fold_0": "training_stays_fold_0",
}


@pytest.mark.parametrize(("name", "stored"), NAMES.items())
def test_every_name_has_its_group_and_the_way_back(name, stored):
    """A metric stands in a group that the MLflow UI shows, and is found again by its name inside the program."""
    assert stored_name(name) == stored
    assert program_name(stored) == name


def test_names_that_earlier_versions_stored_are_read_as_they_are():
    """Old runs have the program's names; where a run has both, the new one counts, whatever their order."""
    assert program_metrics({"test_auc": 0.75, "seconds": 2.0}) == {"test_auc": 0.75, "seconds": 2.0}
    assert program_metrics({"test/auc": 0.5, "test_auc": 0.75}) == {"test_auc": 0.5}
    assert program_metrics({"test_auc": 0.75, "test/auc": 0.5}) == {"test_auc": 0.5}


def test_groups_of_others_are_left_alone():
    """A metric that somebody else logged with a slash keeps its name."""
    assert program_name("system/cpu_utilization") == "system/cpu_utilization"
