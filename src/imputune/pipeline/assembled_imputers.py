"""The imputers that compare --by imputer,head shows, put together from artifacts, runs and committed files."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from imputune.artifacts.imputer_file import AssessmentFile, ImputerFile
from imputune.artifacts.results_files import Code, find_results_file, read_results_file
from imputune.artifacts.stage_files import RESULT, read_assessment
from imputune.artifacts.stage_output import AssessmentOutput, Settings, TrainingOutput, differing_names
from imputune.artifacts.variant_file import VariantFile
from imputune.errors import UserError
from imputune.evaluation.assessed_imputers import AssessedImputer, summarise_imputer
from imputune.evaluation.rows import VariantRow
from imputune.pipeline.assembled import FILE_SOURCE, read_results_folder
from imputune.pipeline.collected import Collected, collect, finetuned_runs, row_of_file
from imputune.pipeline.inputs import (
    assess_settings,
    assessment_made_from,
    pretrained_imputers,
    read_imputer,
    was_pretrained,
)
from imputune.pipeline.project import DividedCohort, Project, variant_settings
from imputune.protocol.imputers import imputer_kind, order_of
from imputune.protocol.variants import SINGLE_HEADS, Variant, make_variant
from imputune.settings.imputer_sections import Ranking
from imputune.settings.names import ImputerName
from imputune.tracking.history import RunRecord

AGAIN = "pretrain it again"


@dataclass(eq=False, kw_only=True)
class ComparedImputer:
    """One imputer with its variants and its assessment, from artifacts or, where these lack it, from committed files.

    found: what artifacts have of it, None without them. rows: the variants that count, one a head; all_rows: of all
    its variants. assessed: its scores alone, None if it is not assessed; edges: borders of the groups of stays by their
    share of missing cells. assessment: what artifacts have of these scores.
    """

    file: ImputerFile
    found: Collected | None = None
    rows: dict[Variant, VariantRow] = field(default_factory=dict)
    all_rows: dict[Variant, VariantRow] = field(default_factory=dict)
    assessed: AssessedImputer | None = None
    edges: tuple[float, ...] = ()
    assessment: AssessmentOutput | None = None

    @property
    def epochs_kept(self) -> list[int]:
        """The epoch that each fold kept, counted from 1; none of an imputer that learns nothing."""
        return [fold.best_epoch + 1 for fold in self.file.folds if fold.epochs]

    def assess(self, file: AssessmentFile, ranking: Ranking) -> None:
        """Take its scores alone from an assessment."""
        self.edges = file.missing_share_edges
        self.assessed = summarise_imputer(
            imputer=file.imputer,
            ranking=ranking,
            assessment=file.assessment,
            pretraining=[(fold.seconds, fold.epochs) for fold in self.file.folds if fold.epochs],
            run_id=file.run_id,
        )


def assemble_imputers(project: Project, data: DividedCohort) -> tuple[dict[ImputerName, ComparedImputer], list[str]]:
    """Return every imputer that was pretrained on the present data and folds, and notes on them and on the others.

    Masking and scaling are those of the first. Imputers pretrained with different masking or scaling were scored on
    different values and are skipped; other differences in the settings of imputers that learn are noted.
    """
    runs = finetuned_runs(project)
    imputers: dict[ImputerName, ComparedImputer] = {}
    names, notes = _names(project)
    first: ImputerFile | None = None
    first_learning: ImputerFile | None = None
    for name in names:
        try:
            output, file = _read_imputer(project, data, name)
            if differing := _other_values(file, first or file):
                raise UserError(f"it was pretrained with other settings ({', '.join(differing)}): {AGAIN}")
        except UserError as error:
            notes.append(f"{name} is skipped: {error}")
            continue
        first = first or file
        if imputer_kind(name).family != "plain":
            first_learning = first_learning or file
            if differing := differing_names(file.settings, _shared(first_learning, file)):
                notes.append(
                    f"{name} was pretrained with other settings than {first_learning.imputer}: {', '.join(differing)}"
                )
        if also := file.settings.get("also"):
            notes.append(f"{name} was pretrained on further cohorts too: {', '.join(_cohorts(output, also))}")
        imputers[name] = ComparedImputer(file=file)
        notes += _add_artifacts(project, data, imputers[name], output, runs) if output else ()
        notes += _add_files(project, data, imputers[name])
    return imputers, notes


def _names(project: Project) -> tuple[list[ImputerName], list[str]]:
    """Return the imputers in artifacts or with a committed file, and a note on each file that cannot be read."""
    files, notes = read_results_folder(project.dataset_results_folder / "imputers", ImputerFile)
    return sorted({*pretrained_imputers(project), *(file.imputer for file in files)}, key=order_of), notes


def _read_imputer(
    project: Project, data: DividedCohort, name: ImputerName
) -> tuple[TrainingOutput | None, ImputerFile]:
    """Return an imputer's output, None where artifacts lack it, and its file; UserError if it is of other data."""
    if was_pretrained(project, name):
        output = read_imputer(project, name, AGAIN)
        data.origin.check(output.made_from, project.imputer_folder(name), AGAIN)
        return output, ImputerFile.of(output, Code())
    file = read_results_file(project.imputer_results_file(name), ImputerFile)
    if file.data != (data.origin.cohort_hash, data.origin.folds_hash, data.origin.seed):
        path = project.imputer_results_file(name).relative_to(project.root)
        raise UserError(f"{path} is of other data, other folds or another seed: {AGAIN}")
    return None, file


