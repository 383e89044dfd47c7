"""The committed file of a dataset's rivals: their scores by fold, kept as the folds come."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError

from imputune.artifacts.results_files import Code
from imputune.artifacts.stage_output import FoldRecord, MadeFrom, Settings
from imputune.errors import UserError
from imputune.evaluation.stored import Stored
from imputune.files import replace_text
from imputune.protocol.rival_choice import RIVALS
from imputune.protocol.rivals import Rival

FORMAT: Literal[1] = 1  # raised when a reader of older files would misread them


class RivalFold(Stored):
    """One fold of a rival: all scores by name, the epoch that was kept, counted from 0, and the seconds of training.

    failure: why it has no scores; "" otherwise.
    """

    fold: int
    scores: dict[str, float]
    best_epoch: int
    epochs: int
    seconds: float
    failure: str = ""

    @classmethod
    def of(cls, fold: FoldRecord) -> Self:
        """Return what the file says of a fold."""
        return cls(
            fold=fold.fold,
            scores=fold.scores,
            best_epoch=fold.best_epoch,
            epochs=len(fold.history),
            seconds=fold.seconds,
            failure=fold.failure,
        )


class RivalResult(Stored):
    """A rival: its folds so far, and what they were made with.

    settings: the sections of params.yaml that the result depends on. learning_rate: the one taken, None before the
    first fold is finished. rates: the highest validation AUC of each rate that was tried, None where training diverged.
    run_id: "" while folds are missing.
    """

    rival: Rival
    settings: Settings
    num_parameters: int | None
    learning_rate: float | None
    rates: dict[str, float | None]
    folds: tuple[RivalFold, ...]
    run_id: str
    code: Code


class RivalsFile(Stored):
    """The rivals of a dataset and outcome, in the catalogue's order; see `results_files.ResultsFile` for the fields.

    head_seconds_for_1000_stays: for the risks of mlp2 on CSAI, measured where the rivals were trained last; None if it
    was not.
    """

    format: Literal[1] = FORMAT
    dataset: str
    cohort_hash: str
    folds_hash: str
    variables: int
    stays: int
    events: int
    outcome: str
    outcome_hash: str
    seed: int
    head_seconds_for_1000_stays: float | None = None
    rivals: tuple[RivalResult, ...] = ()

    @classmethod
    def about(cls, made_from: MadeFrom) -> Self:
        """Return the file of the data that an output was made from, without a rival."""
        names = ("dataset", "cohort_hash", "folds_hash", "stays", "events", "outcome", "outcome_hash", "seed")
        return cls(**{name: getattr(made_from, name) for name in names}, variables=len(made_from.variables))

    @property
    def data(self) -> tuple[str, str, int]:
        """What must be equal for results to be compared: cohort, folds, seed."""
        return self.cohort_hash, self.folds_hash, self.seed

    @property
    def labels(self) -> tuple[str, str]:
        """Which labels were predicted."""
        return self.outcome, self.outcome_hash

    def is_of_data(self, other: "RivalsFile") -> bool:
        """Say whether both are of the same cohort, folds, seed and labels."""
        return self.data == other.data and self.labels == other.labels

    def with_result(self, result: RivalResult) -> Self:
        """Return the file with a rival's result, instead of an earlier one of the same rival.

        Folds that the earlier result alone has are kept if it was made with the same settings: another machine may have
        trained them.
        """
        others = [each for each in self.rivals if each.rival != result.rival]
        for earlier in self.rivals:
            if earlier.rival == result.rival and earlier.settings == result.settings:
                folds = {fold.fold: fold for fold in (*earlier.folds, *result.folds)}
                merged = {"folds": tuple(fold for _, fold in sorted(folds.items()))}
                result = result.model_copy(update=merged)
        return self.model_copy(update={"rivals": tuple(sorted((*others, result), key=_place))})


def rates_tried(folds: Iterable[FoldRecord]) -> dict[str, float | None]:
    """Return the highest validation AUC of every learning rate that a fold tried; None where training diverged."""
    return {
        f"{trial.learning_rate:g}": max(row["validation_auc"] for row in trial.curve)
        if trial.state == "complete"
        else None
        for fold in folds
        for trial in fold.trials
    }


def write_rivals_file(path: Path, file: RivalsFile) -> None:
    """Write a file in one step; UserError when the system refuses."""
    replace_text(path, json.dumps(file.model_dump(mode="json"), indent=1) + "\n")


def read_rivals_file(path: Path) -> RivalsFile:
    """Read a file; raises UserError, naming it, when it is broken or was written by another version."""
    try:
        return RivalsFile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise UserError(f"{path} is broken, or of another version of imputune") from None


def _place(result: RivalResult) -> tuple[int, str]:
    return list(RIVALS).index(result.rival.name), result.rival.input
