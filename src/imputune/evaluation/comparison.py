"""Everything that `compare` finds on a dataset, as numbers: variants, and imputers with classifiers."""

from collections.abc import Sequence
from functools import cached_property

from pydantic import JsonValue

from imputune.evaluation.ablation import Ablation, ablations
from imputune.evaluation.assessed_imputers import AssessedImputer
from imputune.evaluation.rival_rows import RivalComparison
from imputune.evaluation.rows import ImputerRow, VariantRow
from imputune.evaluation.significance import CITATION
from imputune.evaluation.stored import Stored, rounded
from imputune.evaluation.variance import Decomposition, decompose
from imputune.evaluation.verdicts import Verdict, judge
from imputune.protocol.division import Division
from imputune.protocol.imputers import CONTROLS, imputer_kind, is_own
from imputune.protocol.outcomes import DEFAULT_OUTCOME
from imputune.protocol.published import published_dataset, quoted_references

PLACES = 6  # decimal places of imputers.json
METRIC_PLACES = 4  # of what `dvc metrics` shows, so that a table fits a terminal
MATRIX_FIELDS = {
    "imputer",
    "head",
    "mode",
    "input",
    "schedule",
    "num_parameters",
    "val_auc_mean",
    "val_auc_std",
    "test_auc_mean",
    "test_auc_std",
    "seconds",
    "run_id",
    "source",
    "folds",
}


class Claims(Stored):
    """The verdicts on the paper's claims, and the test they come from."""

    test: str
    verdicts: tuple[Verdict, ...]


class Gains(Stored):
    """What each ingredient adds, and the test and intervals by which it is measured."""

    test: str
    pairs: tuple[Ablation, ...]


class VariantComparison(Stored):
    """The fine-tuned variants of a dataset.

    division: the protocol by which the stays were divided. imputers: errors of CSAI and of plain imputers beside it.
    notes: what was skipped, what was read from where, and what to know of the searches. rivals: complex models beside
    our heads; None if none was trained.
    """

    dataset: str
    outcome: str = DEFAULT_OUTCOME
    stays: int
    events: int
    cohort_hash: str
    division: Division
    rows: tuple[VariantRow, ...]
    imputers: tuple[ImputerRow, ...]
    notes: tuple[str, ...]
    rivals: RivalComparison | None = None

    @property
    def protocol_rows(self) -> tuple[VariantRow, ...]:
        """The variants of the paper's protocol."""
        return tuple(row for row in self.rows if row.is_of_protocol)

    @property
    def beyond_rows(self) -> tuple[VariantRow, ...]:
        """The other variants, the best validation AUC first."""
        beyond = [row for row in self.rows if not row.is_of_protocol]
        return tuple(sorted(beyond, key=lambda row: -row.val_auc_mean))

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What our folds say of the paper's claims, which are on in-hospital death."""
        return judge(self.protocol_rows, self.division.test_to_train) if self.outcome == DEFAULT_OUTCOME else ()

    @cached_property
    def ablations(self) -> tuple[Ablation, ...]:
        """What each ingredient adds."""
        return ablations(self.rows, self.division.test_to_train)

    @property
    def references(self) -> dict[str, float]:
        """Test AUCs of other models on this dataset, by other protocols."""
        return quoted_references(self.dataset, self.outcome)

    @property
    def published_dataset(self) -> str:
        """The dataset under which the paper's figures stand, "" if it has none of the outcome."""
        return published_dataset(self.dataset, self.outcome)

    def as_json(self) -> dict[str, JsonValue]:
        """Return everything as plain values: the content of results.json."""
        claims = Claims(test=CITATION, verdicts=self.verdicts)
        content = self.model_dump(mode="json", exclude=None if self.rivals else {"rivals"})
        return content | {
            "test_to_train": self.division.test_to_train,
            "claims": claims.model_dump(mode="json"),
            "ablation": Gains(test=CITATION, pairs=self.ablations).model_dump(mode="json"),
            "references_of_other_protocols": dict(self.references),
        }

    def metrics(self) -> dict[str, dict[str, float]]:
        """Return each variant's main scores by its name, which `dvc metrics` shows: means over the folds.

        AUC, AUPRC and ECE (the calibration error) are of test stays, val_AUC is of validation stays. Equal code, data
        and parameters give equal metrics.
        """
        return {
            row.short_name: {
                "AUC": round(row.test_auc_mean, METRIC_PLACES),
                "AUPRC": round(row.test_auprc_mean, METRIC_PLACES),
                "ECE": round(row.test_calibration_error_mean, METRIC_PLACES),
                "val_AUC": round(row.val_auc_mean, METRIC_PLACES),
            }
            for row in self.rows
        }


