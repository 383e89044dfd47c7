"""Scoring one fold's imputer on held-out cells of its test stays, under every way of hiding; nothing is trained."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from imputune.data.cohort import Cohort
from imputune.data.folds import Fold
from imputune.data.masking import hiding_rates
from imputune.data.masking_patterns import hidden_cells
from imputune.data.scaling import load_scaler, standardised_tensors
from imputune.data.splits import FoldData, Partition, divide
from imputune.errors import UserError
from imputune.evaluation.imputation import held_out_scores
from imputune.imputers.build import represent, saved_imputer
from imputune.imputers.interface import Imputer
from imputune.runtime.recorder import Recorder
from imputune.runtime.seeds import generator_for
from imputune.settings.names import Hiding, ImputerName
from imputune.settings.schema import Params
from imputune.training.pretrain import TEST_MASKS

ALONE = 8  # stays that are imputed alone too, to see whether a batch changes them
STAYS = 1000  # that `seconds` stands for
PURPOSES: dict[Hiding, tuple[int, ...]] = {
    "uniform": (TEST_MASKS,),  # the same cells as pretraining holds out at the same share
    "non_uniform": (TEST_MASKS,),
    "hours": (TEST_MASKS, 1),
    "onward": (TEST_MASKS, 2),
    "blocks": (TEST_MASKS, 3),
}


@dataclass(frozen=True, eq=False)
class AssessJob:
    """One fold of an imputer to assess.

    group_N: the group, by share of missing cells, of every stay of the cohort. example_NTD: an invented stay to impute
    beside, in the variables' units, (1, T, D), NaN where not observed.
    """

    cohort: Cohort
    fold: Fold
    params: Params
    imputer: ImputerName
    pretrained: dict[str, torch.Tensor]
    group_N: np.ndarray
    example_NTD: np.ndarray


@dataclass(frozen=True, eq=False)
class AssessedFold:
    """What assessing one fold returns.

    seconds: to impute 1,000 stays on one core. batch_difference: the furthest that a stay imputed alone lies from the
    same stay in a batch, in deviations, hidden state included. scores: a row for each way of hiding and share (see
    `held_out_scores`). example: the invented stay imputed, in the variables' units, T lists of D numbers.
    """

    fold: int
    seconds: float
    batch_difference: float
    scores: list[dict[str, Any]]
    example: list[list[float]]

    @property
    def final_metrics(self) -> dict[str, float]:
        """What a recorder hears of the fold at its end."""
        told = {f"mae_{row['hiding']}_{100 * row['share']:g}": row["mae"] for row in self.scores}
        return told | {"seconds_per_1000_stays": self.seconds, "batch_difference": self.batch_difference}


def assess_fold(job: AssessJob, recorder: Recorder) -> AssessedFold:
    """Score a fold's imputer; every imputer meets the same held-out cells. Nothing is reported before the end.

    Raises UserError where a share hides nothing, or leaves nothing to go by.
    """
    params = job.params
    data = divide(job.cohort, job.fold, load_scaler(job.pretrained))
    imputer = saved_imputer(job.imputer, job.cohort.values_NTD.shape, params, job.pretrained)
    started = time.perf_counter()
    together = represent(imputer, data.test)
    seconds = (time.perf_counter() - started) * STAYS / len(data.test)
    difference = 0.0
    for stay in torch.linspace(0, len(data.test) - 1, min(ALONE, len(data.test))).long():
        alone = imputer.represent(*data.test.batch(stay[None]))
        pairs = [(alone.imputed_BTD, together.imputed_BTD[stay])]
        if alone.hidden_BH is not None and together.hidden_BH is not None:
            pairs.append((alone.hidden_BH, together.hidden_BH[stay]))
        difference = max(difference, *((one - other).abs().max().item() for one, other in pairs))
    scores = [
        {"hiding": hiding, "share": share} | _score(job, data, imputer, hiding, share)
        for hiding in params.assess.hiding
        for share in params.assess.shares
    ]
    example, observed = standardised_tensors(job.example_NTD.copy(), data.scaler)
    imputed = data.scaler.restore(imputer.represent(example, observed.float()).imputed_BTD.numpy())
    return AssessedFold(data.number, seconds, difference, scores, np.round(imputed[0], 4).astype(float).tolist())


def held_out(data: FoldData, hiding: Hiding, share: float, params: Params) -> torch.Tensor:
    """Return the cells of a fold's test stays that are held out, boolean (N, T, D), the same for every imputer.

    A variable that no training stay has is not held out: it has no deviation to measure errors in.

    Raises UserError where none is held out, or none is left visible.
    """
    test, known_D = data.test, data.train.observed_NTD.any(dim=0).any(dim=0)
    rate_D = hiding_rates(data.train.observed_NTD.numpy(), hiding, share, params.masking.factor)
    generator = generator_for(params.seed, data.number, *PURPOSES[hiding])
    rates = torch.from_numpy(rate_D).float()
    hidden_NTD = hidden_cells(test.observed_NTD & known_D, hiding, share, rates, params.assess, generator)
    for cells, what in ((hidden_NTD, "hides no cell"), (test.observed_NTD & ~hidden_NTD, "leaves no cell to go by")):
        if not cells.any():
            raise UserError(
                f"hiding {hiding} at share {share} {what} in the {len(test)} test stays of fold {data.number}: choose "
                "other assess.shares in params.yaml"
            )
    return hidden_NTD


def _score(job: AssessJob, data: FoldData, imputer: Imputer, hiding: Hiding, share: float) -> dict[str, Any]:
    test: Partition = data.test
    hidden = held_out(data, hiding, share, job.params)
    estimate = represent(imputer, test, test.observed_NTD & ~hidden).imputed_BTD
    return held_out_scores(
        estimate.numpy(),
        test.values_NTD.numpy(),
        hidden.numpy(),
        test.observed_NTD.numpy(),
        job.cohort.variable_names,
        job.group_N[job.fold.test],
    )
