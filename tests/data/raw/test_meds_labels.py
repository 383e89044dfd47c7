import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imputune.data.cohort import read_cohort, write_cohort
from imputune.data.outcome_file import NO_LABEL
from imputune.data.raw.meds.extraction import Outcome
from imputune.data.raw.meds.labels import DIFFERING
from imputune.data.raw.meds.reasons import SINGULAR, told_counts
from imputune.data.raw.meds.stays import MedsStays, WindowRules
from imputune.data.raw.meds.values import NOT_ALIVE
from imputune.data.raw.meds.variable_file import read_variable_file
from imputune.data.raw.meds.windows import CONTRADICTIONS
from imputune.datasets.meds import to_cohort
from imputune.errors import UserError
from meds_raw import Label, read_stays, stay, two_stays, write_labels


def labelled(folder: Path, labels: list[Label], rules: WindowRules | None = None) -> MedsStays:
    """Read two subjects' stays, of which the second has two, with these labels."""
    again = [*stay(2, "2150-09-01 10:00:00", "2150-09-04 10:00:00"), (2, "2150-09-01 10:00:00", "HR//bpm", 60)]
    path = write_labels(folder, labels)
    return read_stays(folder, [*two_stays(), *again], rules=rules, outcome=Outcome(name="sepsis", labels=path))


@pytest.mark.parametrize(
    ("name", "how", "kept"),
    [
        ("sepsis", "DIED", [1]),
        ("sepsis", "HOME", [1, 2]),
        ("in_hospital_death", "DIED", [1]),
        ("in_hospital_death", "HOME", [1]),
    ],
)
def test_an_outcome_known_before_the_window_ends(tmp_path: Path, name: str, how: str, kept: list[int]) -> None:
    """A death in the window counts if only the discharge tells it; for in-hospital death, each discharge counts."""
    left = (2, "2150-04-02 16:00:00", f"HOSPITAL_DISCHARGE//{how}")
    events = [left if each[0] == 2 and each[2].startswith("HOSPITAL") else each for each in two_stays()]
    path = write_labels(tmp_path, [(1, "2150-03-04 10:00:00", False), (2, "2150-04-09 10:00:00", True)])
    stays = read_stays(tmp_path, events, outcome=Outcome(name=name, labels=path))
    assert stays.subject_ids_N.tolist() == kept


def told(stays: MedsStays) -> dict[str, int]:
    """Return what became of labels, by reason."""
    return {reason: count for reason, count in stays.label_counts.items() if count}


def test_a_label_belongs_to_the_last_window_that_ended(tmp_path: Path) -> None:
    """A label at a window's end or later counts, until the subject's next stay starts."""
    labels: list[Label] = [
        (1, "2150-03-03 10:00:00", True),  # the window's end
        (2, "2150-08-31 10:00:00", False),  # before the next stay
        (2, "2150-09-03 10:00:00", True),
    ]
    stays = labelled(tmp_path, labels, WindowRules(stays="all"))
    assert {name: label_N.tolist() for name, label_N in stays.labels.items()} == {
        "sepsis": [1, 0, 1],
        "in_hospital_death": [0, 1, 0],
    }
    assert told(stays) == {"labels read": 3}
    first = labelled(tmp_path / "first", labels)
    assert first.labels["sepsis"].tolist() == [1, 0]
    assert told(first) == {"labels read": 3, "labels without a window": 1}


