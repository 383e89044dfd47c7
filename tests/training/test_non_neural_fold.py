from dataclasses import replace

import pytest

from imputune.protocol.variants import make_variant
from imputune.training.non_neural import fit_non_neural_fold

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("head", ["xgboost", "svm"])
@pytest.mark.parametrize("reads", ["hidden", "imputed", "summary"])
def test_non_neural_heads_learn_and_never_see_test_outcomes(cohort, folds, make_finetune_job, recorder, head, reads):
    """A clear signal is learned from each input; other outcomes of the test stays change only the test scores."""
    job = make_finetune_job(make_variant(head, None, reads))
    result = fit_non_neural_fold(job, recorder)
    assert result.scores["test_auc"] > 0.75
    risk = result.predictions["risk"]
    assert risk.between(0, 1).all()
    assert abs(risk.mean() - cohort.outcome_N.mean()) < 0.15
    other_outcome = cohort.outcome_N.copy()
    other_outcome[folds[0].test] = 1 - other_outcome[folds[0].test]
    other = fit_non_neural_fold(replace(job, cohort=replace(cohort, outcome_N=other_outcome)), recorder)
    assert other.predictions["risk"].tolist() == risk.tolist()
    assert other.scores["test_auc"] == pytest.approx(1 - result.scores["test_auc"])


@pytest.mark.parametrize("head", ["xgboost", "svm"])
@pytest.mark.parametrize("reads", ["hidden_both", "hidden_pooled"])
def test_non_neural_heads_learn_from_further_states(make_finetune_job, recorder, head, reads):
    """A clear signal is learned, with other risks than from `hidden`."""
    result, of_hidden = (
        fit_non_neural_fold(make_finetune_job(make_variant(head, None, each)), recorder) for each in (reads, "hidden")
    )
    assert result.scores["validation_auc"] + result.scores["test_auc"] > 2 * 0.75  # 36 stays; 18 alone vary too much
    assert not result.predictions["risk"].equals(of_hidden.predictions["risk"])


def test_non_neural_heads_on_statistics_do_not_read_the_imputer(make_finetune_job, recorder):
    """With other imputer weights, input `summary` gives the same risks and input `hidden` other ones."""
    for reads, same in (("summary", True), ("hidden", False)):
        job = make_finetune_job(make_variant("svm", None, reads))
        other = {name: tensor * 1.5 if name == "imputer.history" else tensor for name, tensor in job.pretrained.items()}
        risks = [
            fit_non_neural_fold(each, recorder).predictions["risk"] for each in (job, replace(job, pretrained=other))
        ]
        assert risks[0].equals(risks[1]) == same
