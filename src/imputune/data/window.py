"""The window of a cohort's stays: how many hours, in bins of how many."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imputune.errors import UserError

HOURS = 48


@dataclass(frozen=True, kw_only=True)
class Window:
    """The first hours of a stay, divided into bins; both lengths in hours."""

    hours: int = HOURS
    bin_hours: int = 1

    def check(self) -> None:
        """Raise UserError for lengths that cannot be."""
        if self.hours < 1 or self.bin_hours < 1 or self.hours % self.bin_hours:
            told = f"{self.hours} hours cannot be divided into bins of {self.bin_hours}"
            raise UserError(f"{told}: give --hours a multiple of --bin-hours, both 1 or more")

    def check_within(self, hours: int) -> None:
        """Raise UserError for lengths that cannot be, or a window that is longer than the records, `hours`."""
        self.check()
        if self.hours > hours:
            raise UserError(f"these records have {hours} hours, got --hours {self.hours}: give {hours} or fewer")

    def dataset_name(self, dataset: str) -> str:
        """Return the name of the dataset with this window: its own name for the usual window."""
        return dataset if self == Window() else "_".join((dataset, f"{self.hours}h", *self._bins_in_name))

    @property
    def _bins_in_name(self) -> tuple[str, ...]:
        return () if self.bin_hours == 1 else (f"by_{self.bin_hours}h",)

    def command(self, command: str) -> str:
        """Return a command of an extraction with the options of this window."""
        return command if self == Window() else f"{command} --hours {self.hours} --bin-hours {self.bin_hours}"

    @property
    def bins(self) -> int:
        """Return T, the number of bins of a window."""
        return self.hours // self.bin_hours

    @property
    def bin_words(self) -> str:
        """How its bins are spoken of."""
        return "hourly bins" if self.bin_hours == 1 else f"bins of {self.bin_hours} hours"

    @property
    def often(self) -> str:
        """How often its values come, as in "hourly values"."""
        return "hourly" if self.bin_hours == 1 else f"{self.bin_hours}-hourly"

    @property
    def bin_noun(self) -> str:
        """What one of its bins is called."""
        return "hour" if self.bin_hours == 1 else "bin"

    def __str__(self) -> str:
        return f"{self.hours} hours" if self.bin_hours == 1 else f"{self.hours} hours in bins of {self.bin_hours}"

    def of_hourly(self, hourly_NHD: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return hourly values in this window's bins, float32 (N, T, D).

        A bin has the mean of its observed hours, NaN without one; hours behind the window are cut off, and hours that
        the values lack are not observed. Shapes: hourly_NHD (N, hours, D), NaN where not observed.
        """
        stays, given, variables = hourly_NHD.shape
        whole_NHD = np.full((stays, self.hours, variables), np.nan, dtype=np.float64)
        whole_NHD[:, :given] = hourly_NHD[:, : self.hours]
        binned = whole_NHD.reshape(stays, self.bins, self.bin_hours, variables)
        count_NTD = (~np.isnan(binned)).sum(axis=2)
        mean_NTD = np.full(count_NTD.shape, np.nan)
        np.divide(np.nansum(binned, axis=2), count_NTD, out=mean_NTD, where=count_NTD > 0)
        return mean_NTD.astype(np.float32)
