"""Bundles: the fold models of one run, used together as one model of raw records.

Shape letters: F fold models, N stays, T hours, D variables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator

from imputune.data.cohort import Variable
from imputune.data.raw.binning import BinnedStays
from imputune.data.record_features import static_of
from imputune.data.static import StaticVariable
from imputune.data.window import Window
from imputune.errors import UserError
from imputune.evaluation.calibration import CalibrationLine
from imputune.models.csai import CsaiSizes
from imputune.models.heads import HEAD_BUILDERS
from imputune.protocol.outcomes import DEFAULT_OUTCOME
from imputune.protocol.variants import BLEND, base_of
from imputune.registry.fold_models import NO_RISK, FoldModel, Predictor
from imputune.registry.joint_imputation import JointImputers
from imputune.registry.joint_risks import JointRisks, joint, risks
from imputune.settings.names import Head, Input

BOOSTED: Head = "xgboost"
"""The head that is no network; svm is not registered, because its support vectors are records of patients."""
REGISTERED_HEADS = (*HEAD_BUILDERS, BOOSTED, *BLEND.head)


class MemberAbout(BaseModel):
    """A member of a blend: its variant's label, its version when the blend was registered ("" if there was none)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    label: str
    version: str = ""

    @property
    def head(self) -> str:
        """The head of its variant."""
        return self.label.partition("/")[2].partition("-")[0]


class BundleAbout(BaseModel):
    """What a bundle is made of.

    outcome: what the risk is of; a bundle of imputers has none. static: the static facts that the head reads. sizes: of
    CSAI; for an input that reads no imputer, only its variables and hours count. head, input (what the head reads) and
    threshold are None in a bundle of imputers; mlp_width is None there too, and for xgboost and a blend. threshold:
    from this risk on, a stay counts as high risk. It comes from the fold models' risks, each on its own validation
    stays, by threshold_rule: "youden" or, for instance, "sensitivity 0.8"; None means Youden's, from before it was a
    setting. It is applied to the mean over fold models, which varies a little less between stays. members: of a blend.

    recalibration: corrects the mean risk for another site, None where nothing is corrected. threshold is of the risk
    before this correction; see `Bundle.threshold`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    dataset: str
    outcome: str = DEFAULT_OUTCOME
    variables: tuple[Variable, ...]
    static: tuple[StaticVariable, ...] = ()
    sizes: CsaiSizes
    head: Head | None = None
    input: Input | None = None
    mlp_width: int | None = None
    folds: tuple[int, ...]
    threshold: float | None = None
    threshold_rule: str | None = None
    recalibration: CalibrationLine | None = None
    members: tuple[MemberAbout, ...] = ()

    @model_validator(mode="after")
    def _head_is_complete(self) -> Self:
        if self.head is not None and self.head not in REGISTERED_HEADS:
            raise ValueError(f"head must be one of {', '.join(REGISTERED_HEADS)}, got {self.head}")
        if (self.head in BLEND.head) != (len(self.members) > 1) or len(self.members) == 1:
            raise ValueError("a blend, and nothing else, has two members or more")
        has_no_width = self.head == BOOSTED or self.head in BLEND.head
        if has_no_width and self.mlp_width is not None:
            raise ValueError(f"{self.head} has no mlp_width")
        together = [self.head, self.input, self.threshold] + ([] if has_no_width else [self.mlp_width])
        if len({value is not None for value in together}) > 1:
            raise ValueError("head, input, mlp_width and threshold must be given together")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if len(set(self.variable_names)) < len(self.variables) or self.sizes.variables != len(self.variables):
            raise ValueError("variables must have different names, as many as sizes.variables")
        if self.sizes.bin_hours < 1:
            raise ValueError("a bin must have an hour or more")
        if not self.folds or len(set(self.folds)) < len(self.folds):
            raise ValueError("folds must name each fold once")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be from 0 to 1, got {self.threshold}")
        if (line := self.recalibration) and not (line.slope > 0 and isfinite(line.slope) and isfinite(line.intercept)):
            raise ValueError(f"recalibration must have a slope above 0 and an intercept, got {line}")
        return self

    @model_serializer(mode="wrap")
    def _without_defaults(self, content: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave in_hospital_death and bins of an hour out, so that earlier versions read the bundles that they know."""
        found: dict[str, object] = content(self)
        if found.get("outcome") == DEFAULT_OUTCOME:
            del found["outcome"]
        sizes = found.get("sizes")
        if isinstance(sizes, dict) and sizes.get("bin_hours") == 1:
            del sizes["bin_hours"]
        return found

    @property
    def window(self) -> Window:
        """The window that the models read."""
        return Window(hours=self.sizes.hours * self.sizes.bin_hours, bin_hours=self.sizes.bin_hours)

    @property
    def variable_names(self) -> tuple[str, ...]:
        """The D names, in the models' order."""
        return tuple(variable.name for variable in self.variables)

    @property
    def reads_imputer(self) -> bool:
        """Whether the bundle has imputers: all but those whose head reads the record alone."""
        return self.input is None or base_of(self.input) != "summary"


