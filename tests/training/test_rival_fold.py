"""Training of a rival on one fold: choice of the rate, early stopping, what test stays may change, failures."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from fold_fixtures import RememberingRecorder
from imputune.artifacts.stage_output import TrainedFold
from imputune.data.cohort import Cohort
from imputune.data.folds import Fold
from imputune.data.static import AGE, GENDER
from imputune.protocol.rivals import SECONDS_FOR_1000, Rival
from imputune.runtime.recorder import SilentRecorder
from imputune.settings.schema import Params
from imputune.training import rivals
from imputune.training.rivals import RivalJob, new_rival, train_rival_fold

SEFT = Rival(name="seft", input="raw")
SMALL = {
    "epochs": 4,
    "patience": 2,
    "rates": [0.001, 0.01],
    "rate_epochs": 1,
    "seft": {"width": 8, "layers": 2, "heads": 2, "time_channels": 4, "dropout": 0.1},
}
MakeJob = Callable[..., RivalJob]


@pytest.fixture
def make_job(cohort: Cohort, folds: list[Fold], make_params: Callable[..., Params]) -> MakeJob:
    """Make a small job on the first fold; keyword arguments are settings of rivals, `job` other fields of the job."""

    def make(job: dict[str, object] | None = None, **settings: object) -> RivalJob:
        params = make_params(rivals=SMALL | settings, finetune={"batch_size": 16, "average_decay": 0.5})
        fields = {"cohort": cohort, "fold": folds[0], "params": params, "rival": SEFT, **(job or {})}
        return RivalJob(**fields)  # type: ignore[arg-type]

    return make


def same_bits(ours: TrainedFold, theirs: TrainedFold) -> bool:
    """Say whether two trainings left the same weights and curves."""
    equal = all(np.array_equal(array, theirs.weights[name]) for name, array in ours.weights.items())
    return equal and ours.history == theirs.history


def test_a_rival_learns_and_predicts_what_it_scored(
    make_job: MakeJob, cohort: Cohort, folds: list[Fold], recorder: RememberingRecorder
) -> None:
    """A clear signal is learned; the scores belong to the predictions of the best validation epoch."""
    job = make_job(epochs=25, patience=25, rates=[0.02])
    result = train_rival_fold(job, recorder)
    assert result.scores["test_auc"] > 0.8
    best = max(row["validation_auc"] for row in result.history)
    assert result.scores["validation_auc"] == pytest.approx(best, abs=1e-12)
    assert result.scores[SECONDS_FOR_1000] > 0
    test = result.predictions[result.predictions["split"] == "test"]
    assert test["stay_id"].tolist() == cohort.stay_ids_N[folds[0].test].tolist()
    error = np.mean((test["risk"] - cohort.outcome_of(test["stay_id"].to_numpy())) ** 2)
    assert error == pytest.approx(result.scores["test_brier"])
    assert [epoch for _, epoch, _ in recorder.epochs] == list(range(len(result.history)))
    model = new_rival(cohort.values_NTD.shape, job.params, SEFT)
    assert set(model.state_dict()) == {
        name.removeprefix("rival.") for name in result.weights if name.startswith("rival.")
    }


def test_each_rate_is_tried_and_the_best_by_validation_is_taken(
    make_job: MakeJob, recorder: RememberingRecorder
) -> None:
    """A rate that learns nothing in its tries is not taken; every try is reported."""
    result = train_rival_fold(make_job(rates=[1e-9, 0.02], rate_epochs=12, patience=12, epochs=1), recorder)
    reached = [max(row["validation_auc"] for row in trial.curve) for trial in result.trials]
    assert reached[1] > reached[0]
    assert result.learning_rate == 0.02
    assert [(trial.learning_rate, len(trial.curve)) for _, trial in recorder.trials] == [(1e-9, 12), (0.02, 12)]


def test_a_given_rate_is_taken_and_none_is_tried(make_job: MakeJob, recorder: RememberingRecorder) -> None:
    """The other folds take the first fold's rate; they give what a fold gives that found this rate."""
    found = train_rival_fold(make_job(rates=[0.01]), SilentRecorder())
    given = train_rival_fold(make_job({"learning_rate": 0.01}), recorder)
    assert recorder.trials == given.trials == []
    assert same_bits(found, given)


