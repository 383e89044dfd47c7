"""A cohort as an input of a run: its name, hash and size in MLflow's Dataset column, and none of its records."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT
from pydantic import JsonValue

DIGEST_LENGTH = 12  # characters; MLflow allows 36, but its table shows these beside the name
CODE_SOURCE = "code"  # MLflow's own kind of source that names no place


@dataclass(frozen=True, kw_only=True)
class CohortInput:
    """What a run tells of a cohort that it used.

    name: the dataset. context: whether the cohort trained models or measured them. size: numbers of stays, hours,
    variables and stays with the outcome. source: how the cohort was extracted, and counts; no path and no record.
    variables: their names with units, shown as the schema; empty where only their number is known.
    """

    name: str
    cohort_hash: str
    context: Literal["training", "evaluation"]
    size: Mapping[str, int]
    source: Mapping[str, JsonValue]
    variables: Sequence[str] = ()

    def as_dataset(self) -> DatasetInput:
        """Return the cohort as MLflow's entity; the digest is the beginning of the cohort's hash."""
        columns = [{"type": "double", "name": name, "required": False} for name in self.variables]
        dataset = Dataset(
            name=self.name,
            digest=self.cohort_hash[:DIGEST_LENGTH],
            source_type=CODE_SOURCE,
            source=json.dumps({"tags": dict(self.source)}),
            profile=json.dumps(dict(self.size)),
            schema=json.dumps({"mlflow_colspec": columns}) if columns else None,
        )
        return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, self.context)])
