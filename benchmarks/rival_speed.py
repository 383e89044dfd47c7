"""What rivals and CSAI take on one core: seconds of an epoch, and of the risks of 1,000 stays.

    python -m benchmarks.rival_speed [--json] [--cohort FOLDER | --stays N] [--epochs N]

Each trains on fold 0's training stays, with the settings of params.yaml, one after the other in one process. The first
epoch is not timed. The risks are those of the test stays, reading and scaling included. The last row is our way: an
epoch of pretraining CSAI, and the risks of an mlp2 on its hidden state.
"""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import torch

from benchmarks import Parser, Result, Spread, report, run, timed
from benchmarks.csai_speed import STAYS
from benchmarks.pypots_csai import check_pypots
from benchmarks.training import PARAMS
from imputune.data.batches import batches_in_order, shuffled_batches
from imputune.data.cohort import Cohort, read_cohort
from imputune.data.directions import Directions
from imputune.data.folds import draw_folds
from imputune.data.raw.synthetic import extract_synthetic
from imputune.data.splits import FoldData, fit_and_split
from imputune.imputers.build import new_csai
from imputune.models.compiled.library import name_of_code
from imputune.protocol.rivals import Rival
from imputune.protocol.variants import make_variant
from imputune.runtime.console import print_table
from imputune.runtime.threads import use_one_thread
from imputune.settings.file import read_params
from imputune.settings.names import RivalName
from imputune.settings.schema import Params
from imputune.training.finetune import build_classifier
from imputune.training.imputer_training import CsaiTraining
from imputune.training.rivals import RivalTrainer, new_rival


class Cost(Result):
    """One model: seconds of an epoch, and of the risks of 1,000 stays."""

    model: str
    parameters: int
    seconds_epoch: Spread
    seconds_1000_stays: float


class Costs(Result):
    """All models, and what they were measured on."""

    models: list[Cost]
    training_stays: int
    hours: int
    variables: int
    compiled: str
    torch: str


def rival_epoch(data: FoldData, params: Params, name: RivalName) -> tuple[Callable[[], None], RivalTrainer]:
    """Return what trains a rival on raw records for an epoch, and its trainer."""
    module = new_rival(data.train.shape, params, Rival(name=name, input="raw"))
    splits = (data.train, data.validation, data.test)
    trainer = RivalTrainer(module, dict.fromkeys(splits, ()), torch.device("cpu"))
    optimizer = torch.optim.Adam([trainer.weights.vector], fused=True)
    order = torch.Generator().manual_seed(params.seed)

    def train() -> None:
        module.train()
        for stays in shuffled_batches(len(data.train), params.finetune.batch_size, order):
            loss, _ = trainer.loss(data.train, stays)
            trainer.weights.clear_gradient()
            loss.backward()
            optimizer.step()

    return train, trainer


def cost_of_rival(data: FoldData, params: Params, name: RivalName, epochs: int) -> Cost:
    """Measure a rival."""
    train, trainer = rival_epoch(data, params, name)
    seconds = [timed(train) for _ in range(epochs)][1:]
    return Cost(
        model=name,
        parameters=sum(weight.numel() for weight in trainer.module.parameters()),
        seconds_epoch=Spread.of(seconds),
        seconds_1000_stays=_for_1000(lambda: trainer.risk(data.test), data),
    )


def cost_of_csai(data: FoldData, params: Params, epochs: int) -> Cost:
    """Measure CSAI's pretraining, and an mlp2 on it."""
    training = CsaiTraining(new_csai(data, params), data, params)
    seconds = [timed(training.train_epoch) for _ in range(epochs)][1:]
    classifier = build_classifier(data.train.shape, params, make_variant("mlp2")).eval()

    def give_risks() -> None:
        with torch.no_grad():
            for stays in batches_in_order(len(data.test)):
                torch.sigmoid(classifier(Directions.of(*data.test.batch(stays))))

    return Cost(
        model="mlp2 on csai",
        parameters=sum(weight.numel() for weight in classifier.parameters()),
        seconds_epoch=Spread.of(seconds),
        seconds_1000_stays=_for_1000(give_risks, data),
    )


def _for_1000(give_risks: Callable[[], object], data: FoldData) -> float:
    """Return the seconds for 1,000 stays; a first time is not counted."""
    give_risks()
    return timed(give_risks) * 1000 / len(data.test)


def measure(cohort: Cohort, epochs: int) -> Costs:
    """Measure every rival, then CSAI."""
    use_one_thread()
    params = read_params(PARAMS).model_copy(update={"device": "cpu", "dataset": cohort.dataset})
    fold = draw_folds(cohort, params.folds.count, params.seed)[0]
    data = fit_and_split(cohort, fold, params.scaling.clip_quantile)
    torch.manual_seed(params.seed)
    models = [cost_of_rival(data, params, name, epochs) for name in get_args(RivalName)]
    training_stays, hours, variables = data.train.shape
    return Costs(
        models=[*models, cost_of_csai(data, params, epochs)],
        training_stays=training_stays,
        hours=hours,
        variables=variables,
        compiled=name_of_code(),
        torch=torch.__version__,
    )


def show(costs: Costs) -> None:
    """Print the measurements as a table."""
    size = f"{costs.training_stays:,} training stays, {costs.hours} hours, {costs.variables} variables"
    print_table(
        f"One core: {size}, compiled code: {costs.compiled}",
        ("model", "parameters", "seconds an epoch", "lowest", "highest", "seconds for 1,000 stays"),
        [
            (cost.model, f"{cost.parameters:,}", *cost.seconds_epoch.as_text(), f"{cost.seconds_1000_stays:.2f}")
            for cost in costs.models
        ],
    )


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.rival_speed", (__doc__ or "").splitlines()[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--cohort", type=Path, help="folder of an extracted cohort; without it, one is generated")
    source.add_argument("--stays", type=int, default=STAYS, help="of the generated cohort (%(default)s)")
    parser.add_timed_epochs(4)
    given = parser.parse_args()
    check_pypots()
    cohort = read_cohort(given.cohort) if given.cohort else extract_synthetic(given.stays)
    report(measure(cohort, given.epochs), show, given.json)


if __name__ == "__main__":
    run(main)
