from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imputune.data.raw.meds.stays import MedsStays, WindowRules
from imputune.errors import UserError
from meds_raw import cells, read_stays, stay, table_of, two_stays


def dropped(stays: MedsStays) -> dict[str, int]:
    """Return the reasons for which events were dropped."""
    return {reason: count for reason, count in stays.events.dropped.items() if count}


def excluded(stays: MedsStays) -> dict[str, int]:
    """Return the reasons for which stays were left out."""
    return {reason: count for reason, count in stays.exclusions.items() if count}


def test_values_of_hours(tmp_path: Path) -> None:
    """Events of an hour are combined as the variable file says; the window has its first second and not its last."""
    events = [
        *two_stays(),
        (1, "2150-03-01 10:00:00", "HR//bpm", 100),
        (1, "2150-03-01 09:59:59", "HR//bpm", 40),  # before the window
        (1, "2150-03-03 09:59:59", "HR//bpm", 60),
        (1, "2150-03-03 10:00:00", "HR//bpm", 50),  # after it
        (1, "2150-03-01 11:10:00", "URINE//1", 30),
        (1, "2150-03-01 11:50:00", "URINE//2", 40),
        (1, "2150-03-01 12:10:00", "SUGAR", 90),
        (1, "2150-03-01 12:20:00", "SUGAR", 70),
        (1, "2150-03-01 12:30:00", "SUGAR", 80),
        (1, "2150-03-01 12:10:00", "LACTATE", 1),
        (1, "2150-03-01 12:20:00", "LACTATE", 5),
        (1, "2150-03-01 12:30:00", "LACTATE", 3),
        (1, "2150-03-01 13:10:00", "EYES", 2),
        (1, "2150-03-01 13:50:00", "EYES", 3),
        (1, "2150-03-01 13:20:00", "EYES", 4),
        (1, "2150-03-01 13:30:00", "VENTILATOR_ON"),
        (1, "2150-03-01 13:30:00", "UNKNOWN", 7),
    ]
    stays = read_stays(tmp_path, events)
    assert stays.subject_ids_N.tolist() == [1, 2]
    assert stays.start_N.tolist() == [
        each.astype("O") for each in np.array(["2150-03-01T10", "2150-04-01T10"], "M8[us]")
    ]
    assert stays.labels["in_hospital_death"].tolist() == [0, 1]
    assert cells(stays, 0, "heart_rate") == {0: 90, 47: 60}
    assert cells(stays, 1, "heart_rate") == {0: 90}
    assert cells(stays, 0, "urine") == {1: 70}
    assert cells(stays, 0, "lowest_sugar") == {2: 70}
    assert cells(stays, 0, "highest_lactate") == {2: 5}
    assert cells(stays, 0, "eyes") == {3: 3}
    assert cells(stays, 0, "ventilated") == {3: 1}
    assert np.isnan(stays.values_NTD).sum() == stays.values_NTD.size - 8
    assert (stays.events.read, stays.events.in_windows, dropped(stays)) == (27, 16, {})
    assert stays.about == {"dataset_name": "hand-made", "meds_version": "0.4.1"}


