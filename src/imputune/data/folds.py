"""Stratified, patient-disjoint folds, drawn once and written to a file."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from pydantic import BaseModel, ValidationError
from sklearn.model_selection import StratifiedGroupKFold

from imputune.data.cohort import Cohort
from imputune.data.outcome_file import NO_LABEL
from imputune.errors import UserError
from imputune.files import replace_text
from imputune.protocol.outcome_words import outcome_words
from imputune.settings.names import SplitName

SPLITS: tuple[SplitName, ...] = get_args(SplitName)


@dataclass(frozen=True, eq=False, kw_only=True)
class Fold:
    """One division of a cohort into splits: row numbers of its stays, each array int64 and ascending."""

    number: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class _FoldIds(BaseModel, frozen=True, extra="forbid"):
    """The stay ids of each split of a fold."""

    train: list[int]
    validation: list[int]
    test: list[int]


class _FoldsFile(BaseModel, frozen=True, extra="forbid"):
    """The content of folds.json."""

    dataset: str
    cohort_hash: str
    folds: list[_FoldIds]


def draw_folds(cohort: Cohort, count: int, seed: int) -> list[Fold]:
    """Divide a cohort's stays into `count` subsets; fold k tests on subset k, validates on k + 1, trains on the others.

    All stays of a subject are in one subset. The subsets are stratified by the cohort's first outcome, and serve all
    its outcomes; stays without a label are spread evenly too.

    Raises UserError if there are too few stays, subjects, events or non-events for every subset to have one.

    Source: paper, section V.D. It has no validation stays of its own; here one subset is taken from the training stays,
    so that no choice depends on test stays.
    """
    name, label_N = next(iter(cohort.outcomes.items()))
    words, subject_N = outcome_words(name), cohort.subjects_N
    stays, subjects = len(label_N), len(np.unique(subject_N))
    events, non_events = int((label_N == 1).sum()), int((label_N == 0).sum())
    shown = {
        f"{stays} stay{'s' * (stays != 1)}": stays,
        f"{subjects} subject{'s' * (subjects != 1)}": subjects,
        words.counted(events): events,
        words.counted_without(non_events): non_events,
    }
    for what, number in shown.items():
        if number < count:
            raise UserError(
                f"cohort {cohort.dataset} has {what}, too few for {count} folds: "
                "extract more records, or lower folds.count in params.yaml"
            )
    unlabelled_N = label_N == NO_LABEL
    stratum_N = np.where(unlabelled_N, 2 if unlabelled_N.sum() >= count else 0, label_N)
    splitter = StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=seed)
    subsets = [subset for _, subset in splitter.split(label_N, stratum_N, subject_N)]
    return [
        Fold(
            number=k,
            train=np.sort(np.concatenate([subsets[(k + i) % count] for i in range(2, count)])),
            validation=subsets[(k + 1) % count],
            test=subsets[k],
        )
        for k in range(count)
    ]


def labelled_fold(fold: Fold, cohort: Cohort) -> Fold:
    """Return the fold without the stays that have no label of the cohort's chosen outcome.

    Raises UserError if the labelled stays of a split have one value only.
    """
    labelled_N = cohort.labelled_N
    splits = {split: getattr(fold, split) for split in SPLITS}
    kept = {split: row_M[labelled_N[row_M]] for split, row_M in splits.items()}
    for split, row_M in kept.items():
        if len(set(cohort.outcome_N[row_M].tolist())) < 2:
            raise UserError(
                f"the {len(row_M):,} labelled {split} stays of fold {fold.number} have one value of {cohort.outcome} "
                "only: extract more records, lower folds.count in params.yaml, or choose another outcome"
            )
    return Fold(number=fold.number, **kept)


def write_folds(folds: list[Fold], cohort: Cohort, cohort_hash: str, path: Path) -> None:
    """Write the folds as JSON: the stay ids of each split, and the hash of the cohort that they divide."""
    ids = cohort.stay_ids_N
    by_fold = [_FoldIds(**{split: ids[getattr(fold, split)].tolist() for split in SPLITS}) for fold in folds]
    content = _FoldsFile(dataset=cohort.dataset, cohort_hash=cohort_hash, folds=by_fold)
    replace_text(path, json.dumps(content.model_dump()) + "\n")


def folds_hash(path: Path) -> str:
    """Return the sha256 of a folds file that `read_folds` could read."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_folds(path: Path, cohort: Cohort, cohort_hash: str, count: int, seed: int) -> list[Fold]:
    """Read folds back as row numbers of `cohort`.

    Raises UserError if the file is missing or broken, belongs to other data than this cohort, or has other folds than
    `draw_folds` draws with this count and seed.
    """
    remedy = f"run `imputune folds {cohort.dataset}` (or `dvc repro`)"
    if not path.is_file():
        raise UserError(f"no folds for {cohort.dataset} ({path} is missing): {remedy}")
    try:
        content = _FoldsFile.model_validate_json(path.read_bytes())
    except ValidationError:
        raise UserError(f"{path} is broken: {remedy}") from None
    if content.cohort_hash != cohort_hash:
        raise UserError(f"{path} divides other data than data/{cohort.dataset} now has: {remedy}")
    folds = [_with_rows(k, ids, cohort.stay_ids_N) for k, ids in enumerate(content.folds)]
    drawn = draw_folds(cohort, count, seed)
    if len(folds) != len(drawn) or not all(map(_are_equal, folds, drawn)):
        raise UserError(f"{path} was drawn with another seed or folds.count than params.yaml now has: {remedy}")
    return folds


def _with_rows(number: int, ids: _FoldIds, stay_ids_N: np.ndarray) -> Fold:
    return Fold(number=number, **{split: np.searchsorted(stay_ids_N, getattr(ids, split)) for split in SPLITS})


def _are_equal(fold: Fold, other: Fold) -> bool:
    return all(np.array_equal(getattr(fold, split), getattr(other, split)) for split in SPLITS)
