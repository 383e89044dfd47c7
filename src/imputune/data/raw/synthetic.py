"""Synthetic ICU stays, written as text records in the challenge's format and read by its extraction.

Each stay has a severity, not recorded, that changes slowly over the 48 hours. Five organ systems follow the severity,
and the variables follow their organ system. A sicker patient is measured more often and dies more often.

Letters: N stays, T hours.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import numpy as np
import numpy.typing as npt

from imputune.data.cohort import Cohort
from imputune.data.outcome_file import NO_LABEL, Labels
from imputune.data.raw.physionet2012 import read_records
from imputune.data.raw.records import read_record_set
from imputune.data.raw.synthetic_variables import LIMITS, ORGANS, PANELS, QUANTITIES
from imputune.data.window import HOURS, Window
from imputune.errors import UserError

GENERATED = "synthetic"  # the dataset of generated stays
FIRST_STAY_ID = 900_001

Array = npt.NDArray[np.float64]


def extract_synthetic(stays: int = 1000, seed: int = 2012, window: Window | None = None) -> Cohort:
    """Generate raw records in a temporary folder and extract them; the same arguments give the same cohort.

    `window` is 48 hours or less. Raises UserError if it is not, `stays` is not 1 to 90,000, `seed` is negative, or the
    temporary folder is full.
    """
    try:
        with TemporaryDirectory() as folder:
            write_synthetic_records(Path(folder), stays, seed)
            records = read_record_set(Path(folder), "s")
    except OSError as error:
        raise UserError(f"cannot write to {gettempdir()}: {error.strerror}; free it or set TMPDIR") from error
    command = f"imputune extract synthetic --stays {stays} --seed {seed}"
    cohort = read_records([records], GENERATED, command, window=window)
    return replace(cohort, other_outcomes=_further_outcomes(cohort, stays, seed))


def _further_outcomes(cohort: Cohort, stays: int, seed: int) -> dict[str, Labels]:
    """Return labels of the challenge's further outcomes for the stays of a generated cohort.

    Sicker patients stay longer, and fewer of them survive the year. About 2 % of stays have no length of stay. The
    outcomes file in the records has another length of stay, by chance alone, and is left as it is: its hash is part of
    every generated cohort.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    late_N = _course(rng, stays, level=1.0, step=0.1)[:, -24:].mean(axis=1)[cohort.stay_ids_N - FIRST_STAY_ID]
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    count = len(late_N)
    days_N = 2 + np.exp(1.5 + 0.6 * late_N + rng.normal(0, 0.5, count))
    recorded_N = rng.random(count) >= 0.02
    survived_N = (cohort.outcome_N == 0) & (rng.random(count) < 1 / (1 + np.exp(late_N - 2.2)))
    found = {
        f"los_over_{limit}_days": np.where(recorded_N, days_N > limit, NO_LABEL).astype(np.int8) for limit in (3, 7)
    }
    return found | {"one_year_survival": survived_N.astype(np.int8)}


def is_generated(dataset: str) -> bool:
    """Say whether a dataset has generated stays, of any window."""
    return dataset == GENERATED or dataset.startswith(f"{GENERATED}_")


def example_stay(variables: Sequence[str], seed: int) -> npt.NDArray[np.float32]:
    """Return a synthetic stay as an example input of a model: of 20 stays the one with the most observed cells.

    Shapes: (1, T, D) in the units of the synthetic cohort, NaN where missing and in variables that the cohort lacks.
    """
    cohort = extract_synthetic(20, seed)
    column_of = {name: column for column, name in enumerate(cohort.variable_names)}
    stay = int(cohort.observed_NTD.sum(axis=(1, 2)).argmax())
    columns = [
        cohort.values_NTD[stay, :, column_of[name]] if name in column_of else np.full(HOURS, np.nan)
        for name in variables
    ]
    return np.stack(columns, axis=-1)[None].astype(np.float32)


def write_synthetic_records(folder: Path, stays: int, seed: int) -> None:
    """Write set-s/<id>.txt for each stay and Outcomes-s.txt to `folder`, in the challenge's text format.

    Ids start at 900001, above all real ids. Raises UserError if `stays` is not 1 to 90,000 or `seed` is negative.
    """
    if not 1 <= stays <= 90_000 or seed < 0:
        raise UserError(f"--stays must be 1 to 90000 and --seed 0 or more, got {stays} and {seed}; change them")
    rng = np.random.Generator(np.random.PCG64(seed))
    severity_NT = _course(rng, stays, level=1.0, step=0.1)
    age_N = np.clip(rng.normal(64 + 3 * severity_NT[:, 0], 16), 18, 90).round()
    values = _values(rng, severity_NT)
    lines_N = _lines(rng, severity_NT, values)
    records = folder / "set-s"
    records.mkdir(parents=True)
    for stay, (static, lines) in enumerate(zip(_static_lines(rng, age_N), lines_N, strict=True)):
        text = f"Time,Parameter,Value\n00:00,RecordID,{FIRST_STAY_ID + stay}\n{static}{lines}"
        (records / f"{FIRST_STAY_ID + stay}.txt").write_bytes(text.encode())
    (folder / "Outcomes-s.txt").write_bytes(_outcomes_file(rng, severity_NT, age_N).encode())


def _course(rng: np.random.Generator, stays: int, level: float, step: float) -> Array:
    """Return a slow random walk (N, T) around each stay's own level."""
    walk_NT: Array = rng.normal(0, step, (stays, HOURS)).cumsum(axis=1)
    return rng.normal(0, level, (stays, 1)) + walk_NT


