import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from imputune.data.scaling import Scaler
from imputune.data.splits import split_cohort
from imputune.data.static import AGE, ICU_TYPE
from imputune.data.summary import summarise
from imputune.imputers.build import csai_sizes
from imputune.models.boosters import Boosters
from imputune.protocol.variants import make_variant
from imputune.registry.bundle import BundleAbout
from imputune.registry.bundle_file import read_bundle, write_bundle
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


def numbers_of(content: object) -> Iterator[float]:
    """Yield every number in a JSON document, in its order."""
    if isinstance(content, dict | list):
        for each in content.values() if isinstance(content, dict) else content:
            yield from numbers_of(each)
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield float(content)


def has_a_row(text: bytes, rows_NF: np.ndarray) -> bool:
    """Say whether three successive numbers of a row, not all of them whole, stand side by side in a JSON document.

    A booster numbers its nodes and features, so that some of its whole numbers are those of some stay's counts.
    """
    numbers = np.float32(list(numbers_of(json.loads(text))))
    threes = {tuple(numbers[place : place + 3].tolist()) for place in range(len(numbers) - 2)}
    wanted = (row[place : place + 3] for row in rows_NF for place in range(len(row) - 2))
    telling = (three.tolist() for three in wanted if (three % 1).any() and len(set(three.tolist())) == 3)
    return any(tuple(three) in threes for three in telling)


def test_boosters_hold_no_stays_features(make_finetune_job, recorder):
    """A booster has thresholds of single features; of no stay do three successive features stand side by side in it."""
    job = make_finetune_job(make_variant("xgboost", None, "summary"))
    [text] = fit_non_neural_fold(job, recorder).boosters
    data = split_cohort(job.cohort, job.fold, Scaler.from_arrays(job.pretrained))
    splits = (data.train, data.validation)
    rows_NF = np.concatenate([summarise(each.values_NTD.numpy(), each.observed_NTD.numpy()) for each in splits])
    assert not has_a_row(text, rows_NF)
    leaked = json.loads(text) | {"rows": rows_NF[:1, :9].tolist()}
    assert has_a_row(json.dumps(leaked).encode(), rows_NF)


@pytest.mark.parametrize("reads", ["hidden", "imputed", "summary"])
def test_xgboost_keeps_what_predicting_needs_and_svm_nothing(make_finetune_job, recorder, reads):
    """The scaler always, a CSAI's weights where the input reads it, and the boosters; of svm not a number."""
    job = make_finetune_job(make_variant("xgboost", None, reads))
    kept = fit_non_neural_fold(job, recorder)
    prefixes = {"scaler"} if reads == "summary" else {"scaler", "imputer"}
    assert {name.partition(".")[0] for name in kept.weights} == prefixes
    assert set(kept.weights) == {name for name in job.pretrained if name.partition(".")[0] in prefixes}
    assert len(kept.boosters) == job.params.non_neural.xgboost.seeds == 1
    assert Boosters.from_texts(kept.boosters).features == {"hidden": 8, "imputed": 24, "summary": 28}[reads]
    svm = fit_non_neural_fold(replace(job, variant=make_variant("svm", None, reads)), recorder)
    assert (dict(svm.weights), svm.boosters) == ({}, ())


def test_several_seeds_keep_several_boosters(make_finetune_job, recorder, make_params):
    """Each setting of xgboost reaches the trees."""
    job = make_finetune_job(make_variant("xgboost", None, "summary"))
    changed = make_params(non_neural={"xgboost": job.params.non_neural.xgboost.model_dump() | {"seeds": 3}})
    assert len(fit_non_neural_fold(replace(job, params=changed), recorder).boosters) == 3


@pytest.mark.parametrize("reads", ["hidden+static+summary", "imputed", "summary+static"])
def test_a_bundle_of_the_fold_gives_the_risks_of_training(make_finetune_job, recorder, tmp_path, reads):
    """Written and read as a bundle, the boosters give each test and validation stay its risk, to 1e-6."""
    job = make_finetune_job(make_variant("xgboost", None, reads))
    random = np.random.default_rng(3)
    static = pd.DataFrame({"age_years": random.uniform(20, 90, 90), "icu_type": random.integers(1, 5, 90)})
    cohort = replace(job.cohort, static=static, static_variables=(AGE, ICU_TYPE))
    trained = fit_non_neural_fold(replace(job, cohort=cohort), recorder)
    about = BundleAbout(
        dataset="synthetic",
        variables=cohort.variables,
        static=(AGE, ICU_TYPE) if "static" in reads else (),
        sizes=csai_sizes(job.params, 4, 6),
        head="xgboost",
        input=reads,
        folds=(job.fold.number,),
        threshold=0.5,
    )
    write_bundle(tmp_path, about, [trained])
    risk_N = read_bundle(tmp_path).risk_of(job.fold.number, cohort.values_NTD, static)
    found = trained.predictions["stay_id"].to_numpy() - cohort.stay_ids_N[0]
    np.testing.assert_allclose(risk_N[found], trained.predictions["risk"], atol=1e-6, rtol=0)
    assert np.ptp(risk_N[found]) > 0.1