def test_units_texts_and_ranges(tmp_path: Path) -> None:
    """Numbers are converted by code and by form, texts by the words of the file; what fits none is counted."""
    events = [
        *two_stays(),
        (1, "2150-03-01 10:00:00", "TEMP//C", 37),
        (1, "2150-03-01 11:00:00", "TEMP//F", 98.6),
        (1, "2150-03-01 12:00:00", "TEMP//F", 113),  # 45.000000005 °C, the highest that is accepted
        (1, "2150-03-01 13:00:00", "TEMP//F", 113.0001),
        (1, "2150-03-01 10:00:00", "FIO2", 0.5),
        (1, "2150-03-01 11:00:00", "FIO2", 40),
        (1, "2150-03-01 12:00:00", "FIO2", 1.2),  # neither a fraction nor a percentage
        (1, "2150-03-01 13:00:00", "FIO2", 0.1),  # 10 %: out of the accepted range
        (1, "2150-03-01 10:00:00", "EYES", None, "spontaneously "),
        (1, "2150-03-01 11:00:00", "EYES", None, "To Speech"),
        (1, "2150-03-01 12:00:00", "EYES", None, "never seen"),
        (1, "2150-03-01 13:00:00", "EYES", 2, "never seen"),
        (1, "2150-03-01 12:00:00", "HR//bpm"),
        (1, "2150-03-01 12:00:00", "HR//bpm", None, "refused"),
        (1, "2150-03-01 12:00:00", "HR//bpm", float("nan")),
        (1, "2150-03-01 12:00:00", "HR//bpm", float("inf")),
        (1, "2150-03-01 12:00:00", "HR//bpm", 301),
        (1, "2150-03-01 12:00:00", "HR//bpm", 0),
    ]
    stays = read_stays(tmp_path, events)
    assert cells(stays, 0, "temperature") == {0: 37, 1: 37, 2: 45}
    assert cells(stays, 0, "oxygen") == {0: 50, 1: 40}
    assert cells(stays, 0, "eyes") == {0: 4, 1: 3, 3: 2}
    assert cells(stays, 0, "heart_rate") == {0: 80}
    assert dropped(stays) == {
        "without a number": 3,
        "with a text that the variable file does not list": 2,
        "in no form or unit that the variable file lists": 1,
        "out of the accepted range": 4,
    }


def test_a_unit_may_stand_in_a_column(tmp_path: Path) -> None:
    """With raw_unit, a row counts for events of this unit alone; letter case does not matter."""
    lines = (
        "name,unit,codes,factor,raw_unit\nheart_rate,beats/min,HR//bpm,,\nsugar,mg/dL,SUGAR,,mg/dl\n"
        "sugar,,SUGAR,18,mmol/L\n"
    )
    times = [f"2150-03-01 1{hour}:00:00" for hour in range(4)]
    events = [*two_stays(), *[(1, time, "SUGAR", 5 + hour) for hour, time in enumerate(times)]]
    units = [*[None] * len(two_stays()), "MG/DL", "mmol/l", "g/L", None]
    table = table_of(events)
    stays = read_stays(tmp_path, table.append_column("unit", [units]), variables=lines)
    assert cells(stays, 0, "sugar") == {0: 5, 1: 108}
    assert dropped(stays) == {"in no form or unit that the variable file lists": 2}
    with pytest.raises(UserError, match=r"^raw_unit in line 3 of the variable file needs the column unit, which this"):
        read_stays(tmp_path / "without", two_stays(), variables=lines)


def test_repeated_events_count_once(tmp_path: Path) -> None:
    """The same code, time and value counts once, other values at that time all count."""
    again = (1, "2150-03-01 11:00:00", "URINE//1", 30)
    other = (1, "2150-03-01 11:00:00", "URINE//1", 50)
    stays = read_stays(tmp_path, [*two_stays(), again, again, again, other])
    assert cells(stays, 0, "urine") == {1: 80}
    assert dropped(stays) == {"repeating another": 2}


