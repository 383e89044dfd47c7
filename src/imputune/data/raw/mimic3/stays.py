"""Which ICU stays form the cohort; a stay that breaks several rules is counted for the first of them."""

import duckdb

from imputune.data.raw.mimic3.reading import run_over
from imputune.data.raw.mimic3.tables import RawTable
from imputune.data.window import Window
from imputune.errors import UserError
from imputune.files import no_progress
from imputune.settings.schema import Mimic3

CARE_UNITS = {"CCU": 1, "CSRU": 2, "MICU": 3, "SICU": 4, "TSICU": 4}
"""The `icu_type` of each care unit, with the numbers of the challenge of 2012; trauma surgery counts as surgical."""
OLDEST = 90
"""Years. The database shifts the dates of birth of patients over 89, so that they seem to be 300 years old."""


def choose_stays(
    database: duckdb.DuckDBPyConnection, tables: dict[str, RawTable], rules: Mimic3, window: Window
) -> tuple[int, dict[str, int]]:
    """Create the table `stays` of those that keep the rules; return the number of all stays, and of those left out.

    The table is ascending by icustay_id: stay (from 0), subject_id, hadm_id, icustay_id, intime, until (the window's
    end, or the stay's if that is earlier), next_start (of the patient's next stay), died, age_years, gender, icu_type,
    and an outcome each in the columns los_over_3_days, los_over_7_days (of the stay in the ICU; NULL if it is known
    before the window ends) and readmission_within_30_days (to the hospital, after it was left alive; NULL for a death
    there, and for all stays if ADMISSIONS lacks the times). Stays left out are counted by rule.

    Sources: Harutyunyan et al. 2019 (adults, without transfers, in-hospital death after 48 hours), Purushotham et al.
    2018 (first ICU stay of a patient), Wang et al. 2020 (length of the ICU stay over 3 and over 7 days).

    Raises UserError for a broken row, a row that repeats the key of another, and for stays that may be shorter than
    the window if ADMISSIONS does not say when the patient left the hospital.
    """
    for name, key in (("patients", "subject_id"), ("admissions", "hadm_id"), ("icustays", "icustay_id")):
        run_over(database, tables[name], f"CREATE TEMP TABLE {name} AS {tables[name].select()}", no_progress)
        rows, keys = database.execute(f"SELECT count(*), count(DISTINCT {key}) FROM {name}").fetchall()[0]
        if rows != keys:
            raise UserError(f"{tables[name].path} repeats a {key.upper()}, or has a row without one: fetch it again")
    if rules.minimum_hours < window.hours and not tables["admissions"].has_further:
        raise UserError(
            f"{tables['admissions'].path} lacks DISCHTIME, ADMITTIME or SUBJECT_ID, so that stays under {window.hours} "
            "hours cannot be judged: fetch it again, or raise minimum_hours under mimic3 in params.yaml"
        )
    conditions = _conditions(rules, window)
    discharge = "a.dischtime" if tables["admissions"].has_further else "NULL::TIMESTAMP"
    first_broken = " ".join(f"WHEN {broken} THEN {rule}" for rule, broken in enumerate(conditions.values()))
    database.execute(f"""
        CREATE TEMP TABLE tested AS
        WITH described AS (
            SELECT i.*, p.gender, p.dob, a.hospital_expire_flag AS died, {discharge} AS dischtime,
                p.subject_id IS NOT NULL AND a.hadm_id IS NOT NULL AS has_records,
                datesub('year', p.dob, i.intime) AS age_years,
                row_number() OVER patient AS nth_stay, lead(i.intime) OVER patient AS next_start
            FROM icustays i LEFT JOIN patients p USING (subject_id) LEFT JOIN admissions a ON a.hadm_id = i.hadm_id
            WINDOW patient AS (PARTITION BY i.subject_id ORDER BY i.intime, i.icustay_id)
        )
        SELECT *, CASE {first_broken} END AS rule FROM described
    """)
    end = _window_end(window)
    units = " ".join(f"WHEN '{unit}' THEN {number}" for unit, number in CARE_UNITS.items())
    database.execute(f"""
        CREATE TEMP TABLE stays AS
        SELECT (row_number() OVER (ORDER BY icustay_id) - 1)::INTEGER AS stay, subject_id, hadm_id, icustay_id, intime,
            least({end}, outtime) AS until, next_start, died::TINYINT AS died,
            least(age_years, {OLDEST})::DOUBLE AS age_years,
            CASE gender WHEN 'F' THEN 0.0 WHEN 'M' THEN 1.0 END AS gender,
            CASE first_careunit {units} END::DOUBLE AS icu_type,
            {_stayed_over(3, window)} AS los_over_3_days, {_stayed_over(7, window)} AS los_over_7_days,
            {_READMISSION if tables["admissions"].has_further else "NULL"}::TINYINT AS readmission_within_30_days
        FROM tested WHERE rule IS NULL
    """)
    counts = dict(database.execute("SELECT rule, count(*) FROM tested GROUP BY rule").fetchall())
    return sum(counts.values()), {name: counts.get(rule, 0) for rule, name in enumerate(conditions)}


_READMISSION = """(
    SELECT CASE WHEN a.hospital_expire_flag = 0 AND a.dischtime IS NOT NULL THEN EXISTS (
        SELECT 1 FROM admissions later WHERE later.subject_id = a.subject_id AND later.hadm_id <> a.hadm_id
            AND later.admittime BETWEEN a.dischtime AND a.dischtime + INTERVAL 30 DAY
    ) END FROM admissions a WHERE a.hadm_id = tested.hadm_id
)"""


def is_known_early(days: int, window: Window) -> bool:
    """Say whether the window of a stay that lasts it shows whether the stay is over so many days."""
    return window.hours >= days * 24


def _stayed_over(days: int, window: Window) -> str:
    if is_known_early(days, window):
        return "NULL::TINYINT"
    return f"(CASE WHEN outtime >= {_window_end(window)} THEN outtime > intime + INTERVAL {days} DAY END)::TINYINT"


def _window_end(window: Window) -> str:
    return f"intime + INTERVAL {window.hours} HOUR"


def _conditions(rules: Mimic3, window: Window) -> dict[str, str]:
    """Return for each rule the SQL condition of stays that break it, in the order of counting."""
    conditions = {
        "without a patient or admission": "NOT has_records OR died IS NULL OR died NOT IN (0, 1) OR dob IS NULL",
        "without times of entry and exit": "intime IS NULL OR outtime IS NULL OR outtime <= intime",
        f"younger than {rules.minimum_age}": f"age_years < {rules.minimum_age}",
        "not the patient's first ICU stay": "nth_stay > 1",
        f"shorter than {rules.minimum_hours} hours": f"outtime < intime + INTERVAL {rules.minimum_hours} HOUR",
    }
    if rules.minimum_hours < window.hours:
        end = _window_end(window)
        conditions["with an outcome known before the window ends"] = (
            f"outtime < {end} AND (dischtime IS NULL OR dischtime < {end})"
        )
    if rules.transfers == "leave_out":
        moved = "first_careunit <> last_careunit OR first_wardid <> last_wardid"
        conditions["with a transfer between units"] = moved
    return conditions
