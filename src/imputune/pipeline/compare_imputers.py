"""The command compare --by imputer,head: collect all imputers, compute what explains the scores, write the report."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from imputune.artifacts.stage_files import RESULT, read_assessment, read_test_risks
from imputune.artifacts.stage_output import (
    EXAMPLE_HOURS,
    AssessmentOutput,
    FoldRecord,
    MadeFrom,
    Settings,
    TrainingOutput,
    differing_names,
)
from imputune.data.cohort import HOURS
from imputune.errors import UserError
from imputune.evaluation.assessed_imputers import summarise_imputer
from imputune.evaluation.comparison import ImputerComparison
from imputune.evaluation.significance import tested_per_trained
from imputune.evaluation.variance import decompose
from imputune.files import replace_bytes, replace_text
from imputune.pipeline.collected import Collected, collect, finetuned_runs
from imputune.pipeline.inputs import PretrainedImputer, read_imputer, was_pretrained
from imputune.pipeline.project import DividedCohort, Project, read_divided_cohort, track, variant_settings
from imputune.protocol.imputers import DEFAULT_IMPUTER, IMPUTERS
from imputune.protocol.variants import HEADS, Variant, make_variant
from imputune.reporting.comparison import imputer_answers
from imputune.reporting.page import Report
from imputune.reporting.report_inputs import HeadFindings, ImputerFindings, ReportInputs
from imputune.reporting.report_sections import build_report
from imputune.settings.names import ImputerName
from imputune.tracking.history import RunRecord

AGAIN = "pretrain it again"


@dataclass(frozen=True, eq=False, kw_only=True)
class _Imputer:
    """One imputer: what was collected of its variants, the variants that count, its assessment if it belongs here."""

    found: Collected
    variants: list[Variant]
    assessment: AssessmentOutput | None


def run_compare_imputers(project: Project) -> ImputerComparison:
    """Compare imputers and heads, write imputers.json and the report, track it; return the comparison.

    Results from other data, folds or another pretraining are skipped, and the notes say so. Raises UserError when no
    imputer was pretrained, or nothing is fine-tuned or assessed.
    """
    data = read_divided_cohort(project)
    notes: list[str] = []
    imputers = dict(_collect(project, data, notes))
    if not any(each.variants or each.assessment for each in imputers.values()):
        why = f" ({'; '.join(notes)})" if notes else ""
        raise UserError(
            f"nothing is compared on {project.dataset} yet{why}: run `imputune grid {project.dataset} --imputer all` "
            f"and `imputune assess {project.dataset}` first"
        )
    comparison = _compare(project, data, imputers, notes)
    settings = {"by": "imputer,head"}
    with track(project, "compare", cohort_hash=data.origin.cohort_hash, settings=settings) as run:
        report = build_report(_report_inputs(data, comparison, imputers, run.source))
        content = comparison.as_json(imputer_answers(comparison))
        html, markdown = report.to_html(), report.to_markdown("report")
        _write(project, content, report)
        run.log_text(html, "report.html")
        run.log_text(markdown, "report.md")
        run.log_dict(content, "imputers.json")
        for each in report.figures():
            run.log_figure(each.figure, f"report/{each.name}.png")
    return comparison


def _collect(project: Project, data: DividedCohort, notes: list[str]) -> Iterator[tuple[ImputerName, _Imputer]]:
    """Yield every imputer pretrained on the present data and folds, with the same masking and scaling as the first.

    Imputers pretrained with different masking or scaling were scored on different values and are skipped; other
    differences in the settings of imputers that learn are noted.
    """
    runs = finetuned_runs(project)
    first: MadeFrom | None = None
    first_learning: MadeFrom | None = None
    for name in IMPUTERS:
        if not was_pretrained(project, name):
            continue
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
        if IMPUTERS[name].family != "plain":
            first_learning = first_learning or made_from
            if differing := differing_names(made_from.settings, _shared(first_learning, made_from)):
                notes.append(
                    f"{name} was pretrained with other settings than {first_learning.imputer}: {', '.join(differing)}"
                )
        yield name, _collect_imputer(project, data, output, runs, notes)


def _other_values(made_from: MadeFrom, first: MadeFrom) -> list[str]:
    """Return the settings by which two imputers were scored on different values."""
    return differing_names(made_from.settings, {name: first.settings[name] for name in ("masking", "scaling")})


def _shared(first: MadeFrom, other: MadeFrom) -> Settings:
    """Return the first's settings that the other depends on too."""
    return {name: value for name, value in first.settings.items() if name in other.settings}


def _collect_imputer(
    project: Project, data: DividedCohort, output: TrainingOutput, runs: Mapping[str, RunRecord], notes: list[str]
) -> _Imputer:
    name = output.made_from.imputer
    found = collect(project, data.cohort, output, runs)
    notes += found.notes
    imputer = PretrainedImputer(
        name=name,
        project=project.with_imputer(output.made_from.settings),
        data=data,
        run_id=output.run_id,
        weights={},
    )
    defaults = [make_variant(head, imputer=name) for head in HEADS]
    variants = [variant for variant in defaults if variant in found.outputs]
    for variant in variants:
        now = variant_settings(imputer.project, variant)
        if differing := differing_names(found.outputs[variant].made_from.settings, now):
            notes.append(f"{variant.label}: these settings now differ in params.yaml: {', '.join(differing)}")
    assessment = None
    if (project.assess_folder(name) / RESULT).is_file():
        assessment = read_assessment(project.assess_folder(name), f"run `imputune assess --imputer {name} --again`")
        if differing := assessment.made_from.differences(imputer.assessment_made_from()):
            notes.append(
                f"the assessment of {name} is skipped, because these differ: {', '.join(differing)}. "
                f"Run `imputune assess --imputer {name}`"
            )
            assessment = None
    return _Imputer(found=found, variants=variants, assessment=assessment)


