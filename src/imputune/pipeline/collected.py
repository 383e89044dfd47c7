"""Results of earlier commands: outputs in artifacts, read as rows from the runs that made them, and other runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from imputune.artifacts.results_files import Code
from imputune.artifacts.stage_files import RESULT, read_training
from imputune.artifacts.stage_output import MadeFrom, TrainingOutput
from imputune.artifacts.variant_file import VariantFile
from imputune.data.cohort import Cohort, outcome_hash
from imputune.errors import UserError
from imputune.evaluation.metrics import ReliabilityPoint
from imputune.evaluation.rows import SCORES, FoldScores, VariantResults, VariantRow, make_variant_row
from imputune.pipeline.blend_members import finished_members
from imputune.pipeline.calibration import calibration_of
from imputune.pipeline.project import Project
from imputune.protocol.imputers import DEFAULT_IMPUTER, known_imputer
from imputune.protocol.outcomes import DEFAULT_OUTCOME
from imputune.protocol.published import published_dataset
from imputune.protocol.variants import FIELDS, Variant
from imputune.runtime.console import counted
from imputune.runtime.experiments import other_experiment
from imputune.settings.names import ImputerName
from imputune.tracking.history import RunRecord, finished_runs
from imputune.tracking.provenance import DVC_EXPERIMENT_TAG
from imputune.tracking.store import EXPERIMENT


@dataclass(kw_only=True)
class Collected:
    """The variants of one imputer: their outputs and rows, and notes on what is skipped or read from elsewhere.

    files: each output as `VariantFile` has it.
    """

    project: Project
    cohort: Cohort
    imputer: TrainingOutput
    outputs: dict[Variant, TrainingOutput] = field(default_factory=dict)
    files: dict[Variant, VariantFile] = field(default_factory=dict)
    rows: dict[Variant, VariantRow] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> ImputerName:
        """The imputer's name."""
        return self.imputer.made_from.imputer


def finetuned_runs(project: Project) -> dict[str, RunRecord]:
    """Return the finished runs of fine-tuning on the project's outcome by id, the newest first."""
    runs = finished_runs(project.root, EXPERIMENT, "finetune", project.dataset)
    return {run.run_id: run for run in runs if run.tags.get("imputune.outcome", DEFAULT_OUTCOME) == project.outcome}


def collect(project: Project, cohort: Cohort, imputer: TrainingOutput, runs: Mapping[str, RunRecord]) -> Collected:
    """Collect the variants of a pretrained imputer from artifacts.

    A row is read from the run that made the output, or from the output if that run is gone. Outputs of other data,
    folds or another pretraining are skipped, with a note. Raises UserError for a broken output.
    """
    found = Collected(project=project, cohort=cohort, imputer=imputer)
    _read_outputs(found)
    for variant, output in found.outputs.items():
        run = runs.get(output.run_id)
        calibration = calibration_of(project, cohort, output)
        file = found.files[variant] = VariantFile.of(output, imputer, calibration, Code())
        if run is not None:
            found.rows[variant] = _row_of_run(project, run, variant, calibration)
        else:
            found.rows[variant] = row_of_file(file, "stage outputs", calibration)
            found.notes.append(
                f"{variant.label}: scores are read from artifacts, because run {output.run_id} is gone or unfinished"
            )
    return found


def add_other_runs(found: Collected, runs: Iterable[RunRecord]) -> None:
    """Add the newest run of each variant that is not in artifacts; `runs` are newest first.

    Runs that experiments of DVC made outside the project are left out, with a note. An experiment itself has its own.
    """
    skipped, experiments = 0, set[str]()
    made_from = found.imputer.made_from
    ours = (made_from.cohort_hash, found.imputer.run_id, len(found.imputer.folds), outcome_hash(found.cohort))
    for run in runs:
        variant = variant_of_run(run)
        if variant in found.rows or variant.imputer != found.name:
            continue
        data = run.tags["imputune.cohort_hash"], run.tags["imputune.imputer_run"], len(run.folds)
        theirs = (*data, run.tags.get("imputune.outcome_hash", ""))
        if theirs != ours or not all(set(SCORES) <= set(fold.metrics) for fold in run.folds):
            skipped += 1
            continue
        if experiment := other_experiment(found.project.root, run.tags.get(DVC_EXPERIMENT_TAG, "")):
            experiments.add(f"{variant.label} ({experiment})")
            continue
        found.rows[variant] = _row_of_run(found.project, run, variant, [])
        found.notes.append(
            f"{variant.label}: scores are read from its newest run {run.run_id}, because it is not in artifacts"
        )
    if experiments:
        listed = ", ".join(sorted(experiments))
        found.notes.append(f"runs of DVC experiments are left out: {listed}; `dvc exp apply` brings one here")
    if skipped:
        are = "is" if skipped == 1 else "are"
        found.notes.append(
            f"{counted(skipped, 'finished run')} of other data, folds, imputers or versions {are} skipped"
        )


