"""The parameters of PhysioNet 2012's records: 35 variables, the static data of a stay, and others."""

from imputune.data.cohort import Variable
from imputune.data.static import AGE, GENDER, HEIGHT, ICU_TYPE, WEIGHT

# Units as the challenge's page gives them.
VARIABLES = tuple(
    Variable(name, unit)
    for name, unit in (
        ("DiasABP", "mmHg"),
        ("HR", "beats/min"),
        ("Na", "mEq/L"),
        ("Lactate", "mmol/L"),
        ("NIDiasABP", "mmHg"),
        ("PaO2", "mmHg"),
        ("WBC", "cells/nL"),
        ("pH", "pH"),
        ("Albumin", "g/dL"),
        ("ALT", "IU/L"),
        ("Glucose", "mg/dL"),
        ("SaO2", "%"),
        ("Temp", "°C"),
        ("AST", "IU/L"),
        ("Bilirubin", "mg/dL"),
        ("HCO3", "mmol/L"),
        ("BUN", "mg/dL"),
        ("RespRate", "breaths/min"),
        ("Mg", "mmol/L"),
        ("HCT", "%"),
        ("SysABP", "mmHg"),
        ("FiO2", "fraction"),
        ("K", "mEq/L"),
        ("GCS", "points"),
        ("Cholesterol", "mg/dL"),
        ("NISysABP", "mmHg"),
        ("TroponinT", "ug/L"),
        ("MAP", "mmHg"),
        ("TroponinI", "ug/L"),
        ("PaCO2", "mmHg"),
        ("Platelets", "cells/nL"),
        ("Urine", "mL"),
        ("NIMAP", "mmHg"),
        ("Creatinine", "mg/dL"),
        ("ALP", "IU/L"),
    )
)
NAMES = tuple(variable.name for variable in VARIABLES)
STATIC = (AGE, GENDER, HEIGHT, ICU_TYPE, WEIGHT)
ID = "RecordID"
OTHERS = (ID, *(each.parameter for each in STATIC), "MechVent")
KNOWN = (*NAMES, *OTHERS)
