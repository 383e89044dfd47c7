"""BRITS and GRU-D as imputune trains them beside the same networks of PyPOTS unchanged: one epoch on one core.

    python -m benchmarks.faster_pypots [--json] [--stays N] [--epochs N]

Both train through PyPOTS's own `fit` on fold 0's training stays and impute its validation stays through `predict`, with
the same sizes and seeds. They alternate in one process on one thread, so that other work on the machine slows both. The
first epoch of each is not timed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

import torch

from benchmarks import Parser, Result, Spread, report, run, timed
from benchmarks.pypots_csai import check_pypots
from benchmarks.training import generated_fold
from imputune.data.splits import FoldData
from imputune.imputers import pypots
from imputune.imputers.pypots import PypotsImputer, PypotsSizes
from imputune.models.faster_pypots import COMPUTE_GAPS
from imputune.runtime.console import print_table
from imputune.runtime.threads import use_one_thread
from imputune.settings.names import ImputerName
from imputune.settings.schema import Params

NETWORKS: tuple[ImputerName, ...] = ("brits", "grud")


class Speed(Result):
    """One network; ratios are PyPOTS's seconds over ours, pair by pair.

    difference: between the two imputations after the last epoch, mean of all cells, in standard deviations. Rounding
    makes it grow with every epoch.
    """

    network: str
    ratio_epoch: Spread
    ratio_imputing: Spread
    seconds_epoch_ours: Spread
    seconds_epoch_pypots: Spread
    difference: float


class Speeds(Result):
    """All networks, and what they were measured on."""

    networks: tuple[Speed, ...]
    training_stays: int
    validation_stays: int
    hours: int
    variables: int
    torch: str


@contextmanager
def unchanged() -> Iterator[None]:
    """Let PyPOTS's imputers that are built or used in this block compute as PyPOTS does."""
    from pypots.data.utils import _parse_delta_torch

    data = [import_module(f"pypots.imputation.{name}.data") for name in COMPUTE_GAPS]
    theirs: list[tuple[ModuleType, str, object]] = [
        (module, "_parse_delta_torch", _parse_delta_torch) for module in data
    ]
    theirs.append((pypots, "speed_up", lambda network: None))
    ours = [(module, name, getattr(module, name)) for module, name, _ in theirs]
    for module, name, function in theirs:
        setattr(module, name, function)
    try:
        yield
    finally:
        for module, name, function in ours:
            setattr(module, name, function)


def compare(name: ImputerName, data: FoldData, params: Params, epochs: int) -> Speed:
    """Train both in turn, one epoch each, and impute after each epoch."""
    _, hours, variables = data.train.shape
    sizes = PypotsSizes(hours=hours, variables=variables, hidden_size=params.csai.hidden_size, network={})
    train_NTD = torch.where(data.train.observed_NTD, data.train.values_NTD, torch.nan).numpy()
    values, observed = data.validation.values_NTD, data.validation.observed_NTD.float()

    def build() -> PypotsImputer:
        torch.manual_seed(params.seed)
        return PypotsImputer(name, sizes, batch_size=params.pretrain.batch_size, device=torch.device("cpu"))

    def use(imputer: PypotsImputer, epoch: int) -> tuple[float, float]:
        training = timed(lambda: imputer.train_epoch(train_NTD, epoch))
        return training, timed(lambda: imputer.represent(values, observed))

    ours, our_times, their_times = build(), [], []
    with unchanged():
        theirs = build()
    for epoch in range(epochs):
        our_times.append(use(ours, epoch))
        with unchanged():
            their_times.append(use(theirs, epoch))
    (our_epochs, our_imputing), (their_epochs, their_imputing) = (
        tuple(zip(*times[1:], strict=True)) for times in (our_times, their_times)
    )
    difference = ours.represent(values, observed).imputed_BTD - theirs.represent(values, observed).imputed_BTD
    return Speed(
        network=name,
        ratio_epoch=Spread.of([their / our for our, their in zip(our_epochs, their_epochs, strict=True)]),
        ratio_imputing=Spread.of([their / our for our, their in zip(our_imputing, their_imputing, strict=True)]),
        seconds_epoch_ours=Spread.of(our_epochs),
        seconds_epoch_pypots=Spread.of(their_epochs),
        difference=float(difference.abs().mean()),
    )


def measure(stays: int, epochs: int) -> Speeds:
    """Measure every network in turn."""
    use_one_thread()
    data, params = generated_fold(stays)
    training_stays, hours, variables = data.train.shape
    return Speeds(
        networks=tuple(compare(name, data, params, epochs) for name in NETWORKS),
        training_stays=training_stays,
        validation_stays=len(data.validation),
        hours=hours,
        variables=variables,
        torch=torch.__version__,
    )


def show(speeds: Speeds) -> None:
    """Print the measurements as a table."""
    print_table(
        f"PyPOTS's networks on one core: an epoch of {speeds.training_stays:,} stays, imputing "
        f"{speeds.validation_stays:,}; {speeds.hours} hours, {speeds.variables} variables",
        ("network", "what", "median", "lowest", "highest"),
        [
            row
            for speed in speeds.networks
            for row in (
                (speed.network, "epoch, seconds", *speed.seconds_epoch_ours.as_text()),
                ("", "epoch, seconds, PyPOTS unchanged", *speed.seconds_epoch_pypots.as_text()),
                ("", "epoch, PyPOTS / imputune, pair by pair", *speed.ratio_epoch.as_text()),
                ("", "imputing, PyPOTS / imputune, pair by pair", *speed.ratio_imputing.as_text()),
                ("", "mean difference of the imputations", f"{speed.difference:.1e}", "", ""),
            )
        ],
    )


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.faster_pypots", (__doc__ or "").splitlines()[0])
    parser.add_argument("--stays", type=int, default=1000, help="of the generated cohort (%(default)s)")
    parser.add_timed_epochs(4)
    given = parser.parse_args()
    check_pypots()
    report(measure(given.stays, given.epochs), show, given.json)


if __name__ == "__main__":
    run(main)
