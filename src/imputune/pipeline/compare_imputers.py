"""Imputer or classifier: outputs of every imputer to results/<dataset>/imputers.json and a report to read."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from imputune.artifacts.stage_output import RESULT, differences, read_result
from imputune.errors import UserError
from imputune.evaluation.assessed_imputers import assessed_imputer
from imputune.evaluation.significance import tested_per_trained
from imputune.evaluation.variance import decompose
from imputune.files import replace_bytes, replace_text
from imputune.pipeline.assess import assessed_from
from imputune.pipeline.collected import finetuned_runs, outputs_of, rows_of
from imputune.pipeline.inputs import Source, cell_settings
from imputune.pipeline.project import (
    Divided,
    Project,
    read_divided,
    track,
)
from imputune.protocol.imputers import IMPUTERS, PRETRAINED
from imputune.protocol.variants import HEADS, PARTS, make_cell
from imputune.reporting.imputer_comparison import ImputerComparison
from imputune.reporting.imputer_sections import Found, build_report
from imputune.settings.names import ImputerName
from imputune.tracking.history import RunRecord


def run_report(project: Project) -> ImputerComparison:
    """Compare imputers and heads, write imputers.json and the report, track it; return the comparison.

    What was made of other data, folds or another pretraining of the imputer is left out, and named. Raises UserError
    when no imputer was pretrained, or nothing is fine-tuned or assessed.
    """
    data = read_divided(project)
    notes: list[str] = []
    found = dict(_imputers(project, data, notes))
    if not any(each.rows or each.assessed for each in found.values()):
        why = f" ({'; '.join(notes)})" if notes else ""
        raise UserError(
            f"nothing is compared on {project.dataset} yet{why}: run `imputune grid {project.dataset} --imputer all` "
            f"and `imputune assess {project.dataset}` first"
        )
    comparison = _comparison(project, data, found, notes)
    with track(project, data.origin.cohort_hash, "compare", {"by": "imputer,head"}, {}, folds=()) as run:
        report = build_report(project, data, comparison, found, run.source)
        html, markdown = report.to_html(), report.to_markdown("report")
        folder = project.results_folder
        replace_text(folder / "imputers.json", json.dumps(comparison.as_json(), indent=1) + "\n")
        replace_text(folder / "report.html", html)
        replace_text(folder / "report.md", markdown)
        files = report.files()
        for name, content in files.items():
            replace_bytes(folder / "report" / name, content)
        for path in (folder / "report").glob("*.png"):
            if path.name not in files:
                path.unlink()  # of a report before this one
        run.log_text(html, "report.html")
        run.log_text(markdown, "report.md")
        run.log_dict(comparison.as_json(), "imputers.json")
        for picture in report.pictures():
            run.log_figure(picture.figure, f"report/{picture.name}.png")
    return comparison


def _imputers(project: Project, data: Divided, notes: list[str]) -> Iterator[tuple[ImputerName, Found]]:
    """Yield every imputer that was pretrained on the data and folds that there are now, hidden and scaled as the first.

    One whose cells were hidden or whose values were scaled by other settings met other cells, and is left out; other
    differences in the settings of those that learn are noted.
    """
    runs = finetuned_runs(project)
    first: dict[str, Any] = {}
    learning: dict[str, Any] = {}
    for name in IMPUTERS:
        folder = project.imputer_folder(name)
        if not (folder / RESULT).is_file():
            continue
        try:
            pretrained = read_result(folder, "pretrain it again")
            data.origin.check(pretrained, folder, "pretrain it again")
            shared = {section: pretrained["params"][section] for section in ("masking", "scaling")}
            if differing := differences(shared, first or shared):
                raise UserError(f"it was pretrained with another {', '.join(differing)}: pretrain it again")
            if IMPUTERS[name].family != "plain":
                learning = learning or pretrained["params"]
                if differing := differences(pretrained["params"], learning):
                    notes.append(f"{name} was pretrained with another {', '.join(differing)} than those before it")
        except UserError as error:
            notes.append(f"{name} was left out: {error}")
            continue
        first = first or shared
        yield name, _found(project, data, name, pretrained, runs, notes)


def _found(
    project: Project,
    data: Divided,
    name: ImputerName,
    pretrained: dict[str, Any],
    runs: Mapping[str, RunRecord],
    notes: list[str],
) -> Found:
    source = Source(project.with_imputer(pretrained["params"]), data, pretrained["run_id"], {})
    outputs, left_out = outputs_of(project, pretrained, name)
    notes += left_out
    all_rows = rows_of(project, data.cohort, outputs, runs, notes)
    usual = {tuple(getattr(cell, part) for part in PARTS): cell for cell in (make_cell(h, imputer=name) for h in HEADS)}
    cells = {key: outputs[key] for key in usual if key in outputs}
    for key, output in cells.items():
        if differing := differences(output["params"], cell_settings(source.project, usual[key])):
            notes.append(
                f"{usual[key].name} was made with other settings than params.yaml now has: {', '.join(differing)}"
            )
    assessed = None
    if (project.assess_folder(name) / RESULT).is_file():
        assessed = read_result(project.assess_folder(name), f"run `imputune assess --imputer {name} --again`")
        if differing := differences(assessed, assessed_from(source, name)):
            notes.append(f"the assessment of {name} was left out, of other {', '.join(differing)}: assess it again")
            assessed = None
    protocol = tuple(all_rows.values()) if name == PRETRAINED else ()
    return Found(pretrained, assessed, cells, {key: all_rows[key] for key in cells}, protocol)


def _comparison(
    project: Project, data: Divided, found: Mapping[ImputerName, Found], notes: list[str]
) -> ImputerComparison:
    assessed = [each.assessed for each in found.values() if each.assessed]
    matrix = tuple(row for each in found.values() for row in each.rows.values())
    heads = divided.heads if (divided := decompose(matrix)) else ()
    for name, each in found.items():
        if each.rows and (missing := [head for head in heads if head not in {row.head for row in each.rows.values()}]):
            notes.append(f"{name} lacks {', '.join(missing)}, and does not count where the variance is divided")
        elif not each.rows:
            notes.append(f"{name} has no classifier yet: `imputune grid --imputer {name}`")
        if not each.assessed:
            notes.append(f"{name} is not assessed: `imputune assess --imputer {name}`")
    return ImputerComparison(
        project.dataset,
        len(data.cohort.died_N),
        int(data.cohort.died_N.sum()),
        data.origin.cohort_hash,
        tested_per_trained(len(data.folds)),
        tuple(assessed_imputer(each.assessed, each.pretrained) for each in found.values() if each.assessed),
        tuple(assessed[0]["missing_share_edges"]) if assessed else (),
        matrix,
        next((each.protocol for each in found.values() if each.protocol), ()),
        tuple(notes),
    )
