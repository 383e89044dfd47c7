"""The command compare --by imputer,head: collect all imputers, compute what explains the scores, write the report."""

import json
from collections.abc import Iterator, Mapping

from imputune.artifacts.stage_output import Settings
from imputune.errors import UserError
from imputune.evaluation.comparison import ImputerComparison
from imputune.evaluation.variance import decompose
from imputune.files import replace_bytes, replace_text
from imputune.pipeline.assembled_imputers import ComparedImputer, assemble_imputers
from imputune.pipeline.project import DividedCohort, Project, read_divided_cohort
from imputune.pipeline.report_material import report_inputs
from imputune.pipeline.rival_results import rival_comparison
from imputune.pipeline.run_subject import matrix_subject
from imputune.pipeline.tracked import track_if_allowed
from imputune.protocol.imputers import DEFAULT_IMPUTER
from imputune.reporting.comparison import imputer_answers
from imputune.reporting.report_sections import build_report
from imputune.reporting.run_notes import rows_result
from imputune.settings.names import ImputerName

ComparedImputers = Mapping[ImputerName, ComparedImputer]


def run_compare_imputers(project: Project) -> ImputerComparison:
    """Compare imputers and heads, write imputers.json and the report, track it; return the comparison.

    Without permission to write in the project, nothing is written or tracked.

    Results from other data, folds or another pretraining are skipped, and the notes say so. Raises UserError when no
    imputer was pretrained, or nothing is fine-tuned or assessed.
    """
    data = read_divided_cohort(project).for_outcome(project.outcome)
    imputers, notes = assemble_imputers(project, data)
    if not any(each.rows or each.assessed for each in imputers.values()):
        why = f" ({'; '.join(notes)})" if notes else ""
        raise UserError(
            f"nothing is compared on {project.dataset} yet{why}: run `imputune grid {project.dataset} --imputer all` "
            f"and `imputune assess {project.dataset}` first"
        )
    comparison = _compare(project, data, imputers, notes)
    settings: Settings = {"by": "imputer,head", "folds": project.fold_settings}
    with track_if_allowed(project, matrix_subject(project, data), settings=settings) as run:
        if run is None:
            return comparison
        report = build_report(report_inputs(data, comparison, imputers, run.source, project.results_folder / "report"))
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


def _compare(project: Project, data: DividedCohort, imputers: ComparedImputers, notes: list[str]) -> ImputerComparison:
    default = imputers.get(DEFAULT_IMPUTER)
    rivals, rival_notes = None, list[str]()
    if default:
        labels_hash = data.head_origin.outcome_hash
        rivals, rival_notes = rival_comparison(project, default.file, default.all_rows.values(), labels_hash)
    return ImputerComparison(
        dataset=project.dataset,
        outcome=project.outcome,
        stays=data.head_origin.stays,
        events=data.head_origin.events,
        cohort_hash=data.origin.cohort_hash,
        division=project.division,
        imputers=tuple(each.assessed for each in imputers.values() if each.assessed),
        edges=next((each.edges for each in imputers.values() if each.assessed), ()),
        matrix=tuple(row for each in imputers.values() for row in each.rows.values()),
        protocol=tuple(row for row in default.all_rows.values() if row.is_of_protocol) if default else (),
        notes=(*notes, *_missing_notes(imputers), *rival_notes),
        rivals=rivals,
    )


def _missing_notes(imputers: ComparedImputers) -> Iterator[str]:
    """Say which heads and assessments are missing."""
    complete = decompose(tuple(row for each in imputers.values() for row in each.rows.values()))
    for name, each in imputers.items():
        heads = {variant.head for variant in each.rows}
        missing = [head for head in complete.heads if head not in heads] if complete else []
        if heads and missing:
            yield f"{name} is not in the analysis of variance: it has no {' or '.join(missing)}"
        elif not heads:
            yield f"{name} has no classifier yet: run `imputune grid --imputer {name}`"
        if not each.assessed:
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
