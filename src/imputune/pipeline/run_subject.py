"""What a command's run is about: its name, description, columns and cohorts in the MLflow UI."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import JsonValue

from imputune.artifacts.imputer_file import ImputerFile
from imputune.artifacts.stage_output import MadeFrom
from imputune.data.cohort import Cohort, read_window
from imputune.data.window import Window
from imputune.pipeline.project import DividedCohort, Project
from imputune.protocol.outcome_words import outcome_words
from imputune.protocol.outcomes import DEFAULT_OUTCOME
from imputune.protocol.rival_choice import RIVALS
from imputune.protocol.rivals import Rival
from imputune.protocol.variants import Variant
from imputune.registry.version import Version
from imputune.reporting.run_notes import imputer_sentence, repeat_note, run_name, variant_name, variant_sentence
from imputune.runtime.console import counted
from imputune.tracking.cohort_input import CohortInput
from imputune.tracking.run_details import RunDetails

TOLD_OF_SOURCE = ("command", "version", "sets", "exclusions", "records_read", "stays_read")
"""What a run tells of a cohort's extraction: no more than these, because a dataset may add keys of its own."""


@dataclass(frozen=True, kw_only=True)
class RunSubject:
    """What a run is about.

    doing: a sentence, Markdown. options: of the command, beside the dataset, to run it again. cohorts: those that the
    run uses, the first of them the one whose hash the run carries. columns: beside the dataset, parameters by which
    people filter runs.
    """

    command: str
    name: str
    doing: str
    cohorts: Sequence[CohortInput]
    options: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def cohort_hash(self) -> str:
        """The hash of the cohort."""
        return self.cohorts[0].cohort_hash

    def details(self, dataset: str, parent: str = "") -> RunDetails:
        """Return what the tracking store is told."""
        return RunDetails(
            name=self.name,
            doing=self.doing,
            repeat=repeat_note(self.command, dataset, self.options),
            columns={"dataset": dataset, **self.columns},
            cohorts=self.cohorts,
            parent=parent,
        )


def cohort_input(
    name: str, cohort: Cohort, cohort_hash: str, context: Literal["training", "evaluation"]
) -> CohortInput:
    """Return what a run tells of a cohort: counts and how it was extracted, no record."""
    stays, _, variables = cohort.values_NTD.shape
    size = {"stays": stays, **_lengths(cohort.window), "variables": variables}
    if labelled := int(cohort.labelled_N.sum()):  # a further cohort is read without its outcomes
        size[cohort.outcome] = cohort.events
        size |= {"labelled": labelled} if labelled < stays else {}
    source: dict[str, JsonValue] = {key: cohort.source[key] for key in TOLD_OF_SOURCE if key in cohort.source}
    return CohortInput(
        name=name,
        cohort_hash=cohort_hash,
        context=context,
        size=size,
        source=source,
        variables=[f"{variable.name} ({variable.unit})" for variable in cohort.variables],
    )


def divided_input(data: DividedCohort, context: Literal["training", "evaluation"]) -> CohortInput:
    """Return what a run tells of the project's own cohort."""
    return cohort_input(data.origin.dataset, data.cohort, data.origin.cohort_hash, context)


def outcome_tags(made_from: MadeFrom) -> dict[str, str]:
    """Return the outcome of heads and the hash of its labels as tags.

    in_hospital_death has no tag, nor have the runs and versions of earlier versions, which knew this outcome alone. The
    first outcome of a cohort has no hash.
    """
    tags = {} if made_from.outcome == DEFAULT_OUTCOME else {"outcome": made_from.outcome}
    return tags | ({"outcome_hash": made_from.outcome_hash} if made_from.outcome_hash else {})


def _outcome_name(made_from: MadeFrom) -> str:
    """Return the outcome for names of runs, "" for in_hospital_death."""
    return "" if made_from.outcome == DEFAULT_OUTCOME else made_from.outcome


def training_subject(made_from: MadeFrom, cohorts: Sequence[CohortInput], command: str = "") -> RunSubject:
    """Return what the run of a stage is about; `command`: another command that tracks what the stage trained."""
    stage, imputer, variant = made_from.stage, made_from.imputer, made_from.variant
    columns = {**variant.tags(), "outcome": made_from.outcome} if variant else {"imputer": imputer}
    if variant is None:
        name = run_name("assess", imputer) if stage == "assess" else run_name(imputer, stage)
        doing = imputer_sentence(imputer, made_from.dataset, assessed=stage == "assess")
    else:
        name = run_name(stage if stage == "overfit" else "", variant_name(variant), _outcome_name(made_from))
        predicted = outcome_words(made_from.outcome).label
        doing = variant_sentence(variant, made_from.dataset, predicted, early_stopping=stage != "overfit")
    if command:
        return RunSubject(
            command=command,
            name=run_name(command, name),
            doing=f"Registers what an earlier run trained. {doing}",
            cohorts=cohorts,
            columns=columns,
        )
    return RunSubject(
        command=stage, name=name, doing=doing, cohorts=cohorts, options=_options(made_from), columns=columns
    )


