"""The members of a blend: where their outputs are, and whether they are finished."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imputune.artifacts.stage_files import PREDICTIONS, find_training, read_fold
from imputune.artifacts.stage_output import MadeFrom, TrainedFold, TrainingOutput
from imputune.errors import UserError
from imputune.pipeline.inputs import PretrainedImputer, finished_output
from imputune.pipeline.project import Project
from imputune.protocol.variants import Variant, variant_of_label
from imputune.settings.names import ImputerName


@dataclass(frozen=True, eq=False, kw_only=True)
class BlendMember:
    """A member of a blend.

    made_from: what its output would be made from now. output: that of its fine-tuning; None if it is not finished, or
    was made from other data, folds or settings.
    """

    variant: Variant
    imputer: PretrainedImputer
    folder: Path
    made_from: MadeFrom
    output: TrainingOutput | None

    @classmethod
    def find(cls, variant: Variant, imputer: PretrainedImputer) -> "BlendMember":
        """Look up what there is of a variant."""
        folder, made_from = imputer.project.variant_folder(variant), imputer.variant_made_from(variant)
        output = finished_output(folder, made_from)
        return cls(variant=variant, imputer=imputer, folder=folder, made_from=made_from, output=output)

    @property
    def digest(self) -> str:
        """A text that differs where the member was made from something else; see `MadeFrom.digest`."""
        return (self.output.made_from if self.output else self.made_from).digest

    def fold(self, number: int, *, with_weights: bool = False) -> TrainedFold:
        """Read one of its finished folds; ValueError if it is not finished."""
        if self.output is None:
            raise ValueError(f"{self.variant.label} must be finished")
        return read_fold(self.folder, self.output, number, with_weights=with_weights)

    def check_finished(self, blend: str) -> None:
        """Raise UserError, saying what to run, if the member is not finished."""
        if self.output is not None:
            return
        label, variant = self.variant.label, self.variant
        command = f"imputune finetune {self.imputer.project.dataset} --head {variant.head} --input {variant.input}"
        if self.imputer.project.outcome_words:
            command += f" --outcome {self.imputer.project.outcome}"
        command += f" --mode {variant.mode} --schedule {variant.schedule} --imputer {variant.imputer}"
        found = find_training(self.folder)
        if found is None:
            raise UserError(f"{blend} combines {label}, which is not fine-tuned yet: run `{command}` first")
        names = found.made_from.differences(self.made_from)
        if not names:
            raise UserError(f"{blend} combines {label}, but {self.folder / PREDICTIONS} is missing: run `{command}`")
        words = {
            "cohort_hash": "data",
            "outcome_hash": "labels",
            "folds_hash": "folds",
            "imputer_run_id": "pretraining of the imputer",
        }
        what = [word for name, word in words.items() if name in names] or [f"settings ({', '.join(names)})"]
        raise UserError(
            f"{blend} combines {label}, which was fine-tuned with other {' and '.join(what)}: run `{command}` again"
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class FinishedMember:
    """A member of a finished blend: its output, and where it is."""

    folder: Path
    output: TrainingOutput

    def folds(self) -> list[TrainedFold]:
        """Read its fold models; raises UserError as `read_fold` does."""
        return [read_fold(self.folder, self.output, fold.fold) for fold in self.output.folds]


def finished_members(project: Project, blend: MadeFrom) -> tuple[FinishedMember, ...]:
    """Return the members that a finished blend was made of, in its order.

    Raises UserError if one is missing, or was fine-tuned with other data or settings since.
    """
    members = []
    for label, digest in blend.members.items():
        folder = project.variant_folder(variant_of_label(label))
        output = find_training(folder)
        if output is None or output.made_from.digest != digest:
            what = "is missing" if output is None else "was fine-tuned with other data or settings since"
            raise UserError(f"{label}, a member of the blend, {what}: run `imputune finetune --head blend` again")
        members.append(FinishedMember(folder=folder, output=output))
    return tuple(members)


def find_members(
    variants: Sequence[Variant], imputers: Mapping[ImputerName, PretrainedImputer]
) -> tuple[BlendMember, ...]:
    """Look up what there is of a blend's members, in their order."""
    return tuple(BlendMember.find(variant, imputers[variant.imputer]) for variant in variants)
