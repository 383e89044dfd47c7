"""Labels in a cohort's outcomes.csv that another extraction would lose: a user's own, or ones that a user corrected."""

import csv
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from imputune.data.outcome_file import OUTCOMES_FILE, Labels, labels_of, read_outcome_table
from imputune.data.static_file import read_text_table
from imputune.errors import UserError

STAYS_FILE = "stays.csv"
REMEDY = "move the file to another place, extract again, and put what you need into the new file"


def refuse_lost_outcomes(folder: Path, outcomes: Mapping[str, Labels]) -> None:
    """Raise UserError if outcomes.csv in `folder` has an outcome that is not among the new ones by name, or is broken.

    A broken file may have labels of a user.
    """
    path = folder / OUTCOMES_FILE
    if not path.is_file():
        return
    if lost := [name for name in read_outcome_table(path).columns[1:] if name not in outcomes]:
        raise UserError(f"{path} has labels of {', '.join(lost)}, which would be lost: {REMEDY}")


def refuse_changed_labels(folder: Path, fresh: Path, outcomes: Mapping[str, Labels]) -> None:
    """Raise UserError if outcomes.csv in `folder` has other labels of the same stays than the new ones.

    `fresh` is the new cohort's folder, whose stays have the labels `outcomes`, (N,) each. A stay is the same one if its
    id in the records and its static facts are the same: generated stays and numbered ones use their ids again.
    """
    path = folder / OUTCOMES_FILE
    if not path.is_file():
        return
    try:
        stays, table = read_text_table(folder / STAYS_FILE), read_outcome_table(path)
        stays = stays.join(table.set_index("stay_id").add_prefix("old "), on="stay_id", how="inner")
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise UserError(f"cannot compare the labels in {path} with the new ones ({error}): {REMEDY}") from None
    new = read_text_table(fresh / STAYS_FILE)
    key = [name for name in new.columns if name in stays and (name != "stay_id" or "source_id" not in stays)]
    labels = pd.DataFrame({f"new {name}": labels_of(label_N).astype(str) for name, label_N in outcomes.items()})
    both = stays.merge(new[key].join(labels), on=key)
    for name in table.columns[1:]:
        if changed := int((both[f"old {name}"] != both[f"new {name}"]).sum()):
            stays_have = "stay has" if changed == 1 else "stays have"
            what = f"{changed:,} {stays_have} other labels of {name} in {path} than in the new extraction"
            raise UserError(f"{what}, and would lose them: {REMEDY}")
