"""Bundles: the fold models of one run as one model, in safetensors and JSON; loading one unpickles nothing.

Shape letters: F fold models, N stays, T hours, D variables.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from imputune.artifacts.stage_output import (
    TrainedFold,
    read_weights,
    weights_file,
    write_weights,
)
from imputune.data.cohort import Variable
from imputune.data.directions import Views
from imputune.data.raw.binning import BinnedStays
from imputune.data.scaling import Scaler, load_scaler, standardised_tensors
from imputune.errors import UserError
from imputune.models.classifier import Classifier
from imputune.models.csai import Csai, CsaiSizes
from imputune.models.heads import HEADS
from imputune.models.weights import load_module

ABOUT = "bundle.json"
FORMAT = 2  # of bundle.json; raised when a reader of older ones would misread them
NO_RISK = "this bundle imputes and predicts no risk: load an imputune-mortality model"
BATCH = 256  # stays; what a stay gets does not depend on it


@dataclass(frozen=True)
class BundleAbout:
    """What a bundle is made of.

    head, input (what the head reads) and threshold are None for a bundle of imputers. threshold: the risk from which
    on a stay counts as high risk, where `evaluation.metrics.youden_threshold` puts it for the fold models, each on its
    own validation stays; the mean over fold models, to which it is applied, spreads a little less.
    """

    dataset: str
    variables: tuple[Variable, ...]
    sizes: CsaiSizes
    head: str | None
    input: str | None
    folds: tuple[int, ...]
    threshold: float | None = None

    @property
    def variable_names(self) -> tuple[str, ...]:
        """The D names, in the models' order."""
        return tuple(variable.name for variable in self.variables)


@dataclass(frozen=True, eq=False)
class FoldModel:
    """One fold's models: `classifier` is None in a bundle of imputers."""

    fold: int
    scaler: Scaler
    imputer: Csai
    classifier: Classifier | None

    def batches(self, values_NTD: np.ndarray) -> Iterator[Views]:
        """Yield what the models read of stays, values in the variables' units and NaN in the holes, batch by batch."""
        for start in range(0, len(values_NTD), BATCH):
            standardised, observed = standardised_tensors(values_NTD[start : start + BATCH].copy(), self.scaler)
            yield Views.read(standardised, observed.float())


@dataclass(frozen=True, eq=False)
class Bundle:
    """Fold models that read raw records, in the units of `about.variables`, together.

    Parameters the models know and the records lack count as not observed.
    """

    about: BundleAbout
    models: tuple[FoldModel, ...]

    def risk_by_fold(self, values_NTD: np.ndarray) -> np.ndarray:
        """Return each fold model's risk of in-hospital death, float32 (F, N).

        Shapes: values_NTD float32 in the variables' units, NaN where not observed. A stay gets what training gave it,
        to 1e-6, in whichever batch. Raises UserError for a bundle of imputers.
        """
        return np.stack([self._risk(model, values_NTD) for model in self.models])

    def risk_of(self, fold: int, values_NTD: np.ndarray) -> np.ndarray:
        """Return one fold model's risk, float32 (N,); see `risk_by_fold`. Raises ValueError for an unknown fold."""
        if fold not in self.about.folds:
            raise ValueError(f"the bundle has folds {self.about.folds}, got {fold}")
        return self._risk(self.models[self.about.folds.index(fold)], values_NTD)

    def predict(self, stays: BinnedStays) -> pd.DataFrame:
        """Return a row per stay.

        RecordID; risk of in-hospital death, the mean over folds; risk_deviation, the sample deviation over folds;
        high_risk, whether the risk reaches the threshold; observed_cells, how many of its hours x variables were
        observed (at 0, the risk is that of an empty record). Raises UserError for a bundle of imputers.
        """
        risk_FN = self.risk_by_fold(stays.values_NTD).astype(np.float64)
        risk_N = risk_FN.mean(axis=0)
        return pd.DataFrame(
            {
                "RecordID": stays.stay_ids_N,
                "risk": risk_N,
                "risk_deviation": risk_FN.std(axis=0, ddof=1),
                "high_risk": risk_N >= self.threshold,
                "observed_cells": (~np.isnan(stays.values_NTD)).sum(axis=(1, 2)),
            }
        )

    def impute(self, stays: BinnedStays) -> pd.DataFrame:
        """Return RecordID, Hour, Parameter, Value and Observed: every hour of every stay, N * T * D rows.

        A value that was not observed is the mean over folds; values are in the variables' units; an observed one is
        the mean of its hour.
        """
        filled_NTD = np.zeros(stays.values_NTD.shape, dtype=np.float64)
        for model in self.models:
            with torch.no_grad():
                parts = [model.imputer(views).imputed_BTD.numpy() for views in model.batches(stays.values_NTD)]
            filled_NTD += model.scaler.restore(np.concatenate(parts)) / len(self.models)
        observed_NTD = ~np.isnan(stays.values_NTD)
        complete_NTD = np.where(observed_NTD, stays.values_NTD, filled_NTD)
        count, hours, variables = complete_NTD.shape
        return pd.DataFrame(
            {
                "RecordID": np.repeat(stays.stay_ids_N, hours * variables),
                "Hour": np.tile(np.repeat(np.arange(hours), variables), count),
                "Parameter": np.tile(np.array(self.about.variable_names, dtype=object), count * hours),
                "Value": complete_NTD.reshape(-1).astype(np.float64),
                "Observed": observed_NTD.reshape(-1),
            }
        )

    def absent(self, stays: BinnedStays) -> list[str]:
        """Return the variables that no stay has a value of."""
        hole_NTD = np.isnan(stays.values_NTD)
        return [name for d, name in enumerate(self.about.variable_names) if hole_NTD[:, :, d].all()]

    def beyond_range(self, stays: BinnedStays) -> dict[str, int]:
        """Return by variable how many hourly values every fold's scaler draws in (see `Scaler`), the most first."""
        values_NTD = stays.values_NTD
        drawn_NTD = np.logical_and.reduce(
            [(values_NTD < model.scaler.lowest_D) | (values_NTD > model.scaler.highest_D) for model in self.models]
        )
        counts_D = drawn_NTD.sum(axis=(0, 1))
        order = np.argsort(-counts_D, kind="stable")
        return {self.about.variable_names[d]: int(counts_D[d]) for d in order if counts_D[d]}

    @property
    def threshold(self) -> float:
        """The risk from which on a stay is of high risk; UserError for a bundle of imputers."""
        if self.about.threshold is None:
            raise UserError(NO_RISK)
        return self.about.threshold

    @cached_property
    def classifiers(self) -> tuple[Classifier, ...]:
        """The fold models' classifiers; UserError for a bundle of imputers."""
        found = tuple(model.classifier for model in self.models if model.classifier is not None)
        if not found:
            raise UserError(NO_RISK)
        return found

    def _risk(self, model: FoldModel, values_NTD: np.ndarray) -> np.ndarray:
        if model.classifier is None:
            raise UserError(NO_RISK)
        with torch.no_grad():
            logits = [model.classifier(views) for views in model.batches(values_NTD)]
        return torch.sigmoid(torch.cat(logits)).numpy()


