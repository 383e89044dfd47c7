"""Finished runs, read back from the tracking store."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.store.entities import PagedList

from imputune.tracking import store
from imputune.tracking.fold_runs import FOLD_TAG
from imputune.tracking.metric_names import program_metrics
from imputune.tracking.runs import COMMAND_TAG, DATASET_TAG, EXPERIMENT_TAG
from imputune.tracking.starting import PARENT_TAG
from imputune.tracking.store_failures import failures
from imputune.tracking.trials import TRIAL_TAG

PAGE_RUNS = 1000


@dataclass(frozen=True)
class FoldRun:
    """The final metrics of one fold, by their names inside the program; NaN means undefined."""

    fold: int
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One finished command as the store holds it, with its folds in ascending order."""

    run_id: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    folds: tuple[FoldRun, ...]


def finished_runs(root: Path, experiment: str, command: str, dataset: str) -> list[RunRecord]:
    """Return the finished runs of `command` on `dataset`, newest first, each with its finished folds.

    Runs are found by their tags, so runs that `mlflow run` put into another experiment are returned too. Runs that
    were deleted, failed or were killed, and runs that have not ended, are skipped. Where there is no store there are
    none. Raises UserError when the store fails.
    """
    if not store.has_store(root):
        return []
    wanted = {EXPERIMENT_TAG: experiment, COMMAND_TAG: command, DATASET_TAG: dataset}
    conditions = ["attributes.status = 'FINISHED'"]
    conditions += [f"tags.`{key}` = '{text}'" for key, text in wanted.items()]
    folds: dict[str, dict[int, FoldRun]] = defaultdict(dict)
    parents: list[Run] = []
    for run in _all_runs(store.open_existing_store(root), " and ".join(conditions)):
        tags = run.data.tags
        if TRIAL_TAG in tags:
            continue
        if FOLD_TAG in tags:
            fold = int(tags[FOLD_TAG])
            # Runs come newest first: if a run was adopted twice, its later folds count.
            folds[tags[PARENT_TAG]].setdefault(fold, FoldRun(fold, program_metrics(run.data.metrics)))
        else:
            parents.append(run)
    return [_record(run, folds[run.info.run_id]) for run in parents]


def _all_runs(uri: str, condition: str) -> Iterator[Run]:
    """Yield the runs of every experiment that meet a condition, newest first."""
    client = MlflowClient(uri)
    with failures(uri):
        pages = store.all_pages(lambda token: client.search_experiments(max_results=PAGE_RUNS, page_token=token))
        experiments = [experiment.experiment_id for experiment in pages]
    order = ["attributes.start_time DESC"]

    def page(token: str | None) -> PagedList[Run]:
        with failures(uri):
            return client.search_runs(experiments, condition, max_results=PAGE_RUNS, order_by=order, page_token=token)

    yield from store.all_pages(page)


def _record(run: Run, folds: Mapping[int, FoldRun]) -> RunRecord:
    return RunRecord(
        run_id=run.info.run_id,
        params=dict(run.data.params),
        tags=dict(run.data.tags),
        metrics=program_metrics(run.data.metrics),
        folds=tuple(folds[fold] for fold in sorted(folds)),
    )
