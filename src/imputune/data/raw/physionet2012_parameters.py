"""The parameters of PhysioNet 2012's records: 35 variables, the static data of a stay, and others."""

from imputune.data.cohort import Variable

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
# The parameters of rows at 00:00 with static data, and the columns of these data.
STATIC_COLUMNS = {
    "Age": "age_years",
    "Gender": "gender",
    "Height": "height_cm",
    "ICUType": "icu_type",
    "Weight": "weight_kg",
}
ID = "RecordID"
OTHERS = (ID, *STATIC_COLUMNS, "MechVent")
KNOWN = (*NAMES, *OTHERS)
