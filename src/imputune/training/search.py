"""Search of a learning rate by Optuna: a log-uniform range, validation loss, hopeless trials pruned by Hyperband."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from imputune.runtime.recorder import Trial
from imputune.settings.schema import Optuna

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
CURVE = "curve"
Report = Callable[[int, Mapping[str, float]], None]


def search_rate(
    train: Callable[[float, Report], object],
    settings: Optuna,
    epochs: int,
    seed: int,
    name: str,
    journal: Path,
    heard: Callable[[Trial], None],
) -> float:
    """Return the learning rate whose trial had the lowest validation loss in any epoch.

    `train` trains at a rate for at most `epochs`, and reports each epoch's metrics, validation_loss among them; the
    report raises optuna.TrialPruned to end a hopeless trial. `heard` is told of every trial, earlier ones included.

    Trials are kept in `journal`: a search that was killed goes on where it stopped, and gives what it would have given
    uninterrupted, since each trial's sampler is seeded by its number. `name` decides which trial falls into which
    Hyperband bracket.

    Source: paper, section V.B (20 trials, 1e-5 to 1e-3, HyperbandPruner); Li et al. 2018.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _open(journal, name, settings, epochs)
    for trial in study.trials:
        heard(_told(trial))

    def objective(trial: optuna.Trial) -> float:
        curve: list[dict[str, float]] = []

        def report(epoch: int, metrics: Mapping[str, float]) -> None:
            curve.append(dict(metrics))
            trial.report(
                min(row["validation_loss"] for row in curve), epoch + 1
            )  # rungs count epochs that were trained
            if trial.should_prune():
                raise optuna.TrialPruned

        rate = trial.suggest_float("learning_rate", settings.lowest_rate, settings.highest_rate, log=True)
        try:
            train(rate, report)
        finally:
            trial.set_user_attr(CURVE, curve)
        return min(row["validation_loss"] for row in curve)

    while (number := len(study.trials)) < settings.trials:
        study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=settings.startup_trials, seed=(seed + number) % 2**32
        )
        study.optimize(objective, n_trials=1)
        heard(_told(study.trials[-1]))
    return float(min(map(_told, study.trials), key=lambda trial: trial.validation_loss).learning_rate)


def brackets(reduction_factor: int, epochs: int) -> int:
    """Return into how many brackets a HyperbandPruner divides the trials; each learns from its own alone."""
    return math.floor(math.log(epochs, reduction_factor) + 1e-9) + 1


def _open(journal: Path, name: str, settings: Optuna, epochs: int) -> optuna.Study:
    """Open a study, without the trial during which an earlier process was killed."""
    study = _study(journal, name, settings, epochs)
    ended = [trial for trial in study.trials if trial.state in ENDED]
    if len(ended) < len(study.trials):
        fresh = journal.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        _study(fresh, name, settings, epochs).add_trials(ended)
        fresh.replace(journal)
        study = _study(journal, name, settings, epochs)
    return study


def _study(journal: Path, name: str, settings: Optuna, epochs: int) -> optuna.Study:
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name=name,
        load_if_exists=True,
        pruner=optuna.pruners.HyperbandPruner(1, epochs, settings.reduction_factor),
    )


def _told(trial: FrozenTrial) -> Trial:
    curve = trial.user_attrs[CURVE]
    return Trial(
        trial.number,
        trial.params["learning_rate"],
        "complete" if trial.state == TrialState.COMPLETE else "pruned",
        min(row["validation_loss"] for row in curve),
        curve,
    )
