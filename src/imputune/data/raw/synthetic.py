"""Synthetic ICU stays, written as text records in the challenge's format and read by its extractor.

Each stay has a hidden severity that moves slowly over the 48 hours. Five organ systems follow it, and the
variables follow their organ system; the sicker a stay is, the more often it is measured and the likelier it
ends in death. Shape letters: N stays, T hours.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import numpy as np
import numpy.typing as npt

from imputune.data.cohort import HOURS, Cohort
from imputune.data.raw.physionet2012 import read_records
from imputune.data.raw.records import read_record_set
from imputune.errors import UserError

FIRST_STAY_ID = 900_001

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Quantity:
    """How one variable follows its organ system; `spread` is in log units where `skewed`."""

    organ: str
    load: float
    centre: float
    spread: float
    skewed: bool = False


@dataclass(frozen=True)
class _Panel:
    """Variables measured together: the share of stays that ever have it, and then the share of hours."""

    names: tuple[str, ...]
    ever: float
    hourly: float


_ORGANS = ("circulation", "kidneys", "lungs", "liver", "brain")
_QUANTITIES = {
    "HR": _Quantity("circulation", 0.5, 86, 17),
    "SysABP": _Quantity("circulation", -0.5, 118, 20),
    "Temp": _Quantity("circulation", -0.1, 37.1, 0.8),
    "Lactate": _Quantity("circulation", 0.6, 1.9, 0.5, skewed=True),
    "Glucose": _Quantity("circulation", 0.2, 128, 0.3, skewed=True),
    "WBC": _Quantity("circulation", 0.3, 11.4, 0.45, skewed=True),
    "HCT": _Quantity("circulation", -0.1, 30.5, 5),
    "TroponinT": _Quantity("circulation", 0.3, 0.2, 1.4, skewed=True),
    "TroponinI": _Quantity("circulation", 0.3, 2.6, 1.2, skewed=True),
    "Na": _Quantity("kidneys", 0.1, 139, 5),
    "K": _Quantity("kidneys", 0.3, 4.1, 0.15, skewed=True),
    "Mg": _Quantity("kidneys", 0.2, 2.0, 0.35),
    "HCO3": _Quantity("kidneys", -0.4, 23.5, 4),
    "BUN": _Quantity("kidneys", 0.6, 20, 0.65, skewed=True),
    "Creatinine": _Quantity("kidneys", 0.6, 1.0, 0.6, skewed=True),
    "Urine": _Quantity("kidneys", -0.5, 80, 0.9, skewed=True),
    "RespRate": _Quantity("lungs", 0.5, 19.5, 5),
    "FiO2": _Quantity("lungs", 0.5, 0.48, 0.28, skewed=True),
    "PaCO2": _Quantity("lungs", 0.2, 40, 0.2, skewed=True),
    # PaO2 over FiO2, in mmHg: never written, PaO2 comes from it.
    "oxygenation": _Quantity("lungs", -0.5, 260, 0.4, skewed=True),
    "Platelets": _Quantity("liver", -0.4, 175, 0.5, skewed=True),
    "Bilirubin": _Quantity("liver", 0.6, 0.9, 1.0, skewed=True),
    "ALT": _Quantity("liver", 0.7, 45, 1.3, skewed=True),
    "AST": _Quantity("liver", 0.7, 65, 1.3, skewed=True),
    "ALP": _Quantity("liver", 0.4, 83, 0.5, skewed=True),
    "Albumin": _Quantity("liver", -0.4, 2.9, 0.6),
    "Cholesterol": _Quantity("liver", -0.3, 152, 0.3, skewed=True),
    "GCS": _Quantity("brain", -0.7, 12, 4.5),
}
# Lowest and highest value a record may hold, and the decimals it is written with.
_LIMITS = {
    **{
        "HR": (25, 220, 0),
        "Temp": (30, 42, 1),
        "RespRate": (4, 70, 0),
        "GCS": (3, 15, 0),
        "Urine": (0, 2000, 0),
    },
    **{"SysABP": (40, 260, 0), "DiasABP": (15, 160, 0), "MAP": (25, 200, 0)},
    **{"NISysABP": (40, 260, 0), "NIDiasABP": (15, 160, 0), "NIMAP": (25, 200, 2)},
    **{
        "FiO2": (0.21, 1, 2),
        "pH": (6.8, 7.8, 2),
        "PaCO2": (12, 120, 0),
        "PaO2": (30, 600, 0),
        "SaO2": (50, 100, 0),
    },
    **{"Na": (110, 175, 0), "K": (2, 9, 1), "Mg": (0.6, 6, 1), "HCO3": (5, 50, 0), "Glucose": (20, 1000, 0)},
    **{"BUN": (2, 200, 0), "Creatinine": (0.1, 20, 1), "Lactate": (0.3, 30, 1)},
    **{"HCT": (12, 60, 1), "WBC": (0.1, 150, 1), "Platelets": (5, 1200, 0)},
    **{"ALT": (3, 12000, 0), "AST": (5, 18000, 0), "ALP": (10, 2500, 0), "Bilirubin": (0.1, 60, 1)},
    **{
        "Albumin": (1, 5.5, 1),
        "Cholesterol": (28, 400, 0),
        "TroponinT": (0.01, 30, 2),
        "TroponinI": (0.1, 50, 1),
    },
}
# Shares as in the challenge's set a.
_PANELS = (
    _Panel(("HR",), 1.0, 0.90),
    _Panel(("SysABP", "DiasABP", "MAP"), 0.70, 0.77),
    _Panel(("NISysABP", "NIDiasABP", "NIMAP"), 0.87, 0.48),
    _Panel(("Temp",), 0.99, 0.37),
    _Panel(("GCS",), 0.99, 0.32),
    _Panel(("RespRate",), 0.28, 0.87),
    _Panel(("Urine",), 0.97, 0.71),
    _Panel(("FiO2",), 0.68, 0.23),
    _Panel(("pH", "PaCO2", "PaO2"), 0.76, 0.15),
    _Panel(("SaO2",), 0.45, 0.090),
    _Panel(("Lactate",), 0.55, 0.073),
    _Panel(("Na", "K", "HCO3", "BUN", "Creatinine", "Glucose", "Mg"), 0.98, 0.071),
    _Panel(("WBC", "Platelets"), 0.98, 0.069),
    _Panel(("HCT",), 0.98, 0.094),
    _Panel(("ALT", "AST", "ALP", "Bilirubin"), 0.43, 0.037),
    _Panel(("Albumin",), 0.40, 0.030),
    _Panel(("Cholesterol",), 0.076, 0.022),
    _Panel(("TroponinT",), 0.216, 0.050),
    _Panel(("TroponinI",), 0.051, 0.044),
)


def extract_synthetic(stays: int = 1000, seed: int = 2012) -> Cohort:
    """Generate raw records in a temporary folder and extract them, the same cohort for the same arguments.

    Raises UserError when `stays` is not 1 to 90,000, `seed` is negative, or the temporary folder is full.
    """
    try:
        with TemporaryDirectory() as folder:
            write_synthetic_records(Path(folder), stays, seed)
            records = read_record_set(Path(folder), "s")
    except OSError as error:
        raise UserError(f"cannot write to {gettempdir()}: {error.strerror}; free it or set TMPDIR") from error
    return read_records([records], "synthetic", f"imputune extract synthetic --stays {stays} --seed {seed}")


def example_stay(variables: Sequence[str], seed: int) -> npt.NDArray[np.float32]:
    """Return an invented stay in the variables of a cohort, of 20 the one most observed, to show what a model does.

    Shapes: (1, T, D) in the units of the synthetic cohort, NaN where not observed and in all variables that it has not.
    """
    cohort = extract_synthetic(20, seed)
    places = {name: place for place, name in enumerate(cohort.variable_names)}
    stay = int(cohort.observed_NTD.sum(axis=(1, 2)).argmax())
    columns = [
        cohort.values_NTD[stay, :, places[name]] if name in places else np.full(HOURS, np.nan) for name in variables
    ]
    return np.stack(columns, axis=-1)[None].astype(np.float32)


def write_synthetic_records(folder: Path, stays: int, seed: int) -> None:
    """Write set-s/<id>.txt for each stay and Outcomes-s.txt under `folder`, in the challenge's text format.

    Ids start at 900001, above any real one. Raises UserError when `stays` is not 1 to 90,000 or `seed` is
    negative.
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
    for stay, (head, lines) in enumerate(zip(_heads(rng, age_N), lines_N, strict=True)):
        text = f"Time,Parameter,Value\n00:00,RecordID,{FIRST_STAY_ID + stay}\n{head}{lines}"
        (records / f"{FIRST_STAY_ID + stay}.txt").write_bytes(text.encode())
    (folder / "Outcomes-s.txt").write_bytes(_outcomes(rng, severity_NT, age_N).encode())


