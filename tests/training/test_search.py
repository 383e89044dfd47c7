import math

import optuna
import pytest

from imputune.errors import UserError
from imputune.training.best_state import DivergedError
from imputune.training.search import Search, brackets, search_rate

pytestmark = pytest.mark.slow


class Killed(BaseException):
    """Ends the process in the middle of a trial."""


def bowl(rate, report, epochs=9):
    """Report losses that fall with every epoch, towards the distance of log10(rate) from -4."""
    for epoch in range(epochs):
        report(epoch, {"validation_loss": abs(math.log10(rate) + 4) + 1 / (epoch + 1), "validation_auc": 0.5})


def search_of(make_params, earlier=(), **keys):
    """Return a search with the project's settings, or some of them changed, after earlier trials."""
    settings = make_params().schedules.optuna.model_copy(update=keys)
    return Search(settings=settings, epochs=9, seed=7, name="study", earlier=tuple(earlier))


def test_finds_the_rate_of_the_lowest_loss(make_params):
    """Some of 20 trials are pruned early; the rate of the lowest loss is returned, and it is near the optimum."""
    trials = []
    rate = search_rate(search_of(make_params), bowl, trials.append)
    assert len(trials) == 20
    assert all(1e-5 <= trial.learning_rate <= 1e-3 for trial in trials)
    best = min(trials, key=lambda trial: trial.validation_loss)
    assert rate == best.learning_rate == pytest.approx(1e-4, rel=0.5)
    assert {trial.state for trial in trials} == {"complete", "pruned"}
    assert all(len(trial.curve) == 9 for trial in trials if trial.state == "complete")
    assert all(len(trial.curve) < 9 for trial in trials if trial.state == "pruned")
    assert best.validation_loss == min(row["validation_loss"] for row in best.curve)


@pytest.mark.parametrize("killed_in", [0, 1, 7, 19])
def test_killed_search_goes_on_and_finds_the_same(make_params, killed_in):
    """A search killed in a trial goes on after the finished trials and gives, trial by trial, the same."""
    whole, again, runs = [], [], []
    rate = search_rate(search_of(make_params), bowl, whole.append)

    def dying(rate, report):
        runs.append(rate)
        if len(runs) == killed_in + 1:
            report(0, {"validation_loss": 1.0})
            raise Killed
        bowl(rate, report)

    with pytest.raises(Killed):
        search_rate(search_of(make_params), dying, again.append)
    assert again == whole[:killed_in]
    earlier = [*again]
    again.clear()
    assert search_rate(search_of(make_params, earlier), dying, again.append) == rate
    assert again == whole
    assert len(runs) == 21


def test_more_trials_go_on_from_fewer(make_params):
    """A search of 8 trials raised to 12 keeps the 8."""
    few, more = [], []
    search_rate(search_of(make_params, trials=8), bowl, few.append)
    search_rate(search_of(make_params, few, trials=12), bowl, more.append)
    assert more[:8] == few
    assert len(more) == 12


def diverging(rate, report):
    """Diverge above a rate of 1e-4: in the first epoch, or, where the rate is lower, after a very low loss."""
    if rate > 3e-4:
        raise DivergedError("in the first epoch")
    if rate > 1e-4:
        report(0, {"validation_loss": 1e-6, "validation_auc": 0.5})
        raise DivergedError("in the second epoch")
    bowl(rate, report)


def test_a_diverging_trial_is_pruned_and_never_wins(make_params, capfd):
    """The search goes on; the trial keeps its curve, has infinite loss, and nothing is printed."""
    trials = []
    rate = search_rate(search_of(make_params), diverging, trials.append)
    assert len(trials) == 20
    diverged = [trial for trial in trials if trial.learning_rate > 1e-4]
    assert {(trial.state, trial.validation_loss) for trial in diverged} == {("pruned", math.inf)}
    assert {len(trial.curve) for trial in diverged} == {0, 1}
    assert rate <= 1e-4
    assert capfd.readouterr() == ("", "")


def test_a_resumed_search_with_diverging_trials_gives_the_same(make_params):
    """Eight trials, then twelve more after them, are the twenty of an uninterrupted search."""
    whole, few, more = [], [], []
    rate = search_rate(search_of(make_params), diverging, whole.append)
    search_rate(search_of(make_params, trials=8), diverging, few.append)
    assert search_rate(search_of(make_params, few), diverging, more.append) == rate
    assert few == whole[:8]
    assert more == whole


def test_a_search_whose_trials_all_diverge_is_one_error(make_params, capfd):
    """The error names the search and the settings to lower; Optuna prints nothing."""

    def train(rate, report):
        report(0, {"validation_loss": 0.5})
        raise DivergedError("always")

    message = "all 3 trials of search study diverged: lower the rates of schedules.optuna in params.yaml"
    with pytest.raises(UserError) as raised:
        search_rate(search_of(make_params, trials=3), train, lambda trial: None)
    assert str(raised.value) == message
    assert capfd.readouterr() == ("", "")


def test_another_error_ends_the_search_without_optunas_traceback(make_params, capfd):
    """The error is raised as it is, and nothing is printed beside it."""

    def train(rate, report):
        raise UserError("the disk is full")

    with pytest.raises(UserError, match="the disk is full"):
        search_rate(search_of(make_params), train, lambda trial: None)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("epochs", "expected"), [(1, 1), (2, 1), (3, 2), (9, 3), (26, 3), (27, 4), (200, 5)])
def test_brackets_are_as_many_as_the_pruner_makes(make_params, epochs, expected):
    """The number of brackets is that of optuna's own pruner: floor(log3(epochs)) + 1."""
    assert brackets(3, epochs) == expected
    pruner = optuna.pruners.HyperbandPruner(1, epochs, 3)
    study = optuna.create_study(pruner=pruner)
    study.ask()
    trial = study.ask()
    trial.report(1.0, 1)
    trial.should_prune()
    assert pruner._n_brackets == expected
