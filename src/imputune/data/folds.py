"""Stratified, patient-disjoint divisions of a cohort into folds, drawn once and written to a file."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError

from imputune.data.cohort import Cohort
from imputune.data.outcome_file import NO_LABEL
from imputune.errors import UserError
from imputune.files import replace_text
from imputune.protocol.outcome_words import outcome_words
from imputune.settings.fold_sections import External, Folds, SingleSplit
from imputune.settings.names import SplitName

SPLITS: tuple[SplitName, ...] = get_args(SplitName)
CHECKED = ".checked"
COHORTS = "cohorts"
"""The key of a joined cohort's source.json that has a list of the two cohorts' names and numbers of stays."""


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
    """The content of folds.json; division: the settings in effect, None for cross-validation."""

    dataset: str
    cohort_hash: str
    division: dict[str, JsonValue] | None = None
    folds: list[_FoldIds]


class _Checked(BaseModel, frozen=True):
    """What a folds file was compared with when it was found to have the folds that these draw."""

    folds_hash: str
    cohort_hash: str
    settings: Folds
    seed: int

    def is_noted(self, path: Path) -> bool:
        """Say whether just this is noted beside a folds file."""
        with suppress(OSError, ValueError):
            return path.with_suffix(CHECKED).read_text() == self.model_dump_json()
        return False

    def note(self, path: Path) -> None:
        """Note it beside a folds file, unless the folder may not be written."""
        with suppress(OSError, UserError):
            replace_text(path.with_suffix(CHECKED), self.model_dump_json())


def divide(cohort: Cohort, settings: Folds, seed: int) -> list[Fold]:
    """Divide a cohort's stays by the protocol in params.yaml; each split of a protocol without folds is one fold.

    seed: of cross_validation; the other protocols have seeds of their own. Raises UserError as `draw_folds`,
    `draw_splits` and `draw_external` do.
    """
    match settings.protocol:
        case "cross_validation":
            return draw_folds(cohort, settings.count, seed)
        case "single_split":
            return draw_splits(cohort, settings.single_split)
        case "external":
            return draw_external(cohort, settings.external)


def draw_folds(cohort: Cohort, count: int, seed: int) -> list[Fold]:
    """Divide a cohort's stays into `count` subsets; fold k tests on subset k, validates on k + 1, trains on the others.

    All stays of a subject are in one subset. The subsets are stratified by the cohort's first outcome, and serve all
    its outcomes; stays without a label are spread evenly too.

    Raises UserError if there are too few stays, subjects, events or non-events for every subset to have one.

    Source: paper, section V.D. It has no validation stays of its own; here one subset is taken from the training stays,
    so that no choice depends on test stays.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # 2 s to load, and most commands only read folds

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


def draw_splits(cohort: Cohort, settings: SingleSplit) -> list[Fold]:
    """Divide a cohort's stays at random by fractions, anew for each seed: fold k is the split of the k-th seed.

    All stays of a subject are in one part. The parts are stratified by the cohort's first outcome, as those of
    `draw_folds` are: within events, non-events and stays without a label, each part has its fraction to within one
    stay, or one subject's stays.

    Raises UserError if a part has no event or no non-event.
    """
    fractions = settings.fractions.model_dump()
    rows = np.arange(len(cohort.stay_ids_N))
    remedy = "extract more records, or change folds.single_split.fractions in params.yaml"
    folds = []
    for number, seed in enumerate(settings.seeds):
        parts = dict(zip(fractions, _parts(cohort, rows, list(fractions.values()), seed), strict=True))
        _check_parts(cohort, parts, seed, remedy)
        folds.append(Fold(number=number, **parts))
    return folds


def draw_external(cohort: Cohort, settings: External) -> list[Fold]:
    """Test on all stays of the second of two joined cohorts; divide the first at random, anew for each seed.

    The first cohort's stays are divided into training and validation stays as `draw_splits` does.

    Raises UserError if the cohort is not joined from two, or a part has no event or no non-event.
    """
    cohorts = cohort.source.get(COHORTS)
    if not isinstance(cohorts, list):
        raise UserError(
            f"cohort {cohort.dataset} is of one source, and folds.protocol external needs two: "
            "run `imputune extract joined --train FOLDER --test FOLDER`, or choose another protocol in params.yaml"
        )
    [_, first], _ = TypeAdapter(list[tuple[str, int]]).validate_python(cohorts)
    test = np.arange(first, len(cohort.stay_ids_N))
    remedy = "extract more records, or change folds.external.validation in params.yaml"
    folds = []
    for number, seed in enumerate(settings.seeds):
        train, validation = _parts(cohort, np.arange(first), [1 - settings.validation, settings.validation], seed)
        parts = {"train": train, "validation": validation, "test": test}
        _check_parts(cohort, parts, seed, remedy)
        folds.append(Fold(number=number, **parts))
    return folds