def test_labels_that_fit_no_window_are_counted(tmp_path: Path) -> None:
    """Labels before a window's end, of another subject or stay, or without a value, and windows without a label."""
    labels: list[Label] = [
        (1, "2150-03-03 09:59:59", True),
        (2, "2150-09-01 10:00:00", True),  # when a stay starts that is left out
        (7, "2150-03-03 10:00:00", True),
        (1, "2150-03-03 10:00:00", None),
        (1, None, True),
        (1, "2150-03-03 10:00:00", True),
    ]
    stays = labelled(tmp_path, labels)
    assert stays.labels["sepsis"].tolist() == [1, NO_LABEL]
    assert told(stays) == {
        "labels read": 6,
        "labels without a value or time": 2,
        "labels without a window": 3,
        "windows without a label": 1,
    }


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([(1, "2150-03-03 09:59:59", True), (2, "2150-04-01 10:00:00", False)], "all 2 prediction_times of these"),
        ([(1, "2150-03-03 09:59:59", True)], "are before their windows end (hour 48); use prediction_times at hour 48"),
        (
            [(7, "2150-03-03 10:00:00", True)],
            "no subject_id of its 1 label is one of the 2 windows; take the labels of",
        ),
        ([(2, "2150-09-01 10:00:00", True)], "are after their next stay has begun; use prediction_times between"),
        (
            [(1, "2150-03-03 09:59:59", True), (2, "2150-09-01 10:00:00", True)],
            "1 prediction_time before the subject's first window ends (hour 48), and 1 after the next stay has begun",
        ),
        (
            [(1, None, True), (2, "2150-04-09 10:00:00", None)],
            "none of its 2 rows has a prediction_time and a boolean_v",
        ),
        ([], "the table has no row"),
        (
            [(1, "2150-03-03 10:00:00", True), (1, "2150-03-03 10:00:00", False)],
            "1 window has labels of both values, and no other has one; give one label for each window",
        ),
    ],
)
def test_why_no_window_has_a_label(tmp_path: Path, labels: list[Label], why: str) -> None:
    """The error says which it is: other subjects, times before the window's end or after the next start, no value."""
    with pytest.raises(UserError, match=re.escape(why)):
        labelled(tmp_path, labels)


def test_labels_of_death_are_compared_with_the_codes(tmp_path: Path) -> None:
    """Labels of in-hospital death that differ from what the discharges tell are counted; equal ones are not."""
    labels: list[Label] = [(1, "2150-03-03 10:00:00", True), (2, "2150-04-03 10:00:00", True)]
    path = write_labels(tmp_path, labels)
    stays = read_stays(tmp_path, two_stays(), outcome=Outcome(name="in_hospital_death", labels=path))
    assert read_stays(tmp_path, two_stays()).labels["in_hospital_death"].tolist() == [0, 1]
    assert told(stays) == {
        "labels read": 2,
        "labels differ from the in-hospital death that the codes tell": 1,
    }


def test_labels_of_both_values(tmp_path: Path) -> None:
    """A window with labels of both values has none; equal labels count once."""
    labels: list[Label] = [
        (1, "2150-03-03 10:00:00", True),
        (1, "2150-03-03 11:00:00", False),
        (2, "2150-04-03 10:00:00", True),
        (2, "2150-04-03 10:00:00", True),
    ]
    stays = labelled(tmp_path, labels)
    assert stays.labels["sepsis"].tolist() == [NO_LABEL, 1]
    assert told(stays) == {
        "labels read": 4,
        "windows with labels of both values": 1,
        "labels that repeat another of their window": 1,
    }


def test_a_cohort_of_labelled_stays(tmp_path: Path) -> None:
    """Stays without a label are left out and counted; one value alone is refused."""
    third = [*stay(3, "2150-03-01 10:00:00", "2150-03-09 10:00:00"), (3, "2150-03-01 10:00:00", "HR//bpm", 55)]
    path = write_labels(tmp_path, [(1, "2150-03-03 10:00:00", True), (3, "2150-03-03 10:00:00", False)])
    outcome = Outcome(name="in_hospital_death", labels=path)
    stays = read_stays(tmp_path, [*two_stays(), *third], outcome=outcome)
    file = read_variable_file(str(tmp_path / "variables.csv"))
    cohort = to_cohort(stays, "ward", file)
    assert (cohort.dataset, cohort.stay_ids_N.tolist(), cohort.outcome_N.tolist()) == ("ward", [1, 2], [1, 0])
    assert cohort.subjects_N.tolist() == [1, 3]
    assert cohort.values_NTD[:, 0, 0].tolist() == [80, 55]
    assert cohort.source["exclusions"]["without a label of in_hospital_death"] == 1  # type: ignore[index,call-overload]
    path = write_labels(tmp_path, [(1, "2150-03-03 10:00:00", True)])
    with pytest.raises(
        UserError, match="in_hospital_death is 1 in all 1 labelled stay: a model needs stays with label 0"
    ):
        to_cohort(read_stays(tmp_path, two_stays(), outcome=outcome), "ward", file)


