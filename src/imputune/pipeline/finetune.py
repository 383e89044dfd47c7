"""The command finetune: train one variant on every fold, anew."""

from imputune.pipeline.project import Project
from imputune.pipeline.variant_training import Say, train_variants
from imputune.pipeline.variant_work import FinetuneRequest, VariantResult
from imputune.protocol.variants import Variant


def run_finetune(project: Project, variant: Variant, say: Say) -> VariantResult:
    """Fine-tune a variant; see `train_variants` for the errors."""
    [result] = train_variants(project, FinetuneRequest(variants=[variant], again=True), say, one_run=False)
    return result
