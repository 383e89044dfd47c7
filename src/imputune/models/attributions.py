"""How much each observed value moves a risk: integrated gradients.

Letters: B stays, T hours, D variables.
"""

import torch
from captum.attr import IntegratedGradients

from imputune.data.directions import Directions
from imputune.models.classifier import Classifier

POINTS_PER_BATCH = 64  # points of the integration path


def attribute_risk(
    classifier: Classifier, values_BTD: torch.Tensor, observed_BTD: torch.Tensor, steps: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return each cell's attribution, (B, T, D), each stay's risk, (B,), and the risk of its baseline, (B,).

    The baseline has the same cells observed, but every value is its variable's training mean (standardised 0). So the
    attributions explain the values; the effect of what was measured, and when, is in the baseline's risk. The
    attributions of a stay add up to its risk minus its baseline's, up to the error of `steps` points of Gauss-Legendre
    quadrature. Missing cells have attribution 0.

    Shapes: values standardised, observed 0/1, both (B, T, D).

    Source: Sundararajan et al. 2017 (arXiv 1703.01365), by Captum.
    """
    values_BTD = values_BTD * observed_BTD

    def risk(values: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(classifier(Directions.of(values, observed)))

    attribution_BTD = IntegratedGradients(risk, multiply_by_inputs=True).attribute(
        values_BTD,
        baselines=torch.zeros_like(values_BTD),
        additional_forward_args=(observed_BTD,),
        n_steps=steps,
        method="gausslegendre",
        internal_batch_size=POINTS_PER_BATCH,
    )
    with torch.no_grad():
        risk_B, baseline_B = risk(values_BTD, observed_BTD), risk(torch.zeros_like(values_BTD), observed_BTD)
    return attribution_BTD.detach(), risk_B, baseline_B