def test_tries_of_an_interrupted_command_are_not_repeated(
    make_job: MakeJob, recorder: RememberingRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search goes on after them, and gives what it would have given."""
    whole = train_rival_fold(make_job(), SilentRecorder())
    tried: list[float] = []
    trial = rivals._trial

    def seen(training: rivals._RivalTraining, number: int, rate: float) -> rivals.Trial:
        tried.append(rate)
        return trial(training, number, rate)

    monkeypatch.setattr(rivals, "_trial", seen)
    resumed = train_rival_fold(make_job({"trials": (whole.trials[0],)}), recorder)
    assert tried == [0.01]
    assert resumed.trials == whole.trials
    assert same_bits(resumed, whole)


def test_test_stays_change_neither_weights_nor_choice(make_job: MakeJob, cohort: Cohort, folds: list[Fold]) -> None:
    """Other values and outcomes in the test stays change no weight, curve or choice."""
    values, outcome = cohort.values_NTD.copy(), cohort.outcome_N.copy()
    values[folds[0].test] *= -3
    outcome[folds[0].test] = 1 - outcome[folds[0].test]
    ours = train_rival_fold(make_job(), SilentRecorder())
    other = make_job({"cohort": replace(cohort, values_NTD=values, outcome_N=outcome)})
    theirs = train_rival_fold(other, SilentRecorder())
    assert same_bits(ours, theirs)
    assert ours.learning_rate == theirs.learning_rate
    assert ours.scores["test_auc"] != theirs.scores["test_auc"]


def test_the_seed_decides_every_bit(make_job: MakeJob) -> None:
    """The same seed gives the same weights, another seed others."""
    job = make_job()
    first = train_rival_fold(job, SilentRecorder())
    torch.rand(3)  # the global generator has no influence
    assert same_bits(first, train_rival_fold(job, SilentRecorder()))
    other = replace(job, params=job.params.model_copy(update={"seed": 7}))
    assert not same_bits(first, train_rival_fold(other, SilentRecorder()))


def test_static_facts_are_read(make_job: MakeJob, cohort: Cohort) -> None:
    """A fact that is the outcome is learned from it, and its scaling is kept with the weights."""
    static = pd.DataFrame({"age_years": 40.0 + 40 * cohort.outcome_N, "gender": np.arange(90) % 2})
    noise = np.random.default_rng(5).normal(size=cohort.values_NTD.shape).astype(np.float32)
    told = replace(cohort, values_NTD=noise, static=static, static_variables=(AGE, GENDER))
    job = {"cohort": told, "rival": Rival(name="seft", input="raw+static")}
    with_facts = train_rival_fold(make_job(job, epochs=25, patience=25, rates=[0.02]), SilentRecorder())
    assert with_facts.scores["test_auc"] > 0.9
    assert {"record.mean", "record.deviation"} <= set(with_facts.weights)
    without = make_job({"cohort": told}, epochs=25, patience=25, rates=[0.02])
    assert train_rival_fold(without, SilentRecorder()).scores["test_auc"] < 0.8


def test_a_rival_that_diverges_says_so(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no scores, weights and predictions; a rate at which training diverges is not taken."""
    build = rivals.build_rival

    def spoiled(*words: object) -> torch.nn.Module:
        model = build(*words)  # type: ignore[arg-type]
        model.register_forward_hook(lambda module, _, output: (output[0] * torch.nan, output[1]))
        return model

    monkeypatch.setattr(rivals, "build_rival", spoiled)
    result = train_rival_fold(make_job(), SilentRecorder())
    assert result.failure == "training of fold 0 diverged at every learning rate of rivals.rates"
    assert (result.scores, result.weights, len(result.predictions)) == ({}, {}, 0)
    assert [trial.state for trial in result.trials] == ["pruned", "pruned"]
    given = train_rival_fold(make_job({"learning_rate": 0.01}), SilentRecorder())
    assert given.failure == "training of fold 0 diverged in epoch 0: lower rivals.rates in params.yaml"
