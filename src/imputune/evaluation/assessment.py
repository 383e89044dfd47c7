"""What the assessment of an imputer gives: its scores on held-out cells under every masking pattern and rate."""

from imputune.evaluation.imputation import CellErrors
from imputune.evaluation.stored import Stored
from imputune.settings.names import MaskingPattern


class VariableErrors(CellErrors):
    """Errors of a variable; wasserstein: distance between the distributions of its estimates and true values."""

    wasserstein: float


class HeldOutScores(VariableErrors):
    """An imputer's scores under one masking pattern at one rate.

    wasserstein: mean over variables, weighted by their cells. correlation_error: see `correlation.correlation_error`.
    by_missing_share: by the number of a group of stays, group 0 having the fewest missing cells. A variable or group
    without held-out cells is left out.
    """

    pattern: MaskingPattern
    rate: float
    correlation_error: float | None
    by_variable: dict[str, VariableErrors]
    by_missing_share: dict[str, CellErrors]


class AssessedFold(Stored):
    """The assessment of one fold's imputer.

    seconds: to impute 1,000 stays on one core. batch_difference: the largest difference between a stay imputed alone
    and the same stay in a batch, in training standard deviations, hidden state included. scores: one for each masking
    pattern and rate. example: the generated example stay imputed, in the variables' units, T lists of D numbers.
    """

    fold: int
    seconds: float
    batch_difference: float
    scores: tuple[HeldOutScores, ...]
    example: list[list[float]]

    @property
    def final_metrics(self) -> dict[str, float]:
        """What a recorder receives at the end of the fold."""
        errors = {f"mae_{each.pattern}_{100 * each.rate:g}": each.mae for each in self.scores}
        return errors | {"seconds_per_1000_stays": self.seconds, "batch_difference": self.batch_difference}
