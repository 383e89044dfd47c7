"""The sections of the report on imputers and classifiers, from what was found to words, tables and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pandas as pd

from imputune.artifacts.stage_output import PREDICTIONS
from imputune.data.cohort import HOURS, Cohort
from imputune.evaluation.assessed_imputers import TARGET, AssessedImputer
from imputune.evaluation.rows import Row
from imputune.pipeline.assess import EXAMPLE_HOURS
from imputune.pipeline.collected import Key
from imputune.pipeline.project import Divided, Project
from imputune.protocol.imputers import EXTRA, IMPUTERS, PRETRAINED
from imputune.protocol.variants import make_cell
from imputune.reporting.imputer_comparison import ImputerComparison
from imputune.reporting.imputer_figures import (
    errors_figure,
    example_figure,
    matrix_figure,
    missing_figure,
    risk_figure,
    training_figure,
)
from imputune.reporting.page import Picture, Report, Section
from imputune.reporting.tables import Table, spread
from imputune.settings.names import ImputerName

EXAMPLES = 3  # imputers that are drawn on the invented stay, where CSAI is not among them


@dataclass(frozen=True, eq=False)
class Found:
    """What there is of one imputer: outputs of its pretraining, its assessment and its usual cells, and rows of these.

    protocol: rows of all cells of the paper's protocol, for CSAI.
    """

    pretrained: dict[str, Any]
    assessed: dict[str, Any] | None
    cells: dict[Key, dict[str, Any]]
    rows: dict[Key, Row]
    protocol: tuple[Row, ...]


def build_report(
    project: Project,
    data: Divided,
    comparison: ImputerComparison,
    found: Mapping[ImputerName, Found],
    source: Mapping[str, str],
) -> Report:
    """Return the report of what was found; `source` says which code ran, see `tracking.provenance`."""
    sections = [
        _what_was_run(project, data, comparison, found),
        _imputers_alone(comparison),
        _example(data.cohort, comparison, found),
        _matrix(comparison),
        _risks(project, data.cohort, found),
        _training(found),
        _verdicts(comparison),
        _by_variable(comparison),
        _reproduce(project, data, comparison, found, source),
    ]
    filled = (each for each in sections if each.paragraphs or each.tables or each.pictures)
    return Report(comparison.title, comparison.answers, tuple(filled))


def _what_was_run(
    project: Project, data: Divided, comparison: ImputerComparison, found: Mapping[ImputerName, Found]
) -> Section:
    heads = dict.fromkeys(row.head for row in comparison.matrix)
    paragraphs = (
        f"{comparison.stays:,} ICU stays of {project.dataset}, the first {HOURS} hours of {len(data.cohort.variables)} "
        f"variables in hourly bins; {comparison.deaths:,} patients died in hospital. {len(data.folds)} folds. "
        "Each imputer and each classifier learned on a fold's training stays, chose its epoch on its validation stays "
        "and was scored once on its test stays.",
        "Each imputer was trained first and then left as it is (frozen); each classifier learned in-hospital death "
        f"from what the imputer made of the records. Classifiers: {', '.join(heads) or 'none yet'}.",
    )
    lines = tuple(
        (IMPUTERS[name].label, name, IMPUTERS[name].source, _kept(each.pretrained)) for name, each in found.items()
    )
    table = Table("Imputers", ("imputer", "its name in commands", "what it is, or its source", "epoch kept"), lines)
    return Section("What was run", paragraphs, (table,))


def _kept(pretrained: Mapping[str, Any]) -> str:
    """Say which epochs the folds kept, of how many."""
    folds = [fold for fold in pretrained["folds"] if fold["history"]]
    if not folds:
        return "learns nothing"
    epochs = sorted(fold["best_epoch"] + 1 for fold in folds)
    return f"{epochs[0]} to {epochs[-1]} of {len(folds[0]['history'])}"


def _imputers_alone(comparison: ImputerComparison) -> Section:
    if not comparison.imputers:
        return Section("Imputers alone")
    paragraphs = (
        "Observed cells of the test stays were hidden, imputed, and held against what was observed, in several ways of "
        "hiding and at several shares; every imputer met the same cells.",
    )
    pictures = [
        Picture("errors", "Error of each imputer by the share of cells hidden", errors_figure(comparison.imputers))
    ]
    if figure := missing_figure(comparison.imputers, comparison.edges):
        pictures.append(Picture("missing", "Error of each imputer by how much of a stay is missing anyway", figure))
    return Section("Imputers alone", paragraphs, tuple(comparison.imputer_tables()), tuple(pictures))


def _example(cohort: Cohort, comparison: ImputerComparison, found: Mapping[ImputerName, Found]) -> Section:
    title = "What imputers make of an invented stay"
    drawn = {name: each.assessed for name in _examples(comparison.imputers) if (each := found[name]).assessed}
    if not drawn:
        return Section(title)
    truth = np.array(next(iter(drawn.values()))["example"], dtype=float)
    imputed = {
        IMPUTERS[name].label: np.array([fold["example"] for fold in assessed["folds"]])
        for name, assessed in drawn.items()
    }
    hidden = np.zeros(HOURS, dtype=bool)
    hidden[EXAMPLE_HOURS] = True
    figure = example_figure(truth, imputed, cohort.variables, hidden)
    if figure is None:
        return Section(title, ("No variable of the generated stays is one of this dataset's: there is none to show.",))
    paragraphs = (
        "No patient's record stands in this report: the stay was generated. Hours in the grey stretch were hidden from "
        "the imputers. Lines are the mean over the folds' imputers, bands their range.",
    )
    shows = f"An invented stay as imputed by {', '.join(imputed)}, with the spread over folds"
    return Section(title, paragraphs, pictures=(Picture("example", shows, figure),))


def _examples(imputers: Sequence[AssessedImputer]) -> list[ImputerName]:
    """Return CSAI, and of PyPOTS's networks and of the plain rules the one that comes closest."""

    def error(each: AssessedImputer) -> float:
        row = each.row(*TARGET) or each.rows[0]
        return row.mean["mae"]

    chosen: list[ImputerName] = [each.imputer for each in imputers if each.imputer == PRETRAINED]
    for family in ("pypots", "plain"):
        rivals = [each for each in imputers if IMPUTERS[each.imputer].family == family]
        chosen += [each.imputer for each in sorted(rivals, key=error)[:1]]
    return chosen or [each.imputer for each in imputers[:EXAMPLES]]


