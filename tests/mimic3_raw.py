"""Small hand-written raw tables in MIMIC-III's schema: ten ICU stays, of which the rules keep three."""

import csv
import gzip
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imputune.data.raw.mimic3.variables import VARIABLES
from imputune.settings.schema import Mimic3

Row = Mapping[str, Any]

RULES = Mimic3(minimum_age=18, minimum_hours=48, transfers="keep", memory_gib=0.5)

EVENT = {"SUBJECT_ID": 1, "HADM_ID": 11, "ICUSTAY_ID": 301}
OTHER = {"SUBJECT_ID": 2, "HADM_ID": 12, "ICUSTAY_ID": 302}
CHART = {
    "ROW_ID": 1,
    **EVENT,
    "ITEMID": 211,
    "CHARTTIME": "",
    "STORETIME": "",
    "CGID": 7,
    "VALUE": "",
    "VALUENUM": "",
    "VALUEUOM": "",
    "WARNING": "",
    "ERROR": "",
    "RESULTSTATUS": "",
    "STOPPED": "",
}
LAB = {
    "ROW_ID": 1,
    "SUBJECT_ID": 1,
    "HADM_ID": 11,
    "ITEMID": 1,
    "CHARTTIME": "",
    "VALUE": "",
    "VALUENUM": "",
    "FLAG": "",
}
OUT = {"ROW_ID": 1, **EVENT, "CHARTTIME": "", "ITEMID": 1, "VALUE": "", "VALUEUOM": "ml", "ISERROR": ""}
CV = {"ROW_ID": 1, **EVENT, "CHARTTIME": "", "ITEMID": 1, "AMOUNT": "", "AMOUNTUOM": "ml", "RATE": "", "ORDERID": 1}
MV = {
    "ROW_ID": 1,
    **OTHER,
    "STARTTIME": "",
    "ENDTIME": "",
    "ITEMID": 225158,
    "AMOUNT": "",
    "AMOUNTUOM": "ml",
    "ORDERID": 1,
    "STATUSDESCRIPTION": "FinishedRunning",
}
REWRITTEN = {"STATUSDESCRIPTION": "Rewritten"}
STAY = {
    "DBSOURCE": "carevue",
    "FIRST_CAREUNIT": "CCU",
    "LAST_CAREUNIT": "CCU",
    "FIRST_WARDID": 7,
    "LAST_WARDID": 7,
    "INTIME": "2150-03-01 10:00:00",
    "OUTTIME": "2150-03-05 10:00:00",
}
OTHER_TIMES = {"INTIME": "2150-04-01 00:30:30", "OUTTIME": "2150-04-04 00:30:30"}


def chart(time: str, item: int, value: Any, **others: Any) -> Row:
    """Return a row of CHARTEVENTS; a value that is not a number is in VALUE only."""
    number = value if not isinstance(value, str) else ""
    return CHART | {"CHARTTIME": f"2150-03-{time}", "ITEMID": item, "VALUE": value, "VALUENUM": number} | others


