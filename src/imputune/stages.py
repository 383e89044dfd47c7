"""The pipeline's stages: each reads what the one before left, trains or compares, tracks it, and writes its output."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from imputune.config import Budget, Params, read_params
from imputune.data.cohort import Cohort, cohort_hash, read_cohort
from imputune.data.folds import Fold, draw_folds, folds_hash, read_folds, write_folds
from imputune.evaluation.figures import curves_figure
from imputune.tracking.bundle import BundleAbout
from imputune.tracking.registry import register_bundle
from imputune.tracking.runs import TrackedRun, tracked_run
from imputune.training.device import choose_device
from imputune.training.finetune import Cell, FinetuneJob, build_classifier, finetune_fold
from imputune.training.outputs import Origin, TrainedFold, read_result, read_weights, write_stage
from imputune.training.parallel import run_folds
from imputune.training.pretrain import PretrainJob, csai_sizes, pretrain_fold
from imputune.training.recorder import Recorder

EXPERIMENT = "imputune"
IMPUTER_SECTIONS = ("pretrain", "csai", "scaling", "masking")
Watch = Callable[[Recorder, int], AbstractContextManager[Recorder]]
"""Wraps a recorder so that someone sees its progress, given the epochs at most of a fold."""


@dataclass(frozen=True)
class Project:
    """A project folder, with its parameters for one dataset; everything that has a place in it, by name."""

    root: Path
    params: Params

    @classmethod
    def open(cls, root: Path, dataset: str | None = None) -> "Project":
        """Read params.yaml, for `dataset` or the one it names; UserError for a bad file or unknown dataset."""
        params = read_params(root / "params.yaml")
        if dataset:
            params = params.model_copy(update={"dataset": dataset})
        params.budget_of(params.dataset)
        return cls(root, params)

    def with_imputer(self, settings: Mapping[str, Any]) -> "Project":
        """Return this project with the settings an imputer was pretrained with, whatever params.yaml now says."""
        sections = {name: type(getattr(self.params, name)).model_validate(settings[name]) for name in IMPUTER_SECTIONS}
        return replace(self, params=self.params.model_copy(update=sections))

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return self.params.dataset

    @property
    def budget(self) -> Budget:
        """The dataset's epochs."""
        return self.params.budget_of(self.dataset)

    @property
    def cohort_folder(self) -> Path:
        """Where extract puts the cohort."""
        return self.root / "data" / self.dataset

    @property
    def folds_file(self) -> Path:
        """Where the folds are written."""
        return self.root / "artifacts" / self.dataset / "folds.json"

    @property
    def imputer_folder(self) -> Path:
        """Where pretraining leaves its output."""
        return self.root / "artifacts" / self.dataset / "csai"

    @property
    def cells_folder(self) -> Path:
        """Where fine-tuning leaves a folder for each cell."""
        return self.root / "artifacts" / self.dataset / "finetune"

    @property
    def results_folder(self) -> Path:
        """Where compare writes its tables."""
        return self.root / "results" / self.dataset


@dataclass(frozen=True, eq=False)
class Divided:
    """A cohort as read for a stage, with its folds and their hashes."""

    cohort: Cohort
    folds: list[Fold]
    origin: Origin


def run_folds_stage(project: Project) -> list[Fold]:
    """Draw the folds of the project's cohort, write and track them; see `data.folds` for the errors."""
    cohort, digest = read_cohort(project.cohort_folder), cohort_hash(project.cohort_folder)
    folds = draw_folds(cohort, project.params.folds.count, project.params.seed)
    settings = {"folds": project.params.folds.model_dump()}
    with track(project, digest, "folds", settings, {}, folds=()) as run:
        write_folds(folds, cohort, digest, project.folds_file)
        sizes = {part: float(len(getattr(folds[0], part))) for part in ("train", "validation", "test")}
        run.log_metrics({f"{part}_stays_of_fold_0": size for part, size in sizes.items()})
    return folds


def run_pretrain(project: Project, watch: Watch) -> dict[str, Any]:
    """Pretrain CSAI on every fold, track it, register the imputers, write artifacts; return the result.

    Raises UserError when the cohort or its folds are missing or do not belong together.
    """
    data = _read_divided(project)
    params = project.params
    about = _about(project, data) | {
        "stage": "pretrain",
        "params": _settings(project, *IMPUTER_SECTIONS),
    }
    with _tracked(project, data, "pretrain", about, {}) as run:
        jobs = [PretrainJob(data.cohort, fold, params) for fold in data.folds]
        with watch(run, project.budget.pretrain_epochs) as recorder:
            results = run_folds(pretrain_fold, jobs, recorder, params.workers)
        _summarise(run, about, results)
        run.log_figure(_curves(results, "loss"), "figures/loss.png")
        run.log_figure(_curves(results, "mae"), "figures/validation_mae.png")
        run.log_dict({str(result.fold): result.imputation for result in results}, "imputation.json")
        write_stage(project.imputer_folder, about | {"run_id": run.run_id}, results)
        _register(run, project, data, results, f"imputune-csai-{project.dataset}", head=None, tags={})
    return about | {"run_id": run.run_id, "results": results}


