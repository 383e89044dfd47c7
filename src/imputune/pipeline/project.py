"""A project folder: its paths, its cohort with folds, its locks, and the settings of a stage."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout

from imputune.artifacts.stage_output import Origin, Settings
from imputune.data.cohort import Cohort, cohort_hash, outcome_hash, read_cohort
from imputune.data.folds import COHORTS, Fold, folds_hash, labelled_fold, read_folds
from imputune.data.outcome_choice import chosen_outcome, named_outcome, outcome_names
from imputune.errors import UserError, near_miss
from imputune.protocol.division import Division
from imputune.protocol.imputers import imputer_kind
from imputune.protocol.outcomes import DEFAULT_OUTCOME
from imputune.protocol.rivals import Rival
from imputune.protocol.variants import Variant
from imputune.runtime.console import say_once
from imputune.runtime.epoch_lines import TrainingPlan
from imputune.runtime.experiments import owner_of
from imputune.runtime.recorder import Recorder
from imputune.runtime.workers import Engine, LocalPool
from imputune.settings.file import read_params
from imputune.settings.head_sections import UNFROZEN_ONLY
from imputune.settings.names import ImputerName
from imputune.settings.schema import Budget, Params

logger = logging.getLogger(__name__)
UNFINISHED = "unfinished"
IMPUTER_SECTIONS = ("pretrain", "csai", "pypots", "scaling", "masking")
"""The sections of params.yaml that pretraining may depend on; see `imputer_settings`."""
EpochProgress = Callable[[Recorder, TrainingPlan], AbstractContextManager[Recorder]]
"""Wraps a recorder to show the progress of what is planned."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project folder and its parameters for one dataset and outcome; gives the path of every output.

    chosen_engine: what trains folds; None: the worker processes of this machine, as many as params.yaml says.
    """

    root: Path
    params: Params
    outcome: str = DEFAULT_OUTCOME
    chosen_engine: Engine | None = None

    @classmethod
    def open(cls, root: Path, dataset: str | None = None, outcome: str | None = "") -> "Project":
        """Read params.yaml, for `dataset` and `outcome` or those it names.

        Without an outcome there, it is in_hospital_death if the cohort has it, or else the cohort's first. So it is,
        with a line that says so, if `dataset` is another one than params.yaml's and lacks the outcome there; and with
        None, for commands that read no outcome, whatever params.yaml says. Raises UserError for a bad file, an unknown
        dataset, and an outcome that the cohort does not have.
        """
        params = read_params(root / "params.yaml")
        elsewhere = bool(dataset) and dataset != params.dataset
        if dataset:
            params = params.model_copy(update={"dataset": dataset})
        _check_known(root, params)
        logger.debug("project %s, dataset %s, seed %d, device %s", root, params.dataset, params.seed, params.device)
        folder = root / "data" / params.dataset
        named = named_outcome(folder, params.outcome, elsewhere=elsewhere)
        chosen = chosen_outcome(folder, "" if outcome is None else outcome or named)
        if outcome == "" and named != params.outcome and outcome_names(folder):
            lacking = f"{params.dataset} lacks the outcome {params.outcome} of params.yaml"
            say_once(f"{lacking}: {chosen} is taken (--outcome takes another)")
        return cls(root=root, params=params, outcome=chosen)

    def with_imputer(self, settings: Settings) -> "Project":
        """Return this project with the settings an imputer was pretrained with, whatever params.yaml says now.

        If they are a variant's settings, the section heads is taken from them too.
        """
        sections = {
            name: type(getattr(self.params, name)).model_validate(settings[name])
            for name in (*IMPUTER_SECTIONS, "heads", "record_heads")
            if name in settings
        }
        return replace(self, params=self.params.model_copy(update=sections))

    def with_epochs(self, epochs: int) -> "Project":
        """Return this project with so many epochs of fine-tuning at most, frozen or unfrozen."""
        changed = self.budget.model_copy(update={"frozen_epochs": epochs, "unfrozen_epochs": epochs})
        return replace(self, params=self.params.model_copy(update={"budget": {self.dataset: changed}}))

    def on(self, engine: Engine) -> "Project":
        """Return this project with an engine that trains its folds."""
        return replace(self, chosen_engine=engine)

    @property
    def engine(self) -> Engine:
        """What trains folds."""
        return self.chosen_engine or LocalPool(self.params.workers)

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
    def artifacts_folder(self) -> Path:
        """Where stages leave their outputs."""
        return self.root / "artifacts" / self.dataset

    @property
    def folds_file(self) -> Path:
        """Where the folds are written."""
        return self.artifacts_folder / "folds.json"

    def imputer_folder(self, imputer: ImputerName) -> Path:
        """Where the pretraining of an imputer leaves its output."""
        return self.artifacts_folder / "imputers" / imputer

    def heads_folder(self, imputer: ImputerName) -> Path:
        """Where fine-tuning on an imputer leaves a folder for each variant."""
        return self.artifacts_folder / "heads" / self.outcome / imputer

    def overfit_folder(self, imputer: ImputerName) -> Path:
        """Where training without early stopping leaves a folder for each variant."""
        return self.artifacts_folder / "overfit" / self.outcome / imputer

    def variant_folder(self, variant: Variant, *, early_stopping: bool = True) -> Path:
        """Where fine-tuning, or training without early stopping, leaves the output of a variant."""
        heads = self.heads_folder(variant.imputer) if early_stopping else self.overfit_folder(variant.imputer)
        return heads / variant.name

    def assess_folder(self, imputer: ImputerName) -> Path:
        """Where the assessment of an imputer leaves its output."""
        return self.artifacts_folder / "assess" / imputer

    def rival_folder(self, rival: Rival) -> Path:
        """Where the training of a rival leaves its output."""
        return self.artifacts_folder / "rivals" / self.outcome / rival.label

    def unfinished_rival_folder(self, rival: Rival) -> Path:
        """Where training keeps the finished folds of a rival that is not complete."""
        return self.unfinished_folder / "-".join(("rivals", *self.outcome_words, rival.label))

    @property
    def rivals_results_file(self) -> Path:
        """Where the committed scores of the rivals stand."""
        return self.results_folder / "rivals.json"

    @property
    def metrics_folder(self) -> Path:
        """Where compare writes a small file of scores for each variant, which `dvc metrics` shows."""
        return self.root / "metrics" / self.dataset

    @property
    def plots_folder(self) -> Path:
        """Where compare writes the tables that `dvc plots` draws."""
        return self.root / "plots" / self.dataset

    @property
    def unfinished_folder(self) -> Path:
        """Where training keeps the folds of variants and imputers that are not complete."""
        return self.artifacts_folder / UNFINISHED

    @property
    def is_of_pipeline(self) -> bool:
        """Whether the outcome is the one that `dvc repro` trains for: metrics/ and plots/ have this one alone."""
        named, known = self.params.outcome, outcome_names(self.cohort_folder)
        if named and known and named not in known:
            return False
        return self.outcome == chosen_outcome(self.cohort_folder, named)

    def unfinished_variant_folder(self, variant: Variant, stage: str = "finetune") -> Path:
        """Where training keeps the finished folds of a variant that is not complete."""
        return self.unfinished_folder / "-".join((stage, *self.outcome_words, variant.imputer, variant.name))

    @property
    def outcome_words(self) -> tuple[str, ...]:
        """The outcome where names show it: nothing for in_hospital_death, which older names do not have either."""
        return () if self.outcome == DEFAULT_OUTCOME else (self.outcome,)

    @property
    def notes_folder(self) -> Path:
        """Where running commands leave their notes: in the project whose store has the runs, also for an experiment."""
        return (owner_of(self.root) or self.root) / "artifacts" / self.dataset / UNFINISHED / "runs"

    @property
    def dataset_results_folder(self) -> Path:
        """Where the committed errors of imputers stand, which serve all outcomes.

        The results of cross-validation stand in the dataset's folder, those of another protocol in one in it, so that
        no table mixes them.
        """
        return self.root / "results" / self.dataset / self.division.folder

    @property
    def results_folder(self) -> Path:
        """Where compare writes its tables: the dataset's folder, or one in it if the outcome is another."""
        return self.dataset_results_folder.joinpath(*self.outcome_words)

    def variant_results_folder(self, imputer: ImputerName) -> Path:
        """Where the committed scores of an imputer's variants stand, a file for each."""
        return self.results_folder / "variants" / imputer

    def variant_results_file(self, variant: Variant) -> Path:
        """Where the committed scores of a variant stand."""
        return self.variant_results_folder(variant.imputer) / f"{variant.name}.json"

    def imputer_results_file(self, imputer: ImputerName) -> Path:
        """Where the committed errors of an imputer stand."""
        return self.dataset_results_folder / "imputers" / f"{imputer}.json"

    def assessment_results_file(self, imputer: ImputerName) -> Path:
        """Where the committed scores of an imputer's assessment stand."""
        return self.dataset_results_folder / "assessments" / f"{imputer}.json"

    def settings(self, *sections: str) -> Settings:
        """Return sections of params.yaml as plain values, with the dataset's budget and the folds beside them."""
        chosen: Settings = self.params.model_dump(include=set(sections), mode="json")
        return chosen | {"budget": self.budget.model_dump(), "folds": self.fold_settings}

    @property
    def fold_settings(self) -> Settings:
        """The settings under folds that have an effect; of external also the sizes of the two cohorts, if data/ is."""
        found = self.params.folds.in_effect
        return found if self.params.folds.protocol != "external" else found | _joined_cohorts(self.cohort_folder)

    @property
    def division(self) -> Division:
        """The protocol that params.yaml has now."""
        return Division.of(self.fold_settings)


