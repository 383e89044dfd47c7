"""A cohort, and the results of `imputune compare` as data frames."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from imputune.api.places import named_folder
from imputune.data import cohort as cohort_folder
from imputune.data.cohort import Cohort
from imputune.data.raw.synthetic import extract_synthetic
from imputune.errors import UserError
from imputune.evaluation.rows import VariantRow
from imputune.protocol.imputers import DEFAULT_IMPUTER

RESULTS = "results.json"


def read_cohort(cohort: str | Path | None = None, *, project: str | Path | None = None) -> Cohort:
    """Read a cohort: a folder, or a dataset in the project's data/ by its name; None is the dataset of params.yaml.

    `values_NTD` of the result has the values, (stays, hours, variables), in the units of `variables`, NaN where nothing
    was observed; `outcome_N` has the labels of its first outcome, 0 or 1, or -1 for no label; `with_outcome` chooses
    another one of `outcomes`. `project` is its folder, or one below; None: the current folder.
    Raises UserError, with the remedy, if the cohort is missing or malformed.
    """
    return cohort_folder.read_cohort(named_folder(cohort, "source.json", inside="data", project=project))


def synthetic_cohort(stays: int = 1000, seed: int = 2012) -> Cohort:
    """Generate the cohort that `imputune extract synthetic` writes; the same arguments give the same cohort.

    Raises UserError if `stays` is not 1 to 90,000 or `seed` is negative.
    """
    return extract_synthetic(stays, seed)


def read_comparison(
    results: str | Path | None = None, *, by_fold: bool = False, project: str | Path | None = None
) -> pd.DataFrame:
    """Read what `imputune compare` wrote to a folder, or to results/ for a dataset; None: the dataset of params.yaml.

    One row a variant, named by its label: imputer, head, mode, input and schedule; scores as mean and sample standard
    deviation over folds (val_auc_mean, test_auc_mean, test_auc_std, ...); the paper's test AUC if it has one; seconds
    of training; run_id. With `by_fold`, one row a variant and fold, with the scores of the fold; NaN where it has none.

    Raises UserError if there are no results, or if another version of imputune wrote them.
    """
    path = named_folder(results, RESULTS, inside="results", project=project) / RESULTS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [_row(row) for row in content["rows"]]
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `imputune compare`") from None
    except (OSError, AttributeError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is broken, or of another version of imputune: run `imputune compare` again") from None
    if by_fold:
        folds = pd.DataFrame([{"variant": row.label} | fold.model_dump() for row in rows for fold in row.folds])
        return folds.set_index(["variant", "fold"]).astype(float)
    variants = [{"variant": row.label} | row.model_dump(exclude={"folds", "calibration"}) for row in rows]
    return pd.DataFrame(variants).set_index("variant")


def _row(stored: Mapping[str, object]) -> VariantRow:
    """Return a row of results.json, also of earlier versions: they compared CSAI alone and had other calibration."""
    known = {name: value for name, value in stored.items() if name in VariantRow.model_fields and name != "calibration"}
    return VariantRow.model_validate({"imputer": DEFAULT_IMPUTER} | known)
