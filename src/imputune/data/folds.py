"""Five stratified, patient-disjoint folds, drawn once and written to a file."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from imputune.data.cohort import Cohort
from imputune.errors import UserError
from imputune.files import replace_text

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Fold:
    """One division of a cohort: positions into its stays, each array int64 and ascending."""

    number: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def draw_folds(cohort: Cohort, count: int, seed: int) -> list[Fold]:
    """Divide a cohort into `count` folds: test = part k, validation = part k + 1, train = the remaining parts.

    Parts are stratified by outcome, and all stays of a patient fall into one part (a stay is its own patient where
    the records do not say).

    Raises UserError when there are fewer stays, deaths or survivors than every part needs to hold one.

    Source: paper, section V.D; validation is one part's worth of the rest, so that no choice sees test patients.
    """
    deaths, stays = int(cohort.died_N.sum()), len(cohort.died_N)
    for what, number in (("stays", stays), ("deaths", deaths), ("survivors", stays - deaths)):
        if number < count:
            raise UserError(
                f"cohort {cohort.dataset} has {number} {what}, too few for {count} folds: "
                "extract more records, or lower folds.count in params.yaml"
            )
    splitter = StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=seed)
    parts = [part for _, part in splitter.split(cohort.died_N, cohort.died_N, cohort.stay_ids_N)]
    return [
        Fold(
            k,
            np.sort(np.concatenate([parts[(k + i) % count] for i in range(2, count)])),
            parts[(k + 1) % count],
            parts[k],
        )
        for k in range(count)
    ]


def write_folds(folds: list[Fold], cohort: Cohort, cohort_hash: str, path: Path) -> None:
    """Write the folds as JSON: stay ids per part, and the hash of the cohort they divide."""
    ids = cohort.stay_ids_N
    content = {
        "dataset": cohort.dataset,
        "cohort_hash": cohort_hash,
        "folds": [{name: ids[getattr(fold, name)].tolist() for name in PARTS} for fold in folds],
    }
    replace_text(path, json.dumps(content) + "\n")


def folds_hash(path: Path) -> str:
    """Return the sha256 of a folds file that `read_folds` could read."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_folds(path: Path, cohort: Cohort, cohort_hash: str, count: int, seed: int) -> list[Fold]:
    """Read folds back as positions into `cohort`.

    Raises UserError when the file is missing or broken, divides other data than this cohort, or otherwise than
    `draw_folds` does with this count and seed.
    """
    remedy = f"run `imputune folds {cohort.dataset}` (or `dvc repro`)"
    if not path.is_file():
        raise UserError(f"no folds for {cohort.dataset} ({path} is missing): {remedy}")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        divided_hash = content["cohort_hash"]
        parts = [[np.array(fold[name]) for name in PARTS] for fold in content["folds"]]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is broken: {remedy}") from None
    if divided_hash != cohort_hash:
        raise UserError(f"{path} divides other data than data/{cohort.dataset} now holds: {remedy}")
    ids = cohort.stay_ids_N
    folds = [Fold(k, *(np.searchsorted(ids, part) for part in fold)) for k, fold in enumerate(parts)]
    drawn = draw_folds(cohort, count, seed)
    if len(folds) != len(drawn) or not all(map(_same, folds, drawn)):
        raise UserError(f"{path} was drawn with another seed or folds.count than params.yaml now has: {remedy}")
    return folds


def _same(fold: Fold, other: Fold) -> bool:
    return all(np.array_equal(getattr(fold, part), getattr(other, part)) for part in PARTS)