def model_subject(version: Version, command: str, cohort: CohortInput, what: str) -> RunSubject:
    """Return what a run that measures or recalibrates a registered version on a cohort is about."""
    return RunSubject(
        command=command,
        name=run_name(command, f"version {version.number}", cohort.name),
        doing=f"{what} version {version.number} ({version.variant}) of **{version.name}** on **{cohort.name}**.",
        cohorts=[cohort],
        options={"model": str(version.number), "data": "FOLDER"},  # the path is not recorded
    )


def _lengths(window: Window) -> dict[str, int]:
    """Return the lengths of a window by name; bins of an hour are not told."""
    return {"hours": window.hours} | ({} if window.bin_hours == 1 else {"bin_hours": window.bin_hours})


def project_subject(project: Project, command: str, doing: str, cohort: CohortInput) -> RunSubject:
    """Return what the run of a command on a whole dataset is about."""
    return RunSubject(command=command, name=run_name(command, project.dataset), doing=doing, cohorts=[cohort])


def comparison_subject(project: Project, imputer: ImputerFile) -> RunSubject:
    """Return what a comparison of variants is about; `imputer`: the default one, with the counts of its cohort."""
    counts = {"stays": imputer.stays, "variables": imputer.variables, imputer.outcome: imputer.events}
    size = {**_lengths(read_window(project.cohort_folder)), **counts}
    cohort = CohortInput(
        name=project.dataset, cohort_hash=imputer.cohort_hash, context="evaluation", size=size, source={}
    )
    words = outcome_words(project.outcome)
    doing = f"Compares the fine-tuned variants of **{project.dataset}** ({words.label})."
    return for_outcome(project, project_subject(project, "compare", doing, cohort))


def matrix_subject(project: Project, data: DividedCohort) -> RunSubject:
    """Return what a comparison of imputers with heads is about."""
    doing = f"Compares imputers, and imputers with heads, on **{project.dataset}**; the artifacts have the report."
    subject = project_subject(project, "compare", doing, divided_input(data, "evaluation"))
    named = replace(subject, name=run_name(subject.name, "imputers"), options={"by": "imputer,head"})
    return for_outcome(project, named)


def grid_subject(
    project: Project, cohort: CohortInput, variants: Sequence[Variant], options: Mapping[str, str]
) -> RunSubject:
    """Return what the run of a grid is about: variants, and the options of grid that choose them and their folds."""
    doing = (
        f"Fine-tunes {counted(len(variants), 'variant')} on folds of **{project.dataset}**. Each has a run of its own, "
        "nested in this one."
    )
    return for_outcome(project, replace(project_subject(project, "grid", doing, cohort), options=options))


def rivals_subject(
    project: Project, cohort: CohortInput, rivals: Sequence[Rival], options: Mapping[str, str]
) -> RunSubject:
    """Return what the run of the command rivals is about; the options are those that choose them and their folds."""
    doing = (
        f"Trains {counted(len(rivals), 'rival')} end to end on folds of **{project.dataset}**. Each has a run of its "
        "own, nested in this one."
    )
    return for_outcome(project, replace(project_subject(project, "rivals", doing, cohort), options=options))


def rival_subject(made_from: MadeFrom, cohort: CohortInput) -> RunSubject:
    """Return what the run of a rival is about."""
    rival = made_from.rival
    if rival is None:
        raise ValueError(f"output of stage {made_from.stage} has no rival")
    kind, predicted = RIVALS[rival.name], outcome_words(made_from.outcome).label
    reads = "values, mask, hours and static facts" if rival.reads_static else "values, mask and hours"
    outcome = {"outcome": _outcome_name(made_from)} if _outcome_name(made_from) else {}
    return RunSubject(
        command="rivals",
        name=run_name("rival", kind.label, rival.input, _outcome_name(made_from)),
        doing=f"Trains **{kind.label}** ({kind.paper}) end to end on {reads}. Outcome: {predicted}. A measurement: "
        "rivals are not registered.",
        cohorts=[cohort],
        options={"rival": rival.name, "input": rival.input, **outcome},
        columns={"rival": rival.name, "input": rival.input, "outcome": made_from.outcome},
    )


def for_outcome(project: Project, subject: RunSubject) -> RunSubject:
    """Return a subject that shows the project's outcome: in its columns, and in name and options if it is another."""
    return replace(
        subject,
        name=run_name(subject.name, *project.outcome_words),
        columns={**subject.columns, "outcome": project.outcome},
        options={**subject.options, "outcome": "".join(project.outcome_words)},
    )


def _options(made_from: MadeFrom) -> dict[str, str]:
    """Return the options with which a stage's command makes the same again."""
    variant, imputer = made_from.variant, made_from.imputer
    if variant is None:
        return {"imputer": imputer}
    options = {"head": variant.head, "mode": variant.mode, "input": variant.input, "schedule": variant.schedule}
    named = {"outcome": _outcome_name(made_from)} if _outcome_name(made_from) else {}
    if variant.is_blend:
        return {"head": variant.head, **named}
    if not variant.is_neural:
        del options["mode"], options["schedule"]
    if made_from.stage == "overfit":
        return options | {"epochs": str(made_from.number("budget.frozen_epochs"))} | named
    return options | {"imputer": imputer} | named
