"""The variants that compare shows, put together from artifacts, runs and the committed files of results/."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imputune.artifacts.imputer_file import ImputerFile
from imputune.artifacts.results_files import Code, File, read_results_file
from imputune.artifacts.stage_files import RESULT
from imputune.artifacts.stage_output import TrainingOutput, differing_names
from imputune.artifacts.variant_file import VariantFile
from imputune.data.cohort import Cohort, cohort_hash, outcome_hash, read_cohort
from imputune.data.folds import folds_hash
from imputune.errors import UserError
from imputune.evaluation.rows import VariantRow
from imputune.pipeline.collected import Collected, add_other_runs, collect, finetuned_runs, row_of_file
from imputune.pipeline.inputs import pretrain_first, read_imputer, was_pretrained
from imputune.pipeline.project import Project
from imputune.protocol.imputers import DEFAULT_IMPUTER, is_own, known_imputer
from imputune.protocol.variants import Variant, base_of
from imputune.runtime.console import counted
from imputune.settings.names import ImputerName

FILE_SOURCE = "results file"
"""What a row that was read from the committed files has as its source."""


@dataclass(kw_only=True)
class Assembled:
    """The variants on CSAI, and on CSAI pretrained on more stays.

    imputer: CSAI itself, its data and its errors. output: the same in artifacts; None if only the committed files are
    read. cohort: with the project's outcome; None if data/ lacks it. outputs: the variants in artifacts. files: what
    their outputs or the committed files tell; a variant of which only a run is left has none. rows: the scores. notes:
    what is skipped or read from elsewhere.
    """

    project: Project
    imputer: ImputerFile
    output: TrainingOutput | None
    cohort: Cohort | None = None
    outputs: dict[Variant, TrainingOutput] = field(default_factory=dict)
    files: dict[Variant, VariantFile] = field(default_factory=dict)
    rows: dict[Variant, VariantRow] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """The numbers of labelled stays and of events: of the cohort, or of a committed file without it."""
        if self.cohort is not None:
            return int(self.cohort.labelled_N.sum()), self.cohort.events
        file = next(iter(self.files.values()), self.imputer)
        return file.stays, file.events

    def is_from_file(self, variant: Variant) -> bool:
        """Say whether a variant's scores were read from its committed file."""
        return self.rows[variant].source == FILE_SOURCE


def read_default_imputer(project: Project) -> Assembled:
    """Read CSAI from artifacts, or from its committed file if artifacts or the cohort are missing; no variants yet.

    Raises UserError when it was not pretrained and no file tells of it, and when it is of other data or folds than the
    project now has.
    """
    dataset, path = project.dataset, project.imputer_results_file(DEFAULT_IMPUTER)
    is_pretrained, has_data = was_pretrained(project, DEFAULT_IMPUTER), project.cohort_folder.is_dir()
    if (is_pretrained and has_data) or not path.is_file():
        return _from_artifacts(project)
    remedy = pretrain_first(dataset, DEFAULT_IMPUTER)
    try:
        imputer = read_results_file(path, ImputerFile)
    except UserError as error:
        raise UserError(f"{error}: restore it with git, or {remedy}") from None
    results = project.dataset_results_folder.relative_to(project.root)
    if has_data and imputer.cohort_hash != cohort_hash(project.cohort_folder):
        raise UserError(f"{results} is of other data than {project.cohort_folder}: {remedy}")
    if project.folds_file.is_file() and imputer.folds_hash != folds_hash(project.folds_file):
        raise UserError(f"{results} is of other folds than {project.folds_file}: {remedy}")
    _check_protocol(project, imputer)
    why = f"artifacts/{dataset} has no pretrained imputer" if has_data else f"data/{dataset} is missing"
    note = f"{why}, so scores are read from the files in {results} alone"
    cohort = read_cohort(project.cohort_folder).with_outcome(project.outcome) if has_data else None
    return Assembled(project=project, imputer=imputer, output=None, cohort=cohort, notes=[note])


def assemble(found: Assembled) -> None:
    """Add the variants: from artifacts, else from runs, else from the committed files.

    Variants that are not of the data, folds and seed of CSAI, and of their imputer as it was pretrained, are skipped,
    and the notes say so. Raises UserError for a broken output.
    """
    stored = _read_files(found, found.project.dataset_results_folder / "imputers", ImputerFile)
    imputers = {file.imputer: file for file in stored if is_own(file.imputer) and file.data == found.imputer.data}
    imputers[DEFAULT_IMPUTER] = found.imputer
    if found.output is not None and (cohort := found.cohort) is not None:
        runs = finetuned_runs(found.project)
        for output in (found.output, *_outputs_on_more_stays(found)):
            imputers[output.made_from.imputer] = ImputerFile.of(output, Code())
            collected = collect(found.project, cohort, output, runs)
            add_other_runs(collected, runs.values())
            _add_collected(found, collected)
    _add_files(found, imputers)
    found.notes += _pretraining_notes(found.files)
    for name, file in imputers.items():
        if any(name == variant.imputer for variant in found.rows) and (
            differing := differing_names(file.settings, found.imputer.settings)
        ):
            found.notes.append(
                f"{name} was pretrained with other settings than {DEFAULT_IMPUTER} ({', '.join(differing)}), so what "
                "extra stays add in the table of ingredients also shows this difference"
            )


