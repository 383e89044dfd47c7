"""The command compare --by imputer,head: collect all imputers, compute what explains the scores, write the report."""

import json
from collections.abc import Iterator, Mapping

from imputune.artifacts.stage_files import RESULT, read_assessment
from imputune.artifacts.stage_output import MadeFrom, Settings, TrainingOutput, differing_names
from imputune.errors import UserError
from imputune.evaluation.assessed_imputers import summarise_imputer
from imputune.evaluation.comparison import ImputerComparison
from imputune.evaluation.rows import VariantRow
from imputune.evaluation.significance import test_to_train
from imputune.evaluation.variance import decompose
from imputune.files import replace_bytes, replace_text
from imputune.pipeline.collected import collect, finetuned_runs
from imputune.pipeline.inputs import assessment_made_from, pretrained_imputers, read_imputer
from imputune.pipeline.project import DividedCohort, Project, read_divided_cohort, variant_settings
from imputune.pipeline.report_material import ComparedImputer, report_inputs
from imputune.pipeline.run_subject import matrix_subject
from imputune.pipeline.tracked import track_if_allowed
from imputune.protocol.imputers import DEFAULT_IMPUTER, imputer_kind
from imputune.protocol.variants import SINGLE_HEADS, make_variant
from imputune.reporting.comparison import imputer_answers
from imputune.reporting.report_sections import build_report
from imputune.reporting.run_notes import rows_result
from imputune.settings.names import ImputerName
from imputune.tracking.history import RunRecord

AGAIN = "pretrain it again"
ComparedImputers = Mapping[ImputerName, ComparedImputer]


def run_compare_imputers(project: Project) -> ImputerComparison:
    """Compare imputers and heads, write imputers.json and the report, track it; return the comparison.

    Without permission to write in the project, nothing is written or tracked.

    Results from other data, folds or another pretraining are skipped, and the notes say so. Raises UserError when no
    imputer was pretrained, or nothing is fine-tuned or assessed.
    """
    data = read_divided_cohort(project)
    imputers, notes = _collect(project, data)
    if not any(each.variants or each.assessment for each in imputers.values()):
        why = f" ({'; '.join(notes)})" if notes else ""
        raise UserError(
            f"nothing is compared on {project.dataset} yet{why}: run `imputune grid {project.dataset} --imputer all` "
            f"and `imputune assess {project.dataset}` first"
        )
    comparison = _compare(project, data, imputers, notes)
    settings: Settings = {"by": "imputer,head"}
    with track_if_allowed(project, matrix_subject(project, data), settings=settings) as run:
        if run is None:
            return comparison
        report = build_report(report_inputs(data, comparison, imputers, run.source))
        content = comparison.as_json(imputer_answers(comparison))
        pages = {"report.html": report.to_html(), "report.md": report.to_markdown("report")}
        _write(project, {"imputers.json": json.dumps(content, indent=1) + "\n", **pages}, report.files())
        run.log_text(pages["report.html"], "report.html")
        run.log_text(report.to_markdown("figures"), "report.md")
        run.describe("\n\n".join([*imputer_answers(comparison), rows_result(comparison.matrix)]))
        run.log_dict(content, "imputers.json")
        for each in report.figures():
            run.log_picture(each.png, f"figures/{each.name}.png")
    return comparison


def _collect(project: Project, data: DividedCohort) -> tuple[dict[ImputerName, ComparedImputer], list[str]]:
    """Return every imputer that was pretrained on the present data and folds, and notes on them and on the others.

    Masking and scaling are those of the first. Imputers pretrained with different masking or scaling were scored on
    different values and are skipped; other differences in the settings of imputers that learn are noted.
    """
    runs = finetuned_runs(project)
    imputers: dict[ImputerName, ComparedImputer] = {}
    notes: list[str] = []
    first: MadeFrom | None = None
    first_learning: MadeFrom | None = None
    for name in pretrained_imputers(project):
        folder = project.imputer_folder(name)
        try:
            output = read_imputer(project, name, AGAIN)
            made_from = output.made_from
            data.origin.check(made_from, folder, AGAIN)
            if differing := _other_values(made_from, first or made_from):
                raise UserError(f"it was pretrained with other settings ({', '.join(differing)}): {AGAIN}")
        except UserError as error:
            notes.append(f"{name} is skipped: {error}")
            continue
        first = first or made_from
        if imputer_kind(name).family != "plain":
            first_learning = first_learning or made_from
            if differing := differing_names(made_from.settings, _shared(first_learning, made_from)):
                notes.append(
                    f"{name} was pretrained with other settings than {first_learning.imputer}: {', '.join(differing)}"
                )
        if made_from.also:
            cohorts = ", ".join(f"{cohort.name} ({cohort.stays:,} stays)" for cohort in made_from.also)
            notes.append(f"{name} was pretrained on further cohorts too: {cohorts}")
        imputers[name], more = _collect_imputer(project, data, output, runs)
        notes += more
    return imputers, notes


