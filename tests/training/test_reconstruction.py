import torch

from imputune.models.csai import Reconstruction
from imputune.training.reconstruction import reconstruction_loss


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
