"""The command grid: fine-tune many variants over the cores, skipping what is finished."""

from collections.abc import Mapping, Sequence

from imputune.pipeline.project import Project
from imputune.pipeline.variant_training import Say, train_variants
from imputune.pipeline.variant_work import FinetuneRequest, VariantResult
from imputune.protocol.variants import Variant


def run_grid(
    project: Project,
    variants: Sequence[Variant],
    say: Say,
    *,
    options: Mapping[str, str],
    folds: Sequence[int] | None = None,
    again: bool = False,
) -> list[VariantResult]:
    """Fine-tune variants, all folds or some, unless they are finished; see `train_variants` for the errors.

    options: of the command, by name, with which it chooses these variants and folds again.
    """
    request = FinetuneRequest(variants=variants, folds=folds, again=again, options=options)
    return train_variants(project, request, say)
