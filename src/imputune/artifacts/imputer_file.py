"""The committed files of an imputer: its errors by fold after pretraining, and its assessment on masked cells."""

from typing import Literal, Self

from imputune.artifacts.results_files import Code, ResultsFile, about, data_of, pretraining_settings
from imputune.artifacts.stage_output import AssessmentOutput, FoldRecord, Settings, TrainingOutput
from imputune.evaluation.assessed_imputers import Assessment
from imputune.evaluation.imputation import CellErrors
from imputune.evaluation.rows import ImputerRow, imputer_rows
from imputune.evaluation.stored import Stored
from imputune.settings.names import ImputerName, RandomPattern


class FoldErrors(CellErrors):
    """An imputer's errors over all held-out cells of a split of one fold."""

    imputer: ImputerName
    pattern: RandomPattern
    split: Literal["validation", "test"]


class ImputerFold(Stored):
    """The pretraining of one fold: the epoch that was kept, counted from 0, the number of epochs, and the errors."""

    fold: int
    best_epoch: int
    epochs: int
    seconds: float
    errors: tuple[FoldErrors, ...]


class ImputerFile(ResultsFile):
    """A pretrained imputer: its errors by fold, and over the folds by variable (rows)."""

    folds: tuple[ImputerFold, ...]
    rows: tuple[ImputerRow, ...]

    @classmethod
    def of(cls, output: TrainingOutput, code: Code) -> Self:
        """Return the file of an imputer's output."""
        fields = {
            "settings": pretraining_settings(output.made_from),
            "folds": tuple(map(_imputer_fold, output.folds)),
            "rows": tuple(imputer_rows([fold.imputation for fold in output.folds])),
        }
        return cls.model_validate(about(output, code) | fields)

    def tells_of(self, output: TrainingOutput) -> bool:
        """Say whether an imputer's output was made from the same data and settings."""
        return self.data == data_of(output.made_from) and self.settings == pretraining_settings(output.made_from)


class AssessmentFile(ResultsFile):
    """An assessed imputer: its scores on the held-out cells of the test stays, as `Assessment` has them.

    imputer_settings: the settings the imputer was pretrained with. missing_share_edges: see `AssessmentOutput`.
    """

    imputer_settings: Settings
    missing_share_edges: tuple[float, ...]
    assessment: Assessment

    @classmethod
    def of(cls, output: AssessmentOutput, imputer: TrainingOutput, code: Code) -> Self:
        """Return the file of an assessment; `imputer` is the output of the imputer that was assessed."""
        fields = {
            "settings": output.made_from.settings,
            "imputer_settings": pretraining_settings(imputer.made_from),
            "missing_share_edges": output.missing_share_edges,
            "assessment": Assessment.of(output.folds),
        }
        return cls.model_validate(about(output, code) | fields)

    def tells_of(self, output: AssessmentOutput, imputer: TrainingOutput) -> bool:
        """Say whether an assessment was made from the same data, settings and settings of the imputer."""
        same_data = self.data == data_of(output.made_from)
        same_imputer = self.imputer_settings == pretraining_settings(imputer.made_from)
        return same_data and same_imputer and self.settings == output.made_from.settings

    def is_of(self, imputer: ImputerFile) -> bool:
        """Say whether it assessed an imputer that was pretrained just as this one was."""
        same_imputer = self.imputer == imputer.imputer and self.imputer_settings == imputer.settings
        return same_imputer and self.data == imputer.data


def _imputer_fold(fold: FoldRecord) -> ImputerFold:
    errors = [
        FoldErrors(imputer=each.imputer, pattern=each.pattern, split=each.split, **each.overall.model_dump())
        for each in fold.imputation
    ]
    return ImputerFold(
        fold=fold.fold,
        best_epoch=fold.best_epoch,
        epochs=len(fold.history),
        seconds=fold.seconds,
        errors=tuple(errors),
    )
