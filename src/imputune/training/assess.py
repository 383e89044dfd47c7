"""Scoring one fold's pretrained imputer on held-out cells of its test stays, under every masking pattern and rate."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from imputune.data.cohort import Cohort
from imputune.data.folds import Fold
from imputune.data.masking import masking_rates
from imputune.data.masking_patterns import held_out_cells
from imputune.data.scaling import Scaler, standardised_tensors
from imputune.data.splits import FoldData, Split, split_cohort
from imputune.errors import UserError
from imputune.evaluation.assessment import AssessedFold, HeldOutScores
from imputune.evaluation.held_out import HeldOutCells, held_out_scores
from imputune.imputers.build import represent, saved_imputer
from imputune.imputers.interface import Imputer, Representation
from imputune.runtime.recorder import Recorder
from imputune.runtime.seeds import Purpose, generator_for
from imputune.settings.names import ImputerName, MaskingPattern
from imputune.settings.schema import Params

COMPARED_STAYS = 8  # imputed alone too, to see whether the batch changes them
TIMED_STAYS = 1000  # `AssessedFold.seconds` is for this many stays
VARIETIES: dict[MaskingPattern, int | None] = {
    "uniform": None,  # the random patterns hold out the same cells as pretraining does at the same rate
    "non_uniform": None,
    "hours": 1,
    "onward": 2,
    "blocks": 3,
}
"""Which draw of `Purpose.TEST_MASKS` each masking pattern has."""


@dataclass(frozen=True, eq=False, kw_only=True)
class AssessJob:
    """One fold of an imputer to assess.

    pretrained: the weights of its pretraining. group_N: for every stay of the cohort, its group by the fraction of
    missing cells. example_NTD: a generated stay to impute too, in the variables' units, (1, T, D), NaN where missing.
    """

    cohort: Cohort
    fold: Fold
    params: Params
    imputer: ImputerName
    pretrained: dict[str, torch.Tensor]
    group_N: np.ndarray
    example_NTD: np.ndarray


def assess_fold(job: AssessJob, recorder: Recorder) -> AssessedFold:
    """Score a fold's imputer on the cells on which every imputer is scored. The recorder gets no report.

    Raises UserError if a masking rate masks none or all of the observed cells.
    """
    data = split_cohort(job.cohort, job.fold, Scaler.from_arrays(job.pretrained))
    shape, hours = job.cohort.values_NTD.shape, job.cohort.bin_hours
    imputer = saved_imputer(job.imputer, shape, job.params, job.pretrained, bin_hours=hours)
    started = time.perf_counter()
    together = represent(imputer, data.test)
    seconds = (time.perf_counter() - started) * TIMED_STAYS / len(data.test)
    return AssessedFold(
        fold=data.number,
        seconds=seconds,
        batch_difference=_batch_difference(imputer, data.test, together),
        scores=tuple(
            _scores(job, data, imputer, pattern, rate)
            for pattern in job.params.assess.patterns
            for rate in job.params.assess.rates
        ),
        example=_imputed_example(job, data.scaler, imputer),
    )


def held_out(data: FoldData, pattern: MaskingPattern, rate: float, params: Params) -> torch.Tensor:
    """Return which cells of a fold's test stays are held out, boolean (N, T, D), the same for every imputer.

    A variable that no training stay has is not held out: it has no standard deviation to measure errors in.

    Raises UserError if none or all of the observed cells are held out.
    """
    test_observed_NTD, known_D = data.test.observed_NTD, torch.from_numpy(data.observed_count_D > 0)
    rate_D = masking_rates(data.observed_count_D, pattern, rate, params.masking.factor)
    generator = generator_for(params.seed, data.number, Purpose.TEST_MASKS, VARIETIES[pattern])
    rates = torch.from_numpy(rate_D).float()
    known_NTD = test_observed_NTD & known_D
    masked_NTD = held_out_cells(known_NTD, pattern, rate, rates, params.assess, generator, data.bin_hours)
    for cells_NTD, problem in (
        (masked_NTD, "masks no cell"),
        (test_observed_NTD & ~masked_NTD, "leaves no cell visible"),
    ):
        if not cells_NTD.any():
            raise UserError(
                f"pattern {pattern} at rate {rate} {problem} in the {len(data.test)} test stays of fold {data.number}: "
                "choose other assess.rates in params.yaml"
            )
    return masked_NTD


def _batch_difference(imputer: Imputer, test: Split, together: Representation) -> float:
    """Return the largest difference between some test stays imputed alone and the same stays in a batch."""
    differences = [0.0]
    for stay in torch.linspace(0, len(test) - 1, min(COMPARED_STAYS, len(test))).long():
        alone = imputer.represent(*test.batch(stay[None]))
        differences.append((alone.imputed_BTD - together.imputed_BTD[stay]).abs().max().item())
        if alone.hidden_BH is not None and together.hidden_BH is not None:
            differences.append((alone.hidden_BH - together.hidden_BH[stay]).abs().max().item())
    return max(differences)


def _scores(job: AssessJob, data: FoldData, imputer: Imputer, pattern: MaskingPattern, rate: float) -> HeldOutScores:
    test = data.test
    masked_NTD = held_out(data, pattern, rate, job.params)
    observed_NTD = test.observed_NTD
    estimate_NTD = represent(imputer, test, observed_NTD & ~masked_NTD).imputed_BTD
    cells = HeldOutCells(
        estimate_NTD=estimate_NTD.numpy(),
        truth_NTD=test.values_NTD.numpy(),
        held_out_NTD=masked_NTD.numpy(),
        observed_NTD=observed_NTD.numpy(),
    )
    return held_out_scores(cells, job.cohort.variable_names, job.group_N[job.fold.test], pattern, rate)


def _imputed_example(job: AssessJob, scaler: Scaler, imputer: Imputer) -> list[list[float]]:
    """Return the example stay imputed, in the variables' units, T lists of D numbers."""
    example_NTD, observed_NTD = standardised_tensors(job.example_NTD.copy(), scaler)
    imputed_NTD = scaler.restore(imputer.represent(example_NTD, observed_NTD.float()).imputed_BTD.numpy())
    rounded: list[list[float]] = np.round(imputed_NTD[0], 4).astype(float).tolist()
    return rounded
