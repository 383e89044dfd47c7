"""Further cohorts: their stays, without outcomes, train an imputer that has a name of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from imputune.artifacts.stage_output import FURTHER_COHORTS, FurtherCohort
from imputune.data.cohort import FILES, Cohort, cohort_hash, read_cohort
from imputune.data.outcome_file import NO_LABEL
from imputune.data.overlap import shared_stays, shared_words
from imputune.errors import UserError
from imputune.pipeline.project import DividedCohort, Project
from imputune.protocol.imputers import is_own
from imputune.settings.names import ImputerName

SHOWN = 3  # stay ids in a message


@dataclass(frozen=True, eq=False, kw_only=True)
class FurtherRecords:
    """A further cohort as read for training: what is told of it, its folder, and its stays without outcomes."""

    about: FurtherCohort
    folder: Path
    cohort: Cohort


def further_folders(project: Project, imputer: ImputerName, named: Sequence[Path] = ()) -> list[Path]:
    """Return the folders of an imputer's further cohorts: those `named`, or those under also in params.yaml.

    Raises UserError if an own name has none, if a name of the catalogue gets some, or if both places name some.
    """
    listed = project.params.also.get(imputer, ())
    if not is_own(imputer):
        if named:
            raise UserError(f"--also makes an imputer with a name of its own, such as --name csai_more: got {imputer}")
        return []
    if listed and named:
        raise UserError(
            f"{imputer} has its cohorts under also in params.yaml: run `imputune pretrain --imputer {imputer}`, or "
            "choose another --name"
        )
    if not listed and not named:
        known = ", ".join(project.params.also) or "none"
        raise UserError(
            f"{imputer} is not under also in params.yaml (there is {known}): add it there, or name its cohorts with "
            f"--also FOLDER --name {imputer}"
        )
    return list(named) or [project.cohort_folder.parent / name for name in listed]


def read_further(data: DividedCohort, folders: Sequence[Path]) -> tuple[FurtherRecords, ...]:
    """Read further cohorts, and forget their outcomes.

    Raises UserError for a folder that is no cohort or is named twice, for the project's own cohort, for other variables
    or units than it has, and for a stay that is in the project's cohort or in two of the folders.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a cohort folder is named twice: name each once")
    found = tuple(_read(data, folder) for folder in folders)
    if own := [each for each in found if each.about.cohort_hash == data.origin.cohort_hash]:
        raise UserError(f"{own[0].folder} is the project's own cohort: name another")
    for each in found:
        _check_apart(each, data.cohort, f"data/{data.origin.dataset}", "a stay there may be a test stay")
    for one, other in combinations(found, 2):
        _check_apart(one, other.cohort, str(other.folder), "every stay may train once")
    return found


def cohort_name(cohort: Cohort, folder: Path) -> str:
    """Return a cohort's name: its sets, or its folder's name."""
    sets = cohort.source.get("sets")
    return "-".join(map(str, sets)) if isinstance(sets, list) and sets else folder.resolve().name


def shared_with_lineage(
    project: Project, lineage: str, cohort: Cohort, digest: str
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return how many stays of a cohort pretrained a model's imputer, by further cohort, and which were not at hand.

    lineage: the version's tag of further cohorts, "" for none. A further cohort is at hand if it is a folder of data/,
    or has the cohort's own `digest`.
    """
    further = FURTHER_COHORTS.validate_json(lineage) if lineage else ()
    wanted = {each.cohort_hash for each in further} - {digest}
    folders = {cohort_hash(path.parent): path.parent for path in _sources(project)} if wanted else {}
    shared: dict[str, int] = {}
    unchecked = []
    for each in further:
        if each.cohort_hash == digest:
            count = each.stays
        elif each.cohort_hash in folders:
            count = int(shared_stays(cohort, read_cohort(folders[each.cohort_hash])).sum())
        else:
            unchecked.append(each.name)
            continue
        if count:
            shared[each.name] = shared.get(each.name, 0) + count
    return shared, tuple(unchecked)


def _sources(project: Project) -> list[Path]:
    """Return source.json of every complete cohort in data/."""
    found = project.cohort_folder.parent.glob("[!.]*/source.json")
    return [path for path in found if all((path.parent / name).is_file() for name in FILES)]


def _read(data: DividedCohort, folder: Path) -> FurtherRecords:
    cohort = read_cohort(folder)
    if cohort.variables != data.cohort.variables:
        differing = sorted({variable.name for variable in {*cohort.variables} ^ {*data.cohort.variables}})
        raise UserError(
            f"{folder} has other variables or units than data/{data.origin.dataset} "
            f"({', '.join(differing[:5]) or 'their order'}): a further cohort needs the same in the same order"
        )
    if cohort.window != data.cohort.window:
        raise UserError(
            f"{folder} has {cohort.window} and data/{data.origin.dataset} has {data.cohort.window}: a further cohort "
            "needs the same"
        )
    about = FurtherCohort(
        name=cohort_name(cohort, folder), cohort_hash=cohort_hash(folder), stays=len(cohort.stay_ids_N)
    )
    return FurtherRecords(
        about=about,
        folder=folder,
        cohort=replace(cohort, outcome_N=np.full_like(cohort.outcome_N, NO_LABEL), other_outcomes={}),
    )


def _check_apart(further: FurtherRecords, other: Cohort, where: str, why: str) -> None:
    shared_N = shared_stays(further.cohort, other)
    if shared_N.any():
        examples = ", ".join(map(str, further.cohort.stay_ids_N[shared_N][:SHOWN]))
        raise UserError(
            f"{shared_N.sum():,} of the {len(shared_N):,} stays of {further.folder} "
            f"{shared_words(further.cohort, other)} in {where} too (such as {examples}), but {why}: "
            f"leave them out of {further.folder}"
        )
