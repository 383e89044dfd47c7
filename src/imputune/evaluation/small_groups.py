"""Which subgroups, and which numbers of stays, may be told: those of a small group could point at a patient.

Letters: N stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from imputune.evaluation.subgroups import GroupScores, Subgroup, subgroups

GROUP_STAYS = 10  # a subgroup with fewer is not shown
GROUP_EVENTS = 5  # a subgroup with fewer stays with the outcome, or fewer without it, is not shown
POINT_STAYS = 5  # a curve with fewer stays at a point, or between two, is not shown: it would tell of single stays


@dataclass(frozen=True, kw_only=True)
class ShownSubgroups:
    """The subgroups of a cohort that are large enough, and whether the counts of each may be told.

    some_left_out: whether another one is too small.
    """

    shown: tuple[tuple[Subgroup, bool], ...]
    some_left_out: bool

    @classmethod
    def of(cls, static: pd.DataFrame, outcome_N: np.ndarray) -> "ShownSubgroups":
        """Divide stays by ICU type, sex and age; static has a row for each stay, outcome_N is 0/1, (N,)."""
        _, *divided = subgroups(static, len(outcome_N))
        counts = [(int(each.member_N.sum()), int(outcome_N[each.member_N].sum())) for each in divided]
        told: dict[str, list[bool]] = {}
        for name in dict.fromkeys(each.group for each in divided):
            told[name] = countable([of for each, of in zip(divided, counts, strict=True) if each.group == name])
        shown = [
            (each, told[each.group].pop(0), is_large_enough(*of)) for each, of in zip(divided, counts, strict=True)
        ]
        return cls(
            shown=tuple((each, is_told) for each, is_told, is_shown in shown if is_shown),
            some_left_out=not all(is_shown for _, _, is_shown in shown),
        )


def without_small_groups(
    scores: Sequence[GroupScores], static: pd.DataFrame, outcome_N: np.ndarray
) -> tuple[GroupScores, ...]:
    """Return the scores of a cohort, as `subgroups.score_cohort` gave them, as far as a file may have them.

    Subgroups whose counts may not be told are left out. So are calibration curves with a point of fewer than
    POINT_STAYS stays. static has a row for each stay, outcome_N is 0/1, (N,).
    """
    told = {(each.group, each.level) for each, is_told in ShownSubgroups.of(static, outcome_N).shown if is_told}
    every, *divided = scores
    return tuple(
        each
        if all(point.stays >= POINT_STAYS for point in each.calibration)
        else each.model_copy(update={"calibration": ()})
        for each in (every, *(group for group in divided if (group.group, group.level) in told))
    )


def is_large_enough(stays: int, events: int) -> bool:
    """Say whether a group may be shown: at least ten stays, five with the outcome and five without it."""
    return stays >= GROUP_STAYS and min(events, stays - events) >= GROUP_EVENTS


def countable(groups: Sequence[tuple[int, int]]) -> list[bool]:
    """Return for each group whether its counts may be told.

    groups: stays and events of groups that together are a whole cohort, whose counts are known. If one group alone were
    hidden, a reader could subtract the others from the whole. So if a small group is hidden, the counts of the smallest
    other groups are hidden too, one after the other. This ends when two groups or more are hidden, and their sum is
    large enough to be shown.
    """
    told = [is_large_enough(*group) for group in groups]
    if all(told):
        return told
    for place in sorted(range(len(groups)), key=lambda place: groups[place]):
        untold = [group for group, is_told in zip(groups, told, strict=True) if not is_told]
        together = sum(stays for stays, _ in untold), sum(events for _, events in untold)
        if len(untold) > 1 and is_large_enough(*together):
            break
        told[place] = False
    return told
