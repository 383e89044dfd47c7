"""The rivals that compare shows, from their committed file, and what our heads cost beside them."""

import time
from collections.abc import Iterable

import torch

from imputune.artifacts.imputer_file import ImputerFile
from imputune.artifacts.rivals_file import read_rivals_file
from imputune.data.batches import batches_in_order
from imputune.data.directions import Directions
from imputune.data.splits import fit_and_split
from imputune.errors import UserError
from imputune.evaluation.rival_rows import HeadCost, RivalComparison, RivalScores, compare_rivals
from imputune.evaluation.rows import VariantRow
from imputune.pipeline.comparison_notes import rival_settings_notes
from imputune.pipeline.project import DividedCohort, Project
from imputune.protocol.imputers import DEFAULT_IMPUTER
from imputune.protocol.published import quoted_references
from imputune.protocol.variants import make_variant
from imputune.runtime.device import choose_device
from imputune.training.finetune import build_classifier


def rival_comparison(
    project: Project, imputer: ImputerFile, rows: Iterable[VariantRow], labels_hash: str | None
) -> tuple[RivalComparison | None, list[str]]:
    """Compare variants on CSAI with the rivals in the committed file; None without one.

    imputer: CSAI itself. labels_hash: of the labels of the project's outcome; None if the cohort is not there. A file
    that is broken, or of other data, folds or labels, is skipped. Notes say why, or which rivals were made with other
    settings than params.yaml now has.
    """
    path, heads = project.rivals_results_file, list(rows)
    if not path.is_file():
        return None, []
    try:
        file = read_rivals_file(path)
    except UserError as error:
        return None, [f"{error}: rivals are skipped. Restore it with git, or run `imputune rivals` again"]
    labels = project.outcome, file.outcome_hash if labels_hash is None else labels_hash
    if file.data != imputer.data or file.labels != labels:
        where = path.relative_to(project.root)
        return None, [f"{where} is of other data, folds, labels or another seed: rivals are skipped"]
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
    cost = HeadCost(
        imputer_parameters=_imputer_parameters(heads),
        pretraining_seconds=sum(fold.seconds for fold in imputer.folds),
        seconds_for_1000_stays=file.head_seconds_for_1000_stays,
    )
    references = quoted_references(project.dataset, project.outcome)
    compared = compare_rivals(heads, rivals, imputer.division.test_to_train, cost=cost, references=references)
    return compared, list(rival_settings_notes(project, file.rivals)) if compared else []


def seconds_of_head(project: Project, data: DividedCohort) -> float:
    """Return the seconds for the risks of 1,000 stays by mlp2 on CSAI, reading and scaling included.

    They do not depend on the weights, which are random here. Measured on the test stays of the first fold, on the
    device that trains; one batch before is not timed, because a first one takes longer.
    """
    fold = fit_and_split(data.cohort, data.labelled_folds[0], project.params.scaling.clip_quantile)
    shape, hours = data.cohort.values_NTD.shape, data.cohort.bin_hours
    device = choose_device(project.params.device)
    classifier = build_classifier(shape, project.params, make_variant("mlp2"), bin_hours=hours).to(device).eval()

    def give_risks(stays: torch.Tensor) -> None:
        inputs = (each.to(device) for each in fold.test.batch(stays))
        torch.sigmoid(classifier(Directions.of(*inputs))).cpu()

    batches = list(batches_in_order(len(fold.test)))
    with torch.no_grad():
        give_risks(batches[0])
        started = time.perf_counter()
        for stays in batches:
            give_risks(stays)
    return (time.perf_counter() - started) * 1000 / len(fold.test)


def _imputer_parameters(rows: Iterable[VariantRow]) -> int | None:
    """Return the number of CSAI's parameters: what unfrozen training changes beside the head; None without such."""
    for row in rows:
        is_unfrozen = row.mode == "unfrozen" and row.imputer == DEFAULT_IMPUTER
        if is_unfrozen and row.trainable_parameters is not None and row.num_parameters is not None:
            return row.trainable_parameters - row.num_parameters
    return None
