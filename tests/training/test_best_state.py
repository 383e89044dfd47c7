import math

import pytest
from torch import nn

from imputune.errors import UserError
from imputune.training.best_state import BestState, check_converging


def test_best_state_keeps_the_best_epoch_not_the_last():
    """After scores 1, 3, 2, 3 the weights of epoch 1 come back, and two epochs were stale."""
    model = nn.Linear(1, 1, bias=False)
    best = BestState(model)
    for epoch, score in enumerate([1.0, 3.0, 2.0, 3.0]):
        nn.init.constant_(model.weight, epoch)
        best.update(score, epoch)
    assert (best.epoch, best.score, best.stale) == (1, 3.0, 2)
    best.restore()
    assert model.weight.item() == 1


def test_of_equal_scores_the_lowest_loss_is_kept():
    """A perfect score from the first epoch on goes on being kept while the loss falls; a worse score never is."""
    model = nn.Linear(1, 1, bias=False)
    best = BestState(model)
    for epoch, (score, loss) in enumerate([(1.0, 0.7), (1.0, 0.4), (0.9, 0.1), (1.0, 0.4), (1.0, 0.5)]):
        nn.init.constant_(model.weight, epoch)
        best.update(score, epoch, loss)
    assert (best.epoch, best.score, best.loss, best.stale) == (1, 1.0, 0.4, 3)
    best.restore()
    assert model.weight.item() == 1
    best.update(1.1, 5, 9.0)
    assert (best.epoch, best.stale) == (5, 0)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_finite_number_is_a_user_error(loss):
    """The line names fold, epoch and remedy; finite numbers, however large, pass."""
    check_converging([0.0, 1e300], 3, 7, "lower it")
    with pytest.raises(UserError) as caught:
        check_converging([1.0, loss], 3, 7, "lower it")
    assert str(caught.value) == "training of fold 3 diverged in epoch 7: lower it"


def test_restoring_without_a_kept_epoch_is_an_error():
    """If no score is a number, no epoch is kept and there is nothing to restore."""
    best = BestState(nn.Linear(1, 1))
    best.update(math.nan, 0)
    assert (best.epoch, best.stale) == (-1, 1)
    with pytest.raises(RuntimeError, match="no epoch was kept"):
        best.restore()
