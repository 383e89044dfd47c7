"""The tracking of a command: the run that it opens in the project's store, with its parameters and tags."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

from pydantic import JsonValue

from imputune.artifacts.stage_output import MadeFrom, Settings
from imputune.errors import UserError
from imputune.pipeline.project import DividedCohort, Project
from imputune.pipeline.run_subject import RunSubject, outcome_tags
from imputune.protocol.division import Division
from imputune.runtime.console import warn
from imputune.tracking.interrupted import noted
from imputune.tracking.runs import TrackedRun, tracked_run
from imputune.tracking.store import EXPERIMENT, open_store
from imputune.tracking.store_failures import StoreUnavailableError


@contextmanager
def track(
    project: Project,
    subject: RunSubject,
    *,
    settings: Mapping[str, JsonValue],
    tags: Mapping[str, str] | None = None,
    folds: Sequence[int] = (),
    parent: str = "",
) -> Iterator[TrackedRun]:
    """Track a command on a cohort, after ending the runs of commands of its kind that were killed.

    See `tracking.runs.tracked_run`. Raises UserError also when artifacts/ cannot be written.
    """
    command, cohort_hash = subject.command, subject.cohort_hash
    params: dict[str, JsonValue] = {
        "cohort": {"dataset": project.dataset, "hash": cohort_hash},
        "seed": project.params.seed,
    }
    protocol: dict[str, str] = {}
    if isinstance(divided := settings.get("folds"), dict):
        params["folds"] = {"protocol": "cross_validation", **divided}
        protocol = Division.of(divided).tags
    all_tags = {"dataset": project.dataset, "cohort_hash": cohort_hash, **protocol, **(tags or {})}
    open_store(project.root)  # before the note: a store does not follow a move while a command has one
    with noted(project.root, project.notes_folder, command) as note:
        run = None
        try:
            with tracked_run(
                project.root,
                experiment=EXPERIMENT,
                command=command,
                params=dict(settings) | params,
                tags={f"imputune.{key}": text for key, text in all_tags.items()} | note.tags,
                folds=folds,
                details=subject.details(project.dataset, parent),
            ) as run:
                yield run
        except StoreUnavailableError:
            note.is_kept = run is None  # the server may have created the run, and the answer was lost
            raise
        finally:
            note.is_kept |= run is not None and run.is_left_running


@contextmanager
def track_if_allowed(
    project: Project, subject: RunSubject, *, settings: Settings, tags: Mapping[str, str] | None = None
) -> Iterator[TrackedRun | None]:
    """Track a command as `track` does; give None, and say so, to a user who may not write in the project's folder."""
    if not os.access(project.root, os.W_OK | os.X_OK):
        warn(f"note: no permission to write in {project.root}: results are shown, but not saved or tracked")
        yield None
        return
    with track(project, subject, settings=settings, tags=tags) as run:
        yield run


def track_training(
    project: Project, made_from: MadeFrom, data: DividedCohort, subject: RunSubject, parent: str = ""
) -> AbstractContextManager[TrackedRun]:
    """Track a training or assessment stage with a child per fold, its parameters the settings it depends on."""
    tags = {"imputer": made_from.imputer, "device": project.engine.device(project.params.device)}
    if made_from.imputer_run_id:
        tags["imputer_run"] = made_from.imputer_run_id
    if made_from.variant is not None:
        tags |= made_from.variant.tags() | outcome_tags(made_from)
    tags |= made_from.also_tags()
    return track(project, subject, settings=made_from.settings, tags=tags, folds=data.numbers, parent=parent)


def track_rival(
    project: Project, made_from: MadeFrom, data: DividedCohort, subject: RunSubject, parent: str
) -> AbstractContextManager[TrackedRun]:
    """Track the training of a rival with a child per fold, its parameters the settings it depends on."""
    if made_from.rival is None:
        raise ValueError(f"output of stage {made_from.stage} has no rival")
    tags = {"device": project.engine.device(project.params.device), **outcome_tags(made_from)}
    tags |= {"rival": made_from.rival.name, "input": made_from.rival.input}
    return track(project, subject, settings=made_from.settings, tags=tags, folds=data.numbers, parent=parent)


class TrackedWork(Protocol):
    """What is trained fold by fold: a variant, or a rival."""

    @property
    def run(self) -> TrackedRun | None:
        """The run that tracks it, None without one."""

    def finish_if_complete(self) -> None:
        """Write and end it when all its folds are finished; StoreUnavailableError while a server is away."""


def finish_complete(works: Iterable[TrackedWork]) -> None:
    """Finish those of which all folds are there; while a server is away, training goes on without."""
    for work in works:
        if work.run is None:
            continue
        try:
            with work.run.sender.not_waiting():
                work.finish_if_complete()
        except StoreUnavailableError:
            return


def end_run(stack: ExitStack) -> None:
    """End the run that a stack holds; UserError if its end could not be stored: no second call can end it."""
    try:
        stack.close()
    except StoreUnavailableError as lost:
        raise UserError(str(lost)) from lost