def _course(rng: np.random.Generator, stays: int, level: float, step: float) -> Array:
    """A slow random walk (N, T) around each stay's own level."""
    walk_NT: Array = rng.normal(0, step, (stays, HOURS)).cumsum(axis=1)
    return rng.normal(0, level, (stays, 1)) + walk_NT


def _values(rng: np.random.Generator, severity_NT: Array) -> dict[str, Array]:
    """What every variable would read in every hour, within its limits, in the units of the challenge."""
    stays = len(severity_NT)
    organs = {organ: 0.6 * severity_NT + _course(rng, stays, level=0.7, step=0.08) for organ in _ORGANS}
    true: dict[str, Array] = {}
    for name, quantity in _QUANTITIES.items():
        own_NT = _course(rng, stays, level=0.8, step=0.06) + rng.normal(0, 0.35, (stays, HOURS))
        deviation_NT = quantity.spread * (quantity.load * organs[quantity.organ] + own_NT)
        centre = quantity.centre
        true[name] = centre * np.exp(deviation_NT) if quantity.skewed else centre + deviation_NT
    true["HCO3"] = np.maximum(true["HCO3"], 5)
    true["FiO2"] = np.clip(true["FiO2"], 0.21, 1)
    true["PaO2"] = true["FiO2"] * true.pop("oxygenation")
    # Henderson-Hasselbalch; then Hill's curve with half saturation at 27 mmHg.
    true["pH"] = 6.1 + np.log10(true["HCO3"] / (0.03 * true["PaCO2"])) + rng.normal(0, 0.01, (stays, HOURS))
    true["SaO2"] = 100 / (1 + (27 / true["PaO2"]) ** 2.7)
    true["DiasABP"] = 59 + 0.4 * (true["SysABP"] - 118) + 6 * _course(rng, stays, level=0.7, step=0.1)
    for cuff, line in (("NISysABP", "SysABP"), ("NIDiasABP", "DiasABP")):
        true[cuff] = true[line] + rng.normal(0, 6, (stays, HOURS))
    for mean, high, low in (("MAP", "SysABP", "DiasABP"), ("NIMAP", "NISysABP", "NIDiasABP")):
        true[mean] = true[low] + (true[high] - true[low]) / 3 + rng.normal(0, 2, (stays, HOURS))
    return {name: np.clip(true[name], low, top).round(digits) for name, (low, top, digits) in _LIMITS.items()}


