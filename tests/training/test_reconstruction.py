import pytest
import torch

from imputune.data.splits import fit_and_split
from imputune.imputers.build import new_csai
from imputune.models.csai import Reconstruction
from imputune.models.missingness import Missingness
from imputune.training.reconstruction import VariableMasking, mask_batch, reconstruction_loss, reconstruction_step


def test_loss_by_hand(make_params):
    """Visible error 1, hidden error 3, history error 2, difference between directions 2: each times its weight."""
    combined = torch.tensor([[[[1.0], [4.0]]], [[[3.0], [6.0]]]])
    history = torch.full((2, 1, 2, 1), 3.0)
    reconstruction = Reconstruction(
        combined_KBTD=combined,
        history_KBTD=history,
        imputed_BTD=torch.zeros(1, 2, 1),
        hidden_KBTH=torch.zeros(2, 1, 2, 8),
    )
    values = torch.tensor([[[1.0], [2.0]]])
    visible = torch.tensor([[[1.0], [0.0]]])
    settings = make_params(
        pretrain={"imputation_weight": 10.0, "history_weight": 100.0, "consistency_weight": 1000.0}
    ).pretrain
    loss = reconstruction_loss(reconstruction, values, visible, 1 - visible, settings)
    assert loss.item() == 1 + 10 * 3 + 100 * 2 + 1000 * 2


def test_masking_whole_variables_changes_no_other_mask(cohort, folds):
    """Cells that are masked one by one are the same with it and without; further series are masked as a whole."""
    train = fit_and_split(cohort, folds[0], 0.001).train
    stays, cpu = torch.arange(54), torch.device("cpu")

    def batches(rate):
        cells, variables = (torch.Generator().manual_seed(seed) for seed in (1, 2))
        masking = VariableMasking(rate, variables)
        return [mask_batch(train, stays, torch.tensor(0.2), cells, cpu, masking) for _ in range(2)]

    cells = torch.Generator().manual_seed(1)
    alone = [mask_batch(train, stays, torch.tensor(0.2), cells, cpu) for _ in range(2)]
    for (_, visible, masked), (_, same_visible, same_masked), (_, _, more) in zip(
        alone, batches(0.0), batches(0.3), strict=True
    ):
        assert torch.equal(visible, same_visible)
        assert torch.equal(masked, same_masked)
        assert (more >= masked).all()
        whole = ((more == train.observed_NTD.float()).all(dim=1)).float().mean()
        assert whole > 0.2
        assert torch.equal(more * (1 - whole_series(more, train)), masked * (1 - whole_series(more, train)))


def whole_series(masked_BTD, train):
    """Return 1 in the series of which every observed cell is masked, (B, 1, D)."""
    return (masked_BTD == train.observed_NTD.float()).all(dim=1, keepdim=True).float()


@pytest.mark.parametrize("weight", [0.25, 2.0])
def test_the_step_adds_the_weighted_missingness_loss(cohort, folds, make_params, weight):
    """The layer is asked about every observed cell, masked ones too; its loss is added by its weight."""
    data = fit_and_split(cohort, folds[0], 0.001)
    params = make_params(pretrain={"missingness_weight": weight})
    csai, layer = new_csai(data, params), Missingness(8, 4)
    batch = mask_batch(
        data.train, torch.arange(16), torch.tensor(0.5), torch.Generator().manual_seed(1), torch.device("cpu")
    )
    plain, last, imputed = reconstruction_step(csai, data.train, 16, params.pretrain)(*batch)
    step = reconstruction_step(csai, data.train, 16, params.pretrain, state="hidden_both", missingness=layer)
    loss, both, same_imputed = step(*batch)
    hidden = {}
    csai.register_forward_hook(lambda _, __, given: hidden.update(states=given.hidden_KBTH))
    step(*batch)
    predicted = layer.loss(hidden["states"], data.train.observed_NTD[:16].float())
    assert loss.item() == pytest.approx(plain.item() + weight * predicted.item(), rel=1e-6)
    torch.testing.assert_close(both.unflatten(1, (2, 8)).mean(dim=1), last)
    assert torch.equal(imputed, same_imputed)
