"""The command label: join a label table to a cohort's stays, as a further outcome in outcomes.csv."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from imputune.data.cohort import Cohort, read_cohort
from imputune.data.outcome_file import NO_LABEL, OUTCOMES_FILE, outcomes_text
from imputune.data.raw.meds.labels import labels_of_windows
from imputune.data.raw.meds.reasons import told_counts
from imputune.data.window_file import WINDOWS_FILE, read_windows
from imputune.errors import UserError
from imputune.files import replace_text
from imputune.protocol.outcomes import check_outcome_name
from imputune.runtime.console import counted


@dataclass(frozen=True, kw_only=True)
class LabelledStays:
    """The labels that were written.

    stays: all stays of the cohort. labelled, events: those with a label, and with label 1. changed: how many stays had
    another label of this outcome before; None if the cohort did not have it. counts: what became of the table's rows.
    by_time: whether labels were joined by time.
    """

    stays: int
    labelled: int
    events: int
    changed: int | None
    counts: Mapping[str, int]
    by_time: bool


def run_label(folder: Path, outcome: str, labels: Path, *, replace: bool = False) -> LabelledStays:
    """Add an outcome to the cohort in `folder` from a MEDS label table; the cohort's hash stays as it is.

    A label belongs to the last window of its subject that ended at or before its prediction_time, if the subject's next
    stay has not started by then. In a cohort without times, whose stays are each of another subject, it belongs to the
    stay whose id is its subject_id, whatever its time. replace: whether an outcome of this name may be overwritten.

    Raises UserError for a folder that is no cohort, an outcome that it has already, a name that no outcome may have, a
    label table that is missing or broken, labels of one value, and a cohort whose windows are not known.
    """
    try:
        check_outcome_name(outcome)
    except ValueError as error:
        raise UserError(f"--outcome: {error}") from None
    cohort = read_cohort(folder)
    earlier_N = cohort.outcomes.get(outcome)
    if outcome == cohort.outcome:
        raise UserError(f"{outcome} is the first outcome of {folder}, which its folds follow: choose another name")
    if earlier_N is not None and not replace:
        raise UserError(f"{folder} has the outcome {outcome} already: choose another name, or give --replace")
    windows = _windows(cohort, folder)
    label_N, counts = labels_of_windows(windows, labels, folder.absolute().parent, cohort.window.hours)
    values = set(label_N[label_N != NO_LABEL].tolist())
    labelled = int((label_N != NO_LABEL).sum())
    if len(values) < 2:
        all_labelled = f"all {counted(labelled, 'labelled stay')}"
        what = f"is {values.pop()} in {all_labelled}" if values else "has a label for no stay"
        raise UserError(
            f"{outcome} {what} of {folder} ({told_counts(counts)}): "
            f"a model needs stays with label 0 and stays with label 1; check {labels}"
        )
    others = {name: other_N for name, other_N in cohort.outcomes.items() if name != cohort.outcome}
    replace_text(folder / OUTCOMES_FILE, outcomes_text(cohort.stay_ids_N, {**others, outcome: label_N}))
    return LabelledStays(
        stays=len(label_N),
        labelled=labelled,
        events=int((label_N == 1).sum()),
        changed=None if earlier_N is None else int((earlier_N != label_N).sum()),
        counts=counts,
        by_time=not windows["end"].isna().all(),
    )


def _windows(cohort: Cohort, folder: Path) -> pd.DataFrame:
    """Return whose stay each is and its times; without times, where the records have none."""
    if (path := folder / WINDOWS_FILE).is_file():
        return read_windows(path, cohort.stay_ids_N)
    if cohort.subject_ids_N is not None or cohort.source_ids_N is not None:
        again = cohort.source.get("command", "imputune extract")
        raise UserError(
            f"{folder} lacks {WINDOWS_FILE}, so labels cannot be joined by time: run `{again}` again with the same "
            f"options (it writes this file beside the same cohort), or write the labels to {OUTCOMES_FILE}"
        )
    unknown_N = np.full(len(cohort.stay_ids_N), np.datetime64("NaT", "us"))
    return pd.DataFrame(
        {"subject_id": cohort.stay_ids_N, "start": unknown_N, "end": unknown_N, "next_start": unknown_N}
    )