def test_a_cohort_of_two_outcomes(tmp_path: Path) -> None:
    """A label table's outcome is the first, in-hospital death stands beside it, and each stay keeps its subject."""
    labels: list[Label] = [(1, "2150-03-03 10:00:00", True), (2, "2150-09-03 10:00:00", False)]
    stays = labelled(tmp_path, labels, WindowRules(stays="all"))
    cohort = to_cohort(stays, "ward", read_variable_file(str(tmp_path / "variables.csv")))
    assert cohort.subjects_N.tolist() == [1, 2, 2]
    assert {name: label_N.tolist() for name, label_N in cohort.outcomes.items()} == {
        "sepsis": [1, NO_LABEL, 0],
        "in_hospital_death": [0, 1, 0],
    }
    write_cohort(cohort, tmp_path / "ward")
    again = read_cohort(tmp_path / "ward")
    assert again.outcome == "sepsis"
    assert again.with_outcome("in_hospital_death").outcome_N.tolist() == [0, 1, 0]
    assert again.subjects_N.tolist() == [1, 2, 2]


def test_a_discharge_before_the_window_ends_leaves_no_label_of_death(tmp_path: Path) -> None:
    """A stay whose label table has a label, but whose hospital stay ended in the window, has no label of death."""
    short = [
        (3, "2100-01-01 00:00:00", "MEDS_BIRTH"),
        (3, "2150-03-01 10:00:00", "ICU_ADMISSION//MICU"),
        (3, "2150-03-02 20:00:00", "ICU_DISCHARGE//MICU"),
        (3, "2150-03-02 20:00:00", "HOSPITAL_DISCHARGE//HOME"),
        (3, "2150-03-01 11:00:00", "HR//bpm", 70),
    ]
    path = write_labels(tmp_path, [(1, "2150-03-03 10:00:00", True), (3, "2150-03-04 10:00:00", False)])
    rules = WindowRules(minimum_hours=24)
    stays = read_stays(tmp_path, [*two_stays(), *short], rules=rules, outcome=Outcome(name="sepsis", labels=path))
    assert stays.labels["sepsis"].tolist() == [1, NO_LABEL, 0]
    assert stays.labels["in_hospital_death"].tolist() == [0, 1, NO_LABEL]


def test_counts_of_one_are_told_in_the_singular(tmp_path: Path) -> None:
    """Every reason that begins with a noun has a singular, and reasons without a count are left out."""
    stays = labelled(tmp_path, [(1, "2150-03-03 10:00:00", True)])
    reasons = {*stays.label_counts, *stays.events.ignored, *CONTRADICTIONS, DIFFERING, f"events {NOT_ALIVE}"}
    assert reasons - {"without a subject or code"} == set(SINGULAR)
    assert told_counts(stays.label_counts) == "1 label read, 1 window without a label"
    assert told_counts({DIFFERING: 1}).startswith("1 label differs from")
    assert told_counts({"labels read": 2_000, "without a number": 1}) == "2,000 labels read, 1 without a number"


def test_label_tables_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a table of another kind and a time zone are refused, and so is an outcome without its labels."""
    with pytest.raises(UserError, match=r"--labels .*none.parquet is neither a .parquet file nor a folder"):
        read_stays(tmp_path, two_stays(), outcome=Outcome(name="sepsis", labels=tmp_path / "none.parquet"))
    write_labels(tmp_path, [(1, "2150-03-03 10:00:00", True)], pa.timestamp("us", "UTC"))
    outcome = Outcome(name="sepsis", labels=tmp_path / "labels.parquet")
    with pytest.raises(
        UserError, match="prediction_time must be timestamps without a time zone, got timestamps of the"
    ):
        read_stays(tmp_path, two_stays(), outcome=outcome)
    pq.write_table(pa.table({"subject_id": [1], "label": [True]}), tmp_path / "labels.parquet")
    with pytest.raises(
        UserError, match=r"lacks the column prediction_time, boolean_value \(it has subject_id, label\)"
    ):
        read_stays(tmp_path, two_stays(), outcome=outcome)
    with pytest.raises(UserError, match="only in_hospital_death can be derived from codes: give --labels FILE"):
        read_stays(tmp_path, two_stays(), outcome=Outcome(name="sepsis"))
