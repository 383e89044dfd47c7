import pytest
import torch

from imputune.data.batches import batches_in_order, shuffled_batches
from imputune.data.directions import Directions
from imputune.data.masking import draw_mask
from imputune.data.splits import fit_and_split, shuffled_across_stays
from imputune.imputers.build import new_csai, new_imputer
from imputune.runtime.seeds import Purpose, generator_for
from imputune.training import imputer_training
from imputune.training.imputer_training import CsaiTraining, training_of
from imputune.training.pretrain import PretrainJob, pretrain_fold
from imputune.training.reconstruction import reconstruction_loss


@pytest.fixture
def data(cohort, folds):
    """The first fold."""
    return fit_and_split(cohort, folds[0], 0.001)


def test_train_epoch_takes_a_step_on_every_batch(data, make_params):
    """54 training stays in batches of 16 are four losses; every weight moves, and the rate ends at 0."""
    params = make_params(pretrain_epochs=2, pretrain={"batch_size": 16})
    training = CsaiTraining(new_csai(data, params), data, params)
    before = [weight.detach().clone() for weight in training.weights]
    losses = [training.train_epoch() for _ in range(2)]
    assert [len(epoch) for epoch in losses] == [4, 4]
    assert not any(torch.equal(*pair) for pair in zip(before, training.weights, strict=True))
    assert training.optimizer.param_groups[0]["lr"] == 0


def test_by_default_an_epoch_is_masked_cells_and_csais_loss_alone(data, make_params):
    """Losses and weights are, bit for bit, those of the same steps written out without any further setting."""
    params = make_params(pretrain={"batch_size": 16})
    training, csai = CsaiTraining(new_csai(data, params), data, params), new_csai(data, params)
    order, masks = (generator_for(params.seed, 0, each) for each in (Purpose.PRETRAIN_ORDER, Purpose.TRAIN_MASKS))
    optimizer, losses = torch.optim.Adam(csai.parameters(), params.pretrain.learning_rate, fused=True), []
    for stays in shuffled_batches(len(data.train), 16, order):
        values, observed = data.train.batch(stays)
        masked = draw_mask(observed, training.rate_D, masks)
        reconstruction = csai(Directions.of(values, observed - masked))
        loss = reconstruction_loss(reconstruction, values, observed - masked, masked, params.pretrain)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(csai.parameters(), params.pretrain.gradient_norm)
        optimizer.step()
        losses.append(loss.item())
    assert training.train_epoch() == losses
    assert all(map(torch.equal, training.weights, csai.parameters()))


def test_each_epoch_masks_other_cells(data, make_params, monkeypatch):
    """With all stays in one batch, in one order, and weights that do not move, each epoch still has another loss."""

    def in_order(stays, batch_size, order):
        return batches_in_order(stays, batch_size)

    monkeypatch.setattr(imputer_training, "shuffled_batches", in_order)
    params = make_params(pretrain={"batch_size": 64, "learning_rate": 1e-30})
    training = CsaiTraining(new_csai(data, params), data, params)
    [first], [second] = (training.train_epoch() for _ in range(2))
    assert first != pytest.approx(second, rel=1e-4)


class Replayed(torch.autograd.Function):
    """A loss in the same memory as the loss before, like the output of a CUDA graph."""

    memory = torch.zeros(())

    @staticmethod
    def forward(ctx, loss):
        """Overwrite the memory."""
        return Replayed.memory.copy_(loss).detach()

    @staticmethod
    def backward(ctx, gradient):
        """Pass the gradient on."""
        return gradient


def test_losses_outlive_the_memory_of_a_graph(data, make_params, monkeypatch):
    """An epoch returns the same losses whether or not each call writes its loss to the same memory."""
    params = make_params(pretrain={"batch_size": 16})
    apart = CsaiTraining(new_csai(data, params), data, params).train_epoch()
    training = CsaiTraining(new_csai(data, params), data, params)
    reconstruct = training.reconstruct
    monkeypatch.setattr(training, "reconstruct", lambda *cells: (Replayed.apply(reconstruct(*cells)[0]), None))
    assert training.train_epoch() == apart