def write_bundle(folder: Path, about: BundleAbout, folds: list[TrainedFold]) -> str:
    """Write what `read_bundle` reads: the fold files, and bundle.json with their checksums, whose own is returned."""
    write_weights(folder, folds)
    digests = {str(fold): _digest(weights_file(folder, fold)) for fold in about.folds}
    told = {"format": FORMAT} | asdict(about) | {"sha256": digests}
    (folder / ABOUT).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return _digest(folder / ABOUT)


def read_bundle(folder: Path, checksum: str = "") -> Bundle:
    """Load a bundle from its folder; the structure is this package's code, the weights are safetensors.

    Raises UserError when a file is missing or was altered (bundle.json: if its `checksum` is given), or another version
    of imputune wrote them.
    """
    try:
        if checksum and _digest(folder / ABOUT) != checksum:
            raise UserError(f"{folder / ABOUT} is not what was registered: restore it, or fine-tune again")
        raw: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if raw.pop("format", None) != FORMAT:
            raise UserError("the bundle is of another version of imputune: fine-tune again, or load it with that one")
        digests = raw.pop("sha256")
        variables = tuple(Variable(**variable) for variable in raw.pop("variables"))
        sizes, folds = CsaiSizes(**raw.pop("sizes")), tuple(raw.pop("folds"))
        about = BundleAbout(variables=variables, sizes=sizes, folds=folds, **raw)
        for fold in about.folds:
            path = weights_file(folder, fold)
            if _digest(path) != digests[str(fold)]:
                raise UserError(
                    f"the weights of fold {fold} are not those that were registered (their sha256 differs): restore "
                    f"{path}, or fine-tune again"
                )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        cause = " ".join(str(error).split())
        raise UserError(f"the bundle cannot be read ({cause}): restore its files, or fine-tune again") from None
    return Bundle(about, tuple(_read_model(folder, about, fold) for fold in about.folds))


def _read_model(folder: Path, about: BundleAbout, fold: int) -> FoldModel:
    weights = read_weights(folder, fold)
    imputer = Csai(about.sizes)
    load_module("imputer", imputer, weights)
    classifier = None
    if about.head is not None and about.input is not None:
        head = HEADS[about.head](about.sizes.hidden, about.sizes.variables, 0.0)
        load_module("head", head, weights)
        classifier = Classifier(imputer, head, freeze_imputer=True, reads=about.input).eval()
    return FoldModel(fold, load_scaler(weights), imputer.eval(), classifier)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
