"""What the MEDS reader returns: stays in bins, with start, subject, static facts, labels of outcomes, and all counts.

Letters: N stays, T bins, D variables.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from imputune.data.cohort import Variable
from imputune.data.static import StaticVariable
from imputune.data.window import Window
from imputune.errors import UserError


@dataclass(frozen=True, kw_only=True)
class WindowRules(Window):
    """Which windows are read, and how they are divided; ages in years, all lengths in hours.

    stays: the first of each subject, or all. minimum_hours: how long a stay must last; in a stay that is shorter than
    `hours`, the hours after its end have no value.
    """

    minimum_hours: int = 48
    stays: Literal["first", "all"] = "first"
    minimum_age: float = 18.0
    maximum_age: float | None = None

    @property
    def window(self) -> Window:
        """The lengths alone."""
        return Window(hours=self.hours, bin_hours=self.bin_hours)

    def check(self) -> None:
        """Raise UserError for lengths or ages that cannot be."""
        super().check()
        if self.minimum_hours < 1:
            raise UserError(f"--minimum-hours must be 1 or more, got {self.minimum_hours}: change it")
        if self.maximum_age is not None and self.maximum_age < self.minimum_age:
            told = f"--maximum-age {self.maximum_age:g} is below --minimum-age {self.minimum_age:g}"
            raise UserError(f"{told}: change one of them")

    @property
    def needs_age(self) -> bool:
        """Say whether a stay without an age must be left out."""
        return self.minimum_age > 0 or self.maximum_age is not None


@dataclass(frozen=True, kw_only=True)
class EventCounts:
    """How many events the dataset has; how many of the variables' codes are in the windows; the dropped ones by reason.

    ignored: events that cannot be used wherever they stand, and admissions or discharges without a partner, by reason.
    """

    read: int
    in_windows: int
    dropped: Mapping[str, int]
    ignored: Mapping[str, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class MedsStays:
    """Stays of a MEDS dataset, ascending by subject and start.

    Shapes: `subject_ids_N` int64, the records' own; `start_N` and `until_N` datetime64[us], where the window begins and
    ends, which is before start + hours in a shorter stay; `next_start_N`, where the subject's next stay begins, NaT
    without one; `values_NTD` float32 in the units of `variables`, NaN where
    nothing was observed, in a temporary file that goes when the array does; `static` a row per stay, NaN where unknown.

    labels: for each outcome 0, 1 or NO_LABEL of each stay, int8 (N,); the outcome that was asked for is the first, and
    in-hospital death is always there. exclusions: stays left out, by the first rule that they break. label_counts: what
    became of a label table's rows. about: the dataset's name and version. absent: for each variable that no event has,
    a near miss of its code, or "". outcome_is_derived: whether the first
    outcome is derived from codes; otherwise a label table has it.
    """

    rules: WindowRules
    subject_ids_N: npt.NDArray[np.int64]
    start_N: npt.NDArray[np.datetime64]
    until_N: npt.NDArray[np.datetime64]
    next_start_N: npt.NDArray[np.datetime64]
    values_NTD: npt.NDArray[np.float32]
    variables: tuple[Variable, ...]
    static: pd.DataFrame
    static_variables: tuple[StaticVariable, ...]
    labels: Mapping[str, npt.NDArray[np.int8]]
    stays_read: int
    exclusions: Mapping[str, int]
    events: EventCounts
    label_counts: Mapping[str, int]
    about: Mapping[str, str]
    absent: Mapping[str, str]
    outcome_is_derived: bool = True

    @property
    def shorter(self) -> int:
        """The number of stays that ended before their window's last hour."""
        whole_N = self.start_N + np.timedelta64(self.rules.hours, "h")
        return int((self.until_N < whole_N).sum())
