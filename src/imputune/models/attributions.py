"""How much each observed value, and each feature of the record, moves a network's risk: integrated gradients.

Letters: B stays, T hours, D variables, R record features.
"""

from typing import NamedTuple

import torch
from captum.attr import IntegratedGradients

from imputune.data.directions import Directions
from imputune.models.classifier import Classifier

POINTS_PER_BATCH = 64  # points of the integration path


class AttributedRisk(NamedTuple):
    """What added how much to some stays' risks.

    cells_BTD: of each cell. record_BR: of each record feature, None if the head reads none. risk_B and baseline_B: the
    stays' risks, and those of their baselines.
    """

    cells_BTD: torch.Tensor
    record_BR: torch.Tensor | None
    risk_B: torch.Tensor
    baseline_B: torch.Tensor


class RecordPath(NamedTuple):
    """Record features as the head reads them, and those of the baseline, both (B, R)."""

    record_BR: torch.Tensor
    baseline_BR: torch.Tensor


def attribute_risk(
    classifier: Classifier,
    values_BTD: torch.Tensor,
    observed_BTD: torch.Tensor,
    steps: int,
    record: RecordPath | None = None,
) -> AttributedRisk:
    """Return the attribution of each cell and record feature, the risks, and the risks of the baselines.

    The baseline has the same cells observed, but every value is its variable's training mean (standardised 0). So the
    attributions explain the values; the effect of what was measured, and when, is in the baseline's risk. `record` says
    where its record features start. The attributions of a stay add up to its risk minus its baseline's, up to the error
    of `steps` points of Gauss-Legendre quadrature. Missing cells have attribution 0.

    Shapes: values standardised, observed 0/1, both (B, T, D).

    Source: Sundararajan et al. 2017 (arXiv 1703.01365), by Captum.
    """
    ends = (values_BTD * observed_BTD, *(record[:1] if record else ()))
    starts = (torch.zeros_like(values_BTD), *(record[1:] if record else ()))

    def risk(values: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        *features, observed = rest
        return torch.sigmoid(classifier(Directions.of(values, observed), *features))

    attributed = IntegratedGradients(risk, multiply_by_inputs=True).attribute(
        ends,
        baselines=starts,
        additional_forward_args=(observed_BTD,),
        n_steps=steps,
        method="gausslegendre",
        internal_batch_size=POINTS_PER_BATCH,
    )
    with torch.no_grad():
        risk_B, baseline_B = risk(*ends, observed_BTD), risk(*starts, observed_BTD)
    cells_BTD, *features = (each.detach() for each in attributed)
    return AttributedRisk(cells_BTD, features[0] if features else None, risk_B, baseline_B)
