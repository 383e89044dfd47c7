"""The committed file of a variant: its scores by fold."""

from collections.abc import Iterable
from typing import Self

from imputune.artifacts.imputer_file import ImputerFile
from imputune.artifacts.results_files import Code, ResultsFile, about, data_of, pretraining_settings
from imputune.artifacts.stage_output import FoldRecord, Settings, TrainingOutput
from imputune.evaluation.metrics import ReliabilityPoint
from imputune.evaluation.small_groups import POINT_STAYS
from imputune.evaluation.stored import Stored
from imputune.protocol.variants import Variant


class VariantFold(Stored):
    """One fold of a variant: all scores by name, the epoch that was kept, counted from 0, and its search.

    trials: of the search for the learning rate, 0 if this fold did not search; pruned_trials: those of them that were
    stopped early.
    """

    fold: int
    scores: dict[str, float]
    best_epoch: int
    epochs: int
    seconds: float
    learning_rate: float | None
    trials: int
    pruned_trials: int


class VariantFile(ResultsFile):
    """A fine-tuned variant: its scores by fold and its calibration curve over all test stays.

    imputer_run_id: the run that pretrained the imputer. imputer_settings: the settings it was pretrained with. Imputers
    of equal data and settings count as the same, wherever they were pretrained. calibration: empty where a group would
    have fewer than POINT_STAYS stays. For the numbers of parameters see `TrainingOutput`.
    """

    variant: Variant
    imputer_run_id: str
    imputer_settings: Settings
    num_parameters: int | None
    trainable_parameters: int | None
    folds: tuple[VariantFold, ...]
    calibration: tuple[ReliabilityPoint, ...]

    @classmethod
    def of(
        cls, output: TrainingOutput, imputer: TrainingOutput, calibration: Iterable[ReliabilityPoint], code: Code
    ) -> Self:
        """Return the file of a variant's output; `imputer` is the output of the imputer that it was made on."""
        points = tuple(calibration)
        fields = {
            "variant": output.variant,
            "settings": output.made_from.settings,
            "imputer_run_id": output.made_from.imputer_run_id,
            "imputer_settings": pretraining_settings(imputer.made_from),
            "num_parameters": output.num_parameters,
            "trainable_parameters": output.trainable_parameters,
            "folds": tuple(map(_variant_fold, output.folds)),
            "calibration": points if all(point.stays >= POINT_STAYS for point in points) else (),
        }
        return cls.model_validate(about(output, code) | fields)

    def tells_of(self, output: TrainingOutput, imputer: TrainingOutput) -> bool:
        """Say whether a variant's output was made from the same data, settings and settings of the imputer."""
        made_from = output.made_from
        same_data = self.data == data_of(made_from) and self.labels == (made_from.outcome, made_from.outcome_hash)
        same_imputer = self.imputer_settings == pretraining_settings(imputer.made_from)
        return same_data and same_imputer and self.settings == output.made_from.settings

    def is_on(self, imputer: ImputerFile) -> bool:
        """Say whether the variant was made from this data and seed, on an imputer pretrained just as this one was."""
        same_imputer = self.imputer == imputer.imputer and self.imputer_settings == imputer.settings
        return same_imputer and self.data == imputer.data and len(self.folds) == len(imputer.folds)


def _variant_fold(fold: FoldRecord) -> VariantFold:
    return VariantFold(
        fold=fold.fold,
        scores=fold.scores,
        best_epoch=fold.best_epoch,
        epochs=len(fold.history),
        seconds=fold.seconds,
        learning_rate=fold.learning_rate,
        trials=len(fold.trials),
        pruned_trials=sum(trial.state == "pruned" for trial in fold.trials),
    )
