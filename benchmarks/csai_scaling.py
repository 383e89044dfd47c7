"""How CSAI's cost grows: seconds of training steps, of masks and gaps, of a frozen head's epochs.

    python -m benchmarks.csai_scaling [--json]

Each row of the first table doubles the stays, the hours or the variables and keeps the other two; the records are
random. The second table compares the ends of each range. A step takes time in proportion to the stays of its batch,
but not to the other two:

    hours        the self-attention before the recurrence compares every hour of a stay with every other: hours squared
    variables    the feature regression, the conditional decay and the combination weight are matrices of variables by
                 variables: variables squared

All other parts are proportional. A step also has a constant cost, so that small steps are relatively expensive.

`benchmarks.large_cohort` measures memory.
"""

import time

import numpy as np
import torch

from benchmarks import Parser, Result, Spread, report, run, timed
from benchmarks.csai_speed import STAYS
from benchmarks.training import OBSERVED_FRACTION, Stopwatch, random_cohort, settings
from imputune.data.directions import Directions
from imputune.data.folds import Fold, draw_folds
from imputune.data.masking import draw_mask
from imputune.data.raw.synthetic import extract_synthetic
from imputune.data.splits import fit_and_split
from imputune.imputers.build import new_csai
from imputune.models.weights import module_weights
from imputune.protocol.variants import make_variant
from imputune.runtime.console import print_table
from imputune.runtime.threads import use_one_thread
from imputune.settings.schema import Budget
from imputune.training.finetune import FinetuneJob, finetune_fold
from imputune.training.imputer_training import CsaiTraining

BASE = {"stays": 64, "hours": 48, "variables": 35}  # of a batch
DOUBLINGS = {"stays": (64, 128, 256), "hours": (24, 48, 96), "variables": (35, 70, 140)}
NOT_LINEAR = {"stays": "nothing", "hours": "self-attention", "variables": "matrices of variables by variables"}
STEPS, REPETITIONS = 4, 5
PREPARED_STAYS = 4000
HEAD_EPOCHS = 200


class Step(Result):
    """One training step on a batch; `doubled` is the size that its table row changes."""

    doubled: str
    stays: int
    hours: int
    variables: int
    seconds: Spread


class Growth(Result):
    """How much more a step costs at the end of a range than at its start, and which part of it is not linear."""

    first: int
    last: int
    times_size: float
    times_seconds: float
    not_linear: str


class FrozenHead(Result):
    """Fine-tuning of a frozen mlp2 on one fold; the first epoch is not in `seconds_epochs`."""

    stays: int
    epochs: int
    seconds_until_first_epoch: float
    seconds_epochs: float


class Scaling(Result):
    """All measurements."""

    steps: list[Step]
    growth: dict[str, Growth]
    seconds_preparation: Spread
    frozen_head: FrozenHead


def step_seconds(stays: int, hours: int, variables: int) -> Spread:
    """Return the seconds of one training step on a batch of so many stays; the first few steps are not timed."""
    cohort = random_cohort(STEPS * stays + 2, hours, variables)
    rows = np.arange(len(cohort.outcome_N))
    fold = Fold(number=0, train=rows[:-2], validation=rows[-2:-1], test=rows[-1:])
    params = settings(cohort, REPETITIONS + 1)
    params = params.model_copy(update={"pretrain": params.pretrain.model_copy(update={"batch_size": stays})})
    data = fit_and_split(cohort, fold, params.scaling.clip_quantile)
    training = CsaiTraining(new_csai(data, params), data, params)
    return Spread.of([timed(training.train_epoch) / STEPS for _ in range(REPETITIONS + 1)][1:])


def preparation_seconds(stays: int) -> Spread:
    """Return the seconds to draw masks and compute gaps and last observations of both directions of all stays."""
    shape = (stays, BASE["hours"], BASE["variables"])
    generator = torch.Generator().manual_seed(0)
    observed_NTD = (torch.rand(shape, generator=generator) < OBSERVED_FRACTION).float()
    values_NTD = torch.randn(shape, generator=generator) * observed_NTD
    rate_D = torch.full(shape[-1:], 0.1)

    def prepare() -> None:
        Directions.of(values_NTD, observed_NTD - draw_mask(observed_NTD, rate_D, generator))

    return Spread.of([timed(prepare) for _ in range(REPETITIONS + 1)][1:])


