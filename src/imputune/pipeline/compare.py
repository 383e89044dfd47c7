"""The comparison stage: tracked runs, or stage outputs where a run is gone, to the tables in results/<dataset>."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from imputune.artifacts.stage_output import RESULT, differences, read_result
from imputune.data.cohort import cohort_hash, read_cohort
from imputune.data.folds import folds_hash
from imputune.errors import UserError
from imputune.evaluation.rows import Row, imputer_rows
from imputune.evaluation.significance import tested_per_trained
from imputune.files import replace_bytes, replace_text
from imputune.pipeline.collected import (
    Key,
    add_other_runs,
    finetuned_runs,
    outputs_of,
    rows_of,
)
from imputune.pipeline.inputs import cell_settings
from imputune.pipeline.project import Project, track
from imputune.protocol.variants import PARTS, PROTOCOL
from imputune.reporting.comparison import Comparison
from imputune.reporting.figures import (
    calibration_figure,
    mean_curves_figure,
    parameters_figure,
    to_png,
    to_svg,
)
from imputune.training.search import brackets

ORDER = {tuple(getattr(cell, part) for part in PARTS): place for place, cell in enumerate(PROTOCOL)}


def run_compare(project: Project) -> Comparison:
    """Compare every fine-tuned cell of the project's dataset, write and track the tables, return the comparison.

    A cell that stands in artifacts is read from the run that made it, or from the artifacts where that run is gone or
    did not finish; another cell from its newest finished run. What is of other data or folds, or of another imputer
    than the one in artifacts, is left out, and what differs is named. Raises UserError when nothing was fine-tuned or
    pretrained yet.
    """
    remedy = f"run `imputune pretrain {project.dataset}` (or `dvc repro`) first"
    imputer = read_result(project.imputer_folder(), remedy)
    digest = cohort_hash(project.cohort_folder)
    if imputer["cohort_hash"] != digest:
        again = f"run `imputune folds {project.dataset}`, then `imputune pretrain {project.dataset}` (or `dvc repro`)"
        raise UserError(f"the imputer in artifacts was trained on other data than {project.cohort_folder}: {again}")
    if project.folds_file.is_file() and imputer["folds_hash"] != folds_hash(project.folds_file):
        raise UserError(f"the imputer in artifacts was trained on other folds than {project.folds_file}: {remedy}")
    with track(project, digest, "compare", {}, {}, folds=()) as run:
        outputs, notes = outputs_of(project, imputer)
        runs = finetuned_runs(project)
        rows = rows_of(project, read_cohort(project.cohort_folder), outputs, runs, notes)
        add_other_runs(project, imputer, runs.values(), rows, notes)
        if not rows:
            why = f" ({'; '.join(notes)})" if notes else ""
            raise UserError(
                f"nothing is fine-tuned on {project.dataset} yet{why}: run `imputune finetune {project.dataset}` first"
            )
        comparison = Comparison(
            project.dataset,
            imputer["stays"],
            imputer["deaths"],
            digest,
            tested_per_trained(len(imputer["folds"])),
            tuple(rows[key] for key in sorted(rows, key=lambda key: ORDER.get(key, len(ORDER)))),
            tuple(imputer_rows([fold["imputation"] for fold in imputer["folds"]])),
            (
                *notes,
                *_unfinished_notes(project, imputer, rows),
                *_settings_notes(project, imputer, outputs),
                *_protocol_notes(list(outputs.values())),
            ),
        )
        figures = dict(_figures(project, comparison, outputs, imputer))
        _write(comparison, figures, project.results_folder)
        run.log_text(comparison.to_markdown(), "comparison.md")
        for name, figure in figures.items():
            run.log_figure(figure, f"figures/{name}.png")
    return comparison


def _unfinished_notes(project: Project, imputer: Mapping[str, Any], rows: Mapping[Key, Row]) -> Iterator[str]:
    """Name the cells without a row of which some folds are fine-tuned."""
    folds = len(imputer["folds"])
    for cell in (cell for key, cell in zip(ORDER, PROTOCOL, strict=True) if key not in rows):
        folder = project.unfinished_folder / cell.name
        done = len(list(folder.glob("fold-*")))
        if done:
            yield f"{folder.name} has {done} of {folds} folds, and is left out: `imputune grid` goes on with it"


def _settings_notes(
    project: Project, imputer: Mapping[str, Any], outputs: Mapping[Key, dict[str, Any]]
) -> Iterator[str]:
    """Name the cells that were made with other settings than params.yaml now has, and what differs."""
    now = project.with_imputer(imputer["params"])
    for key, result in outputs.items():
        if key in ORDER and (names := differences(result["params"], cell_settings(now, PROTOCOL[ORDER[key]]))):
            yield f"{'-'.join(key)} was made with other settings than params.yaml now has: {', '.join(names)}"


def _protocol_notes(outputs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say where a budget of epochs was too small for patience to act, and what to know of each mode's searches."""
    for mode in ("frozen", "unfrozen"):
        neural = [result for result in outputs if result["cell"]["mode"] == mode and "budget" in result["params"]]
        if not neural:
            continue
        epochs, patience = (neural[0]["params"][part] for part in ("budget", "finetune"))
        if epochs[f"{mode}_epochs"] <= patience["patience"]:
            yield (
                f"{mode} training had {epochs[f'{mode}_epochs']} epochs at most, fewer than the patience of early "
                f"stopping ({patience['patience']}): it never stopped early, and schedule plateau may have been a "
                "constant rate; the best epoch was kept all the same"
            )
        searched = [result for result in neural if result["cell"]["schedule"] == "optuna"]
        if searched:
            yield from _search_notes(mode, searched)


