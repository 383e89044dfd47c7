"""SeFT beside the SeFT of PyPOTS 1.5: one epoch on one core.

    python -m benchmarks.seft_speed [--json] [--stays N] [--epochs N]

Both train on fold 0's training stays with the same width, attention heads and batch size. Their epochs alternate in one
process on one thread, so that other work on the machine slows both. The first epoch of each is not timed. Reading and
scaling the stays is part of our epoch; PyPOTS has the scaled values in memory. Few stays are the default, because an
epoch of 2,400 stays takes PyPOTS minutes; both take time in proportion to the stays.
"""

from collections.abc import Callable
from statistics import median

import torch

from benchmarks import Parser, Result, Spread, report, run, timed
from benchmarks.pypots_csai import MEASURED, check_pypots
from benchmarks.rival_speed import rival_epoch
from benchmarks.training import generated_fold
from imputune.data.splits import FoldData
from imputune.models.quiet_pypots import quiet
from imputune.runtime.console import print_table
from imputune.runtime.threads import use_one_thread
from imputune.settings.schema import Params

STAYS = 320  # of the generated cohort: 192 train


class Speed(Result):
    """Epochs of both programs in turn; ratios are PyPOTS's seconds over ours, pair by pair."""

    ratio_epoch_vs_pypots: float
    ratio_epoch_spread: Spread
    seconds_epoch_ours: Spread
    seconds_epoch_pypots: Spread
    training_stays: int
    hours: int
    variables: int
    batch_size: int
    parameters_ours: int
    parameters_pypots: int
    torch: str


def their_epoch(data: FoldData, params: Params) -> tuple[Callable[[], None], int]:
    """Return what trains PyPOTS's SeFT for an epoch by its `fit`, and its number of parameters."""
    from pypots.classification import SeFT

    sizes = params.rivals.seft
    _, hours, variables = data.train.shape
    with quiet():
        model = SeFT(
            n_steps=hours,
            n_features=variables,
            n_classes=2,
            n_layers=sizes.layers,
            n_heads=sizes.heads,
            d_model=sizes.width,
            d_ffn=sizes.width,
            n_seeds=sizes.heads,
            dropout=sizes.dropout,
            batch_size=params.finetune.batch_size,
            epochs=1,
            device="cpu",
            verbose=False,
        )
    nan_NTD = torch.where(data.train.observed_NTD, data.train.values_NTD, torch.nan).numpy()
    inputs = {"X": nan_NTD, "y": data.train.outcome_N.numpy().astype(int)}

    def train() -> None:
        with quiet():
            model.fit(inputs)

    return train, sum(weight.numel() for weight in model.model.parameters())


def measure(stays: int, epochs: int) -> Speed:
    """Train both in turn, one epoch each."""
    use_one_thread()
    data, params = generated_fold(stays)
    torch.manual_seed(params.seed)
    ours, trainer = rival_epoch(data, params, "seft")
    theirs, parameters_pypots = their_epoch(data, params)
    pairs = [(timed(ours), timed(theirs)) for _ in range(epochs)][1:]
    ratios = [pypots / our for our, pypots in pairs]
    training_stays, hours, variables = data.train.shape
    return Speed(
        ratio_epoch_vs_pypots=median(ratios),
        ratio_epoch_spread=Spread.of(ratios),
        seconds_epoch_ours=Spread.of([our for our, _ in pairs]),
        seconds_epoch_pypots=Spread.of([pypots for _, pypots in pairs]),
        training_stays=training_stays,
        hours=hours,
        variables=variables,
        batch_size=params.finetune.batch_size,
        parameters_ours=sum(weight.numel() for weight in trainer.module.parameters()),
        parameters_pypots=parameters_pypots,
        torch=torch.__version__,
    )


def show(speed: Speed) -> None:
    """Print the measurements as a table."""
    print_table(
        f"One epoch of SeFT on one core: {speed.training_stays:,} stays, {speed.hours} hours, {speed.variables} "
        "variables",
        ("", "seconds", "lowest", "highest", "parameters"),
        [
            ("imputune", *speed.seconds_epoch_ours.as_text(), f"{speed.parameters_ours:,}"),
            (f"PyPOTS {MEASURED}", *speed.seconds_epoch_pypots.as_text(), f"{speed.parameters_pypots:,}"),
            ("PyPOTS / imputune, pair by pair", *speed.ratio_epoch_spread.as_text(), ""),
        ],
    )


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.seft_speed", (__doc__ or "").splitlines()[0])
    parser.add_argument("--stays", type=int, default=STAYS, help="of the generated cohort (%(default)s)")
    parser.add_timed_epochs(3)
    given = parser.parse_args()
    check_pypots()
    report(measure(given.stays, given.epochs), show, given.json)


if __name__ == "__main__":
    run(main)