def test_shuffled_stays_keep_each_variable_and_mix_the_patients(data):
    """Each variable keeps its series, but a stay's variables come from different stays; outcomes stay."""
    shuffled = shuffled_across_stays(data.train, torch.Generator().manual_seed(1))
    for d in range(4):
        before, after = (sorted(map(tuple, split.values_NTD[..., d].tolist())) for split in (data.train, shuffled))
        assert before == after
    first, second = (
        [data.train.values_NTD[..., d].tolist().index(series) for series in shuffled.values_NTD[:, :, d].tolist()]
        for d in (0, 1)
    )
    assert sum(one == other for one, other in zip(first, second, strict=True)) < len(first) / 4
    assert torch.equal(shuffled.outcome_N, data.train.outcome_N)


def test_the_shuffled_control_trains_and_chooses_on_shuffled_stays_alone(data, make_params):
    """Its training and validation stays are shuffled; CSAI's are not."""
    params = make_params()
    training = training_of("csai_shuffled", new_imputer("csai_shuffled", data, params), data, params)
    for mine, real in ((training.train, data.train), (training.validation, data.validation)):
        assert not torch.equal(mine.values_NTD, real.values_NTD)
        assert torch.equal(mine.observed_NTD.sum(dim=(0, 1)), real.observed_NTD.sum(dim=(0, 1)))
    csai = training_of("csai", new_imputer("csai", data, params), data, params)
    assert csai.train is data.train


def test_shuffling_draws_the_training_stays_first(data, make_params):
    """One generator shuffles the training stays, then the validation stays: another order would change results."""
    params = make_params()
    training = training_of("csai_shuffled", new_imputer("csai_shuffled", data, params), data, params)
    shuffling = generator_for(params.seed, 0, Purpose.SHUFFLING_ACROSS_STAYS)
    for mine, real in ((training.train, data.train), (training.validation, data.validation)):
        assert torch.equal(mine.values_NTD, shuffled_across_stays(real, shuffling).values_NTD)


def test_missingness_is_predicted_with_a_weight_alone(data, make_params):
    """Without a weight there is no layer; with one it learns beside CSAI, and CSAI's first weights are the same."""
    without = CsaiTraining(new_csai(data, make_params()), data, make_params())
    assert without.missingness is None
    assert set(without.validate()) == {"validation_loss", "validation_mae"}
    params = make_params(pretrain_epochs=20, pretrain={"missingness_weight": 0.5, "batch_size": 16})
    training = CsaiTraining(new_csai(data, params), data, params)
    assert all(map(torch.equal, without.module.parameters(), training.module.parameters()))
    before, first = [weight.detach().clone() for weight in training.weights], training.validate()
    for _ in range(20):
        training.train_epoch()
    assert not any(map(torch.equal, before, training.weights))
    last = training.validate()
    assert last["validation_missingness"] < first["validation_missingness"]
    plain = CsaiTraining(training.module, data, make_params()).validate()
    assert last["validation_mae"] == plain["validation_mae"]
    assert last["validation_loss"] == pytest.approx(plain["validation_loss"] + 0.5 * last["validation_missingness"])


def test_the_layer_that_predicts_missingness_is_not_kept(cohort, folds, make_params, recorder):
    """Pretraining with it gives the same names of weights as without, and other weights."""
    settings = {"without": {}, "with": {"missingness_weight": 0.5}, "masked": {"variable_masking": 0.3}}
    weights = {
        name: pretrain_fold(
            PretrainJob(cohort=cohort, fold=folds[0], params=make_params(pretrain=keys)), recorder
        ).weights
        for name, keys in settings.items()
    }
    for other in ("with", "masked"):
        assert weights[other].keys() == weights["without"].keys()
        assert (weights[other]["imputer.history"] != weights["without"]["imputer.history"]).any()