def _matrix(comparison: ImputerComparison) -> Section:
    title = "Imputer and classifier"
    if not comparison.matrix:
        return Section(title)
    labels: dict[str, str] = {name: kind.label for name, kind in IMPUTERS.items()}
    figure = matrix_figure(comparison.matrix, labels)
    picture = Picture("matrix", "Test AUC of each imputer with each classifier, as a heat map", figure)
    return Section(title, (comparison.answers[0],), tuple(comparison.matrix_tables()), (picture,))


def _risks(project: Project, cohort: Cohort, found: Mapping[ImputerName, Found]) -> Section:
    title = "Risks that the classifiers give"
    name = _shown(found)
    risks, lines = {}, []
    for row in found[name].rows.values():
        table = pd.read_csv(project.cells_folder(name) / make_cell(row.head, imputer=name).name / PREDICTIONS)
        test = table[table["partition"] == "test"]
        risks[row.head] = cohort.died(test["stay_id"].to_numpy()), test["risk"].to_numpy()
        scores = ("test_auc", "test_auprc", "test_brier", "test_calibration_error")
        pairs = ((getattr(row, f"{score}_mean"), getattr(row, f"{score}_std")) for score in scores)
        lines.append((row.head, *(spread(*pair) for pair in pairs)))
    if not risks:
        return Section(title)
    header = ("classifier", "AUC", "AUPRC", "Brier score", "calibration error")
    remark = "Test folds, mean ± sample deviation. The dotted line in precision and recall is the share that died."
    label = IMPUTERS[name].label
    shows = f"ROC, precision-recall and calibration curves of the classifiers on {label}, all test stays together"
    picture = Picture("risks", shows, risk_figure(risks))
    return Section(title, tables=(Table(f"Classifiers on {label}", header, tuple(lines), remark),), pictures=(picture,))


