"""Pretrained imputers and finished outputs that fine-tuning and assessment read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from imputune.artifacts.stage_files import (
    PREDICTIONS,
    RESULT,
    booster_files,
    find_training,
    read_training,
    read_weights,
    weights_file,
)
from imputune.artifacts.stage_output import FurtherCohort, MadeFrom, Origin, Settings, TrainingOutput
from imputune.errors import UserError
from imputune.pipeline.project import DividedCohort, Project, variant_settings
from imputune.protocol.imputers import DEFAULT_IMPUTER, IMPUTERS, check_installed, is_own, order_of
from imputune.protocol.variants import Variant
from imputune.settings.names import OWN_NAME, ImputerName


@dataclass(frozen=True, eq=False, kw_only=True)
class PretrainedImputer:
    """An imputer in artifacts, its weights by fold, and the project with the settings it was pretrained with."""

    name: ImputerName
    project: Project
    data: DividedCohort
    output: TrainingOutput
    weights: dict[int, dict[str, torch.Tensor]]
    also: tuple[FurtherCohort, ...] = ()

    @property
    def run_id(self) -> str:
        """The run that pretrained it."""
        return self.output.run_id

    @classmethod
    def read(cls, project: Project, data: DividedCohort, name: ImputerName) -> Self:
        """Read an imputer.

        Raises UserError when it was not pretrained, was trained on other variables, data or folds, or its package is
        not installed.
        """
        check_installed(name)
        folder, remedy = project.imputer_folder(name), pretrain_first(project.dataset, name)
        output = read_imputer(project, name, remedy)
        data.origin.check(output.made_from, folder, remedy)
        weights = {fold.number: read_weights(folder, fold.number) for fold in data.folds}
        return cls(
            name=name,
            project=project.with_imputer(output.made_from.settings),
            data=data,
            output=output,
            weights=weights,
            also=output.made_from.also,
        )

    def variant_made_from(
        self, variant: Variant, stage: str = "finetune", members: Mapping[str, str] | None = None
    ) -> MadeFrom:
        """Return what a variant's output would be made from now; `members` are a blend's, see `MadeFrom`."""
        return MadeFrom.at(
            self.data.head_origin,
            stage=stage,
            imputer=self.name,
            imputer_run_id=self.run_id,
            variant=variant,
            settings=variant_settings(self.project, variant),
            also=self.also,
            members=dict(members or {}),
        )


def assessment_made_from(project: Project, origin: Origin, imputer: ImputerName, imputer_run_id: str) -> MadeFrom:
    """Return what an imputer's assessment would be made from now; `imputer_run_id` is the run that pretrained it."""
    settings = assess_settings(project)
    return MadeFrom.at(origin, stage="assess", imputer=imputer, imputer_run_id=imputer_run_id, settings=settings)


def assess_settings(project: Project) -> Settings:
    """Return the sections of params.yaml that an assessment depends on."""
    settings: Settings = project.params.model_dump(include={"assess", "masking"}, mode="json")
    settings["assess"] = project.params.assess.model_dump(exclude={"ranking"}, mode="json")  # it changes no score
    return settings


def read_imputer(project: Project, name: ImputerName, remedy: str) -> TrainingOutput:
    """Read the output of an imputer's pretraining.

    Raises UserError with the remedy when it is missing, broken, or was left by an earlier version.
    """
    folder = project.imputer_folder(name)
    if earlier := _earlier_output(project, name):
        raise UserError(f"{earlier} was written by an earlier version, outputs are now in {folder}: {remedy}")
    return read_training(folder, remedy)


def pretrained_imputers(project: Project) -> list[ImputerName]:
    """Return the imputers with an output of their pretraining, of this version or an earlier one, in their order."""
    own = [path.parent.name for path in (project.artifacts_folder / "imputers").glob(f"csai_*/{RESULT}")]
    return sorted(
        (name for name in {*IMPUTERS, *filter(OWN_NAME.fullmatch, own)} if was_pretrained(project, name)), key=order_of
    )


def was_pretrained(project: Project, name: ImputerName) -> bool:
    """Say whether there is an output of an imputer's pretraining, of this version or an earlier one."""
    return (project.imputer_folder(name) / RESULT).is_file() or _earlier_output(project, name) is not None


def _earlier_output(project: Project, name: ImputerName) -> Path | None:
    """Return the folder in which earlier versions kept CSAI, if it is there and nothing has replaced it."""
    earlier = project.artifacts_folder / DEFAULT_IMPUTER
    is_there = name == DEFAULT_IMPUTER and earlier.is_dir()
    return earlier if is_there and not project.imputer_folder(name).exists() else None


def pretrain_first(dataset: str, imputer: ImputerName) -> str:
    """Return what to do where an imputer's output is missing."""
    if imputer == DEFAULT_IMPUTER:
        return f"run `imputune pretrain {dataset}` (or `dvc repro`) first"
    if is_own(imputer):
        return (
            f"name its further cohorts under also in params.yaml and run `imputune pretrain {dataset} --imputer "
            f"{imputer}` first, or `imputune pretrain {dataset} --also FOLDER --name {imputer}`"
        )
    return f"run `imputune pretrain {dataset} --imputer {imputer}` first"


def finished_output(folder: Path, made_from: MadeFrom) -> TrainingOutput | None:
    """Return a variant's output if it is complete and was made from what `made_from` says, else None."""
    output = find_training(folder)
    if output is None:
        return None
    files = [folder / PREDICTIONS]
    if output.made_from.variant is not None and output.made_from.variant.has_weights:
        files += [weights_file(folder, fold.fold) for fold in output.folds]
    for fold in output.folds:
        boosters = booster_files(folder, fold.fold, len(fold.boosters_sha256))
        files += [weights_file(folder, fold.fold), *boosters] if boosters else []
    same = not output.made_from.differences(made_from)
    return output if same and all(map(Path.is_file, files)) else None
