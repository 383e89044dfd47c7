"""The command explain: how much each value, statistic and static fact changed the risk of one stay."""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from imputune.data.raw.binning import BinnedStays
from imputune.data.record_features import static_of
from imputune.errors import UserError
from imputune.pipeline.attribution import Attribution, attribute
from imputune.protocol.variants import record_parts
from imputune.registry.bundle import BOOSTED, Bundle, BundleAbout

VALUE, IMPUTED, STATISTICS, STATIC, HIDDEN = "value", "imputed value", "statistics", "static", "hidden state"
COLUMNS = ("Part", "Hour", "Parameter", "Value", "Attribution")


@dataclass(frozen=True, eq=False, kw_only=True)
class Explanation:
    """How a stay's risk came about, mean over fold models; in a recalibrated version, scaled to the recalibrated risk.

    baseline_risk: the risk without what is explained; `baseline` says in words whose risk it is. table: COLUMNS, a row
    for each part of the risk. Part is one of: value, an observed cell; imputed value, a missing cell that the head
    reads as a feature; statistics, all statistics of a variable; static, a fact; hidden state, all of it. Hour, when a
    cell's bin begins, is missing but for cells. Value is in the variable's unit, NaN for what has none. Attributions
    sum to risk - baseline_risk, up to `gap`. bins: in how many bins each variable was observed. bin_hours: the length
    of a bin.
    """

    stay_id: int
    risk: float
    baseline_risk: float
    baseline: str
    table: pd.DataFrame
    gap: float
    bins: dict[str, int]
    bin_hours: int = 1

    @property
    def title(self) -> str:
        """The two risks in one line."""
        return f"stay {self.stay_id}: risk {self.risk:.3f}; {self.baseline} {self.baseline_risk:.3f}"

    @property
    def observed_in(self) -> str:
        """What observed bins are counted in: Hours, or Bins if a bin is longer."""
        return "Hours" if self.bin_hours == 1 else "Bins"

    @property
    def header(self) -> tuple[str, str, str, str]:
        """The header of what `largest` returns."""
        bins = "hours" if self.bin_hours == 1 else f"bins of {self.bin_hours} hours"
        return ("variable or fact", "part", f"{bins} observed", "added to the risk")

    def by_variable(self) -> pd.DataFrame:
        """Return a row per part and variable or fact, the largest change of the risk first.

        Part, Parameter, Hours or Bins (in how many the variable was observed, 0 for what is no variable), Attribution.
        """
        sums = self.table.groupby(["Part", "Parameter"], sort=False)["Attribution"].sum().reset_index()
        sums.insert(2, self.observed_in, [self.bins.get(name, 0) for name in sums["Parameter"]])
        return sums.sort_values("Attribution", key=abs, ascending=False, ignore_index=True)

    def largest(self, count: int) -> list[tuple[str, str, str, str]]:
        """Return the first rows of `by_variable` as text, and the sum of the others."""
        rows = self.by_variable()
        shown, rest = rows[:count], rows[count:]
        lines = [
            (str(name), str(part), str(observed or ""), f"{added:+.4f}")
            for part, name, observed, added in shown.itertuples(index=False)
        ]
        if len(rest):
            lines.append((f"{len(rest)} others", "", "", f"{rest['Attribution'].sum():+.4f}"))
        return lines

    def to_json(self) -> str:
        """Return it for machines: cells are the observed values, others all that is no observed value."""
        is_cell = self.table["Part"] == VALUE
        content = {
            "RecordID": self.stay_id,
            "risk": self.risk,
            "baseline_risk": self.baseline_risk,
            "baseline": self.baseline,
            "completeness_gap": self.gap,
            "bin_hours": self.bin_hours,
            "by_variable": _rows(self.by_variable()),
            "cells": _rows(self.table[is_cell].drop(columns="Part")),
            "others": _rows(self.table[~is_cell]),
        }
        return json.dumps(content, indent=1)