def _search_notes(mode: str, results: list[Mapping[str, Any]]) -> Iterator[str]:
    settings = results[0]["params"]["schedules"]["optuna"]
    epochs = min(settings["trial_epochs"], results[0]["params"]["budget"][f"{mode}_epochs"])
    trials = [fold["trials"] for result in results for fold in result["folds"] if fold["trials"]]
    pruned = sum(trial["state"] == "pruned" for search in trials for trial in search)
    parts = brackets(settings["reduction_factor"], epochs)
    guided = max(0, settings["trials"] - parts * settings["startup_trials"])
    yield (
        f"optuna, {mode}: {settings['trials']} trials a search, of at most {epochs} epochs each, which favours high "
        f"rates; Hyperband brackets: {parts}, each with a sampler of its own that draws its first "
        f"{settings['startup_trials']} at random, so that about {guided} of {settings['trials']} were guided by what "
        f"came before; {len(trials)} searches, {pruned} of {sum(map(len, trials))} trials pruned"
    )
    if settings[f"{mode}_scope"] == "first_fold":
        yield (
            f"optuna, {mode}: fold 0 searched the learning rate for all folds; its trials trained and validated on "
            "stays that the other folds test on, so that this one number has seen them (scope each_fold avoids it)"
        )


def _figures(
    project: Project, comparison: Comparison, outputs: Mapping[Key, dict[str, Any]], imputer: Mapping[str, Any]
) -> Iterator[tuple[str, Figure]]:
    for mode in ("frozen", "unfrozen"):
        if figure := parameters_figure(comparison.rows, mode, comparison.references):
            yield f"parameters-{mode}", figure
    if figure := calibration_figure(comparison.rows):
        yield "calibration", figure
    curves = {"-".join(key): _histories(outputs[key]) for key in ORDER if key in outputs and key[3] == "plateau"}
    if curves:
        yield "curves", mean_curves_figure(curves, "auc")
    overfit = {}
    for path in sorted(project.overfit_folder.glob(f"[!.]*/{RESULT}")):
        result = read_result(path.parent, f"delete {path.parent}, or run `imputune overfit` again")
        if result["imputer_run_id"] == imputer["run_id"]:
            overfit[path.parent.name] = _histories(result)
    if overfit:
        yield "overfitting", mean_curves_figure(overfit, "auc")


def _histories(result: Mapping[str, Any]) -> dict[int, list[dict[str, float]]]:
    return {fold["fold"]: fold["history"] for fold in result["folds"]}


def _write(comparison: Comparison, figures: Mapping[str, Figure], folder: Path) -> None:
    for name, text in (
        ("comparison.md", comparison.to_markdown()),
        ("comparison.tex", comparison.to_latex()),
        ("results.json", json.dumps(comparison.as_json(), indent=1) + "\n"),
        ("metrics.json", json.dumps(comparison.metrics(), indent=1) + "\n"),
    ):
        replace_text(folder / name, text)
    for name, figure in figures.items():
        replace_bytes(folder / "figures" / f"{name}.png", to_png(figure))
        replace_bytes(folder / "figures" / f"{name}.svg", to_svg(figure))
    for path in (folder / "figures").glob("*.*"):
        if path.stem not in figures:
            path.unlink()  # of a comparison before this one
