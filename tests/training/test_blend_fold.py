from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from imputune.errors import UserError
from imputune.evaluation.metrics import risk_scores
from imputune.training.blend import BlendJob, blend_fold

LABELS = ("csai/mlp2-frozen-hidden-plateau", "csai/xgboost-frozen-summary-none")


@pytest.fixture
def job(cohort, folds, make_params) -> BlendJob:
    """Two members on fold 0 whose risks follow the outcome, each with noise of its own."""
    predictions = {}
    for number, label in enumerate(LABELS):
        tables = []
        for split in ("validation", "test"):
            stays = getattr(folds[0], split)
            noise_N = np.random.default_rng(10 * number + len(split)).random(len(stays))
            risk_N = (0.25 * cohort.outcome_N[stays] + 0.7 * noise_N).astype(np.float32)
            tables.append(pd.DataFrame({"stay_id": cohort.stay_ids_N[stays], "split": split, "risk": risk_N}))
        predictions[label] = pd.concat(tables)
    return BlendJob(cohort=cohort, fold=0, params=make_params(), predictions=predictions)


def with_settings(job: BlendJob, **changes) -> BlendJob:
    """Return the job with other settings of the blend."""
    return replace(job, params=job.params.model_copy(update={"blend": job.params.blend.model_copy(update=changes)}))


def other_outcomes(job: BlendJob, stays: np.ndarray) -> BlendJob:
    """Return the job with the outcomes of some stays turned round."""
    outcome_N = job.cohort.outcome_N.copy()
    outcome_N[stays] = 1 - outcome_N[stays]
    return replace(job, cohort=replace(job.cohort, outcome_N=outcome_N))


@pytest.mark.parametrize("scale", ["calibrated", "ranks"])
@pytest.mark.parametrize("weights", ["equal", "cross_fitted"])
def test_test_outcomes_change_nothing_but_scores(job, folds, recorder, scale, weights):
    """With other outcomes of the test stays, arrays, risks and validation scores are the same to the bit."""
    job = with_settings(job, scale=scale, weights=weights)
    found, other = (blend_fold(each, recorder) for each in (job, other_outcomes(job, folds[0].test)))
    assert found.weights.keys() == other.weights.keys()
    assert all(np.array_equal(array, other.weights[name]) for name, array in found.weights.items())
    assert found.predictions.equals(other.predictions)
    assert other.scores["validation_log_loss"] == found.scores["validation_log_loss"]
    assert other.scores["test_auc"] == pytest.approx(1 - found.scores["test_auc"])
    validation = blend_fold(other_outcomes(job, folds[0].validation[:5]), recorder)
    assert not validation.predictions.equals(found.predictions)


def test_a_fold_has_a_risk_for_each_stay_and_its_scores(job, cohort, folds, recorder):
    """Predictions are of validation and test stays, float32 in [0, 1]; the scores are theirs; there is no curve."""
    found = blend_fold(job, recorder)
    assert (found.fold, found.best_epoch, found.history) == (0, 0, [])
    for split in ("validation", "test"):
        table = found.predictions[found.predictions["split"] == split]
        assert table["stay_id"].tolist() == cohort.stay_ids_N[getattr(folds[0], split)].tolist()
        assert table["risk"].dtype == np.float32
        assert table["risk"].between(0, 1).all()
        scores = risk_scores(cohort.outcome_of(table["stay_id"].to_numpy()).astype(int), table["risk"].to_numpy())
        assert {name: found.scores[f"{split}_{name}"] for name in scores} == scores
    assert found.weights["blend.weights"].tolist() == [0.5, 0.5]


def test_members_are_matched_by_stay(job, recorder):
    """A member whose rows stand in another order gives the same blend."""
    found = blend_fold(job, recorder)
    shuffled = job.predictions[LABELS[1]].sample(frac=1, random_state=1)
    other = blend_fold(replace(job, predictions=job.predictions | {LABELS[1]: shuffled}), recorder)
    assert other.predictions.equals(found.predictions)


def test_members_of_different_stays_are_refused(job, recorder):
    """A member whose predictions lack a stay is named."""
    table = job.predictions[LABELS[1]]
    short = replace(job, predictions=job.predictions | {LABELS[1]: table.iloc[:-1]})
    with pytest.raises(UserError, match=f"{LABELS[1]} and {LABELS[0]} have predictions of different test stays of "):
        blend_fold(short, recorder)


def test_the_same_seed_gives_the_same_bits(job, recorder):
    """Twice the same; another seed draws other groups, so that other validation risks come, and the same test risks."""
    first, second = blend_fold(job, recorder), blend_fold(job, recorder)
    assert first.predictions.equals(second.predictions)
    other = blend_fold(replace(job, params=job.params.model_copy(update={"seed": 99})), recorder)
    test = first.predictions["split"] == "test"
    assert other.predictions[test].equals(first.predictions[test])
    assert not other.predictions[~test].equals(first.predictions[~test])