def run_finetune(project: Project, cell: Cell, watch: Watch) -> dict[str, Any]:
    """Fine-tune one cell on every fold, track it, register the bundle, write artifacts; return the result.

    Raises UserError when no imputer was pretrained, or it was trained on other variables or data.
    """
    data = _read_divided(project)
    remedy = f"run `imputune pretrain {project.dataset}` (or `dvc repro`) first"
    imputer = read_result(project.imputer_folder, remedy)
    data.origin.check(imputer, project.imputer_folder, remedy)
    project = project.with_imputer(imputer["params"])
    params = project.params
    tags = {"head": cell.head, "mode": cell.mode, "input": "last", "schedule": cell.schedule}
    classifier = build_classifier(data.cohort.values_NTD.shape, params, cell)
    counts = {
        "num_parameters": sum(weight.numel() for weight in classifier.head.parameters()),
        "trainable_parameters": sum(w.numel() for w in classifier.parameters() if w.requires_grad),
    }
    jobs = [
        FinetuneJob(data.cohort, fold, params, cell, read_weights(project.imputer_folder, fold.number))
        for fold in data.folds
    ]
    about = _about(project, data) | {"stage": "finetune", "cell": tags, "imputer_run_id": imputer["run_id"]}
    about |= counts | {"params": _settings(project, "finetune", "schedules", *IMPUTER_SECTIONS)}
    with _tracked(project, data, "finetune", about, tags | {"imputer_run": imputer["run_id"]}) as run:
        epochs = project.budget.frozen_epochs if cell.mode == "frozen" else project.budget.unfrozen_epochs
        with watch(run, epochs) as recorder:
            results = run_folds(finetune_fold, jobs, recorder, params.workers)
        run.log_metrics(counts)
        _summarise(run, about, results)
        run.log_figure(_curves(results, "loss"), "figures/loss.png")
        run.log_figure(_curves(results, "auc"), "figures/auc.png")
        write_stage(project.cells_folder / cell.name, about | {"run_id": run.run_id}, results)
        name = f"imputune-mortality-{project.dataset}"
        _register(run, project, data, results, name, cell.head, tags)
    return about | {"run_id": run.run_id, "results": results}


def _read_divided(project: Project) -> Divided:
    cohort = read_cohort(project.cohort_folder)
    digest = cohort_hash(project.cohort_folder)
    folds = read_folds(project.folds_file, cohort, digest, project.params.folds.count, project.params.seed)
    return Divided(
        cohort, folds, Origin(project.dataset, digest, folds_hash(project.folds_file), cohort.variable_names)
    )


def _about(project: Project, data: Divided) -> dict[str, Any]:
    return asdict(data.origin) | {
        "variables": list(data.origin.variables),
        "stays": len(data.cohort.died_N),
        "deaths": int(data.cohort.died_N.sum()),
        "seed": project.params.seed,
    }


def _settings(project: Project, *sections: str) -> dict[str, Any]:
    chosen = project.params.model_dump(include=set(sections), mode="json")
    return chosen | {"budget": project.budget.model_dump(), "folds": project.params.folds.model_dump()}


def track(
    project: Project,
    digest: str,
    command: str,
    settings: Mapping[str, Any],
    tags: Mapping[str, str],
    folds: Sequence[int],
) -> AbstractContextManager[TrackedRun]:
    """Track a command on the project's cohort, whose hash is `digest`; see `tracking.runs.tracked_run`."""
    params = {"cohort": {"dataset": project.dataset, "hash": digest}, "seed": project.params.seed}
    all_tags = {"dataset": project.dataset, "cohort_hash": digest, **tags}
    return tracked_run(
        project.root,
        EXPERIMENT,
        command,
        params | dict(settings),
        {f"imputune.{key}": text for key, text in all_tags.items()},
        folds,
    )


def _tracked(
    project: Project, data: Divided, command: str, about: Mapping[str, Any], tags: Mapping[str, str]
) -> AbstractContextManager[TrackedRun]:
    numbers = [fold.number for fold in data.folds]
    device = {"device": choose_device(project.params.device).type}
    return track(project, data.origin.cohort_hash, command, about["params"], {**tags, **device}, numbers)


def _summarise(run: TrackedRun, about: Mapping[str, Any], results: list[TrainedFold]) -> None:
    means = {name: fmean(result.scores[name] for result in results) for name in results[0].scores}
    run.log_metrics(means | {"seconds": sum(result.seconds for result in results)})
    summary = {"cohort_hash": about["cohort_hash"], "folds": [{"fold": r.fold, **r.scores} for r in results]}
    run.log_dict(summary, "scores.json")


def _curves(results: list[TrainedFold], metric: str) -> Any:
    return curves_figure({result.fold: result.history for result in results}, metric, f"{metric} by epoch")


def _register(
    run: TrackedRun,
    project: Project,
    data: Divided,
    results: list[TrainedFold],
    name: str,
    head: str | None,
    tags: Mapping[str, str],
) -> None:
    _, hours, variables = data.cohort.values_NTD.shape
    about = BundleAbout(
        project.dataset,
        data.cohort.variables,
        csai_sizes(project.params, variables, hours),
        head,
        tuple(result.fold for result in results),
    )
    lineage = {"run_id": run.run_id, "cohort_hash": data.origin.cohort_hash, **tags}
    for score in results[0].scores:
        if score in ("validation_auc", "test_auc", "validation_mae_non_uniform"):
            lineage[f"{score}_by_fold"] = " ".join(f"{result.scores[score]:.4f}" for result in results)
    register_bundle(run, name, about, results, {f"imputune.{key}": text for key, text in lineage.items()})