def test_events_before_birth_and_after_death(tmp_path: Path) -> None:
    """Hours before a death are read; a stay that starts before birth or after death is left out."""
    rules = WindowRules(hours=24, minimum_hours=24, minimum_age=0)
    events = [
        *two_stays(),
        (2, "2150-04-02 10:00:00", "MEDS_DEATH"),  # when the window ends
        (2, "2150-04-02 09:59:00", "HR//bpm", 60),
        *stay(3, "2150-03-01 10:00:00", "2150-03-09 10:00:00", born="2150-03-01 10:00:01"),
        *stay(4, "2150-03-01 10:00:00", "2150-03-09 10:00:00"),
        (4, "2150-03-01 09:59:59", "MEDS_DEATH"),
        *stay(5, "2150-03-01 10:00:00", "2150-03-09 10:00:00"),
        (5, "2150-03-01 20:00:00", "MEDS_DEATH"),
    ]
    stays = read_stays(tmp_path, events, rules=rules)
    assert stays.subject_ids_N.tolist() == [1, 2]
    assert cells(stays, 1, "heart_rate") == {0: 90, 23: 60}
    assert excluded(stays) == {
        "starting before the subject's birth": 1,
        "starting after the subject's death": 1,
        "with an outcome known before the window ends": 1,
    }
    dies_on_a_day = [*two_stays(), (2, "2150-04-03 00:00:00", "MEDS_DEATH"), (2, "2150-04-03 09:00:00", "HR//bpm", 60)]
    stays = read_stays(tmp_path / "day", dies_on_a_day)
    assert cells(stays, 1, "heart_rate") == {0: 90, 47: 60}  # midnight stands for the whole day


def test_events_outside_a_life_are_dropped_and_counted(tmp_path: Path) -> None:
    """Measurements and facts before the birth or after the death of a subject count nowhere, each one is counted."""
    events = [
        *two_stays(),
        (1, "2099-12-31 00:00:00", "WEIGHT", 50),  # before the birth
        (1, "2099-12-31 00:00:00", "HR//bpm", 70),
        (2, "2149-01-01 00:00:00", "WEIGHT", 60),
        (2, "2150-04-05 12:00:00", "MEDS_DEATH"),
        (2, "2150-04-05 12:00:01", "HR//bpm", 70),
        (2, "2150-04-05 12:00:00", "HR//bpm", 70),  # at the death
        (9, "2150-04-05 12:00:00", "MEDS_DEATH"),
        (9, "2150-04-06 12:00:00", "HR//bpm", 70),  # of a subject without a window
    ]
    stays = read_stays(tmp_path, events)
    assert stays.events.ignored["events before the subject's birth or after the death"] == 3
    assert stays.events.in_windows == 2
    assert stays.static["weight_kg"].fillna(-1).tolist() == [-1, 60]
    again = [*stay(2, "2150-05-01 10:00:00", "2150-05-04 10:00:00"), (2, "2150-05-01 10:10:00", "HR//bpm", 60)]
    both = [*two_stays(), *again, (2, "2099-01-01 10:10:00", "HR//bpm", 60)]
    stays = read_stays(tmp_path / "all", both, rules=WindowRules(stays="all"))
    assert stays.events.ignored["events before the subject's birth or after the death"] == 1  # once, not in each stay
    assert "events before the subject's birth or after the death" not in (
        read_stays(tmp_path / "plain", two_stays()).events.ignored
    )


@pytest.mark.parametrize("died", ["HOSPITAL_DISCHARGE//Expired", "HOSPITAL_DISCHARGE//EXPIRED//x"])
def test_labels_that_other_events_contradict(tmp_path: Path, died: str) -> None:
    """A death that the discharge does not tell, and a discharge after the next admission to hospital, are counted."""
    long = ("2150-03-01 10:00:00", "2150-03-04 10:00:00")  # discharged on 6 March at 10:00
    events = [*two_stays()]
    for subject in range(3, 8):
        events += [*stay(subject, *long), (subject, "2150-03-01 10:30:00", "HR//bpm", 70)]
    events += [
        (3, "2150-03-05 12:00:00", "MEDS_DEATH"),
        (4, "2150-03-06 12:00:00", "MEDS_DEATH"),  # at home
        (5, "2150-03-05 12:00:00", "HOSPITAL_ADMISSION//URGENT"),
        (6, "2150-03-01 08:00:00", "HOSPITAL_ADMISSION//URGENT"),
        (6, "2150-03-07 08:00:00", "HOSPITAL_ADMISSION//URGENT"),
        (7, "2150-03-05 12:00:00", died),
    ]
    stays = read_stays(tmp_path, events)
    assert stays.labels["in_hospital_death"].tolist() == [0, 1, 0, 0, 0, 0, 1]
    first, second = stays.label_counts.items()
    assert first[0].startswith("stays died during the hospital stay, but the discharge does not say so")
    assert second[0].startswith("stays have their first hospital discharge after another hospital admission")
    assert (first[1], second[1]) == (1, 1)
    assert read_stays(tmp_path / "plain", two_stays()).label_counts == {}


