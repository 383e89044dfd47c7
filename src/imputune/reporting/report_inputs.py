"""What the report on imputers and classifiers is written from: numbers, collected by the command compare.

Letters: N stays, F folds, T hours, D variables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from imputune.data.cohort import Variable
from imputune.data.window import Window
from imputune.evaluation.comparison import ImputerComparison
from imputune.evaluation.rows import VariantRow
from imputune.settings.names import Head, ImputerName

Curves = Sequence[Sequence[float]]
"""A validation score by epoch, for each fold that trained."""


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadFindings:
    """A head's variant on one imputer: its scores, its curves of validation AUC, and its risks of the test stays.

    Shapes: outcome_N 0/1 and risk_N in [0, 1], both (N,), the test stays of all folds. Without artifacts there are no
    curves, and risks is None.
    """

    row: VariantRow
    curves: Curves = ()
    risks: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class ImputerFindings:
    """One imputer: its curves of validation MAE, the epochs its folds kept (from 1), its heads.

    example_FTD: the generated stay as its fold models imputed it, in the variables' units; None if it was not assessed,
    or artifacts lack the assessment. curves are empty if artifacts lack the imputer.
    """

    curves: Curves
    epochs_kept: Sequence[int]
    epochs: int
    heads: Mapping[Head, HeadFindings]
    example_FTD: np.ndarray | None


@dataclass(frozen=True, eq=False, kw_only=True)
class ReportInputs:
    """All that the report shows.

    seed, cohort_hash, folds_hash, extract_command and source (the tags of `tracking.provenance.source_tags`) say how to
    reproduce it. example_TD: the generated stay in the variables' units, NaN where not observed, None if nothing was
    assessed; masked_T: boolean (T,), the bins of it that were masked. window: of the cohort. earlier: the previous
    report's figures, PNG by name, shown where artifacts lack the data to redraw them.
    """

    comparison: ImputerComparison
    variables: Sequence[Variable]
    seed: int
    cohort_hash: str
    folds_hash: str
    extract_command: str
    source: Mapping[str, str]
    findings: Mapping[ImputerName, ImputerFindings]
    example_TD: np.ndarray | None
    masked_T: np.ndarray
    window: Window = field(default_factory=Window)
    earlier: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def shown(self) -> ImputerName:
        """The imputer whose classifiers are shown one by one: the first that has some."""
        return next((name for name, each in self.findings.items() if each.heads), next(iter(self.findings)))