@dataclass(frozen=True, eq=False)
class Bundle:
    """The fold models of one run, which read raw records in the units of `about.variables`.

    Variables that the records lack count as not observed. It computes up to 256 stays on one thread, and more in
    batches side by side; see `runtime.threads`.
    """

    about: BundleAbout
    models: tuple[FoldModel, ...]

    def risk(self, values_NTD: np.ndarray, static: pd.DataFrame | None = None) -> np.ndarray:
        """Return the risk of the outcome, float64 (N,): the mean over fold models, recalibrated if the bundle is.

        A recalibrated mean is not exactly the mean of recalibrated risks; see `risk_by_fold` for shapes and errors.
        """
        return self.recalibrated(self._uncorrected(values_NTD, static).mean(axis=0, dtype=np.float64))

    def recalibrated(self, risk_N: np.ndarray) -> np.ndarray:
        """Return risks of the fold models, or their mean, corrected by `about.recalibration`, unchanged without it."""
        line = self.about.recalibration
        return line.apply(risk_N) if line else risk_N

    def risk_by_fold(self, values_NTD: np.ndarray, static: pd.DataFrame | None = None) -> np.ndarray:
        """Return each fold model's risk of the outcome, float32 (F, N), recalibrated by the line of their mean.

        Shapes: values_NTD float32 in the variables' units, NaN where not observed; static has a row for each stay and a
        column for each of `about.static`; without it, all static facts are unknown. In any batch, a stay gets the risk
        that it got in training, to 1e-6. Raises UserError for a bundle of imputers.
        """
        return self.recalibrated(self._uncorrected(values_NTD, static)).astype(np.float32, copy=False)

    def risk_of(self, fold: int, values_NTD: np.ndarray, static: pd.DataFrame | None = None) -> np.ndarray:
        """Return one fold model's risk, float32 (N,); see `risk_by_fold`. Raises ValueError for an unknown fold."""
        if fold not in self.about.folds:
            raise ValueError(f"fold must be one of {self.about.folds}, got {fold}")
        alone = joint([self.predictors[self.about.folds.index(fold)]])
        [risk_N] = risks(alone, values_NTD, static_of(static, self.about.static, len(values_NTD)))
        return self.recalibrated(risk_N).astype(np.float32, copy=False)

    def predict(self, stays: BinnedStays) -> pd.DataFrame:
        """Return a row per stay.

        RecordID; risk of the outcome (see `risk`); risk_deviation, the sample deviation of `risk_by_fold`, NaN if there
        is one fold model;
        high_risk, whether the risk reaches the threshold; observed_cells, the number of observed cells; rows_ignored,
        the number of rows that were read but do not count (see `BinnedStays`). A stay without an observed cell gets the
        risk of an empty record. Raises UserError for a bundle of imputers.
        """
        [table] = self.predict_each([stays])
        return table

    def predict_each(self, several: Sequence[BinnedStays]) -> list[pd.DataFrame]:
        """Return what `predict` returns for each of several tables of stays, which the models read together.

        A stay gets the risk that it gets alone, to 1e-6, whatever the others' values. Raises UserError for a bundle of
        imputers.
        """
        values_NTD = np.concatenate([stays.values_NTD for stays in several])
        facts = [static_of(stays.static, self.about.static, len(stays.stay_ids_N)) for stays in several]
        uncorrected_FN = risks(self._joint, values_NTD, np.concatenate(facts)).astype(np.float64)
        ends = np.cumsum([len(stays.stay_ids_N) for stays in several])[:-1]
        return [self._table(*each) for each in zip(several, np.split(uncorrected_FN, ends, axis=1), strict=True)]

    def _table(self, stays: BinnedStays, uncorrected_FN: np.ndarray) -> pd.DataFrame:
        risk_N = self.recalibrated(uncorrected_FN.mean(axis=0))
        risk_FN = self.recalibrated(uncorrected_FN)
        return pd.DataFrame(
            {
                "RecordID": stays.stay_ids_N,
                "risk": risk_N,
                "risk_deviation": risk_FN.std(axis=0, ddof=1) if len(risk_FN) > 1 else np.full(len(risk_N), np.nan),
                "high_risk": risk_N >= self.threshold,
                "observed_cells": (~np.isnan(stays.values_NTD)).sum(axis=(1, 2)),
                "rows_ignored": stays.ignored_N,
            }
        )

    def impute(self, stays: BinnedStays) -> pd.DataFrame:
        """Return RecordID, Hour, Parameter, Value, Observed and RowsIgnored: every bin of every stay, N * T * D rows.

        Values are in the variables' units. Hour is the first of its bin. An observed value is the mean of its bin; a
        missing value is the mean of the folds' imputations. RowsIgnored is the number of the stay's rows that do not
        count, the same in each row. Raises UserError if the head reads no imputer.
        """
        filled_NTD = self._joint_imputers.mean(stays.values_NTD)
        observed_NTD = ~np.isnan(stays.values_NTD)
        complete_NTD = np.where(observed_NTD, stays.values_NTD, filled_NTD)
        count, hours, variables = complete_NTD.shape
        return pd.DataFrame(
            {
                "RecordID": np.repeat(stays.stay_ids_N, hours * variables),
                "Hour": np.tile(np.repeat(np.arange(hours) * self.about.sizes.bin_hours, variables), count),
                "Parameter": np.tile(np.array(self.about.variable_names, dtype=object), count * hours),
                "Value": complete_NTD.reshape(-1).astype(np.float64),
                "Observed": observed_NTD.reshape(-1),
                "RowsIgnored": np.repeat(stays.ignored_N, hours * variables),
            }
        )

    def absent(self, stays: BinnedStays) -> list[str]:
        """Return the variables without an observed value in any stay."""
        missing_NTD = np.isnan(stays.values_NTD)
        return [name for d, name in enumerate(self.about.variable_names) if missing_NTD[:, :, d].all()]

    def beyond_range(self, stays: BinnedStays) -> dict[str, int]:
        """Return for each variable how many values of bins every fold's scaler clips (see `Scaler`), the most first."""
        values_NTD = stays.values_NTD
        clipped_NTD = np.logical_and.reduce(
            [(values_NTD < model.scaler.lowest_D) | (values_NTD > model.scaler.highest_D) for model in self.models]
        )
        counts_D = clipped_NTD.sum(axis=(0, 1))
        order = np.argsort(-counts_D, kind="stable")
        return {self.about.variable_names[d]: int(counts_D[d]) for d in order if counts_D[d]}

    @property
    def threshold(self) -> float:
        """The risk from which on a stay counts as high risk, recalibrated as risks are, so that the same stays do.

        Raises UserError for a bundle of imputers.
        """
        if self.about.threshold is None:
            raise UserError(NO_RISK)
        return float(self.recalibrated(np.array(self.about.threshold)))

    @property
    def predictors(self) -> tuple[Predictor, ...]:
        """What gives the fold models' risks; UserError for a bundle of imputers."""
        predictors = tuple(model.predictor for model in self.models if model.predictor is not None)
        if not predictors:
            raise UserError(NO_RISK)
        return predictors

    def _uncorrected(self, values_NTD: np.ndarray, static: pd.DataFrame | None) -> np.ndarray:
        """Return each fold model's risk without recalibration, float32 (F, N)."""
        return risks(self._joint, values_NTD, static_of(static, self.about.static, len(values_NTD)))

    @cached_property
    def _joint(self) -> JointRisks:
        return joint(self.predictors)

    @cached_property
    def _joint_imputers(self) -> JointImputers:
        return JointImputers(self.models)
