"""How much each observed value moves a risk: integrated gradients.

Letters: B stays, T hours, D variables.
"""

import torch
from captum.attr import IntegratedGradients

from imputune.data.directions import Views
from imputune.models.classifier import Classifier

AT_ONCE = 64  # points of the path in a batch


def attribute_risk(
    classifier: Classifier, values_BTD: torch.Tensor, observed_BTD: torch.Tensor, steps: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return each cell's share of the risk, (B, T, D), the risk, (B,), and the risk of the baseline, (B,).

    The baseline has the same cells observed, every value at its variable's training mean (standardised 0): what is
    attributed is the values, while what was measured when stays in the baseline's risk. The shares of a stay sum to its
    risk minus its baseline's, up to the error of `steps` points of Gauss-Legendre quadrature; a cell that was not
    observed has none.

    Shapes: values standardised, observed 0/1, both (B, T, D).

    Source: Sundararajan et al. 2017 (arXiv 1703.01365), by Captum.
    """
    values_BTD = values_BTD * observed_BTD

    def risk(values: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(classifier(Views.read(values, observed)))

    shares_BTD = IntegratedGradients(risk, multiply_by_inputs=True).attribute(
        values_BTD,
        baselines=torch.zeros_like(values_BTD),
        additional_forward_args=(observed_BTD,),
        n_steps=steps,
        method="gausslegendre",
        internal_batch_size=AT_ONCE,
    )
    with torch.no_grad():
        risk_B, baseline_B = risk(values_BTD, observed_BTD), risk(torch.zeros_like(values_BTD), observed_BTD)
    return shares_BTD.detach(), risk_B, baseline_B
