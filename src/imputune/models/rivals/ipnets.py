"""IP-Nets: kernel interpolation of each variable and across variables, and a recurrence over the result.

Letters: B stays, T hours, D variables, R reference points (every hour, R = T), H hidden size.
"""

import torch
from torch import nn
from torch.nn.functional import dropout, softplus

LOWEST = -1e9  # the exponent of an hour without an observation: its weight is 0
TRANSIENT = 10.0
WITHHELD = 0.2


class IpNets(nn.Module):
    """Interpolation-Prediction Network.

    With a rate alpha_d > 0 of each variable and w(r, t) = exp(-alpha_d (r - t)^2) over the hours t in which variable d
    was observed, each reference point r has

        lambda_d = sum of w;  sigma_d = sum of w x / lambda_d;  gamma_d, as sigma_d with 10 alpha_d
        chi_d = sum over variables e of rho_de lambda_e sigma_e / sum over e of lambda_e;  tau_d = gamma_d - chi_d

    chi (smooth, across variables), tau (transient) and lambda (intensity) go into a GRU over the reference points; its
    last state is the embedding. In training, a fifth of the observed cells is withheld, chi is compared with them, and
    the mean squared error is the penalty.

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
        smooth_BRD, log_intensity_BRD = self._interpolate(values_BTD, visible_BTD, rate_D)
        sharp_BRD, _ = self._interpolate(values_BTD, visible_BTD, TRANSIENT * rate_D)
        across_BRD = (log_intensity_BRD.softmax(dim=2) * smooth_BRD) @ self.mixing_DD.T
        penalty = values_BTD.new_zeros(())
        if self.training:
            withheld_BTD = observed_BTD - visible_BTD
            error = ((across_BRD - values_BTD).square() * withheld_BTD).sum() / withheld_BTD.sum().clamp_min(1.0)
            penalty = self.reconstruction_weight * error
        series = torch.cat([across_BRD, sharp_BRD - across_BRD, log_intensity_BRD.exp()], dim=2)
        _, last_1BH = self.recurrence(dropout(series, self.dropout, self.training))
        return last_1BH[0], penalty

    def _interpolate(
        self, values_BTD: torch.Tensor, visible_BTD: torch.Tensor, rate_D: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return sigma, 0 for a variable without an observation, and the logarithm of lambda, both (B, R, D)."""
        missing_BDT = visible_BTD.transpose(1, 2) == 0
        exponent_DRT = -rate_D[:, None, None] * self.square_RT
        exponent_BDRT = exponent_DRT.masked_fill(missing_BDT.unsqueeze(2), LOWEST)
        weight_BDRT = exponent_BDRT.softmax(dim=3)
        value_BDT1 = (values_BTD * visible_BTD).transpose(1, 2).unsqueeze(3)
        sigma_BRD = (weight_BDRT @ value_BDT1).squeeze(3).transpose(1, 2)
        return sigma_BRD, exponent_BDRT.logsumexp(dim=3).transpose(1, 2)
