"""Imputer or classifier: all that is found on a dataset, as data and tables."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from imputune.evaluation.assessed_imputers import AssessedImputer
from imputune.evaluation.rows import Row
from imputune.evaluation.variance import Decomposition, decompose
from imputune.evaluation.verdicts import judge
from imputune.protocol.imputers import CONTROLS
from imputune.reporting.imputer_tables import (
    errors_table,
    missing_table,
    target_table,
    variables_table,
    winner_sentence,
)
from imputune.reporting.matrix_tables import (
    answer,
    decomposition_table,
    matrix_table,
    rivals_table,
)
from imputune.reporting.tables import Table, verdicts_table

PLACES = 6
MATRIX_FIELDS = (
    *("imputer", "head", "mode", "input", "schedule", "num_parameters", "val_auc_mean", "val_auc_std"),
    *("test_auc_mean", "test_auc_std", "seconds", "run_id", "source", "folds"),
)


@dataclass(frozen=True)
class ImputerComparison:
    """Imputers assessed, the matrix of imputers and heads, and notes: what was left out and why.

    test_to_train: test stays of a fold over its training stays. edges: of the groups of stays by their share of missing
    cells. protocol: every cell of the paper's protocol that there is.
    """

    dataset: str
    stays: int
    deaths: int
    cohort_hash: str
    test_to_train: float
    imputers: tuple[AssessedImputer, ...]
    edges: tuple[float, ...]
    matrix: tuple[Row, ...]
    protocol: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The question, of which dataset."""
        return f"Imputer or classifier? {self.dataset}: {self.stays:,} stays, {self.deaths:,} deaths"

    @property
    def answers(self) -> tuple[str, ...]:
        """The answer in one sentence, and which imputer comes closest."""
        sentences = (answer(self.dataset, self.matrix), winner_sentence(self.imputers, self.test_to_train))
        return tuple(sentence for sentence in sentences if sentence)

    def imputer_tables(self) -> list[Table]:
        """Return the tables of imputers alone."""
        found = [target_table(self.imputers), missing_table(self.imputers, self.edges)]
        errors = [errors_table(self.imputers)] if self.imputers else []
        return [*(table for table in found[:1] if table), *errors, *(table for table in found[1:] if table)]

    def matrix_tables(self) -> list[Table]:
        """Return the tables of imputers with classifiers."""
        if not self.matrix:
            return []
        found = [
            matrix_table(self.matrix),
            decomposition_table(self.matrix),
            rivals_table(self.matrix, self.test_to_train),
        ]
        return [table for table in found if table is not None]

    def tables(self) -> list[Table]:
        """Return every table for which there is something to show."""
        return [*self.matrix_tables(), *self.imputer_tables()]

    def variables_table(self) -> Table | None:
        """Return the error by variable."""
        return variables_table(self.imputers)

    def claims_table(self) -> Table | None:
        """Return the verdicts on the paper's claims, from the cells of its protocol."""
        return verdicts_table(judge(self.protocol, self.test_to_train))

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values, to six places: a row for each imputer, a row for each imputer and head."""
        without = decompose([row for row in self.matrix if row.imputer not in CONTROLS])
        content = {
            "dataset": self.dataset,
            "stays": self.stays,
            "deaths": self.deaths,
            "cohort_hash": self.cohort_hash,
            "answers": list(self.answers),
            "imputers": [asdict(each) for each in self.imputers],
            "missing_share_edges": list(self.edges),
            "matrix": [{name: getattr(row, name) for name in MATRIX_FIELDS} for row in self.matrix],
            "decomposition": _plain(decompose(self.matrix)),
            "decomposition_without_controls": _plain(without),
            "notes": list(self.notes),
        }
        return {name: _rounded(value) for name, value in content.items()}


def _rounded(value: Any) -> Any:
    """Return plain values with their numbers to six places."""
    if isinstance(value, float):
        return round(value, PLACES)
    if isinstance(value, Mapping):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value


def _plain(found: Decomposition | None) -> Mapping[str, Any] | None:
    return None if found is None else asdict(found)
