"""Reading finished runs back: what compare and promote see of the tracking store."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from imputune.tracking import store
from imputune.tracking.runs import (
    COMMAND_TAG,
    DATASET_TAG,
    EXPERIMENT_TAG,
    FOLD_TAG,
    PARENT_TAG,
)
from imputune.tracking.trials import TRIAL_TAG

PAGE_RUNS = 1000


@dataclass(frozen=True)
class FoldRun:
    """The final metrics of one fold; NaN means undefined."""

    fold: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class RunRecord:
    """One finished command as the store holds it, its folds in ascending order; `start_time` is UTC."""

    run_id: str
    status: str
    start_time: datetime
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    folds: tuple[FoldRun, ...]


def finished_runs(root: Path, experiment: str, command: str, dataset: str) -> list[RunRecord]:
    """Return the finished runs of `command` on `dataset`, newest first, each with its finished folds.

    Runs that `mlflow run` put into an experiment of its own are found too, by their tags; deleted runs and
    runs that failed, were killed or still run are left out. Raises UserError when the store fails.
    """
    wanted = {EXPERIMENT_TAG: experiment, COMMAND_TAG: command, DATASET_TAG: dataset}
    conditions = ["attributes.status = 'FINISHED'"]
    conditions += [f"tags.`{key}` = '{text}'" for key, text in wanted.items()]
    folds: dict[str, dict[int, FoldRun]] = defaultdict(dict)
    parents: list[Run] = []
    for run in _all_runs(store.open_store(root), " and ".join(conditions)):
        tags = run.data.tags
        if TRIAL_TAG in tags:
            continue
        if FOLD_TAG in tags:
            fold = int(tags[FOLD_TAG])
            # Newest first: of a run that was adopted twice, the later folds count.
            folds[tags[PARENT_TAG]].setdefault(fold, FoldRun(fold, dict(run.data.metrics)))
        else:
            parents.append(run)
    return [_record(run, folds[run.info.run_id]) for run in parents]


def _all_runs(uri: str, condition: str) -> Iterator[Run]:
    client = MlflowClient(uri)
    with store.failures(uri):
        experiments, token = [], None
        while token != "":
            page = client.search_experiments(max_results=PAGE_RUNS, page_token=token)
            experiments += [each.experiment_id for each in page]
            token = page.token or ""
        token = None
        while token != "":
            found = client.search_runs(
                experiments,
                condition,
                max_results=PAGE_RUNS,
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
            yield from found
            token = found.token or ""


def _record(run: Run, folds: Mapping[int, FoldRun]) -> RunRecord:
    return RunRecord(
        run_id=run.info.run_id,
        status=run.info.status,
        start_time=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        params=dict(run.data.params),
        tags=dict(run.data.tags),
        metrics=dict(run.data.metrics),
        folds=tuple(folds[fold] for fold in sorted(folds)),
    )