def test_exclusions_are_counted_by_the_first_rule(tmp_path: Path) -> None:
    """Each window that breaks a rule is left out and counted once."""
    events = [
        *two_stays(),
        *stay(1, "2150-06-01 10:00:00", "2150-06-09 10:00:00"),  # a second stay
        *stay(3, "2150-03-01 10:00:00", "2150-03-09 10:00:00", born="2140-01-01 00:00:00"),
        *stay(4, "2150-03-01 10:00:00", "2150-03-03 09:59:59"),
        *stay(5, "2150-03-01 10:00:00", "2150-03-09 10:00:00")[1:],
        *stay(6, "2150-03-01 10:00:00", "2150-03-09 10:00:00"),
        (6, "2101-01-01 00:00:00", "MEDS_BIRTH"),
        *stay(7, "2150-03-01 10:00:00", "2150-03-09 10:00:00")[:2],
        *stay(8, "2150-03-01 10:00:00", "2150-03-09 10:00:00"),  # no measurement
        *stay(9, "2150-03-01 10:00:00", "2150-03-09 10:00:00"),
        (9, "2150-03-02 10:00:00", "HOSPITAL_DISCHARGE//HOME"),  # before the window ends
        (9, "2150-03-01 11:00:00", "HR//bpm", 80),
        (10, "2150-03-01 10:00:00", "ICU_DISCHARGE//MICU"),
    ]
    stays = read_stays(tmp_path, events)
    assert (stays.stays_read, stays.subject_ids_N.tolist()) == (10, [1, 2])
    assert excluded(stays) == {
        "of a subject with two times of birth": 1,
        "without a time of birth": 1,
        "younger than 18": 1,
        "not the subject's first stay": 1,
        "without an end before the next start": 1,
        "shorter than 48 hours": 1,
        "with an outcome known before the window ends": 1,
        "without a measurement": 1,
    }
    assert stays.events.ignored["ends without a start"] == 1


def test_all_stays_and_their_subjects(tmp_path: Path) -> None:
    """With `all`, a subject has several stays; the end of one may be the start of the next."""
    again = [
        (1, "2150-03-03 22:00:00", "ICU_ADMISSION//CCU"),
        (1, "2150-03-05 22:00:00", "ICU_DISCHARGE//CCU"),
        (1, "2150-03-03 22:30:00", "HR//bpm", 70),
    ]
    stays = read_stays(tmp_path, [*two_stays(), *again], rules=WindowRules(stays="all"))
    assert stays.subject_ids_N.tolist() == [1, 1, 2]
    assert [cells(stays, row, "heart_rate") for row in range(3)] == [{0: 80}, {0: 70}, {0: 90}]
    # the second stay ends when the subject leaves the hospital, and its outcome is then known
    assert stays.labels["in_hospital_death"].tolist() == [0, 0, 1]


def test_hours_and_bins_of_other_lengths(tmp_path: Path) -> None:
    """24 hours in bins of two: twelve bins; in a shorter stay the hours after its end have no value, and it is told."""
    rules = WindowRules(hours=24, bin_hours=2, minimum_hours=12)
    events = [
        *two_stays(),
        *stay(3, "2150-03-01 10:00:00", "2150-03-01 23:30:00"),
        (1, "2150-03-01 12:10:00", "HR//bpm", 70),
        (1, "2150-03-01 13:50:00", "HR//bpm", 90),
        (3, "2150-03-01 23:20:00", "HR//bpm", 60),
        (3, "2150-03-01 23:40:00", "HR//bpm", 61),  # on a ward
    ]
    stays = read_stays(tmp_path, events, rules=rules)
    assert stays.values_NTD.shape == (3, 12, 8)
    assert cells(stays, 0, "heart_rate") == {0: 80, 1: 80}
    assert cells(stays, 2, "heart_rate") == {6: 60}
    assert stays.shorter == 1


