"""Search of a learning rate by Optuna: a log-uniform range, validation loss, hopeless trials pruned by Hyperband."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import optuna
from optuna.trial import FrozenTrial, TrialState

from imputune.errors import UserError
from imputune.runtime.recorder import Curve, EpochReport, Trial
from imputune.settings.head_sections import Optuna
from imputune.training.best_state import DivergedError

CURVE, DIVERGED = "curve", "diverged"


@dataclass(frozen=True, kw_only=True)
class Search:
    """One search of a learning rate.

    epochs: of a trial at most. name: of the Optuna study; it decides which trial falls into which Hyperband bracket,
    so another name gives another result. earlier: the trials of an interrupted try, by number; the search goes on
    after them.
    """

    settings: Optuna
    epochs: int
    seed: int
    name: str
    earlier: Sequence[Trial] = ()


def search_rate(
    search: Search, train: Callable[[float, EpochReport], object], trial_finished: Callable[[Trial], None]
) -> float:
    """Return the learning rate whose trial reached the lowest validation loss in any epoch.

    `train` trains at a rate for at most `search.epochs` epochs and reports each epoch's metrics, among them
    validation_loss; the report raises optuna.TrialPruned to end a hopeless trial. A trial whose training diverges is
    pruned too, with the curve up to there. `trial_finished` is called with every trial, the earlier ones too.

    An interrupted search goes on with the next trial and gives what it would have given without the interruption,
    because each trial's sampler is seeded by the trial's number.

    Raises UserError if every trial diverged.

    Source: paper, section V.B (20 trials, 1e-5 to 1e-3, HyperbandPruner); Li et al. 2018.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings = search.settings
    study = optuna.create_study(
        study_name=search.name,
        pruner=optuna.pruners.HyperbandPruner(1, search.epochs, settings.reduction_factor),
    )
    for number in range(max(settings.trials, len(search.earlier))):
        study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=settings.startup_trials, seed=(search.seed + number) % 2**32
        )
        earlier = search.earlier[number] if number < len(search.earlier) else None
        _run_trial(study, settings, partial(_train_or_repeat, train, earlier))
        trial_finished(_as_trial(study.trials[-1]))
    best = min(map(_as_trial, study.trials), key=lambda trial: trial.validation_loss)
    if not math.isfinite(best.validation_loss):
        raise UserError(
            f"all {len(study.trials)} trials of search {search.name} diverged: lower the rates of schedules.optuna in "
            "params.yaml"
        )
    return float(best.learning_rate)


def _run_trial(study: optuna.Study, settings: Optuna, train: Callable[[float, EpochReport], object]) -> None:
    """Train at a suggested rate and tell the study how it went; an error ends the search.

    Optuna's own loop, `optimize`, would print the error's traceback.
    """
    trial = study.ask()
    curve: Curve = []

    def report(epoch: int, metrics: Mapping[str, float]) -> None:
        curve.append(dict(metrics))
        trial.report(_lowest_loss(curve), epoch + 1)  # the pruner counts trained epochs
        if trial.should_prune():
            raise optuna.TrialPruned

    rate = trial.suggest_float("learning_rate", settings.lowest_rate, settings.highest_rate, log=True)
    try:
        train(rate, report)
        loss, state = _lowest_loss(curve), TrialState.COMPLETE
    except (optuna.TrialPruned, DivergedError) as ended:
        trial.set_user_attr(DIVERGED, isinstance(ended, DivergedError))
        loss, state = None, TrialState.PRUNED
    trial.set_user_attr(CURVE, curve)
    study.tell(trial, loss, state)


def brackets(reduction_factor: int, epochs: int) -> int:
    """Return the number of brackets of a HyperbandPruner; a trial is compared with trials of its own bracket only."""
    return math.floor(math.log(epochs, reduction_factor) + 1e-9) + 1


def _train_or_repeat(
    train: Callable[[float, EpochReport], object], earlier: Trial | None, rate: float, report: EpochReport
) -> None:
    """Train at a rate; or report again what an earlier trial at this rate reported, so that pruner and sampler know."""
    if earlier is None or earlier.learning_rate != rate:
        train(rate, report)
        return
    for epoch, metrics in enumerate(earlier.curve):
        report(epoch, metrics)
    if math.isinf(earlier.validation_loss):
        raise DivergedError


def _as_trial(trial: FrozenTrial) -> Trial:
    curve: Curve = trial.user_attrs[CURVE]
    return Trial(
        number=trial.number,
        learning_rate=trial.params["learning_rate"],
        state="complete" if trial.state == TrialState.COMPLETE else "pruned",
        validation_loss=math.inf if trial.user_attrs.get(DIVERGED) else _lowest_loss(curve),
        curve=curve,
    )


def _lowest_loss(curve: Curve) -> float:
    return min(row["validation_loss"] for row in curve)
