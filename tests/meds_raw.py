"""Small hand-written MEDS datasets, their variable file, and the reader run on them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from imputune.data.raw.meds.extraction import Outcome, Resources, extract_meds
from imputune.data.raw.meds.stays import MedsStays, WindowRules
from imputune.data.raw.meds.variable_file import read_variable_file

Event = tuple[Any, ...]
"""Subject, time as text (None: static), code, and then number and text if the event has them."""
Label = tuple[int, str | None, bool | None]
"""Subject, prediction time as text, and value of a label."""

TYPES = {
    "subject_id": pa.int64(),
    "time": pa.timestamp("us"),
    "code": pa.string(),
    "numeric_value": pa.float32(),
    "text_value": pa.large_string(),
}
VARIABLES = """name,kind,unit,codes,combined,factor,offset,lowest,highest,raw_lowest,raw_highest,raw_unit,value,words
heart_rate,,beats/min,HR//bpm,mean,,,1,300,,,,,
temperature,,°C,TEMP//C,mean,,,25,45,,,,,
temperature,,,TEMP//F,,0.5555555556,-17.7777777778,,,,,,,
oxygen,,%,FIO2,mean,100,,21,100,0,1,,,
oxygen,,,FIO2,,,,,,1.5,100,,,
urine,,mL,URINE//*,sum,,,0,5000,,,,,
eyes,,points,EYES,last,,,1,4,,,,,Spontaneously=4; to speech=3
lowest_sugar,,mg/dL,SUGAR,lowest,,,1,2000,,,,,
highest_lactate,,mmol/L,LACTATE,highest,,,0.1,40,,,,,
ventilated,,,VENTILATOR_ON,highest,,,,,,,,1,
,age,,MEDS_BIRTH,,,,0,120,,89,,90,
gender,static,,GENDER//F,,,,,,,,,0,
gender,static,,GENDER//M,,,,,,,,,1,
weight_kg,static,kg,WEIGHT,,,,20,400,,,,,
"""
NAMES = ("heart_rate", "temperature", "oxygen", "urine", "eyes", "lowest_sugar", "highest_lactate", "ventilated")


def stay(subject: int, start: str, end: str, died: bool = False, born: str = "2100-01-01 00:00:00") -> list[Event]:
    """Return the marks of one stay: birth, admission, discharge from the ICU, and two days later from hospital."""
    left = str(np.datetime64(end.replace(" ", "T")) + np.timedelta64(2, "D")).replace("T", " ")
    how = "DIED" if died else "HOME"
    return [
        (subject, born, "MEDS_BIRTH"),
        (subject, start, "ICU_ADMISSION//MICU"),
        (subject, end, "ICU_DISCHARGE//MICU"),
        (subject, left, f"HOSPITAL_DISCHARGE//{how}"),
    ]


def two_stays() -> list[Event]:
    """Return subjects 1, who survives, and 2, who dies, with a heart rate each; both stay 60 hours from 10:00."""
    return [
        *stay(1, "2150-03-01 10:00:00", "2150-03-03 22:00:00"),
        *stay(2, "2150-04-01 10:00:00", "2150-04-03 22:00:00", died=True),
        (1, "2150-03-01 10:10:00", "HR//bpm", 80),
        (2, "2150-04-01 10:10:00", "HR//bpm", 90),
    ]


def table_of(events: Sequence[Event], types: Mapping[str, pa.DataType] = TYPES) -> pa.Table:
    """Return events as a table, in the order in which they are given."""
    rows = [(*event, *[None] * (5 - len(event))) for event in events]
    columns = dict(zip(TYPES, map(list, zip(*rows, strict=True)), strict=True))
    columns["time"] = [None if each is None else datetime.fromisoformat(each) for each in columns["time"]]
    return pa.table({name: pa.array(columns[name], kind) for name, kind in types.items()})


def write_meds(folder: Path, *shards: Sequence[Event] | pa.Table) -> Path:
    """Write a dataset with one file a shard, and the metadata that the standard asks for."""
    for number, shard in enumerate(shards):
        path = folder / f"data/train/{number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(shard if isinstance(shard, pa.Table) else table_of(shard), path)
    (folder / "metadata").mkdir(exist_ok=True)
    (folder / "metadata/dataset.json").write_text('{"dataset_name": "hand-made", "meds_version": "0.4.1"}')
    return folder


def write_labels(folder: Path, labels: list[Label], kind: pa.DataType | None = None) -> Path:
    """Write a label table as ACES does, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "subject_id": pa.array([subject for subject, _, _ in labels], pa.int64()),
            "prediction_time": pa.array(
                [None if time is None else pd.Timestamp(time) for _, time, _ in labels], kind or pa.timestamp("us")
            ),
            "boolean_value": pa.array([value for _, _, value in labels], pa.bool_()),
        }
    )
    pq.write_table(table, folder / "labels.parquet")
    return folder / "labels.parquet"


def write_variables(folder: Path, text: str = VARIABLES) -> str:
    """Write a variable file and return its name."""
    (folder / "variables.csv").write_text(text, encoding="utf-8")
    return str(folder / "variables.csv")


def read_stays(
    folder: Path,
    *shards: Sequence[Event] | pa.Table,
    rules: WindowRules | None = None,
    variables: str = VARIABLES,
    outcome: Outcome | None = None,
) -> MedsStays:
    """Write events below `folder` and read them."""
    raw = write_meds(folder / "raw", *shards)
    file = read_variable_file(write_variables(folder, variables))
    return extract_meds(raw, file, rules or WindowRules(), Resources(home=folder / "data"), outcome)


def cells(stays: MedsStays, row: int, name: str) -> dict[int, float]:
    """Return the observed values of a stay's variable by bin, rounded to five digits."""
    place = [each.name for each in stays.variables].index(name)
    series = stays.values_NTD[row, :, place]
    return {int(hour): round(float(series[hour]), 5) for hour in np.flatnonzero(~np.isnan(series))}