def tables() -> dict[str, list[Row]]:
    """Return the ten tables. The rules keep stay 301 of CareVue, 302 of MetaVision, and 309 with two care units."""
    people = [(1, "F", "2100-01-01"), (2, "M", "1850-06-01"), (3, "F", "2140-01-01"), (4, "M", "2090-01-01")]
    people += [(5, "F", "2090-01-01"), (6, "M", "2090-01-01"), (7, "F", "2090-01-01"), (8, "M", "2090-01-01")]
    # ICU stay, subject, admission, and what differs from STAY
    stays: list[tuple[int, int, int, Row]] = [
        (301, 1, 11, {}),
        (302, 2, 12, OTHER_TIMES | {"DBSOURCE": "metavision", "FIRST_CAREUNIT": "TSICU", "LAST_CAREUNIT": "TSICU"}),
        (303, 1, 13, {"INTIME": "2150-06-01 10:00:00", "OUTTIME": "2150-06-09 10:00:00"}),
        (304, 3, 14, {}),
        (305, 4, 15, {"OUTTIME": "2150-03-03 09:59:59"}),
        (306, 5, 16, {}),
        (307, 6, 17, {"OUTTIME": ""}),
        (310, 6, 17, {"INTIME": ""}),
        (308, 7, 18, {}),
        (309, 8, 19, {"OUTTIME": "2150-03-03 10:00:00", "LAST_CAREUNIT": "MICU"}),
    ]
    moved = {"SUBJECT_ID": 8, "HADM_ID": 19, "ICUSTAY_ID": 309}
    other = OTHER | {"ERROR": 0, "WARNING": 0}
    april = "2150-04-01 "
    return {
        "PATIENTS": [
            {"SUBJECT_ID": subject, "GENDER": gender, "DOB": f"{born} 00:00:00"} for subject, gender, born in people
        ],
        "ADMISSIONS": [
            {
                "SUBJECT_ID": subject,
                "HADM_ID": admission,
                "HOSPITAL_EXPIRE_FLAG": int(admission == 12),
                "DIAGNOSIS": "a,b",
            }
            for subject, admission in ((1, 11), (2, 12), (1, 13), (3, 14), (4, 15), (6, 17), (7, 18), (8, 19))
        ],
        "ICUSTAYS": [
            {"ROW_ID": 1, "SUBJECT_ID": subject, "HADM_ID": admission, "ICUSTAY_ID": stay} | STAY | others
            for stay, subject, admission, others in stays
        ],
        "D_ITEMS": [
            {"ITEMID": item.item_id, "LABEL": variable.name, "LINKSTO": item.table}
            for variable in VARIABLES
            for item in variable.items
            if item.table != "labevents"
        ],
        "D_LABITEMS": [
            {"ITEMID": item.item_id, "LABEL": variable.name}
            for variable in VARIABLES
            for item in variable.items
            if item.table == "labevents"
        ],
        "CHARTEVENTS": [
            chart("01 10:00:00", 211, 80),  # the stay's first second
            chart("01 10:59:59", 211, 90),
            chart("01 11:00:00", 211, 100),
            chart("01 11:00:00", 211, 100),  # repeats the row above
            chart("01 11:00:00", 211, 70),
            chart("01 09:59:59", 211, 55),  # before the stay
            chart("03 09:59:59", 211, 66),  # its last second
            chart("03 10:00:00", 211, 99),  # after the 48 hours
            chart("03 10:00:00", 646, 97),
            chart("01 13:00:00", 211, "Other/Remarks"),
            chart("01 14:00:00", 211, 900),  # out of the accepted range
            chart("01 15:00:00", 211, 77, ERROR=1),
            chart("01 16:00:00", 211, 71, HADM_ID=""),
            chart("01 17:00:00", 211, 72, HADM_ID=999),  # of another admission
            chart("01 18:00:00", 211, 73, ICUSTAY_ID=""),
            chart("01 12:00:00", 678, 98.6),  # °F
            chart("01 12:30:00", 676, 38),  # °C
            chart("01 10:10:00", 3581, 154),  # pounds
            chart("01 10:10:00", 920, 70),  # inches
            chart("01 10:05:00", 190, 0.5),  # a fraction
            chart("01 10:06:00", 3420, 60),  # percent
            chart("01 10:10:00", 454, 6),
            chart("01 10:50:00", 454, 5),
            chart("01 10:10:00", 184, 3),
            chart("01 10:10:00", 184, 4),  # at the same time
            chart("01 10:10:00", 581, 50),  # an item that is not read
            chart("01 10:10:00", 211, 60, **moved),
            CHART | other | {"ITEMID": 220045, "CHARTTIME": april + "00:30:30", "VALUE": 75, "VALUENUM": 75},
            CHART | other | {"ITEMID": 223761, "CHARTTIME": april + "01:30:29", "VALUE": 101.3, "VALUENUM": 101.3},
            CHART | other | {"ITEMID": 220045, "CHARTTIME": april + "02:00:00", "VALUENUM": 70, "ERROR": 1},
        ],
        "LABEVENTS": [
            LAB | {"ITEMID": 50816, "CHARTTIME": "2150-03-01 10:20:00", "VALUE": "40", "VALUENUM": 40},
            LAB | {"ITEMID": 50971, "CHARTTIME": "2150-03-01 10:20:00", "VALUE": "4.1", "VALUENUM": 4.1},
            LAB | {"ITEMID": 50822, "CHARTTIME": "2150-03-01 10:40:00", "VALUE": "4.4", "VALUENUM": 4.4, "HADM_ID": ""},
            LAB | {"ITEMID": 50813, "CHARTTIME": "2150-03-01 10:40:00", "VALUE": "GREATER THAN 30"},
        ],
        "OUTPUTEVENTS": [
            OUT | {"ITEMID": 40055, "CHARTTIME": "2150-03-01 11:10:00", "VALUE": 100},
            OUT | {"ITEMID": 40069, "CHARTTIME": "2150-03-01 11:50:00", "VALUE": 50, "VALUEUOM": ""},
            OUT | {"ITEMID": 40055, "CHARTTIME": "2150-03-01 11:20:00", "VALUE": 30, "ISERROR": 1},
            OUT | {"ITEMID": 40055, "CHARTTIME": "2150-03-01 12:20:00", "VALUE": 0.2, "VALUEUOM": "L"},
            OUT | {"ITEMID": 40055, "CHARTTIME": "2150-03-01 13:20:00", "VALUE": 40, "VALUEUOM": "pads"},
        ],
        "INPUTEVENTS_CV": [
            CV | {"ITEMID": 30018, "CHARTTIME": "2150-03-01 10:00:00", "AMOUNT": 100},
            CV | {"ITEMID": 30018, "CHARTTIME": "2150-03-01 12:00:00", "AMOUNT": 20},
            CV | {"ITEMID": 30018, "CHARTTIME": "2150-03-01 12:00:00", "AMOUNT": 20, "ORDERID": 2},  # beside the other
            CV | {"ITEMID": 30018, "CHARTTIME": "2150-03-01 12:00:00", "AMOUNT": 20, "ORDERID": 2},  # repeats it
            CV | {"ITEMID": 30120, "CHARTTIME": "2150-03-01 10:00:00", "AMOUNT": 500, "AMOUNTUOM": "mcg"},
            CV | {"ITEMID": 30120, "CHARTTIME": "2150-03-01 11:00:00", "AMOUNT": "", "AMOUNTUOM": "", "RATE": 0.1},
        ],
        "INPUTEVENTS_MV": [
            # before the stay
            MV | {"STARTTIME": "2150-03-31 23:30:30", "ENDTIME": april + "00:30:30", "ITEMID": 225168, "AMOUNT": 90},
            # 100 mL an hour for 2.5 hours; the first half hour is before the stay
            MV | {"STARTTIME": april + "00:00:30", "ENDTIME": april + "02:30:30", "AMOUNT": 250},
            MV | {"STARTTIME": april + "02:00:30", "ENDTIME": april + "02:30:30", "AMOUNT": 40},
            MV | {"STARTTIME": april + "02:00:30", "ENDTIME": april + "02:30:30", "AMOUNT": 40, "ORDERID": 2},
            MV | {"STARTTIME": april + "02:00:30", "ENDTIME": april + "02:30:30", "AMOUNT": 40, "ORDERID": 2},
            MV | {"STARTTIME": april + "05:30:30", "ENDTIME": april + "05:30:30", "AMOUNT": 30},  # a bolus
            MV | {"STARTTIME": april + "05:30:30", "ENDTIME": april + "05:31:30", "AMOUNT": 12, "AMOUNTUOM": "dose"},
            MV | {"STARTTIME": april + "07:30:30", "ENDTIME": "2150-04-02 03:30:30", "AMOUNT": 7} | REWRITTEN,
            MV | {"STARTTIME": april + "09:30:30", "ENDTIME": april + "09:00:30", "AMOUNT": 8},  # ends before it begins
            MV
            | {
                "STARTTIME": "2150-04-03 00:00:30",
                "ENDTIME": "2150-04-03 01:00:30",
                "AMOUNT": 60,
            },  # over the end
        ],
    }


def write(folder: Path, tables: Mapping[str, Sequence[Row]], suffix: str = ".csv.gz", lower: bool = False) -> Path:
    """Write tables like MIMIC-III's files: the header and text fields quoted, numbers not."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n", restval="")
        writer.writerow({column: column.lower() if lower else column for column in columns})
        writer.writerows({key: value for key, value in row.items() if value != ""} for row in rows)
        content = text.getvalue().replace('""', "").encode()
        path = folder / f"{name.lower() if lower else name}{suffix}"
        path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    return folder