def head_seconds(stays: int, epochs: int) -> FrozenHead:
    """Return the seconds of so many epochs of a frozen mlp2, on a fold of the generated cohort.

    One more epoch is trained: at the end of the first one, all representations are computed, and the time from there
    to the last one is that of `epochs` epochs. The imputer is untrained, which does not change the cost.
    """
    cohort = extract_synthetic(stays)
    params = settings(cohort, 1)
    budget = {params.dataset: Budget(pretrain_epochs=1, frozen_epochs=epochs + 1, unfrozen_epochs=1)}
    patient = params.finetune.model_copy(update={"patience": epochs + 2})
    params = params.model_copy(update={"budget": budget, "finetune": patient})
    fold = draw_folds(cohort, params.folds.count, params.seed)[0]
    data = fit_and_split(cohort, fold, params.scaling.clip_quantile)
    arrays = data.scaler.to_arrays() | module_weights("imputer", new_csai(data, params))
    watch = Stopwatch()
    started = time.perf_counter()
    job = FinetuneJob(
        cohort=cohort,
        fold=fold,
        params=params,
        variant=make_variant("mlp2"),
        pretrained={name: torch.from_numpy(array) for name, array in arrays.items()},
    )
    finetune_fold(job, watch)
    return FrozenHead(
        stays=stays,
        epochs=len(watch.times) - 1,
        seconds_until_first_epoch=watch.times[0] - started,
        seconds_epochs=watch.seconds,
    )


def growth_of(doubled: str, steps: list[Step]) -> Growth:
    """Compare the ends of the range of one size."""
    first, last = steps[0], steps[-1]
    sizes = getattr(first, doubled), getattr(last, doubled)
    return Growth(
        first=sizes[0],
        last=sizes[1],
        times_size=sizes[1] / sizes[0],
        times_seconds=last.seconds.median / first.seconds.median,
        not_linear=NOT_LINEAR[doubled],
    )


def measure() -> Scaling:
    """Return every measurement."""
    use_one_thread()
    steps = {
        name: [Step(doubled=name, **size, seconds=step_seconds(**size)) for size in _sizes(name)] for name in DOUBLINGS
    }
    return Scaling(
        steps=[step for each in steps.values() for step in each],
        growth={name: growth_of(name, each) for name, each in steps.items()},
        seconds_preparation=preparation_seconds(PREPARED_STAYS),
        frozen_head=head_seconds(STAYS, HEAD_EPOCHS),
    )


def _sizes(doubled: str) -> list[dict[str, int]]:
    return [BASE | {doubled: number} for number in DOUBLINGS[doubled]]


def show(scaling: Scaling) -> None:
    """Print the measurements as two tables and two lines."""
    lines: list[tuple[str, ...]] = []
    for before, step in zip([None, *scaling.steps], scaling.steps, strict=False):
        in_range = before is not None and before.doubled == step.doubled
        times = f"{step.seconds.median / before.seconds.median:.2f}" if before and in_range else ""
        lines.append((str(step.stays), str(step.hours), str(step.variables), f"{step.seconds.median:.3f}", times))
    print_table("One training step on one core", (*BASE, "seconds", "times the row above"), lines)
    print_table(
        "The ends of each range",
        ("", "from", "to", "size times", "seconds times", "not linear in it"),
        [
            (
                name,
                str(each.first),
                str(each.last),
                f"{each.times_size:g}",
                f"{each.times_seconds:.2f}",
                each.not_linear,
            )
            for name, each in scaling.growth.items()
        ],
    )
    print(
        f"Masks, gaps and last observations of {PREPARED_STAYS:,} stays, both directions: "
        f"{scaling.seconds_preparation.median:.2f} s"
    )
    head = scaling.frozen_head
    print(
        f"{head.epochs} epochs of a frozen mlp2, a fold of {head.stays:,} stays: {head.seconds_epochs:.1f} s; "
        f"before them, representations and a first epoch: {head.seconds_until_first_epoch:.1f} s"
    )


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.csai_scaling", (__doc__ or "").splitlines()[0])
    report(measure(), show, parser.parse_args().json)


if __name__ == "__main__":
    run(main)
