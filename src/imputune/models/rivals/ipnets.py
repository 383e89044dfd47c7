"""IP-Nets: kernel interpolation of each variable and across variables, and a recurrence over the result.

Letters: B stays, T hours, D variables, R reference points (every hour, R = T), H hidden size.
"""

import torch
from torch import nn
from torch.nn.functional import dropout, softplus

TRANSIENT = 10.0
WITHHELD = 0.2


class IpNets(nn.Module):
    """Interpolation-Prediction Network.

    With a rate alpha_d > 0 of each variable and w(r, t) = exp(-alpha_d (r - t)^2) over the hours t in which variable d
    was observed, each reference point r has

        lambda_d = sum of w;  sigma_d = sum of w x / lambda_d;  gamma_d, as sigma_d with 10 alpha_d
        chi_d = sum over variables e of rho_de lambda_e sigma_e / sum over e of lambda_e;  tau_d = gamma_d - chi_d

    chi (smooth, across variables), tau (transient) and lambda (intensity) go into a GRU over the reference points; its
    last state is the embedding. Where all weights are too small for double precision, an interpolated value is 0, the
    training mean. In training, a fifth of the observed cells is withheld from the whole network, chi is compared with
    them, and the mean squared error is the penalty. The authors' code lets the GRU read these cells.

    Shapes: see `classifier.Encoder`; E = H.

    Source: Shukla and Marlin 2019 (arXiv 1909.07782), sections 3.2.1 (interpolation network) and 3.2.3 (learning).
    """

    square_RT: torch.Tensor

    def __init__(
        self, hours: int, variables: int, *, hidden_size: int, dropout: float, reconstruction_weight: float
    ) -> None:
        super().__init__()
        self.embedding_size = hidden_size
        self.dropout, self.reconstruction_weight = dropout, reconstruction_weight
        hour_T = torch.arange(hours, dtype=torch.float32)
        self.register_buffer("square_RT", (hour_T[:, None] - hour_T[None, :]) ** 2, persistent=False)
        self.raw_rate_D = nn.Parameter(torch.full((variables,), -2.0))
        self.mixing_DD = nn.Parameter(torch.eye(variables))
        self.recurrence = nn.GRU(3 * variables, hidden_size, batch_first=True)

    def forward(self, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embedding (B, E) and, in training, the error on withheld cells."""
        visible_BTD = observed_BTD
        if self.training:
            visible_BTD = observed_BTD * (torch.rand_like(observed_BTD) >= WITHHELD)
        rate_D = softplus(self.raw_rate_D)
        summed_BRD, intensity_BRD = self._kernel_sums(values_BTD, visible_BTD, rate_D)
        near_BRD, near_total_BRD = self._kernel_sums(values_BTD, visible_BTD, TRANSIENT * rate_D)
        across_BRD = (summed_BRD / _positive(intensity_BRD.sum(dim=2, keepdim=True))).float() @ self.mixing_DD.T
        sharp_BRD = (near_BRD / _positive(near_total_BRD)).float()
        penalty = values_BTD.new_zeros(())
        if self.training:
            withheld_BTD = observed_BTD - visible_BTD
            error = ((across_BRD - values_BTD).square() * withheld_BTD).sum() / withheld_BTD.sum().clamp_min(1.0)
            penalty = self.reconstruction_weight * error
        series = torch.cat([across_BRD, sharp_BRD - across_BRD, intensity_BRD.float()], dim=2)
        _, last_1BH = self.recurrence(dropout(series, self.dropout, self.training))
        return last_1BH[0], penalty

    def _kernel_sums(
        self, values_BTD: torch.Tensor, visible_BTD: torch.Tensor, rate_D: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sums of w x and of w over the observed hours, both float64 (B, R, D).

        All stays have the same hours, so w is computed once, and the sums of all stays are one product.
        """
        weight_DTR = (-rate_D.double()[:, None, None] * self.square_RT).exp()
        cells_DXT = torch.cat([values_BTD * visible_BTD, visible_BTD]).permute(2, 0, 1).double()
        summed_XRD = (cells_DXT @ weight_DTR).permute(1, 2, 0)
        summed_BRD, total_BRD = summed_XRD.chunk(2)
        return summed_BRD, total_BRD


def _positive(total: torch.Tensor) -> torch.Tensor:
    """Return sums of weights by which may be divided."""
    return total.clamp_min(1e-300)
