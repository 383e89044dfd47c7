import numpy as np
import pytest
import torch

from imputune.data.splits import fit_and_split
from imputune.errors import UserError
from imputune.imputers.build import saved_imputer
from imputune.runtime.recorder import SilentRecorder
from imputune.training.assess import AssessJob, assess_fold, held_out
from imputune.training.pretrain import PretrainJob, pretrain_fold

PATTERNS = ("uniform", "non_uniform", "hours", "onward", "blocks")
ASSESS = {"patterns": PATTERNS, "rates": (0.1, 0.4)}


@pytest.fixture
def make_job(cohort, folds, make_params):
    """Make the job of assessing an imputer on the first fold, pretrained for it; return the pretraining too."""

    def make(imputer="mean", example=None, **sections):
        params = make_params(**({"assess": ASSESS} | sections))
        job = PretrainJob(cohort=cohort, fold=folds[0], params=params, imputer=imputer)
        pretrained = pretrain_fold(job, SilentRecorder())
        job = AssessJob(
            cohort=cohort,
            fold=folds[0],
            params=params,
            imputer=imputer,
            pretrained={name: torch.from_numpy(array) for name, array in pretrained.weights.items()},
            group_N=np.arange(90) % 2,
            example_NTD=np.full((1, 6, 4), np.nan, dtype=np.float32) if example is None else example,
        )
        return job, pretrained

    return make


def test_every_pattern_and_rate_is_scored(make_job, recorder):
    """Each has errors overall, by variable and by group of stays; nothing is NaN, and nothing is reported."""
    job, _ = make_job("csai_untrained")
    assessed = assess_fold(job, recorder)
    assert [(each.pattern, each.rate) for each in assessed.scores] == [
        (pattern, rate) for pattern in PATTERNS for rate in ASSESS["rates"]
    ]
    assert all(np.isfinite([each.mae, each.rmse, each.mre, each.wasserstein]).all() for each in assessed.scores)
    assert set(assessed.scores[0].by_variable) == {"HR", "Temp", "pH", "K"}
    assert set(assessed.scores[0].by_missing_share) == {"0", "1"}
    assert assessed.batch_difference < 1e-5
    assert assessed.seconds > 0
    assert assessed.final_metrics["mae_hours_40"] == assessed.scores[5].mae
    assert recorder.epochs == recorder.finished == []


def test_random_patterns_hold_out_the_cells_of_pretraining(make_job, recorder):
    """At the rate of pretraining, both random patterns give exactly the test error that pretraining reported."""
    job, pretrained = make_job()
    errors = {(each.pattern, each.rate): each.mae for each in assess_fold(job, recorder).scores}
    for pattern in ("uniform", "non_uniform"):
        assert errors[pattern, 0.1] == pretrained.scores[f"test_mae_{pattern}"]


def test_every_imputer_is_scored_on_the_same_cells(make_job, recorder):
    """The number of held-out cells by variable is the same for each imputer."""
    mean, untrained = (assess_fold(make_job(name)[0], recorder).scores for name in ("mean", "csai_untrained"))
    for one, other in zip(mean, untrained, strict=True):
        assert one.cells == other.cells > 0
        cells = [{name: errors.cells for name, errors in each.by_variable.items()} for each in (one, other)]
        assert cells[0] == cells[1]


def test_patterns_of_hours_draw_from_streams_of_their_own(cohort, folds, make_params):
    """The patterns hold out different cells, and each the same cells every time."""
    data = fit_and_split(cohort, folds[0], 0.001)
    masks = {pattern: held_out(data, pattern, 0.4, make_params()) for pattern in PATTERNS}
    for pattern, masked_NTD in masks.items():
        assert torch.equal(held_out(data, pattern, 0.4, make_params()), masked_NTD)
        assert not any(torch.equal(masks[other], masked_NTD) for other in PATTERNS if other != pattern)


def test_the_example_is_imputed_in_its_own_units(make_job, recorder):
    """Observed values stay, and missing cells get about the variable's mean, which is 10."""
    example = np.full((1, 6, 4), np.nan, dtype=np.float32)
    example[0, 2] = 11.0
    imputed = np.array(assess_fold(make_job(example=example)[0], recorder).example)
    assert imputed.shape == (6, 4)
    np.testing.assert_allclose(imputed[2], 11.0, atol=1e-3)
    assert ((imputed > 7) & (imputed < 14)).all()


@pytest.mark.parametrize(("rate", "problem"), [(1e-9, "masks no cell"), (1 - 1e-9, "leaves no cell visible")])
def test_a_rate_that_masks_nothing_or_everything_is_refused(cohort, folds, make_params, rate, problem):
    """The error names pattern, rate, stays and fold, and the setting to change."""
    data = fit_and_split(cohort, folds[0], 0.001)
    message = rf"pattern uniform at rate .* {problem} in the 18 test stays of fold 0: .*assess\.rates in params"
    with pytest.raises(UserError, match=message):
        held_out(data, "uniform", rate, make_params())


def test_an_imputer_that_mixes_stays_is_detected(make_job, recorder, monkeypatch):
    """If a stay's imputation depends on the batch, the difference is reported at its size."""

    class Mixing:
        module = None

        def represent(self, values, observed):
            plain = saved_imputer("mean", (90, 6, 4), None, {}).represent(values, observed)
            shift = 0.25 * (len(values) > 1)
            return type(plain)(torch.where(observed > 0, values, plain.imputed_BTD + shift))

    monkeypatch.setattr("imputune.training.assess.saved_imputer", lambda *_, **__: Mixing())
    assert assess_fold(make_job()[0], recorder).batch_difference == pytest.approx(0.25)


def test_a_variable_without_training_values_is_not_held_out(make_job, cohort, folds, recorder):
    """Its test cells stay visible in every pattern: it has no training deviation to measure errors in."""
    cohort.values_NTD[folds[0].train, :, 3] = np.nan
    scores = assess_fold(make_job("csai_untrained")[0], recorder).scores
    assert all("K" not in each.by_variable for each in scores)
    assert all(np.isfinite(each.mae) for each in scores)
