"""Bundles: the fold models of one run as one model, in safetensors and JSON; loading one unpickles nothing."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from imputune.data.cohort import Variable
from imputune.data.physionet2012 import bin_long_table
from imputune.data.scaling import standardised_tensors
from imputune.data.views import Views
from imputune.errors import UserError
from imputune.models.classifier import Classifier
from imputune.models.csai import Csai, CsaiSizes
from imputune.models.heads import HEADS
from imputune.training.outputs import load_module, load_scaler, read_weights

ABOUT = "bundle.json"


@dataclass(frozen=True)
class BundleAbout:
    """What a bundle is made of; `head` and `input`, what the head reads, are None for a bundle of imputers."""

    dataset: str
    variables: tuple[Variable, ...]
    sizes: CsaiSizes
    head: str | None
    input: str | None
    folds: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Bundle:
    """Fold models that read one long table of raw records together.

    The table has RecordID, Time (HH:MM since admission), Parameter and Value, in the units of `about.variables`.
    Parameters the model knows and the table lacks count as not observed.
    """

    about: BundleAbout
    models: tuple[tuple[dict[str, torch.Tensor], Classifier | Csai], ...]

    def predict(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return RecordID, risk of in-hospital death (mean over folds) and its deviation over folds.

        Raises UserError for a table that cannot be read, or a bundle of imputers.
        """
        if self.about.head is None:
            raise UserError("this bundle imputes and predicts no risk: load an imputune-mortality model")
        ids_N, values_NTD = bin_long_table(table, self.about.variables)
        risks = []
        for weights, model in self.models:
            with torch.no_grad():
                logits = model(self._views(weights, values_NTD))
            risks.append(torch.sigmoid(logits).numpy().astype(np.float64))
        risk_FN = np.stack(risks)
        return pd.DataFrame({"RecordID": ids_N, "risk": risk_FN.mean(axis=0), "risk_deviation": risk_FN.std(axis=0)})

    def impute(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return RecordID, Hour, Parameter, Value and Observed: every hour of every stay, mean over folds.

        Values are in the variables' units; an observed one is the mean of its hour. Raises UserError for a table that
        cannot be read.
        """
        ids_N, values_NTD = bin_long_table(table, self.about.variables)
        filled = []
        for weights, model in self.models:
            imputer = model.imputer if isinstance(model, Classifier) else model
            with torch.no_grad():
                imputed_NTD = imputer(self._views(weights, values_NTD)).imputed_BTD.numpy()
            filled.append(load_scaler(weights).restore(imputed_NTD))
        observed_NTD = ~np.isnan(values_NTD)
        complete_NTD = np.where(observed_NTD, values_NTD, np.mean(filled, axis=0))
        stays, hours, variables = values_NTD.shape
        names = [variable.name for variable in self.about.variables]
        return pd.DataFrame(
            {
                "RecordID": np.repeat(ids_N, hours * variables),
                "Hour": np.tile(np.repeat(np.arange(hours), variables), stays),
                "Parameter": np.tile(names, stays * hours),
                "Value": complete_NTD.reshape(-1).astype(np.float64),
                "Observed": observed_NTD.reshape(-1),
            }
        )

    def _views(self, weights: dict[str, torch.Tensor], values_NTD: np.ndarray) -> Views:
        standardised_NTD, observed_NTD = standardised_tensors(values_NTD.copy(), load_scaler(weights))
        return Views.read(standardised_NTD, observed_NTD.float())


def write_about(about: BundleAbout, folder: Path) -> None:
    """Write what `read_bundle` needs beside the fold files."""
    (folder / ABOUT).write_text(json.dumps(asdict(about), indent=1) + "\n", encoding="utf-8")


def read_bundle(folder: Path) -> Bundle:
    """Load a bundle from its folder; the structure is this package's code, the weights are safetensors."""
    raw: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    variables = tuple(Variable(**variable) for variable in raw.pop("variables"))
    about = BundleAbout(variables=variables, sizes=CsaiSizes(**raw.pop("sizes")), folds=tuple(raw.pop("folds")), **raw)
    models = []
    for fold in about.folds:
        weights = read_weights(folder, fold)
        imputer = Csai(about.sizes)
        load_module("imputer", imputer, weights)
        model: Classifier | Csai = imputer
        if about.head is not None and about.input is not None:
            head = HEADS[about.head](about.sizes.hidden, about.sizes.variables, 0.0)
            load_module("head", head, weights)
            model = Classifier(imputer, head, freeze_imputer=True, reads=about.input)
        models.append((weights, model.eval()))
    return Bundle(about, tuple(models))
