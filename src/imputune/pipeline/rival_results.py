"""The rivals that compare shows, from their committed file, and what our heads cost beside them."""

import time
from collections.abc import Iterable

import torch

from imputune.artifacts.rivals_file import RivalsFile, read_rivals_file
from imputune.data.batches import batches_in_order
from imputune.data.cohort import outcome_hash
from imputune.data.directions import Directions
from imputune.data.splits import fit_and_split
from imputune.errors import UserError
from imputune.evaluation.rival_rows import HeadCost, RivalComparison, RivalScores, compare_rivals
from imputune.evaluation.rows import VariantRow
from imputune.evaluation.significance import test_to_train
from imputune.pipeline.assembled import Assembled
from imputune.pipeline.project import DividedCohort, Project
from imputune.protocol.imputers import DEFAULT_IMPUTER
from imputune.protocol.published import quoted_references
from imputune.protocol.variants import make_variant
from imputune.training.finetune import build_classifier


def rival_comparison(found: Assembled) -> RivalComparison | None:
    """Compare the assembled heads with the rivals in the committed file; None without one.

    A file that is broken, or of other data, folds or labels, is skipped with a note.
    """
    path = found.project.rivals_results_file
    if not path.is_file():
        return None
    where = path.relative_to(found.project.root)
    try:
        file = read_rivals_file(path)
    except UserError as error:
        found.notes.append(f"{error}: rivals are skipped. Restore it with git, or run `imputune rivals` again")
        return None
    labels = found.project.outcome, outcome_hash(found.cohort) if found.cohort else file.outcome_hash
    if file.data != found.imputer.data or file.labels != labels:
        found.notes.append(f"{where} is of other data, folds, labels or another seed: rivals are skipped")
        return None
    rivals = [
        RivalScores(
            rival=each.rival,
            num_parameters=each.num_parameters,
            seconds=sum(fold.seconds for fold in each.folds),
            scores={fold.fold: fold.scores for fold in each.folds if not fold.failure},
            failures={fold.fold: fold.failure for fold in each.folds if fold.failure},
        )
        for each in file.rivals
    ]
    return compare_rivals(
        [*found.rows.values()],
        rivals,
        test_to_train(len(found.imputer.folds)),
        cost=_cost(found, file),
        references=quoted_references(found.project.dataset, found.project.outcome),
    )


def seconds_of_head(project: Project, data: DividedCohort) -> float:
    """Return the seconds for the risks of 1,000 stays by mlp2 on CSAI, reading and scaling included.

    They do not depend on the weights, which are random here. Measured on the test stays of the first fold.
    """
    fold = fit_and_split(data.cohort, data.labelled_folds[0], project.params.scaling.clip_quantile)
    shape, hours = data.cohort.values_NTD.shape, data.cohort.bin_hours
    classifier = build_classifier(shape, project.params, make_variant("mlp2"), bin_hours=hours).eval()
    started = time.perf_counter()
    with torch.no_grad():
        for stays in batches_in_order(len(fold.test)):
            classifier(Directions.of(*fold.test.batch(stays)))
    return (time.perf_counter() - started) * 1000 / len(fold.test)


def _cost(found: Assembled, file: RivalsFile) -> HeadCost:
    return HeadCost(
        imputer_parameters=_imputer_parameters(found.rows.values()),
        pretraining_seconds=sum(fold.seconds for fold in found.imputer.folds),
        seconds_for_1000_stays=file.head_seconds_for_1000_stays,
    )


def _imputer_parameters(rows: Iterable[VariantRow]) -> int | None:
    """Return the number of CSAI's parameters: what unfrozen training changes beside the head; None without such."""
    for row in rows:
        is_unfrozen = row.mode == "unfrozen" and row.imputer == DEFAULT_IMPUTER
        if is_unfrozen and row.trainable_parameters is not None and row.num_parameters is not None:
            return row.trainable_parameters - row.num_parameters
    return None