@dataclass(frozen=True, eq=False)
class DividedCohort:
    """A cohort as read for a stage, with its folds and where both come from.

    origin: of imputers, with the counts of the cohort's first outcome.
    """

    cohort: Cohort
    folds: list[Fold]
    origin: Origin

    def for_outcome(self, name: str) -> "DividedCohort":
        """Return the same with another outcome chosen; UserError if the cohort does not have it."""
        return replace(self, cohort=self.cohort.with_outcome(name))

    @cached_property
    def labelled_folds(self) -> list[Fold]:
        """The folds without stays that have no label of the outcome; UserError where one value is left."""
        return [labelled_fold(fold, self.cohort) for fold in self.folds]

    @property
    def head_origin(self) -> Origin:
        """Where the heads of the chosen outcome come from: its labels, and the numbers of labelled stays and events."""
        counts = {"stays": int(self.cohort.labelled_N.sum()), "events": self.cohort.events}
        outcome = {"outcome": self.cohort.outcome, "outcome_hash": outcome_hash(self.cohort)}
        return self.origin.model_copy(update=counts | outcome)

    @property
    def numbers(self) -> list[int]:
        """The numbers of the folds."""
        return [fold.number for fold in self.folds]


@contextmanager
def exclusive(path: Path, doing: str) -> Iterator[None]:
    """Hold a lock file for the block; the system releases it when the process ends, however it ends.

    Raises UserError, saying what is being done, when another process holds it, or when the system refuses to write it.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another command is {doing}: wait until it ends, or stop it; then run this command again"
        ) from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(f"cannot write in {path.parent}: {reason}; free the disk or ask for permission") from error
    try:
        yield
    finally:
        lock.release()


def _check_known(root: Path, params: Params) -> None:
    """Raise UserError for a dataset without a budget; if data/ lacks it too, with the cohorts that are there."""
    name, data = params.dataset, root / "data"
    if name not in params.budget and not (data / name).is_dir():
        cohorts = sorted(path.parent.name for path in data.glob("*/source.json"))
        there = f"there {'is' if len(cohorts) == 1 else 'are'} {', '.join(cohorts)}" if cohorts else "there is none yet"
        raise UserError(
            f"there is no cohort {name!r} in data/{near_miss(name, cohorts)}: {there}; `imputune extract` makes one"
        )
    params.budget_of(name)


def read_divided_cohort(project: Project) -> DividedCohort:
    """Read the project's cohort and its folds; see `read_cohort` and `read_folds` for the errors."""
    cohort = read_cohort(project.cohort_folder)
    digest = cohort_hash(project.cohort_folder)
    folds = read_folds(project.folds_file, cohort, digest, project.params.folds, project.params.seed)
    origin = Origin(
        dataset=project.dataset,
        cohort_hash=digest,
        folds_hash=folds_hash(project.folds_file),
        variables=cohort.variable_names,
        stays=len(cohort.outcome_N),
        events=cohort.events,
        outcome=cohort.outcome,
        seed=project.params.seed,
    )
    return DividedCohort(cohort, folds, origin)


