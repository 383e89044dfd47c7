"""The command finetune: train one variant on every fold, anew."""

import os

from imputune.errors import UserError
from imputune.pipeline.project import Project
from imputune.pipeline.variant_training import Say, train_variants
from imputune.pipeline.variant_work import FinetuneRequest, VariantResult
from imputune.protocol.variants import Variant


def run_finetune(project: Project, variant: Variant, say: Say) -> VariantResult:
    """Fine-tune a variant; see `train_variants` for the errors.

    Raises UserError also for a blend that `dvc repro` makes, if dvc.yaml does not name all its members.
    """
    if variant.is_blend and "DVC_STAGE" in os.environ:
        _check_members_are_named(project)
    [result] = train_variants(project, FinetuneRequest(variants=[variant], again=True), say, one_run=False)
    return result


def _check_members_are_named(project: Project) -> None:
    """Refuse a blend that DVC would not make again after a change in one of its members.

    DVC cannot take a list of deps from params.yaml, so dvc.yaml names each member by its place.
    """
    text = (project.root / "dvc.yaml").read_text(encoding="utf-8")
    for place, member in enumerate(project.params.blend.members):
        if f"blend.members[{place}]" not in text and f"/{member}" not in text:
            path = f"artifacts/${{item.dataset}}/heads/${{outcome}}/${{blend.members[{place}]}}"
            raise UserError(f'dvc.yaml does not name {member} at stage finetune_blend: add "{path}" to its deps')