def _values(rng: np.random.Generator, severity_NT: Array) -> dict[str, Array]:
    """Return the value of every variable in every hour (N, T), within its limits, in the units of the challenge."""
    stays = len(severity_NT)
    organs = {organ: 0.6 * severity_NT + _course(rng, stays, level=0.7, step=0.08) for organ in ORGANS}
    value_of: dict[str, Array] = {}
    for name, quantity in QUANTITIES.items():
        own_NT = _course(rng, stays, level=0.8, step=0.06) + rng.normal(0, 0.35, (stays, HOURS))
        deviation_NT = quantity.spread * (quantity.load * organs[quantity.organ] + own_NT)
        centre = quantity.centre
        value_of[name] = centre * np.exp(deviation_NT) if quantity.skewed else centre + deviation_NT
    value_of["HCO3"] = np.maximum(value_of["HCO3"], 5)
    value_of["FiO2"] = np.clip(value_of["FiO2"], 0.21, 1)
    value_of["PaO2"] = value_of["FiO2"] * value_of.pop("oxygenation")
    # Henderson-Hasselbalch; then Hill's curve with half saturation at 27 mmHg.
    value_of["pH"] = 6.1 + np.log10(value_of["HCO3"] / (0.03 * value_of["PaCO2"])) + rng.normal(0, 0.01, (stays, HOURS))
    value_of["SaO2"] = 100 / (1 + (27 / value_of["PaO2"]) ** 2.7)
    value_of["DiasABP"] = 59 + 0.4 * (value_of["SysABP"] - 118) + 6 * _course(rng, stays, level=0.7, step=0.1)
    for cuff, line in (("NISysABP", "SysABP"), ("NIDiasABP", "DiasABP")):
        value_of[cuff] = value_of[line] + rng.normal(0, 6, (stays, HOURS))
    for mean, high, low in (("MAP", "SysABP", "DiasABP"), ("NIMAP", "NISysABP", "NIDiasABP")):
        value_of[mean] = value_of[low] + (value_of[high] - value_of[low]) / 3 + rng.normal(0, 2, (stays, HOURS))
    return {name: np.clip(value_of[name], low, top).round(digits) for name, (low, top, digits) in LIMITS.items()}


def _lines(rng: np.random.Generator, severity_NT: Array, values: Mapping[str, Array]) -> Iterator[str]:
    """Yield the lines of each stay's measurements, in the order of time."""
    stays = len(severity_NT)
    columns: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], str, Array]] = []
    for panel in PANELS:
        ever_N1 = rng.random((stays, 1)) < _more_often(panel.ever, 0.4 * severity_NT[:, :1])
        measured_NT = ever_N1 & (rng.random((stays, HOURS)) < _more_often(panel.hourly, 0.3 * severity_NT))
        minute_NT = 60 * np.arange(HOURS) + rng.integers(0, 60, (stays, HOURS))
        stay_R = np.nonzero(measured_NT)[0]
        columns += [(stay_R, minute_NT[measured_NT], name, values[name][measured_NT]) for name in panel.names]
    stay_R, minute_R = (np.concatenate([column[axis] for column in columns]) for axis in (0, 1))
    value_R = np.concatenate([values_R for *_, values_R in columns])
    column_R = np.repeat(np.arange(len(columns)), [len(values_R) for *_, values_R in columns])
    names = [name for _, _, name, _ in columns]
    ends = np.cumsum(np.bincount(stay_R, minlength=stays))
    for row_B in np.split(np.lexsort((minute_R, stay_R)), ends[:-1]):
        rows = zip(*(each_R[row_B].tolist() for each_R in (minute_R, column_R, value_R)), strict=True)
        yield "".join(
            f"{minute // 60:02d}:{minute % 60:02d},{names[column]},{value:g}\n" for minute, column, value in rows
        )


def _more_often(share: float, shift: Array) -> Array:
    odds = share / (1 - share) if share < 1 else np.inf
    return 1 / (1 + np.exp(-shift) / odds)


def _static_lines(rng: np.random.Generator, age_N: Array) -> Iterator[str]:
    """Yield the lines of each stay's static data, -1 where unknown."""
    stays = len(age_N)
    male_N = rng.random(stays) < 0.56
    height_N = np.where(rng.random(stays) < 0.47, -1, rng.normal(163 + 13 * male_N, 8).round(1))
    weight_N = np.where(rng.random(stays) < 0.08, -1, rng.normal(72 + 14 * male_N, 16).clip(35, 250).round(1))
    icu_type_N = rng.choice(4, stays, p=(0.15, 0.21, 0.36, 0.28)) + 1
    for age, male, height, icu_type, weight in zip(age_N, male_N, height_N, icu_type_N, weight_N, strict=True):
        static = {"Age": age, "Gender": int(male), "Height": height, "ICUType": icu_type, "Weight": weight}
        yield "".join(f"00:00,{name},{value:g}\n" for name, value in static.items())


def _outcomes_file(rng: np.random.Generator, severity_NT: Array, age_N: Array) -> str:
    """Return the outcomes file: the risk of death rises with the severity of the last 24 hours and with age."""
    late_N = severity_NT[:, -24:].mean(axis=1)
    risk_N = 1 / (1 + np.exp(3.2 - 1.9 * late_N - 0.02 * (age_N - 64)))
    outcome_N = rng.random(len(age_N)) < risk_N
    saps_N = np.clip(14 + 4 * late_N, 0, 34).round().astype(int)
    sofa_N = np.clip(6 + 3 * late_N, 0, 22).round().astype(int)
    days_N = 2 + rng.geometric(0.1, len(age_N))
    rows = [
        f"{FIRST_STAY_ID + stay},{saps},{sofa},{days},{days if died else -1},{int(died)}\n"
        for stay, (saps, sofa, days, died) in enumerate(zip(saps_N, sofa_N, days_N, outcome_N, strict=True))
    ]
    return "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death\n" + "".join(rows)