def _joined_cohorts(folder: Path) -> Settings:
    """Return the two cohorts that the cohort in a folder was joined from, nothing if there is no such cohort."""
    try:
        source = json.loads((folder / "source.json").read_bytes())
        return {COHORTS: source[COHORTS]}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def imputer_settings(project: Project, imputer: ImputerName) -> Settings:
    """Return the sections of params.yaml that a pretrained imputer depends on."""
    pypots = imputer_kind(imputer).family == "pypots"
    return project.settings(*(name for name in IMPUTER_SECTIONS if name != "pypots" or pypots))


def variant_settings(project: Project, variant: Variant) -> Settings:
    """Return the sections of params.yaml that a variant depends on."""
    params = project.params
    if variant.is_blend:
        return {"blend": params.blend.model_dump(mode="json"), "folds": project.fold_settings}
    settings = imputer_settings(project, variant.imputer)
    if not variant.is_neural:
        head = getattr(params.non_neural, variant.head)
        settings["non_neural"] = {variant.head: head.model_dump(mode="json")}
        del settings["budget"]
        return settings
    frozen = variant.mode == "frozen"
    settings["heads"] = params.heads.model_dump(mode="json")
    without_effect = set(UNFROZEN_ONLY) if frozen else set[str]()
    if variant.record_parts:
        settings["record_heads"] = params.record_heads.model_dump(mode="json")
        without_effect |= {"dropout", "weight_decay"}  # record_heads has its own
    settings["finetune"] = params.finetune.model_dump(mode="json", exclude=without_effect)
    settings["budget"] = project.budget.model_dump(
        exclude={"pretrain_epochs", "unfrozen_epochs"} if frozen else {"pretrain_epochs"}
    )
    schedule = getattr(params.schedules, variant.schedule)
    excluded = {"unfrozen_scope"} if frozen else None
    settings["schedules"] = {variant.schedule: schedule.model_dump(mode="json", exclude=excluded)}
    return settings


def rival_settings(project: Project, rival: Rival) -> Settings:
    """Return the sections of params.yaml that a rival depends on."""
    params = project.params
    trained = {"epochs", "patience", "rates", "rate_epochs", rival.name}
    finetune = {"batch_size", "gradient_norm", "average_decay", "dropout", "weight_decay"}
    settings: Settings = {
        "rivals": params.rivals.model_dump(mode="json", include=trained),
        "heads": params.heads.model_dump(mode="json"),
        "scaling": params.scaling.model_dump(mode="json"),
        "folds": project.fold_settings,
    }
    if rival.reads_static:
        settings["record_heads"] = params.record_heads.model_dump(mode="json")
        finetune -= {"dropout", "weight_decay"}  # record_heads has its own
    settings["finetune"] = params.finetune.model_dump(mode="json", include=finetune)
    return settings
