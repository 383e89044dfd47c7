"""The command explain: how much each variable and hour changed the risk of one stay."""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from imputune.data.raw.binning import BinnedStays
from imputune.data.scaling import standardised_tensors
from imputune.errors import UserError
from imputune.models.attributions import attribute_risk
from imputune.registry.bundle import Bundle
from imputune.registry.fold_models import NeuralPredictor
from imputune.runtime import threads


@dataclass(frozen=True, eq=False, kw_only=True)
class Explanation:
    """How a stay's risk came about, mean over fold models.

    baseline_risk: the risk of the same record with every observed value at its variable's training mean. table: Hour,
    Parameter, Value (in its unit) and Attribution of every observed cell; attributions sum to risk - baseline_risk, up
    to `gap`.
    """

    stay_id: int
    risk: float
    baseline_risk: float
    table: pd.DataFrame
    gap: float

    def by_variable(self) -> pd.DataFrame:
        """Return a row per variable, the largest change of the risk first: hours observed and attribution."""
        grouped = self.table.groupby("Parameter", sort=False)["Attribution"].agg(["size", "sum"]).reset_index()
        grouped.columns = pd.Index(["Parameter", "Hours", "Attribution"])
        return grouped.sort_values("Attribution", key=abs, ascending=False, ignore_index=True)

    def to_json(self) -> str:
        """Return it for machines."""
        content = {
            "RecordID": self.stay_id,
            "risk": self.risk,
            "baseline_risk": self.baseline_risk,
            "completeness_gap": self.gap,
            "by_variable": self.by_variable().to_dict("records"),
            "cells": self.table.to_dict("records"),
        }
        return json.dumps(content, indent=1)


def explain_stay(bundle: Bundle, stays: BinnedStays, stay_id: int | None, steps: int) -> Explanation:
    """Explain the risk of one of the stays; None is the only one there is.

    Source: `models.attributions.attribute_risk`. Raises UserError for an id that is not there, or for a bundle of
    imputers.
    """
    if bundle.about.members:
        named = " or ".join(f"{each.version or 'the version'} ({each.label})" for each in bundle.about.members)
        raise UserError(f"a blend is explained member by member: name one with --model, {named}")
    place = _place(stays, stay_id)
    values_1TD = stays.values_NTD[place : place + 1]
    attributions, risks, baselines = [], [], []
    for predictor in bundle.predictors:
        if not isinstance(predictor, NeuralPredictor):
            raise UserError("only neural heads can be explained so far: name another version with --model")
        standardised, observed = standardised_tensors(values_1TD.copy(), predictor.scaler)
        with threads.computing():
            attribution_BTD, risk_B, baseline_B = attribute_risk(
                predictor.classifier, standardised, observed.float(), steps
            )
        attributions.append(attribution_BTD[0].numpy().astype(np.float64))
        risks.append(float(risk_B))
        baselines.append(float(baseline_B))
    attribution_TD, risk, baseline = np.mean(attributions, axis=0), float(np.mean(risks)), float(np.mean(baselines))
    hour_M, variable_M = np.nonzero(~np.isnan(values_1TD[0]))
    table = pd.DataFrame(
        {
            "Hour": hour_M,
            "Parameter": np.array(bundle.about.variable_names, dtype=object)[variable_M],
            "Value": values_1TD[0][hour_M, variable_M].astype(np.float64),
            "Attribution": attribution_TD[hour_M, variable_M],
        }
    )
    gap = abs(float(attribution_TD.sum()) - (risk - baseline))
    return Explanation(stay_id=int(stays.stay_ids_N[place]), risk=risk, baseline_risk=baseline, table=table, gap=gap)


def _place(stays: BinnedStays, stay_id: int | None) -> int:
    ids_N = stays.stay_ids_N
    if stay_id is None:
        if len(ids_N) > 1:
            raise UserError(f"the records hold {len(ids_N):,} stays: name one with --stay, such as {ids_N[0]}")
        return 0
    found = np.flatnonzero(ids_N == stay_id)
    if not len(found):
        some = ", ".join(map(str, ids_N[:3])) + (", ..." if len(ids_N) > 3 else "")
        raise UserError(f"the records hold no stay {stay_id}: there are {len(ids_N):,} ({some})")
    return int(found[0])