class ImputerComparison(Stored):
    """Imputers and classifiers of a dataset.

    division: the protocol by which the stays were divided. imputers: each imputer alone. edges: the limits of the
    groups of stays by their share of missing cells, lowest first. matrix: each imputer with each head. protocol: all
    variants of the paper's protocol, for its claims. notes: what was skipped, and why. rivals: complex models beside
    heads on CSAI; None if none was trained.
    """

    dataset: str
    outcome: str = DEFAULT_OUTCOME
    stays: int
    events: int
    cohort_hash: str
    division: Division
    imputers: tuple[AssessedImputer, ...]
    edges: tuple[float, ...]
    matrix: tuple[VariantRow, ...]
    protocol: tuple[VariantRow, ...]
    notes: tuple[str, ...]
    rivals: RivalComparison | None = None

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What our folds say of the paper's claims, which are on in-hospital death."""
        return judge(self.protocol, self.division.test_to_train) if self.outcome == DEFAULT_OUTCOME else ()

    @cached_property
    def decomposition(self) -> Decomposition | None:
        """Where the variance of test AUC lies, over all imputers."""
        return decompose(self.matrix)

    @cached_property
    def decomposition_without_controls(self) -> Decomposition | None:
        """The same without the controls."""
        return decompose(without_controls(self.matrix))

    @cached_property
    def decomposition_of_learned(self) -> Decomposition | None:
        """The same over the imputers that learn, with the heads that are analysed without controls."""
        found = self.decomposition_without_controls
        if found is None:
            return None
        analysed = [row for row in self.matrix if row.imputer in found.imputers and row.head in found.heads]
        return decompose(learned(analysed))

    def as_json(self, answers: Sequence[str]) -> dict[str, JsonValue]:
        """Return everything as plain values, rounded to six places: the content of imputers.json.

        answers: the sentences of `reporting.comparison.imputer_answers`.
        """
        content: dict[str, JsonValue] = {
            "dataset": self.dataset,
            "outcome": self.outcome,
            "stays": self.stays,
            "events": self.events,
            "cohort_hash": self.cohort_hash,
            "division": self.division.model_dump(mode="json"),
            "answers": list(answers),
            "imputers": [each.model_dump(mode="json") for each in self.imputers],
            "missing_share_edges": list(self.edges),
            "matrix": [row.model_dump(mode="json", include=MATRIX_FIELDS) for row in self.matrix],
            "decomposition": _plain(self.decomposition),
            "decomposition_without_controls": _plain(self.decomposition_without_controls),
            "decomposition_of_learned": _plain(self.decomposition_of_learned),
            "notes": list(self.notes),
        }
        if self.rivals is not None:
            content["rivals"] = self.rivals.model_dump(mode="json")
        return {name: rounded(value, PLACES) for name, value in content.items()}


def without_controls(rows: Sequence[VariantRow]) -> list[VariantRow]:
    """Return the rows of imputers that are no controls, and that learned from no further cohort."""
    return [row for row in rows if row.imputer not in CONTROLS and not is_own(row.imputer)]


def learned(rows: Sequence[VariantRow]) -> list[VariantRow]:
    """Return the rows of imputers that learn: neither controls nor plain rules."""
    return [row for row in without_controls(rows) if imputer_kind(row.imputer).family != "plain"]


def _plain(found: Decomposition | None) -> JsonValue:
    return None if found is None else found.model_dump(mode="json")
