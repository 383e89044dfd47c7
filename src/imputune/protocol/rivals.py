"""A rival: a complex end-to-end model that is trained on the same folds, and what it reads."""

from typing import get_args

from pydantic import BaseModel, ConfigDict

from imputune.settings.names import OwnRival, RivalInput, RivalName

SECONDS_FOR_1000 = "seconds_for_1000_stays"
"""Among the scores of a rival's fold: the seconds that the risks of 1,000 stays take."""


class Rival(BaseModel):
    """A rival and what it reads: `raw`, values with mask and hours; `raw+static`, static facts too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: RivalName
    input: RivalInput

    @property
    def label(self) -> str:
        """Its name among all rivals, and its folder's: seft-raw."""
        return f"{self.name}-{self.input}"

    @property
    def is_own(self) -> bool:
        """Whether this package has the network; PyPOTS has the others."""
        return self.name in get_args(OwnRival)

    @property
    def reads_static(self) -> bool:
        """Whether it reads static facts too."""
        return self.input.endswith("+static")