def test_static_facts(tmp_path: Path) -> None:
    """Age comes from birth, 90 for all over 89; a weight in the window counts before an earlier one."""
    events = [
        *two_stays(),
        *stay(3, "2150-03-01 10:00:00", "2150-03-09 10:00:00", born="2059-03-01 00:00:00"),
        (3, "2150-03-01 10:10:00", "HR//bpm", 70),
        (1, None, "GENDER//F"),
        (2, None, "GENDER//M"),
        (3, None, "GENDER//F"),
        (3, None, "GENDER//M"),
        (1, "2149-01-01 00:00:00", "WEIGHT", 50),
        (1, "2149-06-01 00:00:00", "WEIGHT", 60),
        (2, "2149-06-01 00:00:00", "WEIGHT", 60),
        (2, "2150-04-01 11:00:00", "WEIGHT", 1),  # out of the accepted range
        (2, "2150-04-01 12:00:00", "WEIGHT", 75),
        (2, "2150-04-01 13:00:00", "WEIGHT", 80),
        (3, "2150-03-05 13:00:00", "WEIGHT", 80),  # after the window
    ]
    stays = read_stays(tmp_path, events)
    assert stays.static["gender"].tolist()[:2] == [0, 1]
    assert np.isnan(stays.static["gender"][2])
    assert stays.static["weight_kg"].tolist()[:2] == [60, 75]
    assert np.isnan(stays.static["weight_kg"][2])
    assert stays.static["age_years"].round(2).tolist() == [50.16, 50.25, 90]
    assert stays.events.ignored["facts that contradict"] == 1
    assert [each.parameter for each in stays.static_variables] == ["Age", "Gender", "Weight"]


def test_order_files_and_threads_do_not_matter(tmp_path: Path) -> None:
    """The same events in another order and other files give the same bytes."""
    rng = np.random.default_rng(1)
    events = [*two_stays()]
    for subject, month in ((1, 3), (2, 4)):
        for minute in rng.integers(0, 40 * 60, 300):
            time = np.datetime64(f"2150-0{month}-01T10:00") + np.timedelta64(int(minute), "m")
            events.append((subject, str(time).replace("T", " ") + ":00", "HR//bpm", float(rng.normal(80, 20))))
    mixed = [events[place] for place in rng.permutation(len(events))]
    one = read_stays(tmp_path / "one", events)
    other = read_stays(tmp_path / "other", mixed[:100], mixed[100:350], mixed[350:])
    assert one.values_NTD.tobytes() == other.values_NTD.tobytes()
    assert (one.start_N == other.start_N).all()


def test_nothing_temporary_is_left(tmp_path: Path) -> None:
    """The scratch folder is gone after a reading, and after one that failed; the values stay readable."""
    stays = read_stays(tmp_path, two_stays())
    assert list((tmp_path / "data").iterdir()) == []
    assert cells(stays, 0, "heart_rate") == {0: 80}
    with pytest.raises(UserError, match="all 2 stays were left out"):
        read_stays(tmp_path / "old", two_stays(), rules=WindowRules(minimum_age=80))
    assert list((tmp_path / "old/data").iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"bin_hours": 5}, "48 hours cannot be divided into bins of 5: give --hours a multiple of --bin-hours"),
        ({"minimum_hours": 0}, "--minimum-hours must be 1 or more, got 0"),
        ({"maximum_age": 17}, "--maximum-age 17 is below --minimum-age 18"),
    ],
)
def test_rules_that_cannot_be(tmp_path: Path, changed: dict, told: str) -> None:
    """Lengths and ages that cannot be are refused."""
    with pytest.raises(UserError, match=told):
        read_stays(tmp_path, two_stays(), rules=replace(WindowRules(), **changed))