def explain_stay(bundle: Bundle, stays: BinnedStays, stay_id: int | None, steps: int) -> Explanation:
    """Explain the risk of one of the stays; None is the only one there is.

    Source: `attribution.attribute`. Raises UserError for an id that is not there, or for a bundle of imputers.
    """
    if bundle.about.members:
        named = " or ".join(f"{each.version or 'the version'} ({each.label})" for each in bundle.about.members)
        raise UserError(f"a blend is explained member by member: name one with --model, {named}")
    place = _place(stays, stay_id)
    values_1TD = stays.values_NTD[place : place + 1]
    static = None if stays.static is None else stays.static.iloc[place : place + 1]
    static_1S = static_of(static, bundle.about.static, 1)
    mean = Attribution.mean([attribute(each, values_1TD, static_1S, steps) for each in bundle.predictors])
    found = mean.rescaled(bundle.recalibrated(mean.risk), bundle.recalibrated(mean.baseline))
    observed_TD = ~np.isnan(values_1TD[0])
    facts = {} if static is None else {str(name): float(fact) for name, fact in static.iloc[0].items()}
    return Explanation(
        stay_id=int(stays.stay_ids_N[place]),
        risk=float(found.risk),
        baseline_risk=float(found.baseline),
        baseline=_baseline(bundle.about),
        table=_table(found, values_1TD[0], bundle.about, facts),
        gap=found.gap,
        bin_hours=bundle.about.window.bin_hours,
        bins=dict(zip(bundle.about.variable_names, observed_TD.sum(axis=0).tolist(), strict=True)),
    )


def _baseline(about: BundleAbout) -> str:
    if about.head == BOOSTED:
        return "of the average training stay, by the trees"
    read = "measured value, statistic and static fact" if record_parts(about.input or "") else "measured value"
    return f"with every {read} at its training mean"


def _table(found: Attribution, values_TD: np.ndarray, about: BundleAbout, facts: dict[str, float]) -> pd.DataFrame:
    """Return the table of an explanation; see `Explanation`."""
    names = np.array(about.variable_names, dtype=object)
    tables = []
    if found.cells_TD is not None:
        observed_TD = ~np.isnan(values_TD)
        read_TD = observed_TD | (found.cells_TD != 0)
        hour_M, variable_M = np.nonzero(read_TD)
        part_M = np.where(observed_TD[hour_M, variable_M], VALUE, IMPUTED)
        cells_M, value_M = found.cells_TD[hour_M, variable_M], values_TD[hour_M, variable_M].astype(np.float64)
        columns = (part_M, hour_M * about.sizes.bin_hours, names[variable_M], value_M, cells_M)
        tables.append(pd.DataFrame(dict(zip(COLUMNS, columns, strict=True))))
    others: list[tuple[str, str, float, float]] = []
    if found.statistics_D is not None:
        others += [(STATISTICS, name, np.nan, part) for name, part in zip(names, found.statistics_D, strict=True)]
    if found.static_S is not None:
        ends = np.cumsum([len(each.categories) or 1 for each in about.static])[:-1]
        for variable, parts in zip(about.static, np.split(found.static_S, ends), strict=True):
            others.append((STATIC, variable.name, facts.get(variable.name, np.nan), float(parts.sum())))
    if found.hidden is not None:
        others.append((HIDDEN, HIDDEN, np.nan, float(found.hidden)))
    if others:
        part, name, value, added = zip(*others, strict=True)
        missing = pd.array([pd.NA] * len(others), dtype="Int64")
        tables.append(pd.DataFrame(dict(zip(COLUMNS, (part, missing, name, value, added), strict=True))))
    table = pd.concat([each.astype({"Hour": "Int64"}) for each in tables], ignore_index=True)
    return table.sort_values(["Part"], key=lambda part: part != VALUE, kind="stable", ignore_index=True)


def _rows(table: pd.DataFrame) -> list[dict[str, object]]:
    """Return a table's rows as JSON can hold them: null where a cell is missing."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(name): cell for name, cell in row.items()} for row in rows]


def _place(stays: BinnedStays, stay_id: int | None) -> int:
    ids_N = stays.stay_ids_N
    if stay_id is None:
        if len(ids_N) > 1:
            raise UserError(f"the records hold {len(ids_N):,} stays: name one with --stay, such as {ids_N[0]}")
        return 0
    found = np.flatnonzero(ids_N == stay_id)
    if not len(found):
        some = ", ".join(map(str, ids_N[:3])) + (", ..." if len(ids_N) > 3 else "")
        raise UserError(f"the records hold no stay {stay_id}: there are {len(ids_N):,} ({some})")
    return int(found[0])
