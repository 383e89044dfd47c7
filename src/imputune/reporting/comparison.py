"""All that compare reports of one dataset, as data, tables and pages."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from imputune.evaluation.rows import ImputerRow, Row
from imputune.evaluation.significance import CITATION
from imputune.evaluation.verdicts import Verdict, judge
from imputune.protocol.published import REFERENCE_DATASET, REFERENCES
from imputune.reporting.tables import (
    Table,
    cells_table,
    imputers_table,
    protocol_table,
    references_table,
    shallow_table,
    summary_table,
    time_table,
    verdicts_table,
)


@dataclass(frozen=True)
class Comparison:
    """Rows of cells and imputers, and notes: what was left out, or read from where, and what to know of a search.

    test_to_train: test stays of a fold over its training stays.
    """

    dataset: str
    stays: int
    deaths: int
    cohort_hash: str
    test_to_train: float
    rows: tuple[Row, ...]
    imputers: tuple[ImputerRow, ...]
    notes: tuple[str, ...]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What the folds say of the paper's claims."""
        return judge(self.rows, self.test_to_train)

    @property
    def references(self) -> Mapping[str, float]:
        """Test AUCs on this dataset that are quoted of other models, by other protocols."""
        return REFERENCES if self.dataset == REFERENCE_DATASET else {}

    @property
    def title(self) -> str:
        """The dataset and its size in words."""
        return f"{self.dataset}: {self.stays:,} stays, {self.deaths:,} deaths"

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        verdicts = {"test": CITATION, "verdicts": [asdict(verdict) for verdict in self.verdicts]}
        return asdict(self) | {"claims": verdicts, "references_of_other_protocols": dict(self.references)}

    def metrics(self) -> dict[str, Any]:
        """Return the scores alone, without times and run ids: equal for equal code, data and parameters."""
        cells = {
            row.name: {
                name: round(value, 6)
                for name, value in asdict(row).items()
                if name.endswith(("_mean", "_std")) and isinstance(value, float)
            }
            for row in self.rows
        }
        imputers = {f"{row.imputer}-{row.hiding}-{row.partition}": round(row.mae_mean, 6) for row in self.imputers}
        return {"cells": cells, "imputer_mae": imputers}

    @property
    def answers(self) -> tuple[str, ...]:
        """What there is to say in a sentence: nothing, the verdicts stand in their table."""
        return ()

    def tables(self) -> list[Table]:
        """Return every table for which there is something to show."""
        found = [
            summary_table(self.dataset, self.rows),
            protocol_table(self.dataset, "frozen", self.rows),
            protocol_table(self.dataset, "unfrozen", self.rows),
            shallow_table(self.rows),
            verdicts_table(self.verdicts),
            cells_table(self.rows),
            time_table(self.rows),
            references_table() if self.references else None,
            imputers_table(self.imputers),
        ]
        return [table for table in found if table is not None]

    def to_markdown(self) -> str:
        """Return the comparison as a Markdown page."""
        notes = [f"Note: {note}." for note in self.notes]
        return "\n\n".join([f"# {self.title}", *(table.to_markdown() for table in self.tables()), *notes]) + "\n"

    def to_latex(self) -> str:
        """Return the tables for inclusion in a LaTeX document that uses booktabs."""
        return "\n".join([f"% {self.title}; needs \\usepackage{{booktabs}}", *(t.to_latex() for t in self.tables())])