def _from_artifacts(project: Project) -> Assembled:
    dataset = project.dataset
    remedy = pretrain_first(dataset, DEFAULT_IMPUTER)
    output = read_imputer(project, DEFAULT_IMPUTER, remedy)
    digest = cohort_hash(project.cohort_folder)
    if output.made_from.cohort_hash != digest:
        again = f"run `imputune folds {dataset}`, then `imputune pretrain {dataset}` (or `dvc repro`)"
        raise UserError(f"the imputer in artifacts was trained on other data than {project.cohort_folder}: {again}")
    if project.folds_file.is_file() and output.made_from.folds_hash != folds_hash(project.folds_file):
        raise UserError(f"the imputer in artifacts was trained on other folds than {project.folds_file}: {remedy}")
    imputer = ImputerFile.of(output, Code())
    _check_protocol(project, imputer)
    cohort = read_cohort(project.cohort_folder).with_outcome(project.outcome)
    return Assembled(project=project, imputer=imputer, output=output, cohort=cohort)


def _check_protocol(project: Project, imputer: ImputerFile) -> None:
    """Raise UserError if the imputer is of another protocol than params.yaml now has: no table mixes protocols."""
    if imputer.division.folder != project.division.folder:
        raise UserError(
            f"{DEFAULT_IMPUTER} was pretrained by another protocol ({imputer.division.label}) than params.yaml now has "
            f"({project.division.label}), and a table has one protocol: run `imputune folds {project.dataset}`, then "
            f"`imputune pretrain {project.dataset}` (or `dvc repro`), or set folds in params.yaml back"
        )


def _outputs_on_more_stays(found: Assembled) -> list[TrainingOutput]:
    """Return CSAI pretrained on more stays, from artifacts; of other data it is skipped with a note."""
    outputs = []
    for path in sorted((found.project.artifacts_folder / "imputers").glob(f"[!.]*/{RESULT}")):
        name = path.parent.name
        if not is_own(name):
            continue
        try:
            output = read_imputer(found.project, known_imputer(name), "pretrain it again")
        except UserError as error:
            found.notes.append(f"{name} is skipped: {error}")
            continue
        if ImputerFile.of(output, Code()).data == found.imputer.data:
            outputs.append(output)
        else:
            found.notes.append(f"{name} is skipped: it was made from other data, folds or another seed")
    return outputs


def _add_collected(found: Assembled, collected: Collected) -> None:
    found.outputs |= collected.outputs
    found.files |= collected.files
    found.rows |= collected.rows
    found.notes += collected.notes


def _add_files(found: Assembled, imputers: Mapping[ImputerName, ImputerFile]) -> None:
    """Add the variants that are neither in artifacts nor among the runs, and count them in a note."""
    results = found.project.results_folder.relative_to(found.project.root)
    skipped = 0
    added: list[VariantFile] = []
    for folder in _folders(found.project.results_folder / "variants"):
        for file in _read_files(found, folder, VariantFile):
            if file.variant in found.rows:
                continue
            imputer = imputers.get(file.imputer)
            labels = found.project.outcome, outcome_hash(found.cohort) if found.cohort else file.outcome_hash
            if imputer is None or not file.is_on(imputer) or file.labels != labels:
                skipped += 1
                continue
            found.files[file.variant] = file
            found.rows[file.variant] = row_of_file(file, FILE_SOURCE)
            added.append(file)
    if added:
        commits = sorted({file.code.commit[:8] for file in added if file.code.commit})
        made_by = f" (made by commit {', '.join(commits)})" if commits else ""
        found.notes.append(
            f"{counted(len(added), 'variant')} not in artifacts: scores are read from the files in "
            f"{results}/variants{made_by}"
        )
    if skipped:
        found.notes.append(
            f"{counted(skipped, 'file')} in {results}/variants of other data, labels, folds, seeds or settings of "
            "the imputer skipped"
        )


def _pretraining_notes(files: Mapping[Variant, VariantFile]) -> Iterator[str]:
    """Say where variants of one imputer were trained on several pretrainings of it."""
    runs: dict[ImputerName, set[str]] = {}
    for variant, file in files.items():
        if not variant.is_blend and base_of(variant.input) != "summary":
            runs.setdefault(variant.imputer, set()).add(file.imputer_run_id)
    for name, pretrained in runs.items():
        if len(pretrained) > 1:
            yield (
                f"the variants on {name} come from {len(pretrained)} pretrainings with the same settings. On different "
                "machines, or by different versions, their weights differ by rounding: small differences between "
                "variants may come from this"
            )


def _folders(folder: Path) -> list[Path]:
    """Return the folders of the imputers whose variants are compared."""
    return [path for path in sorted(folder.glob("[!.]*")) if path.name == DEFAULT_IMPUTER or is_own(path.name)]


def read_results_folder(folder: Path, kind: type[File]) -> tuple[list[File], list[str]]:
    """Return the committed files in a folder, and a note on each one that cannot be read."""
    files: list[File] = []
    notes: list[str] = []
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            files.append(read_results_file(path, kind))
        except UserError as error:
            notes.append(f"{error}: it is skipped. Restore it with git, or make it anew")
    return files, notes


def _read_files(found: Assembled, folder: Path, kind: type[File]) -> list[File]:
    """Read the files of a folder; one that cannot be read is named in a note."""
    files, notes = read_results_folder(folder, kind)
    found.notes += notes
    return files
