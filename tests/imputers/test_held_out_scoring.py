import numpy as np
import pytest
import torch

from imputune.data.masking_patterns import LABELS
from imputune.data.splits import fit_and_divide
from imputune.errors import UserError
from imputune.imputers.build import saved_imputer
from imputune.imputers.held_out_scoring import AssessJob, assess_fold, held_out
from imputune.training.pretrain import PretrainJob, pretrain_fold

ASSESS = {"shares": (0.1, 0.4)}


@pytest.fixture
def make_job(cohort, folds, make_params, heard):
    """Make the job of assessing an imputer on the first fold, pretrained for it."""

    def make(imputer="mean", example=None, **sections):
        params = make_params(**({"assess": ASSESS} | sections))
        pretrained = pretrain_fold(PretrainJob(cohort, folds[0], params, imputer), heard)
        weights = {name: torch.from_numpy(array) for name, array in pretrained.weights.items()}
        example = np.full((1, 6, 4), np.nan, dtype=np.float32) if example is None else example
        return AssessJob(cohort, folds[0], params, imputer, weights, np.arange(90) % 2, example), pretrained

    return make


def test_scores_every_way_and_share(make_job, heard):
    """There is a row for each, with errors by variable and by group of stays; nothing is NaN."""
    job, _ = make_job("csai_untrained")
    found = assess_fold(job, heard)
    assert [(row["hiding"], row["share"]) for row in found.scores] == [(w, s) for w in LABELS for s in ASSESS["shares"]]
    assert all(np.isfinite([row["mae"], row["rmse"], row["mre"], row["wasserstein"]]).all() for row in found.scores)
    assert {"HR", "Temp", "pH", "K"} == set(found.scores[0]["by_variable"])
    assert {"0", "1"} == set(found.scores[0]["by_missing_share"])
    assert found.batch_difference < 1e-5
    assert found.seconds > 0
    assert found.final_metrics["mae_hours_40"] == found.scores[5]["mae"]


def test_held_out_cells_are_those_of_pretraining_at_its_share(make_job, heard):
    """At random and non-uniformly, the test error at masking's share is the one that pretraining told."""
    job, pretrained = make_job()
    rows = {(row["hiding"], row["share"]): row for row in assess_fold(job, heard).scores}
    for hiding in ("uniform", "non_uniform"):
        assert rows[hiding, 0.1]["mae"] == pretrained.scores[f"test_mae_{hiding}"]


def test_every_imputer_meets_the_same_cells(make_job, heard):
    """The number of cells by variable is the same whatever imputer is assessed."""
    first, second = (assess_fold(make_job(name)[0], heard).scores for name in ("mean", "csai_untrained"))
    for one, other in zip(first, second, strict=True):
        assert one["cells"] == other["cells"] > 0
        cells = [{name: row["cells"] for name, row in each["by_variable"].items()} for each in (one, other)]
        assert cells[0] == cells[1]


def test_the_example_is_imputed_in_its_own_units(make_job, heard):
    """Observed values come back as they were, holes filled near the variable's mean, which lies about 10."""
    example = np.full((1, 6, 4), np.nan, dtype=np.float32)
    example[0, 2] = 11.0
    imputed = np.array(assess_fold(make_job(example=example)[0], heard).example)
    assert imputed.shape == (6, 4)
    np.testing.assert_allclose(imputed[2], 11.0, atol=1e-3)
    assert ((imputed > 7) & (imputed < 14)).all()


@pytest.mark.parametrize(("share", "what"), [(1e-9, "hides no cell"), (1 - 1e-9, "leaves no cell to go by")])
def test_a_share_that_leaves_nothing_is_refused(cohort, folds, make_params, share, what):
    """Nothing hidden, or nothing visible, is an error that says where to change it."""
    data = fit_and_divide(cohort, folds[0], 0.001)
    with pytest.raises(UserError, match=rf"hiding uniform at share .* {what} in the 18 test stays of fold 0: .*params"):
        held_out(data, "uniform", share, make_params())


def test_an_imputer_that_mixes_stays_is_seen(make_job, heard, monkeypatch):
    """Where a stay's imputation depends on the batch, the difference is as large as it is."""

    class Mixing:
        module = None

        def represent(self, values, observed):
            made = saved_imputer("mean", (90, 6, 4), None, {}).represent(values, observed)
            shift = 0.25 * (len(values) > 1)
            return type(made)(torch.where(observed > 0, values, made.imputed_BTD + shift))

    monkeypatch.setattr("imputune.imputers.held_out_scoring.saved_imputer", lambda *_: Mixing())
    assert assess_fold(make_job()[0], heard).batch_difference == pytest.approx(0.25)


def test_a_variable_that_training_never_saw_is_not_held_out(make_job, cohort, folds, heard):
    """Its test cells stay visible in every way of hiding: errors there would be in no deviations."""
    cohort.values_NTD[folds[0].train, :, 3] = np.nan
    scores = assess_fold(make_job("csai_untrained")[0], heard).scores
    assert all("K" not in row["by_variable"] for row in scores)
    assert all(np.isfinite(row["mae"]) for row in scores)