def _parts(cohort: Cohort, row_M: np.ndarray, fractions: Sequence[float], seed: int) -> list[np.ndarray]:
    """Divide rows of a cohort at random into parts by fractions, whole subjects, stratified by the first outcome.

    A subject counts to the events if one of its stays has label 1, else to the non-events if one has label 0.
    """
    label_N = next(iter(cohort.outcomes.values()))
    subject_N, place_M = np.unique(cohort.subjects_N[row_M], return_inverse=True)
    stratum_N = np.full(len(subject_N), NO_LABEL)
    np.maximum.at(stratum_N, place_M, label_N[row_M])
    stays_N = np.bincount(place_M, minlength=len(subject_N))
    generator = np.random.default_rng(seed)
    part_N = np.empty(len(subject_N), dtype=np.int64)
    for stratum in (1, 0, NO_LABEL):
        drawn = generator.permutation(np.flatnonzero(stratum_N == stratum))
        ends = np.round(np.cumsum(fractions) * stays_N[drawn].sum())
        middles = np.cumsum(stays_N[drawn]) - stays_N[drawn] / 2  # a subject is where the middle of its stays is
        part_N[drawn] = np.searchsorted(ends[:-1], middles)
    return [row_M[part_N[place_M] == part] for part in range(len(fractions))]


def _check_parts(cohort: Cohort, parts: dict[str, np.ndarray], seed: int, remedy: str) -> None:
    """Raise UserError if a part has no event or no non-event of the cohort's first outcome."""
    name, label_N = next(iter(cohort.outcomes.items()))
    words = outcome_words(name)
    for split, row_M in parts.items():
        for what, label in ((words.events, 1), (words.non_events, 0)):
            if not (label_N[row_M] == label).any():
                total = int((label_N == label).sum())
                raise UserError(
                    f"cohort {cohort.dataset} has {total} {what}, and none is among the {len(row_M):,} {split} stays "
                    f"of seed {seed}: {remedy}"
                )


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
                "only: extract more records, change folds in params.yaml, or choose another outcome"
            )
    return Fold(number=fold.number, **kept)


def write_folds(folds: list[Fold], cohort: Cohort, cohort_hash: str, path: Path, settings: Folds | None = None) -> None:
    """Write the folds as JSON: the stay ids of each split, and the hash of the cohort that they divide.

    settings: by which they were drawn; None for cross-validation.
    """
    ids = cohort.stay_ids_N
    by_fold = [_FoldIds(**{split: ids[getattr(fold, split)].tolist() for split in SPLITS}) for fold in folds]
    content = _FoldsFile(dataset=cohort.dataset, cohort_hash=cohort_hash, division=_division(settings), folds=by_fold)
    # Without a division, the file has the bytes that earlier versions wrote, so that their results stay valid.
    replace_text(path, json.dumps(content.model_dump(exclude_none=True)) + "\n")


def folds_hash(path: Path) -> str:
    """Return the sha256 of a folds file that `read_folds` could read."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_folds(path: Path, cohort: Cohort, cohort_hash: str, settings: Folds, seed: int) -> list[Fold]:
    """Read folds back as row numbers of `cohort`.

    Drawing takes a second for 4,000 stays, so folds that were found equal to the drawn ones are noted in folds.checked
    beside the file, and not drawn again while the file, the cohort, the settings and the seed are the same.

    Raises UserError if the file is missing or broken, belongs to other data than this cohort, or has other folds than
    `divide` draws with these settings and this seed.
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
    ours = _division(settings)
    if content.division != ours:
        theirs = str((content.division or {}).get("protocol", "cross_validation"))
        differing = f"{theirs}, params.yaml has {settings.protocol}" if theirs != settings.protocol else theirs
        raise UserError(f"{path} was drawn with other settings under folds ({differing}): {remedy}")
    folds = [_with_rows(k, ids, cohort.stay_ids_N) for k, ids in enumerate(content.folds)]
    checked = _Checked(folds_hash=folds_hash(path), cohort_hash=cohort_hash, settings=settings, seed=seed)
    if checked.is_noted(path):
        return folds
    drawn = divide(cohort, settings, seed)
    if len(folds) != len(drawn) or not all(map(_are_equal, folds, drawn)):
        raise UserError(f"{path} was drawn with another seed or folds.count than params.yaml now has: {remedy}")
    checked.note(path)
    return folds


def _division(settings: Folds | None) -> dict[str, JsonValue] | None:
    return None if settings is None or settings.protocol == "cross_validation" else settings.in_effect


def _with_rows(number: int, ids: _FoldIds, stay_ids_N: np.ndarray) -> Fold:
    return Fold(number=number, **{split: np.searchsorted(stay_ids_N, getattr(ids, split)) for split in SPLITS})


def _are_equal(fold: Fold, other: Fold) -> bool:
    return all(np.array_equal(getattr(fold, split), getattr(other, split)) for split in SPLITS)
