import math

import optuna
import pytest

from imputune.training.search import brackets, search_rate


class Killed(BaseException):
    """What ends the process in the middle of a trial."""


def bowl(rate, report, epochs=9):
    """Train: the loss falls with every epoch, towards the rate's distance from 1e-4 in powers of ten."""
    for epoch in range(epochs):
        report(epoch, {"validation_loss": abs(math.log10(rate) + 4) + 1 / (epoch + 1), "validation_auc": 0.5})


def settings_of(make_params, **keys):
    """Return the settings of the search with other keys."""
    return make_params().schedules.optuna.model_copy(update=keys)


def test_finds_the_rate_of_the_lowest_loss(make_params, tmp_path):
    """Of 20 trials some are pruned early; the rate is that of the lowest loss, inside the range, near the optimum."""
    heard = []
    rate = search_rate(bowl, settings_of(make_params), 9, 7, "study", tmp_path / "j", heard.append)
    assert len(heard) == 20
    assert all(1e-5 <= trial.learning_rate <= 1e-3 for trial in heard)
    best = min(heard, key=lambda trial: trial.validation_loss)
    assert rate == best.learning_rate == pytest.approx(1e-4, rel=0.5)
    assert {trial.state for trial in heard} == {"complete", "pruned"}
    assert all(len(trial.curve) == 9 for trial in heard if trial.state == "complete")
    assert all(len(trial.curve) < 9 for trial in heard if trial.state == "pruned")
    assert best.validation_loss == min(row["validation_loss"] for row in best.curve)


@pytest.mark.parametrize("killed_in", [0, 1, 7, 19])
def test_killed_search_goes_on_and_finds_the_same(make_params, tmp_path, killed_in):
    """Ended in the middle of a trial, the search takes up the finished ones and gives, trial by trial, the same."""
    settings, whole, again, runs = settings_of(make_params), [], [], []
    rate = search_rate(bowl, settings, 9, 7, "study", tmp_path / "whole", whole.append)

    def dying(rate, report):
        runs.append(rate)
        if len(runs) == killed_in + 1:
            report(0, {"validation_loss": 1.0})
            raise Killed
        bowl(rate, report)

    journal = tmp_path / "journal"
    with pytest.raises(Killed):
        search_rate(dying, settings, 9, 7, "study", journal, again.append)
    assert again == whole[:killed_in]
    # As kill -9 leaves it: the trial is still marked as running.
    study = optuna.load_study(
        study_name="study",
        storage=optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal))),
    )
    study.ask()
    again.clear()
    assert search_rate(dying, settings, 9, 7, "study", journal, again.append) == rate
    assert again == whole
    assert len(runs) == 21


def test_more_trials_go_on_from_fewer(make_params, tmp_path):
    """A search of 8 trials raised to 12 keeps the 8."""
    few, more = [], []
    search_rate(bowl, settings_of(make_params, trials=8), 9, 7, "study", tmp_path / "j", few.append)
    search_rate(bowl, settings_of(make_params, trials=12), 9, 7, "study", tmp_path / "j", more.append)
    assert more[:8] == few
    assert len(more) == 12


@pytest.mark.parametrize(("epochs", "expected"), [(1, 1), (2, 1), (3, 2), (9, 3), (26, 3), (27, 4), (200, 5)])
def test_brackets_are_the_pruners(make_params, epochs, expected):
    """As many brackets as optuna's own pruner makes: floor(log3(epochs)) + 1."""
    assert brackets(3, epochs) == expected
    pruner = optuna.pruners.HyperbandPruner(1, epochs, 3)
    study = optuna.create_study(pruner=pruner)
    study.ask()
    trial = study.ask()
    trial.report(1.0, 1)
    trial.should_prune()
    assert pruner._n_brackets == expected