def _compare(
    project: Project, data: DividedCohort, imputers: Mapping[ImputerName, _Imputer], notes: list[str]
) -> ImputerComparison:
    matrix = tuple(each.found.rows[variant] for each in imputers.values() for variant in each.variants)
    complete = decompose(matrix)
    for name, each in imputers.items():
        heads = {variant.head for variant in each.variants}
        missing = [head for head in complete.heads if head not in heads] if complete else []
        if heads and missing:
            notes.append(f"{name} is not in the analysis of variance: it has no {' or '.join(missing)}")
        elif not heads:
            notes.append(f"{name} has no classifier yet: run `imputune grid --imputer {name}`")
        if not each.assessment:
            notes.append(f"{name} is not assessed yet: run `imputune assess --imputer {name}`")
    assessments = [each.assessment for each in imputers.values() if each.assessment]
    default = imputers.get(DEFAULT_IMPUTER)
    return ImputerComparison(
        dataset=project.dataset,
        stays=data.origin.stays,
        deaths=data.origin.deaths,
        cohort_hash=data.origin.cohort_hash,
        test_to_train=tested_per_trained(len(data.folds)),
        imputers=tuple(
            summarise_imputer(
                imputer=name,
                ranking=project.params.assess.ranking,
                folds=each.assessment.folds,
                pretraining=[(fold.seconds, len(fold.history)) for fold in _learned(each.found.imputer)],
                run_id=each.assessment.run_id,
            )
            for name, each in imputers.items()
            if each.assessment
        ),
        edges=assessments[0].missing_share_edges if assessments else (),
        matrix=matrix,
        protocol=tuple(default.found.rows.values()) if default else (),
        notes=tuple(notes),
    )


def _learned(output: TrainingOutput) -> list[FoldRecord]:
    return [fold for fold in output.folds if fold.history]


def _report_inputs(
    data: DividedCohort,
    comparison: ImputerComparison,
    imputers: Mapping[ImputerName, _Imputer],
    source: Mapping[str, str],
) -> ReportInputs:
    assessments = [each.assessment for each in imputers.values() if each.assessment]
    masked_T = np.zeros(HOURS, dtype=bool)
    masked_T[EXAMPLE_HOURS] = True
    return ReportInputs(
        comparison=comparison,
        variables=data.cohort.variables,
        folds=len(data.folds),
        seed=data.origin.seed,
        cohort_hash=data.origin.cohort_hash,
        folds_hash=data.origin.folds_hash,
        extract_command=str(data.cohort.source.get("command", f"imputune extract {comparison.dataset}")),
        source=source,
        findings={name: _findings(data, each) for name, each in imputers.items()},
        example_TD=np.array(assessments[0].example, dtype=float) if assessments else None,
        masked_T=masked_T,
    )


def _findings(data: DividedCohort, imputer: _Imputer) -> ImputerFindings:
    output = imputer.found.imputer
    learned = _learned(output)
    example = None
    if imputer.assessment:
        example = np.array([fold.example for fold in imputer.assessment.folds])
    return ImputerFindings(
        curves=_curves(output, "validation_mae"),
        epochs_kept=[fold.best_epoch + 1 for fold in learned],
        epochs=len(learned[0].history) if learned else 0,
        heads={variant.head: _head_findings(data, imputer.found, variant) for variant in imputer.variants},
        example_FTD=example,
    )


def _head_findings(data: DividedCohort, found: Collected, variant: Variant) -> HeadFindings:
    folder = found.project.heads_folder(variant.imputer) / variant.name
    stay_ids_N, risk_N = read_test_risks(folder, f"delete {folder}, or fine-tune that variant again")
    return HeadFindings(
        row=found.rows[variant],
        curves=_curves(found.outputs[variant], "validation_auc"),
        outcome_N=data.cohort.outcome_of(stay_ids_N),
        risk_N=risk_N,
    )


def _curves(output: TrainingOutput, metric: str) -> list[list[float]]:
    curves = [[epoch[metric] for epoch in fold.history if metric in epoch] for fold in output.folds]
    return [curve for curve in curves if curve]


def _write(project: Project, content: object, report: Report) -> None:
    folder = project.results_folder
    replace_text(folder / "imputers.json", json.dumps(content, indent=1) + "\n")
    replace_text(folder / "report.html", report.to_html())
    replace_text(folder / "report.md", report.to_markdown("report"))
    files = report.files()
    for name, figure in files.items():
        replace_bytes(folder / "report" / name, figure)
    for path in (folder / "report").glob("*.png"):
        if path.name not in files:
            path.unlink()  # of an earlier report