def _other_values(made_from: MadeFrom, first: MadeFrom) -> list[str]:
    """Return the settings by which two imputers were scored on different values."""
    return differing_names(made_from.settings, {name: first.settings[name] for name in ("masking", "scaling")})


def _shared(first: MadeFrom, other: MadeFrom) -> Settings:
    """Return the first's settings that the other depends on too."""
    return {name: value for name, value in first.settings.items() if name in other.settings}


def _collect_imputer(
    project: Project, data: DividedCohort, output: TrainingOutput, runs: Mapping[str, RunRecord]
) -> tuple[ComparedImputer, list[str]]:
    """Return an imputer with its variants and its assessment, and notes on what was left out or differs."""
    name = output.made_from.imputer
    found = collect(project, data.cohort, output, runs)
    notes = [*found.notes]
    pretrained = project.with_imputer(output.made_from.settings)
    defaults = [make_variant(head, imputer=name) for head in SINGLE_HEADS]
    variants = [variant for variant in defaults if variant in found.outputs]
    for variant in variants:
        now = variant_settings(pretrained, variant)
        if differing := differing_names(found.outputs[variant].made_from.settings, now):
            notes.append(f"{variant.label}: these settings now differ in params.yaml: {', '.join(differing)}")
    assessment = None
    if (project.assess_folder(name) / RESULT).is_file():
        assessment = read_assessment(project.assess_folder(name), f"run `imputune assess --imputer {name} --again`")
        made_now = assessment_made_from(pretrained, data.origin, name, output.run_id)
        if differing := assessment.made_from.differences(made_now):
            notes.append(
                f"the assessment of {name} is skipped, because these differ: {', '.join(differing)}. "
                f"Run `imputune assess --imputer {name}`"
            )
            assessment = None
    return ComparedImputer(found=found, variants=variants, assessment=assessment), notes


def _compare(project: Project, data: DividedCohort, imputers: ComparedImputers, notes: list[str]) -> ImputerComparison:
    matrix = tuple(each.found.rows[variant] for each in imputers.values() for variant in each.variants)
    assessments = [each.assessment for each in imputers.values() if each.assessment]
    default = imputers.get(DEFAULT_IMPUTER)
    return ImputerComparison(
        dataset=project.dataset,
        stays=data.origin.stays,
        deaths=data.origin.deaths,
        cohort_hash=data.origin.cohort_hash,
        test_to_train=test_to_train(len(data.folds)),
        imputers=tuple(
            summarise_imputer(
                imputer=name,
                ranking=project.params.assess.ranking,
                folds=each.assessment.folds,
                pretraining=[(fold.seconds, len(fold.history)) for fold in each.learned],
                run_id=each.assessment.run_id,
            )
            for name, each in imputers.items()
            if each.assessment
        ),
        edges=assessments[0].missing_share_edges if assessments else (),
        matrix=matrix,
        protocol=tuple(row for row in default.found.rows.values() if row.is_of_protocol) if default else (),
        notes=(*notes, *_missing_notes(imputers, matrix)),
    )


def _missing_notes(imputers: ComparedImputers, matrix: tuple[VariantRow, ...]) -> Iterator[str]:
    """Say which heads and assessments are missing."""
    complete = decompose(matrix)
    for name, each in imputers.items():
        heads = {variant.head for variant in each.variants}
        missing = [head for head in complete.heads if head not in heads] if complete else []
        if heads and missing:
            yield f"{name} is not in the analysis of variance: it has no {' or '.join(missing)}"
        elif not heads:
            yield f"{name} has no classifier yet: run `imputune grid --imputer {name}`"
        if not each.assessment:
            yield f"{name} is not assessed yet: run `imputune assess --imputer {name}`"


def _write(project: Project, texts: Mapping[str, str], figures: Mapping[str, bytes]) -> None:
    folder = project.results_folder
    for name, text in texts.items():
        replace_text(folder / name, text)
    for name, figure in figures.items():
        replace_bytes(folder / "report" / name, figure)
    for path in (folder / "report").glob("*.png"):
        if path.name not in figures:
            path.unlink()  # of an earlier report