def variant_of_run(run: RunRecord) -> Variant:
    """Return the variant of a run; early runs name no imputer, because CSAI was the only one."""
    imputer = known_imputer(run.tags.get("imputune.imputer", DEFAULT_IMPUTER))
    return Variant.of([run.tags[f"imputune.{name}"] for name in FIELDS], imputer)


def row_of_file(file: VariantFile, source: str, calibration: Sequence[ReliabilityPoint] | None = None) -> VariantRow:
    """Return the row of a variant's scores; `source` names where they were read. The file's calibration is default."""
    results = VariantResults(
        num_parameters=file.num_parameters,
        trainable_parameters=file.trainable_parameters,
        seconds=sum(fold.seconds for fold in file.folds),
        folds=[FoldScores.of(fold.fold, fold.scores) for fold in file.folds],
        run_id=file.run_id,
        source=source,
        calibration=file.calibration if calibration is None else calibration,
    )
    return make_variant_row(published_dataset(file.dataset, file.outcome), file.variant, results)


def _read_outputs(found: Collected) -> None:
    for path in sorted(found.project.heads_folder(found.name).glob(f"[!.]*/{RESULT}")):
        folder = path.parent
        output = read_training(folder, f"delete {folder}, or fine-tune that variant again")
        if differing := _other_origin(output.made_from, found):
            made_from = " and ".join(differing)
            found.notes.append(f"{found.name}/{folder.name} is skipped: it was made from {made_from}")
        else:
            found.outputs[output.variant] = output
            if output.variant.is_blend:
                found.notes += _blend_notes(found.project, output.made_from)


def _blend_notes(project: Project, made_from: MadeFrom) -> list[str]:
    """Say what a blend combines, or why its members are no longer those that it combined."""
    try:
        members = finished_members(project, made_from)
    except UserError as error:
        return [str(error)]
    scale, weights = (made_from.setting(f"blend.{name}") for name in ("scale", "weights"))
    labels = " and ".join(member.output.variant.label for member in members)
    return [f"blend combines {labels} ({scale}, weights {weights})"]


def _other_origin(made_from: MadeFrom, found: Collected) -> list[str]:
    """Return in words what an output was made from, if it is not the imputer in artifacts and the present labels."""
    imputer = found.imputer
    ours = imputer.made_from
    compared = {
        "other data": (made_from.cohort_hash, ours.cohort_hash),
        "other folds": (made_from.folds_hash, ours.folds_hash),
        "other labels": (made_from.outcome_hash, outcome_hash(found.cohort)),
        "other variables": (made_from.variables, ours.variables),
        "another seed": (made_from.seed, ours.seed),
        "another pretraining of the imputer": (made_from.imputer_run_id, imputer.run_id),
    }
    return [word for word, (theirs, mine) in compared.items() if theirs != mine]


def _row_of_run(project: Project, run: RunRecord, variant: Variant, calibration: list[ReliabilityPoint]) -> VariantRow:
    counts = {name: run.metrics.get(name) for name in ("num_parameters", "trainable_parameters")}
    results = VariantResults(
        **{name: None if count is None else int(count) for name, count in counts.items()},
        seconds=run.metrics["seconds"],
        folds=[FoldScores.of(fold.fold, fold.metrics) for fold in run.folds],
        run_id=run.run_id,
        source="tracked run",
        calibration=calibration,
    )
    return make_variant_row(published_dataset(project.dataset, project.outcome), variant, results)