def _shown(found: Mapping[ImputerName, Found]) -> ImputerName:
    """Return the imputer whose classifiers are shown one by one: the first that has some, CSAI before all others."""
    return next((name for name, each in found.items() if each.rows), next(iter(found)))


def _training(found: Mapping[ImputerName, Found]) -> Section:
    imputers = {
        IMPUTERS[name].label: curves
        for name, each in found.items()
        if (curves := _curves(each.pretrained, "validation_mae"))
    }
    pictures = []
    if imputers:
        figure = training_figure(imputers, "validation MAE")
        shows = "Validation error of the imputers by epoch"
        if IMPUTERS["csai_shuffled"].label in imputers:
            shows += "; of the control on shuffled stays, on validation stays that were shuffled too"
        pictures.append(Picture("imputer-training", shows, figure))
    name = _shown(found)
    heads = {
        output["cell"]["head"]: curves
        for output in found[name].cells.values()
        if (curves := _curves(output, "validation_auc"))
    }
    if heads:
        shows = f"Validation AUC of the classifiers on {IMPUTERS[name].label} by epoch"
        pictures.append(Picture("head-training", shows, training_figure(heads, "validation AUC")))
    paragraphs = ("Means over the folds that still train: a fold stops where its validation score no longer rises.",)
    return Section("Training", paragraphs if pictures else (), pictures=tuple(pictures))


def _curves(output: Mapping[str, Any], measure: str) -> list[list[float]]:
    curves = [[row[measure] for row in fold["history"] if measure in row] for fold in output["folds"]]
    return [curve for curve in curves if curve]


def _verdicts(comparison: ImputerComparison) -> Section:
    tables = [table for table in (comparison.claims_table(),) if table]
    return Section("The paper's claims", tables=tuple(tables))


def _by_variable(comparison: ImputerComparison) -> Section:
    table = comparison.variables_table()
    return Section("By variable", tables=(table,) if table else ())


def _reproduce(
    project: Project,
    data: Divided,
    comparison: ImputerComparison,
    found: Mapping[ImputerName, Found],
    source: Mapping[str, str],
) -> Section:
    commit = source.get("mlflow.source.git.commit", "unknown")
    changed = " with changes" if source.get("imputune.git_dirty") == "true" else ""
    libraries = ", ".join(f"{name} {source[f'imputune.{name}']}" for name in ("python", "torch", "numpy"))
    if any(IMPUTERS[name].family == "pypots" for name in found):
        libraries += f", {_installed_pypots()}"
    paragraphs = (
        f"Code: imputune at commit {commit}{changed}; {libraries}. Data: {data.origin.cohort_hash[:16]}, folds: "
        f"{data.origin.folds_hash[:16]} (beginnings of sha256). Seed: {project.params.seed}.",
        *(f"Note: {note}." for note in comparison.notes),
    )
    others = [name for name in found if name != PRETRAINED]
    imputers, dataset = ",".join(found), project.dataset
    by_heads: dict[str, list[str]] = {}
    for name, each in found.items():
        if heads := ",".join(row.head for row in each.rows.values()):
            by_heads.setdefault(heads, []).append(name)
    commands = [
        f"pip install -e '.[{EXTRA}]'" if any(IMPUTERS[name].family == "pypots" for name in others) else "make setup",
        str(data.cohort.source.get("command", f"imputune extract {dataset}")),
        f"imputune folds {dataset}",
        f"imputune pretrain {dataset} --imputer {imputers}",
        *(f"imputune grid {dataset} --imputer {','.join(names)} --head {heads}" for heads, names in by_heads.items()),
        f"imputune assess {dataset} --imputer {imputers}",
        f"imputune compare {dataset} --by imputer,head",
    ]
    return Section("How to reproduce it", paragraphs, commands=tuple(commands))


def _installed_pypots() -> str:
    try:
        return f"pypots {version('pypots')}"
    except PackageNotFoundError:
        return "pypots, which is not installed where this report was written"
