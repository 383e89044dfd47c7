"""The command overfit: train one variant without early stopping, to show when it overfits (the paper's Fig. 4)."""

from collections.abc import Sequence

from imputune.errors import UserError
from imputune.pipeline.project import Project
from imputune.pipeline.variant_training import Say, train_variants
from imputune.pipeline.variant_work import FinetuneRequest, VariantResult
from imputune.protocol.variants import PROTOCOL, Variant


def run_overfit(
    project: Project, variant: Variant, say: Say, *, epochs: int, folds: Sequence[int] | None = None
) -> VariantResult:
    """Train a neural variant for so many epochs on all folds or some; see `train_variants` for further errors.

    Raises UserError for a non-neural head.
    """
    if not variant.is_neural:
        neural = dict.fromkeys(each.head for each in PROTOCOL if each.is_neural)
        raise UserError(f"{variant.head} is a non-neural head and has no epochs: choose from {', '.join(neural)}")
    request = FinetuneRequest(variants=[variant], folds=folds, again=True, early_stopping=False)
    [result] = train_variants(project.with_epochs(epochs), request, say, one_run=False)
    return result
