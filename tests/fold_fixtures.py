from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imputune.data.cohort import Cohort, Variable
from imputune.data.folds import Fold, draw_folds
from imputune.runtime.recorder import Trial
from imputune.settings.file import read_params
from imputune.settings.schema import Budget, Params


@dataclass
class RememberingRecorder:
    """A recorder that remembers every report."""

    epochs: list[tuple[int, int, dict[str, float]]] = field(default_factory=list)
    finished: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    trials: list[tuple[int, Trial]] = field(default_factory=list)

    def epoch(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Remember a point of the curves."""
        self.epochs.append((fold, epoch, dict(metrics)))

    def trial_finished(self, fold: int, trial: Trial) -> None:
        """Remember a trial."""
        self.trials.append((fold, trial))

    def fold_finished(self, fold: int, metrics: Mapping[str, float]) -> None:
        """Remember final scores."""
        self.finished.append((fold, dict(metrics)))


@pytest.fixture
def recorder() -> RememberingRecorder:
    """A fresh recorder."""
    return RememberingRecorder()


@pytest.fixture
def cohort() -> Cohort:
    """90 stays of 6 hours and 4 variables, each at a level of its own; the first is high where the outcome is 1."""
    random = np.random.default_rng(1)
    outcome_N = (np.arange(90) % 3 == 0).astype(np.int8)
    values_NTD = (random.normal(10, 2, (90, 1, 4)) + random.normal(0, 0.3, (90, 6, 4))).astype(np.float32)
    values_NTD[:, :, 0] += 6 * outcome_N[:, None]
    values_NTD[random.random(values_NTD.shape) < 0.4] = np.nan
    return Cohort(
        dataset="synthetic",
        stay_ids_N=np.arange(500, 590),
        outcome_N=outcome_N,
        values_NTD=values_NTD,
        variables=tuple(Variable(name, "unit") for name in ("HR", "Temp", "pH", "K")),
        static=pd.DataFrame(index=range(90)),
        source={"exclusions": {}},
    )


@pytest.fixture
def folds(cohort: Cohort) -> list[Fold]:
    """Its five folds."""
    return draw_folds(cohort, 5, seed=3)


EAGER = {
    **{"learning_rate": 0.03, "max_depth": 6, "stay_fraction": 0.7, "feature_fraction": 0.3},
    **{"min_child_weight": 1.0, "l2": 1.0, "seeds": 1},
}
"""Settings with which xgboost learns from a few dozen stays; params.yaml's grow no tree on so few."""


@pytest.fixture
def make_params() -> Callable[..., Params]:
    """The project's own parameters with a small CSAI; keyword arguments replace keys of a section, by section."""
    params = read_params(Path(__file__).parents[1] / "params.yaml")
    small = {"hidden_size": 8, "channels": 8, "attention_heads": 2, "feedforward": 8}

    def make(pretrain_epochs: int = 3, finetune_epochs: int = 6, **sections: dict[str, object]) -> Params:
        epochs = Budget(pretrain_epochs=pretrain_epochs, frozen_epochs=finetune_epochs, unfrozen_epochs=finetune_epochs)
        changed = {}
        xgboost = params.non_neural.xgboost.model_dump() | EAGER
        for name, keys in {"csai": small, "non_neural": {"xgboost": xgboost}, **sections}.items():
            section = getattr(params, name)
            changed[name] = type(section).model_validate(section.model_dump() | keys)
        return params.model_copy(
            update={"dataset": "synthetic", "device": "cpu", "budget": {"synthetic": epochs}, **changed}
        )

    return make