def _lines(rng: np.random.Generator, severity_NT: Array, values: Mapping[str, Array]) -> Iterator[str]:
    """Yield each stay's measurement lines in the order of time."""
    stays = len(severity_NT)
    columns: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], str, Array]] = []
    for panel in _PANELS:
        ever_N1 = rng.random((stays, 1)) < _more_often(panel.ever, 0.4 * severity_NT[:, :1])
        measured_NT = ever_N1 & (rng.random((stays, HOURS)) < _more_often(panel.hourly, 0.3 * severity_NT))
        minute_NT = 60 * np.arange(HOURS) + rng.integers(0, 60, (stays, HOURS))
        stay_R = np.nonzero(measured_NT)[0]
        columns += [(stay_R, minute_NT[measured_NT], name, values[name][measured_NT]) for name in panel.names]
    stay_R, minute_R = (np.concatenate([column[axis] for column in columns]) for axis in (0, 1))
    texts = [f"{name},{value:g}" for _, _, name, values_R in columns for value in values_R.tolist()]
    order_R = np.lexsort((minute_R, stay_R))
    lines = [
        f"{minute // 60:02d}:{minute % 60:02d},{texts[row]}\n"
        for row, minute in zip(order_R.tolist(), minute_R[order_R].tolist(), strict=True)
    ]
    ends = np.cumsum(np.bincount(stay_R, minlength=stays)).tolist()
    for start, end in zip([0, *ends], ends, strict=False):
        yield "".join(lines[start:end])


def _more_often(share: float, shift: Array) -> Array:
    odds = share / (1 - share) if share < 1 else np.inf
    return 1 / (1 + np.exp(-shift) / odds)


def _heads(rng: np.random.Generator, age_N: Array) -> Iterator[str]:
    """Yield each stay's descriptor lines, -1 where unknown."""
    stays = len(age_N)
    male_N = rng.random(stays) < 0.56
    height_N = np.where(rng.random(stays) < 0.47, -1, rng.normal(163 + 13 * male_N, 8).round(1))
    weight_N = np.where(rng.random(stays) < 0.08, -1, rng.normal(72 + 14 * male_N, 16).clip(35, 250).round(1))
    icu_type_N = rng.choice(4, stays, p=(0.15, 0.21, 0.36, 0.28)) + 1
    for age, male, height, icu_type, weight in zip(age_N, male_N, height_N, icu_type_N, weight_N, strict=True):
        described = {"Age": age, "Gender": int(male), "Height": height, "ICUType": icu_type, "Weight": weight}
        yield "".join(f"00:00,{name},{value:g}\n" for name, value in described.items())


def _outcomes(rng: np.random.Generator, severity_NT: Array, age_N: Array) -> str:
    """The outcomes file: death follows the severity of the last 24 hours and age."""
    late_N = severity_NT[:, -24:].mean(axis=1)
    risk_N = 1 / (1 + np.exp(3.2 - 1.9 * late_N - 0.02 * (age_N - 64)))
    died_N = rng.random(len(age_N)) < risk_N
    saps_N = np.clip(14 + 4 * late_N, 0, 34).round().astype(int)
    sofa_N = np.clip(6 + 3 * late_N, 0, 22).round().astype(int)
    days_N = 2 + rng.geometric(0.1, len(age_N))
    rows = [
        f"{FIRST_STAY_ID + stay},{saps},{sofa},{days},{days if died else -1},{int(died)}\n"
        for stay, (saps, sofa, days, died) in enumerate(zip(saps_N, sofa_N, days_N, died_N, strict=True))
    ]
    return "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death\n" + "".join(rows)
