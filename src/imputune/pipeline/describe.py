"""The command describe: what a cohort folder holds, as facts or as a data card."""

from pathlib import Path

import numpy as np

from imputune.data.cohort import Cohort, cohort_hash, read_cohort
from imputune.data.cohort_facts import CohortFacts, describe
from imputune.errors import UserError
from imputune.evaluation.small_groups import ShownSubgroups
from imputune.pipeline.cohort_cards import card_cohort
from imputune.pipeline.project import Project, read_divided_cohort
from imputune.protocol.division import Division
from imputune.reporting.card_scores import group_name
from imputune.reporting.data_card import DataCard, GroupSize, KnownFact, MeasuredVariable


def run_describe(folder: Path, outcome: str = "") -> CohortFacts:
    """Return the facts of a cohort, with one of its outcomes chosen ("": the first).

    Raises UserError, with the remedy, when the folder is missing or malformed, or the cohort lacks the outcome.
    """
    return describe(_read(folder, outcome))


def run_data_card(folder: Path, outcome: str = "") -> str:
    """Return the data card of a cohort as Markdown; see `run_describe`."""
    cohort = _read(folder, outcome)
    stays, bins, variables = cohort.values_NTD.shape
    observed_ND = cohort.observed_bins_ND
    facts = describe(cohort)
    bins_D, stays_D = observed_ND.sum(axis=0) / (stays * bins), (observed_ND > 0).mean(axis=0)
    splits, why_no_splits, division = _splits(folder)
    labelled = cohort.labelled()
    groups = ShownSubgroups.of(labelled.static, labelled.outcome_N)
    card = DataCard(
        dataset=cohort.dataset,
        cohort=card_cohort(cohort, folder, cohort_hash(folder)),
        observed=float(observed_ND.sum() / (stays * bins * variables)),
        read={name: count for name, count in cohort.source.items() if isinstance(count, int)},
        variables=[
            MeasuredVariable(variable=variable, bins=float(in_bins), stays=float(in_stays))
            for variable, in_bins, in_stays in zip(cohort.variables, bins_D, stays_D, strict=True)
        ],
        facts=[
            KnownFact(fact=fact, stays=float(fact.is_known(cohort.static[fact.name].to_numpy(np.float64)).mean()))
            for fact in cohort.static_variables
        ],
        splits=splits,
        why_no_splits=why_no_splits,
        division=division,
        groups=[
            _size(labelled, group_name(each.group, each.level), each.member_N, told) for each, told in groups.shown
        ],
        some_left_out=groups.some_left_out,
        further_outcomes={name: each for name, each in facts.outcomes.items() if name != cohort.outcome},
        has_subjects=cohort.subject_ids_N is not None,
        window=cohort.window,
    )
    return card.to_markdown()


def _read(folder: Path, outcome: str) -> Cohort:
    cohort = read_cohort(folder)
    return cohort.with_outcome(outcome) if outcome else cohort


def _size(cohort: Cohort, name: str, member_N: np.ndarray, told: bool) -> GroupSize:
    stays, events = int(member_N.sum()), int(cohort.outcome_N[member_N].sum())
    return GroupSize(name=name, stays=stays if told else None, events=events if told else None)


def drawn_protocol(folder: Path) -> str:
    """Return by which protocol the project divides a cohort's stays, in words; "" if there are no folds to be read."""
    *_, division = _splits(folder)
    return "" if division is None else division.label


def _splits(folder: Path) -> tuple[list[tuple[int, int, int]], str, Division | None]:
    """Return the sizes of each fold's splits, if the project has folds of this cohort; if it cannot read them, why.

    The protocol is that of params.yaml; None if there are no folds.
    """
    here = folder.resolve()
    root = here.parent.parent  # of a folder just below /, this is /
    if here.parent.name != "data" or not (root / "artifacts" / here.name / "folds.json").is_file():
        return [], "", None
    try:
        project = Project.open(root, here.name, None)
        folds = read_divided_cohort(project).folds
    except UserError as error:
        return [], str(error), None
    return [(len(fold.train), len(fold.validation), len(fold.test)) for fold in folds], "", project.division
