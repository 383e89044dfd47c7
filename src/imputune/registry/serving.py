"""The code that mlflow runs when it loads a registered bundle: this file, with a copy of the package, and no pickle."""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from imputune.data.raw.binning import BinnedStays
from imputune.data.raw.physionet2012 import bin_long_table
from imputune.errors import UserError
from imputune.models.stacked_csai import SMALL_BATCH
from imputune.registry.bundle import Bundle
from imputune.registry.bundle_file import read_bundle
from imputune.registry.joined_requests import JoinedRequests


class BundleModel(PythonModel):
    """A bundle as an mlflow model: it imputes, or predicts risk, from a long table of raw records."""

    bundle: Bundle
    requests: JoinedRequests[BinnedStays, pd.DataFrame]

    def load_context(self, context: PythonModelContext) -> None:
        """Read the bundle from the model's artifacts."""
        self.bundle = read_bundle(Path(context.artifacts["bundle"]))
        self.requests = JoinedRequests(
            self.bundle.predict_each, size=lambda stays: len(stays.stay_ids_N), most=SMALL_BATCH
        )

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return risks if the bundle has a head, else imputed hourly values; see `bundle.Bundle`.

        The table is read as `imputune predict` reads it. Raises MlflowException, with the same sentence, for one that
        cannot be read; a server answers it as a bad request. Several threads may ask at once: risks of few stays are
        computed together; see `joined_requests`.
        """
        try:
            about = self.bundle.about
            stays = bin_long_table(model_input, about.variables, about.static, about.window)
            return self.bundle.impute(stays) if about.head is None else self.requests.ask(stays)
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None


mlflow.models.set_model(BundleModel())
