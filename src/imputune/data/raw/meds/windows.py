"""Which windows are read: an admission starts one, the next discharge ends the stay, and each exclusion is counted."""

import duckdb

from imputune.data.outcome_file import NO_LABEL
from imputune.data.raw.database import reported
from imputune.data.raw.meds.dataset_files import MedsFiles
from imputune.data.raw.meds.stays import WindowRules
from imputune.files import FileProgress
from imputune.protocol.outcomes import DEFAULT_OUTCOME

DAYS_IN_A_YEAR = 365.25
CONTRADICTIONS = (
    "stays died during the hospital stay, but the discharge does not say so: they have label 0",
    "stays have their first hospital discharge after another hospital admission: their label may be of that one",
)
"""Why a derived label is doubtful; see `contradicted_labels`."""


def collect_marks(
    database: duckdb.DuckDBPyConnection, files: MedsFiles, with_facts: bool, progress: FileProgress
) -> None:
    """Create the tables `marks` (subject_id, time, mark) and `facts` (what `facts_of` names) in one reading.

    A time is null where a fact does not depend on it. Raises duckdb.Error for damaged files.
    """
    wanted = "SELECT code, mark, NULL::INTEGER AS rule_id FROM marks_of"
    text = "e.text" if with_facts else "NULL::VARCHAR AS text"
    if with_facts:
        wanted += " UNION ALL SELECT code, NULL, rule_id FROM facts_of"
    with reported(database, "admissions", files.size, progress):
        database.execute(f"""
            CREATE TEMP TABLE found AS
            SELECT e.subject_id, e.time, w.mark, w.rule_id, e.number, {text}
            FROM ({files.select(texts=with_facts)}) e JOIN ({wanted}) w ON w.code = e.code
            WHERE e.subject_id IS NOT NULL
        """)
    progress("admissions", files.size, files.size)
    database.execute("""
        CREATE TEMP TABLE marks AS
        SELECT subject_id, time, mark, count(*) AS events FROM found WHERE mark IS NOT NULL GROUP BY ALL
    """)


def choose_windows(
    database: duckdb.DuckDBPyConnection, rules: WindowRules, outcome: str, derived: bool
) -> tuple[int, dict[str, int], dict[str, int]]:
    """Create the table `chosen` of the windows that keep the rules, ascending by subject and start.

    Its columns: stay (from 0), subject_id, start, until (the window's end, or the stay's if that is earlier), stay_end,
    next_start, birth, death, is_first (of the subject's chosen windows), age_years, in_hospital_death as 0, 1, or
    NO_LABEL for a stay without a hospital discharge after its start or with one before the window ends, and outcome:
    in-hospital death if `derived`, otherwise NO_LABEL. `outcome`: the name of the one that is asked for; `derived`:
    whether it is derived here.

    Returns the number of all windows, those left out by the first rule they break, and ignored marks, by reason.

    A death at 00:00:00 is a day without a time: it counts as the end of that day.
    """
    database.execute(_TESTED)
    conditions = _conditions(rules, outcome)
    first_broken = " ".join(f"WHEN {broken} THEN {rule}" for rule, broken in enumerate(conditions.values()))
    label = "outcome" if derived else f"{NO_LABEL}::TINYINT"
    database.execute(f"""
        CREATE TEMP TABLE judged AS SELECT *, CASE {first_broken} END AS rule FROM tested;
        CREATE TEMP TABLE chosen AS
        SELECT (row_number() OVER (ORDER BY subject_id, start) - 1)::INTEGER AS stay, subject_id, start,
            least(start + INTERVAL {rules.hours} HOUR, stay_end) AS until, stay_end, next_start, birth, death,
            row_number() OVER (PARTITION BY subject_id ORDER BY start) = 1 AS is_first, age_years,
            {label} AS outcome, CASE WHEN {_known_early(rules)} THEN {NO_LABEL} ELSE outcome END AS in_hospital_death
        FROM judged WHERE rule IS NULL ORDER BY subject_id, start
    """)
    counts = dict(database.execute("SELECT rule, count(*) FROM judged GROUP BY rule").fetchall())
    left_out = {name: counts.get(rule, 0) for rule, name in enumerate(conditions)}
    return sum(counts.values()), left_out, _ignored_marks(database)


