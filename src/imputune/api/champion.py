"""A registered model for predictions in a notebook."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from imputune.api.places import project_root
from imputune.data.outcome_choice import chosen_outcome, named_outcome
from imputune.data.raw.binning import BinnedStays
from imputune.data.raw.physionet2012 import bin_long_table
from imputune.protocol.outcomes import DEFAULT_OUTCOME
from imputune.settings.file import read_params

if TYPE_CHECKING:
    from imputune.registry.bundle import Bundle


@dataclass(frozen=True, eq=False, kw_only=True)
class RiskModel:
    """A registered model of an outcome.

    name and version: in the registry. variant: what was fine-tuned. outcome: what the risk is of. variables: those it
    reads, each with its unit. threshold: from this risk on, a stay counts as high risk.
    """

    name: str
    version: int
    variant: str
    bundle: "Bundle" = field(repr=False)

    @property
    def variables(self) -> dict[str, str]:
        """The unit of each variable that the model reads, by the variable's name."""
        return {variable.name: variable.unit for variable in self.bundle.about.variables}

    @property
    def outcome(self) -> str:
        """The name of the outcome."""
        return self.bundle.about.outcome

    @property
    def threshold(self) -> float:
        """The risk from which on a stay counts as high risk."""
        return self.bundle.threshold

    def predict(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a row a stay: RecordID, risk, risk_deviation, high_risk, observed_cells, rows_ignored.

        `table` has a row a measurement, with the columns RecordID, Time, Parameter and Value, and may have static facts
        (docs/prediction.md). Risks are those of the served model and of `imputune predict`. Raises UserError, one line,
        for a table that cannot be read.
        """
        return self.bundle.predict(self._binned(table))

    def impute(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return RecordID, Hour, Parameter, Value, Observed and RowsIgnored: all hours of all variables of each stay.

        Raises UserError if the model reads no imputer, or for a table that cannot be read.
        """
        return self.bundle.impute(self._binned(table))

    def _binned(self, table: pd.DataFrame) -> BinnedStays:
        about = self.bundle.about
        return bin_long_table(table, about.variables, about.static, about.window)


def load_champion(
    dataset: str | None = None,
    *,
    outcome: str | None = None,
    version: str | int = "champion",
    project: str | Path | None = None,
    tracking_uri: str | None = None,
) -> RiskModel:
    """Load the champion of a dataset, or another alias or version number; nothing is unpickled.

    dataset: None is the one that params.yaml names. outcome: None is the one that params.yaml names if the cohort has
    it, or else in_hospital_death, or the cohort's first. project: its folder, or one below; None: the current folder.
    tracking_uri: the store that has the model, needed where MLFLOW_TRACKING_URI is not set and the model is not in the
    project's own store; with it and a dataset, no project is needed. MLflow's own tracking URI stays as it was.
    Raises UserError if there is no store, no such model or version, or if its files were altered.
    """
    if dataset is None or tracking_uri is None:
        root = project_root(project)
        params = read_params(root / "params.yaml")
        dataset = dataset or params.dataset
        folder = root / "data" / dataset
        named = named_outcome(folder, params.outcome, elsewhere=dataset != params.dataset)
        outcome = chosen_outcome(folder, outcome or named)
    else:
        root = Path.cwd()
    with warnings.catch_warnings():
        # MLflow imports tqdm, which warns in a notebook without ipywidgets that it has no bars; none are shown here.
        warnings.filterwarnings("ignore", message="IProgress not found")
        from imputune.registry.names import classifier_name
        from imputune.registry.versions import Registry
        from imputune.tracking.chosen_store import chosen_store
    with chosen_store(tracking_uri):
        registry = Registry(root, classifier_name(dataset, outcome or DEFAULT_OUTCOME))
        found = registry.find(str(version))
        return RiskModel(name=found.name, version=found.number, variant=found.variant, bundle=registry.load(found))
