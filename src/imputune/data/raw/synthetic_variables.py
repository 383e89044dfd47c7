"""How the variables of the synthetic stays behave and how often they are measured."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """How one variable follows its organ system; `spread` is in the variable's unit, or in log units if `skewed`."""

    organ: str
    load: float
    centre: float
    spread: float
    skewed: bool = False


@dataclass(frozen=True)
class Panel:
    """Variables measured together: in which fraction of stays, and in which fraction of the hours of these stays."""

    names: tuple[str, ...]
    ever: float
    hourly: float


ORGANS = ("circulation", "kidneys", "lungs", "liver", "brain")
QUANTITIES = {
    "HR": Quantity(organ="circulation", load=0.5, centre=86, spread=17),
    "SysABP": Quantity(organ="circulation", load=-0.5, centre=118, spread=20),
    "Temp": Quantity(organ="circulation", load=-0.1, centre=37.1, spread=0.8),
    "Lactate": Quantity(organ="circulation", load=0.6, centre=1.9, spread=0.5, skewed=True),
    "Glucose": Quantity(organ="circulation", load=0.2, centre=128, spread=0.3, skewed=True),
    "WBC": Quantity(organ="circulation", load=0.3, centre=11.4, spread=0.45, skewed=True),
    "HCT": Quantity(organ="circulation", load=-0.1, centre=30.5, spread=5),
    "TroponinT": Quantity(organ="circulation", load=0.3, centre=0.2, spread=1.4, skewed=True),
    "TroponinI": Quantity(organ="circulation", load=0.3, centre=2.6, spread=1.2, skewed=True),
    "Na": Quantity(organ="kidneys", load=0.1, centre=139, spread=5),
    "K": Quantity(organ="kidneys", load=0.3, centre=4.1, spread=0.15, skewed=True),
    "Mg": Quantity(organ="kidneys", load=0.2, centre=2.0, spread=0.35),
    "HCO3": Quantity(organ="kidneys", load=-0.4, centre=23.5, spread=4),
    "BUN": Quantity(organ="kidneys", load=0.6, centre=20, spread=0.65, skewed=True),
    "Creatinine": Quantity(organ="kidneys", load=0.6, centre=1.0, spread=0.6, skewed=True),
    "Urine": Quantity(organ="kidneys", load=-0.5, centre=80, spread=0.9, skewed=True),
    "RespRate": Quantity(organ="lungs", load=0.5, centre=19.5, spread=5),
    "FiO2": Quantity(organ="lungs", load=0.5, centre=0.48, spread=0.28, skewed=True),
    "PaCO2": Quantity(organ="lungs", load=0.2, centre=40, spread=0.2, skewed=True),
    # PaO2 divided by FiO2, in mmHg: it gives PaO2 and is not written itself.
    "oxygenation": Quantity(organ="lungs", load=-0.5, centre=260, spread=0.4, skewed=True),
    "Platelets": Quantity(organ="liver", load=-0.4, centre=175, spread=0.5, skewed=True),
    "Bilirubin": Quantity(organ="liver", load=0.6, centre=0.9, spread=1.0, skewed=True),
    "ALT": Quantity(organ="liver", load=0.7, centre=45, spread=1.3, skewed=True),
    "AST": Quantity(organ="liver", load=0.7, centre=65, spread=1.3, skewed=True),
    "ALP": Quantity(organ="liver", load=0.4, centre=83, spread=0.5, skewed=True),
    "Albumin": Quantity(organ="liver", load=-0.4, centre=2.9, spread=0.6),
    "Cholesterol": Quantity(organ="liver", load=-0.3, centre=152, spread=0.3, skewed=True),
    "GCS": Quantity(organ="brain", load=-0.7, centre=12, spread=4.5),
}
# Lowest and highest value in a record, and the number of decimals.
LIMITS = {
    "HR": (25, 220, 0),
    "Temp": (30, 42, 1),
    "RespRate": (4, 70, 0),
    "GCS": (3, 15, 0),
    "Urine": (0, 2000, 0),
    "SysABP": (40, 260, 0),
    "DiasABP": (15, 160, 0),
    "MAP": (25, 200, 0),
    "NISysABP": (40, 260, 0),
    "NIDiasABP": (15, 160, 0),
    "NIMAP": (25, 200, 2),
    "FiO2": (0.21, 1, 2),
    "pH": (6.8, 7.8, 2),
    "PaCO2": (12, 120, 0),
    "PaO2": (30, 600, 0),
    "SaO2": (50, 100, 0),
    "Na": (110, 175, 0),
    "K": (2, 9, 1),
    "Mg": (0.6, 6, 1),
    "HCO3": (5, 50, 0),
    "Glucose": (20, 1000, 0),
    "BUN": (2, 200, 0),
    "Creatinine": (0.1, 20, 1),
    "Lactate": (0.3, 30, 1),
    "HCT": (12, 60, 1),
    "WBC": (0.1, 150, 1),
    "Platelets": (5, 1200, 0),
    "ALT": (3, 12000, 0),
    "AST": (5, 18000, 0),
    "ALP": (10, 2500, 0),
    "Bilirubin": (0.1, 60, 1),
    "Albumin": (1, 5.5, 1),
    "Cholesterol": (28, 400, 0),
    "TroponinT": (0.01, 30, 2),
    "TroponinI": (0.1, 50, 1),
}
# Fractions as in the challenge's set a.
PANELS = (
    Panel(("HR",), 1.0, 0.90),
    Panel(("SysABP", "DiasABP", "MAP"), 0.70, 0.77),
    Panel(("NISysABP", "NIDiasABP", "NIMAP"), 0.87, 0.48),
    Panel(("Temp",), 0.99, 0.37),
    Panel(("GCS",), 0.99, 0.32),
    Panel(("RespRate",), 0.28, 0.87),
    Panel(("Urine",), 0.97, 0.71),
    Panel(("FiO2",), 0.68, 0.23),
    Panel(("pH", "PaCO2", "PaO2"), 0.76, 0.15),
    Panel(("SaO2",), 0.45, 0.090),
    Panel(("Lactate",), 0.55, 0.073),
    Panel(("Na", "K", "HCO3", "BUN", "Creatinine", "Glucose", "Mg"), 0.98, 0.071),
    Panel(("WBC", "Platelets"), 0.98, 0.069),
    Panel(("HCT",), 0.98, 0.094),
    Panel(("ALT", "AST", "ALP", "Bilirubin"), 0.43, 0.037),
    Panel(("Albumin",), 0.40, 0.030),
    Panel(("Cholesterol",), 0.076, 0.022),
    Panel(("TroponinT",), 0.216, 0.050),
    Panel(("TroponinI",), 0.051, 0.044),
)