def _conditions(rules: WindowRules, outcome: str) -> dict[str, str]:
    """Return for each rule the SQL condition of windows that break it, in the order of counting."""
    conditions = {
        "of a subject with two times of birth": "births > 1",
        "starting before the subject's birth": "start < birth",
        "starting after the subject's death": "start > death",
    }
    if rules.needs_age:
        conditions["without a time of birth"] = "birth IS NULL"
    if rules.minimum_age > 0:
        conditions[f"younger than {rules.minimum_age:g}"] = f"age_years < {rules.minimum_age}"
    if rules.maximum_age is not None:
        conditions[f"older than {rules.maximum_age:g}"] = f"age_years > {rules.maximum_age}"
    if rules.stays == "first":
        conditions["not the subject's first stay"] = "nth > 1"
    conditions |= {
        "without an end before the next start": "stay_end IS NULL",
        f"shorter than {rules.minimum_hours} hours": f"stay_end < start + INTERVAL {rules.minimum_hours} HOUR",
    }
    if outcome == DEFAULT_OUTCOME:
        conditions["with an outcome known before the window ends"] = _known_early(rules)
    else:
        conditions["of a subject who died before the window ends"] = f"least(died, death) < {_window_end(rules)}"
    return conditions


def _window_end(rules: WindowRules) -> str:
    return f"start + INTERVAL {rules.hours} HOUR"


def _known_early(rules: WindowRules) -> str:
    """Return the SQL condition of windows that end after it is known whether the patient died in hospital."""
    return f"least(discharge, died, death) < {_window_end(rules)}"


def contradicted_labels(database: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Count the chosen windows whose derived label other events contradict, by what is wrong with them.

    A hospital discharge after the subject's next admission to hospital is most likely the one of that admission.
    """
    counts = database.execute(f"""
        SELECT
            count(*) FILTER (t.outcome = 0 AND t.death <= t.discharge),
            count(*) FILTER (t.outcome <> {NO_LABEL} AND t.admitted_again < t.discharge)
        FROM chosen c JOIN tested t USING (subject_id, start)
    """).fetchall()[0]
    return {reason: int(count) for reason, count in zip(CONTRADICTIONS, counts, strict=True) if count}


def _ignored_marks(database: duckdb.DuckDBPyConnection) -> dict[str, int]:
    counts = database.execute("""
        SELECT
            (SELECT count(*) FROM marks WHERE mark = 'end' AND time IS NOT NULL)
                - (SELECT count(DISTINCT (subject_id, stay_end)) FROM tested WHERE stay_end IS NOT NULL),
            (SELECT coalesce(sum(events - 1), 0) FROM marks WHERE mark IN ('start', 'end') AND time IS NOT NULL),
            (SELECT coalesce(sum(events), 0) FROM marks WHERE time IS NULL)
    """).fetchall()[0]
    reasons = ("ends without a start", "starts and ends that repeat another", "marks without a time")
    return {reason: int(count) for reason, count in zip(reasons, counts, strict=True)}


_TESTED = f"""
    CREATE TEMP TABLE tested AS
    WITH starts AS (
        SELECT subject_id, time AS start, lead(time) OVER subject AS next_start, row_number() OVER subject AS nth
        FROM marks WHERE mark = 'start' AND time IS NOT NULL WINDOW subject AS (PARTITION BY subject_id ORDER BY time)
    ), births AS (
        SELECT subject_id, min(time) AS birth, count(*) AS births FROM marks
        WHERE mark = 'birth' AND time IS NOT NULL GROUP BY subject_id
    ), deaths AS (
        SELECT subject_id, min(time + to_days((time = date_trunc('day', time))::INTEGER)) AS death
        FROM marks WHERE mark = 'death' AND time IS NOT NULL GROUP BY subject_id
    ), ended AS (
        SELECT s.*, CASE WHEN e.time <= s.next_start OR s.next_start IS NULL THEN e.time END AS stay_end
        FROM starts s ASOF LEFT JOIN (FROM marks WHERE mark = 'end' AND time IS NOT NULL) e
            ON e.subject_id = s.subject_id AND s.start < e.time
    ), left_hospital AS (
        SELECT s.*, d.time AS discharge
        FROM ended s ASOF LEFT JOIN (FROM marks WHERE mark = 'discharge' AND time IS NOT NULL) d
            ON d.subject_id = s.subject_id AND s.start <= d.time
    ), returned AS (
        SELECT s.*, a.time AS admitted_again
        FROM left_hospital s ASOF LEFT JOIN (FROM marks WHERE mark = 'admission' AND time IS NOT NULL) a
            ON a.subject_id = s.subject_id AND s.start < a.time
    ), with_died AS (
        SELECT s.*, d.time AS died
        FROM returned s ASOF LEFT JOIN (FROM marks WHERE mark = 'died' AND time IS NOT NULL) d
            ON d.subject_id = s.subject_id AND s.start <= d.time
    )
    SELECT w.*, birth, births, death, date_diff('second', birth, start) / {86400 * DAYS_IN_A_YEAR} AS age_years,
        CASE WHEN discharge IS NULL THEN {NO_LABEL} WHEN died <= discharge THEN 1 ELSE 0 END::TINYINT AS outcome
    FROM with_died w LEFT JOIN births USING (subject_id) LEFT JOIN deaths USING (subject_id)
"""