def _other_values(file: ImputerFile, first: ImputerFile) -> list[str]:
    """Return the settings by which two imputers were scored on different values."""
    return differing_names(file.settings, {name: first.settings[name] for name in ("masking", "scaling")})


def _shared(first: ImputerFile, other: ImputerFile) -> Settings:
    """Return the first's settings that the other depends on too, but for further cohorts."""
    return {name: value for name, value in first.settings.items() if name in other.settings and name != "also"}


def _cohorts(output: TrainingOutput | None, also: object) -> Iterator[str]:
    if output:
        yield from (f"{cohort.name} ({cohort.stays:,} stays)" for cohort in output.made_from.also)
    elif isinstance(also, dict):
        yield from also


def _add_artifacts(
    project: Project,
    data: DividedCohort,
    imputer: ComparedImputer,
    output: TrainingOutput,
    runs: Mapping[str, RunRecord],
) -> list[str]:
    """Add the variants and the assessment in artifacts; return notes on what was left out or differs."""
    name = imputer.file.imputer
    found = imputer.found = collect(project, data.cohort, output, runs)
    imputer.all_rows = dict(found.rows)
    pretrained = project.with_imputer(output.made_from.settings)
    imputer.rows = {variant: found.rows[variant] for variant in _defaults(name) if variant in found.outputs}
    notes = [*found.notes, *_settings_notes(pretrained, (found.files[variant] for variant in imputer.rows))]
    if (project.assess_folder(name) / RESULT).is_file():
        assessment = read_assessment(project.assess_folder(name), f"run `imputune assess --imputer {name} --again`")
        made_now = assessment_made_from(pretrained, data.origin, name, output.run_id)
        if differing := assessment.made_from.differences(made_now):
            notes.append(
                f"the assessment of {name} is skipped, because these differ: {', '.join(differing)}. "
                f"Run `imputune assess --imputer {name}`"
            )
        else:
            imputer.assessment = assessment
            imputer.assess(AssessmentFile.of(assessment, output, Code()), project.params.assess.ranking)
    return notes


def _add_files(project: Project, data: DividedCohort, imputer: ComparedImputer) -> list[str]:
    """Add variants and assessment from the committed files where artifacts lack them; return notes on these."""
    name = imputer.file.imputer
    pretrained = project.with_imputer(imputer.file.settings)
    stored, notes = read_results_folder(project.variant_results_folder(name), VariantFile)
    labels = data.head_origin.outcome, data.head_origin.outcome_hash
    fitting = [file for file in stored if file.is_on(imputer.file) and file.labels == labels]
    files = {file.variant: file for file in fitting if file.variant not in imputer.all_rows}
    imputer.all_rows |= {variant: row_of_file(file, FILE_SOURCE) for variant, file in files.items()}
    imputer.rows = {each: imputer.all_rows[each] for each in _defaults(name) if each in {*imputer.rows, *files}}
    added = [files[variant] for variant in imputer.rows if variant in files]
    notes += _settings_notes(pretrained, added)
    what: list[str] = [file.variant.head for file in added]
    if imputer.assessed is None:
        file = find_results_file(project.assessment_results_file(name), AssessmentFile)
        if file and file.is_of(imputer.file) and not differing_names(file.settings, assess_settings(pretrained)):
            imputer.assess(file, project.params.assess.ranking)
            what.append("assessment")
    if what:
        results = project.results_folder.relative_to(project.root)
        notes.append(f"{name}: read from the files in {results}, without curves: {', '.join(what)}")
    return notes


def _defaults(imputer: ImputerName) -> list[Variant]:
    return [make_variant(head, imputer=imputer) for head in SINGLE_HEADS]


def _settings_notes(project: Project, files: Iterable[VariantFile]) -> Iterator[str]:
    for file in files:
        if differing := differing_names(file.settings, variant_settings(project, file.variant)):
            yield f"{file.variant.label}: these settings now differ in params.yaml: {', '.join(differing)}"
